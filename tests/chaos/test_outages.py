"""Whole services go away under a live call and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import ray

from agent.state import Lease, State
from agent.state.actor import NAME, NAMESPACE, ActorState
from agent.state.redis import RedisState
from cluster import apply, status
from cluster.profile import Profile
from cluster.robot import Robot
from tests.chaos.watch import Watch, greeted, process
from tests.conftest import Parley
from tests.room.doors import Door, has

pytestmark = [pytest.mark.apart, pytest.mark.chaos, pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]


class Talk:
    """A caller in conversation."""

    def __init__(self, parley: Parley, prefix: str) -> None:
        self.door = Door(parley, prefix)
        self.robot = Robot(parley.page, self.door.access("ada"))
        self.watch = Watch(self.robot)

    async def turn(self, words: str) -> dict[str, Any]:
        """Type a question, hear the whole answer, and return its report."""
        asked = time.perf_counter()
        await self.robot.type(words)
        heard = await self.robot.heard_after(asked, 30)
        report = await asyncio.wait_for(self.robot.turns.get(), 30)
        await self.robot.quiet(0.5, 30)
        assert report["heard"] == words
        assert report["answer"]
        print(f"{words!r} answered after {heard - asked:.2f} s")
        return report

    async def lease(self, state: State, seconds: float) -> Lease:
        """Return the call's living lease, as soon as it is there."""
        async with asyncio.timeout(seconds):
            while True:
                found = [each for each in await state.leases() if each.call == self.door.room]
                if found and found[0].seconds_left > 0:
                    return found[0]
                await asyncio.sleep(0.1)  # no state tells of a renewal


@asynccontextmanager
async def talk(parley: Parley, prefix: str) -> AsyncGenerator[Talk]:
    """Call, and wait for the first words; afterwards no call is counted, and a new one is answered."""
    await parley.until_calls(0, 60)
    talking = Talk(parley, prefix)
    async with talking.robot:
        await greeted(talking.robot)
        yield talking
    await talking.watch.aclose()
    assert not talking.watch.both(), "two agents were heard at once"
    await parley.until_calls(0)
    async with Robot(parley.page) as next_one:
        await greeted(next_one)


async def test_the_embedded_state_dies(parley: Parley) -> None:
    state = ActorState()
    async with talk(parley, "actor-") as call:
        before = await call.lease(state, 5)
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE), no_restart=False)
        killed = time.perf_counter()
        await call.turn("What is your name?")
        after = await call.lease(state, 10)
        print(f"its lease was back {time.perf_counter() - killed:.1f} s after the kill at the latest")
        assert (after.owner, after.epoch) == (before.owner, before.epoch)
        assert await state.load(call.door.room), "the turn has brought the record back"
    assert sum(each["type"] == "entrypoint" for each in call.door.events()) == 1


async def test_the_api_dies(parley: Parley) -> None:
    async with talk(parley, "api-") as call:
        for each in parley.replicas("api"):
            each.kill()
        killed = time.perf_counter()
        await call.turn("What is your name?")
        async with httpx.AsyncClient(timeout=5) as http, asyncio.timeout(60):
            while True:
                try:
                    answer = await http.post(f"{parley.page}/api/v1/token", json={"participant_name": "Next"})
                    if answer.is_success:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.2)  # a page asks again, too
        print(f"tokens again {time.perf_counter() - killed:.1f} s after the kill at the latest")
        await call.turn("Where are you?")


async def test_livekit_is_away_for_longer_than_a_caller_may_be(parley: Parley) -> None:
    async with talk(parley, "livekit-") as call:
        await call.turn("My name is Ada.")
        killed = time.perf_counter()
        while time.perf_counter() < killed + 7:  # it is started again, and killed again
            for each in [each for each in _livekit(parley) if each.is_running()]:
                each.kill()
            await asyncio.sleep(0.1)
        await call.robot.until(lambda: call.watch.first("reconnected", killed) is not None, 40, "way back")
        await call.robot.until(lambda: call.watch.first("joined", killed) is not None, 20, "agent")
        await call.robot.until(lambda: call.watch.first("listening", killed) is not None, 5, "state on the page")
        print(call.watch.lines(killed))
        report = await call.turn("What is my name?")
        assert report["turn"] == 2, "the agent that was there has come back, with the conversation"
    assert sum(each["type"] == "entrypoint" for each in call.door.events()) == 1


async def test_redis_is_away_for_longer_than_a_lease(parley: Parley) -> None:
    parley.redis.start()
    before = Profile.model_validate(status.current().settings)
    agent = before.agent.model_copy(update={"state": "redis"})
    await asyncio.to_thread(apply.apply, before.model_copy(update={"agent": agent}), "local", lambda _: None)
    state = RedisState(parley.redis.url, "parley")
    try:
        async with talk(parley, "redis-") as call:
            await call.turn("My name is Ada.")
            lease = await call.lease(state, 5)
            gone = time.perf_counter()
            parley.redis.kill()
            questions = ("What is my name?", "Where are you?", "What can you do?")
            for question in questions:
                await call.turn(question)
            async with Robot(parley.page) as another:  # who calls now is answered, too
                await greeted(another)
                print(f"a new call was answered after {another.sounds[0].began - another.joined:.1f} s")
            await asyncio.sleep(max(0.0, gone + 12 - time.perf_counter()))  # the lease has run out
            await asyncio.to_thread(parley.redis.start)
            back = time.perf_counter()
            after = await call.lease(state, 15)
            print(f"the lease was back after {time.perf_counter() - back:.1f} s")
            assert (after.owner, after.epoch) == (lease.owner, lease.epoch)
            await asyncio.sleep(10)  # whoever rescues calls has looked by now
            await call.turn("Goodbye.")
        assert sum(each["type"] == "entrypoint" for each in call.door.events()) == 1
        await call.door.until(has("cleanup", reason="caller left"))
        async with asyncio.timeout(20):
            while not any(each["kind"] == "conversation" for each in call.door.records()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)  # another process writes them
        told = [each["heard"] for each in call.door.records() if each["kind"] == "turn"]
        assert told == ["My name is Ada.", *questions, "Goodbye."], "each once, in order"
    finally:
        await asyncio.to_thread(apply.apply, before, "local", lambda _: None)
        await state.aclose()


def _livekit(parley: Parley) -> list[Any]:
    try:
        return [process(parley, "livekit-server")]
    except AssertionError:
        return []
