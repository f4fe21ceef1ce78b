"""Calls are kept for as long as their tenant says, and then deleted with all that hangs on them."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

from sqlalchemy import delete, select

from api.db import Database
from api.db.tables import Call, DeletedCall, Tenant
from api.db.types import now
from api.records.deletion import Objects, delete_call
from api.records.prices import Prices

BATCH = 50
"""Calls that are looked up together; each is deleted in a transaction of its own."""

CALL_SECONDS = 60.0
"""For one call, with the objects of its files."""

REMEMBERED = datetime.timedelta(days=31)
"""How long a deleted call is known as such; an outbox delivers within hours."""


class Retention:
    """Deletes what is older than its tenant keeps. Two at once are harmless: the second finds nothing.

    Args:
        database: Where.
        objects: Where files' bytes are.
        prices: Of calls that are still live after so many days.
        clock: Tells the time.
    """

    def __init__(
        self,
        database: Database,
        objects: Objects | None,
        prices: Prices,
        clock: Callable[[], datetime.datetime] = now,
    ) -> None:
        self._database, self._objects, self._prices, self._clock = database, objects, prices, clock

    async def once(self) -> None:
        """Delete all that is due."""
        async with self._database.system() as session:
            await session.execute(delete(DeletedCall).where(DeletedCall.at < self._clock() - REMEMBERED))
            await session.commit()
            asked = select(Tenant.id, Tenant.keep_days).where(Tenant.keep_days.is_not(None))
            tenants = (await session.execute(asked)).all()
        for tenant, days in tenants:
            while await self._batch(tenant, self._clock() - datetime.timedelta(days=days or 0)):
                pass

    async def _batch(self, tenant: str, before: datetime.datetime) -> int:
        """Delete the oldest calls of a tenant that began before a moment; return how many were found."""
        old = select(Call.id).where(Call.tenant_id == tenant, Call.created_at < before)
        async with self._database.system() as session:
            calls = list(await session.scalars(old.order_by(Call.created_at, Call.id).limit(BATCH)))
        for call in calls:
            async with asyncio.timeout(CALL_SECONDS), self._database.system() as session:
                await delete_call(session, call, self._objects, self._prices)
                await session.commit()
        return len(calls)
