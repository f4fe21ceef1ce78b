"""Statements about a call's row that the sink, the end of calls and their deletion have in common."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from api import metrics
from api.db.tables import Call, Participant, Usage
from api.records.prices import CALL, Prices


async def locked(session: AsyncSession, call: str) -> Call | None:
    """Return a call's row, for this transaction alone until it ends; None: there is none.

    An update that changes nothing: in PostgreSQL it locks the row, in SQLite the file, before anything was read.
    """
    statement = update(Call).where(Call.id == call).values(status=Call.status).returning(Call)
    options = {"synchronize_session": False, "populate_existing": True}
    return await session.scalar(statement, execution_options=options)


def insert_new(session: AsyncSession, table: Any) -> Any:
    """Return an INSERT for a table that leaves alone what is there by its key."""
    postgres = session.get_bind().dialect.name == "postgresql"
    return (postgresql.insert(table) if postgres else sqlite.insert(table)).on_conflict_do_nothing()


async def end(session: AsyncSession, call: Call, at: datetime.datetime, reason: str, prices: Prices) -> bool:
    """End a call in a transaction that has its row `locked`; one that has ended keeps the earlier time.

    Args:
        session: Where.
        call: Its row.
        at: When.
        reason: Why.
        prices: Of its minutes.

    Returns:
        Whether it had not ended before.
    """
    first = call.status != "ended"
    call.ended_at = at if first or call.ended_at is None else min(call.ended_at, at)
    call.status, call.reason = "ended", reason[:100]
    left = update(Participant).where(Participant.call_id == call.id, Participant.left_at.is_(None))
    await session.execute(left.values(left_at=call.ended_at))
    await bill_minutes(session, call, prices)
    return first


async def bill_minutes(session: AsyncSession, call: Call, prices: Prices) -> None:
    """Write what a call that has ended took since it was live, or write it anew."""
    if call.live_at is None or call.ended_at is None:
        return
    seconds = max(0.0, (call.ended_at - call.live_at).total_seconds())
    name = str(uuid.uuid5(uuid.NAMESPACE_OID, f"parley {call.id} minutes {call.live_at.isoformat()}"))
    row = await session.get(Usage, name)
    if row is None:
        row = Usage(id=name, tenant_id=call.tenant_id, call_id=call.id, assistant=call.assistant, cost=0)
        row.day, row.role, row.model = call.live_at.date(), CALL, CALL
        session.add(row)
    before = row.cost
    call.cost -= before
    row.amounts = {"minutes": round(seconds / 60, 6)}
    row.cost, row.price_date = prices.cost(CALL, row.amounts, row.day)
    row.currency = prices.currency
    charge(call, row, before)


def charge(call: Call, row: Usage, before: Decimal = Decimal(0)) -> None:
    """Add a row of usage to what a call costs; of one that is written anew, its cost `before` was taken off already."""
    metrics.charged(row, float(row.cost - before))
    call.cost += row.cost
    call.currency = call.currency or row.currency
