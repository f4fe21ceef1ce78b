"""Lists in pages: newest first, by a cursor that stays right while rows are added."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar, cast

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from api.db.types import Time
from api.problems import Problem

Item = TypeVar("Item")
Row = TypeVar("Row")

PAGE = 50
LARGEST = 200

Limit = Annotated[int, Query(ge=1, le=LARGEST, description="Most items of the page")]
After = Annotated[str | None, Query(max_length=500, description="`next` of the page before")]


class Page(BaseModel, Generic[Item]):
    """A part of a list."""

    items: list[Item]
    next: str | None = Field(default=None, description="Cursor of the page after this one; null: this is the last")


async def listed(
    session: AsyncSession,
    asked: Select[Row],
    by: Sequence[InstrumentedAttribute[Any]],
    shown: Callable[[Row], Item],
    limit: int,
    after: str | None,
    *,
    oldest_first: bool = False,
) -> Page[Item]:
    """Return a page of rows.

    Args:
        session: Of the caller's tenant.
        asked: All rows of the list, in no order.
        by: What they are ordered by; together no two rows have the same.
        shown: Makes an item of a row.
        limit: Most items.
        after: Cursor of the page before; None: the first page.
        oldest_first: Rising, not falling.

    Raises:
        Problem: 422: it is no cursor of ours.
    """
    if (condition := (newer if oldest_first else older)(after, *by)) is not None:
        asked = asked.where(condition)
    order = [column.asc() if oldest_first else column.desc() for column in by]
    rows, more = cut((await session.scalars(asked.order_by(*order).limit(limit + 1))).all(), limit)
    following = cursor_of(*(getattr(rows[-1], column.key) for column in by)) if more else None
    return Page(items=[shown(row) for row in rows], next=following)


def older(cursor: str | None, *columns: Any) -> ColumnElement[bool] | None:
    """Return the condition for rows after a cursor, where they are ordered by the columns, all descending.

    Raises:
        Problem: 422: it is no cursor of ours.
    """
    return None if cursor is None else tuple_(*columns) < tuple_(*_fitting(cursor, columns))


def newer(cursor: str | None, *columns: Any) -> ColumnElement[bool] | None:
    """Return the condition for rows after a cursor, where they are ordered by the columns, all ascending.

    Raises:
        Problem: 422: it is no cursor of ours.
    """
    return None if cursor is None else tuple_(*columns) > tuple_(*_fitting(cursor, columns))


def cursor_of(*values: Any) -> str:
    """Return the cursor of a row, by the values of the columns that the list is ordered by."""
    # Marked, so that a name that reads as a time stays a name.
    plain = [{"at": value.isoformat()} if isinstance(value, datetime.datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def values_of(cursor: str | None, count: int) -> list[Any] | None:
    """Return what `cursor_of` was given; None: there is no cursor.

    Raises:
        Problem: 422: it is no cursor of ours.
    """
    return None if cursor is None else _read(cursor, count)


def cut(rows: Sequence[Any], limit: int) -> tuple[Sequence[Any], bool]:
    """Return a page of rows of which one more than `limit` was asked for, and whether there are more."""
    return rows[:limit], len(rows) > limit


def _fitting(cursor: str, columns: Sequence[Any]) -> list[Any]:
    """Return a cursor's values; PostgreSQL fails on a time in place of a name, or the other way round."""
    values = _read(cursor, len(columns))
    for column, value in zip(columns, values, strict=True):
        if isinstance(column.type, Time) != isinstance(value, datetime.datetime):
            raise Problem.field("after", "is no cursor of this list; take `next` of the page before")
    return values


def _read(cursor: str, count: int) -> list[Any]:
    try:
        values: Any = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(cast("list[Any]", values)) != count:
            raise ValueError
        return [_moment(value) for value in cast("list[Any]", values)]
    except (ValueError, binascii.Error, TypeError, KeyError):
        raise Problem.field("after", "is no cursor; take `next` of the page before") from None


def _moment(value: Any) -> Any:
    if isinstance(value, dict):
        moment = datetime.datetime.fromisoformat(cast("dict[str, Any]", value)["at"])
        if moment.tzinfo is None:
            raise ValueError
        return moment
    # PostgreSQL's text holds no NUL.
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    return value
