"""What traces cost a caller: voice to voice with and without, in turns, with a collector in this process."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from cluster import apply, status
from cluster.bench.collector import Collector, Seen
from cluster.bench.preemptive import order
from cluster.bench.report import Report
from cluster.bench.sentences import QUESTIONS
from cluster.call import TurnResult, place, speak
from cluster.profile import Profile
from serve.errors import ParleyError, Unavailable
from serve.tracing import ENDPOINTS

Progress = Callable[[str], None]
WAIT_SECONDS = 15.0


async def traces(page: str, profile: Profile, say: Progress, *, turns: int, rounds: int) -> Report:
    """Measure blocks of turns in pairs, with `agent.traces` on and off: each change makes new agent replicas.

    Args:
        page: Address of the page.
        profile: Of the cluster that is up; it is put back in the end.
        say: Told what is being done.
        turns: Of one caller, in each block.
        rounds: Pairs of blocks.

    Raises:
        ParleyError: The cluster sends no traces here.
    """
    collector = Collector(_port()).start()
    found: dict[bool, list[TurnResult]] = {True: [], False: []}
    name = status.current().profile
    questions = await speak(QUESTIONS)
    try:
        for number, on in enumerate(order(rounds)):
            say(f"block {number + 1} of {2 * rounds}: {_word(on)}")
            await asyncio.to_thread(apply.apply, _with(profile, on), name, lambda step: None)
            before = len(collector.spans)
            # The first turn warms a new replica up and does not count.
            (call,) = await place(page, questions, turns=turns + 1)
            found[on] += call.turns[1:]
            await _check(collector, before, on)
    finally:
        await asyncio.to_thread(apply.apply, profile, name, lambda step: None)
        collector.stop()
    return report(f"traces --turns {turns} --rounds {rounds}", found, collector.spans)


def report(command: str, found: dict[bool, list[TurnResult]], spans: Sequence[Seen]) -> Report:
    """Summarise both kinds, and by how much of the voice to voice without traces they differ."""
    result = Report(command)
    medians: dict[bool, float] = {}
    for on in (False, True):
        times = [turn.voice_to_voice_ms for turn in found[on] if turn.voice_to_voice_ms is not None]
        result.add(f"voice to voice, {_word(on)}", "ms", times)
        if times:
            medians[on] = statistics.median(times)
        failed = sum(turn.error is not None for turn in found[on])
        result.facts[f"failed, {_word(on)}"] = f"{failed} of {len(found[on])}"
    if len(medians) == 2:
        result.facts["traces add to the median, percent"] = round(100 * (medians[True] / medians[False] - 1), 1)
    if traced := sum(span.name == "turn" for span in spans):
        result.facts["spans, each turn"] = round(len(spans) / traced, 1)
    return result


async def _check(collector: Collector, before: int, on: bool) -> None:
    """See that a block was what it is called."""
    if not on:
        if any(span.name == "turn" for span in collector.spans[before:]):
            raise ParleyError("turns were traced though `agent.traces` was off")
        return
    try:
        await asyncio.to_thread(
            collector.wait, lambda spans: any(span.name == "turn" for span in spans[before:]), WAIT_SECONDS
        )
    except TimeoutError:
        raise Unavailable(
            f"no trace came: start the cluster with {ENDPOINTS[1]}=http://127.0.0.1:4318, and run this with the same"
        ) from None


def _port() -> int:
    endpoint = os.environ.get(ENDPOINTS[1], "")
    parts = urlsplit(endpoint)
    if parts.hostname not in ("127.0.0.1", "localhost") or not parts.port:
        raise ParleyError(
            f"set {ENDPOINTS[1]}=http://127.0.0.1:4318, for `parley up` as well as for this: it is the collector"
        )
    return parts.port


def _with(profile: Profile, on: bool) -> Profile:
    return profile.model_copy(update={"agent": profile.agent.model_copy(update={"traces": on})})


def _word(on: bool) -> str:
    return "traced" if on else "not traced"
