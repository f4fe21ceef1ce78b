"""onnx-asr: Parakeet, Canary, GigaAM, Vosk, T-one and Whisper on ONNX Runtime, on a CPU or a GPU.

ONNX Runtime lets go of the GIL while it works, so the model is in this process, in a thread.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from serve.audio import Floats, check, duration, resample, to_float
from serve.config import Strict
from serve.contracts import Capabilities, TranscribeRequest, Transcript, Usage, Word
from serve.errors import BadRequest, ConfigError, EngineFailed, EngineMissing, ParleyError

RATE = 16_000
_WHISPER_SECONDS = 30.0
"""Whisper hears no further; the library would leave the rest out without a word."""
_LEAST_SECONDS = 0.1
"""Shorter sound is filled up with silence: some models make no frame of it."""
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


class Options(Strict):
    """Options of onnx-asr.

    Attributes:
        model: A name of onnx-asr (`nemo-parakeet-tdt-0.6b-v3`, `nemo-canary-1b-v2`, ...), a folder (begun with / or .
            or ~), or `hf://owner/repo[@revision]`.
        type: What a folder or reference holds (`nemo-conformer-tdt`, `whisper`, ...); None: as its config.json says.
        quantization: Which of the model's files to take, such as int8; None: the unquantised ones.
        device: Where it runs; cuda needs the package onnxruntime-gpu in place of onnxruntime.
        threads: CPU threads of a pass.
        workers: Passes at once.
        language: For Canary and Whisper; others hear what they were made for. A request's own goes before it.
        max_audio_seconds: Longer audio is refused; Whisper hears 30 s.
    """

    model: str = "nemo-parakeet-tdt-0.6b-v3"
    type: str | None = None
    quantization: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=2, ge=1)
    workers: int = Field(default=1, ge=1)
    language: str | None = None
    max_audio_seconds: float = Field(default=120.0, gt=0)


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Samples at 16 kHz, their length in seconds, and the language asked for."""

    samples: Floats
    seconds: float
    language: str | None


class OnnxAsr:
    """Hears whole utterances, alone or several in one pass."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._model: Any = None
        self._longest = options.max_audio_seconds
        self._threads: ThreadPoolExecutor | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Whole utterances, best at 16 kHz; words from all models but Canary and Whisper."""
        return Capabilities(sample_rate=RATE, words=True)

    async def load(self) -> None:
        """Load the model, from the hub where it is there, and run it once."""
        self._threads = ThreadPoolExecutor(self._options.workers, thread_name_prefix="onnx-asr")
        await asyncio.get_running_loop().run_in_executor(self._threads, self._load)

    async def close(self) -> None:
        """Free the model once the pass that is under way has ended."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)
        self._model = None

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        """Transcribe one whole utterance."""
        [answer] = await self.transcribe_batch([request])
        if isinstance(answer, ParleyError):
            raise answer
        return answer

    async def transcribe_batch(self, requests: Sequence[TranscribeRequest]) -> list[Transcript | ParleyError]:
        """Transcribe utterances in one pass, or one for each language where they name several."""
        if self._threads is None or self._model is None:
            raise EngineFailed("onnx-asr is not loaded")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answers, requests)

    def _load(self) -> None:
        options = self._options
        try:
            library: Any = import_module("onnx_asr")
            runtime: Any = import_module("onnxruntime")
        except ModuleNotFoundError as error:
            raise EngineMissing(f"{error.name} is missing: `uv pip install 'parley[onnx-asr]'`") from None
        providers = _PROVIDERS[options.device]
        if providers[0] not in runtime.get_available_providers():
            raise EngineMissing("device cuda: this onnxruntime has none; `uv pip install onnxruntime-gpu`")
        from serve import hub

        repositories: dict[str, str] = import_module("onnx_asr.resolver").model_repos
        name, reference = options.type, options.model
        if not reference.startswith(("hf://", "/", ".", "~")):
            # A name that is no repository itself, as alphacep/vosk-model-ru is, has to be in the library's table.
            if "/" not in reference and reference not in repositories:
                names = ", ".join(sorted(repositories))
                raise ConfigError(f"engine 'onnx-asr': no model {reference!r}; there are {names}")
            name, reference = name or reference, f"hf://{repositories.get(reference, reference)}"
        session = runtime.SessionOptions()
        session.intra_op_num_threads = options.threads
        # Given a folder that is there, the library looks nowhere else.
        folder: Path = hub.local_path(reference)
        try:
            loaded = library.load_model(
                name, folder, quantization=options.quantization, sess_options=session, providers=providers
            )
        except (FileNotFoundError, import_module("onnx_asr.utils").ModelLoadingError) as error:
            raise EngineMissing(f"onnx-asr cannot load {options.model}: {error}") from None
        kinds: Any = import_module("onnx_asr.models.whisper")
        if isinstance(loaded.asr, kinds.WhisperHf | kinds.WhisperOrt):
            self._longest = min(self._longest, _WHISPER_SECONDS)
        self._model = loaded.with_timestamps()
        # The shell warms up with silence, which never reaches the model.
        hiss = np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32)
        self._together([_Utterance(hiss, 1.0, options.language)])

    def _answers(self, requests: Sequence[TranscribeRequest]) -> list[Transcript | ParleyError]:
        """Answer each request; runs in a thread."""
        answers: dict[int, Transcript | ParleyError] = {}
        audible: list[tuple[int, _Utterance]] = []
        for number, request in enumerate(requests):
            try:
                heard = self._read(request)
            except ParleyError as error:
                answers[number] = error
                continue
            if heard.samples.any():
                audible.append((number, heard))
            else:
                usage = Usage(audio_seconds=heard.seconds)
                answers[number] = Transcript("", language=heard.language, usage=usage)

        def language(each: tuple[int, _Utterance]) -> str:
            return each[1].language or ""

        for _, group in groupby(sorted(audible, key=language), key=language):
            numbers, members = zip(*group, strict=True)
            answers.update(zip(numbers, self._together(members), strict=True))
        return [answers[number] for number in range(len(requests))]

    def _read(self, request: TranscribeRequest) -> _Utterance:
        check(request.audio, request.sample_rate)
        seconds = duration(request.audio, request.sample_rate)
        if seconds > self._longest:
            raise BadRequest("audio", f"longer than {self._longest:.0f} s: send it in parts")
        samples = to_float(resample(request.audio, request.sample_rate, RATE))
        short = max(0, round(_LEAST_SECONDS * RATE) - len(samples))
        language = request.language or self._options.language
        return _Utterance(np.pad(samples, (0, short)), seconds, language and language.split("-")[0].lower())

    def _together(self, utterances: Sequence[_Utterance]) -> list[Transcript | ParleyError]:
        """Hear utterances in one language in one pass."""
        began, language = time.perf_counter(), utterances[0].language
        chosen = {"language": language} if language else {}
        try:
            results = self._model.recognize([each.samples for each in utterances], sample_rate=RATE, **chosen)
        except KeyError:
            # Canary and Whisper look their language up among their tokens.
            if language is None:
                raise
            return [BadRequest("language", "this model does not know it") for _ in utterances]
        share = (time.perf_counter() - began) / len(utterances)
        return [_transcript(heard, each, share) for heard, each in zip(utterances, results, strict=True)]


def _transcript(heard: _Utterance, result: Any, busy: float) -> Transcript:
    sure: list[float] = result.logprobs or []
    return Transcript(
        result.text.strip(),
        language=heard.language,
        confidence=_confidence(sure),
        words=tuple(_words(result, heard.seconds)),
        usage=Usage(audio_seconds=heard.seconds, busy_seconds=busy),
    )


def _words(result: Any, seconds: float) -> list[Word]:
    """Put tokens together to words; a word ends where the next begins, for models say where tokens begin only."""
    words: list[tuple[str, float, list[float]]] = []
    for number, (token, start) in enumerate(zip(result.tokens or (), result.timestamps or (), strict=False)):
        if token.startswith(" ") or not words:
            words.append(("", min(start, seconds), []))
        words[-1] = (words[-1][0] + token, words[-1][1], words[-1][2] + (result.logprobs or [])[number : number + 1])
    ends = [start for _, start, _ in words[1:]] + [seconds]
    return [
        Word(text.strip(), start, end, _confidence(sure))
        for (text, start, sure), end in zip(words, ends, strict=True)
        if text.strip()
    ]


def _confidence(logarithms: Sequence[float]) -> float | None:
    return min(1.0, math.exp(sum(logarithms) / len(logarithms))) if logarithms else None
