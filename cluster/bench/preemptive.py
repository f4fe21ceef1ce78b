"""What is won by beginning an answer before the turn is over: voice to voice with and without, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from cluster import apply, status
from cluster.bench.report import Report
from cluster.bench.sentences import QUESTIONS
from cluster.call import TurnResult, Utterance, place, speak
from cluster.profile import Profile

Progress = Callable[[str], None]
STAGES = ("endpointing_ms", "stt_ms", "llm_first_token_ms", "tts_first_byte_ms")


async def preemptive(page: str, profile: Profile, say: Progress, *, turns: int, rounds: int) -> Report:
    """Measure blocks of turns in pairs, with `agent.turns.preemptive` on and off: each change makes new agent replicas.

    Args:
        page: Address of the page.
        profile: Of the cluster that is up; it is put back in the end.
        say: Told what is being done.
        turns: Of one caller, in each block.
        rounds: Pairs of blocks.
    """
    questions = await speak(QUESTIONS)
    found: dict[bool, list[TurnResult]] = {True: [], False: []}
    switched: list[float] = []
    name = status.current().profile
    try:
        for number, on in enumerate(order(rounds)):
            say(f"block {number + 1} of {2 * rounds}: {_word(on)}")
            began = time.monotonic()
            await asyncio.to_thread(apply.apply, _with(profile, on), name, lambda step: None)
            switched.append(time.monotonic() - began)
            found[on] += await _block(page, questions, turns)
    finally:
        await asyncio.to_thread(apply.apply, profile, name, lambda step: None)
    result = report(f"preemptive --turns {turns} --rounds {rounds}", found)
    result.facts["switching took, seconds, most"] = round(max(switched), 1)
    return result


def order(rounds: int) -> list[bool]:
    """Return the blocks: on and off, then off and on, so that a drift of the machine falls on both alike."""
    return [on for number in range(rounds) for on in ((True, False) if number % 2 == 0 else (False, True))]


def report(command: str, found: dict[bool, list[TurnResult]]) -> Report:
    """Summarise the turns of both kinds, stage by stage."""
    result = Report(command)
    for on in (True, False):
        times = [turn.voice_to_voice_ms for turn in found[on] if turn.voice_to_voice_ms is not None]
        result.add(f"voice to voice, {_word(on)}", "ms", times)
    for stage in STAGES:
        for on in (True, False):
            values = [value for turn in found[on] if (value := turn.stages.get(stage)) is not None]
            what = stage.removesuffix("_ms").replace("_", " ")
            result.add(f"{what}, {_word(on)}", "ms", values, "as the agent reports it")
    for on in (True, False):
        failed = sum(turn.error is not None for turn in found[on])
        result.facts[f"failed, {_word(on)}"] = f"{failed} of {len(found[on])}"
    return result


async def _block(page: str, questions: Sequence[Utterance], turns: int) -> list[TurnResult]:
    """Place one call; its first turn warms a new replica up and does not count."""
    (call,) = await place(page, questions, turns=turns + 1)
    return call.turns[1:]


def _with(profile: Profile, on: bool) -> Profile:
    turns = profile.agent.turns.model_copy(update={"preemptive": on})
    return profile.model_copy(update={"agent": profile.agent.model_copy(update={"turns": turns})})


def _word(on: bool) -> str:
    return "preemptive" if on else "not preemptive"
