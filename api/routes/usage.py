"""What calls used, and what it cost."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, Float, Select, String, cast, func, literal, select, tuple_

from api.access.principal import Tenancy, needs
from api.db.tables import Usage
from api.db.types import Money, now
from api.pages import After, Limit, Page, cursor_of, cut, values_of
from api.problems import Problem, problems
from api.records.prices import Unit

router = APIRouter(prefix="/api/v1", tags=["usage"], dependencies=[needs("usage:read")])

DAYS = 30
"""The window, where none is asked for."""

DAYS_MOST = 400

Key = Literal["day", "assistant", "model", "call"]

_UNITS: dict[Unit, str] = {
    "minutes": "minutes",
    "audio_seconds": "audio_seconds",
    "characters": "characters",
    "input_tokens": "prompt_tokens",
    "cached_tokens": "cached_tokens",
    "output_tokens": "completion_tokens",
    "busy_seconds": "busy_seconds",
    "gpu_seconds": "gpu_seconds",
}
"""Units as prices name them, and as rows do."""


class Amounts(BaseModel):
    """What was used; what was not is 0."""

    minutes: float = Field(description="Of calls, from the answer to the end", examples=[12.5])
    audio_seconds: float = Field(description="Heard or made", examples=[341.2])
    characters: int = Field(description="Of text spoken", examples=[5120])
    input_tokens: int = Field(description="Read by language models, cached ones included", examples=[48211])
    cached_tokens: int = Field(description="Of those, from a cache", examples=[30720])
    output_tokens: int = Field(description="Written by language models", examples=[1904])
    busy_seconds: float = Field(description="Time that models worked", examples=[61.7])
    gpu_seconds: float = Field(description="The same, times the GPUs that they hold", examples=[0.0])


class UsageGroup(BaseModel):
    """What was used of all that has these keys in common; keys that were not asked for are null."""

    day: datetime.date | None = Field(default=None, description="UTC", examples=["2026-07-01"])
    assistant: str | None = Field(default=None, examples=["default"])
    model: str | None = Field(default=None, description="call: the minutes of calls themselves", examples=["llm-small"])
    call: str | None = Field(default=None, description="Empty: calls that were deleted", examples=["call-7f3a9c"])
    amounts: Amounts
    cost: str = Field(description="Exact", examples=["0.034512000"])
    currency: str = Field(description="ISO 4217; empty: without prices", examples=["EUR"])
    price_date: datetime.date | None = Field(
        description="Of the newest price in it; null: none is known for any of it", examples=["2026-01-01"]
    )
    unpriced: bool = Field(description="It has usage without a price, which costs 0 here", examples=[False])


class UsedPrice(BaseModel):
    """A price of the profile."""

    model: str = Field(examples=["llm-small"])
    unit: Unit = Field(examples=["input_tokens"])
    amount: str = Field(examples=["0.15"])
    per: int = Field(examples=[1000000])
    currency: str = Field(examples=["EUR"])
    since: datetime.date = Field(examples=["2026-01-01"])


class Total(BaseModel):
    """A sum in one currency."""

    cost: str = Field(examples=["12.408311000"])
    currency: str = Field(examples=["EUR"])


class UsageSummary(BaseModel):
    """All of a window."""

    first: datetime.date = Field(examples=["2026-06-02"])
    last: datetime.date = Field(examples=["2026-07-01"])
    calls: int = Field(description="With usage, and not deleted", examples=[118])
    amounts: Amounts
    totals: list[Total] = Field(description="One for each currency; one only, unless the profile changed its own")
    unpriced_models: list[str] = Field(description="Those with usage that no price is known of", examples=[["stt-own"]])
    prices: list[UsedPrice] = Field(description="As the profile has them now")


class Window(BaseModel):
    """Which rows count."""

    first: datetime.date
    last: datetime.date
    assistant: str | None = None
    model: str | None = None
    call: str | None = None

    @classmethod
    def asked(
        cls,
        first: Annotated[datetime.date | None, Query(description=f"First day, UTC; default: {DAYS} days ago")] = None,
        last: Annotated[datetime.date | None, Query(description="Last day, UTC; default: today")] = None,
        assistant: Annotated[str | None, Query(max_length=60)] = None,
        model: Annotated[str | None, Query(max_length=100)] = None,
        call: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Self:
        """Return what a request asks for.

        Raises:
            Problem: 422: the days are in the wrong order, or too many.
        """
        end = last or now().date()
        try:
            begin = first or end - datetime.timedelta(days=DAYS - 1)
        except OverflowError:
            raise Problem.field("last", "is too early") from None
        if begin > end:
            raise Problem.field("first", "must not be after `last`")
        if (end - begin).days >= DAYS_MOST:
            raise Problem.field("first", f"at most {DAYS_MOST} days together")
        for name, value in (("assistant", assistant), ("model", model), ("call", call)):
            if value and "\0" in value:
                raise Problem.field(name, "has a character that no name has")
        return cls(first=begin, last=end, assistant=assistant, model=model, call=call)

    def of(self, query: Any) -> Select[*tuple[Any, ...]]:
        """Return a query over these rows only."""
        query = query.where(Usage.day >= self.first, Usage.day <= self.last)
        if self.assistant is not None:
            query = query.where(Usage.assistant == self.assistant)
        if self.model is not None:
            query = query.where(Usage.model == self.model)
        return query if self.call is None else query.where(Usage.call_id == self.call)


Asked = Annotated[Window, Depends(Window.asked)]

_KEYS: dict[Key, ColumnElement[Any]] = {
    # As text, so that a cursor holds it as it is.
    "day": cast(Usage.day, String),
    "assistant": Usage.assistant.expression,
    "model": Usage.model.expression,
    "call": func.coalesce(Usage.call_id, ""),
}


def _amounts() -> list[ColumnElement[Any]]:
    # A number may be an integer in one row and none in another: both databases read it as one kind.
    fields = [cast(Usage.amounts[name].as_string(), Float) for name in _UNITS.values()]
    return [func.coalesce(func.sum(field), 0) for field in fields]


def _cost() -> ColumnElement[Any]:
    return func.coalesce(func.sum(Usage.cost), literal(Decimal(0), Money()))


@router.get("/usage", operation_id="list_usage", responses=problems())
async def list_usage(
    session: Tenancy,
    window: Asked,
    group_by: Annotated[list[Key], Query(max_length=4, description="What rows are added up by")] = ["day"],  # noqa: B006
    limit: Limit = 50,
    after: After = None,
) -> Page[UsageGroup]:
    """List what was used and what it cost, added up by day, assistant, model or call, or several of them; the last
    first. The sum over all items is the whole, exactly.
    """
    names = list(dict.fromkeys(group_by))
    keys = [*(_KEYS[name] for name in names), Usage.currency.expression]
    dated, unpriced = func.max(Usage.price_date), func.count().filter(Usage.price_date.is_(None))
    query = window.of(select(*keys, *_amounts(), _cost(), dated, unpriced)).group_by(*keys)
    if (before := values_of(after, len(keys))) is not None:
        if not all(isinstance(each, str) for each in before):
            raise Problem.field("after", "is no cursor of this list")
        query = query.where(tuple_(*keys) < tuple_(*(literal(each, String()) for each in before)))
    rows = (await session.execute(query.order_by(*(key.desc() for key in keys)).limit(limit + 1))).all()
    page, more = cut(rows, limit)
    items = [_group(names, list(row)) for row in page]
    return Page(items=items, next=cursor_of(*page[-1][: len(keys)]) if more else None)


@router.get("/usage/summary", operation_id="summarize_usage", responses=problems())
async def summarize_usage(request: Request, session: Tenancy, window: Asked) -> UsageSummary:
    """Add up all that was used in a window, and show the prices with their dates."""
    amounts = (await session.execute(window.of(select(*_amounts(), func.count(func.distinct(Usage.call_id)))))).one()
    costs = window.of(select(Usage.currency, _cost())).group_by(Usage.currency).order_by(Usage.currency)
    totals = [Total(cost=_money(cost), currency=currency) for currency, cost in (await session.execute(costs)).all()]
    missing = window.of(select(Usage.model).where(Usage.price_date.is_(None))).distinct().order_by(Usage.model)
    prices = [
        UsedPrice(**price.model_dump(exclude={"amount"}), amount=f"{price.amount:f}")
        for price in request.app.state.prices.all
    ]
    return UsageSummary(
        first=window.first,
        last=window.last,
        calls=amounts[-1],
        amounts=_shown(amounts[:-1]),
        totals=totals,
        unpriced_models=list(await session.scalars(missing)),
        prices=prices,
    )


def _group(names: list[Key], row: list[Any]) -> UsageGroup:
    count = len(names)
    currency, rest = row[count], row[count + 1 :]
    cost, dated, unpriced = rest[-3:]
    return UsageGroup(
        **dict(zip(names, row, strict=False)),
        amounts=_shown(rest[:-3]),
        cost=_money(cost),
        currency=currency,
        price_date=dated,
        unpriced=bool(unpriced),
    )


def _shown(values: Any) -> Amounts:
    # Sums of binary fractions end in dust.
    return Amounts.model_validate({name: round(float(value), 6) for name, value in zip(_UNITS, values, strict=True)})


def _money(amount: Decimal) -> str:
    return f"{amount:.9f}"
