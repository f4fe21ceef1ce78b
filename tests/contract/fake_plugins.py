"""Plugins by LiveKit's own base classes, with no provider behind them: the adapter's tests host them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
from livekit import rtc
from livekit.agents import NOT_GIVEN, APIConnectOptions, APIError, APIStatusError, llm, stt, tts, utils
from livekit.agents.language import LanguageCode

from tests.contract.conftest import tone

CONNECT = APIConnectOptions()
SAID = "hello from the plugin"


class Failing(Exception):
    """Is no error of LiveKit's."""


def fail(failure: str) -> None:
    """Raise what a plugin raises; "" raises nothing."""
    if failure.isdigit():
        raise APIStatusError("the words of a provider", status_code=int(failure), body={"error": {"code": "oops"}})
    if failure == "api":
        raise APIError("no audio frames were pushed for text: the words of a caller")
    if failure == "bug":
        raise Failing("the words of a caller")


class FakeSTT(stt.STT[Any]):
    """Hears the same in every sound.

    Args:
        streaming: Has a stream.
        offline: Has `recognize`.
        failure: What goes wrong; see `fail`.
        hangs: The stream does not end by itself after its input.
        language: Of all it hears.
    """

    def __init__(
        self,
        *,
        streaming: bool = True,
        offline: bool = True,
        failure: str = "",
        hangs: bool = False,
        language: str = "en",
    ) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(streaming=streaming, interim_results=True, offline_recognize=offline)
        )
        self.failure, self.hangs, self.language = failure, hangs, language
        self.running = 0

    def heard(self, frames: list[rtc.AudioFrame]) -> stt.SpeechEvent:
        sound = any(np.any(np.frombuffer(frame.data, np.int16)) for frame in frames)
        data = stt.SpeechData(language=LanguageCode(self.language), text=SAID if sound else "", confidence=0.5)
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data])

    async def _recognize_impl(self, buffer: Any, *, language: Any = NOT_GIVEN, conn_options: Any) -> stt.SpeechEvent:
        fail(self.failure)
        await asyncio.sleep(0)
        return self.heard(buffer)

    def stream(self, *, language: Any = NOT_GIVEN, conn_options: APIConnectOptions = CONNECT) -> stt.RecognizeStream:
        return FakeRecognizeStream(stt=self, conn_options=conn_options)


class FakeRecognizeStream(stt.RecognizeStream):
    """A word with every frame, everything with the flush."""

    async def _run(self) -> None:
        owner = cast(FakeSTT, self._stt)
        owner.running += 1
        frames: list[rtc.AudioFrame] = []
        try:
            async for frame in self._input_ch:
                if isinstance(frame, rtc.AudioFrame):
                    fail(owner.failure)
                    frames.append(frame)
                    event = owner.heard(frames)
                    event.type = stt.SpeechEventType.INTERIM_TRANSCRIPT
                    event.alternatives[0].text = " ".join(event.alternatives[0].text.split()[: len(frames)])
                    self._event_ch.send_nowait(event)
                else:
                    self._event_ch.send_nowait(owner.heard(frames))
            if owner.hangs:
                await asyncio.Event().wait()
        finally:
            owner.running -= 1


class FakeLLM(llm.LLM[Any]):
    """Repeats the last message, word by word.

    Args:
        max_tokens: Most words.
        failure: What goes wrong before the first word; see `fail`.
        hangs: After the first word nothing comes.
    """

    def __init__(self, *, max_tokens: int | None = None, failure: str = "", hangs: bool = False) -> None:
        super().__init__()
        self.max_tokens, self.failure, self.hangs = max_tokens, failure, hangs
        self.running = 0
        self.asked: list[dict[str, Any]] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = CONNECT,
        parallel_tool_calls: Any = NOT_GIVEN,
        tool_choice: Any = NOT_GIVEN,
        extra_kwargs: Any = NOT_GIVEN,
    ) -> llm.LLMStream:
        self.asked.append({"tool_choice": tool_choice, "extra_kwargs": extra_kwargs})
        return FakeLLMStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class FakeLLMStream(llm.LLMStream):
    """Its words."""

    async def _run(self) -> None:
        owner = cast(FakeLLM, self._llm)
        fail(owner.failure)
        contents = [message.text_content or "" for message in self.chat_ctx.messages()]
        read = sum(len(content.split()) for content in contents)
        if read > 1000:
            body = {"error": {"code": "context_length_exceeded", "message": "too long"}}
            raise APIStatusError("too long", status_code=400, body=body)
        owner.running += 1
        try:
            if self.tools and "call" in contents[-1]:
                call = llm.FunctionToolCall(name="weather", arguments='{"city": "Paris"}', call_id="call_1")
                self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=llm.ChoiceDelta(tool_calls=[call])))
            words = (contents[-1].split() or ["Hm."])[: owner.max_tokens]
            for number, word in enumerate(words):
                delta = llm.ChoiceDelta(role="assistant", content=(" " if number else "") + word)
                self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))
                await asyncio.sleep(0)
                if owner.hangs:
                    await asyncio.Event().wait()
            usage = llm.CompletionUsage(completion_tokens=len(words), prompt_tokens=read or 1, total_tokens=0)
            self._event_ch.send_nowait(llm.ChatChunk(id="1", usage=usage))
        finally:
            owner.running -= 1


class FakeTTS(tts.TTS[Any]):
    """A tone as long as the text.

    Args:
        voice: anna or bert, who is higher.
        speed: 1.0 is its own pace.
        streaming: Has a stream; else `synthesize` alone.
        failure: What goes wrong; see `fail`.
        hangs: After half of the text nothing comes.
    """

    def __init__(
        self,
        *,
        voice: str = "anna",
        speed: float = 1.0,
        streaming: bool = False,
        channels: int = 1,
        failure: str = "",
        hangs: bool = False,
    ) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=streaming), sample_rate=16000, num_channels=channels
        )
        if voice not in ("anna", "bert"):
            raise ValueError(f"no voice {voice}")
        self.hz = 220.0 if voice == "anna" else 330.0
        self.speed, self.failure, self.hangs = speed, failure, hangs
        self.running = 0
        self.texts: list[str] = []

    def synthesize(self, text: str, *, conn_options: APIConnectOptions = CONNECT) -> tts.ChunkedStream:
        return FakeChunkedStream(tts=self, input_text=text, conn_options=conn_options)

    def stream(self, *, conn_options: APIConnectOptions = CONNECT) -> tts.SynthesizeStream:
        return FakeSynthesizeStream(tts=self, conn_options=conn_options)

    async def speak(self, text: str, emitter: tts.AudioEmitter) -> None:
        self.texts.append(text)
        self.running += 1
        try:
            seconds = 0.05 * len(text) / self.speed
            for number in range(round(seconds * 10)):
                emitter.push(tone(0.1, 16000, self.hz))
                await asyncio.sleep(0)
                if self.hangs and number > seconds * 5:
                    emitter.flush()
                    await asyncio.Event().wait()
        finally:
            self.running -= 1


class FakeChunkedStream(tts.ChunkedStream):
    """Its tone."""

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        owner = cast(FakeTTS, self._tts)
        fail(owner.failure)
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=16000, num_channels=1, mime_type="audio/pcm"
        )
        await owner.speak(self._input_text, output_emitter)
        output_emitter.flush()


class FakeSynthesizeStream(tts.SynthesizeStream):
    """Its tone, for text that comes in pieces."""

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        owner = cast(FakeTTS, self._tts)
        fail(owner.failure)
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=16000, num_channels=1, mime_type="audio/pcm", stream=True
        )
        output_emitter.start_segment(segment_id="1")
        async for text in self._input_ch:
            if isinstance(text, str):
                await owner.speak(text, output_emitter)
        output_emitter.end_segment()


class FakeHTTP(tts.TTS[Any]):
    """Finds its HTTP session by LiveKit's context, as plugins do that take none."""

    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=16000, num_channels=1)

    def synthesize(self, text: str, *, conn_options: APIConnectOptions = CONNECT) -> tts.ChunkedStream:
        return FakeHTTPStream(tts=self, input_text=text, conn_options=conn_options)


class FakeHTTPStream(FakeChunkedStream):
    """Asks for the session and speaks."""

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        assert not utils.http_context.http_session().closed
        output_emitter.initialize(
            request_id=utils.shortuuid(), sample_rate=16000, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(tone(0.5, 16000))
        output_emitter.flush()
