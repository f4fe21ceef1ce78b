"""The parent's side of synthesisers that run in child processes, because they are under GPL: what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from serve.audio import Trimmer, duration, silence
from serve.config import Strict
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest, Usage
from serve.errors import BadRequest, EngineMissing
from serve.hub import local_path
from serve.tts.text import GAP_SECONDS, check, pieces, plain
from serve.worker import Worker

_START_SECONDS = 120.0
"""Until a model is in memory: a large one from a slow disk, or a GPU that is set up."""


class HostedOptions(Strict):
    """Options that all of them have.

    Attributes:
        processes: Texts spoken at once; a request more waits for one of them.
        max_characters: Longer texts are refused.
        answer_seconds: A process that makes no audio for so long is restarted.
    """

    processes: int = Field(default=1, ge=1, le=16)
    max_characters: int = Field(default=20_000, ge=1)
    answer_seconds: float = Field(default=10.0, gt=0)


class HostedVoice(NamedTuple):
    """A voice that the child has: its sample rate in Hz and its language, BCP 47."""

    rate: int
    language: str


class HostedSpeech:
    """Speaks by child processes that host `child`; audio as it is made.

    The child's class has `describe()`, which returns the sample rate in Hz and the voices by name, and `speak(emit,
    texts, voice, speed)`, which emits pcm16 mono and b"" after each text.
    """

    child: ClassVar[str]
    """`module:Class`."""
    piece: ClassVar[int] = 300
    """Characters that the child is given at once; it can be interrupted at least between two of them."""

    def __init__(self, options: HostedOptions) -> None:
        self._hosted = options
        self._workers: list[Worker] = []
        self._waiting = [0] * options.processes
        self._rate = 0
        self._voices: dict[str, HostedVoice] = {}

    @property
    def capabilities(self) -> Capabilities:
        """The voices there are, and the sample rate of the default one, once loaded."""
        languages = dict.fromkeys(voice.language for voice in self._voices.values() if voice.language)
        return Capabilities(True, self._rate or None, tuple(languages), voices=tuple(self._voices))

    async def load(self) -> None:
        """Fetch what is not here, and start the processes."""
        arguments = await asyncio.to_thread(self.arguments)
        self._workers = [
            Worker(self.child, arguments, start_timeout=_START_SECONDS) for _ in range(self._hosted.processes)
        ]
        try:
            # The first one alone: it says what is missing, and the others then find its files in memory.
            await self._workers[0].start()
            self._rate, voices = await self._workers[0].call("describe", within=self._hosted.answer_seconds)
            self._voices = {name: HostedVoice(*voice) for name, voice in voices.items()}
            await asyncio.gather(*(worker.start() for worker in self._workers[1:]))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the processes."""
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the child's class; may block for as long as a download takes."""
        return {}

    def voice_of(self, request: SpeechRequest) -> tuple[str, int]:
        """Return the name of the voice that speaks, and its sample rate in Hz; the first voice is the default.

        Raises:
            BadRequest: There is no such voice.
        """
        name = request.voice or self._speaks(request.language)
        if name not in self._voices:
            raise BadRequest("voice", f"no voice {name!r}; choose one of {', '.join(self._voices)}")
        return name, self._voices[name].rate

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it is made."""
        check(request, self._hosted.max_characters)
        if not self._workers:
            raise EngineMissing(f"{type(self).__name__} is not loaded")
        began, seconds = time.perf_counter(), 0.0
        voice, rate = self.voice_of(request)
        texts = pieces(plain(request.text), self.piece)
        number = self._waiting.index(min(self._waiting))
        self._waiting[number] += 1
        chunks = self._workers[number].stream("speak", texts, voice, request.speed, within=self._hosted.answer_seconds)
        trimmer, gap = Trimmer(rate), b""
        try:
            if texts:
                async for made in chunks:
                    kept = trimmer.feed(made) if made else trimmer.finish()
                    if kept:
                        audio, gap = gap + kept, b""
                        seconds += duration(audio, rate)
                        yield SpeechChunk(audio, rate)
                    if not made:
                        trimmer, gap = Trimmer(rate), silence(GAP_SECONDS, rate)
        finally:
            self._waiting[number] -= 1
            await chunks.aclose()
        usage = Usage(audio_seconds=seconds, characters=len(request.text), busy_seconds=time.perf_counter() - began)
        yield SpeechChunk(b"", rate, usage)

    def _speaks(self, language: str | None) -> str:
        """Return the first voice of a language, of whatever region; the default where none is."""
        default = next(iter(self._voices), "")
        if language is None:
            return default
        wanted = _primary(language)
        return next((name for name, voice in self._voices.items() if _primary(voice.language) == wanted), default)


def local(reference: str, what: str) -> Path:
    """Return where a file or folder is that a path or an hf:// reference names; blocks while the hub's is fetched.

    Raises:
        EngineMissing: There is none; names it, and `what` it should be.
        ParleyError: What the hub says.
    """
    path = local_path(reference)
    if not path.exists():
        raise EngineMissing(f"no file {path}: {what}")
    return path


def _primary(language: str) -> str:
    return language.lower().replace("_", "-").split("-")[0]
