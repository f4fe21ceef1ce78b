"""`parley call`: recordings are checked before anyone is called, and the report has its promised shape."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile  # pyright: ignore[reportMissingTypeStubs]

from cluster.call import CallResult, TurnResult, place, read_wav, report, speak, spread
from cluster.robot import RATE, loud_frames
from serve.errors import BadRequest, Unavailable

pytestmark = pytest.mark.unit


def write(path: Path, samples: Any, rate: int) -> Path:
    cast(Any, soundfile).write(path, samples, rate)
    return path


def tone(seconds: float, rate: int) -> Any:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_recordings_of_any_rate_and_number_of_channels(tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.stack([tone(1, rate)] * channels, axis=1)
    heard = read_wav(write(tmp_path / "a.wav", samples, rate)).samples
    assert len(heard) == pytest.approx(RATE, abs=RATE // 50)
    assert loud_frames(heard).mean() > 0.9


def test_what_is_wrong_with_a_recording_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound in here")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as empty:
        empty.setparams((1, 2, RATE, 0, "NONE", ""))
    write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    write(tmp_path / "long.wav", np.zeros(8000 * 121), 8000)
    for name, problem in (
        ("missing.wav", "not there"),
        ("text.wav", "not audio"),
        ("empty.wav", "empty"),
        ("silent.wav", "silent"),
        ("long.wav", "longer"),
    ):
        with pytest.raises(BadRequest, match=f"--wav: .*{problem}"):
            read_wav(tmp_path / name)


async def test_words_must_be_there() -> None:
    with pytest.raises(BadRequest, match="--text"):
        await speak(["  "])


async def test_with_nothing_up_it_says_how_to_start() -> None:
    with pytest.raises(Unavailable, match="parley up"):
        await place("http://127.0.0.1:9", [])


def test_the_report_has_its_promised_shape() -> None:
    turns = [TurnResult("hi", "hi", "hello", 500, {"stt_ms": 40}), TurnResult(None, error="no answer within 20 s")]
    told = report([CallResult("c", "r", Path("r.wav"), turns)])
    assert told["calls"][0]["recording"] == "r.wav"
    assert told["calls"][0]["turns"][0] == {
        "sent": "hi",
        "heard": "hi",
        "answer": "hello",
        "voice_to_voice_ms": 500,
        "stages": {"endpointing_ms": None, "stt_ms": 40, "llm_first_token_ms": None, "tts_first_byte_ms": None},
        "error": None,
    }
    assert told["summary"] == {
        "calls": 1,
        "turns": 2,
        "failed": 1,
        "voice_to_voice_ms": {"p50": 500, "p95": 500, "min": 500, "max": 500},
    }


def test_spread_of_nothing_and_of_something() -> None:
    assert spread([]) == {"p50": None, "p95": None, "min": None, "max": None}
    assert spread([1, 2, 3, 4, 5])["p50"] == 3
