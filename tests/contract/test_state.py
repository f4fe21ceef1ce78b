"""The state of calls: the same suite in memory, on a Redis server and on a Redis cluster."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.config import AgentConfig
from agent.state import connect
from agent.state.contract import AUDIO_BYTES, BOUND_SECONDS, RECORD_BYTES, Lease, State
from agent.state.memory import Memory
from agent.state.redis import RedisState
from serve.errors import BadRequest, ConfigError, Unavailable
from serve.settings import settings
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


# Redis goes away and comes back.


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


async def test_a_short_absence_is_not_noticed(own: RedisServer) -> None:
    state = RedisState(own.url, "test")
    lease = await claimed(state)
    own.kill()
    saving = asyncio.create_task(state.save(lease, {"kept": True}, TTL))
    await asyncio.sleep(0.1)
    own.start()
    assert await saving
    assert await state.load("room") == {"kept": True}
    await state.aclose()


async def test_a_long_absence_is_said_within_the_bound_and_then_over(own: RedisServer) -> None:
    state = RedisState(own.url, "test")
    lease = await claimed(state)
    own.kill()
    asks = (state.renew(lease, TTL), state.load("room"), state.claim("b", "x", "y", TTL), state.leases())
    began = time.perf_counter()
    answers = await asyncio.gather(*asks, return_exceptions=True)
    assert time.perf_counter() - began < BOUND_SECONDS + 0.5
    assert all(isinstance(answer, Unavailable) for answer in answers), answers
    own.start()
    assert await state.leases() == [], "this Redis forgot everything"
    assert await state.renew(lease, TTL), "the owner goes on"
    assert await state.claim("room", "b", "d2", TTL) is None
    assert await state.save(lease, {"again": True}, TTL)
    [found] = await state.leases()
    assert (found.call, found.owner, found.epoch) == ("room", "a", 1)
    await state.aclose()


async def test_a_server_that_hangs_is_given_up(own: RedisServer) -> None:
    state = RedisState(own.url, "test")
    await claimed(state)
    own.command("CLIENT", "PAUSE", "5000", "ALL")
    began = time.perf_counter()
    with pytest.raises(Unavailable):
        await state.load("room")
    assert time.perf_counter() - began < BOUND_SECONDS + 0.5
    own.kill()
    await state.aclose()


async def test_everything_has_a_time_to_live(own: RedisServer) -> None:
    state = RedisState(own.url, "test")
    lease = await claimed(state)
    await state.renew(lease, TTL)
    await state.save(lease, {"a": 1}, TTL)
    await state.keep_audio(lease, "u", 0, b"\0\0")
    await state.wait("room")
    await state.lead("queue", "d", TTL)
    keys = [word for word in own.command("KEYS", "*").decode().split("\r\n") if word.startswith("parley:")]
    assert len(keys) == 7, keys
    for key in keys:
        assert int(own.command("PTTL", key)[1:]) > 0, key
    await state.aclose()


async def test_one_pool_serves_the_process(own: RedisServer) -> None:
    states = [RedisState(own.url, f"test-{n}") for n in range(5)]
    await asyncio.gather(*(state.waiting() for state in states for _ in range(40)))
    clients = own.command("INFO", "clients").decode()
    count = int(clients.split("connected_clients:")[1].split("\r\n")[0])
    assert count <= 33, "32, and the one that asks"
    for state in states:
        await state.aclose()
    clients = own.command("INFO", "clients").decode()
    assert int(clients.split("connected_clients:")[1].split("\r\n")[0]) == 1, "all are closed"


async def test_a_cluster_goes_away_and_comes_back(cluster: RedisCluster) -> None:
    state = RedisState(cluster.url, f"test-{uuid.uuid4().hex}")
    leases = [await claimed(state, f"room-{n}") for n in range(8)]
    cluster.kill()
    began = time.perf_counter()
    with pytest.raises(Unavailable):
        await state.load("room-1")
    assert time.perf_counter() - began < BOUND_SECONDS + 0.5
    cluster.start()
    assert all(await asyncio.gather(*(state.renew(lease, TTL) for lease in leases)))
    assert {lease.call for lease in await state.leases()} == {lease.call for lease in leases}
    await state.aclose()


async def test_tls_is_spoken_and_checked(tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    server = RedisServer(tmp_path, tls=certificate)
    server.start()
    try:
        address = f"rediss://127.0.0.1:{server.tls_port}/0"
        state = RedisState(f"{address}?ssl_ca_certs={certificate[0]}", "test")
        await claimed(state)
        await state.aclose()
        distrustful = RedisState(address, "test")
        with pytest.raises(Unavailable):
            await distrustful.waiting()
        await distrustful.aclose()
    finally:
        server.kill()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate of 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return paths


def test_the_profile_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    monkeypatch.delenv("REDIS_URL", raising=False)
    with pytest.raises(ConfigError, match="REDIS_URL"):
        connect(AgentConfig(state="redis"))
    settings.cache_clear()
    monkeypatch.setenv("REDIS_URL", "rediss+cluster://user:secret@127.0.0.1:1")
    assert isinstance(connect(AgentConfig(state="redis")), RedisState)
    settings.cache_clear()
    monkeypatch.setenv("REDIS_URL", "http://user:secret@127.0.0.1:1")
    with pytest.raises(ConfigError, match="redis\\+cluster") as caught:
        connect(AgentConfig(state="redis"))
    assert "secret" not in str(caught.value)
    settings.cache_clear()
    assert type(connect(AgentConfig())).__name__ == "ActorState"
