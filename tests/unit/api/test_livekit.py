"""LiveKit's webhooks: who may send them, how often each counts, and in which order; calls that nobody knows."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from fastapi import FastAPI
from livekit import api
from sqlalchemy import select

from api.calls import ending
from api.calls.ending import Sweeper
from api.db.tables import Call, LiveKitDelivery, WebhookEndpoint, WebhookMessage
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.routes import livekit
from serve.settings import settings
from tests.unit.api.backend import SECRET, backend, client
from tests.unit.api.fake_dispatchers import FakeDispatchers

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("livekit_keys")]

MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[FastAPI]:
    async with backend(tmp_path, FakeDispatchers()) as app:
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(app) as http:
        yield http


async def add(app: FastAPI, **fields: Any) -> None:
    about: dict[str, Any] = {"id": "room", "status": "live", "tenant_id": DEFAULT_TENANT, "live_at": now() - MINUTE}
    async with app.state.database.system() as session:
        session.add(Call(**(about | fields)))
        await session.commit()


async def call(app: FastAPI, id: str = "room") -> Call:
    async with app.state.database.system() as session:
        return (await session.scalars(select(Call).where(Call.id == id))).one()


def event(kind: str, id: str = "EV_1", at: datetime.datetime | None = None, room: str = "room") -> bytes:
    moment = int((at or now()).timestamp())
    return json.dumps({"event": kind, "id": id, "createdAt": str(moment), "room": {"name": room}, "new": 1}).encode()


def signature(body: bytes, secret: str = SECRET, key: str = "key") -> str:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return api.AccessToken(key, secret).with_sha256(digest).to_jwt()


async def send(http: httpx.AsyncClient, body: bytes, sign: str | None = None) -> httpx.Response:
    headers = {"authorization": signature(body) if sign is None else sign, "content-type": "application/webhook+json"}
    return await http.post("/webhooks/livekit", content=body, headers=headers)


async def test_a_room_that_is_closed_ends_its_call_once_and_tells_of_it(app: FastAPI, http: httpx.AsyncClient) -> None:
    await add(app)
    async with app.state.database.system() as session:
        hook = {"tenant_id": DEFAULT_TENANT, "url": "https://example.com", "events": ["call.ended"], "secret": "s"}
        session.add(WebhookEndpoint(**hook))
        await session.commit()
    body = event("room_finished")
    assert (await send(http, body)).json() == {"taken": True}
    ended = await call(app)
    assert (ended.status, ended.reason) == ("ended", ending.ROOM_CLOSED)
    assert ended.ended_at is not None
    assert (await send(http, body)).json() == {"taken": False}
    assert (await send(http, event("room_finished", "EV_2"))).json() == {"taken": True}
    async with app.state.database.system() as session:
        told = (await session.scalars(select(WebhookMessage.event))).all()
    assert told == ["call.ended"]


async def test_events_out_of_order_change_nothing(app: FastAPI, http: httpx.AsyncClient) -> None:
    seen = now() - 2 * MINUTE
    await add(app, seen_at=seen)
    await send(http, event("participant_joined", "EV_1", at=seen - MINUTE))
    assert (await call(app)).seen_at == seen
    await send(http, event("participant_left", "EV_2", at=seen + MINUTE))
    later = (await call(app)).seen_at
    assert later is not None
    assert later > seen
    # The room of before, while the caller has come back.
    await send(http, event("room_finished", "EV_3", at=seen))
    assert (await call(app)).status == "live"
    await send(http, event("room_finished", "EV_4"))
    await send(http, event("participant_joined", "EV_5"))
    assert (await call(app)).status == "ended"


async def test_events_of_unknown_calls_and_kinds_are_taken(app: FastAPI, http: httpx.AsyncClient) -> None:
    for number, (kind, room) in enumerate([("room_finished", "nobody"), ("new_kind", "room"), ("egress_ended", "")]):
        assert (await send(http, event(kind, f"EV_{number}", room=room))).json() == {"taken": True}


@pytest.mark.parametrize(
    "sign",
    [
        "",
        "Bearer ",
        "nonsense",
        signature(b"another body"),
        signature(event("room_finished"), secret="another-secret-that-is-long-enough-too"),
        signature(event("room_finished"), key="another"),
        api.AccessToken("key", SECRET).to_jwt(),
    ],
)
async def test_what_is_not_signed_is_refused(app: FastAPI, http: httpx.AsyncClient, sign: str) -> None:
    await add(app)
    answer = await send(http, event("room_finished"), sign)
    assert answer.status_code == 401, answer.text
    assert (await call(app)).status == "live"


async def test_nothing_fits_where_livekit_has_no_secret(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = event("room_finished")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "")
    settings.cache_clear()
    assert (await send(http, body, signature(body))).status_code == 401


@pytest.mark.parametrize("age", [-3 * MINUTE, 16 * MINUTE, datetime.timedelta(days=20_000)])
async def test_old_events_and_those_of_the_future_are_refused(
    app: FastAPI, http: httpx.AsyncClient, age: datetime.timedelta
) -> None:
    await add(app)
    assert (await send(http, event("room_finished", at=now() - age))).status_code == 401
    assert (await call(app)).status == "live"


@pytest.mark.parametrize("body", [b"\xff", b"{", b"[]", b"", b'{"createdAt": "99999999999999999"}', b'{"id": "x"}'])
async def test_what_is_no_event_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    assert (await send(http, body)).status_code in (400, 401)


async def test_an_event_needs_an_id(http: httpx.AsyncClient) -> None:
    for id in ("", "x" * 65):
        assert (await send(http, event("room_finished", id))).status_code == 400


async def test_ids_are_forgotten_when_their_age_refuses_them(app: FastAPI) -> None:
    async with app.state.database.system() as session:
        session.add(LiveKitDelivery(id="old", at=now() - livekit.REMEMBERED - MINUTE))
        session.add(LiveKitDelivery(id="new", at=now() - livekit.OLDEST))
        await session.commit()
    await livekit.forget(app.state.database)
    async with app.state.database.system() as session:
        assert (await session.scalars(select(LiveKitDelivery.id))).all() == ["new"]


class TestSweeper:
    """Calls of which nobody has heard for a while."""

    @pytest.fixture
    def rooms(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        known: list[str] = []

        async def answer(sweeper: Sweeper, calls: list[str]) -> set[str]:
            return set(known) & set(calls)

        monkeypatch.setattr(Sweeper, "_known", answer)
        return known

    async def sweep(self, app: FastAPI) -> None:
        await Sweeper(app.state.database, app.state.dispatchers, app.state.prices).sweep()

    async def test_ends_those_that_nobody_knows(self, app: FastAPI, rooms: list[str]) -> None:
        old = now() - 2 * ending.UNSEEN
        await add(app, id="lost", seen_at=old)
        await add(app, id="never", status="waiting", live_at=None, created_at=old)
        await add(app, id="known", seen_at=old)
        await add(app, id="fresh", seen_at=now())
        await add(app, id="new", status="waiting", live_at=None)
        await add(app, id="over", status="ended", seen_at=old, reason="caller left")
        rooms += ["known"]
        await self.sweep(app)
        found = {id: (await call(app, id)) for id in ("lost", "never", "known", "fresh", "new", "over")}
        assert {id: each.reason for id, each in found.items() if each.status == "ended"} == {
            "lost": ending.LOST,
            "never": ending.LOST,
            "over": "caller left",
        }
        seen = found["known"].seen_at
        assert seen is not None
        assert seen > old, "it is not looked for again at once"

    async def test_ends_none_while_livekit_cannot_be_asked(self, app: FastAPI) -> None:
        await add(app, seen_at=now() - 2 * ending.UNSEEN)
        with pytest.raises(aiohttp.ClientConnectorError):
            await self.sweep(app)
        assert (await call(app)).status == "live"
