"""Audio files: every common container is read and written; what is none, or too long, is refused."""

from __future__ import annotations

import io
import struct
import time
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from api.media import HEARD_RATE, SPOKEN_RATE, Encoder, Format, decode
from serve.errors import BadRequest

pytestmark = pytest.mark.unit

SECONDS = 1.5
TONE = 440.0


def tone(rate: int, seconds: float = SECONDS) -> bytes:
    moments = np.arange(round(rate * seconds)) / rate
    return (np.sin(2 * np.pi * TONE * moments) * 8000).astype("<i2").tobytes()


def file(muxer: str, codec: str, rate: int, channels: int = 1, seconds: float = SECONDS, streams: int = 1) -> bytes:
    """Return a recording of a tone, in memory."""
    layout = "mono" if channels == 1 else "stereo"
    written = io.BytesIO()
    with av.open(written, "w", format=muxer) as container:
        made: list[Any] = [container.add_stream(codec, rate=rate, layout=layout) for _ in range(streams)]
        samples = np.frombuffer(tone(rate, seconds), "<i2").repeat(channels)[np.newaxis, :]
        for stream in made:
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return written.getvalue()


def video(with_sound: bool) -> bytes:
    written = io.BytesIO()
    with av.open(written, "w", format="matroska") as container:
        stream: Any = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        sound: Any = container.add_stream("libopus", rate=48000, layout="mono") if with_sound else None
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number * 20, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            heard = av.AudioFrame.from_ndarray(np.frombuffer(tone(48000), "<i2")[np.newaxis, :], "s16", "mono")
            heard.sample_rate, heard.pts = 48000, 0
            container.mux(sound.encode(heard))
            container.mux(sound.encode(None))
    return written.getvalue()


def pitch(audio: bytes, rate: int) -> float:
    """Return the loudest frequency, Hz."""
    samples = np.frombuffer(audio, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


@pytest.mark.parametrize(
    ("muxer", "codec", "rate", "channels"),
    [
        ("wav", "pcm_s16le", 8000, 1),
        ("wav", "pcm_s16le", 44100, 2),
        ("wav", "pcm_f32le", 96000, 1),
        ("mp3", "libmp3lame", 44100, 2),
        ("ipod", "aac", 48000, 2),
        ("mp4", "aac", 22050, 1),
        ("adts", "aac", 16000, 1),
        ("flac", "flac", 48000, 2),
        ("ogg", "libopus", 48000, 1),
        ("ogg", "libvorbis", 44100, 2),
        ("webm", "libopus", 48000, 2),
    ],
)
def test_common_containers_and_rates_become_16_khz_mono(muxer: str, codec: str, rate: int, channels: int) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV does not write {codec}")
    heard = decode(file(muxer, codec, rate, channels), 60)
    assert len(heard) / (2 * HEARD_RATE) == pytest.approx(SECONDS, abs=0.15)
    assert pitch(heard, HEARD_RATE) == pytest.approx(TONE, abs=5)


def test_the_sound_of_a_video_is_heard() -> None:
    assert pitch(decode(video(with_sound=True), 60), HEARD_RATE) == pytest.approx(TONE, abs=5)


def test_a_header_that_does_not_know_its_length_is_no_obstacle() -> None:
    encoder = Encoder("wav")
    whole = encoder.feed(tone(SPOKEN_RATE), SPOKEN_RATE) + encoder.finish()
    assert len(decode(whole, 60)) == pytest.approx(SECONDS * HEARD_RATE * 2, rel=0.02)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"\0" * 5000, "cannot be read"),
        (b"this is no recording, but a text that goes on for a while. " * 50, "cannot be read"),
        (np.random.default_rng(1).bytes(50_000), "cannot be read|no audio"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", "cannot be read"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "cannot be read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "cannot be read"),
        (lambda: video(with_sound=False), "no audio streams"),
        (lambda: file("matroska", "libopus", 48000, streams=2), "2 audio streams"),
        (
            lambda: (
                b"RIFF$\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16) + b"data\0\0\0\0"
            ),
            "no audio",
        ),
    ],
    ids=["empty", "zeros", "text", "noise", "cut header", "playlist", "concat", "video", "two streams", "no samples"],
)
def test_what_is_no_recording_is_refused(data: bytes | Callable[[], bytes], problem: str) -> None:
    with pytest.raises(BadRequest, match=problem) as caught:
        decode(data if isinstance(data, bytes) else data(), 60)
    assert caught.value.field == "file"


@pytest.mark.parametrize(("muxer", "codec"), [("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("ogg", "libopus")])
def test_a_recording_that_breaks_off_is_heard_as_far_as_it_goes(muxer: str, codec: str) -> None:
    whole = file(muxer, codec, 48000, seconds=5)
    heard = decode(whole[: len(whole) // 2], 60)
    assert 1 < len(heard) / (2 * HEARD_RATE) < 4


def test_a_recording_without_its_index_is_refused() -> None:
    whole = file("mp4", "aac", 48000)  # its index comes last
    with pytest.raises(BadRequest, match="cannot be read"):
        decode(whole[: len(whole) // 2], 60)


def test_a_broken_stretch_in_the_middle_is_left_out() -> None:
    whole = bytearray(file("mp3", "libmp3lame", 44100, seconds=5))
    middle = len(whole) // 2
    whole[middle : middle + 800] = bytes(800)
    assert len(decode(bytes(whole), 60)) / (2 * HEARD_RATE) > 4


def test_length_is_bounded_while_it_is_read() -> None:
    # Silence in FLAC: an hour in some hundred kilobytes. It must not be an hour in memory first.
    hour = io.BytesIO()
    with av.open(hour, "w", format="flac") as container:
        stream: Any = container.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 3600), "<i2"), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    began = time.perf_counter()
    with pytest.raises(BadRequest, match="longer than 600 s"):
        decode(hour.getvalue(), 600)
    assert time.perf_counter() - began < 5


def test_the_time_to_read_is_bounded() -> None:
    with pytest.raises(BadRequest, match="too long to read"):
        decode(file("wav", "pcm_s16le", 16000), 60, within=-1)


@pytest.mark.parametrize("form", ["wav", "mp3", "opus", "flac", "aac"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 48000])
def test_speech_is_written_as_it_is_made(form: Format, rate: int) -> None:
    encoder = Encoder(form)
    audio, piece = tone(rate, 2.0), rate // 25 * 2
    parts = [encoder.feed(audio[start : start + piece], rate) for start in range(0, len(audio), piece)]
    rest = encoder.finish()
    first = next(number for number, part in enumerate(parts) if part)
    assert first <= 7, "nothing to send after 0.3 s"
    assert len(rest) < sum(map(len, parts)) / 4, "the file was held back"
    heard = decode(b"".join(parts) + rest, 60)
    assert len(heard) / (2 * HEARD_RATE) == pytest.approx(2.0, abs=0.15)
    assert pitch(heard, HEARD_RATE) == pytest.approx(TONE, abs=5)


def test_pcm_is_24_khz() -> None:
    encoder = Encoder("pcm")
    made = encoder.feed(tone(16000), 16000) + encoder.feed(b"", 16000) + encoder.finish()
    assert len(made) == pytest.approx(SECONDS * SPOKEN_RATE * 2, rel=0.01)
    assert pitch(made, SPOKEN_RATE) == pytest.approx(TONE, abs=5)


def test_a_rate_that_changes_is_followed() -> None:
    encoder = Encoder("pcm")
    made = encoder.feed(tone(16000), 16000) + encoder.feed(tone(22050), 22050) + encoder.finish()
    assert len(made) == pytest.approx(2 * SECONDS * SPOKEN_RATE * 2, rel=0.01)


def test_wav_is_read_by_the_standard_library(tmp_path: Path) -> None:
    encoder = Encoder("wav")
    whole = encoder.feed(tone(16000), 16000) + encoder.finish()
    (tmp_path / "speech.wav").write_bytes(whole)
    with wave.open(str(tmp_path / "speech.wav")) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (SPOKEN_RATE, 1, 2)
        assert len(read.readframes(10**7)) == pytest.approx(SECONDS * SPOKEN_RATE * 2, rel=0.01)
    assert struct.unpack("<I", whole[4:8])[0] >= 0xFFFFFF00, "a length that is not known must not look like one"


def test_an_encoder_with_nothing_to_write_ends_well() -> None:
    assert isinstance(Encoder("mp3").finish(), bytes)
