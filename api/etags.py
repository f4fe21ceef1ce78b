"""ETags where two people could edit the same thing: the second is told, and overwrites nothing (RFC 9110).

A handler that changes something:

    row = await hold(session, Assistant, id)
    if row is None: raise Problem.missing("assistant")
    check(request, etag_of(row))
    row.name = ...
    await session.commit()
    tag(response, etag_of(row))
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, TypeVar

from fastapi import Header, Request, Response
from sqlalchemy import inspect, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api.db.tables.base import Base
from api.problems import Problem

Row = TypeVar("Row", bound=Base)

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match", max_length=1000, description="ETag of what is changed, as it was read", examples=['"9c56"']
    ),
]
"""Declares the header in OpenAPI; what it says is checked by `check`."""


def etag_of(*parts: Any) -> str:
    """Return the strong ETag of rows, by the values of all their columns, and of plain values."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(_values(part) if isinstance(part, Base) else part).encode())
        digest.update(b"\0")
    return f'"{digest.hexdigest()[:32]}"'


def check(request: Request, etag: str) -> None:
    """Refuse a change of something that is not what the client has read.

    Raises:
        Problem: 428: there is no If-Match; 412: it names another version.
    """
    given = request.headers.get("if-match")
    if given is None:
        raise Problem(
            428, "If-Match is needed", "Send If-Match with the ETag of what you have read", headers=_now(etag)
        )
    if given.strip() != "*" and etag not in [each.strip() for each in given.split(",")]:
        detail = "Somebody changed it since you read it; read it again, then change it"
        raise Problem(412, "It was changed meanwhile", detail, headers=_now(etag))


def tag(response: Response, etag: str) -> None:
    """Send an ETag with the answer."""
    response.headers["etag"] = etag


async def hold(session: AsyncSession, table: type[Row], *key: Any) -> Row | None:
    """Return a row as it is now, to change it: nobody else changes it before this session commits or closes.

    Args:
        session: A handler's, which has changed nothing yet.
        table: The class.
        key: Primary key, within the session's tenant.
    """
    mapper = inspect(table)
    columns = [getattr(table, mapper.get_property_by_column(column).key) for column in mapper.primary_key]
    mine = [column == value for column, value in zip(columns, key, strict=True)]
    if session.get_bind().dialect.name == "sqlite":
        # SQLite locks no rows; a write that changes nothing begins the transaction and makes other writers wait.
        unchanged = update(table).where(*mine).values({columns[0].key: columns[0]})
        await session.execute(unchanged, execution_options={"synchronize_session": False})
    found = select(table).where(*mine).with_for_update().execution_options(populate_existing=True)
    return await session.scalar(found)


def _values(row: Base) -> list[Any]:
    state = inspect(row)
    return [(attribute.key, state.dict.get(attribute.key)) for attribute in state.mapper.column_attrs]


def _now(etag: str) -> dict[str, str]:
    return {"etag": etag}
