"""Deleting calls, with all that hangs on them; what they cost stays."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.db.tables import DeletedCall, File
from api.db.types import now
from api.records.prices import Prices
from api.records.rows import end, locked


class Objects(Protocol):
    """Where the bytes of files are."""

    async def delete(self, path: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...


async def delete_call(session: AsyncSession, call: str, objects: Objects | None, prices: Prices) -> bool:
    """Delete a call, its turns, participants, events and files; what its agents tell of it later is not stored.

    The caller commits, and has done nothing in this transaction before. Objects go first: where this dies in between,
    the rows are there, and it is done again.

    Args:
        session: Of its tenant, or the system's.
        call: Its id.
        objects: Where its files' bytes are; None: there are none.
        prices: Of the minutes of a call that is still live.

    Returns:
        Whether it was there.
    """
    gone: set[str] = set()
    while True:
        found = await _locations(session, call) - gone
        # No transaction waits for a store.
        await session.rollback()
        if objects is not None:
            for path in found:
                await objects.delete(path)
        gone |= found
        row = await locked(session, call)
        if row is None:
            return False
        if await _locations(session, call) <= gone:
            break
        await session.rollback()
    if row.status == "live":
        await end(session, row, now(), "deleted", prices)
    session.add(DeletedCall(id=call, tenant_id=row.tenant_id, assistant=row.assistant, at=now()))
    await session.delete(row)
    await session.flush()
    return True


async def _locations(session: AsyncSession, call: str) -> set[str]:
    return set(await session.scalars(select(File.location).where(File.call_id == call, File.location != "")))
