"""Audio files of any common container, to pcm16 and from it; FFmpeg's libraries (PyAV) do the work, in memory."""

from __future__ import annotations

import io
import time
from collections.abc import Generator
from fractions import Fraction
from typing import Any, Literal, cast

import av
import av.error
import numpy as np

from serve.contracts import SAMPLE_WIDTH
from serve.errors import BadRequest

HEARD_RATE = 16000
"""Hz of what `decode` returns."""
SPOKEN_RATE = 24000
"""Hz of what `Encoder` writes; OpenAI's pcm has this rate and no header that could say another."""

DECODE_SECONDS = 60.0
"""A file that takes longer than this to read is not a recording."""

_CONTAINERS = "wav,mp3,mov,flac,ogg,matroska,aac"
"""Demuxers by FFmpeg's names: mov reads m4a and mp4, matroska webm. Playlists, which open other files, are not here."""
_CODECS = "mp3,mp3float,aac,aac_latm,flac,opus,libopus,vorbis,alac,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,\
pcm_u8,pcm_alaw,pcm_mulaw,pcm_s16be,adpcm_ms,adpcm_ima_wav,h264,hevc,vp8,vp9,av1,mjpeg,png"

Format = Literal["wav", "mp3", "opus", "flac", "aac", "pcm"]
MEDIA_TYPES: dict[Format, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
}
_WRITERS: dict[str, tuple[str, str, int, dict[str, str]]] = {
    # Format: muxer, codec, bit/s, the muxer's options. Nothing may want to go back and fill in a length.
    "wav": ("wav", "pcm_s16le", 0, {}),
    "mp3": ("mp3", "libmp3lame", 64000, {"write_xing": "0", "id3v2_version": "0"}),
    "opus": ("ogg", "libopus", 32000, {"page_duration": "20000"}),
    "flac": ("flac", "flac", 0, {}),
    "aac": ("adts", "aac", 64000, {}),
}


def decode(data: bytes, most_seconds: float, within: float = DECODE_SECONDS) -> bytes:
    """Return a recording as pcm16 mono, little endian, 16 kHz. Blocks: call it in a thread.

    Args:
        data: The whole file.
        most_seconds: Longer recordings are refused.
        within: Seconds that the work may take.

    Raises:
        BadRequest: Not a recording that can be read, or longer than is taken.
    """
    if not data:
        raise BadRequest("file", "is empty")
    deadline, most = time.monotonic() + within, int(most_seconds * HEARD_RATE) * SAMPLE_WIDTH
    found = bytearray()
    try:
        options = {"format_whitelist": _CONTAINERS, "codec_whitelist": _CODECS, "protocol_whitelist": "none"}
        with av.open(io.BytesIO(data), "r", options=options) as container:
            streams = container.streams.audio
            if len(streams) != 1:
                raise BadRequest("file", f"has {len(streams) or 'no'} audio streams; it must have one")
            for samples in _samples(container, streams[0]):
                found += samples
                if len(found) > most:
                    raise BadRequest("file", f"is longer than {most_seconds:.0f} s; send it in parts")
                if time.monotonic() > deadline:
                    raise BadRequest("file", "takes too long to read")
    except (av.error.FFmpegError, ValueError, IndexError, MemoryError):
        raise BadRequest("file", "cannot be read; send wav, mp3, m4a, mp4, flac, ogg, opus or webm") from None
    if not found:
        raise BadRequest("file", "holds no audio")
    return bytes(found)


def _samples(container: Any, stream: Any) -> Generator[bytes, None, None]:
    """Yield pcm16; a packet that is broken is left out, as a player would, but a file of nothing else is refused."""
    stream.thread_type = "NONE"
    resampler = av.AudioResampler(format="s16", layout="mono", rate=HEARD_RATE)
    broken = good = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
            good += 1
        except av.error.InvalidDataError:
            broken += 1
            if broken > 16 + good:
                raise
            continue
        for frame in frames:
            # Concatenated recordings start again at 0, and the resampler would drop what is "late".
            frame.pts = None
            for made in resampler.resample(frame):
                yield _bytes(made)
    for made in resampler.resample(None):
        yield _bytes(made)


def _bytes(frame: Any) -> bytes:
    return frame.to_ndarray().astype("<i2", copy=False).tobytes()


class _Pipe:
    """What an encoder writes to: no way back, so that everything can be sent at once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


class Encoder:
    """Writes speech as it is made: 24 kHz mono. 40 ms of it take well under 1 ms, so it may run on an event loop.

    Args:
        form: The format; a file that has a header says there that its length is not known.
    """

    def __init__(self, form: Format) -> None:
        self._resampler: Any = None
        self._rate = self._written = 0
        self._pipe, self._container, self._stream = _Pipe(), cast("Any", None), cast("Any", None)
        if form != "pcm":
            muxer, codec, bits, options = _WRITERS[form]
            self._container = av.open(
                self._pipe, "w", format=muxer, container_options={**options, "flush_packets": "1"}
            )
            self._stream = cast("Any", self._container.add_stream(codec, rate=SPOKEN_RATE, layout="mono"))
            if bits:
                self._stream.bit_rate = bits

    def feed(self, audio: bytes, sample_rate: int) -> bytes:
        """Return what can be sent so far.

        Args:
            audio: pcm16 mono, little endian.
            sample_rate: Hz.
        """
        if not audio:
            return b""
        flushed = b""
        if self._rate != sample_rate:
            flushed = self._flush()
            self._rate = sample_rate
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SPOKEN_RATE)
        samples = np.frombuffer(audio, dtype="<i2")[np.newaxis, :]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = sample_rate
        return flushed + self._write(self._resampler.resample(frame))

    def finish(self) -> bytes:
        """Return what is left; the file ends with it."""
        rest = self._flush()
        if self._container is None:
            return rest
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return rest + self._pipe.take()

    def _flush(self) -> bytes:
        resampler, self._resampler = self._resampler, None
        return self._write(resampler.resample(None)) if resampler is not None else b""

    def _write(self, frames: list[Any]) -> bytes:
        if self._container is None:
            return b"".join(_bytes(frame) for frame in frames)
        for frame in frames:
            frame.pts, frame.time_base = self._written, Fraction(1, SPOKEN_RATE)
            self._written += frame.samples
            self._container.mux(self._stream.encode(frame))
        return self._pipe.take()
