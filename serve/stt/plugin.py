"""Any livekit-agents STT plugin as an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from pydantic import Field

from serve.audio import Resampler, check, duration, resample
from serve.contracts import Capabilities, Segment, TranscribeRequest, Transcript, Usage, Word
from serve.errors import BadRequest, EngineMissing, StreamLost
from serve.plugins import Hosted, PluginOptions, name, release

if TYPE_CHECKING:
    from livekit import rtc
    from livekit.agents import stt

_SHORTEST = 0.05
"""Seconds under which there is no word, and nothing to pay for."""
_FRAME_SECONDS = 0.1
_GRACE_SECONDS = 0.1
"""After a final transcript that came after the end: a second one, if any, is on its way."""


class Options(PluginOptions):
    """Options of a hosted recogniser.

    Attributes:
        sample_rate: Hz of the audio that the plugin is fed.
        streamed: Whole utterances too go through the plugin's `stream`, though it has `recognize`.
        settle_seconds: Where the plugin does not end its stream by itself soon after the audio: without words that
            still wait to be final, and without new ones for so long, an utterance is complete.
        max_audio_seconds: Longer audio is refused.
    """

    sample_rate: int = Field(default=16000, ge=8000, le=48000)
    streamed: bool = False
    settle_seconds: float | None = Field(default=None, gt=0)
    max_audio_seconds: float = Field(default=600.0, gt=0)


class PluginSpeechToText:
    """Hears by a plugin's `recognize`, and by its `stream` while a person speaks."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self.options = options
        self.hosted: Hosted[stt.STT[Any]] = Hosted(options, "audio")
        self._capabilities: stt.STTCapabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Streams where the plugin does, known once loaded."""
        theirs = self._capabilities
        return Capabilities(
            streaming=theirs is not None and theirs.streaming,
            sample_rate=self.options.sample_rate,
            words=theirs is not None and theirs.aligned_transcript == "word",
        )

    async def load(self) -> None:
        """Build the plugin."""
        self._capabilities = (await self.hosted.load()).capabilities

    async def warm(self) -> None:
        """Open the connection to the provider."""
        await self.hosted.warm()

    async def close(self) -> None:
        """Close the plugin."""
        await self.hosted.close()

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Transcribe one whole utterance."""
        check(request.audio, request.sample_rate)
        seconds = self.bounded(duration(request.audio, request.sample_rate))
        language, began = name("language", request.language), time.perf_counter()
        if self._capabilities is None:
            raise EngineMissing(f"{self.hosted.name} is not loaded")
        if seconds < _SHORTEST:
            return Transcript("", language=language, usage=Usage(audio_seconds=seconds))
        audio = resample(request.audio, request.sample_rate, self.options.sample_rate)
        heard = await self.hosted.caller.once(lambda: self._ask(audio, language))
        return transcript(heard, language, seconds, time.perf_counter() - began)

    async def open(self, sample_rate: int, language: str | None) -> Utterance:
        """Begin an utterance; its words come back while it is spoken."""
        check(b"", sample_rate)
        if not self.capabilities.streaming:
            raise BadRequest("model", f"{self.hosted.name} does not stream; send whole utterances")
        utterance = Utterance(self, sample_rate, name("language", language))
        await utterance.begin()
        return utterance

    def bounded(self, seconds: float) -> float:
        """Return the length of audio.

        Raises:
            BadRequest: It is too long.
        """
        if seconds > self.options.max_audio_seconds:
            raise BadRequest("audio", f"longer than {self.options.max_audio_seconds:.0f} s: send it in parts")
        return seconds

    async def _ask(self, audio: bytes, language: str | None) -> list[stt.SpeechData]:
        if self._capabilities is not None and (self.options.streamed or not self._capabilities.offline_recognize):
            utterance = Utterance(self, self.options.sample_rate, language)
            await utterance.begin()
            try:
                utterance.push(audio)
                return await utterance.heard()
            finally:
                await utterance.close()
        async with self.hosted.instance(language=language) as plugin:
            options: dict[str, Any] = {**self.spoken(language), "conn_options": self.hosted.connect_options()}
            frames = list(self.frames(audio))
            event = await self.hosted.within(asyncio.ensure_future, plugin.recognize(frames, **options))
            return event.alternatives[:1]

    def spoken(self, language: str | None) -> dict[str, Any]:
        """Return the argument that names a language, where the plugin takes it with the audio."""
        return {"language": language} if language and "language" not in self.options.takes else {}

    def frames(self, audio: bytes) -> Iterator[rtc.AudioFrame]:
        """Cut audio at the plugin's rate into frames."""
        from livekit import rtc

        step = 2 * round(self.options.sample_rate * _FRAME_SECONDS)
        for start in range(0, len(audio), step):
            piece = audio[start : start + step]
            yield rtc.AudioFrame(piece, self.options.sample_rate, 1, len(piece) // 2)


class Utterance:
    """An utterance on a stream of the plugin."""

    def __init__(self, engine: PluginSpeechToText, sample_rate: int, language: str | None) -> None:
        self._engine, self._rate, self._language = engine, sample_rate, language
        self._resampler = Resampler(sample_rate, engine.options.sample_rate)
        self._open = AsyncExitStack()
        self._stream: stt.RecognizeStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._finals: list[stt.SpeechData] = []
        self._interim = ""
        self._seconds, self._began, self._ended = 0.0, time.perf_counter(), 0.0

    async def begin(self) -> None:
        """Open the plugin's stream; it connects by itself."""
        hosted = self._engine.hosted
        plugin = await self._open.enter_async_context(hosted.instance(language=self._language))
        options: dict[str, Any] = {**self._engine.spoken(self._language), "conn_options": hosted.connect_options()}
        self._stream = hosted.within(lambda: plugin.stream(**options))
        self._reader = asyncio.create_task(self._read(self._stream))

    async def feed(self, audio: bytes) -> str:
        """Send one more piece; return what is understood so far."""
        self._seconds = self._engine.bounded(self._seconds + duration(audio, self._rate))
        await self._check()
        self.push(self._resampler.feed(audio))
        return self._text()

    async def finish(self) -> Transcript:
        """End the utterance and wait for the rest of its text."""
        ended = time.perf_counter()
        try:
            await self._check()
            self.push(self._resampler.feed(b"", last=True))
            heard = await self._engine.hosted.single.once(self.heard)
        finally:
            await self.close()
        return transcript(heard, self._language, self._seconds, time.perf_counter() - ended)

    async def close(self) -> None:
        """Close the stream."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await release(stream)
        await self._open.aclose()

    def push(self, audio: bytes) -> None:
        """Send audio at the plugin's rate."""
        stream = self._running()
        # It refuses once it broke: what it broke on, the reader tells.
        with suppress(RuntimeError):
            for frame in self._engine.frames(audio):
                stream.push_frame(frame)

    async def heard(self) -> list[stt.SpeechData]:
        """End the input and return all of what was understood."""
        stream, reader = self._running(), self._reader
        assert reader is not None
        with suppress(RuntimeError):
            stream.end_input()
        settle, before = self._engine.options.settle_seconds, len(self._finals)
        while not reader.done():
            wait = settle
            if settle is not None and self._interim:
                wait = None
            elif settle is not None and len(self._finals) > before:
                wait = min(settle, _GRACE_SECONDS)
            self._news.clear()
            news = asyncio.ensure_future(self._news.wait())
            try:
                done, _ = await asyncio.wait({news, reader}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if not done:
                return self._finals
        reader.result()
        return self._finals

    async def _check(self) -> None:
        """Raise what the stream broke on."""
        self._running()
        reader = self._reader
        if reader is not None and reader.done():

            async def broken() -> None:
                reader.result()
                raise StreamLost(f"{self._engine.hosted.name} ended the stream")

            await self._engine.hosted.single.once(broken)

    def _running(self) -> stt.RecognizeStream:
        if self._stream is None:
            raise StreamLost("the utterance has ended")
        return self._stream

    async def _read(self, stream: stt.RecognizeStream) -> None:
        from livekit.agents.stt import SpeechEventType

        async for event in stream:
            if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                self._finals += event.alternatives[:1]
                self._interim = ""
            elif event.type is SpeechEventType.INTERIM_TRANSCRIPT and event.alternatives:
                self._interim = event.alternatives[0].text
            self._news.set()

    def _text(self) -> str:
        return " ".join(text for text in (*(each.text for each in self._finals), self._interim) if text.strip()).strip()


def transcript(heard: list[stt.SpeechData], language: str | None, seconds: float, busy: float) -> Transcript:
    """Return LiveKit's finals as ours."""
    said = [each for each in heard if each.text and each.text.strip()]
    sure = [each.confidence for each in said if each.confidence > 0]
    return Transcript(
        " ".join(each.text.strip() for each in said),
        language=(str(said[0].language) if said else None) or language,
        confidence=sum(sure) / len(sure) if sure else None,
        words=tuple(word for each in said for word in _words(each)),
        segments=tuple(Segment(each.text.strip(), each.start_time, each.end_time) for each in said if each.end_time),
        usage=Usage(audio_seconds=seconds, busy_seconds=busy),
    )


def _words(heard: stt.SpeechData) -> Iterator[Word]:
    for word in heard.words or []:
        start, end, confidence = word.start_time, word.end_time, word.confidence
        if isinstance(start, int | float) and isinstance(end, int | float) and word.strip():
            sure = float(confidence) if isinstance(confidence, int | float) else None
            yield Word(word.strip(), float(start), float(end), sure)
