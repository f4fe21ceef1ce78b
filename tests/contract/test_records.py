"""Records in the database, on SQLite and PostgreSQL: each once, in order, whatever comes twice, late or wrong."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import func, select

from agent.outbox import Courier
from agent.outbox.handle import HandleSink
from agent.outbox.sqlite import SqliteStore
from agent.outbox.store import Entry
from api import metrics
from api.calls.costs import by_turn
from api.db import Database, session_of
from api.db.tables import Assistant, Call, DeletedCall, File, Participant, StoredRecord, Tenant, Turn, Usage
from api.db.tables import WebhookEndpoint as Endpoint
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.records.deletion import delete_call
from api.records.retention import Retention
from api.records.rows import end, locked
from api.records.sink import RecordSink
from api.records.writer import Writer
from cluster.bench.collector import Collector
from serve import tracing
from serve.contracts import Usage as Used
from serve.errors import BadRequest, Unavailable
from tests.contract.calls_told import BEGAN, PRICES, Told, stored, telling, turn, whole_call
from tests.counted import Counted, counted
from tests.databases import database, database_url, postgres

pytestmark = [pytest.mark.contract, pytest.mark.timeout(90)]

__all__ = ["counted", "database", "database_url", "postgres"]


@pytest_asyncio.fixture
async def sink(database: Database) -> AsyncGenerator[RecordSink]:
    async with session_of(database, DEFAULT_TENANT) as session:
        events = ["call.started", "call.ended", "turn.completed", "file.ready"]
        session.add(Endpoint(url="https://example.com", events=events, secret="whsec_c2VjcmV0"))
        await session.commit()
    yield RecordSink(database, PRICES)


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(BEGAN + seconds, datetime.UTC)


async def test_storing_a_turn_is_part_of_its_trace(sink: RecordSink, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector().start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    tracing.tracer.cache_clear()
    try:
        told = Told()
        backend = telling(told)
        backend.agent_joined("parley", "replica")
        backend.save_conversation_turn({**turn(1), "trace": tracing.traceparent(tracing.begin("turn", None, {}))})
        await sink.store(told.bodies)
        (span,) = await asyncio.to_thread(collector.wait, lambda spans: len(spans) == 1, 5)
    finally:
        tracing.tracer.cache_clear()
        collector.stop()
    assert (span.name, span.attributes["parley.outcome"]) == ("database store", "ok")
    assert span.parent


async def test_a_whole_call_is_stored_with_its_summary(database: Database, sink: RecordSink) -> None:
    told = whole_call()
    await sink.store(told.bodies)
    found = await stored(database, "room")
    assert len(found["stored_records"]) == len(told.records)
    call = found["calls"][0]
    said = {name: call[name] for name in ("status", "reason", "assistant", "caller", "turns", "errors", "median_ms")}
    assert said == {
        **{"status": "ended", "reason": "caller left", "assistant": "helper", "caller": "Ada"},
        **{"turns": 2, "errors": 0, "median_ms": 800},
    }
    assert (call["answered_at"], call["ended_at"], call["seen_at"]) == (at(1), at(12), at(13))
    assert (call["interruptions"], call["messages"]) == (1, [{"role": "user", "content": "question 1"}])
    # 600 + 1500 of input, 400 cached, 120 of output, 11 seconds.
    assert (call["cost"], call["currency"]) == (Decimal("0.005906990"), "EUR")
    assert sum(row["cost"] for row in found["usage"]) == call["cost"]
    turns = {row["id"]: row["number"] for row in found["turns"]}
    async with database.system() as session:
        costs = {turns[turn]: cost for turn, cost in (await by_turn(session, "room")).items()}
    # "own", which the second turn used besides, has no price.
    small = {turns[row["turn_id"]]: row["cost"] for row in found["usage"] if row["model"] == "small"}
    assert costs == small
    assert set(costs) == {1, 2}
    rest = sum(row["cost"] for row in found["usage"] if row["turn_id"] is None)
    assert sum(costs.values()) + rest == call["cost"]
    assert [row["price_date"] for row in found["usage"] if row["model"] == "own"] == [None]
    turns = sorted((row["number"], row["heard"], row["voice_ms"]) for row in found["turns"])
    assert turns == [(1, "question 1", 700), (2, "question 2", 900)]
    assert [row["event"] for row in found["call_events"]].count("process") == 1
    assert [(row["identity"], row["left_at"], row["reason"]) for row in found["participants"]] == [
        ("caller", at(10), "CLIENT_INITIATED")
    ]
    assert [(row["name"], row["text"], row["status"]) for row in found["files"]] == [("prices.csv", "a,b", "ready")]
    events = ["call.started", "turn.completed", "file.ready", "turn.completed", "call.ended"]
    assert sorted(found["webhooks"]) == sorted(events)


async def test_what_a_call_costs_is_counted_once_and_when_it_is_written(
    sink: RecordSink, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = whole_call("counted")
    await sink.store(told.bodies)
    await sink.store(told.bodies)
    spent = [sum(values) for (name, _), values in counted.values.items() if name == metrics.COST.name]
    assert sum(spent) == pytest.approx(0.00590699)
    counted.values.clear()

    async def fail(writer: Writer) -> None:
        raise Unavailable("the database went away")

    monkeypatch.setattr(Writer, "finish", fail)
    with pytest.raises(Unavailable):
        await sink.store(whole_call("undone").bodies)
    assert not counted.values, "what was not written costs nothing"


async def test_what_is_delivered_often_in_any_pieces_and_by_two_at_once_is_stored_once(
    database: Database, sink: RecordSink
) -> None:
    await sink.store(whole_call("one").bodies)
    expected = await stored(database, "one")
    for size in (1, 2, 5):
        name = f"in pieces of {size}"
        bodies = whole_call(name).bodies
        for first in range(0, len(bodies), size):
            # The one before comes again, as after a delivery that nobody heard of.
            batch = bodies[max(0, first - size) : first + size]
            await asyncio.gather(sink.store(batch), sink.store(batch))
        found = await stored(database, name)
        for table in expected:
            assert len(found[table]) == len(expected[table]), f"{name}: {table}"
        for column in ("status", "turns", "cost", "median_ms", "answered_at", "ended_at", "seen_at", "epoch"):
            assert found["calls"][0][column] == expected["calls"][0][column], f"{name}: {column}"
        assert [row["number"] for row in sorted(found["turns"], key=lambda row: row["at"])] == [1, 2]
    everything = [body for name in ("a", "b", "c") for body in whole_call(name).bodies]
    await sink.store(everything[::3] + everything)
    for name in ("a", "b", "c"):
        assert len((await stored(database, name))["turns"]) == 2


async def test_a_second_agent_goes_on_and_the_first_ends_nothing(database: Database, sink: RecordSink) -> None:
    first, second = Told(), Told()
    one, two = telling(first), telling(second, epoch=2, since=BEGAN + 20)
    one.agent_joined("parley", "replica-1")
    one.participant_connected("caller", "Ada")
    one.save_conversation_turn(turn(1), "question 1")
    two.agent_joined("parley", "replica-2")
    two.participant_connected("caller", "Ada")
    two.save_conversation_turn(turn(1), "question 1")
    two.save_conversation_turn(turn(2), "question 2")
    await sink.store(first.bodies + second.bodies)
    late = Told()
    telling(late, since=BEGAN + 30).save_conversation([], "another replica took it over")
    await sink.store(late.bodies)
    found = await stored(database, "room")
    assert found["calls"][0]["status"] == "live"
    assert [row["number"] for row in sorted(found["turns"], key=lambda row: row["at"])] == [1, 2]
    assert len(found["participants"]) == 1
    two.save_conversation([], "caller lost")
    await sink.store(second.bodies)
    assert (await stored(database, "room"))["calls"][0]["ended_at"] == at(25)
    # The caller comes back into the same room: it is the same call, and nobody pays for the time between.
    back = Told()
    three = telling(back, epoch=3, since=BEGAN + 119)
    three.agent_joined("parley", "replica-3")
    three.save_conversation([], "caller left")
    await sink.store(back.bodies)
    found = await stored(database, "room")
    call = found["calls"][0]
    assert (call["status"], call["reason"], call["answered_at"], call["ended_at"]) == (
        *("ended", "caller left", at(1)),
        at(121),
    )
    assert sum(row["amounts"]["minutes"] for row in found["usage"]) == pytest.approx((24 + 1) / 60, abs=1e-5)
    assert sum(row["cost"] for row in found["usage"]) == call["cost"]


async def test_late_records_are_harmless_and_a_room_that_ended_first_stays_ended(
    database: Database, sink: RecordSink
) -> None:
    told = whole_call()
    async with session_of(database, DEFAULT_TENANT) as session:
        session.add(Call(id="room", status="waiting", caller="Ada's"))
        await session.commit()
        row = await locked(session, "room")
        assert row is not None
        assert await end(session, row, at(14), "room finished", PRICES)
        await session.commit()
    await sink.store(told.bodies[:4])
    found = await stored(database, "room")
    assert (found["calls"][0]["status"], found["calls"][0]["turns"], found["calls"][0]["caller"]) == (
        *("ended", 1),
        "Ada's",
    )
    assert [row["amounts"] for row in found["usage"]] == [{"minutes": round(13 / 60, 6)}]
    await sink.store(told.bodies)
    found = await stored(database, "room")
    call = found["calls"][0]
    assert (call["status"], call["reason"], call["ended_at"]) == ("ended", "caller left", at(12))
    assert call["cost"] == sum(row["cost"] for row in found["usage"]) == Decimal("0.005906990")


async def test_a_deleted_call_does_not_come_back_and_its_bill_stays(database: Database, sink: RecordSink) -> None:
    told, gone = whole_call(), list[str]()
    await sink.store(told.bodies[:5])

    class FakeObjects:
        async def delete(self, path: str) -> None:
            gone.append(path)

    async with session_of(database, "ten_other") as session:
        assert not await delete_call(session, "room", FakeObjects(), PRICES), "it is another tenant's"
    async with session_of(database, DEFAULT_TENANT) as session:
        session.add(File(id="f", call_id="room", name="f", media_type="text/plain", size=1, location="ten/f"))
        await session.commit()
        assert await delete_call(session, "room", FakeObjects(), PRICES)
        await session.commit()
        assert not await delete_call(session, "room", FakeObjects(), PRICES)
    assert gone == ["ten/f"]
    await sink.store(told.bodies)
    await sink.store(told.bodies)
    assert not any(rows for table, rows in (await stored(database, "room")).items() if table != "webhooks")
    async with database.system() as session:
        assert await session.get(Call, "room") is None
        rows = list(await session.scalars(select(Usage).order_by(Usage.id)))
        assert sorted(row.model for row in rows) == ["call", "own", "small", "small"], "what was told late too"
        assert {row.call_id for row in rows} == {None}


async def test_what_never_fits_is_refused_and_stands_in_nobodys_way(database: Database, sink: RecordSink) -> None:
    told = Told()
    backend = telling(told)
    backend.agent_joined("parley", "replica-1")
    backend.save_conversation_turn(turn(1))
    backend.handle_file_upload("a\x00b", "text/plain", 2**70, file="f")
    backend.save_conversation_turn({**turn(2), "heard": "nul \x00 inside"})
    backend.usage("llm", "small", Used(prompt_tokens=-1))
    backend.participant_connected("x" * 500, "y" * 500, "z" * 500)
    backend.events([{"event": "e" * 100, "time": 1e30}])
    good: list[bytes] = []
    for body in told.bodies:
        try:
            await sink.store([body])
            good.append(body)
        except BadRequest:
            pass
    assert len(good) == 4
    with pytest.raises(BadRequest):
        await sink.store(told.bodies)
    found = await stored(database, "room")
    assert [row["heard"] for row in sorted(found["turns"], key=lambda row: row["number"])] == [
        *("question 1", "nul  inside")
    ]
    assert len(found["participants"][0]["identity"]) == 200
    for body in (b"{}", b"no json", b'{"kind": "of a later version"}', told.bodies[0].replace(b"178", b"9" * 40)):
        with pytest.raises(BadRequest):
            await sink.store([body])
    nobodys, strangers = Told(), Told()
    telling(nobodys, "nobody's").save_conversation_turn(turn(1))
    telling(strangers, "strangers").agent_joined("parley", "r", tenant="ten_nobody")
    for each in (nobodys, strangers):
        with pytest.raises(BadRequest, match="not known"):
            await sink.store(each.bodies)
    async with database.system() as session:
        assert list(await session.scalars(select(Call.id))) == ["room"]


async def test_a_call_belongs_to_the_tenant_and_assistant_of_its_dispatch(database: Database, sink: RecordSink) -> None:
    async with session_of(database, "ten_other") as session:
        session.add(Assistant(id="asst_1", name="Shop", updated_at=now()))
        await session.commit()
    told = Told()
    backend = telling(told)
    backend.agent_joined("parley", "r", assistant="asst_1@3", tenant="ten_other")
    backend.events([{"event": "process", "time": BEGAN, "assistant": "asst_1@3"}])
    backend.handle_file_upload("a", "text/plain", 1, file="mine", text="read")
    async with session_of(database, "ten_other") as session:
        session.add(Call(id="room", assistant="Shop", assistant_id="asst_1", version=3))
        await session.flush()
        about = {"media_type": "text/plain", "size": 1, "location": "ten/mine"}
        session.add(File(id="mine", call_id="room", name="as the API knows it", **about))
        await session.commit()
    await sink.store(told.bodies)
    wrong = Told()
    telling(wrong, epoch=2).agent_joined("parley", "r", tenant=DEFAULT_TENANT)
    with pytest.raises(BadRequest, match="tenant"):
        await sink.store(wrong.bodies)
    phone = Told()
    telling(phone, "phone").agent_joined("parley", "r", assistant="asst_1@3", tenant="ten_other")
    await sink.store(phone.bodies)
    async with session_of(database, "ten_other") as session:
        for name in ("room", "phone"):
            call = await session.get_one(Call, name)
            assert (call.assistant, call.assistant_id, call.version) == ("Shop", "asst_1", 3)
        file = await session.get_one(File, "mine")
        assert (file.name, file.location, file.text) == ("as the API knows it", "ten/mine", "read")
        assert await session.scalar(select(func.count()).select_from(File)) == 1


async def test_calls_older_than_their_tenant_keeps_are_deleted(database: Database, sink: RecordSink) -> None:
    gone: list[str] = []

    class FakeObjects:
        async def delete(self, path: str) -> None:
            gone.append(path)

    for number in range(60):
        await sink.store(whole_call(f"old-{number}").bodies[:4])
    other = whole_call("other's", "ten_other")
    await sink.store(other.bodies)
    day = datetime.timedelta(days=1)
    async with database.system() as session:
        (await session.get_one(Tenant, DEFAULT_TENANT)).keep_days = 30
        about = {"media_type": "t", "size": 1, "tenant_id": DEFAULT_TENANT}
        session.add(File(id="f", call_id="old-7", name="f", location="ten/f", **about))
        session.add(DeletedCall(id="long ago", tenant_id=DEFAULT_TENANT, at=at(0) - 10 * day))
        await session.commit()
    for days, left in ((29, 61), (31, 1)):
        moment = at(0) + days * day
        passes = [Retention(database, FakeObjects(), PRICES, lambda now=moment: now).once() for _ in range(2)]
        await asyncio.gather(*passes)
        async with database.system() as session:
            assert await session.scalar(select(func.count()).select_from(Call)) == left
    async with database.system() as session:
        for table, count in ((Turn, 2), (Participant, 1), (StoredRecord, len(other.records)), (File, 1)):
            assert await session.scalar(select(func.count()).select_from(table)) == count, table
        assert await session.get(DeletedCall, "long ago") is None
        assert await session.get(DeletedCall, "old-7") is not None
        assert await session.scalar(select(func.count()).select_from(Usage).where(Usage.call_id.is_(None))) == 60
    assert set(gone) == {"ten/f"}


class FakeHandle:
    """Stands for Serve's handle of the API."""

    def __init__(self, sink: RecordSink) -> None:
        self.sink, self.away = sink, True

    def options(self, *, method_name: str) -> FakeHandle:
        assert method_name == "records"
        return self

    def remote(self, bodies: list[bytes]) -> asyncio.Task[None]:
        return asyncio.ensure_future(self._store(bodies))

    async def _store(self, bodies: Sequence[bytes]) -> None:
        if self.away:
            raise ConnectionError("secret")
        await self.sink.store(bodies)


async def test_a_backlog_of_an_hour_is_there_once_in_order(database: Database, tmp_path: Path) -> None:
    """10 000 records that were told while PostgreSQL was away (2 000 with SQLite); one of them is wrong."""
    told, count = Told(), 50 if database.engine.dialect.name == "postgresql" else 10
    for name in (f"call-{number:02}" for number in range(count)):
        backend = telling(told, name)
        backend.agent_joined("parley", "replica")
        for number in range(1, 199):
            backend.save_conversation_turn(turn(number))
        backend.save_conversation([], "caller left")
    backend = telling(told, "nobody's")
    backend.save_conversation_turn(turn(1))
    store = SqliteStore(tmp_path / "outbox.db")
    for first in range(0, len(told.records), 500):
        some = told.records[first : first + 500]
        await store.append([Entry(each.id, each.call, each.model_dump_json().encode()) for each in some])
    handle = FakeHandle(RecordSink(database, PRICES))
    courier = Courier(store, HandleSink(lambda: handle), "courier")
    for _ in range(3):
        with pytest.raises(Unavailable, match="ConnectionError"):
            await courier.once()
    handle.away = False
    while await courier.once():
        pass
    await courier.aclose()
    async with database.system() as session:
        turns = (await session.execute(select(Turn.call_id, Turn.number).order_by(Turn.call_id, Turn.at))).all()
        assert [tuple(row) for row in turns] == [
            (f"call-{call:02}", number) for call in range(count) for number in range(1, 199)
        ]
        calls = (await session.execute(select(Call.status, Call.turns))).all()
        assert {tuple(row) for row in calls} == {("ended", 198)}
        assert len(calls) == count
