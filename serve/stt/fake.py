"""A recogniser for tests: hears what its options say."""

from __future__ import annotations

import asyncio
from itertools import cycle, islice

from pydantic import Field

from serve.audio import check, duration
from serve.config import Strict
from serve.contracts import Capabilities, TranscribeRequest, Transcript, Usage
from serve.errors import BadRequest, Overloaded
from serve.fakes import Failure, fail


class Options(Strict):
    """Options of the fake recogniser.

    Attributes:
        texts: Transcripts, one an utterance, from the start again after the last.
        words_per_second: An utterance is only so many words of its text, by its length; None: the whole text.
        delay: Seconds that a final transcript takes.
        streams: Utterances open at once.
        fail_after: Utterances that go well before one fails; None: all do.
        failure: The error's class.
        max_audio_seconds: Longer audio is refused.
    """

    texts: tuple[str, ...] = ("hello there",)
    words_per_second: float | None = Field(default=None, gt=0)
    delay: float = Field(default=0.0, ge=0)
    streams: int = Field(default=8, ge=1)
    fail_after: int | None = Field(default=None, ge=0)
    failure: Failure = "EngineFailed"
    max_audio_seconds: float = Field(default=600.0, gt=0)


class FakeSpeechToText:
    """Hears its script; "" where the audio is silent. `heard` counts what it was given, in bytes."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self.settings = options
        self.heard = 0
        self.open_streams = 0
        self._utterances = 0

    @property
    def capabilities(self) -> Capabilities:
        """Streams, at any rate."""
        return Capabilities(streaming=True)

    async def load(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Return the next text of the script."""
        stream = await self.open(request.sample_rate, request.language)
        try:
            await stream.feed(request.audio)
            return await stream.finish()
        finally:
            await stream.close()

    async def open(self, sample_rate: int, language: str | None) -> FakeUtterance:
        """Begin an utterance."""
        check(b"", sample_rate)
        if self.open_streams >= self.settings.streams:
            raise Overloaded(f"all {self.settings.streams} decoders are taken")
        self.open_streams += 1
        return FakeUtterance(self, sample_rate, language)

    def next_text(self) -> str:
        """Return the next text of the script.

        Raises:
            ParleyError: It is time to fail.
        """
        number, self._utterances = self._utterances, self._utterances + 1
        if number == self.settings.fail_after:
            fail(self.settings.failure)
        texts = self.settings.texts
        return texts[number % len(texts)] if texts else ""


class FakeUtterance:
    """An utterance: one word of the script a piece, all of it at the end."""

    def __init__(self, engine: FakeSpeechToText, sample_rate: int, language: str | None) -> None:
        self._engine, self._rate, self._language = engine, sample_rate, language
        self._bytes, self._pieces, self._sound, self._open = 0, 0, False, True

    async def feed(self, audio: bytes) -> str:
        """Note that there was sound; return as many words as there were pieces."""
        self._bytes += len(audio)
        self._engine.heard += len(audio)
        if self._bytes / (2 * self._rate) > self._engine.settings.max_audio_seconds:
            raise BadRequest("audio", f"longer than {self._engine.settings.max_audio_seconds:.0f} s")
        self._sound = self._sound or any(audio)
        self._pieces += 1
        texts = self._engine.settings.texts
        return " ".join(texts[0].split()[: self._pieces]) if self._sound and texts else ""

    async def finish(self) -> Transcript:
        """Return the next text of the script."""
        try:
            await asyncio.sleep(self._engine.settings.delay)
            check(bytes(self._bytes % 2), self._rate)
            text = self._engine.next_text() if self._sound else ""
            seconds = duration(b"", self._rate) + self._bytes / (2 * self._rate)
            usage = Usage(audio_seconds=seconds)
            if (pace := self._engine.settings.words_per_second) is not None:
                text = " ".join(islice(cycle(text.split()), max(1, round(seconds * pace)))) if text else ""
            return Transcript(text, language=self._language, usage=usage)
        finally:
            await self.close()

    async def close(self) -> None:
        """Free the place."""
        if self._open:
            self._open = False
            self._engine.open_streams -= 1
