"""Flite: a small synthesiser that needs nothing but its shared library (Debian: libflite1)."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from typing import Any, ClassVar, Literal, Protocol, cast

from pydantic import Field

from serve.audio import Trimmer, duration, silence
from serve.config import Strict
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest, Usage
from serve.errors import BadRequest, EngineMissing
from serve.tts.text import GAP_SECONDS, check, pieces, plain
from serve.worker import Emit, stream_from_thread

Voice = Literal["kal", "kal16", "slt", "rms", "awb"]
VOICES: tuple[Voice, ...] = ("rms", "slt", "awb", "kal16", "kal")

_FLITE = threading.Lock()
"""Flite counts references without atomics and shares voices and lexicon: one thread at a time in a process."""
_PIECE = 200
"""Characters synthesised in one go: their analysis, about 60 ms, cannot be interrupted."""
_CHUNK_SECONDS = 0.04
_GOES_ON, _STOPS = 0, -1


class Options(Strict):
    """Options of flite.

    Attributes:
        voice: rms is a clear male voice, slt a female one; kal is tiny and robotic.
        max_characters: Longer texts are refused.
    """

    voice: Voice = "rms"
    max_characters: int = Field(default=20_000, ge=1)


class _Wave(ctypes.Structure):
    _fields_: ClassVar = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(_Wave), ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p
)


class _StreamingInfo(ctypes.Structure):
    _fields_: ClassVar = [("min_buffsize", ctypes.c_int), ("asc", _Callback)]


class _Utterance(ctypes.Structure):
    _fields_: ClassVar = [("features", ctypes.c_void_p)]


class _Wav(Protocol):
    """What the callback sees of a wave."""

    sample_rate: int
    samples: int


class Flite:
    """Speaks English; text in pieces of a sentence, audio as it is made."""

    Options = Options

    def __init__(self, options: Options) -> None:
        self._options = options
        self._library: Any = None
        self._voices: dict[str, int] = {}
        self._threads: ThreadPoolExecutor | None = None

    @property
    def capabilities(self) -> Capabilities:
        """16 kHz (kal: 8 kHz) once loaded."""
        return Capabilities(
            streaming=True,
            sample_rate=8000 if self._options.voice == "kal" else 16000,
            languages=("en",),
            voices=tuple(self._voices) or VOICES,
        )

    async def load(self) -> None:
        """Load the library and every voice that is there."""
        await asyncio.to_thread(self._load)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="flite")

    async def close(self) -> None:
        """Let go of the threads; the library stays mapped."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream the speech as it is made."""
        voice = request.voice or self._options.voice
        if self._threads is None:
            raise EngineMissing("flite is not loaded")
        if voice not in self._voices:
            raise BadRequest("voice", f"no voice {voice!r}; choose one of {', '.join(self._voices)}")
        check(request, self._options.max_characters)
        began, seconds, rate = time.perf_counter(), 0.0, 8000 if voice == "kal" else 16000

        def run(emit: Emit[tuple[bytes, int]]) -> None:
            for number, piece in enumerate(pieces(plain(request.text), _PIECE)):
                if number and emit((silence(GAP_SECONDS, rate), rate)):
                    return
                if self._synthesise(piece, self._voices[voice], request.speed, emit):
                    return

        audio = stream_from_thread(run, self._threads)
        try:
            async for chunk, _ in audio:
                seconds += duration(chunk, rate)
                yield SpeechChunk(chunk, rate)
        finally:
            await audio.aclose()
        usage = Usage(audio_seconds=seconds, characters=len(request.text), busy_seconds=time.perf_counter() - began)
        yield SpeechChunk(b"", rate, usage)

    def _load(self) -> None:
        name = find_library("flite") or "libflite.so.1"
        try:
            library = ctypes.CDLL(name)
        except OSError:
            raise EngineMissing(
                "flite's library is not there: `apt install libflite1`, or use the engine espeak, which pip installs"
            ) from None
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float
        for function, result, arguments in (
            ("new_utterance", pointer, []),
            ("new_audio_streaming_info", ctypes.POINTER(_StreamingInfo), []),
            ("audio_streaming_info_val", pointer, [pointer]),
            ("feat_set", None, [pointer, text, pointer]),
            ("feat_set_float", None, [pointer, text, number]),
            ("utt_set_input_text", pointer, [pointer, text]),
            ("utt_init", pointer, [pointer, pointer]),
            ("utt_synth", pointer, [pointer]),
            ("delete_utterance", None, [pointer]),
        ):
            symbol = getattr(library, function)
            symbol.restype, symbol.argtypes = result, arguments
        with _FLITE:
            library.flite_init()
            self._library = library
            self._voices = {voice: address for voice in VOICES if (address := _register(voice))}
        if self._options.voice not in self._voices:
            raise EngineMissing(
                f"flite's voice {self._options.voice} is not there; there are: {', '.join(self._voices)}"
            )

    def _synthesise(self, text: str, voice: int, speed: float, emit: Emit[tuple[bytes, int]]) -> bool:
        """Speak one piece; return True when nobody listens any more."""
        trimmer: Trimmer | None = None
        stopped, rate = False, 0

        def on_audio(wave: Any, start: int, size: int, _last: int, _info: Any) -> int:
            nonlocal trimmer, stopped, rate
            made = cast("_Wav", wave.contents)
            rate = made.sample_rate
            trimmer = trimmer or Trimmer(rate)
            kept = trimmer.feed(ctypes.string_at(made.samples + 2 * start, 2 * size))
            # Called with no audio too: only so is a listener who left noticed in silence.
            stopped = emit((kept, rate)) if kept else stopped
            return _STOPS if stopped else _GOES_ON

        callback = _Callback(on_audio)
        library = self._library
        with _FLITE:
            utterance = library.new_utterance()
            library.utt_set_input_text(utterance, text.encode())
            info = library.new_audio_streaming_info()
            info.contents.min_buffsize = int(16000 * _CHUNK_SECONDS)
            info.contents.asc = callback
            features = ctypes.cast(utterance, ctypes.POINTER(_Utterance)).contents.features
            # Set on the utterance, which owns them, so that the shared voice is never written to.
            library.feat_set(features, b"streaming_info", library.audio_streaming_info_val(info))
            library.feat_set_float(features, b"duration_stretch", 1.0 / speed)
            library.utt_init(utterance, voice)
            library.utt_synth(utterance)
            library.delete_utterance(utterance)
        if trimmer is not None and not stopped and (rest := trimmer.finish()):
            stopped = emit((rest, rate))
        return stopped


def _register(voice: str) -> int | None:
    try:
        register = ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1")[f"register_cmu_us_{voice}"]
    except (OSError, AttributeError):
        return None
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return cast("int | None", register(None))
