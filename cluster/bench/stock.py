"""The obvious alternative, for comparison: the same engines behind plain HTTP servers, and a stock LiveKit worker.

Written as the documentation of livekit-agents suggests it to a newcomer: default turn handling, a `StreamAdapter` for
speech to text, a sentence tokenizer for speech. Only the benchmark uses it. Run by `parley bench voice --compare`:

    python -m cluster.bench.stock engine <engine> <port>     one engine behind HTTP
    python -m cluster.bench.stock worker <stt> <llm> <tts>   the worker, with the engines' addresses
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx

# FastAPI looks for the types of handlers' arguments here.
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from serve.contracts import ChatRequest, LanguageModel, SpeechRequest, SpeechToText, TextToSpeech, TranscribeRequest

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


def run_worker(stt_url: str, llm_url: str, tts_url: str, config: dict[str, Any]) -> None:
    """Run a stock worker until the process is ended; LIVEKIT_* come from the environment."""
    from livekit import agents, rtc
    from livekit.agents import inference, llm, stt, tokenize, tts

    http = httpx.AsyncClient(timeout=30)

    class HttpStt(stt.STT[Any]):
        def __init__(self) -> None:
            super().__init__(capabilities=stt.STTCapabilities(streaming=False, interim_results=False))

        async def _recognize_impl(self, buffer: Any, *, language: Any = None, conn_options: Any) -> stt.SpeechEvent:
            frame = rtc.combine_audio_frames(buffer)
            headers = {"rate": str(frame.sample_rate)}
            answer = await http.post(f"{stt_url}/stt", content=bytes(frame.data), headers=headers)
            answer.raise_for_status()
            data = stt.SpeechData(language=agents.LanguageCode("en"), text=answer.json()["text"])
            return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])

    class HttpLlm(llm.LLM[Any]):
        def chat(self, *, chat_ctx: llm.ChatContext, tools: Any = None, **options: Any) -> llm.LLMStream:
            conn = options.get("conn_options", agents.DEFAULT_API_CONNECT_OPTIONS)
            return HttpAnswer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn)

    class HttpAnswer(llm.LLMStream):
        async def _run(self) -> None:
            messages: list[dict[str, Any]] = cast(Any, self._chat_ctx).to_provider_format("openai")[0]
            examples: list[dict[str, Any]] = config["examples"]
            system = [m for m in messages if m["role"] == "system"]
            spoken = [m for m in messages if m["role"] != "system"]
            body = {"messages": [*system, *examples, *spoken], "max_tokens": config["max_tokens"]}
            async with http.stream("POST", f"{llm_url}/llm", json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    delta = llm.ChoiceDelta(role="assistant", content=json.loads(line)["text"])
                    self._event_ch.send_nowait(llm.ChatChunk(id="stock", delta=delta))

    class HttpTts(tts.TTS[Any]):
        def __init__(self) -> None:
            super().__init__(
                capabilities=tts.TTSCapabilities(streaming=False), sample_rate=config["rate"], num_channels=1
            )

        def synthesize(self, text: str, *, conn_options: Any = agents.DEFAULT_API_CONNECT_OPTIONS) -> tts.ChunkedStream:
            return HttpSpeech(tts=self, input_text=text, conn_options=conn_options)

    class HttpSpeech(tts.ChunkedStream):
        async def _run(self, output_emitter: tts.AudioEmitter) -> None:
            output_emitter.initialize(
                request_id="stock", sample_rate=config["rate"], num_channels=1, mime_type="audio/pcm"
            )
            async with http.stream("POST", f"{tts_url}/tts", json={"text": self.input_text}) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    output_emitter.push(base64.b64decode(json.loads(line)["audio"]))
            output_emitter.flush()

    async def entrypoint(job: agents.JobContext) -> None:
        vad = inference.VAD()
        session: agents.AgentSession[None] = agents.AgentSession(
            stt=stt.StreamAdapter(stt=HttpStt(), vad=vad),
            vad=vad,
            llm=HttpLlm(),
            tts=tts.StreamAdapter(tts=HttpTts(), sentence_tokenizer=tokenize.basic.SentenceTokenizer()),
            turn_handling={
                "turn_detection": inference.TurnDetector(version="v1-mini"),
                "interruption": {"mode": "vad"},
            },
        )

        def told(event: Any) -> None:
            if isinstance(event.item, llm.ChatMessage) and event.item.role == "assistant" and asked:
                turn: dict[str, Any] = {
                    "heard": asked.pop(),
                    "answer": event.item.text_content or "",
                    "stages": {},
                    "error": None,
                }
                tasks.append(
                    asyncio.create_task(job.room.local_participant.send_text(json.dumps(turn), topic="parley.turn"))
                )
            elif isinstance(event.item, llm.ChatMessage) and event.item.role == "user":
                asked.append(event.item.text_content or "")

        asked: list[str] = []
        tasks: list[asyncio.Task[Any]] = []
        session.on("conversation_item_added", told)
        await job.connect()
        await session.start(agents.Agent(instructions=config["instructions"]), room=job.room, record=False)
        session.say(config["greeting"])

    server = agents.AgentServer(
        job_executor_type=agents.JobExecutorType.THREAD, num_idle_processes=1, port=0, load_threshold=1.0
    )
    server.rtc_session(entrypoint, agent_name=AGENT_NAME)
    server.on("worker_registered", lambda *_: print(REGISTERED, flush=True))
    asyncio.run(server.run())


def main() -> None:
    """Run one of the processes; its configuration is JSON in PARLEY_STOCK."""
    config: dict[str, Any] = json.loads(os.environ["PARLEY_STOCK"])
    match sys.argv[1:]:
        case ["engine", engine, port]:
            serve_engine(engine, config, int(port))
        case ["worker", stt_url, llm_url, tts_url]:
            run_worker(stt_url, llm_url, tts_url, config)
        case _:
            sys.exit("usage: python -m cluster.bench.stock engine ENGINE PORT | worker STT LLM TTS")


if __name__ == "__main__":
    main()
