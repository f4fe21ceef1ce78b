"""pocketsphinx: a small streaming recogniser whose English model comes inside its wheel."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pydantic import Field

from serve.audio import Resampler, check, duration, resample
from serve.config import Strict
from serve.contracts import Capabilities, TranscribeRequest, Transcript, Usage, Word
from serve.errors import BadRequest, EngineFailed, Overloaded
from serve.stt.pocketsphinx_child import RATE, Heard
from serve.worker import Worker

_CHILD = "serve.stt.pocketsphinx_child:Decoding"
_SLICE = RATE * 2 * 2
"""Bytes of a long recording that go to the decoder at once: two seconds."""


class Options(Strict):
    """Options of pocketsphinx.

    Attributes:
        decoders: Utterances heard at once; a process of about 80 MB each, started when first needed.
        warm: Of these, started with the engine.
        wait_seconds: How long a new utterance waits for a free decoder.
        max_audio_seconds: Longer audio is refused.
        answer_seconds: A decoder that takes longer over one piece is restarted.
        hmm: Acoustic model, a folder; None: the wheel's.
        lm: Language model, a file; None: the wheel's.
        dictionary: Pronunciations, a file; None: the wheel's.
        second_pass: Search again when the utterance has ended: a little more accurate, 80 ms later.
        rescore: Search the first pass's lattice: cheap, and a third fewer wrong words.
        max_hmms: Bound on the work for a frame of 10 ms.
    """

    decoders: int = Field(default=4, ge=1, le=64)
    warm: int = Field(default=1, ge=1)
    wait_seconds: float = Field(default=1.0, ge=0)
    max_audio_seconds: float = Field(default=600.0, gt=0)
    answer_seconds: float = Field(default=30.0, gt=0)
    hmm: str | None = None
    lm: str | None = None
    dictionary: str | None = None
    second_pass: bool = False
    rescore: bool = True
    max_hmms: int = Field(default=5000, ge=100)


class PocketSphinx:
    """Hears English while it is spoken, one decoder process an utterance."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._idle: list[Worker] = []
        self._workers = [Worker(_CHILD, {"config": _config(options)}) for _ in range(options.decoders)]
        self._free = asyncio.Semaphore(options.decoders)

    @property
    def capabilities(self) -> Capabilities:
        """Streams; hears best at 16 kHz."""
        return Capabilities(streaming=True, sample_rate=RATE, languages=("en",))

    async def load(self) -> None:
        """Start the warm decoders."""
        warm = self._workers[: self._options.warm]
        await asyncio.gather(*(worker.start() for worker in warm))
        self._idle = self._workers[len(warm) :] + warm  # taken from the end: warm ones first

    async def close(self) -> None:
        """End the decoders."""
        self._idle = []
        await asyncio.gather(*(worker.close() for worker in self._workers))

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Transcribe one whole utterance."""
        check(request.audio, request.sample_rate)
        self._bound(duration(request.audio, request.sample_rate))
        audio = resample(request.audio, request.sample_rate, RATE)
        stream = await self.open(RATE, request.language)
        try:
            for start in range(0, len(audio), _SLICE):
                await stream.feed(audio[start : start + _SLICE])
            return await stream.finish()
        finally:
            await stream.close()

    async def open(self, sample_rate: int, language: str | None) -> Utterance:
        """Begin an utterance on a free decoder."""
        check(b"", sample_rate)
        if language is not None and language.split("-")[0].lower() != "en":
            raise BadRequest("language", "this model hears English only: en")
        try:
            async with asyncio.timeout(self._options.wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded(f"all {self._options.decoders} decoders are taken") from None
        if not self._idle:
            self._free.release()
            raise EngineFailed("pocketsphinx is not loaded")
        utterance = Utterance(self, self._idle.pop(), sample_rate, self._options)
        try:
            await utterance.begin()
        except BaseException:
            await utterance.close()
            raise
        return utterance

    def give_back(self, worker: Worker) -> None:
        """Take a decoder back from an utterance."""
        self._idle.append(worker)
        self._free.release()

    def _bound(self, seconds: float) -> None:
        if seconds > self._options.max_audio_seconds:
            raise BadRequest("audio", f"longer than {self._options.max_audio_seconds:.0f} s: send it in parts")


class Utterance:
    """An utterance on a decoder of its own."""

    def __init__(self, engine: PocketSphinx, worker: Worker, sample_rate: int, options: Options) -> None:
        self._engine = engine
        self._worker: Worker | None = worker
        self._resampler = Resampler(sample_rate, RATE)
        self._rate = sample_rate
        self._options = options
        self._seconds = self._busy = 0.0
        self._order = asyncio.Lock()

    async def begin(self) -> None:
        """Clear the decoder."""
        await self._call("start")

    async def feed(self, audio: bytes) -> str:
        """Decode one more piece of any length."""
        self._seconds += duration(audio, self._rate)
        if self._seconds > self._options.max_audio_seconds:
            raise BadRequest("audio", f"longer than {self._options.max_audio_seconds:.0f} s: send it in parts")
        async with self._order:
            return str(await self._call("feed", self._resampler.feed(audio)))

    async def finish(self) -> Transcript:
        """Decode what is left, and free the decoder."""
        try:
            async with self._order:
                if rest := self._resampler.feed(b"", last=True):
                    await self._call("feed", rest)
                heard: Heard = await self._call("finish")
        finally:
            await self.close()
        text, words = heard
        sure = [word[3] for word in words]
        return Transcript(
            text,
            language="en",
            confidence=sum(sure) / len(sure) if sure else None,
            words=tuple(Word(*word) for word in words),
            usage=Usage(audio_seconds=self._seconds, busy_seconds=self._busy),
        )

    async def close(self) -> None:
        """Give the decoder back; what it still decodes ends before its next utterance begins."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._engine.give_back(worker)

    async def _call(self, method: str, *arguments: Any) -> Any:
        if self._worker is None:
            raise EngineFailed("the utterance has ended")
        began = time.perf_counter()
        try:
            return await self._worker.call(method, *arguments, within=self._options.answer_seconds)
        finally:
            self._busy += time.perf_counter() - began


def _config(options: Options) -> dict[str, Any]:
    chosen = {"hmm": options.hmm, "lm": options.lm, "dict": options.dictionary}
    return {
        "fwdflat": options.second_pass,
        "bestpath": options.rescore,
        "maxhmmpf": options.max_hmms,
        **{key: value for key, value in chosen.items() if value is not None},
    }
