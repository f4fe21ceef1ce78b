"""The obvious alternative, for comparison: the same engines behind plain HTTP servers, and a stock LiveKit worker.

Written as the documentation of livekit-agents suggests it to a newcomer: default turn handling, a `StreamAdapter` for
speech to text, a sentence tokenizer for speech. Only benchmarks use it. Run by `parley bench voice --compare` and
`parley bench calls`:

    python -m cluster.bench.stock engine <engine> <port>     one engine behind HTTP
    python -m cluster.bench.stock worker                     the worker; a call of it is in `stock_call.py`
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

# FastAPI looks for the types of handlers' arguments here.
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from serve.contracts import ChatRequest, LanguageModel, SpeechRequest, SpeechToText, TextToSpeech, TranscribeRequest

if TYPE_CHECKING:
    from livekit import agents

AGENT_NAME = "stock"
REGISTERED = "registered"
"""What the worker prints once LiveKit knows it."""


def serve_engine(engine_name: str, options: dict[str, Any], port: int) -> None:
    """Serve one engine over HTTP until the process is ended."""
    import uvicorn

    from serve import registry

    engine = registry.create(engine_name, options)
    app = FastAPI()
    app.router.add_event_handler("startup", engine.load)

    async def stt(request: Request) -> dict[str, str]:
        body = await request.body()
        transcript = await cast(SpeechToText, engine).transcribe(TranscribeRequest(body, int(request.headers["rate"])))
        return {"text": transcript.text}

    async def llm(request: Request) -> StreamingResponse:
        wanted = ChatRequest(**await request.json())

        async def lines() -> AsyncGenerator[str]:
            async for chunk in cast(LanguageModel, engine).chat(wanted):
                yield json.dumps({"text": chunk.text}) + "\n"

        return StreamingResponse(lines())

    async def tts(request: Request) -> StreamingResponse:
        wanted = SpeechRequest(**await request.json())

        async def lines() -> AsyncGenerator[str]:
            async for chunk in cast(TextToSpeech, engine).speak(wanted):
                audio = base64.b64encode(chunk.audio).decode()
                yield json.dumps({"audio": audio, "rate": chunk.sample_rate}) + "\n"

        return StreamingResponse(lines())

    async def ready() -> dict[str, bool]:
        return {"ready": True}

    app.get("/ready")(ready)
    app.post("/stt", response_model=None)(stt)
    app.post("/llm", response_model=None)(llm)
    app.post("/tts", response_model=None)(tts)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def run_worker(executor: str) -> None:
    """Run a stock worker until the process is ended; LIVEKIT_* come from the environment."""
    from livekit import agents

    kind = agents.JobExecutorType.THREAD if executor == "thread" else agents.JobExecutorType.PROCESS
    # It takes every call: its own measure of load is the machine's, on which callers and models are, too.
    server = agents.AgentServer(
        job_executor_type=kind, num_idle_processes=1, port=0, load_fnc=lambda: 0.0, load_threshold=1.0
    )
    server.rtc_session(entrypoint, agent_name=AGENT_NAME)
    server.on("worker_registered", lambda *_: print(REGISTERED, flush=True))
    asyncio.run(server.run())


async def entrypoint(job: agents.JobContext) -> None:
    """Carry one call, in a process or a thread of its own."""
    from cluster.bench import stock_call

    await stock_call.carry(job, _config())


def _config() -> dict[str, Any]:
    """Return this process's configuration; those that the worker starts inherit it."""
    return json.loads(os.environ["PARLEY_STOCK"])


def main() -> None:
    """Run one of the processes; its configuration is JSON in PARLEY_STOCK."""
    config = _config()
    match sys.argv[1:]:
        case ["engine", engine, port]:
            serve_engine(engine, config, int(port))
        case ["worker"]:
            run_worker(config["executor"])
        case _:
            sys.exit("usage: python -m cluster.bench.stock engine ENGINE PORT | worker")


if __name__ == "__main__":
    main()
