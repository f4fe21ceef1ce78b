"""pcm16 and back: no sample lost, no seam."""

from __future__ import annotations

import numpy as np
import pytest

from serve import audio
from serve.errors import BadRequest

pytestmark = pytest.mark.unit


def tone(seconds: float, rate: int, level: float = 0.5, hz: float = 440.0) -> bytes:
    time = np.arange(round(seconds * rate)) / rate
    return audio.from_float((level * np.sin(2 * np.pi * hz * time)).astype(np.float32))


def test_floats_and_back() -> None:
    pcm = np.array([-32768, -1, 0, 1, 32767], dtype="<i2").tobytes()
    assert audio.from_float(audio.to_float(pcm)) == pcm


def test_floats_are_clipped() -> None:
    loud = audio.from_float(np.array([2.0, -2.0], dtype=np.float32))
    assert np.frombuffer(loud, dtype="<i2").tolist() == [32767, -32768]


def test_duration_rms_and_silence() -> None:
    assert audio.duration(audio.silence(1.5, 8000), 8000) == 1.5
    assert audio.rms(audio.silence(1, 8000)) == 0.0
    assert audio.rms(b"") == 0.0
    assert audio.rms(tone(1, 16000)) == pytest.approx(0.5 / 2**0.5, rel=0.01)


@pytest.mark.parametrize(("pcm", "rate", "field"), [(b"\x00", 16000, "audio"), (b"", 0, "rate"), (b"", 10**6, "rate")])
def test_what_is_no_pcm_is_refused(pcm: bytes, rate: int, field: str) -> None:
    with pytest.raises(BadRequest, match=field):
        audio.check(pcm, rate)


@pytest.mark.parametrize("source", [8000, 16000, 22050, 44100, 48000])
def test_resampling_keeps_length_and_level(source: int) -> None:
    made = audio.resample(tone(1, source), source, 16000)
    assert audio.duration(made, 16000) == pytest.approx(1.0, abs=0.01)
    assert audio.rms(made) == pytest.approx(0.354, rel=0.05)


@pytest.mark.parametrize("source", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("step", [1, 333, 6400])
def test_streaming_pieces_of_any_length_make_the_whole(source: int, step: int) -> None:
    pcm = tone(0.2, source)
    whole = audio.Resampler(source, 16000)
    expected = whole.feed(pcm, last=True)
    stream = audio.Resampler(source, 16000)
    made = b"".join(stream.feed(pcm[at : at + step]) for at in range(0, len(pcm), step)) + stream.feed(b"", last=True)
    assert np.allclose(audio.to_float(made), audio.to_float(expected), atol=1e-3)


def test_trimming_leaves_a_little_silence() -> None:
    rate = 16000
    pcm = audio.silence(0.5, rate) + tone(0.3, rate) + audio.silence(0.4, rate)
    assert audio.duration(audio.trim(pcm, rate), rate) == pytest.approx(0.37, abs=0.006)


def test_trimming_keeps_pauses_and_needs_no_whole() -> None:
    rate = 16000
    pcm = audio.silence(0.2, rate) + (tone(0.2, rate) + audio.silence(0.3, rate)) * 2
    trimmer = audio.Trimmer(rate)
    made = b"".join(trimmer.feed(pcm[at : at + 322]) for at in range(0, len(pcm), 322)) + trimmer.finish()
    assert made == audio.trim(pcm, rate)
    assert audio.duration(made, rate) == pytest.approx(0.77, abs=0.006)


def test_silence_alone_is_trimmed_to_nothing() -> None:
    assert audio.trim(audio.silence(1, 16000), 16000) == b""
