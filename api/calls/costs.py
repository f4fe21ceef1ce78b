"""What a call's parts cost."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.calls.shapes import ModelUsage, money
from api.db.tables import Usage


async def by_turn(session: AsyncSession, call: str) -> dict[str, Decimal]:
    """Return what each turn's models cost, by the turn's id; turns of which nothing has a price are left out."""
    priced = select(Usage.turn_id, func.sum(Usage.cost)).where(
        Usage.call_id == call, Usage.turn_id.is_not(None), Usage.price_date.is_not(None)
    )
    return {turn: cost for turn, cost in (await session.execute(priced.group_by(Usage.turn_id))).all() if turn}


def by_model(rows: Iterable[Usage]) -> list[ModelUsage]:
    """Return a call's usage by model."""
    found: dict[tuple[str, str], tuple[dict[str, Any], Decimal]] = {}
    for row in rows:
        amounts, cost = found.get((row.role, row.model), ({}, Decimal(0)))
        for name, amount in row.amounts.items():
            amounts[name] = amounts.get(name, 0) + amount
        found[row.role, row.model] = (amounts, cost + row.cost)
    return [
        ModelUsage(role=role, model=model, amounts=amounts, cost=money(cost))
        for (role, model), (amounts, cost) in found.items()
    ]
