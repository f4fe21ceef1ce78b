"""Who speaks when: a small labelled set of turns, each in a real call, and how many were taken rightly."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, cast

import httpx
import numpy as np
import yaml

from cluster.bench import sounds
from cluster.bench.report import Report
from cluster.bench.scoring import Case, Seen, Verdict, judge, words
from cluster.bench.sentences import LONG_ANSWER
from cluster.call import speak
from cluster.robot import RATE, Robot, Samples, loud_frames
from serve import registry
from serve.contracts import SpeechToText, TranscribeRequest
from serve.errors import BadRequest, EngineMissing, ParleyError

Progress = Callable[[str], None]

ATTEMPTS = 3
"""Of a case whose answer is over before it can show anything."""

QUIET_SECONDS = 4.0
"""Silence after which nothing more is to be expected; an answer that goes on does so sooner."""

SETTLE_SECONDS = 60.0
ANSWER_SECONDS = 20.0
ALONE_SECONDS = 0.8
"""Silence before a sound that is to meet silence."""


def cases(only: str | None = None) -> list[Case]:
    """Return the labelled set, or one kind of it.

    Raises:
        BadRequest: No kind is named so.
    """
    text = (resources.files("cluster.bench") / "turns.yaml").read_text(encoding="utf-8")
    kinds: dict[str, dict[str, Any]] = yaml.safe_load(text)
    if only is not None and only not in kinds:
        raise BadRequest("--only", f"{only!r} is none of: {', '.join(kinds)}")
    return [
        Case.model_validate({**each, "kind": kind, "right": group["right"]})
        for kind, group in kinds.items()
        if only in (None, kind)
        for each in group["cases"]
    ]


async def turns(page: str, say: Progress, *, rounds: int = 1, only: str | None = None) -> Report:
    """Try the labelled set, a call for each case, `rounds` times."""
    plan = cases(only) * rounds
    spoken = {id(case): await _audio(case, seed) for seed, case in enumerate(plan)}
    question = (await speak([LONG_ANSWER]))[0].samples
    recogniser = await _recogniser()
    verdicts: list[Verdict] = []
    failed: list[str] = []
    try:
        for number, case in enumerate(plan):
            say(f"{number + 1} of {len(plan)}: {case.kind}: {case.text}")
            try:
                verdict = await _try(page, case, spoken[id(case)], question, recogniser)
            except (ParleyError, httpx.HTTPError, TimeoutError, ConnectionError) as error:
                failed.append(f"{case.kind}: {case.text}: {error or type(error).__name__}")
                continue
            verdicts.append(verdict)
            if verdict.void or verdict.fault:
                say(f"  {'void' if verdict.void else verdict.fault}")
    finally:
        if recogniser is not None:
            await recogniser.close()
    return summary(f"turns --rounds {rounds}" + (f" --only {only!r}" if only else ""), verdicts, failed)


def summary(name: str, verdicts: Sequence[Verdict], failed: Sequence[str] = ()) -> Report:
    """Sum verdicts up."""
    report = Report(name)
    told = [verdict for verdict in verdicts if not verdict.void]
    over = [verdict for verdict in told if verdict.case.right == "goes on"]
    stops = [verdict for verdict in told if verdict.case.right == "stopped"]
    gaps = [verdict.gap for verdict in over if verdict.gap is not None]
    report.add("silence in an answer that went on", "ms", [gap * 1000 for gap in gaps], "heard by the caller")
    unheard = [float(verdict.unheard) for verdict in told if verdict.unheard is not None]
    report.add("words in the history less words heard", "words", unheard, "a recogniser counts those heard")
    facts = report.facts
    facts["false interruptions"] = _of(over, lambda each: bool(each.interrupted))
    facts["answers that paused and went on"] = f"{len(gaps)} of {len(over)}"
    facts["missed interruptions"] = _of(stops, lambda each: not each.interrupted)
    alone = [verdict for verdict in told if verdict.cut is not None]
    facts["cut-ins"] = _of(alone, lambda each: bool(each.cut))
    due = [verdict for verdict in told if verdict.answered is not None]
    facts["response rate"] = _of(due, lambda each: bool(each.answered))
    facts["history is what was heard, to 2 words"] = f"{sum(abs(each) <= 2 for each in unheard)} of {len(unheard)}"
    for kind in dict.fromkeys(verdict.case.kind for verdict in verdicts):
        these = [verdict for verdict in told if verdict.case.kind == kind]
        faults = Counter(verdict.fault for verdict in these if verdict.fault)
        wrong = "".join(f"; {count} {fault}" for fault, count in faults.items())
        facts[f"right: {kind}"] = f"{sum(not each.fault for each in these)} of {len(these)}{wrong}"
    facts["void: the answer was over too soon"] = len(verdicts) - len(told)
    facts["wrong"] = [f"{each.case.text}: {each.fault}" for each in told if each.fault]
    facts["failed"] = list(failed)
    return report


def _of(verdicts: Sequence[Verdict], counts: Callable[[Verdict], bool]) -> str:
    return f"{sum(counts(verdict) for verdict in verdicts)} of {len(verdicts)}"


async def _audio(case: Case, seed: int) -> list[Samples]:
    """Return what is to be heard, in parts."""
    if case.sound is not None and case.sound != "far":
        return [sounds.noise(case.sound, level=case.level, seconds=case.seconds, seed=seed)]
    # Without the silence around them, so that pauses are as long as the case says.
    parts = [_audible(each.samples) for each in await speak(case.say, speed=case.speed)]
    if case.sound == "far":
        parts = [(part * case.level).astype(np.int16) for part in parts]
    return parts


def _audible(samples: Samples) -> Samples:
    """Return speech from its first audible 10 ms to its last."""
    loud = np.flatnonzero(loud_frames(samples))
    return samples[int(loud[0]) * RATE // 100 : int(loud[-1] + 1) * RATE // 100]


async def _try(
    page: str, case: Case, parts: Sequence[Samples], question: Samples, recogniser: SpeechToText | None
) -> Verdict:
    for _ in range(ATTEMPTS - 1):
        verdict = judge(case, await _see(page, case, parts, question, recogniser))
        if not verdict.void:
            return verdict
    return judge(case, await _see(page, case, parts, question, recogniser))


async def _see(
    page: str, case: Case, parts: Sequence[Samples], question: Samples, recogniser: SpeechToText | None
) -> Seen:
    """Place one call, and watch."""
    samples, places = _joined(parts, case.pauses)
    async with Robot(page) as robot:
        await robot.answered()
        await robot.heard_after(robot.joined, ANSWER_SECONDS)
        await robot.quiet(ALONE_SECONDS, ANSWER_SECONDS)
        heard_from = time.perf_counter()
        if case.after is not None:
            asked = await robot.say(question)
            heard_from = await robot.heard_after(asked, ANSWER_SECONDS)
            await asyncio.sleep(case.after)  # the case says when
        began = time.perf_counter()
        await robot.say(samples, audible=case.sound is None)
        if case.right == "answered":
            await _answer(robot)
        await robot.quiet(QUIET_SECONDS, SETTLE_SECONDS)
        seen = Seen([(began + start, began + end) for start, end in places])
        seen.sounds = [sound for sound in robot.sounds if sound.began >= heard_from]
        while not robot.turns.empty():
            seen.turns.append(robot.turns.get_nowait())
        if case.after is not None and seen.turns and recogniser is not None:
            first = robot.received(heard_from, _end_of_first(case, seen))
            transcript = await recogniser.transcribe(TranscribeRequest(first.tobytes(), RATE))
            seen.heard_words = len(words(transcript.text))
        return seen


async def _answer(robot: Robot) -> None:
    """Wait for an answer, so that the silence before it is not taken for the end; none is for the judge."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while robot.turns.empty():  # noqa: ASYNC110  # the queue is the judge's to empty
                await asyncio.sleep(0.1)
    except TimeoutError:
        return


def _joined(parts: Sequence[Samples], pauses: Sequence[float]) -> tuple[Samples, list[tuple[float, float]]]:
    """Return parts with their pauses as one, and the audible stretch of each in seconds from the start."""
    whole: list[Samples] = []
    places: list[tuple[float, float]] = []
    at = 0.0
    for part, pause in zip(parts, [*pauses, 0.0], strict=True):
        loud = np.flatnonzero(loud_frames(part))
        start, end = (loud[0], loud[-1] + 1) if len(loud) else (0, len(part) * 100 // RATE)
        places.append((at + float(start) / 100, at + float(end) / 100))
        whole += [part, np.zeros(int(pause * RATE), np.int16)]
        at += len(part) / RATE + int(pause * RATE) / RATE
    return np.concatenate(whole), places


def _end_of_first(case: Case, seen: Seen) -> float:
    """Return when the first answer's last sound was heard."""
    if len(seen.turns) == 1:
        return max((sound.ended for sound in seen.sounds), default=seen.said[-1][1])
    # The next one's sounds begin after what it answers was said.
    last = seen.said[-1][1]
    return max((sound.ended for sound in seen.sounds if sound.began < last), default=last)


async def _recogniser() -> SpeechToText | None:
    """Return an embedded recogniser in this process, where there is one."""
    try:
        recogniser = cast(SpeechToText, registry.create("pocketsphinx", {}))
        await recogniser.load()
    except EngineMissing:
        return None
    return recogniser
