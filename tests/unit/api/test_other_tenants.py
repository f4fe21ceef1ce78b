"""No route shows or changes what another tenant has, and none is open to whoever has not shown who they are.

The walk goes over the application's routes as they are: a new one is covered as soon as it is there, or this fails and
says what it needs to know of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import select

from api.access.scopes import SCOPES
from api.db.tables import (
    ApiKey,
    Assistant,
    AssistantVersion,
    AuditEntry,
    Base,
    Call,
    CallEvent,
    File,
    Participant,
    Person,
    Tenanted,
    Turn,
    Usage,
    WebhookEndpoint,
    WebhookMessage,
)
from api.db.types import now
from tests.unit.api.backend import backend

pytestmark = pytest.mark.unit

OTHER, MINE = "ten_other", "ten_default"
MARK = "OTHERS"
"""In every word of the other tenant's rows."""

IDS = {
    "assistants": "asst_others",
    "calls": "call-others",
    "files": "file_others",
    "keys": "key_others",
    "people": "per_others",
    "versions": "1",
    "webhook_messages": "msg_others",
    "webhooks": "hook_others",
}
"""The other tenant's row of each kind, by the part of the path that stands before the parameter."""

NOBODYS = {"/v1/{path:path}", "/v1/models/{model}", "/api/v1/models/{name}", "/console/{path:path}"}
"""Parameters that name nothing of a tenant's."""

BODIES: dict[str, Any] = {
    "PUT /api/v1/assistants/{id}": {"name": "mine", "definition": {}},
    "PATCH /api/v1/people/{person_id}": {"role": "viewer"},
    "PATCH /api/v1/webhooks/{webhook_id}": {"description": "mine"},
    "POST /api/v1/assistants/{id}/files": "form",
    "POST /api/v1/calls/{id}/files": "form",
}
"""Bodies that are right, so that a refusal is not for them."""

PUBLIC = {
    "GET /api/v1/files/{id}/content",
    "GET /api/v1/sign-in",
    "DELETE /api/v1/sign-in",
    "GET /api/v1/sign-in/openid",
    "GET /api/v1/sign-in/openid/back",
}
"""Open to everybody: ways to sign in, and links that are signed themselves; LiveKit's webhooks are not under here."""

ANYBODYS = PUBLIC | {"GET /api/v1/me"}
"""Needs no scope."""

STREAM_SECONDS = 2.0
"""What a stream has not said by then, it does not say at once."""


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return method and path of every route, also of those that OpenAPI does not show."""
    found = [
        (method, context.path)
        for context in iter_route_contexts(app.routes)
        if context.path and (methods := getattr(context, "methods", None))
        for method in sorted(set(methods) - {"HEAD", "OPTIONS"})
    ]
    assert ("GET", "/api/v1/keys/{key_id}") in found, "the walk sees the routes"
    return found


def address(path: str) -> str:
    """Return a path with the other tenant's ids in it."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if part.startswith("{"):
            kind = parts[index - 1]
            assert kind in IDS, f"{path}: add a row of tenant {OTHER!r} for {kind!r} to `rows`, and its id to IDS"
            parts[index] = IDS[kind]
    return "/".join(parts)


def rows() -> Iterable[Base]:
    """Return what the other tenant has."""
    call, moment, words = IDS["calls"], now(), {"text": MARK}
    yield Person(id=IDS["people"], issuer=MARK, subject=MARK, name=MARK, email=MARK, role="owner")
    yield ApiKey(id=IDS["keys"], name=MARK, prefix=MARK, digest=MARK, scopes=["calls:read"])
    yield AuditEntry(actor=IDS["people"], action="key.create", target=MARK, detail=words, address=MARK)
    yield Assistant(id=IDS["assistants"], name=MARK, updated_at=moment)
    yield AssistantVersion(
        assistant_id=IDS["assistants"], number=1, definition={"instructions": MARK}, created_by=IDS["people"]
    )
    yield Call(id=call, status="live", assistant=MARK, caller=MARK, messages=[words], annotations=words)
    yield Participant(id="participant", call_id=call, identity=MARK, name=MARK, joined_at=moment)
    yield Turn(id="turn", call_id=call, number=1, at=moment, heard=MARK, answer=MARK, measures=words)
    yield CallEvent(call_id=call, at=moment, event=MARK, fields=words)
    yield File(id=IDS["files"], call_id=call, name=MARK, media_type="text/plain", size=6, sender=MARK, text=MARK)
    yield Usage(id="use", call_id=call, assistant=MARK, day=moment.date(), role="llm", model=MARK, amounts={})
    yield WebhookEndpoint(id=IDS["webhooks"], url=f"https://example.com/{MARK}", events=["call.ended"], secret=MARK)
    yield WebhookMessage(
        id=IDS["webhook_messages"],
        endpoint_id=IDS["webhooks"],
        event="call.ended",
        payload=words,
        status="dead",
        next_at=moment,
    )


@asynccontextmanager
async def inhabited(folder: Path) -> AsyncGenerator[FastAPI]:
    """Yield an application, not a local one, whose other tenant has something of everything."""
    # The walk asks more in a second than people do.
    async with backend(folder, local=False, limits={"requests": 100_000}) as app:
        async with app.state.database.system() as session:
            for row in rows():
                row.tenant_id = OTHER  # type: ignore[attr-defined]
                session.add(row)
                await session.flush()
            await session.commit()
        yield app


async def snapshot(app: FastAPI) -> dict[str, list[Any]]:
    """Return all that the other tenant has."""
    kept: dict[str, list[Any]] = {}
    async with app.state.database.system() as session:
        for mapper in Base.registry.mappers:
            if issubclass(mapper.class_, Tenanted):
                table: Any = mapper.local_table
                found = (await session.execute(select(table).where(table.c.tenant_id == OTHER))).all()
                kept[table.name] = sorted(map(repr, found))
    return kept


async def ask(
    app: FastAPI, method: str, path: str, body: Any = None, tenant: str | None = None, scopes: Iterable[str] = SCOPES
) -> tuple[int, str]:
    """Return status and text of an answer; of a stream that does not end, how it begins."""
    headers = {"host": "127.0.0.1", "if-match": "*"}
    if tenant is not None:
        headers |= {"x-test-tenant": tenant, "x-test-scopes": " ".join(scopes)}
    data = b""
    if body == "form":
        headers["content-type"] = "multipart/form-data; boundary=x"
        data = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'
    elif body is not None:
        headers["content-type"], data = "application/json", json.dumps(body).encode()
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: list[Any] = []
    first, over = [{"type": "http.request", "body": data, "more_body": False}], asyncio.Event()

    async def receive() -> Any:
        if first:
            return first.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    work = asyncio.create_task(app(scope, receive, send))
    try:
        await asyncio.wait({work}, timeout=STREAM_SECONDS)
    finally:
        over.set()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert sent, f"{method} {path}: no answer within {STREAM_SECONDS} s"
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:]).decode(errors="replace")


async def test_another_tenants_things_are_not_there(tmp_path: Path) -> None:
    async with inhabited(tmp_path) as app:
        before = await snapshot(app)
        for method, path in routes(app):
            if "{" not in path or path in NOBODYS:
                continue
            place, body = address(path), BODIES.get(f"{method} {path}")
            status, text = await ask(app, method, place, body, MINE)
            hint = "give it a right body in BODIES" if status == 422 else text
            assert status in (403, 404), f"{method} {path} answers {status} for another tenant's id: {hint}"
            assert MARK not in text, f"{method} {path} shows what another tenant has"
        assert await snapshot(app) == before


async def test_what_is_not_there_for_others_is_there_for_its_tenant(tmp_path: Path) -> None:
    """Else the test above would pass on ids that nobody has."""
    async with inhabited(tmp_path) as app:
        for method, path in routes(app):
            if method == "GET" and "{" in path and path not in NOBODYS and f"GET {path}" not in PUBLIC:
                status, text = await ask(app, method, address(path), None, OTHER)
                assert status not in (403, 404), f"{path}: {text}"


async def test_lists_show_ones_own(tmp_path: Path) -> None:
    async with inhabited(tmp_path) as app:
        seen = 0
        for method, path in routes(app):
            if method == "GET" and path.startswith("/api/v1/") and "{" not in path:
                _, text = await ask(app, method, path, None, MINE)
                assert MARK not in text, f"{path} shows what another tenant has"
                seen += MARK in (await ask(app, method, path, None, OTHER))[1]
        assert seen >= 8, "the other tenant sees its own"


async def test_every_route_needs_to_know_who_asks(tmp_path: Path) -> None:
    async with inhabited(tmp_path) as app:
        before = await snapshot(app)
        for method, path in routes(app):
            if path.startswith("/api/v1/"):
                status, text = await ask(app, method, path.replace("{", "").replace("}", ""))
                if f"{method} {path}" in PUBLIC:
                    assert status != 200 or MARK not in text, f"{method} {path} shows what a tenant has to everybody"
                else:
                    assert status == 401, f"{method} {path} answers {status} to whoever shows nothing: {text}"
        assert await snapshot(app) == before


async def test_every_route_needs_a_scope(tmp_path: Path) -> None:
    async with inhabited(tmp_path) as app:
        for method, path in routes(app):
            if path.startswith("/api/v1/") and f"{method} {path}" not in ANYBODYS:
                body = BODIES.get(f"{method} {path}")
                place = path if path in NOBODYS or "{" not in path else address(path)
                status, text = await ask(app, method, place, body, OTHER, scopes=())
                assert status == 403, f"{method} {path} answers {status} to whoever may do nothing: {text}"


async def test_open_routes_are_there(tmp_path: Path) -> None:
    """What is excepted from the walk must be something, or an exception outlives its reason."""
    async with inhabited(tmp_path) as app:
        there = {f"{method} {path}" for method, path in routes(app)}
        assert there >= PUBLIC | set(BODIES) | ANYBODYS
        assert {path.partition(" ")[2] for path in there} >= NOBODYS
