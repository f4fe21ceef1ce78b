"""The state of calls in its Ray actor: it outlives those who use it, and comes back when it dies itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Generator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from agent.state.actor import NAMESPACE, ActorState
from agent.state.contract import BOUND_SECONDS, Lease
from serve.errors import BadRequest, Unavailable
from tests.conftest import ROOT, Parley

pytestmark = [pytest.mark.serve, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

TTL = 60.0

CLIENT = """
import asyncio, os, signal, sys
import ray
from agent.state.actor import ActorState

async def main():
    ray.init(address=sys.argv[1], namespace="elsewhere", log_to_driver=False, logging_level=40)
    state = ActorState(sys.argv[2])
    lease = await state.claim("room", "dies", "d1", 60.0)
    assert await state.save(lease, {"open": "What is the capital of France?"}, 60.0)
    assert await state.keep_audio(lease, "u1", 0, b"\\1\\0" * 100)
    await state.wait("queued")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.fixture(scope="module", autouse=True)
def driver(parley: Parley) -> Generator[None]:
    """Connect this process to the cluster, as a replica is."""
    import ray

    ray.init(address=parley.ray, namespace="serve", log_to_driver=False, logging_level=40)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def name() -> str:
    """Of an actor of the test's own: the cluster's serves its calls."""
    return f"parley-state-{uuid.uuid4().hex}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def state(name: str, driver: None) -> AsyncIterator[ActorState]:
    import ray

    state = ActorState(name)
    yield state
    await state.aclose()
    ray.kill(ray.get_actor(name, namespace=NAMESPACE))


def actor_process(name: str) -> psutil.Process:
    import ray

    untyped: Any = ray
    actor = untyped.get_actor(name, namespace=NAMESPACE)
    return psutil.Process(untyped.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=20))


async def until_there(state: ActorState) -> None:
    """Wait until it answers: starting it takes longer than an operation may."""
    async with asyncio.timeout(40):
        while True:
            try:
                await state.waiting()
                return
            except Unavailable:
                continue


async def test_a_killed_client_leaves_everything(parley: Parley, name: str, state: ActorState) -> None:
    await until_there(state)
    client = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CLIENT, parley.ray, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert client.returncode == -9, client.stderr[-2000:]
    [lease] = await state.leases()
    assert (lease.call, lease.owner, lease.dispatcher, lease.epoch) == ("room", "dies", "d1", 1)
    assert await state.load("room") == {"open": "What is the capital of France?"}
    assert await state.audio("room") == ("u1", b"\1\0" * 100)
    assert await state.waiting() == ["queued"]
    assert await state.claim("room", "lives", "d1", TTL) is None
    taken = await state.claim("room", "lives", "d1", TTL, over=lease.epoch)
    assert taken is not None
    assert taken.epoch == 2
    assert not await state.save(lease, {}, TTL)
    with pytest.raises(BadRequest):
        await state.save(taken, {"a": "x" * 2**20}, TTL)


async def test_one_of_a_hundred_gets_the_call(state: ActorState, name: str) -> None:
    await until_there(state)
    others = [ActorState(name) for _ in range(4)]
    claims = await asyncio.gather(*(others[n % 4].claim("raced", f"o{n}", "d", TTL) for n in range(100)))
    assert len([lease for lease in claims if lease]) == 1


async def test_it_is_quick(state: ActorState) -> None:
    await until_there(state)
    lease = await state.claim("quick", "a", "d", TTL)
    assert lease is not None
    took: list[float] = []
    for n in range(30):
        began = time.perf_counter()
        assert await state.save(lease, {"turns": ["x" * 100] * 50, "n": n}, TTL)
        took.append(time.perf_counter() - began)
    assert sorted(took)[15] < 0.1


async def test_it_comes_back_and_calls_bring_their_state(state: ActorState, name: str) -> None:
    await until_there(state)
    lease = await state.claim("survivor", "a", "d", TTL)
    assert lease is not None
    process = await asyncio.to_thread(actor_process, name)
    process.kill()
    await asyncio.to_thread(psutil.wait_procs, [process], 5)
    began = time.perf_counter()
    try:
        await state.load("survivor")
    except Unavailable:
        assert time.perf_counter() - began < BOUND_SECONDS + 1
    await until_there(state)
    assert await state.load("survivor") is None, "a new actor knows nothing"
    assert await state.renew(lease, TTL)
    assert await state.save(lease, {"again": True}, TTL)
    assert await state.claim("survivor", "b", "d", TTL) is None
    [held] = [each for each in await state.leases() if each.call == "survivor"]
    assert held == Lease("survivor", "a", "d", 1, held.seconds_left)
