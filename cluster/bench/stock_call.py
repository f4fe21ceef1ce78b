"""A call of the stock worker: default turn handling over engines behind HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, cast

import httpx
from livekit import agents, rtc
from livekit.agents import inference, llm, stt, tokenize, tts


async def carry(job: agents.JobContext, config: dict[str, Any]) -> None:
    """Start the session of one call.

    Args:
        job: The call.
        config: `urls` of STT, LLM and TTS; `instructions`, `examples`, `greeting`, `max_tokens`; `rate` of speech, Hz.
    """
    # Of this call alone: calls in threads have a loop each, and a connection belongs to one.
    http = httpx.AsyncClient(timeout=30)
    job.add_shutdown_callback(http.aclose)
    stt_url, llm_url, tts_url = config["urls"]
    vad = inference.VAD()
    session: agents.AgentSession[None] = agents.AgentSession(
        stt=stt.StreamAdapter(stt=_Stt(http, stt_url), vad=vad),
        vad=vad,
        llm=_Llm(http, llm_url, config),
        tts=tts.StreamAdapter(
            tts=_Tts(http, tts_url, config["rate"]), sentence_tokenizer=tokenize.basic.SentenceTokenizer()
        ),
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
    if config["greeting"]:
        session.say(config["greeting"])


class _Stt(stt.STT[Any]):
    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=False, interim_results=False))
        self._http, self._url = http, url

    async def _recognize_impl(self, buffer: Any, *, language: Any = None, conn_options: Any) -> stt.SpeechEvent:
        frame = rtc.combine_audio_frames(buffer)
        headers = {"rate": str(frame.sample_rate)}
        answer = await self._http.post(f"{self._url}/stt", content=bytes(frame.data), headers=headers)
        answer.raise_for_status()
        data = stt.SpeechData(language=agents.LanguageCode("en"), text=answer.json()["text"])
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])


class _Llm(llm.LLM[Any]):
    def __init__(self, http: httpx.AsyncClient, url: str, config: dict[str, Any]) -> None:
        super().__init__()
        self.http, self.url, self.config = http, url, config

    def chat(self, *, chat_ctx: llm.ChatContext, tools: Any = None, **options: Any) -> llm.LLMStream:
        conn = options.get("conn_options", agents.DEFAULT_API_CONNECT_OPTIONS)
        return _Answer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn)


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        source = cast(_Llm, self._llm)
        messages: list[dict[str, Any]] = cast(Any, self._chat_ctx).to_provider_format("openai")[0]
        examples: list[dict[str, Any]] = source.config["examples"]
        system = [m for m in messages if m["role"] == "system"]
        spoken = [m for m in messages if m["role"] != "system"]
        body = {"messages": [*system, *examples, *spoken], "max_tokens": source.config["max_tokens"]}
        async with source.http.stream("POST", f"{source.url}/llm", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                delta = llm.ChoiceDelta(role="assistant", content=json.loads(line)["text"])
                self._event_ch.send_nowait(llm.ChatChunk(id="stock", delta=delta))


class _Tts(tts.TTS[Any]):
    def __init__(self, http: httpx.AsyncClient, url: str, rate: int) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=rate, num_channels=1)
        self.http, self.url = http, url

    def synthesize(self, text: str, *, conn_options: Any = agents.DEFAULT_API_CONNECT_OPTIONS) -> tts.ChunkedStream:
        return _Speech(tts=self, input_text=text, conn_options=conn_options)


class _Speech(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        source = cast(_Tts, self._tts)
        output_emitter.initialize(
            request_id="stock", sample_rate=source.sample_rate, num_channels=1, mime_type="audio/pcm"
        )
        async with source.http.stream("POST", f"{source.url}/tts", json={"text": self.input_text}) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                output_emitter.push(base64.b64decode(json.loads(line)["audio"]))
        output_emitter.flush()
