"""Webhooks out: made, written with their events, signed, tried again, given up, replayed."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from standardwebhooks import Webhook

from api.db import session_of
from api.db.tables import AuditEntry, Call, WebhookEndpoint, WebhookMessage
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.webhooks import announce, of_call
from api.webhooks.delivery import DELAYS, LEASE, Courier
from tests.unit.api.backend import backend, client
from tests.unit.api.receiver import Receiver, receiving

pytestmark = pytest.mark.unit

ALLOWED = {"allow_private": True}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[FastAPI]:
    async with backend(tmp_path, webhooks=ALLOWED) as made:
        yield made


@pytest.fixture
async def http(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(app) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    async with receiving() as made:
        yield made


async def hook(http: httpx.AsyncClient, url: str, *events: str) -> dict[str, Any]:
    answer = await http.post("/api/v1/webhooks", json={"url": url, "events": list(events) or ["call.ended"]})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def tell(app: FastAPI, event: Any = "call.ended", tenant: str = DEFAULT_TENANT, call: str = "call-1") -> None:
    async with session_of(app.state.database, tenant) as session:
        await announce(session, tenant, event, of_call(Call(id=call, tenant_id=tenant, status="ended")))
        await session.commit()


def courier(app: FastAPI) -> Courier:
    return Courier(app.state.database, app.state.config.webhooks)


async def messages(app: FastAPI) -> list[WebhookMessage]:
    async with app.state.database.system() as session:
        return list((await session.scalars(select(WebhookMessage).order_by(WebhookMessage.id))).all())


async def due(app: FastAPI, **more: Any) -> None:
    async with app.state.database.system() as session:
        await session.execute(update(WebhookMessage).values(next_at=now() - datetime.timedelta(seconds=1), **more))
        await session.commit()


async def test_a_message_is_signed_and_delivered_once(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await hook(http, receiver.url)
    await tell(app)
    await courier(app).deliver()
    await courier(app).deliver()
    (received,) = receiver.received
    told = Webhook(made["secret"]).verify(received.body, received.headers)
    assert told["type"] == "call.ended"
    assert told["data"]["id"] == "call-1"
    assert received.path == "/hook"
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    (row,) = await messages(app)
    assert (row.status, row.answer, row.attempts, row.id) == ("delivered", 204, 1, received.headers["webhook-id"])
    shown = (await http.get("/api/v1/webhook_messages", params={"status": "delivered"})).json()["items"]
    assert [each["id"] for each in shown] == [row.id]


async def test_only_what_is_wanted_is_written(app: FastAPI, http: httpx.AsyncClient) -> None:
    wants = await hook(http, "http://127.0.0.1:9/", "call.ended", "file.ready")
    await hook(http, "http://127.0.0.1:9/", "call.started")
    async with client(app, "ten_other") as others:
        await hook(others, "http://127.0.0.1:9/")
    await tell(app)
    assert [row.endpoint_id for row in await messages(app)] == [wants["id"]]


async def test_what_is_not_committed_is_not_told(app: FastAPI, http: httpx.AsyncClient) -> None:
    await hook(http, "http://127.0.0.1:9/")
    async with session_of(app.state.database, DEFAULT_TENANT) as session:
        await announce(session, DEFAULT_TENANT, "call.ended", {})
        await session.rollback()
    assert await messages(app) == []


async def test_a_failure_is_tried_again_later_and_at_last_given_up(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    await hook(http, receiver.url)
    receiver.answer = lambda received: (500, {})
    await tell(app)
    for attempt in range(1, len(DELAYS) + 2):
        before = now()
        await courier(app).deliver()
        (row,) = await messages(app)
        assert (row.attempts, row.answer, len(receiver.received)) == (attempt, 500, attempt)
        assert row.leased_until is None
        if attempt <= len(DELAYS):
            delay = (row.next_at - before).total_seconds()
            assert 0.79 * DELAYS[attempt - 1] <= delay <= 1.2 * DELAYS[attempt - 1] + 5
            assert row.status == "pending"
            await due(app)
    assert [row.status for row in await messages(app)] == ["dead"]
    assert sum(DELAYS) <= 24 * 3600
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    # Dead letters are listed, and replayed as one or all.
    (dead,) = (await http.get("/api/v1/webhook_messages", params={"status": "dead"})).json()["items"]
    receiver.answer = lambda received: (200, {})
    answer = await http.post(f"/api/v1/webhook_messages/{dead['id']}/replay")
    assert answer.json()["status"] == "pending"
    await courier(app).deliver()
    assert (await messages(app))[0].status == "delivered"


async def test_all_dead_ones_are_replayed(app: FastAPI, http: httpx.AsyncClient, receiver: Receiver) -> None:
    made = await hook(http, receiver.url)
    for number in range(3):
        await tell(app, call=f"call-{number}")
    await due(app, status="dead")
    await courier(app).deliver()
    assert receiver.received == []
    answer = await http.post(f"/api/v1/webhooks/{made['id']}/replay")
    assert answer.json() == {"messages": 3}
    await courier(app).deliver()
    assert [row.status for row in await messages(app)] == ["delivered"] * 3


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"retry-after": "7200"}, 7200),
        (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 12 * 3600),
        (503, {"retry-after": "soon"}, 4),
        (503, {"retry-after": "1"}, 4),
    ],
)
async def test_a_receiver_may_ask_to_wait(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver, status: int, headers: dict[str, str], seconds: int
) -> None:
    await hook(http, receiver.url)
    receiver.answer = lambda received: (status, headers)
    await tell(app)
    before = now()
    await courier(app).deliver()
    (row,) = await messages(app)
    assert seconds <= (row.next_at - before).total_seconds() <= seconds + 10


async def test_gone_disables_the_endpoint(app: FastAPI, http: httpx.AsyncClient, receiver: Receiver) -> None:
    made = await hook(http, receiver.url)
    receiver.answer = lambda received: (410, {})
    await tell(app)
    await courier(app).deliver()
    assert (await messages(app))[0].status == "dead"
    assert (await http.get(f"/api/v1/webhooks/{made['id']}")).json()["enabled"] is False
    await tell(app)
    assert len(await messages(app)) == 1
    assert (await http.post(f"/api/v1/webhooks/{made['id']}/test")).status_code == 409


async def test_an_endpoint_that_takes_nothing_for_days_is_disabled(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await hook(http, receiver.url)
    receiver.answer = lambda received: (500, {})

    async def die() -> bool:
        await tell(app)
        async with app.state.database.system() as session:
            await session.execute(
                update(WebhookMessage).where(WebhookMessage.status == "pending").values(attempts=len(DELAYS))
            )
            await session.commit()
        await courier(app).deliver()
        return (await http.get(f"/api/v1/webhooks/{made['id']}")).json()["enabled"]

    assert await die(), "once is no reason"
    async with app.state.database.system() as session:
        await session.execute(update(WebhookMessage).values(next_at=now() - datetime.timedelta(days=4)))
        await session.commit()
    assert not await die()
    async with app.state.database.system() as session:
        acts = (await session.execute(select(AuditEntry.actor, AuditEntry.action, AuditEntry.target))).all()
    assert ("system", "webhook.disable", made["id"]) in [tuple(act) for act in acts]


async def test_redirects_are_not_followed(app: FastAPI, http: httpx.AsyncClient, receiver: Receiver) -> None:
    await hook(http, receiver.url)
    receiver.answer = lambda received: (307, {"location": "/elsewhere"})
    await tell(app)
    await courier(app).deliver()
    assert [received.path for received in receiver.received] == ["/hook"]
    assert (await messages(app))[0].status == "pending"


async def test_two_replicas_send_each_message_once(app: FastAPI, http: httpx.AsyncClient, receiver: Receiver) -> None:
    await hook(http, receiver.url)
    for number in range(40):
        await tell(app, call=f"call-{number}")
    await asyncio.gather(*(courier(app).deliver() for _ in range(3)))
    sent = [received.headers["webhook-id"] for received in receiver.received]
    assert len(sent) == len(set(sent)) == 40
    assert {row.attempts for row in await messages(app)} == {1}


async def test_a_replica_that_dies_in_the_middle_is_taken_over(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    await hook(http, receiver.url)
    await tell(app)
    receiver.hold.clear()
    dying = asyncio.create_task(courier(app).deliver())
    await receiver.until(1)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    receiver.hold.set()
    await courier(app).deliver()
    assert len(receiver.received) == 1, "its lease holds"
    (row,) = await messages(app)
    assert row.leased_until is not None
    assert row.leased_until <= now() + LEASE
    await due(app, leased_until=now() - datetime.timedelta(seconds=1))
    await courier(app).deliver()
    (row,) = await messages(app)
    assert (row.status, row.attempts) == ("delivered", 2)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1


async def test_a_slow_endpoint_does_not_hold_up_another(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.hold.clear()
    await hook(http, receiver.url)
    for number in range(40):
        await tell(app, call=f"call-{number}")
    async with receiving() as other:
        await hook(http, other.url)
        running = asyncio.create_task(courier(app).deliver())
        await receiver.until(1)
        await tell(app)
        await other.until(1)
        assert len(receiver.received) <= 4
        receiver.hold.set()
        await asyncio.wait_for(running, 20)
    assert {row.status for row in await messages(app)} == {"delivered"}


async def test_nothing_is_sent_to_private_addresses(tmp_path: Path, receiver: Receiver) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        answer = await http.post("/api/v1/webhooks", json={"url": receiver.url, "events": ["call.ended"]})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "url"
        # As if it had been made while that was allowed, or as a name that leads inside since.
        async with session_of(app.state.database, DEFAULT_TENANT) as session:
            for url in (receiver.url, f"https://localhost:{receiver.port}/"):
                session.add(WebhookEndpoint(url=url, events=["call.ended"], secret="whsec_c2VjcmV0"))
            await session.commit()
        await tell(app)
        await courier(app).deliver()
        assert receiver.received == []
        rows = await messages(app)
        assert [row.status for row in rows] == ["pending", "pending"]
        assert all("the URL" in row.problem for row in rows)


async def test_after_a_rotation_both_secrets_sign_for_a_day(
    app: FastAPI, http: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await hook(http, receiver.url)
    rotated = (await http.post(f"/api/v1/webhooks/{made['id']}/rotate")).json()
    assert rotated["secret"] != made["secret"]
    await tell(app)
    await courier(app).deliver()
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(receiver.received[0].body, receiver.received[0].headers)
    async with app.state.database.system() as session:
        await session.execute(update(WebhookEndpoint).values(old_until=now()))
        await session.commit()
    await tell(app)
    await courier(app).deliver()
    assert len(receiver.received[1].headers["webhook-signature"].split(" ")) == 1
    Webhook(rotated["secret"]).verify(receiver.received[1].body, receiver.received[1].headers)


async def test_endpoints_are_made_shown_changed_and_deleted(app: FastAPI, http: httpx.AsyncClient) -> None:
    made = await hook(http, "http://127.0.0.1:9/in", "call.started", "call.ended")
    path = f"/api/v1/webhooks/{made['id']}"
    shown = await http.get(path)
    assert "secret" not in shown.json()
    assert made["secret"] not in (await http.get("/api/v1/webhooks")).text
    assert (await http.patch(path, json={"enabled": False})).status_code == 428
    etag = shown.headers["etag"]
    changed = await http.patch(path, json={"enabled": False, "description": "x"}, headers={"if-match": etag})
    assert (changed.json()["enabled"], changed.json()["events"]) == (False, ["call.started", "call.ended"])
    assert (await http.patch(path, json={"enabled": True}, headers={"if-match": etag})).status_code == 412
    bad = await http.patch(path, json={"url": "ftp://x"}, headers={"if-match": changed.headers["etag"]})
    assert bad.json()["errors"][0]["field"] == "url"
    async with client(app, "ten_other") as others:
        assert (await others.get(path)).status_code == 404
        assert (await others.delete(path)).status_code == 404
        assert (await others.post(f"{path}/rotate")).status_code == 404
    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).status_code == 404
    async with app.state.database.system() as session:
        acts = (await session.scalars(select(AuditEntry.action).order_by(AuditEntry.id))).all()
        details = (await session.scalars(select(AuditEntry.detail))).all()
    assert acts == ["webhook.create", "webhook.change", "webhook.delete"]
    assert made["secret"] not in str(details)
    assert "/in" not in str(details)


async def test_rights(app: FastAPI) -> None:
    async with client(app, scopes=["webhooks:read"]) as http:
        assert (await http.get("/api/v1/webhooks")).status_code == 200
        answer = await http.post("/api/v1/webhooks", json={"url": "http://127.0.0.1:9", "events": ["call.ended"]})
        assert answer.status_code == 403
    async with client(app, scopes=["calls:read"]) as http:
        assert (await http.get("/api/v1/webhook_messages")).status_code == 403


async def test_a_test_message(app: FastAPI, http: httpx.AsyncClient, receiver: Receiver) -> None:
    made = await hook(http, receiver.url)
    sent = (await http.post(f"/api/v1/webhooks/{made['id']}/test")).json()
    assert (sent["event"], sent["status"]) == ("webhook.test", "pending")
    await courier(app).deliver()
    assert (await http.get(f"/api/v1/webhook_messages/{sent['id']}")).json()["status"] == "delivered"


async def test_lists_go_on_where_a_page_ends(app: FastAPI, http: httpx.AsyncClient) -> None:
    made = await hook(http, "http://127.0.0.1:9/")
    for number in range(5):
        await tell(app, call=f"call-{number}")
    seen: list[str] = []
    after: str | None = None
    for _ in range(3):
        query = {"limit": 2, "webhook_id": made["id"], **({"after": after} if after else {})}
        page = (await http.get("/api/v1/webhook_messages", params=query)).json()
        seen += [each["id"] for each in page["items"]]
        after = page["next"]
    assert after is None
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 5


async def test_old_messages_are_deleted(app: FastAPI, http: httpx.AsyncClient) -> None:
    await hook(http, "http://127.0.0.1:9/")
    for _ in range(4):
        await tell(app)
    old = [row.id for row in await messages(app)]
    for number, (status, days) in enumerate((("delivered", 8), ("delivered", 1), ("dead", 8), ("dead", 31))):
        moment = int((now() - datetime.timedelta(days=days)).timestamp() * 1000)
        async with app.state.database.system() as session:
            await session.execute(
                update(WebhookMessage)
                .where(WebhookMessage.id == old[number])
                .values(id=f"msg_{moment:012x}{number:020x}", status=status)
            )
            await session.commit()
    await courier(app).forget()
    left = await messages(app)
    assert sorted(row.status for row in left) == ["dead", "delivered"]


async def test_a_tenant_has_so_many_endpoints_and_no_more(app: FastAPI, http: httpx.AsyncClient) -> None:
    for _ in range(20):
        await hook(http, "http://127.0.0.1:9/")
    answer = await http.post("/api/v1/webhooks", json={"url": "http://127.0.0.1:9/", "events": ["call.ended"]})
    assert answer.status_code == 409
    async with app.state.database.system() as session:
        assert await session.scalar(select(func.count()).select_from(WebhookEndpoint)) == 20
