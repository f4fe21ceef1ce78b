"""Planned moves: all replicas are replaced, or one of two goes, and a caller who is on one goes on talking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from agent.state.actor import ActorState
from cluster import apply, status
from cluster.call import speak
from cluster.profile import Profile
from cluster.robot import Robot, Samples
from serve.config import Replicas
from tests.chaos.watch import Watch, greeted
from tests.conftest import Parley
from tests.room.doors import Door, Event

pytestmark = [pytest.mark.apart, pytest.mark.chaos, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

QUESTION = "Hello, can you hear me?"
GAP_SECONDS = 3.0
"""Most that may pass without an agent who listens, on a machine whose two cores start other replicas meanwhile."""


def deploy(profile: Profile) -> None:
    apply.apply(profile, "local", lambda _: None)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def question() -> Samples:
    return (await speak([QUESTION]))[0].samples


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def before(parley: Parley) -> AsyncGenerator[Profile]:
    """Return the profile that runs, and bring it back when all moves are done."""
    profile = Profile.model_validate(status.current().settings)
    yield profile
    await asyncio.to_thread(deploy, profile)


async def test_a_call_moves_when_all_replicas_are_replaced_and_when_one_of_two_goes(
    parley: Parley, before: Profile, question: Samples
) -> None:
    # No slot is spare: one replica is to take every call in the end.
    new = before.model_copy(update={"agent": before.agent.model_copy(update={"spare_calls": 0})})
    replicas = {each.pid for each in parley.replicas("agent")}
    await moved(parley, new, question, "all replicas are replaced")
    later = {each.pid for each in parley.replicas("agent")}
    assert not replicas & later, "a change of the agent's configuration makes new replicas"
    for _ in range(4):  # until the call is on the one that goes
        one = new.model_copy(update={"agent": new.agent.model_copy(update={"replicas": Replicas(min=1, max=1)})})
        if await moved(parley, one, question, "one of two goes"):
            break
        await asyncio.to_thread(deploy, new)
    else:
        pytest.fail("the replica that went never had the call")
    assert {each.pid for each in parley.replicas("agent")} < later, "fewer replicas are no new ones"


async def moved(parley: Parley, after: Profile, question: Samples, what: str) -> bool:
    """Call, change the cluster to a profile while the caller talks; return whether the call moved."""
    await parley.until_calls(0)
    state, door = ActorState(), Door(parley)
    robot = Robot(parley.page, door.access("ada"))
    watch = Watch(robot)
    async with robot, _shown(watch, door):
        await greeted(robot)
        began = time.perf_counter()
        deploying = asyncio.create_task(asyncio.to_thread(deploy, after))
        turns, numbers = 0, list[int]()
        while not deploying.done() or turns < 2:
            asked = await robot.say(question)
            await robot.heard_after(asked, 40)
            turn = await asyncio.wait_for(robot.turns.get(), 40)
            turns += 1
            print(f"{time.perf_counter() - began:6.2f} s  turn {turn['turn']}: {turn['heard']}")
            heard = [turn["heard"]]
            numbers.append(turn["turn"])
            await robot.quiet(1.0, 40)
            while not robot.turns.empty():  # who speaks in the moment of the move is heard in two parts
                later = robot.turns.get_nowait()
                heard.append(later["heard"])
                numbers.append(later["turn"])
            assert len(set(heard)) == len(heard), "a question was answered twice"
        await deploying
        assert numbers == sorted(set(numbers)), "turns are counted on, wherever the call is"
        [lease] = [each for each in await state.leases() if each.call == door.room]
        gaps = _gaps(door.events())
        print(f"{what}: {turns} turns, epoch {lease.epoch}, nobody listened for {gaps} s")
    await watch.aclose()
    assert not watch.both(), "two agents were heard at once"
    assert all(gap < GAP_SECONDS for gap in gaps)
    return bool(gaps)


@asynccontextmanager
async def _shown(watch: Watch, door: Door) -> AsyncGenerator[None]:
    """Print what the caller saw, and what the agents did, when it is over."""
    began, clock = time.perf_counter(), time.time()
    try:
        yield
    finally:
        print(watch.lines(began))
        for each in door.events():
            if each["type"] in (
                "entrypoint",
                "call_resumed",
                "call_moved",
                "call_adopted",
                "process",
                "turn",
                "cleanup",
            ):
                print(f"{each['time'] - clock:7.2f} s  {each['type']} {each.get('reason', '')}")
        print("both", [f"{each - began:.2f}" for each in watch.both()])


def _gaps(events: list[Event]) -> list[float]:
    """Return the seconds from each moment at which an agent let the call go to the next one's first listening."""
    found: list[float] = []
    gone = None
    for each in events:
        if each["type"] == "call_moved":
            gone = each["time"]
        elif each["type"] == "process" and gone is not None:
            found.append(round(each["time"] - gone, 2))
            gone = None
    return found
