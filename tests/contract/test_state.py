"""The state of calls: the same suite in memory, on a Redis server and on a Redis cluster."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from agent.state.contract import AUDIO_BYTES, RECORD_BYTES, Lease, State
from agent.state.memory import Memory
from agent.state.redis import RedisState
from serve.errors import BadRequest
from tests.redis_server import RedisCluster, RedisServer

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

TTL = 30.0
SHORT = 0.15


@dataclass(frozen=True)
class Subject:
    """A state, and how time passes for it."""

    state: State
    passes: Callable[[float], Awaitable[None]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        now = [1000.0]

        async def pass_by(seconds: float) -> None:
            now[0] += seconds

        yield Subject(Memory(lambda: now[0]), pass_by)
        return
    fixture = {"redis": "server", "cluster": "cluster"}[request.param]
    redis: RedisServer | RedisCluster = request.getfixturevalue(fixture)
    state = RedisState(redis.url, f"test-{uuid.uuid4().hex}")
    yield Subject(state, asyncio.sleep)
    await state.aclose()


@pytest.fixture
def state(subject: Subject) -> State:
    return subject.state


async def claimed(state: State, call: str = "room", owner: str = "a", ttl: float = TTL) -> Lease:
    lease = await state.claim(call, owner, "d1", ttl)
    assert lease is not None
    return lease


async def test_one_of_a_hundred_gets_the_call(state: State) -> None:
    claims = await asyncio.gather(*(state.claim("room", f"owner-{n}", "d", TTL) for n in range(100)))
    won = [lease for lease in claims if lease]
    assert len(won) == 1
    assert won[0].epoch == 1
    assert 0 < won[0].seconds_left <= TTL
    held = await state.leases()
    assert [(lease.call, lease.owner, lease.epoch) for lease in held] == [("room", won[0].owner, 1)]


async def test_an_owner_who_is_known_to_be_dead_is_replaced_at_once(state: State) -> None:
    first = await claimed(state)
    assert await state.claim("room", "b", "d2", TTL) is None
    assert await state.claim("room", "b", "d2", TTL, over=first.epoch + 1) is None
    claims = await asyncio.gather(*(state.claim("room", f"b{n}", "d2", TTL, over=first.epoch) for n in range(20)))
    second = [lease for lease in claims if lease]
    assert [lease.epoch for lease in second] == [2]
    assert not await state.renew(first, TTL)
    assert await state.renew(second[0], TTL)


async def test_a_lease_that_runs_out_can_be_taken(subject: Subject) -> None:
    state = subject.state
    first = await claimed(state, ttl=SHORT)
    assert await state.claim("room", "b", "d2", TTL) is None
    await subject.passes(2 * SHORT)
    [lost] = await state.leases()
    assert (lost.owner, lost.dispatcher, lost.epoch) == ("a", "d1", 1)
    assert lost.seconds_left < 0
    second = await state.claim("room", "b", "d2", TTL)
    assert second is not None
    assert second.epoch == 2
    assert not await state.renew(first, TTL)
    assert not await state.release(first)


async def test_a_late_owner_keeps_what_nobody_took(subject: Subject) -> None:
    first = await claimed(subject.state, ttl=SHORT)
    await subject.passes(2 * SHORT)
    assert await subject.state.renew(first, TTL)
    assert await subject.state.claim("room", "b", "d2", TTL) is None


async def test_one_of_several_dispatchers_adopts_a_call(state: State) -> None:
    lease = await claimed(state)
    adopted = await asyncio.gather(*(state.hand_over(lease, f"d{n}") for n in range(2, 12)))
    [new] = [each for each in adopted if each]
    assert (new.owner, new.epoch) == (lease.owner, lease.epoch)
    assert (await state.leases())[0].dispatcher == new.dispatcher
    assert await state.hand_over(lease, new.dispatcher) is not None, "asked again, it is still so"
    assert await state.renew(lease, TTL), "the owner need not know"
    assert (await state.leases())[0].dispatcher == new.dispatcher
    taken = await state.claim("room", "b", "d9", TTL, over=lease.epoch)
    assert taken is not None
    assert await state.hand_over(new, "d8") is None


async def test_a_released_call_is_free_and_goes_on_counting(state: State) -> None:
    lease = await claimed(state)
    assert await state.release(lease)
    assert await state.release(lease), "asked again, it is still so"
    assert await state.leases() == []
    assert not await state.renew(lease, TTL)
    assert not await state.save(lease, {}, TTL)
    again = await state.claim("room", "a", "d1", TTL)
    assert again is not None
    assert again.epoch == 2
    assert not await state.release(lease)


async def test_the_newest_owner_alone_writes(state: State) -> None:
    first = await claimed(state)
    record = {"conversation": [{"role": "user", "content": "Grüße, 你好"}], "played": 1.5, "open": None}
    assert await state.save(first, record, TTL)
    assert await state.load("room") == record
    second = await state.claim("room", "b", "d1", TTL, over=1)
    assert second is not None
    assert await state.load("room") == record, "the new owner reads what the old one left"
    assert not await state.save(first, {"stale": True}, TTL)
    assert not await state.keep_audio(first, "u", 0, b"\0\0")
    assert await state.load("room") == record
    assert await state.save(second, {"fresh": True}, TTL)
    assert await state.load("room") == {"fresh": True}
    await state.drop("room")
    assert await state.load("room") is None


async def test_files_stand_beside_the_record_and_go_with_it(state: State) -> None:
    lease = await claimed(state)
    assert await state.save(lease, {"files": ["x" * 1000]}, TTL, "files")
    assert await state.load("room") is None
    assert await state.save(lease, {"a": 1}, TTL)
    assert await state.load("room", "files") == {"files": ["x" * 1000]}
    second = await state.claim("room", "b", "d", TTL, over=lease.epoch)
    assert second is not None
    assert not await state.save(lease, {"files": []}, TTL, "files")
    await state.drop("room")
    assert await state.load("room") is None
    assert await state.load("room", "files") is None


async def test_records_run_out(subject: Subject) -> None:
    lease = await claimed(subject.state)
    assert await subject.state.save(lease, {"a": 1}, SHORT)
    await subject.passes(2 * SHORT)
    assert await subject.state.load("room") is None


async def test_records_have_a_size_and_are_json(state: State) -> None:
    lease = await claimed(state)
    fits = {"a": "x" * (RECORD_BYTES - 8)}
    assert await state.save(lease, fits, TTL)
    assert await state.load("room") == fits
    with pytest.raises(BadRequest, match="record"):
        await state.save(lease, {"a": "x" * RECORD_BYTES}, TTL)
    with pytest.raises(BadRequest, match="not JSON"):
        await state.save(lease, {"a": b"bytes"}, TTL)
    with pytest.raises(BadRequest, match="not JSON"):
        await state.save(lease, {"a": float("nan")}, TTL)
    assert await state.load("room") == fits


async def test_the_beginning_of_an_utterance_is_kept(state: State) -> None:
    lease = await claimed(state)
    assert await state.audio("room") is None
    assert await state.keep_audio(lease, "u1", 0, b"\1\0" * 100)
    assert await state.keep_audio(lease, "u1", 1, b"\2\0" * 100)
    assert await state.keep_audio(lease, "u1", 1, b"\2\0" * 100), "sent twice, kept once"
    assert await state.audio("room") == ("u1", b"\1\0" * 100 + b"\2\0" * 100)
    assert not await state.keep_audio(lease, "u1", 3, b"\4\0"), "a piece is missing"
    assert not await state.keep_audio(lease, "u2", 1, b"\4\0"), "its beginning is missing"
    assert await state.keep_audio(lease, "u2", 0, b"\3\0")
    assert await state.audio("room") == ("u2", b"\3\0")
    assert await state.keep_audio(lease, "u2", 0, b"\5\0" * 2), "all again"
    assert await state.audio("room") == ("u2", b"\5\0" * 2)
    await state.drop("room")
    assert await state.audio("room") is None


async def test_audio_has_a_size(state: State) -> None:
    lease = await claimed(state)
    assert await state.keep_audio(lease, "u", 0, bytes(AUDIO_BYTES))
    assert not await state.keep_audio(lease, "u", 1, b"\0\0")
    assert not await state.keep_audio(lease, "v", 0, bytes(AUDIO_BYTES + 2))
    found = await state.audio("room")
    assert found is not None
    assert len(found[1]) == AUDIO_BYTES


async def test_the_queue_keeps_its_order(state: State) -> None:
    assert await state.waiting() == []
    for room in ("one", "two", "three", "one"):
        await state.wait(room)
    assert await state.waiting() == ["one", "two", "three"]
    await state.leave("two")
    await state.leave("nobody")
    await state.wait("four")
    assert await state.waiting() == ["one", "three", "four"]


async def test_one_leads_and_another_follows_when_it_is_gone(subject: Subject) -> None:
    state = subject.state
    asked = await asyncio.gather(*(state.lead("queue", f"d{n}", 2 * SHORT) for n in range(20)))
    assert asked.count(True) == 1
    leader = f"d{asked.index(True)}"
    assert await state.lead("queue", leader, 2 * SHORT), "a leader stays it"
    assert not await state.lead("queue", "other", TTL)
    assert await state.lead("another", "other", TTL)
    await subject.passes(3 * SHORT)
    assert await state.lead("queue", "other", TTL)
    assert not await state.lead("queue", leader, TTL)


async def test_calls_do_not_touch_each_other(state: State) -> None:
    rooms = ["a", "b{1}", "{}", "c}{", "räume/ü ?", "x" * 200]
    leases = [await claimed(state, room, owner=f"owner of {room}") for room in rooms]
    for lease in leases:
        assert await state.save(lease, {"room": lease.call}, TTL)
        assert await state.keep_audio(lease, lease.call, 0, lease.call.encode())
    for room in rooms:
        assert await state.load(room) == {"room": room}
        assert await state.audio(room) == (room, room.encode())
    assert sorted(lease.call for lease in await state.leases()) == sorted(rooms)


async def test_it_is_quick(state: State) -> None:
    """A turn's end saves once; nobody should notice. The bound is for a machine that does other things too."""
    lease = await claimed(state)
    took: list[float] = []
    for n in range(50):
        began = time.perf_counter()
        assert await state.save(lease, {"turns": ["x" * 100] * 50, "n": n}, TTL)
        took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 0.05
