"""Contract: accounts mean the same in SQLite and in PostgreSQL, also where two replicas do the same at once."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import func, select

from api.access.idempotency import forget_answers
from api.access.limits import Limits, room_for_call
from api.access.principal import Principal
from api.app import create_app
from api.config import ApiConfig, TenantLimits
from api.db import Database, session_of
from api.db.tables import ApiKey, Call, IdempotentAnswer, Usage
from api.db.types import new_id, now
from api.problems import Problem
from tests.databases import database, database_url, postgres
from tests.unit.api.backend import FakeDoorman, client, warm

__all__ = ["database", "database_url", "postgres"]

pytestmark = pytest.mark.contract

WHO = Principal("per_1", "ten_default", "person", frozenset())


@pytest_asyncio.fixture
async def replicas(database: Database, database_url: str) -> AsyncGenerator[list[FastAPI]]:
    """Two applications that have only the database in common."""
    second = Database(database_url)
    apps = [create_app(ApiConfig(), "parley", lambda: None, database=each) for each in (database, second)]
    for app in apps:
        app.state.doormen = [app.state.keys, FakeDoorman()]
        await warm(app)
    yield apps
    await second.aclose()


async def everywhere(replicas: list[FastAPI], method: str, path: str, **more: object) -> list[httpx.Response]:
    """Ask both replicas twice at once."""
    async with client(replicas[0]) as here, client(replicas[1]) as there:
        asked = [each.request(method, path, **more) for each in (here, there) * 2]  # type: ignore[arg-type]
        return await asyncio.gather(*asked)


async def test_one_idempotency_key_makes_one_thing(replicas: list[FastAPI], database: Database) -> None:
    new = {"name": "reports", "scopes": ["calls:read"]}
    more = {"json": new, "headers": {"idempotency-key": "one"}}
    answers = await everywhere(replicas, "POST", "/api/v1/keys", **more)
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = {answer.json()["key"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    assert {answer.json()["key"] for answer in await everywhere(replicas, "POST", "/api/v1/keys", **more)} == made
    async with database.system() as session:
        assert await session.scalar(select(func.count()).select_from(ApiKey)) == 1
        row = (await session.scalars(select(IdempotentAnswer))).one()
        row.expires_at = now() - datetime.timedelta(seconds=1)
        await session.commit()
    # It has run out: one of four takes it over, and finds that there is a key of this name.
    assert {answer.status_code for answer in await everywhere(replicas, "POST", "/api/v1/keys", **more)} == {409}
    await forget_answers(database)


async def test_of_keys_made_at_once_one_is_alive(replicas: list[FastAPI]) -> None:
    new = {"name": "reports", "scopes": ["calls:read"]}
    answers = await everywhere(replicas, "POST", "/api/v1/keys", json=new)
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    id = next(answer.json()["id"] for answer in answers if answer.is_success)
    answers = await everywhere(replicas, "POST", f"/api/v1/keys/{id}/rotate")
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


async def test_of_two_changes_one_is_told(replicas: list[FastAPI]) -> None:
    async with client(replicas[0]) as http:
        etag = (await http.get("/api/v1/tenant")).headers["etag"]
    change = {"json": {"name": "Ours"}, "headers": {"if-match": etag}}
    answers = await everywhere(replicas, "PATCH", "/api/v1/tenant", **change)
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]


async def test_the_last_call_has_room_once(replicas: list[FastAPI]) -> None:
    async def begin(app: FastAPI) -> None:
        limits = Limits(TenantLimits(calls=1), app.state.database)
        async with session_of(app.state.database, WHO.tenant) as session:
            await room_for_call(session, WHO, limits)
            session.add(Call(id=new_id("call")))
            await session.commit()

    results = await asyncio.gather(*(begin(app) for app in replicas * 2), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert all(result is None or isinstance(result, Problem) for result in results), results


async def test_minutes_are_summed(database: Database) -> None:
    async with session_of(database, WHO.tenant) as session:
        for amounts in ({"minutes": 2.5}, {"input_tokens": 7}, {"minutes": 4}):
            session.add(Usage(id=new_id("use"), day=now().date(), role="call", model="", amounts=amounts))
        await session.flush()
        await room_for_call(session, WHO, Limits(TenantLimits(minutes=6.6), database))
        with pytest.raises(Problem, match="minutes"):
            await room_for_call(session, WHO, Limits(TenantLimits(minutes=6.5), database))


async def test_keys_are_found_listed_and_their_use_noted(replicas: list[FastAPI], database: Database) -> None:
    async with client(replicas[0]) as http:
        keys = [
            (await http.post("/api/v1/keys", json={"name": name, "scopes": ["keys:read"]})).json() for name in "abc"
        ]
        first = (await http.get("/api/v1/keys", params={"limit": 2, "alive": True})).json()
        rest = (await http.get("/api/v1/keys", params={"limit": 2, "after": first["next"]})).json()
        assert [each["name"] for each in first["items"] + rest["items"]] == ["c", "b", "a"]
        log = (await http.get("/api/v1/audit", params={"action": "key.create", "target": keys[0]["id"]})).json()
        assert len(log["items"]) == 1
    transport = httpx.ASGITransport(app=replicas[1])
    bearer = {"authorization": f"Bearer {keys[0]['key']}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=bearer) as program:
        assert (await program.get("/api/v1/keys")).status_code == 200
        await replicas[1].state.keys.note_uses(database)
        assert (await program.get(f"/api/v1/keys/{keys[0]['id']}")).json()["used_at"] is not None
