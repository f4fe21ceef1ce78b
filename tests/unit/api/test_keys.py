"""API keys: made and shown once, let in with what they may, renewed side by side, expired and revoked."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from api.access.keys import KeyDoorman, digest_of, make
from api.access.scopes import Scope
from api.db.tables import ApiKey, AuditEntry
from api.db.types import now
from serve.errors import ConfigError
from serve.settings import settings
from tests.unit.api.backend import FakeDoorman, backend, client, warm

pytestmark = pytest.mark.unit

NEW: dict[str, Any] = {"name": "reports", "scopes": ["calls:read"]}


@asynccontextmanager
async def keyed(folder: Path, **config: Any) -> AsyncGenerator[FastAPI]:
    """Yield an application that lets in by keys, and whom the test names."""
    async with backend(folder, **config) as app:
        app.state.doormen = [app.state.keys, FakeDoorman()]
        yield app


def bearer(app: FastAPI, key: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


async def stored(app: FastAPI, id: str) -> ApiKey:
    async with app.state.database.system() as session:
        row = await session.get(ApiKey, id)
        assert row is not None
        return row


async def change(app: FastAPI, id: str, **values: Any) -> None:
    async with app.state.database.system() as session:
        await session.execute(update(ApiKey).where(ApiKey.id == id).values(**values))
        await session.commit()


async def test_a_key_is_shown_once_and_lets_in_with_its_scopes_only(tmp_path: Path) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        answer = await owner.post("/api/v1/keys", json=NEW)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert made["key"].startswith(made["prefix"] + "_")
        assert answer.headers["location"] == f"/api/v1/keys/{made['id']}"
        row = await stored(app, made["id"])
        assert row.digest == digest_of(made["key"])
        secret = made["key"].rpartition(made["prefix"] + "_")[2]
        assert len(secret) == 43
        for path in ("/api/v1/keys", f"/api/v1/keys/{made['id']}", "/api/v1/audit"):
            shown = await owner.get(path)
            assert shown.status_code == 200
            assert secret not in shown.text
            assert row.digest not in shown.text
        async with bearer(app, made["key"]) as program:
            me = (await program.get("/api/v1/me")).json()
            assert (me["id"], me["kind"], me["scopes"]) == (made["id"], "key", ["calls:read"])
            assert (await program.get("/api/v1/keys")).status_code == 403
            assert (await program.post("/api/v1/keys", json=NEW)).status_code == 403


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"expires_at": now() - datetime.timedelta(seconds=1)}, "expired"),
        ({"revoked_at": now() - datetime.timedelta(seconds=1)}, "revoked"),
    ],
)
async def test_who_shows_an_old_key_is_told_why(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        made = (await owner.post("/api/v1/keys", json=NEW)).json()
        await change(app, made["id"], **values)
        async with bearer(app, made["key"]) as program:
            answer = await program.get("/api/v1/me")
        assert answer.status_code == 401
        assert said in answer.json()["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_must_be_right_to_the_last_character(tmp_path: Path) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        key: str = (await owner.post("/api/v1/keys", json=NEW)).json()["key"]
        other = key[:-1] + ("A" if key[-1] != "A" else "B")
        for wrong in (other, key[:-1], key + "A", make().key, "parley_", "parley_\x7f"):
            async with bearer(app, wrong) as program:
                answer = await program.get("/api/v1/me")
            assert (answer.status_code, answer.json()["detail"]) == (401, "This API key is not valid")
        async with bearer(app, "something-else") as program:
            assert (await program.get("/api/v1/me")).status_code == 401


async def test_a_revoked_key_is_let_in_no_more_at_once_here_and_soon_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("api.access.keys.time.monotonic", lambda: clock[0])
    async with keyed(tmp_path) as app, client(app) as owner:
        made = (await owner.post("/api/v1/keys", json=NEW)).json()
        elsewhere = KeyDoorman()
        assert await elsewhere.find(made["key"], app.state.database)
        async with bearer(app, made["key"]) as program:
            assert (await program.get("/api/v1/me")).status_code == 200
            assert (await owner.delete(f"/api/v1/keys/{made['id']}")).status_code == 204
            assert (await program.get("/api/v1/me")).status_code == 401
        assert (await owner.delete(f"/api/v1/keys/{made['id']}")).status_code == 204
        clock[0] += 5.01
        with pytest.raises(Exception, match="revoked"):
            await elsewhere.find(made["key"], app.state.database)


async def test_nobody_makes_a_key_that_may_more_than_they(tmp_path: Path) -> None:
    may: list[Scope] = ["keys:read", "keys:write", "calls:read"]
    async with keyed(tmp_path) as app, client(app) as owner, client(app, scopes=may) as lesser:
        assert (await lesser.post("/api/v1/keys", json=NEW)).status_code == 201
        beyond = await lesser.post("/api/v1/keys", json={"name": "more", "scopes": ["calls:read", "audit:read"]})
        assert beyond.status_code == 403
        assert "audit:read" in beyond.json()["detail"]
        strong = (await owner.post("/api/v1/keys", json={"name": "strong", "scopes": ["audit:read"]})).json()
        assert (await lesser.post(f"/api/v1/keys/{strong['id']}/rotate")).status_code == 403


async def test_two_keys_of_a_name_live_side_by_side_and_no_third(tmp_path: Path) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        first = (await owner.post("/api/v1/keys", json=NEW)).json()
        assert (await owner.post("/api/v1/keys", json=NEW)).status_code == 409
        answer = await owner.post(f"/api/v1/keys/{first['id']}/rotate")
        assert answer.status_code == 201
        second = answer.json()
        assert (second["name"], second["scopes"]) == (first["name"], first["scopes"])
        for made in (first, second):
            async with bearer(app, made["key"]) as program:
                assert (await program.get("/api/v1/me")).status_code == 200
        assert (await owner.post(f"/api/v1/keys/{second['id']}/rotate")).status_code == 409
        await owner.delete(f"/api/v1/keys/{first['id']}")
        assert (await owner.post(f"/api/v1/keys/{first['id']}/rotate")).status_code == 409
        assert (await owner.post(f"/api/v1/keys/{second['id']}/rotate")).status_code == 201
        alive = (await owner.get("/api/v1/keys", params={"alive": True})).json()["items"]
        assert len(alive) == 2
        assert [key["id"] for key in (await owner.get("/api/v1/keys?alive=false")).json()["items"]] == [first["id"]]


async def test_of_keys_made_at_once_no_more_are_alive(tmp_path: Path) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        await warm(app)
        answers = await asyncio.gather(*(owner.post("/api/v1/keys", json=NEW) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
        id = next(answer.json()["id"] for answer in answers if answer.is_success)
        answers = await asyncio.gather(*(owner.post(f"/api/v1/keys/{id}/rotate") for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


async def test_what_is_done_to_keys_is_in_the_audit_log(tmp_path: Path) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        first = (await owner.post("/api/v1/keys", json=NEW)).json()
        second = (await owner.post(f"/api/v1/keys/{first['id']}/rotate")).json()
        await owner.delete(f"/api/v1/keys/{first['id']}")
        async with app.state.database.system() as session:
            rows = (await session.scalars(select(AuditEntry).order_by(AuditEntry.id))).all()
        assert [(row.action, row.target, row.actor) for row in rows] == [
            ("key.create", first["id"], "per_ten_default"),
            ("key.rotate", second["id"], "per_ten_default"),
            ("key.revoke", first["id"], "per_ten_default"),
        ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": " ", "scopes": ["calls:read"]}, "name"),
        ({"name": "a\nb", "scopes": ["calls:read"]}, "name"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": ["calls:eat"]}, "scopes.0"),
        ({"name": "a", "scopes": ["calls:read"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "a", "scopes": ["calls:read"], "expires_at": "2090-01-01T00:00:00"}, "expires_at"),
        ({"name": "a", "scopes": ["calls:read"], "tenant_id": "ten_other"}, "tenant_id"),
    ],
)
async def test_a_wrong_field_is_named(tmp_path: Path, body: dict[str, Any], field: str) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        answer = await owner.post("/api/v1/keys", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_use_is_noted_beside_requests_and_once_in_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keyed(tmp_path) as app, client(app) as owner:
        made = (await owner.post("/api/v1/keys", json=NEW)).json()
        doorman: KeyDoorman = app.state.keys

        async def used_at(moment: datetime.datetime) -> datetime.datetime | None:
            monkeypatch.setattr("api.access.keys.now", lambda: moment)
            async with bearer(app, made["key"]) as program:
                assert (await program.get("/api/v1/me")).status_code == 200
            before = (await stored(app, made["id"])).used_at
            await doorman.note_uses(app.state.database)
            assert before == seen[-1], "a request has written it"
            return (await stored(app, made["id"])).used_at

        seen: list[datetime.datetime | None] = [None]
        start = now()
        for seconds, expected in ((0, 0), (30, 0), (59, 0), (61, 61)):
            seen.append(await used_at(start + datetime.timedelta(seconds=seconds)))
            assert seen[-1] == start + datetime.timedelta(seconds=expected)


async def test_keys_of_the_environment_are_the_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_API_KEYS", "the-first-key-of-all, another-long-enough")
    settings.cache_clear()
    async with keyed(tmp_path, local=False) as app, bearer(app, "another-long-enough") as program:
        me = (await program.get("/api/v1/me")).json()
        assert (me["id"], me["tenant"]["id"]) == ("key_environment", "ten_default")
        assert (await program.post("/api/v1/keys", json=NEW)).status_code == 201


def test_a_short_key_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_API_KEYS", "the-first-key-of-all,hunter2")
    settings.cache_clear()
    with pytest.raises(ConfigError, match=r"PARLEY_API_KEYS.*16 characters") as caught:
        KeyDoorman()
    assert "hunter2" not in str(caught.value)


async def test_openais_api_is_open_to_keys_that_may_use_models(tmp_path: Path) -> None:
    async with keyed(tmp_path, local=False) as app, client(app) as owner:
        user = (await owner.post("/api/v1/keys", json={"name": "user", "scopes": ["models:use"]})).json()
        reader = (await owner.post("/api/v1/keys", json=NEW)).json()
        async with bearer(app, user["key"]) as program:
            answer = await program.get("/v1/models")
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"requests";q=100;w=1'
        async with bearer(app, reader["key"]) as program:
            error = (await program.get("/v1/models")).json()["error"]
            assert error["code"] == "insufficient_permissions"
            assert "models:use" in error["message"]
        await owner.delete(f"/api/v1/keys/{user['id']}")
        async with bearer(app, user["key"]) as program:
            answer = await program.get("/v1/models")
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert "revoked" in answer.json()["error"]["message"]


async def test_on_this_machine_a_wrong_key_of_ours_is_told_and_others_do_not_matter(tmp_path: Path) -> None:
    async with keyed(tmp_path) as app:
        for key, status in (("none", 200), (make().key, 401)):
            async with bearer(app, key) as program:
                assert (await program.get("/v1/models")).status_code == status
