"""What a call costs the agent without any model: processor time and memory, beside a stock livekit-agents worker.

The same fake engines, callers and livekit-server serve both in one run. Only the agent's processes are measured, with
WebRTC's threads, which are theirs: callers, models and livekit-server do not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import numpy as np
import psutil

from cluster.bench import meter
from cluster.bench.compare import Executor, stock, stock_access
from cluster.bench.lines import ANSWER_SECONDS, Line
from cluster.bench.report import Report
from cluster.bench.sentences import QUESTIONS
from cluster.call import speak
from cluster.profile import Profile
from cluster.robot import RATE, Access, Samples, loud_frames
from serve.contracts import ROLES
from serve.errors import BadRequest, Unavailable

Progress = Callable[[str], None]

STATES = ("silent", "listening", "speaking", "conversation")
PERIOD_SECONDS = 14.0
"""Of a conversation's turn: the caller speaks a third of it, the answer of the profile `plumbing` takes a half."""

CALLER_SECONDS = PERIOD_SECONDS / 3
_GAP_SECONDS = 0.15
"""Between sentences of a caller who does not stop: shorter than what ends an utterance."""

_START_SECONDS = 8.0
"""A stock worker starts its next process when it has given one away: not the work of a call."""

_JOIN_SECONDS = 60.0
_SETTLE_SECONDS = 2.0
_QUIET_SECONDS = 60.0
_SENTENCE = "There is a train at seven in the morning, and another one goes at noon. "
_SECONDS_PER_CHARACTER = 0.07


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: Of its figures.
        group: Its processes that carry calls.
        beside: What it has besides, that calls make work for; None: nothing.
        access: A way into a call; None: the page's.
    """

    name: str
    group: meter.Group
    beside: meter.Group | None = None
    access: Access | None = None


@dataclass(slots=True)
class Found:
    """What was measured on one side: values by state and number of calls, a value for each round.

    Attributes:
        idle: Cores without calls.
        cores: Of one call, less what it takes without calls.
        beside: The same of what is beside.
        shares: Of the time, in which callers and agents were audible, last round.
        sizes: MiB by number of calls.
        facts: What went otherwise than it should.
    """

    idle: list[float] = field(default_factory=list[float])
    cores: dict[tuple[str, int], list[float]] = field(default_factory=dict[tuple[str, int], list[float]])
    beside: dict[tuple[str, int], list[float]] = field(default_factory=dict[tuple[str, int], list[float]])
    shares: dict[tuple[str, int], tuple[float, float]] = field(
        default_factory=dict[tuple[str, int], tuple[float, float]]
    )
    sizes: list[dict[int, float]] = field(default_factory=list[dict[int, float]])
    facts: dict[str, int] = field(default_factory=dict[str, int])

    def count(self, what: str, number: int) -> None:
        """Add to a fact."""
        self.facts[what] = self.facts.get(what, 0) + number


def check(profile: Profile, counts: Sequence[int]) -> None:
    """Check that the cluster that is up is one for this measurement.

    Raises:
        BadRequest: A model is no fake, or the calls do not fit into one agent replica.
    """
    real = [name for role in ROLES if profile.model(name := profile.routes.model(role)).engine != f"fake-{role}"]
    if real:
        raise BadRequest(
            "profile",
            f"{', '.join(real)} would be measured with the calls; run `parley up --profile plumbing --no-call`",
        )
    agent = profile.agent
    if agent.replicas.max > 1 or max(counts) > agent.calls_per_replica - agent.spare_calls:
        raise BadRequest(
            "--calls",
            f"{max(counts)} calls must be in one agent process: up with --set agent.calls_per_replica={max(counts)}",
        )


async def calls(
    page: str,
    profile: Profile,
    members: Callable[[], Iterable[psutil.Process]],
    livekit: dict[str, str],
    say: Progress,
    *,
    counts: Sequence[int],
    seconds: float,
    rounds: int = 1,
    executor: Executor = "process",
    alone: bool = False,
) -> Report:
    """Measure calls that are silent, listen, speak and converse.

    Args:
        page: Address of the page.
        profile: Whose models are fake.
        members: Finds the cluster's processes.
        livekit: LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET of the cluster.
        say: Told what is being done.
        counts: Numbers of calls at once.
        seconds: Each state is measured for so long.
        rounds: How often everything is measured.
        executor: What the stock worker runs a call in.
        alone: Without the stock worker.
    """
    check(profile, counts)
    speech = without_end([each.samples for each in await speak(QUESTIONS)])
    sides = [Side("Parley", _replicas(members, "agent:Agent"), _replicas(members, "dispatcher:Dispatcher"))]
    async with AsyncExitStack() as stack:
        if not alone:
            worker = await stack.enter_async_context(stock(profile, livekit, say, executor=executor))
            process = psutil.Process(worker.pid)
            name = f"stock worker, a {executor} each"
            sides.append(Side(name, lambda: [process], access=lambda: stock_access(livekit)))
            await asyncio.sleep(_START_SECONDS)
        found = {side.name: Found() for side in sides}
        for number in range(rounds):
            # Whoever is first has the machine as it is before the other's calls: that changes from round to round.
            for side in sides if number % 2 == 0 else sides[::-1]:
                await _round(page, side, found[side.name], speech, say, counts, seconds)
    command = f"calls {' '.join(f'--calls {count}' for count in counts)} --seconds {seconds:.0f} --rounds {rounds}"
    return report(command, found, counts)


async def _round(
    page: str, side: Side, found: Found, speech: Samples, say: Progress, counts: Sequence[int], seconds: float
) -> None:
    say(f"{side.name}: {seconds:.0f} s without calls")
    idle = await _cores([side.group, side.beside], seconds)
    found.idle.append(idle[0])
    sizes = {0: meter.memory(side.group)}
    for count in counts:
        async with AsyncExitStack() as stack:
            lines: list[Line] = []
            for _ in range(count):
                lines.append(await stack.enter_async_context(Line(page, side.access)))
                await lines[-1].until(lambda line=lines[-1]: bool(line.state), _JOIN_SECONDS, "answer to the call")
            await asyncio.sleep(_START_SECONDS)
            for state in STATES:
                say(f"{side.name}: {count} call(s), {state}, {seconds:.0f} s")
                key = state, count
                async with asyncio.timeout(seconds + 120):
                    busy = await _state(state, lines, side, found, speech, seconds)
                found.cores.setdefault(key, []).append((busy[0] - idle[0]) / count)
                found.beside.setdefault(key, []).append((busy[1] - idle[1]) / count)
            sizes[count] = meter.memory(side.group)
            found.count("utterances", sum(line.asked for line in lines))
            found.count("utterances without an answer", sum(line.unanswered for line in lines))
        # The line is free, and what the calls held is given back, before the next ones come.
        await asyncio.sleep(_START_SECONDS)
    found.sizes.append(sizes)


async def _state(
    state: str, lines: Sequence[Line], side: Side, found: Found, speech: Samples, seconds: float
) -> list[float]:
    """Bring all calls into a state, measure, and bring them back to silence."""
    began = time.perf_counter()
    tasks = [asyncio.create_task(work) for work in _activity(state, lines, speech, seconds)]
    try:
        if state == "speaking":
            found.count("calls that did not speak", await _missing(line.heard_after(began, 20) for line in lines))
        await asyncio.sleep(PERIOD_SECONDS if state == "conversation" else _SETTLE_SECONDS)
        spoken, audible = sum(line.spoken for line in lines), sum(line.audible for line in lines)
        busy = await _cores([side.group, side.beside], seconds, found)
        time_of_all = seconds * len(lines)
        found.shares[state, len(lines)] = (
            (sum(line.spoken for line in lines) - spoken) / time_of_all,
            (sum(line.audible for line in lines) - audible) / time_of_all,
        )
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error
    found.count("calls that did not fall quiet", await _missing(_hush(line, state) for line in lines))
    return busy


async def _hush(line: Line, state: str) -> None:
    """Wait until the agent is silent; who has listened answers first."""
    if state == "listening":
        await line.heard_after(time.perf_counter(), ANSWER_SECONDS)
    await line.quiet(1.0, _QUIET_SECONDS)


async def _missing(waits: Iterable[Coroutine[None, None, object]]) -> int:
    """Wait for all; return how many waited in vain: the figures say so, and the other calls are measured."""
    results = await asyncio.gather(*waits, return_exceptions=True)
    return sum(isinstance(each, Unavailable) for each in results)


def _activity(
    state: str, lines: Sequence[Line], speech: Samples, seconds: float
) -> list[Coroutine[None, None, object]]:
    """Return what the callers do in a state."""
    match state:
        case "listening":
            # Each begins elsewhere: people do not say the same.
            return [line.go_on(np.roll(speech, -n * len(speech) // len(lines))) for n, line in enumerate(lines)]
        case "speaking":
            # The model says back what is typed.
            text = monologue(seconds + 2 * _SETTLE_SECONDS + 4.0)
            return [line.type(text) for line in lines]
        case "conversation":
            question = speech[: int(CALLER_SECONDS * RATE)]
            apart = PERIOD_SECONDS / len(lines)
            return [line.converse(question, PERIOD_SECONDS, n * apart) for n, line in enumerate(lines)]
        case _:
            return []


async def _cores(groups: Sequence[meter.Group | None], seconds: float, found: Found | None = None) -> list[float]:
    """Return the cores that each group takes now; none: 0."""
    before = [meter.usage(group or list) for group in groups]
    await asyncio.sleep(seconds)
    pairs = [(was, meter.usage(group or list)) for was, group in zip(before, groups, strict=True)]
    if found:
        found.count("processes that ended while measured", sum(was.ended(now) for was, now in pairs))
    return [was.cores(now) for was, now in pairs]


def without_end(sentences: Sequence[Samples]) -> Samples:
    """Join sentences as somebody says them who does not stop: pauses around them are cut to 0.15 s."""
    gap = np.zeros(int(_GAP_SECONDS * RATE), np.int16)
    parts: list[Samples] = []
    for samples in sentences:
        loud = np.flatnonzero(loud_frames(samples))
        frame = RATE // 100
        parts += [samples[loud[0] * frame : (loud[-1] + 1) * frame], gap]
    return np.concatenate(parts)


def monologue(seconds: float) -> str:
    """Return sentences that the voice of the profile `plumbing` speaks for so long, or a little longer."""
    times = int(seconds / _SECONDS_PER_CHARACTER / len(_SENTENCE)) + 1
    return (_SENTENCE * times).strip()


def report(command: str, found: dict[str, Found], counts: Sequence[int]) -> Report:
    """Set the sides' figures under one another, state by state."""
    result = Report(command)
    for name, each in found.items():
        result.add(f"without calls: {name}", "cores", each.idle)
    for state in STATES:
        for count in counts:
            for name, each in found.items():
                caller, agent = each.shares[state, count]
                note = f"audible: caller {caller:.0%}, assistant {agent:.0%} of the time"
                result.add(f"{state}, {count} call(s): {name}", "cores a call", each.cores[state, count], note)
    for count in counts:
        for name, each in found.items():
            per_core = [1 / value for value in each.cores["conversation", count] if value > 0]
            result.add(f"conversation, {count} call(s): {name}", "calls a core", per_core)
    for name, each in found.items():
        result.add(f"without calls: {name}", "MiB", [sizes[0] for sizes in each.sizes], "PSS")
        result.add(f"a call: {name}", "MiB", [meter.memory_per_call(sizes) for sizes in each.sizes], "PSS, growth")
        beside = [value for count in counts[-1:] for value in each.beside["conversation", count]]
        if any(beside):
            result.add(f"dispatcher, conversation: {name}", "cores a call", beside, "beside the agent")
        result.facts |= {f"{name}: {what}": number for what, number in each.facts.items()}
    return result


def _replicas(members: Callable[[], Iterable[psutil.Process]], name: str) -> meter.Group:
    def find() -> list[psutil.Process]:
        return [each for each in members() if f"ServeReplica:{name}" in _title(each)]

    return find


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
