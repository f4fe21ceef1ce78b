"""Utterances as files, for providers that take nothing else."""

from __future__ import annotations

import io
import wave

from serve.audio import resample
from serve.contracts import SAMPLE_WIDTH


def wav(audio: bytes, sample_rate: int, target: int) -> bytes:
    """Return a WAV file in memory, pcm16 mono at `target` Hz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_WIDTH)
        file.setframerate(target)
        file.writeframes(resample(audio, sample_rate, target))
    return buffer.getvalue()
