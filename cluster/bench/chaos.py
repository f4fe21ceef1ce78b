"""What callers notice when a process dies in the middle of their turn: one of each kind is killed (SIGKILL)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import psutil

from agent.state import Lease, State
from agent.state.actor import ActorState
from cluster.bench.report import Report
from cluster.call import Utterance, speak
from cluster.profile import Profile
from cluster.robot import RATE, Robot
from serve.errors import ParleyError, Unavailable

Progress = Callable[[str], None]
Phase = Literal["listening", "thinking", "answering"]
Victim = Literal["stt", "llm", "tts", "agent", "dispatcher"]

KILLS: tuple[tuple[Victim, Phase], ...] = (
    ("stt", "listening"),
    ("llm", "thinking"),
    ("tts", "answering"),
    ("agent", "listening"),
    ("agent", "thinking"),
    ("agent", "answering"),
    ("dispatcher", "answering"),
)
QUESTION = "Please tell me a long story about the sea and the people who live there."
AGAIN = "Hello, can you hear me?"
ANSWER_SECONDS = 40.0
WHOLE_SECONDS = 90.0
UNDER_WAY_SECONDS = 0.4
"""Of sound that is in buffers between the agent and the caller's ear."""


@dataclass(frozen=True, slots=True)
class Kill:
    """What one kill did to a caller.

    Attributes:
        silence: Seconds to the next sound of the answer, from the kill, or from the end of the question where that is
            later; 0.0 where the answer did not stop.
        answered: Turns told of the question: one is right, none is a turn lost, more are doubled.
        goes_on: The next question was answered.
    """

    silence: float
    answered: int
    goes_on: bool


class Killer:
    """Kills processes of a cluster that is up.

    Args:
        page: Address of the page.
        dashboard: Address of the Ray dashboard.
        profile: What runs.
        state: Says who carries a call.
    """

    def __init__(self, page: str, dashboard: str, profile: Profile, state: State | None = None) -> None:
        self._page, self._dashboard, self._profile = page, dashboard, profile
        self._state = state or ActorState()
        self._spoken: list[Utterance] = []

    async def kill(self, victim: Victim, phase: Phase) -> Kill:
        """Call, ask, kill in the given phase of the turn, and see what becomes of it."""
        if not self._spoken:
            self._spoken = await speak([QUESTION, AGAIN])
        question, again = (each.samples for each in self._spoken)
        await self._until_whole()
        async with Robot(self._page) as robot:
            await robot.answered(wait=20)
            await robot.heard_after(robot.joined, 15)
            await robot.quiet(0.5, 15)
            suspects = await self._suspects(victim, robot.name)
            before = {pid: _used(pid) for pid in suspects}
            asking = asyncio.create_task(robot.say(question))
            if phase == "listening":
                await asyncio.sleep(0.4 * len(question) / RATE)
                killed = _kill(_busiest(before))
                asked = await asking
            else:
                asked = await asking
                if phase == "thinking":
                    await asyncio.sleep(0.15)
                else:
                    await robot.heard_after(asked, ANSWER_SECONDS)
                    await asyncio.sleep(0.5)
                killed = _kill(_busiest(before))
            answered = await self._turns(robot)
            silence = _silence(robot, max(asked, killed))
            goes_on = await self._goes_on(robot, again)
        return Kill(silence, answered, goes_on)

    async def _turns(self, robot: Robot) -> int:
        """Wait for the turn's report and the end of its answer; count the reports."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await robot.turns.get()
        except TimeoutError:
            return 0
        await robot.quiet(1.0, ANSWER_SECONDS)
        more = robot.turns.qsize()
        while not robot.turns.empty():
            robot.turns.get_nowait()
        return 1 + more

    async def _goes_on(self, robot: Robot, question: Any) -> bool:
        try:
            asked = await robot.say(question)
            await robot.heard_after(asked, ANSWER_SECONDS)
            async with asyncio.timeout(ANSWER_SECONDS):
                return bool((await robot.turns.get())["answer"])
        except (Unavailable, TimeoutError):
            return False

    async def _suspects(self, victim: Victim, room: str) -> list[int]:
        """Return the processes of which one serves this call; which of a model's replicas, nobody knows beforehand."""
        if victim not in ("agent", "dispatcher"):
            return list((await self._replicas(self._profile.routes.model(victim))).values())
        lease = await self._lease(room)
        return [(await self._replicas(victim))[lease.owner if victim == "agent" else lease.dispatcher]]

    async def _lease(self, room: str) -> Lease:
        async with asyncio.timeout(WHOLE_SECONDS):
            while True:
                with contextlib.suppress(Unavailable):
                    for lease in await self._state.leases():
                        if lease.call == room:
                            return lease
                    raise ParleyError(f"nobody carries {room}")

    async def _replicas(self, application: str) -> dict[str, int]:
        """Return the process ids of an application's running replicas, by replica."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            answer = await http.get(f"{self._dashboard}/api/serve/applications/")
            answer.raise_for_status()
        deployments = answer.json()["applications"][application]["deployments"]
        return {
            replica["replica_id"]: replica["pid"]
            for name, deployment in deployments.items()
            for replica in deployment["replicas"]
            if name != "Front" and replica["state"] == "RUNNING"
        }

    async def _until_whole(self) -> None:
        """Wait until everything runs that should: the next kill meets a whole cluster."""
        wanted = {model.name: model.replicas.min for model in self._profile.models}
        wanted |= {"agent": self._profile.agent.replicas.min, "dispatcher": self._profile.agent.dispatchers}
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                for application, count in wanted.items():
                    while len(await self._replicas(application)) < count:  # noqa: ASYNC110
                        await asyncio.sleep(0.3)  # Serve tells no event of it
        except TimeoutError:
            raise ParleyError(f"the cluster was not whole again within {WHOLE_SECONDS:.0f} s") from None


def _family(process: int) -> list[psutil.Process]:
    return [*psutil.Process(process).children(recursive=True), psutil.Process(process)]


def _used(process: int) -> float:
    """Return the processor seconds of a process and its children."""
    return sum(sum(each.cpu_times()[:2]) for each in _family(process))


def _busiest(before: Mapping[int, float]) -> int:
    """Return the process that has worked most since: the one that serves the only call there is."""
    return max(before, key=lambda process: _used(process) - before[process])


def _kill(process: int) -> float:
    """Kill a process and its children, as a machine that goes dark would."""
    for each in _family(process):
        os.kill(each.pid, signal.SIGKILL)
    return time.perf_counter()


def _silence(robot: Robot, since: float) -> float:
    """Return the seconds to the next sound; 0.0 where one was going on and did not stop.

    What was under way when the kill came is still heard for a moment: it does not count as going on.
    """
    after = next((sound for sound in robot.sounds if sound.ended > since + UNDER_WAY_SECONDS), None)
    return max(0.0, after.began - since) if after else float("nan")


async def chaos(killer: Killer, say: Progress, *, times: int, only: Victim | None = None) -> Report:
    """Kill each kind, or one, so many times, and report what callers noticed."""
    report = Report(f"chaos --times {times}")
    for victim, phase in KILLS:
        if only not in (None, victim):
            continue
        name = f"{victim}, while {phase}"
        results: list[Kill] = []
        for number in range(times):
            say(f"{name}: {number + 1} of {times}")
            results.append(await killer.kill(victim, phase))
            if results[-1].answered != 1 or not results[-1].goes_on:
                say(f"{name}: {results[-1]}")
        report.add(f"{name}: to audio", "s", [each.silence for each in results if each.silence == each.silence])
        lost = sum(each.answered == 0 for each in results)
        doubled = sum(each.answered > 1 for each in results)
        on = sum(each.goes_on for each in results)
        report.facts[name] = f"{lost} lost, {doubled} doubled, {on} of {times} calls went on"
    return report
