"""`parley call`: real calls by robot callers, and what they measured."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np

from cluster.robot import RATE, Access, LineBusy, Robot, Samples, loud_frames
from serve.errors import BadRequest, ParleyError, Unavailable

ANSWER_SECONDS = 20.0
SPOKEN_SECONDS = 90.0
"""An answer may take this long to be spoken."""
GREETING_SECONDS = 12.0
APART_SECONDS = 0.5
"""Callers at once begin this much after one another: people do not speak in step."""

DEFAULT_QUESTION = "Hello, can you hear me?"


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something to say, and its words where they are known."""

    samples: Samples
    text: str | None = None


@dataclass(slots=True)
class TurnResult:
    """One question and its answer, as `parley call --json` prints it."""

    sent: str | None
    heard: str = ""
    answer: str = ""
    voice_to_voice_ms: int | None = None
    stages: dict[str, int | None] = field(default_factory=dict[str, "int | None"])
    error: str | None = None
    cut_in: bool = False
    """The agent spoke before the question had ended."""

    def json(self) -> dict[str, Any]:
        """Return the turn as a JSON object."""
        names = ("endpointing_ms", "stt_ms", "llm_first_token_ms", "tts_first_byte_ms")
        return {
            "sent": self.sent,
            "heard": self.heard,
            "answer": self.answer,
            "voice_to_voice_ms": self.voice_to_voice_ms,
            "stages": {name: self.stages.get(name) for name in names},
            "error": self.error,
        }


@dataclass(slots=True)
class CallResult:
    """One call. `first_word_ms`: from joining to the agent's first audible sample, where it greets."""

    call: str
    room: str = ""
    recording: Path | None = None
    turns: list[TurnResult] = field(default_factory=list[TurnResult])
    first_word_ms: int | None = None

    def json(self) -> dict[str, Any]:
        """Return the call as a JSON object."""
        return {
            "call": self.call,
            "room": self.room,
            "recording": str(self.recording) if self.recording else None,
            "turns": [turn.json() for turn in self.turns],
        }


def report(calls: Sequence[CallResult]) -> dict[str, Any]:
    """Return the object that `parley call --json` prints."""
    turns = [turn for call in calls for turn in call.turns]
    times = sorted(turn.voice_to_voice_ms for turn in turns if turn.voice_to_voice_ms is not None)
    return {
        "calls": [call.json() for call in calls],
        "summary": {
            "calls": len(calls),
            "turns": len(turns),
            "failed": sum(turn.error is not None for turn in turns),
            "voice_to_voice_ms": spread(times),
        },
    }


def spread(times: Sequence[float]) -> dict[str, int | None]:
    """Return p50, p95, min and max of milliseconds; nulls where there are none."""
    if not times:
        return dict.fromkeys(("p50", "p95", "min", "max"))
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else times[0]
    values = {"p50": statistics.median(times), "p95": p95, "min": min(times), "max": max(times)}
    return {name: round(value) for name, value in values.items()}


def read_wav(path: Path) -> Utterance:
    """Read an audio file of any rate and number of channels.

    Raises:
        BadRequest: It is not audio, empty, too long, or there is nothing to hear in it.
    """
    import soundfile  # pyright: ignore[reportMissingTypeStubs]
    import soxr  # pyright: ignore[reportMissingTypeStubs]

    if not path.is_file():
        raise BadRequest("--wav", f"{path} is not there")
    try:
        data, rate = cast(Any, soundfile).read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        raise BadRequest("--wav", f"{path} is not audio (WAV, FLAC, OGG or MP3 would be)") from None
    if not len(data):
        raise BadRequest("--wav", f"{path} is empty")
    if len(data) / rate > 120:
        raise BadRequest("--wav", f"{path} is longer than 120 s, more than a turn")
    mono = cast(Any, soxr).resample(data.mean(axis=1), rate, RATE)
    samples = (np.clip(mono, -1, 1) * 32767).astype(np.int16)
    if not loud_frames(samples).any():
        raise BadRequest("--wav", f"{path} is silent: there is nothing to hear in it")
    return Utterance(samples)


async def speak(texts: Sequence[str], *, speed: float = 1.0) -> list[Utterance]:
    """Speak texts with the embedded voice, in this process: the cluster hears them as it hears any caller.

    Args:
        texts: What to say.
        speed: Of the voice; 1.0 is its own.
    """
    from cluster.voices import embedded_voice
    from serve import audio
    from serve.contracts import SpeechRequest

    voice = await embedded_voice()
    try:
        spoken: list[Utterance] = []
        for text in texts:
            if not text.strip():
                raise BadRequest("--text", "there is nothing to say")
            pcm = b""
            async for chunk in voice.speak(SpeechRequest(text, speed=speed)):
                pcm += audio.resample(chunk.audio, chunk.sample_rate, RATE) if chunk.audio else b""
            spoken.append(Utterance(np.frombuffer(pcm, dtype=np.int16), text))
        return spoken
    finally:
        await voice.close()


async def place(
    page: str,
    utterances: Sequence[Utterance],
    *,
    access: Access | None = None,
    calls: int = 1,
    turns: int | None = None,
    wait: float = 0.0,
    out: Path | None = None,
) -> list[CallResult]:
    """Place calls at once, each saying the utterances in turn.

    Args:
        page: Address of the page.
        access: Gives each caller its way in; None: the page's API.
        utterances: What to say; taken round and round for `turns` turns.
        calls: How many callers.
        turns: Turns of each; None: each utterance once.
        wait: Seconds to wait in the queue when every line is busy.
        out: Folder for recordings.

    Raises:
        Unavailable: Nothing answers at the page's address, or every line is busy.
    """
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            (await http.get(f"{page.rstrip('/')}/health/live")).raise_for_status()
    except httpx.HTTPError:
        raise Unavailable(f"nothing answers at {page}: start it with `parley up`") from None
    if out:
        await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
    count = turns if turns is not None else len(utterances)
    plan = [utterances[turn % len(utterances)] for turn in range(count)]
    return list(await asyncio.gather(*(_call(Robot(page, access), n, plan, wait, out) for n in range(calls))))


async def _call(caller: Robot, number: int, plan: Sequence[Utterance], wait: float, out: Path | None) -> CallResult:
    result = CallResult(f"{number + 1}")
    await asyncio.sleep(number * APART_SECONDS)
    try:
        async with caller as robot:
            result.room = result.call = robot.name
            await robot.answered(wait)
            await _greeting(robot, result)
            for utterance in plan:
                result.turns.append(await _turn(robot, utterance))
            if out:
                result.recording = out / f"{robot.name}.wav"
                robot.record(result.recording)
    except LineBusy:
        raise
    except (ParleyError, httpx.HTTPError, TimeoutError, ConnectionError) as error:
        missing = plan[len(result.turns) :]
        result.turns += [TurnResult(each.text, error=str(error) or type(error).__name__) for each in missing]
    return result


async def _greeting(robot: Robot, result: CallResult) -> None:
    """Hear the greeting out, where there is one."""
    try:
        first = await robot.heard_after(robot.joined, 3.0)
        result.first_word_ms = round((first - robot.joined) * 1000)
    except Unavailable:
        return
    await robot.quiet(0.4, GREETING_SECONDS)


async def _turn(robot: Robot, utterance: Utterance) -> TurnResult:
    turn = TurnResult(utterance.text)
    while not robot.turns.empty():
        robot.turns.get_nowait()
    began = time.perf_counter()
    ended = await robot.say(utterance.samples)
    turn.cut_in = any(sound.ended > began and sound.began < ended for sound in robot.sounds)
    try:
        turn.voice_to_voice_ms = round((await robot.heard_after(ended, ANSWER_SECONDS) - ended) * 1000)
        async with asyncio.timeout(SPOKEN_SECONDS):
            told = await robot.turns.get()
        turn.heard, turn.answer, turn.stages = told["heard"], told["answer"], told["stages"]
        turn.error = told["error"]
        await robot.quiet(0.4, ANSWER_SECONDS)
    except (Unavailable, TimeoutError) as error:
        turn.error = str(error) or "the agent did not report the turn in time"
    return turn
