"""Webhooks by several replicas on each database: each message is sent once, and what is due is found by an index."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from api.db import Database, session_of
from api.db.tables import Call, Turn, WebhookEndpoint, WebhookMessage
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import first_id, now
from api.routes.models import recent_times
from api.webhooks import announce, of_call
from api.webhooks.config import WebhooksConfig
from api.webhooks.delivery import Courier
from tests.databases import database, database_url, postgres
from tests.unit.api.receiver import receiving

pytestmark = pytest.mark.contract

__all__ = ["database", "database_url", "postgres"]

CONFIG = WebhooksConfig(allow_private=True)


async def test_replicas_send_each_message_once_and_old_ones_are_deleted(database: Database, database_url: str) -> None:
    others = [Database(database_url) for _ in range(2)]
    try:
        async with receiving() as receiver:
            async with session_of(database, DEFAULT_TENANT) as session:
                for _ in range(3):
                    session.add(WebhookEndpoint(url=receiver.url, events=["call.ended"], secret="whsec_c2VjcmV0"))
                await session.flush()
                for number in range(20):
                    data = of_call(Call(id=f"call-{number}", tenant_id=DEFAULT_TENANT))
                    await announce(session, DEFAULT_TENANT, "call.ended", data)
                await session.commit()
            # A replica that meets another at the same messages finds what is left at its next turn.
            for _ in range(3):
                await asyncio.gather(*(Courier(each, CONFIG).deliver() for each in (database, *others)))
            sent = [received.headers["webhook-id"] for received in receiver.received]
            assert len(sent) == len(set(sent)) == 60
            async with database.system() as session:
                rows = (await session.scalars(select(WebhookMessage))).all()
                assert {(row.status, row.attempts, row.leased_until) for row in rows} == {("delivered", 1, None)}
                old = first_id("msg", now() - datetime.timedelta(days=8))
                for number, row in enumerate(rows[:40]):
                    renamed = update(WebhookMessage).where(WebhookMessage.id == row.id)
                    await session.execute(renamed.values(id=f"{old}{number:020x}"))
                await session.commit()
            await Courier(database, CONFIG).forget()
            async with database.system() as session:
                assert len((await session.scalars(select(WebhookMessage.id))).all()) == 20
    finally:
        for each in others:
            await each.aclose()


async def test_times_of_models_are_read_in_each_database(database: Database) -> None:
    async with session_of(database, DEFAULT_TENANT) as session:
        session.add(Call(id="call-1"))
        await session.flush()
        known: list[dict[str, Any]] = [
            {},
            {"models": {"llm": "llm-a"}, "stages": {"llm_first_token_ms": 120}},
            {"models": None, "stages": []},
        ]
        for number, measures in enumerate(known):
            turn = Turn(id=f"t{number}", call_id="call-1", number=number, at=now(), heard="", answer="")
            turn.measures = measures
            session.add(turn)
        await session.commit()
        found = await recent_times(session)
    shown = {name: (times.turns, times.p50_ms, times.p95_ms) for name, times in found.items()}
    assert shown == {"llm-a": (1, 120, 120)}
