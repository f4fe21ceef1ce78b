"""Records as a call's agent tells them, for tests of where they end up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import select

from agent.backend import Backend
from api.db import Database
from api.db.tables import Base, Call, CallEvent, File, Participant, StoredRecord, Turn, Usage, WebhookMessage
from api.records.prices import Price, Prices
from serve.contracts import Usage as Used
from serve.records import AnyRecord

BEGAN = 1_780_000_000.0
"""2026-05-28, 20:26:40 UTC."""


class Told:
    """An outbox that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[AnyRecord] = []

    def put(self, record: AnyRecord) -> asyncio.Future[bool]:
        self.records.append(record)
        return cast(Any, None)  # nobody waits for it

    async def flush(self, seconds: float) -> int:
        return 0

    async def aclose(self) -> None: ...

    @property
    def bodies(self) -> list[bytes]:
        return [record.model_dump_json().encode() for record in self.records]


def telling(told: Told, call: str = "room", epoch: int = 1, since: float = BEGAN) -> Backend:
    """Return a call's side of the backend, whose clock goes on by a second with each record."""
    return Backend(told, call, epoch, ticking(since))


def ticking(since: float) -> Callable[[], float]:
    time = since

    def clock() -> float:
        nonlocal time
        time += 1
        return time

    return clock


def turn(
    number: int, ms: int | None = 800, *, error: str | None = None, interrupted: bool = False
) -> dict[str, object]:
    """Return a turn, as `agent/turns.py` does."""
    said = {"turn": number, "heard": f"question {number}", "answer": f"answer {number}", "typed": False}
    return {**said, "interrupted": interrupted, "error": error, "voice_to_voice_ms": ms, "models": {"llm": "small"}}


def whole_call(call: str = "room", tenant: str = "") -> Told:
    """Return all kinds of records of one call of 14 seconds: two turns, a file, usage, its end."""
    told = Told()
    backend = telling(told, call)
    backend.agent_joined("parley", "replica-1", tenant=tenant)
    backend.participant_connected("caller", "Ada")
    backend.events([{"event": "process", "time": BEGAN + 2, "assistant": "helper"}])
    backend.save_conversation_turn(turn(1, 700), "question 1")
    backend.usage("llm", "small", Used(prompt_tokens=1000, cached_tokens=400, completion_tokens=50), "question 1")
    backend.handle_file_upload("prices.csv", "text/csv", 12, file=f"file of {call}", sender="caller", text="a,b")
    backend.save_conversation_turn(turn(2, 900, interrupted=True), "question 2")
    backend.usage("llm", "small", Used(prompt_tokens=1500, completion_tokens=70), "question 2")
    backend.usage("stt", "own", Used(audio_seconds=3.25, busy_seconds=0.5), "question 2")
    backend.participant_disconnected("caller", "CLIENT_INITIATED")
    backend.events([{"event": "close", "time": BEGAN + 10, "reason": "caller left"}])
    backend.save_conversation([{"role": "user", "content": "question 1"}], "caller left")
    backend.events([{"event": "cleanup", "time": BEGAN + 12, "reason": "caller left", "seconds": 12.0}])
    return told


PRICES = Prices(
    [
        Price.model_validate({"currency": "EUR", "since": "2026-01-01", **price})
        for price in (
            {"model": "small", "unit": "input_tokens", "amount": "0.15", "per": 1_000_000},
            {"model": "small", "unit": "cached_tokens", "amount": "0.05", "per": 1_000_000},
            {"model": "small", "unit": "output_tokens", "amount": "0.60", "per": 1_000_000},
            {"model": "call", "unit": "minutes", "amount": "0.03"},
        )
    ]
)
"""`own` has none."""


async def stored(database: Database, call: str) -> dict[str, Any]:
    """Return all that is stored of a call, in an order of its own: the same records give the same."""
    found: dict[str, Any] = {}
    async with database.system() as session:
        row = await session.get(Call, call)
        found["calls"] = [] if row is None else [_plain(row)]
        for table in (Turn, Participant, CallEvent, File, Usage, StoredRecord):
            rows = await session.scalars(select(table).where(table.call_id == call))
            found[table.__tablename__] = sorted((_plain(each) for each in rows), key=lambda each: str(each["id"]))
        messages = await session.scalars(select(WebhookMessage).order_by(WebhookMessage.id))
        told = [(each.event, each.payload["data"]) for each in messages]
        found["webhooks"] = [event for event, data in told if call in (data["id"], data.get("call_id"))]
    return found


def _plain(row: Base) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
