"""The outbox: the same suite on a SQLite file and on a Redis server; nothing lost, nothing twice, in order."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from agent import backend
from agent.backend import Backend
from agent.outbox import Buffer, Courier, LinesSink
from agent.outbox.redis import RedisStore
from agent.outbox.sqlite import SqliteStore
from agent.outbox.store import Entry, Store
from serve.contracts import Usage
from serve.errors import BadRequest, Unavailable
from serve.records import AnyRecord, Turn
from tests.conftest import ROOT
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.contract, pytest.mark.timeout(90)]

LEAD = 0.15


class FakeSink:
    """Stores in memory, each record once; fails as it is told."""

    def __init__(self) -> None:
        self.records: dict[str, AnyRecord] = {}
        self.deliveries = 0
        self.failures: list[Exception] = []
        self.refused: set[str] = set()

    async def deliver(self, records: Sequence[AnyRecord]) -> None:
        self.deliveries += 1
        if self.failures:
            raise self.failures.pop(0)
        for record in records:
            if isinstance(record, Turn) and record.heard in self.refused:
                raise BadRequest("heard", "is refused by the test")
        for record in records:
            self.records.setdefault(record.id, record)

    def turns(self, call: str) -> list[int]:
        return [each.turn for each in self.records.values() if isinstance(each, Turn) and each.call == call]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), durable=True)
    server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture(params=["sqlite", "redis"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[..., Store]]:
    """Opens the same store as often as it is called, as processes would."""
    if request.param == "sqlite":

        def open_store(most: int = 1000) -> Store:
            return SqliteStore(tmp_path / "home" / "outbox.db", most)
    else:
        url, name = request.getfixturevalue("server").url, uuid.uuid4().hex

        def open_store(most: int = 1000) -> Store:
            return RedisStore(url, name, most)

    made: list[Store] = []

    def opening(most: int = 1000) -> Store:
        made.append(open_store(most))
        return made[-1]

    yield opening
    for store in made:
        await store.aclose()


def turn(number: int, heard: str = "?") -> dict[str, object]:
    return {"turn": number, "heard": heard, "answer": "!", "interrupted": False, "typed": False, "error": None}


async def drained(courier: Courier, store: Store) -> None:
    """Deliver until nothing is left."""
    async with asyncio.timeout(20):
        while await courier.once() or await store.take("looks", 1, LEAD) != []:  # noqa: ASYNC110  # time alone ends it
            await asyncio.sleep(0.01)


async def test_every_kind_arrives_as_it_was(opened: Callable[..., Store]) -> None:
    outbox, sink = Buffer(opened()), FakeSink()
    told = Backend(outbox, "room", 3, clock=lambda: 1700000000.5)
    promises = [
        told.agent_joined("parley", "replica-1"),
        told.participant_connected("caller", "Grüße", "sip", {"sip.phoneNumber": "+49"}),
        told.save_conversation_turn({**turn(1, "你好"), "stages": {"stt_ms": 80}, "models": {"llm": "a"}}, "item_1"),
        told.handle_file_upload("a.csv", "text/csv", 12, file="f1", sender="caller", text="a,b"),
        told.usage("llm", "smollm2", Usage(prompt_tokens=7)),
        told.participant_disconnected("caller", "CLIENT_INITIATED"),
        told.save_conversation([{"role": "user", "content": "你好"}], "caller left"),
    ]
    assert all([await promise for promise in promises])
    assert await outbox.flush(1) == 0
    await drained(Courier(opened(), sink, "c1", LEAD), opened())
    found = list(sink.records.values())
    assert [record.kind for record in found] == [
        *("agent_joined", "participant_connected", "turn", "file", "usage", "participant_disconnected", "conversation")
    ]
    assert [record.sequence for record in found] == list(range(1, 8))
    assert {(record.call, record.epoch, record.time) for record in found} == {("room", 3, 1700000000.5)}
    assert all(uuid.UUID(record.id) for record in found)
    said = found[2]
    assert isinstance(said, Turn)
    assert (said.heard, said.measures) == ("你好", {"stages": {"stt_ms": 80}, "models": {"llm": "a"}})
    used = found[4]
    assert isinstance(used, backend.Used)
    assert used.used["prompt_tokens"] == 7


async def test_order_holds_for_many_calls_and_couriers(opened: Callable[..., Store]) -> None:
    outboxes = [Buffer(opened()) for _ in range(3)]
    sink = FakeSink()
    couriers = [asyncio.create_task(Courier(opened(), sink, f"c{n}", LEAD).run()) for n in range(3)]
    calls = {f"call-{n}": Backend(outboxes[n % 3], f"call-{n}", 1) for n in range(9)}
    sink.failures = [RuntimeError("a sink that fails now and then") for _ in range(2)]
    for number in range(1, 21):
        for told in calls.values():
            told.save_conversation_turn(turn(number))
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while len(sink.records) < 180:  # noqa: ASYNC110  # the couriers are other processes' in real life
            await asyncio.sleep(0.02)
    for courier in couriers:
        courier.cancel()
    for call in calls:
        assert sink.turns(call) == list(range(1, 21))


async def test_a_turn_that_two_replicas_finished_is_stored_once(opened: Callable[..., Store]) -> None:
    outbox, sink = Buffer(opened()), FakeSink()
    for epoch in (1, 2):
        told = Backend(outbox, "room", epoch)
        told.save_conversation_turn(turn(1), question="item_a")
        told.handle_file_upload("a", "text/plain", 1, file="f")
        told.save_conversation_turn(turn(2))
    assert await outbox.flush(5) == 0
    await drained(Courier(opened(), sink, "c1", LEAD), opened())
    assert sink.turns("room") == [1, 2, 2]
    assert len(sink.records) == 4


async def test_what_was_taken_and_not_done_comes_again_to_another(opened: Callable[..., Store]) -> None:
    dead, alive = opened(), opened()
    await dead.append([Entry(f"id{n}", "room", f'{{"n": {n}}}'.encode()) for n in range(5)])
    first = await dead.take("dead", 3, LEAD)
    assert first is not None
    assert len(first) == 3
    assert await alive.take("alive", 3, LEAD) is None, "one at a time"
    assert [each.body for each in await dead.take("dead", 3, LEAD) or []] == [each.body for each in first]
    await dead.done(first[:1])
    await asyncio.sleep(2 * LEAD)
    again = await alive.take("alive", 3, LEAD)
    assert again is not None
    assert [each.body for each in again[:2]] == [each.body for each in first[1:]]
    await alive.done(again)
    rest = await alive.take("alive", 9, LEAD)
    assert rest is not None
    await alive.done(rest)
    assert len(again) + len(rest) == 4
    assert await alive.take("alive", 9, LEAD) == []


async def test_a_record_that_is_refused_stands_in_nobodys_way(opened: Callable[..., Store]) -> None:
    outbox, sink = Buffer(opened()), FakeSink()
    sink.refused = {"bad"}
    told = Backend(outbox, "room", 1)
    for number in range(1, 6):
        told.save_conversation_turn(turn(number, "bad" if number == 3 else "good"))
    await outbox.flush(5)
    await opened().append([Entry("x", "room", b'{"kind": "of a later version"}')])
    await drained(Courier(opened(), sink, "c1", LEAD), opened())
    assert sink.turns("room") == [1, 2, 4, 5]


async def test_a_full_store_takes_no_more_and_loses_nothing(opened: Callable[..., Store]) -> None:
    store = opened(5)
    outbox, sink = Buffer(store), FakeSink()
    told = Backend(outbox, "room", 1)
    first = [told.save_conversation_turn(turn(number)) for number in range(1, 6)]
    assert all([await promise for promise in first])
    sixth = told.save_conversation_turn(turn(6))
    assert await outbox.flush(0.3) == 1
    assert not sixth.done()
    await drained(Courier(opened(), sink, "c1", LEAD), opened())
    async with asyncio.timeout(10):
        assert await sixth
    await asyncio.sleep(LEAD)
    await drained(Courier(opened(), sink, "c1", LEAD), opened())
    assert sink.turns("room") == [1, 2, 3, 4, 5, 6]


async def test_putting_takes_no_time(opened: Callable[..., Store]) -> None:
    outbox = Buffer(opened())
    told = Backend(outbox, "room", 1)
    began = time.perf_counter()
    for number in range(200):
        told.save_conversation_turn(turn(number))
    assert (time.perf_counter() - began) / 200 < 0.002
    assert await outbox.flush(10) == 0


class Away:
    """A store that nobody can reach, until it is told otherwise."""

    def __init__(self, store: Store) -> None:
        self._store, self.away = store, True

    async def append(self, entries: Sequence[Entry]) -> None:
        if self.away:
            raise Unavailable("away")
        await self._store.append(entries)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def test_what_no_longer_fits_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Away(SqliteStore(tmp_path / "outbox.db"))
    outbox = Buffer(store, most=10)  # pyright: ignore[reportArgumentType]  # the rest is the store's
    told = Backend(outbox, "room", 1)
    with caplog.at_level(logging.ERROR):
        promises = [told.save_conversation_turn(turn(number, "secret words")) for number in range(1, 14)]
        assert [promise.result() for promise in promises[10:]] == [False] * 3, "dropped, and known at once"
        assert outbox.dropped == 3
        assert not await told.save_conversation([{"role": "user", "content": "x" * 2**20}])
    assert "a record was dropped, 1 by now" in caplog.text
    assert "a conversation of" in caplog.text
    assert "secret" not in caplog.text
    store.away = False
    assert await outbox.flush(5) == 0
    assert all(promise.result() for promise in promises[:10])
    await outbox.aclose()


async def test_redis_goes_away_and_comes_back(server: RedisServer, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    outbox, sink = Buffer(RedisStore(server.url, name)), LinesSink(tmp_path / "records.jsonl")
    courier = Courier(RedisStore(server.url, name), sink, "c1", LEAD)
    running = asyncio.create_task(courier.run())
    told = Backend(outbox, "room", 1)
    assert await told.save_conversation_turn(turn(1))
    server.kill()
    late = [told.save_conversation_turn(turn(number)) for number in range(2, 30)]
    assert await outbox.flush(0.3) == 28
    await asyncio.to_thread(server.start)
    assert all([await promise for promise in late])
    lines: list[str] = []
    async with asyncio.timeout(30):
        while len(lines) < 29:
            await asyncio.sleep(0.05)
            path = tmp_path / "records.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
    assert [json.loads(line)["turn"] for line in lines] == list(range(1, 30))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await courier.aclose()
    await outbox.aclose()


async def test_lines_are_written_once_by_several_and_after_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = [
        Turn(id=f"id{n}", call="room", epoch=1, sequence=n, time=0, turn=n, heard="ü", answer="") for n in range(6)
    ]
    first, second = LinesSink(path), LinesSink(path)
    await first.deliver(records[:2])
    await second.deliver(records[:4])
    with path.open("ab") as file:
        file.write(records[4].model_dump_json().encode()[:30])
    await first.deliver(records[2:5])
    await second.deliver(records)
    assert [json.loads(line)["turn"] for line in path.read_text().splitlines()] == list(range(6))
    assert path.stat().st_mode & 0o077 == 0


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database" * 100)
    store = SqliteStore(tmp_path / "outbox.db")
    with pytest.raises(Unavailable, match="DatabaseError"):
        await store.append([Entry("a", "room", b"{}")])
    await store.aclose()


@pytest.mark.parametrize(
    ("where", "part", "step"),
    [
        ("sqlite", "courier", 3),
        ("sqlite", "writer", 6),
        ("redis", "courier", 4),
        ("redis", "writer", 6),
    ],
)
def test_killed_at_any_line_nothing_is_lost_or_twice(
    where: str, part: str, step: int, tmp_path: Path, server: RedisServer
) -> None:
    """One line after the other; with a step, every so manieth."""
    command = [sys.executable, "-m", "tests.contract.outbox_kills", part, where if where == "sqlite" else server.url]
    done = subprocess.run([*command, str(tmp_path), str(step)], cwd=ROOT, capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100, "so few lines cannot be all of it"


async def test_nothing_of_what_was_delivered_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.outbox.sqlite.WIPE_SECONDS", 0.0)
    store = SqliteStore(tmp_path / "home" / "outbox.db")
    words = b"what a caller said"

    def left() -> bytes:
        return b"".join(each.read_bytes() for each in (tmp_path / "home").iterdir())

    try:
        # More than a page of it, so that pages are freed, too.
        await store.append([Entry(str(number), "call", words * 500) for number in range(20)])
        assert words in left()
        for each in (tmp_path / "home").iterdir():
            assert each.stat().st_mode & 0o077 == 0, f"{each.name} is for its user only"
        await store.done(await store.take("me", 100, 10) or [])
        assert await store.take("me", 100, 10) == []
        assert words not in left()
    finally:
        await store.aclose()
