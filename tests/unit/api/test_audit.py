"""Every act that changes what is configured is in the audit log, with who did it; no entry has a secret or content.

The walk goes over the application's routes as they are: a new one is done here as its users do it, or has its reason
below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from agent import documents
from api.access.scopes import SCOPES
from api.db.tables import AuditEntry, Person
from serve.settings import settings
from tests.unit.api.backend import client
from tests.unit.api.fake_dispatchers import FakeDispatchers
from tests.unit.api.test_other_tenants import IDS, MARK, OTHER, address, inhabited, routes
from tests.unit.api.test_sign_in import go, signing_in

pytestmark = pytest.mark.unit

WORDS = "marked-words-that-nobody-may-log"

NOT_LOGGED = {
    "POST /api/v1/calls": "it begins a call, which is its own record",
    "POST /api/v1/token": "the same, from the page",
    "POST /api/v1/calls/{id}/files": "it is part of the call; the file's row says who sent it",
    "POST /api/v1/files/{id}/link": "it changes nothing: whoever makes a link may read the file",
    "DELETE /api/v1/sign-in": "it ends one's own session",
    "POST /webhooks/livekit": "LiveKit tells of rooms; nobody acts",
    "POST /v1/chat/completions": "it uses a model",
    "POST /v1/audio/speech": "it uses a model",
    "POST /v1/audio/transcriptions": "it uses a model",
    **{f"{method} /v1/{{path:path}}": "there is nothing there" for method in ("DELETE", "PATCH", "POST", "PUT")},
}
"""Routes that leave no entry, and why."""

DEFINITION = {"instructions": WORDS, "greeting": WORDS}
BODIES: dict[str, Any] = {
    "POST /api/v1/assistants": {"name": "new", "definition": DEFINITION},
    "PUT /api/v1/assistants/{id}": {"name": "changed", "definition": DEFINITION},
    "POST /api/v1/keys": {"name": "new", "scopes": ["calls:read"]},
    "PATCH /api/v1/people/{person_id}": {"role": "viewer"},
    "PATCH /api/v1/tenant": {"keep_days": 7},
    "POST /api/v1/webhooks": {"url": f"https://example.com/{WORDS}?token={WORDS}", "events": ["call.ended"]},
    "PATCH /api/v1/webhooks/{webhook_id}": {"url": f"https://example.com/{WORDS}", "events": ["call.ended"]},
}
FORMS = {"POST /api/v1/assistants/{id}/files"}
ACTIONS = {
    "POST /api/v1/assistants": "assistant.create",
    "PUT /api/v1/assistants/{id}": "assistant.change",
    "DELETE /api/v1/assistants/{id}": "assistant.delete",
    "POST /api/v1/assistants/{id}/versions/{number}/restore": "assistant.restore",
    "POST /api/v1/assistants/{id}/files": "file.create",
    "DELETE /api/v1/calls/{id}": "call.delete",
    "POST /api/v1/calls/{id}/end": "call.end",
    "DELETE /api/v1/files/{id}": "file.delete",
    "POST /api/v1/keys": "key.create",
    "POST /api/v1/keys/{key_id}/rotate": "key.rotate",
    "DELETE /api/v1/keys/{key_id}": "key.revoke",
    "PATCH /api/v1/people/{person_id}": "person.change",
    "PATCH /api/v1/tenant": "tenant.change",
    "POST /api/v1/webhooks": "webhook.create",
    "PATCH /api/v1/webhooks/{webhook_id}": "webhook.change",
    "DELETE /api/v1/webhooks/{webhook_id}": "webhook.delete",
    "POST /api/v1/webhooks/{webhook_id}/rotate": "webhook.rotate",
    "POST /api/v1/webhooks/{webhook_id}/test": "webhook.test",
    "POST /api/v1/webhooks/{webhook_id}/replay": "webhook.replay",
    "POST /api/v1/webhook_messages/{message_id}/replay": "webhook_message.replay",
}


class Reading(FakeDispatchers):
    """Reads files, too."""

    async def answer(self, method: str, *args: Any) -> Any:
        return await documents.report(*args) if method == "read" else await super().answer(method, *args)


async def entries(app: FastAPI) -> list[AuditEntry]:
    async with app.state.database.system() as session:
        asked = select(AuditEntry).where(AuditEntry.tenant_id == OTHER, AuditEntry.target != MARK)
        return list(await session.scalars(asked.order_by(AuditEntry.id)))


async def test_every_act_leaves_an_entry_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No LiveKit of anybody's is asked to close a room.
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:9")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", f"{WORDS}-long-enough-for-a-signature")
    settings.cache_clear()
    dispatchers = Reading()
    dispatchers.calls = [IDS["calls"]]
    async with inhabited(tmp_path) as app, client(app, OTHER, SCOPES) as http:
        there = {f"{method} {path}" for method, path in routes(app)}
        assert there >= NOT_LOGGED.keys() | ACTIONS.keys(), "a reason for a route that is gone would hide another"
        monkeypatch.setattr(app.state, "dispatchers", lambda: dispatchers)
        async with app.state.database.system() as session:
            # Somebody else owns the tenant: one owner stays.
            session.add(Person(tenant_id=OTHER, issuer="x", subject="x", role="owner"))
            await session.commit()
        secrets: list[str] = [WORDS]
        # Deletions last, calls with their files after those: the others act on what is there.
        acts = sorted(
            (each for each in routes(app) if each[0] != "GET"),
            key=lambda each: (each[0] == "DELETE", "/calls/" in each[1]),
        )
        for method, path in acts:
            route = f"{method} {path}"
            if route in NOT_LOGGED:
                continue
            assert route in ACTIONS, f"{route}: do it in this test, or say in NOT_LOGGED why it leaves no entry"
            before = len(await entries(app))
            more: dict[str, Any] = {"json": BODIES[route]} if route in BODIES else {}
            if route in FORMS:
                more["files"] = {"file": ("a.txt", WORDS.encode())}
            answer = await http.request(method, address(path), headers={"if-match": "*"}, **more)
            assert answer.is_success, f"{route} is not done as it should be here: {answer.text}"
            if answer.content:
                secrets += [answer.json()[name] for name in ("key", "secret") if name in answer.json()]
            new = (await entries(app))[before:]
            assert [each.action for each in new] == [ACTIONS[route]], f"{route}: leaves no entry, or another"
            (entry,) = new
            assert (entry.actor, entry.tenant_id, entry.address) == (f"per_{OTHER}", OTHER, "127.0.0.1"), route
            assert entry.target, route
        assert len(secrets) == 5
        written = json.dumps([[each.target, each.detail, each.address] for each in await entries(app)])
        assert not [secret for secret in secrets if secret in written]
        # What the log shows is what was written.
        shown = await http.get("/api/v1/audit", params={"limit": 200})
        assert {each["action"] for each in shown.json()["items"]} >= set(ACTIONS.values())
        assert not [secret for secret in secrets if secret in shown.text]


async def test_who_the_issuer_lets_in_and_as_what_is_in_the_log(tmp_path: Path) -> None:
    async with signing_in(tmp_path) as (issuer, browser, app):
        for roles in (["parley-viewer"], ["parley-viewer"], ["parley-owner"]):
            issuer.claims["roles"] = roles
            assert (await go(issuer, browser)).status_code == 302
        async with app.state.database.system() as session:
            person = await session.scalar(select(Person))
            noted = list(await session.scalars(select(AuditEntry).order_by(AuditEntry.id)))
        assert person is not None
        assert [(each.action, each.target, each.detail) for each in noted] == [
            ("person.create", person.id, {"role": "viewer"}),
            ("person.change", person.id, {"role": "owner", "role_before": "viewer"}),
        ]
        assert {(each.actor, each.tenant_id) for each in noted} == {("system", "ten_default")}
