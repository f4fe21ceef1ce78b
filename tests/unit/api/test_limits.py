"""What a tenant may use: requests a second, calls at once, minutes a month, uploads at once."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from api.access.limits import Limits, room_for_call
from api.access.principal import Principal
from api.config import ApiConfig, TenantLimits
from api.db import Database, session_of
from api.db.tables import Call, Tenant, Usage
from api.db.types import new_id, now
from api.problems import Problem
from tests.unit.api.backend import backend, client, warm

pytestmark = pytest.mark.unit

WHO = Principal("per_1", "ten_default", "person", frozenset())
OTHER = Principal("per_2", "ten_other", "person", frozenset())


def limited(app: FastAPI, **values: Any) -> Limits:
    return Limits(TenantLimits(**values), app.state.database)


async def call(app: FastAPI, who: Principal, status: str, **values: Any) -> None:
    async with session_of(app.state.database, who.tenant) as session:
        session.add(Call(id=new_id("call"), status=status, **values))
        await session.commit()


async def begin(app: FastAPI, limits: Limits, who: Principal = WHO) -> None:
    """Begin a call as a handler does."""
    async with session_of(app.state.database, who.tenant) as session:
        await room_for_call(session, who, limits)
        session.add(Call(id=new_id("call")))
        await session.commit()


async def test_requests_over_the_rate_are_told_when_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = [1000.0]
    monkeypatch.setattr("limits.aio.storage.memory.time.time", lambda: second[0])
    async with backend(tmp_path, limits={"requests": 3}) as app, client(app) as http, client(app, "ten_other") as other:
        answers = [await http.get("/api/v1/me") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert [answer.headers["ratelimit"] for answer in answers[:4]] == [
            f'"requests";r={left};t=1' for left in (2, 1, 0, 0)
        ]
        assert answers[3].headers["ratelimit-policy"] == '"requests";q=3;w=1'
        assert answers[3].headers["retry-after"] == "1"
        assert answers[3].json()["limit"] == "requests"
        assert answers[3].headers["content-type"] == "application/problem+json"
        assert (await other.get("/api/v1/me")).status_code == 200
        openai = await http.get("/v1/models")
        assert (openai.status_code, openai.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert openai.headers["retry-after"] == "1"
        second[0] += 1.01
        assert (await http.get("/api/v1/me")).status_code == 200
        assert (await http.get("/health/live")).headers.get("ratelimit") is None


async def test_a_tenants_own_limit_holds(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        etag = (await http.get("/api/v1/tenant")).headers["etag"]
        change = await http.patch("/api/v1/tenant", json={"limits": {"requests": 7}}, headers={"if-match": etag})
        assert change.status_code == 200
        assert (await http.get("/api/v1/me")).headers["ratelimit-policy"] == '"requests";q=7;w=1'
        assert [(await app.state.limits.of(tenant)).requests for tenant in ("ten_default", "ten_other")] == [7, 100]


def test_what_a_tenant_was_given_goes_before_the_profile_and_its_own_before_that_where_it_is_less() -> None:
    profile = TenantLimits(calls=10, minutes=None, uploads=8, requests=100)
    assert profile.of({"calls": 50}, {}).calls == 50
    assert profile.of({"calls": 50}, {"calls": 20}).calls == 20
    assert profile.of({"calls": 5}, {"calls": 20}).calls == 5
    assert profile.of({}, {"minutes": 3}).minutes == 3
    assert profile.of({"minutes": 0}, {"minutes": 3}).minutes == 0


async def test_requests_go_on_where_redis_is_away(tmp_path: Path) -> None:
    async with backend(tmp_path) as app:
        # Nothing listens on port 9 of loopback.
        limits = Limits(TenantLimits(requests=2), app.state.database, "redis://127.0.0.1:9/0")
        try:
            assert [(await limits.count("ten_default"))[1] for _ in range(3)] == [False, False, True]
        finally:
            await limits.aclose()


@pytest.mark.parametrize("url", ["redis://u:p@h:1/0", "rediss://h:1", "redis+cluster://h:1", "rediss+cluster://h:1"])
async def test_every_address_that_the_call_plane_takes_is_taken(tmp_path: Path, url: str) -> None:
    async with backend(tmp_path) as app:
        limits = Limits(TenantLimits(), app.state.database, url)
        await limits.aclose()


async def test_requests_go_on_where_the_database_is_away() -> None:
    database = Database("sqlite+aiosqlite:////nowhere/parley.db")
    limits = Limits(TenantLimits(requests=2), database)
    assert [(await limits.count("ten_default"))[1] for _ in range(3)] == [False, False, True]
    await database.aclose()


async def test_calls_at_once(tmp_path: Path) -> None:
    async with backend(tmp_path) as app:
        limits = limited(app, calls=2)
        await call(app, WHO, "ended")
        await call(app, WHO, "waiting", created_at=now() - datetime.timedelta(hours=2))
        await call(app, OTHER, "live")
        await call(app, WHO, "live")
        await begin(app, limits)
        with pytest.raises(Problem, match="2 calls at once") as caught:
            await begin(app, limits)
        assert (caught.value.status, caught.value.more) == (429, {"limit": "calls"})
        assert int(caught.value.headers["retry-after"]) > 0
        await begin(app, limits, OTHER)


async def test_of_two_calls_begun_at_once_only_one_has_room(tmp_path: Path) -> None:
    async with backend(tmp_path) as app:
        limits = limited(app, calls=1)
        await warm(app)
        results = await asyncio.gather(*(begin(app, limits) for _ in range(4)), return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert all(result is None or isinstance(result, Problem) for result in results), results


async def test_minutes_of_the_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime.datetime(2026, 12, 31, 23, 0, tzinfo=datetime.UTC)
    monkeypatch.setattr("api.access.limits.now", lambda: moment)
    async with backend(tmp_path) as app:
        async with app.state.database.system() as session:
            for tenant, day, minutes in (
                ("ten_default", datetime.date(2026, 12, 1), 6.0),
                ("ten_default", datetime.date(2026, 11, 30), 500.0),
                ("ten_other", datetime.date(2026, 12, 2), 500.0),
            ):
                amounts = {"minutes": minutes}
                row = Usage(id=new_id("use"), tenant_id=tenant, day=day, role="call", model="", amounts=amounts)
                session.add(row)
            await session.commit()
        # One that goes on counts so far.
        await call(app, WHO, "live", answered_at=moment - datetime.timedelta(minutes=3))
        await begin(app, limited(app, minutes=9.5))
        with pytest.raises(Problem, match="01 January") as caught:
            await begin(app, limited(app, minutes=9))
        assert (caught.value.status, caught.value.more) == (429, {"limit": "minutes"})
        assert caught.value.headers["retry-after"] == str(3600 + 1)


async def test_uploads_at_once(tmp_path: Path) -> None:
    async with backend(tmp_path) as app:
        limits = limited(app, uploads=1)
        async with limits.upload(WHO), limits.upload(OTHER):
            with pytest.raises(Problem, match="1 files at once"):
                await limits.upload(WHO).__aenter__()
        async with limits.upload(WHO):
            pass


async def test_every_limit_says_what_it_is() -> None:
    """Operators read the profile's schema."""
    for model in (TenantLimits, ApiConfig):
        missing = [name for name, field in model.model_fields.items() if "max" in name and not field.description]
        assert missing == []
        if model is TenantLimits:
            assert all(field.description for field in model.model_fields.values())


async def test_a_tenant_that_is_gone_has_the_profiles_limits(tmp_path: Path) -> None:
    async with backend(tmp_path) as app:
        async with app.state.database.system() as session:
            await session.delete(await session.get_one(Tenant, "ten_other"))
            await session.commit()
        assert await app.state.limits.of("ten_other") == app.state.limits.defaults
