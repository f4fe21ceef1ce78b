"""espeak-ng: formant synthesis for a hundred languages, installed by pip alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from pydantic import Field

from serve.audio import Trimmer, duration, silence
from serve.config import Strict
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest, Usage
from serve.errors import BadRequest
from serve.tts.text import GAP_SECONDS, check, pieces, plain
from serve.worker import Worker

_CHILD = "serve.tts.espeak_child:Speaking"
_PIECE = 300


class Options(Strict):
    """Options of espeak.

    Attributes:
        voice: A voice of espeak, a variant behind a plus.
        processes: Texts spoken at once; a request more waits some milliseconds.
        max_characters: Longer texts are refused.
        answer_seconds: A process that makes no audio for so long is restarted.
    """

    voice: str = "en-us+klatt"
    processes: int = Field(default=1, ge=1, le=16)
    max_characters: int = Field(default=20_000, ge=1)
    answer_seconds: float = Field(default=10.0, gt=0)


class Espeak:
    """Speaks; audio as it is made, in a child process."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._workers = [Worker(_CHILD) for _ in range(options.processes)]
        self._waiting = [0] * options.processes
        self._rate = 22050

    @property
    def capabilities(self) -> Capabilities:
        """22.05 kHz; any voice that espeak knows."""
        return Capabilities(streaming=True, sample_rate=self._rate)

    async def load(self) -> None:
        """Start the first process."""
        await self._workers[0].start()
        self._rate = int(await self._workers[0].call("rate", within=self._options.answer_seconds))

    async def close(self) -> None:
        """End the processes."""
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it is made."""
        check(request, self._options.max_characters)
        began, seconds = time.perf_counter(), 0.0
        texts = pieces(plain(request.text), _PIECE)
        # Letters, digits and the like only: the name reaches a C library, and paths are none of a caller's business.
        voice = request.voice or request.language or self._options.voice
        if not all(character.isalnum() or character in "+-_" for character in voice):
            raise BadRequest("voice", "only letters, digits, +, - and _")
        number = self._waiting.index(min(self._waiting))
        self._waiting[number] += 1
        chunks = self._workers[number].stream("speak", texts, voice, request.speed, within=self._options.answer_seconds)
        trimmer, gap = Trimmer(self._rate), b""
        try:
            if texts:
                async for made in chunks:
                    kept = trimmer.feed(made) if made else trimmer.finish()
                    if kept:
                        audio, gap = gap + kept, b""
                        seconds += duration(audio, self._rate)
                        yield SpeechChunk(audio, self._rate)
                    if not made:
                        trimmer, gap = Trimmer(self._rate), silence(GAP_SECONDS, self._rate)
        finally:
            self._waiting[number] -= 1
            await chunks.aclose()
        usage = Usage(audio_seconds=seconds, characters=len(request.text), busy_seconds=time.perf_counter() - began)
        yield SpeechChunk(b"", self._rate, usage)
