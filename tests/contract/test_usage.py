"""Usage and money over the API, on SQLite and PostgreSQL: the parts are the whole, to the last place."""

from __future__ import annotations

import datetime
import random
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api.app import create_app
from api.config import ApiConfig
from api.db import Database, session_of
from api.db.tables import Call, Usage
from api.db.tables.accounts import DEFAULT_TENANT
from tests.contract.calls_told import PRICES
from tests.databases import database, database_url, postgres
from tests.unit.api.backend import FakeDoorman, client

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

__all__ = ["database", "database_url", "postgres"]

LAST = datetime.date(2026, 7, 10)
MODELS = {"small": "llm", "own": "stt", "call": "call"}


@pytest_asyncio.fixture
async def http(database: Database) -> AsyncGenerator[httpx.AsyncClient]:
    """A client, and a few hundred rows of two tenants, with as many places after the point as there are."""
    app = create_app(ApiConfig(prices=list(PRICES.all)), "parley", lambda: None, database=database)
    app.state.doormen = [FakeDoorman()]
    chance = random.Random(7)
    for tenant in (DEFAULT_TENANT, "ten_other"):
        async with session_of(database, tenant) as session:
            session.add_all(Call(id=f"{tenant}-{number}") for number in range(9))
            await session.flush()
            session.add_all(row(tenant, number, chance) for number in range(300))
            await session.commit()
    async with client(app) as opened:
        yield opened


def row(tenant: str, number: int, chance: random.Random) -> Usage:
    model = chance.choice(list(MODELS))
    day = LAST - datetime.timedelta(days=chance.randrange(20))
    count = chance.randrange(1, 10**7)
    amounts = {"small": {"prompt_tokens": count}, "own": {"audio_seconds": count / 977}, "call": {"minutes": count / 7}}
    cost, priced = PRICES.cost(model, amounts[model], day)
    call = f"{tenant}-{chance.randrange(9)}" if chance.random() < 0.9 else None
    about: dict[str, Any] = {"assistant": chance.choice(["default", "20260701", "Ä"]), "call_id": call}
    about |= {"role": MODELS[model], "model": model, "amounts": amounts[model], "cost": cost, "price_date": priced}
    return Usage(id=f"{tenant}-{number:03}", day=day, currency="EUR", **about)


async def everything(http: httpx.AsyncClient, **asked: Any) -> list[dict[str, Any]]:
    """Return all pages of a list."""
    items: list[dict[str, Any]] = []
    params: dict[str, Any] = {"first": "2026-06-01", "last": str(LAST), "limit": 7, **asked}
    while True:
        answer = await http.get("/api/v1/usage", params=params)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if not (cursor := answer.json()["next"]):
            return items
        params["after"] = cursor


async def test_the_sum_of_the_parts_is_the_whole(http: httpx.AsyncClient) -> None:
    summary = (await http.get("/api/v1/usage/summary", params={"first": "2026-06-01", "last": str(LAST)})).json()
    assert [total["currency"] for total in summary["totals"]] == ["EUR"]
    whole = Decimal(summary["totals"][0]["cost"])
    assert whole > 0
    assert summary["unpriced_models"] == ["own"]
    assert summary["calls"] == 9
    assert {"model": "small", "unit": "input_tokens", "amount": "0.15", "per": 1_000_000}.items() <= summary["prices"][
        0
    ].items()
    groups = [["day"], ["assistant"], ["model"], ["call"], ["day", "model"], ["call", "assistant", "day"]]
    for names in groups:
        items = await everything(http, group_by=names)
        keys = [tuple(item[name] for name in names) for item in items]
        assert len(keys) == len(set(keys)), f"{names}: a group is there twice"
        assert keys == sorted(keys, reverse=True)
        assert sum(Decimal(item["cost"]) for item in items) == whole, names
        for unit in ("minutes", "audio_seconds", "input_tokens"):
            parts = sum(item["amounts"][unit] for item in items)
            assert parts == pytest.approx(summary["amounts"][unit], abs=1e-3), f"{names}: {unit}"
    by_model = {item["model"]: item for item in await everything(http, group_by="model")}
    assert (by_model["own"]["cost"], by_model["own"]["price_date"], by_model["own"]["unpriced"]) == (
        *("0.000000000", None),
        True,
    )
    assert (by_model["small"]["price_date"], by_model["small"]["unpriced"]) == ("2026-01-01", False)


async def test_filters_add_up_too_and_each_tenant_sees_its_own(http: httpx.AsyncClient) -> None:
    whole = {item["model"]: Decimal(item["cost"]) for item in await everything(http, group_by="model")}
    for model, cost in whole.items():
        items = await everything(http, model=model)
        assert sum(Decimal(item["cost"]) for item in items) == cost
    parts = [await everything(http, assistant=name) for name in ("default", "20260701", "Ä")]
    assert sum(Decimal(item["cost"]) for items in parts for item in items) == sum(whole.values())
    one = await everything(http, call=f"{DEFAULT_TENANT}-3", group_by="call")
    assert [item["call"] for item in one] == [f"{DEFAULT_TENANT}-3"]
    assert await everything(http, call="ten_other-3") == []
    other = await http.get("/api/v1/usage/summary", params={"last": str(LAST)}, headers={"x-test-tenant": "ten_other"})
    assert Decimal(other.json()["totals"][0]["cost"]) != sum(whole.values())
    empty = (await http.get("/api/v1/usage/summary", params={"last": "2020-01-01"})).json()
    assert (empty["totals"], empty["calls"], empty["amounts"]["minutes"]) == ([], 0, 0)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"first": "2026-07-02", "last": "2026-07-01"}, "first"),
        ({"first": "2020-07-02", "last": "2026-07-01"}, "first"),
        ({"last": "0001-01-01"}, "last"),
        ({"group_by": "week"}, "group_by.0"),
        ({"after": "abc"}, "after"),
        ({"after": "WyJhIl0", "group_by": ["day", "model"]}, "after"),
        ({"model": "a\0"}, "model"),
        ({"limit": 0}, "limit"),
    ],
)
async def test_what_is_asked_wrongly_is_named(http: httpx.AsyncClient, asked: dict[str, Any], field: str) -> None:
    answer = await http.get("/api/v1/usage", params=asked)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), answer.text
    refused = await http.get("/api/v1/usage", headers={"x-test-scopes": "calls:read"})
    assert refused.status_code == 403
