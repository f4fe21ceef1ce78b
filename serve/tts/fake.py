"""A synthesiser for tests: a tone as long as the text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
from pydantic import Field

from serve.audio import duration, from_float
from serve.config import Strict
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest, Usage
from serve.errors import BadRequest
from serve.fakes import Failure, fail
from serve.tts.text import check, plain

_CHUNK_SECONDS = 0.05
_LEVEL = 0.3


class Options(Strict):
    """Options of the fake synthesiser.

    Attributes:
        sample_rate: Hz.
        seconds_per_character: Length of the tone.
        tone: Hz of the tone.
        delay: Seconds before each chunk of 50 ms.
        fail_after: Chunks before the speech breaks off; None: it does not.
        failure: The error's class.
        voices: Names it accepts as voice.
        max_characters: Longer texts are refused.
    """

    sample_rate: int = Field(default=16000, ge=8000, le=48000)
    seconds_per_character: float = Field(default=0.05, gt=0)
    tone: float = Field(default=440.0, gt=0)
    delay: float = Field(default=0.0, ge=0)
    fail_after: int | None = Field(default=None, ge=0)
    failure: Failure = "EngineFailed"
    voices: tuple[str, ...] = ("tone",)
    max_characters: int = Field(default=20_000, ge=1)


class FakeTextToSpeech:
    """Hums. `produced` counts the chunks made, for tests of cancellation."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self.produced = 0

    @property
    def capabilities(self) -> Capabilities:
        """As the options say."""
        return Capabilities(streaming=True, sample_rate=self._options.sample_rate, voices=self._options.voices)

    async def load(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the tone."""
        check(request, self._options.max_characters)
        if request.voice is not None and request.voice not in self._options.voices:
            raise BadRequest("voice", f"no voice {request.voice!r}; choose one of {', '.join(self._options.voices)}")
        rate = self._options.sample_rate
        total = round(len(plain(request.text)) * self._options.seconds_per_character * rate / request.speed)
        step, made = round(_CHUNK_SECONDS * rate), 0.0
        for number, start in enumerate(range(0, total, step)):
            await asyncio.sleep(self._options.delay)
            if number == self._options.fail_after:
                fail(self._options.failure)
            time = np.arange(start, min(start + step, total)) / rate
            audio = from_float((_LEVEL * np.sin(2 * np.pi * self._options.tone * time)).astype(np.float32))
            made += duration(audio, rate)
            self.produced += 1
            yield SpeechChunk(audio, rate)
        yield SpeechChunk(b"", rate, Usage(audio_seconds=made, characters=len(request.text)))
