"""faster-whisper: OpenAI's Whisper on CTranslate2, on a CPU or a GPU; utterances of different calls in one pass.

CTranslate2 lets go of the GIL while it works, so the model is in this process, in a thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from serve.audio import check, duration, resample, to_float
from serve.contracts import Capabilities, Segment, TranscribeRequest, Transcript, Usage, Word
from serve.errors import BadRequest, ConfigError, EngineFailed, EngineMissing, ParleyError
from serve.stt.whisper import MODELS, POSITIONS, RATE, WINDOW_SECONDS, Guards, Utterance, code, tag

ComputeType = Literal[
    "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32"
]

_FILES = ("model.bin", "config.json", "tokenizer.json")


class Options(Guards):
    """Options of faster-whisper, with the guards of Whisper.

    Attributes:
        model: A Whisper in CTranslate2's format: a name (`small`, `large-v3-turbo`, `distil-large-v3`, ...), a folder
            (begun with / or . or ~), or `hf://owner/repo[@revision]`.
        device: auto is a GPU where there is one.
        compute_type: CTranslate2's; None: int8 on a CPU, float16 on a GPU.
        threads: CPU threads of a pass.
        workers: Passes at once; more than one where there are many cores.
        language: The one that is spoken; None: detected for each utterance. A request's own goes before it.
        beam_size: 1 is greedy: quicker, a little less accurate.
        max_tokens: Most tokens of 30 s.
        max_audio_seconds: Longer audio is refused.
        skip_silence: In audio over 30 s, leave out what Silero VAD hears no speech in.
    """

    model: str = "large-v3-turbo"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: ComputeType | None = None
    threads: int = Field(default=2, ge=1)
    workers: int = Field(default=1, ge=1)
    language: str | None = None
    beam_size: int = Field(default=1, ge=1, le=16)
    max_tokens: int = Field(default=220, ge=1, le=220)
    max_audio_seconds: float = Field(default=600.0, gt=0)
    skip_silence: bool = True

    def files(self) -> tuple[str, ...]:
        """Return the path or reference that loading reads."""
        return (MODELS.get(self.model, self.model),)

    @field_validator("model")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in MODELS or value.startswith(("hf://", "/", ".", "~")):
            return value
        raise ValueError(f"no model {value!r}: a folder begins with / or ., the hub's with hf://; {', '.join(MODELS)}")


class FasterWhisper:
    """Hears whole utterances in Whisper's languages, alone or several in one pass."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._model: Any = None
        self._library: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._tokenizers: dict[str, Any] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Whole utterances, best at 16 kHz; words where they are asked for."""
        languages = () if self._model is None else tuple(tag(each) for each in self._model.supported_languages)
        return Capabilities(sample_rate=RATE, languages=languages, words=True)

    async def load(self) -> None:
        """Load the model, from the hub where it is there, and run it once."""
        self._threads = ThreadPoolExecutor(self._options.workers, thread_name_prefix="faster-whisper")
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
        """Transcribe utterances of up to 30 s in one pass; longer ones, and those that want words, each by itself."""
        if self._threads is None or self._model is None:
            raise EngineFailed("faster-whisper is not loaded")
        stop = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answers, requests, stop)
        finally:
            stop.set()

    def _load(self) -> None:
        options = self._options
        try:
            self._library = import_module("faster_whisper.transcribe")
            gpus: int = import_module("ctranslate2").get_cuda_device_count()
        except ModuleNotFoundError as error:
            raise EngineMissing(f"{error.name} is missing: `uv pip install 'parley[faster-whisper]'`") from None
        from serve import hub

        folder: Path = hub.local_path(*options.files())
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            # Without its tokenizer the library would go and download one.
            raise EngineMissing(f"no Whisper in CTranslate2's format in {folder}: no {', '.join(missing)}")
        device = options.device if options.device != "auto" else "cuda" if gpus else "cpu"
        if device == "cuda" and not gpus:
            raise EngineMissing("device cuda: there is no GPU, or no driver; choose device auto or cpu")
        try:
            self._model = self._library.WhisperModel(
                str(folder),
                device=device,
                compute_type=options.compute_type or ("int8" if device == "cpu" else "float16"),
                cpu_threads=options.threads,
                num_workers=options.workers,
            )
            language = code(options.language, self._model.supported_languages)
        except (ValueError, BadRequest) as error:
            # CTranslate2's is of a compute type that the device does not have.
            raise ConfigError(f"engine 'faster-whisper': {error}") from None
        # The shell warms up with silence, which never reaches the model.
        hiss = np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32)
        self._together([Utterance(hiss, 1.0, language)])

    def _answers(self, requests: Sequence[TranscribeRequest], stop: threading.Event) -> list[Transcript | ParleyError]:
        """Answer each request; runs in a thread."""
        answers: dict[int, Transcript | ParleyError] = {}
        together: list[tuple[int, Utterance]] = []
        alone: list[tuple[int, Utterance, tuple[float, ...]]] = []
        for number, request in enumerate(requests):
            try:
                heard = self._read(request)
            except ParleyError as error:
                answers[number] = error
                continue
            if not heard.samples.any():
                answers[number] = _transcript(heard, heard.language, [], 0.0)
            elif heard.words or heard.seconds > WINDOW_SECONDS:
                alone.append((number, heard, self._options.temperatures))
            else:
                together.append((number, heard))

        def length(each: tuple[int, Utterance]) -> int:
            return len(self._prompt(each[1], "en"))

        # CTranslate2 takes prompts of one length; they differ where requests bring names of their own.
        for _, group in groupby(sorted(together, key=length), key=length):
            numbers, members = zip(*group, strict=True)
            for number, heard, answer in zip(numbers, members, self._together(members), strict=True):
                if answer is None:
                    alone.append((number, heard, self._options.temperatures[1:]))
                else:
                    answers[number] = answer
        for number, heard, temperatures in alone:
            answers[number] = self._alone(heard, temperatures, stop)
        return [answers[number] for number in range(len(requests))]

    def _read(self, request: TranscribeRequest) -> Utterance:
        check(request.audio, request.sample_rate)
        seconds = duration(request.audio, request.sample_rate)
        if seconds > self._options.max_audio_seconds:
            raise BadRequest("audio", f"longer than {self._options.max_audio_seconds:.0f} s: send it in parts")
        language = code(request.language or self._options.language, self._model.supported_languages)
        samples = to_float(resample(request.audio, request.sample_rate, RATE))
        return Utterance(samples, seconds, language, request.prompt, request.words)

    def _together(self, utterances: Sequence[Utterance]) -> list[Transcript | None]:
        """Hear utterances of up to 30 s, with prompts of one length, in one pass; None: worth another try alone."""
        began, options, model = time.perf_counter(), self._options, self._model
        features = [self._library.pad_or_trim(model.feature_extractor(each.samples)[..., :-1]) for each in utterances]
        encoded = model.encode(np.stack(features))
        languages = [each.language for each in utterances]
        if None in languages and model.model.is_multilingual:
            found = [best[0][0].strip("<|>") for best in model.model.detect_language(encoded)]
            languages = [asked or detected for asked, detected in zip(languages, found, strict=True)]
        spoken = [each or "en" for each in languages]
        prompts = [self._prompt(each, language) for each, language in zip(utterances, spoken, strict=True)]
        results = model.model.generate(
            encoded,
            prompts,
            beam_size=options.beam_size,
            # It makes at most half as many, so that the other half is left to the prompt.
            max_length=min(POSITIONS, max(2 * options.max_tokens, len(prompts[0]) + options.max_tokens)),
            suppress_tokens=self._library.get_suppressed_tokens(self._tokenizer(spoken[0]), [-1]),
            return_scores=True,
            return_no_speech_prob=True,
        )
        share = (time.perf_counter() - began) / len(utterances)
        answers: list[Transcript | None] = []
        for heard, language, result in zip(utterances, spoken, results, strict=True):
            tokens = result.sequences_ids[0]
            mean = result.scores[0] * len(tokens) / (len(tokens) + 1)  # its score leaves the end's token out
            text: str = self._tokenizer(language).decode(tokens)
            again = options.unsure(mean) or options.repeats(text)
            if options.silent(result.no_speech_prob, mean):
                answers.append(_transcript(heard, language, [], share))
            elif again and options.temperatures[1:]:
                answers.append(None)
            else:
                parts = [] if options.repeats(text) else [_Part(text, 0.0, heard.seconds, mean)]
                answers.append(_transcript(heard, language, parts, share))
        return answers

    def _alone(self, heard: Utterance, temperatures: Sequence[float], stop: threading.Event) -> Transcript:
        """Hear one utterance of any length, 30 s at a time, with several tries where the first is in doubt."""
        began, options = time.perf_counter(), self._options
        found, about = self._model.transcribe(
            heard.samples,
            language=heard.language,
            beam_size=options.beam_size,
            temperature=list(temperatures),
            compression_ratio_threshold=options.compression,
            log_prob_threshold=options.log_probability,
            no_speech_threshold=options.no_speech,
            # What went wrong in one stretch would go on in the next.
            condition_on_previous_text=False,
            hotwords=heard.prompt,
            word_timestamps=heard.words,
            vad_filter=options.skip_silence and heard.seconds > WINDOW_SECONDS,
        )
        parts: list[_Part] = []
        for each in found:
            if stop.is_set():
                break
            if not options.repeats(each.text):
                words = tuple(
                    Word(word.word.strip(), float(word.start), float(word.end), float(word.probability))
                    for word in each.words or ()
                )
                parts.append(_Part(each.text, float(each.start), float(each.end), each.avg_logprob, words))
        return _transcript(heard, about.language, parts, time.perf_counter() - began)

    def _prompt(self, heard: Utterance, language: str) -> list[int]:
        tokens: list[int] = self._model.get_prompt(
            self._tokenizer(language), [], without_timestamps=True, hotwords=heard.prompt
        )
        return tokens

    def _tokenizer(self, language: str) -> Any:
        if language not in self._tokenizers:
            multilingual: bool = self._model.model.is_multilingual
            self._tokenizers[language] = self._library.Tokenizer(
                self._model.hf_tokenizer, multilingual, task="transcribe", language=language
            )
        return self._tokenizers[language]


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of text, seconds from the start, and the mean log-probability of its tokens."""

    text: str
    start: float
    end: float
    mean: float
    words: tuple[Word, ...] = ()


def _transcript(heard: Utterance, language: str | None, parts: Sequence[_Part], busy: float) -> Transcript:
    return Transcript(
        "".join(part.text for part in parts).strip(),
        language=None if language is None else tag(language),
        confidence=min(1.0, math.exp(sum(part.mean for part in parts) / len(parts))) if parts else None,
        words=tuple(word for part in parts for word in part.words),
        segments=tuple(Segment(part.text.strip(), part.start, part.end) for part in parts),
        usage=Usage(audio_seconds=heard.seconds, busy_seconds=busy),
    )
