"""The state of calls in Redis: away and back, bounds, one pool, a cluster, TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import time
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.config import AgentConfig
from agent.state import connect
from agent.state.contract import BOUND_SECONDS
from agent.state.redis import RedisState
from serve.errors import ConfigError, Unavailable
from serve.settings import settings
from tests.contract.test_state import TTL, claimed, cluster
from tests.redis_server import RedisCluster, RedisServer

__all__ = ["cluster"]

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]


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
    await asyncio.sleep(0.1)  # so that it finds nobody: nothing tells that an attempt has failed
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
