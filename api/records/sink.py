"""Where records of calls end up: each stored once though delivered often, in order within a call.

One short transaction for what a delivery has of one call. Whoever dies in it leaves nothing behind, and the outbox
delivers again; what was committed is known by its id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from api.db import Database
from api.db.tables import Call, DeletedCall, StoredRecord, Tenant
from api.db.tables.accounts import DEFAULT_TENANT
from api.records.prices import Prices
from api.records.rows import insert_new, locked
from api.records.writer import Writer, late_usage, moment, named
from serve import logs, tracing
from serve.errors import BadRequest, Unavailable
from serve.records import AgentJoined, AnyRecord, Turn, read

ID_MOST = 50
"""Characters of a record's id: events are known by it and their place."""


class RecordSink:
    """Stores records in the database.

    Args:
        database: Where.
        prices: What usage costs.
    """

    def __init__(self, database: Database, prices: Prices) -> None:
        self._database, self._prices = database, prices

    async def store(self, bodies: Sequence[bytes]) -> None:
        """Store records, as JSON objects (`serve/records.py`).

        Raises:
            BadRequest: One of them will never fit; given one by one, the others are stored.
            Exception: Anything else: all may be given again.
        """
        calls: dict[str, dict[str, AnyRecord]] = {}
        for body in bodies:
            record = _read(body)
            calls.setdefault(record.call, {}).setdefault(record.id, record)
        for call, records in calls.items():
            logs.begin(call)
            await self._store(call, list(records.values()))

    async def _store(self, call: str, records: list[AnyRecord], *, again: bool = True) -> None:
        try:
            with tracing.storing([record.trace for record in records if isinstance(record, Turn)]):
                async with self._database.system() as session, session.begin():
                    await self._write(session, call, records)
        except IntegrityError:
            # Somebody else wrote the same at the same time; not so a second time.
            if not again:
                raise BadRequest("record", "contradicts what is stored") from None
            await self._store(call, records, again=False)
        except (StatementError, OverflowError) as error:
            if _never_fits(error):
                raise BadRequest("record", "has a value that the database does not take") from None
            raise

    async def _write(self, session: AsyncSession, call: str, records: list[AnyRecord]) -> None:
        row = await locked(session, call)
        if row is None:
            if gone := await session.get(DeletedCall, call):
                await late_usage(session, gone, records, self._prices)
                return
            await _make(session, call, records)
            row = await locked(session, call)
            if row is None:
                raise Unavailable("the call's row came and went")
        ids = [{"id": record.id, "call_id": call, "tenant_id": row.tenant_id} for record in records]
        statement = insert_new(session, StoredRecord).values(ids).returning(StoredRecord.id)
        fresh = set(await session.scalars(statement))
        writer = Writer(session, row, self._prices)
        for record in records:
            if record.id in fresh:
                await writer.write(record)
        await writer.finish()


async def _make(session: AsyncSession, call: str, records: list[AnyRecord]) -> None:
    """Make the row of a call that nobody started by the API, or while it was down.

    Raises:
        BadRequest: Nobody has said whose it is, or there is no such tenant.
    """
    joined = next((record for record in records if isinstance(record, AgentJoined)), None)
    if joined is None:
        raise BadRequest("call", "is not known, and no agent has said whose it is")
    tenant = joined.tenant or DEFAULT_TENANT
    if await session.get(Tenant, tenant) is None:
        raise BadRequest("tenant", "is not known")
    assistant = await named(session, tenant, joined.assistant)
    row = {"id": call, "tenant_id": tenant, "created_at": moment(joined.time), "status": "waiting", **assistant}
    await session.execute(insert_new(session, Call).values(row))


def _read(body: bytes) -> AnyRecord:
    """Return a record.

    Raises:
        BadRequest: It is none that is known here, or cannot be stored.
    """
    try:
        if b"\\u0000" in body:
            body = json.dumps(_without_nul(json.loads(body))).encode()
        record = read(body)
    except (ValidationError, ValueError, RecursionError):
        raise BadRequest("record", "is none that is known here") from None
    if not 0 < len(record.id) <= ID_MOST:
        raise BadRequest("id", f"has 1 to {ID_MOST} characters")
    if not 0 < len(record.call) <= 64:
        raise BadRequest("call", "has 1 to 64 characters")
    moment(record.time)
    return record


def _without_nul(value: Any) -> Any:
    """Return JSON without the one character that PostgreSQL's texts cannot hold."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [_without_nul(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in cast("dict[str, Any]", value).items()}
    return value


def _never_fits(error: BaseException) -> bool:
    """Say whether a statement failed for what it was given: it will again."""
    if not isinstance(error, DBAPIError):
        # A value that a column's type refuses, or that no integer of the database holds.
        cause = error.orig if isinstance(error, StatementError) else error
        return isinstance(cause, ValueError | TypeError | OverflowError)
    cause = error.orig
    state = str(getattr(cause, "sqlstate", None) or "")
    return state.startswith("22") or isinstance(getattr(cause, "__cause__", None), ValueError)
