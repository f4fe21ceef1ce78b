"""pcm16 mono, little endian: what engines and callers need to do with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr  # pyright: ignore[reportMissingTypeStubs] it has none

from serve.contracts import SAMPLE_WIDTH
from serve.errors import BadRequest

Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]

MIN_RATE, MAX_RATE = 4_000, 192_000
_FULL_SCALE = 32768.0
_FRAME_SECONDS = 0.005


def check(audio: bytes, sample_rate: int) -> None:
    """Refuse what cannot be pcm16 mono.

    Raises:
        BadRequest: Half a sample, or a rate that no microphone has.
    """
    if len(audio) % SAMPLE_WIDTH:
        raise BadRequest("audio", f"{len(audio)} bytes are not pcm16: the length must be even")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise BadRequest("sample_rate", f"{sample_rate} Hz is outside {MIN_RATE} to {MAX_RATE}")


def duration(audio: bytes, sample_rate: int) -> float:
    """Return the length in seconds."""
    return len(audio) / (SAMPLE_WIDTH * sample_rate)


def silence(seconds: float, sample_rate: int) -> bytes:
    """Return digital silence."""
    return bytes(SAMPLE_WIDTH * round(seconds * sample_rate))


def to_float(audio: bytes) -> Floats:
    """Return samples from -1.0 to 1.0, shape `(n,)`."""
    return _samples(audio).astype(np.float32) / np.float32(_FULL_SCALE)


def from_float(samples: Floats) -> bytes:
    """Return pcm16; what is beyond -1.0 to 1.0 is clipped."""
    scaled = np.rint(samples * _FULL_SCALE)
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()


def rms(audio: bytes) -> float:
    """Return the root mean square, 0.0 to 1.0; 0.0 for no audio."""
    if not audio:
        return 0.0
    return float(np.sqrt(np.mean(np.square(to_float(audio), dtype=np.float64))))


def resample(audio: bytes, source: int, target: int) -> bytes:
    """Return the whole of `audio` at another sample rate."""
    if source == target or not audio:
        return audio
    converted: Samples = soxr.resample(_samples(audio), source, target)
    return converted.astype("<i2").tobytes()


class Resampler:
    """Resamples audio that arrives in pieces of any length, with no seams; also holds back half a sample.

    Args:
        source: Hz of what is fed.
        target: Hz of what is returned.
    """

    def __init__(self, source: int, target: int) -> None:
        # The quick setting keeps speech intact and holds back 4 ms instead of 20.
        self._stream = None if source == target else soxr.ResampleStream(source, target, 1, dtype="int16", quality="LQ")
        self._half = b""

    def feed(self, audio: bytes, *, last: bool = False) -> bytes:
        """Return what can be converted so far; with `last`, all that is left."""
        audio = self._half + audio
        whole = len(audio) // SAMPLE_WIDTH * SAMPLE_WIDTH
        self._half = b"" if last else audio[whole:]
        if self._stream is None or (whole == 0 and not last):
            return audio[:whole]
        converted: Samples = self._stream.resample_chunk(_samples(audio[:whole]), last=last)
        return converted.astype("<i2").tobytes()


class Trimmer:
    """Cuts the silence round speech that arrives in pieces, and leaves the pauses inside it.

    Args:
        sample_rate: Hz.
        lead: Seconds of silence to leave before the speech.
        tail: Seconds of silence to leave after it.
        threshold: Level (rms of 5 ms, 0.0 to 1.0) up to which audio counts as silent.
    """

    def __init__(self, sample_rate: int, *, lead: float = 0.01, tail: float = 0.06, threshold: float = 0.003) -> None:
        self._frame = SAMPLE_WIDTH * max(1, round(sample_rate * _FRAME_SECONDS))
        self._lead = SAMPLE_WIDTH * round(sample_rate * lead)
        self._tail = SAMPLE_WIDTH * round(sample_rate * tail)
        self._threshold = threshold
        self._speaking = False
        self._partial = b""
        self._held = b""
        """Silence that is spoken only if speech follows."""

    def feed(self, audio: bytes) -> bytes:
        """Return what is certain to be kept."""
        audio = self._partial + audio
        whole = len(audio) // self._frame * self._frame
        self._partial = audio[whole:]
        return self._keep(audio[:whole])

    def finish(self) -> bytes:
        """Return the rest: the last speech and its tail of silence."""
        kept = self._keep(self._partial)
        self._partial = b""
        if self._speaking:
            kept += self._held[: self._tail]
        self._held = b""
        return kept

    def _keep(self, audio: bytes) -> bytes:
        loud = self._loud_frames(audio)
        if not loud.size:
            self._held += audio
            if not self._speaking:
                self._held = self._held[-self._lead :] if self._lead else b""
            return b""
        first, end = int(loud[0]) * self._frame, (int(loud[-1]) + 1) * self._frame
        before = self._held + audio[:first]
        if not self._speaking:
            before = before[-self._lead :] if self._lead else b""
        self._speaking = True
        self._held = audio[end:]
        return before + audio[first:end]

    def _loud_frames(self, audio: bytes) -> npt.NDArray[np.intp]:
        samples = to_float(audio)
        step = self._frame // SAMPLE_WIDTH
        padded = np.pad(samples, (0, -len(samples) % step)).reshape(-1, step)
        levels = np.sqrt(np.mean(np.square(padded), axis=1))
        return np.flatnonzero(levels > self._threshold)


def trim(audio: bytes, sample_rate: int, *, lead: float = 0.01, tail: float = 0.06, threshold: float = 0.003) -> bytes:
    """Return whole speech without the silence round it; see `Trimmer`."""
    trimmer = Trimmer(sample_rate, lead=lead, tail=tail, threshold=threshold)
    return trimmer.feed(audio) + trimmer.finish()


def _samples(audio: bytes) -> Samples:
    return np.frombuffer(audio, dtype="<i2").astype(np.int16, copy=False)
