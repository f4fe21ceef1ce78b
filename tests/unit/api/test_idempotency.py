"""Idempotency-Key: what is sent again makes nothing twice."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from api.access.idempotency import CLAIMED, forget_answers
from api.access.principal import Principal, needs
from api.app import create_app
from api.config import ApiConfig
from api.db import Database, sqlite_url
from api.db.tables import ApiKey, IdempotentAnswer
from api.db.types import content_keys, now
from serve.settings import settings
from tests.unit.api.backend import FakeDoorman, backend, client

pytestmark = pytest.mark.unit

NEW: dict[str, Any] = {"name": "reports", "scopes": ["calls:read"]}
KEY = {"idempotency-key": "one"}


class Handler:
    """A route of the tests' own, which counts, and waits where a test says so.

    Attributes:
        count: Times that it has run.
        status: Answered.
        go: It waits for this.
        inside: Set when it runs.
    """

    def __init__(self, app: FastAPI) -> None:
        self.count, self.status = 0, 201
        self.error: Exception | None = None
        self.inside, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()
        app.router.routes.insert(0, _route(app, self))

    async def __call__(self, request: Request) -> Response:
        self.count += 1
        await request.body()
        self.inside.set()
        await self.go.wait()
        if self.error:
            raise self.error
        return Response(f'{{"made": {self.count}}}', self.status, {"location": f"/{self.count}"})


def _route(app: FastAPI, handler: Handler) -> Any:
    async def thing(request: Request, who: Annotated[Principal, needs()]) -> Response:
        return await handler(request)

    app.post("/api/v1/things")(thing)
    return app.router.routes.pop()


@asynccontextmanager
async def made(folder: Path) -> AsyncGenerator[tuple[FastAPI, Handler, httpx.AsyncClient]]:
    async with backend(folder) as app, client(app) as http:
        yield app, Handler(app), http


async def rows(app: FastAPI) -> int:
    async with app.state.database.system() as session:
        return await session.scalar(select(func.count()).select_from(IdempotentAnswer)) or 0


async def test_a_repeated_post_is_answered_as_the_first(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        first = await http.post("/api/v1/keys", json=NEW, headers=KEY)
        again = await http.post("/api/v1/keys", json=NEW, headers=KEY)
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json(), "the secret of a key among it"
        assert again.headers["location"] == first.headers["location"]
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        async with app.state.database.system() as session:
            assert await session.scalar(select(func.count()).select_from(ApiKey)) == 1
        other = await http.post("/api/v1/keys", json={**NEW, "name": "other"}, headers=KEY)
        assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_a_key_belongs_to_who_sends_it_and_to_the_path(tmp_path: Path) -> None:
    async with made(tmp_path) as (app, handler, http), client(app, "ten_other") as other:
        await http.post("/api/v1/things", headers=KEY)
        await other.post("/api/v1/things", headers=KEY)
        assert handler.count == 2
        assert (await http.post("/api/v1/keys", json=NEW, headers=KEY)).json()["name"] == "reports"
        await http.post("/api/v1/things", headers={"idempotency-key": '"one"'})
        assert handler.count == 2, "quotes are how the standard writes it"
        for bad in ("", "ä".encode().decode("latin-1"), "a" * 256, "a b"):
            answer = await http.post("/api/v1/things", headers={"idempotency-key": bad.encode("latin-1")})  # type: ignore[dict-item]
            assert answer.status_code == 422, bad


async def test_two_at_once_make_one(tmp_path: Path) -> None:
    """Also on two replicas: each application has only the database in common with the other."""
    async with made(tmp_path) as (_, handler, http):
        database = Database(sqlite_url(tmp_path / "parley.db"))
        second = create_app(ApiConfig(), "parley", lambda: None, database=database)
        second.state.doormen = [FakeDoorman()]
        there = Handler(second)
        handler.go.clear()
        try:
            async with client(second) as elsewhere, asyncio.timeout(20):
                first = asyncio.create_task(http.post("/api/v1/things", headers=KEY))
                await handler.inside.wait()
                meanwhile = await elsewhere.post("/api/v1/things", headers=KEY)
                assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (409, "1")
                handler.go.set()
                assert (await first).json() == {"made": 1}
                assert (await elsewhere.post("/api/v1/things", headers=KEY)).json() == {"made": 1}
                assert (handler.count, there.count) == (1, 0)
                crowd = {"idempotency-key": "crowd"}
                answers = await asyncio.gather(
                    *(each.post("/api/v1/things", headers=crowd) for each in (http, elsewhere) * 4)
                )
                assert handler.count + there.count == 2
                assert {answer.status_code for answer in answers} <= {201, 409}
        finally:
            await database.aclose()


@pytest.mark.parametrize("status", [400, 409, 422, 500, 503])
async def test_what_made_nothing_is_not_kept(tmp_path: Path, status: int) -> None:
    async with made(tmp_path) as (app, handler, http):
        handler.status = status
        assert (await http.post("/api/v1/things", headers=KEY)).status_code == status
        assert await rows(app) == 0
        handler.status = 201
        assert (await http.post("/api/v1/things", headers=KEY)).json() == {"made": 2}
        handler.error = RuntimeError("unforeseen")
        assert (await http.post("/api/v1/things", headers={"idempotency-key": "two"})).status_code == 500
        assert await rows(app) == 1


async def test_a_claim_of_a_replica_that_died_runs_out(tmp_path: Path) -> None:
    async with made(tmp_path) as (app, handler, http):
        handler.go.clear()
        handler.inside.clear()
        first = asyncio.create_task(http.post("/api/v1/things", headers=KEY))
        await asyncio.wait_for(handler.inside.wait(), 10)
        assert (await http.post("/api/v1/things", headers=KEY)).status_code == 409
        async with app.state.database.system() as session:
            row = (await session.scalars(select(IdempotentAnswer))).one()
            assert row.expires_at - now() <= CLAIMED
            await session.execute(update(IdempotentAnswer).values(expires_at=now() - datetime.timedelta(seconds=1)))
            await session.commit()
        handler.go.set()
        again = await http.post("/api/v1/things", headers=KEY)
        assert again.json() == {"made": 2}
        # Had the first not died: its answer is its own, and not kept over the second's.
        await first
        assert (await http.post("/api/v1/things", headers=KEY)).json() == {"made": 2}


async def test_who_hangs_up_finds_what_was_made(tmp_path: Path) -> None:
    async with made(tmp_path) as (_, handler, http):
        handler.go.clear()
        first = asyncio.create_task(http.post("/api/v1/things", headers=KEY))
        await asyncio.wait_for(handler.inside.wait(), 10)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        handler.go.set()
        async with asyncio.timeout(10):
            while (again := await http.post("/api/v1/things", headers=KEY)).status_code == 409:  # noqa: ASYNC110  # no event tells of the database
                await asyncio.sleep(0.01)
        assert (again.json(), handler.count) == ({"made": 1}, 1)


async def test_a_form_is_the_same_whatever_its_boundary(tmp_path: Path) -> None:
    async with made(tmp_path) as (_, handler, http):
        data = bytes(range(256)) * 5000
        for boundary in ("first-boundary", "b"):
            kind = {"content-type": f"multipart/form-data; boundary={boundary}", **KEY}
            answer = await http.post("/api/v1/things", files={"file": ("a.bin", data[:60000])}, headers=kind)
            assert answer.status_code == (201 if boundary == "first-boundary" else 422), "b is in the data, too"
        kind = {"content-type": "multipart/form-data; boundary=another-boundary", **KEY}
        assert (await http.post("/api/v1/things", files={"file": ("a.bin", data[:60000])}, headers=kind)).is_success
        assert handler.count == 1


async def test_answers_are_encrypted_where_content_is_and_forgotten_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_CONTENT_KEYS", "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=")
    settings.cache_clear()
    content_keys.cache_clear()
    try:
        async with backend(tmp_path) as app, client(app) as http:
            key = (await http.post("/api/v1/keys", json=NEW, headers=KEY)).json()["key"]
            files = await asyncio.to_thread(lambda: [each.read_bytes() for each in tmp_path.glob("parley.db*")])
            assert key.encode() not in b"".join(files)
            assert (await http.post("/api/v1/keys", json=NEW, headers=KEY)).json()["key"] == key
            await forget_answers(app.state.database)
            assert await rows(app) == 1
            monkeypatch.setattr("api.access.idempotency.now", lambda: now() + datetime.timedelta(hours=24, seconds=1))
            await forget_answers(app.state.database)
            assert await rows(app) == 0
    finally:
        content_keys.cache_clear()


async def test_without_its_database_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with made(tmp_path) as (_, handler, http):

        def away(*_: Any) -> Any:
            raise OperationalError("", {}, Exception())

        monkeypatch.setattr("api.access.idempotency.session_of", away)
        answer = await http.post("/api/v1/things", headers=KEY)
        assert (answer.status_code, answer.headers["retry-after"], handler.count) == (503, "2", 0)


async def test_who_is_not_let_in_is_told_as_without_a_key(tmp_path: Path) -> None:
    async with made(tmp_path) as (app, handler, _):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=KEY) as nobody:
            assert (await nobody.post("/api/v1/things")).status_code == 401
        assert (handler.count, await rows(app)) == (0, 0)
