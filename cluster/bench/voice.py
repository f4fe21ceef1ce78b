"""What callers feel: voice to voice, pauses respected, barge-in, join; measured on the caller's side from audio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cluster.bench.report import Report
from cluster.bench.sentences import INTERRUPTION, LONG_ANSWER, PAUSE_SECONDS, PAUSED, QUESTIONS
from cluster.call import CallResult, Utterance, place, speak
from cluster.robot import RATE, Access, Robot
from serve.errors import Unavailable

if TYPE_CHECKING:
    from cluster.bench.writing import Writing  # it imports ray, whose environment a command sets first

Progress = Callable[[str], None]


async def paused_utterances() -> list[Utterance]:
    """Return the sentences with a pause in the middle, spoken."""
    halves = await speak([half for pair in PAUSED for half in pair])
    gap = np.zeros(int(PAUSE_SECONDS * RATE), np.int16)
    joined: list[Utterance] = []
    for first, second, words in zip(halves[::2], halves[1::2], PAUSED, strict=True):
        samples = np.concatenate([first.samples, gap, second.samples])
        joined.append(Utterance(samples, " ".join(words)))
    return joined


async def voice(
    page: str,
    say: Progress,
    *,
    calls: int,
    turns: int,
    pauses: bool = True,
    access: Access | None = None,
    name: str = "",
) -> Report:
    """Measure voice to voice: `calls` callers at once, `turns` turns each; every fifth has a pause in the middle."""
    questions = await speak(QUESTIONS)
    paused = await paused_utterances() if pauses else []
    plan: list[Utterance] = []
    for turn in range(turns):
        with_pause = bool(paused) and turn % 5 == 4
        plan.append(paused[turn // 5 % len(paused)] if with_pause else questions[turn % len(questions)])
    say(f"{calls} call(s), {turns} turns each")
    results = await place(page, plan, calls=calls, access=access)
    return voice_report(name or f"voice --calls {calls} --turns {turns}", results, plan, {id(each) for each in paused})


def voice_report(name: str, results: Sequence[CallResult], plan: Sequence[Utterance], paused: set[int]) -> Report:
    """Summarise calls."""
    report = Report(name)
    turns = [(turn, id(plan[i]) in paused) for call in results for i, turn in enumerate(call.turns)]
    good = [turn for turn, _ in turns if turn.error is None and turn.voice_to_voice_ms is not None]
    times = [float(turn.voice_to_voice_ms) for turn in good if turn.voice_to_voice_ms is not None]
    report.add("voice to voice", "ms", times)
    for stage in ("endpointing_ms", "stt_ms", "llm_first_token_ms", "tts_first_byte_ms"):
        values = [float(value) for turn in good if (value := turn.stages.get(stage)) is not None]
        report.add(stage.removesuffix("_ms").replace("_", " "), "ms", values, "as the agent reports it")
    pauses = [turn for turn, with_pause in turns if with_pause]
    report.facts["turns"] = len(turns)
    report.facts["failed"] = sum(turn.error is not None for turn, _ in turns)
    report.facts["errors"] = sorted({turn.error for turn, _ in turns if turn.error})
    if pauses:
        cut = sum(turn.cut_in for turn in pauses)
        report.facts[f"pauses of {PAUSE_SECONDS * 1000:.0f} ms in mid-sentence"] = f"{cut} of {len(pauses)} cut"
    joins = [float(call.first_word_ms) for call in results if call.first_word_ms is not None]
    report.add("join to first word", "ms", joins)
    return report


async def barge_in(page: str, say: Progress, *, times: int, writing: Writing | None = None) -> Report:
    """Measure from the caller's first sound over an answer to the silence the caller hears.

    Args:
        page: Address of the page.
        say: Told how far it is.
        times: How often.
        writing: Knows when the model wrote its last token.
    """
    question, interruption = await speak([LONG_ANSWER, INTERRUPTION])
    silences: list[float] = []
    missed = 0
    for number in range(times):
        say(f"barge-in {number + 1} of {times}")
        async with Robot(page) as robot:
            await robot.answered()
            await robot.heard_after(robot.joined, 10)
            await robot.quiet(0.5, 15)
            asked = await robot.say(question.samples)
            await robot.heard_after(asked, 20)
            began = time.perf_counter()
            spoken = asyncio.create_task(robot.say(interruption.samples))
            try:
                silences.append(await _silence_after(robot, began) * 1000)
            except Unavailable:
                missed += 1
            await spoken
            if writing is not None:
                await writing.interrupted(asked, began)
    report = Report(f"barge-in --times {times}")
    report.add("barge-in: speech to silence", "ms", silences, "heard by the caller")
    if writing is not None:
        writing.add(report)
    report.facts["answers that ended by themselves or went on"] = missed
    return report


async def _silence_after(robot: Robot, began: float) -> float:
    """Return the seconds until the answer that is being heard falls silent for 0.3 s."""
    deadline = began + 4.0
    while (now := time.perf_counter()) < deadline:
        last = robot.sounds[-1].ended
        if now - last > 0.3:
            if last < began:
                break
            return last - began
        await asyncio.sleep(0.02)
    raise Unavailable("the answer was not cut off")


async def join(page: str, say: Progress, *, times: int) -> Report:
    """Measure from joining the room to the agent's first audible sample."""
    waits: list[float] = []
    for number in range(times):
        say(f"join {number + 1} of {times}")
        async with Robot(page) as robot:
            waits.append((await robot.heard_after(robot.joined, 15) - robot.joined) * 1000)
    report = Report(f"join --times {times}")
    report.add("join to the agent's first word", "ms", waits, "heard by the caller")
    return report
