"""Idempotency-Key: a POST that is sent again makes nothing twice, and is answered as the first one was.

It stands before all routes, which need not know of it. A key belongs to who sends it and to the path. It is claimed by
inserting a row, so that of two replicas one comes first; whoever comes meanwhile is asked to wait. Only what made
something is kept: after any other answer the key is free again, and so it is a while after a replica died on it.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fastapi import Request
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.principal import principal
from api.db import Database, session_of
from api.db.tables import IdempotentAnswer
from api.db.types import now
from api.problems import AWAY, Problem, away

logger = logging.getLogger("ray.serve")

KEPT = datetime.timedelta(hours=24)
"""Answers."""

CLAIMED = datetime.timedelta(seconds=120)
"""A request that takes longer has died with its replica: longer than any that is answered."""

ANSWER_BYTES = 2**20
"""A longer answer is not kept."""

REST_SECONDS = 1.0
"""For the rest of a body that a handler did not read."""

_PREFIX = "/api/v1/"
_KEY = re.compile(r'"?[\x21-\x7e]{1,255}"?')
_KEPT_HEADERS = ("content-type", "location", "etag")
_BOUNDARY = re.compile(r'boundary="?([^";,\s]+)')


class Idempotency:
    """Answers a repeated POST as the first one was answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._working: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer by what is kept."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        key = Headers(scope=scope).get("idempotency-key")
        if key is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            held = await _hold(request, key)
            if isinstance(held, _Held) and isinstance(held.claim, IdempotentAnswer):
                held = await _again(held.claim, held.body, receive)
        except Problem as problem:
            held = problem.response()
        except AWAY as error:
            held = away(scope["path"], error)
        if isinstance(held, Response):
            await held(scope, receive, send)
        elif held is None:
            await self._app(scope, receive, send)
        else:
            # It goes on where the client hangs up: what it makes is kept for the next attempt.
            work = asyncio.create_task(self._first(scope, receive, send, held))
            self._working.add(work)
            work.add_done_callback(self._done)
            await asyncio.shield(work)

    async def _first(self, scope: Scope, receive: Receive, send: Send, held: _Held) -> None:
        async def read() -> Message:
            message = await receive()
            held.body.add(message)
            return message

        answer = _Answer(send)
        kept = False
        try:
            async with asyncio.timeout(CLAIMED.total_seconds()):
                await self._app(scope, read, answer.take)
            if answer.made and await held.body.rest(receive, REST_SECONDS):
                kept = await held.keep(answer)
        finally:
            if not kept:
                await held.free()
        await answer.release()

    def _done(self, work: asyncio.Task[None]) -> None:
        self._working.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            # Whoever still waits for it is told; this is for when nobody does.
            logger.info("a request with an Idempotency-Key failed: %s", type(error).__name__)


async def forget_answers(database: Database) -> None:
    """Delete what has run out."""
    async with database.system() as session:
        await session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.expires_at < now()))
        await session.commit()


async def _hold(request: Request, key: str) -> _Held | None:
    """Claim a key, or find what is kept under it; None: the handler must find out who this is.

    Raises:
        Problem: 409: another request with it is under way; and as `principal` does.
    """
    if not _KEY.fullmatch(key):
        raise Problem.field("Idempotency-Key", "has 1 to 255 visible ASCII characters")
    try:
        who = await principal(request)
    except Problem as problem:
        if problem.status == 401:
            return None
        raise
    name = "\0".join((who.tenant, who.id, request.url.path, key.strip('"')))
    body = _Body(request.headers.get("content-type", ""), request.url.query.encode())
    held = _Held(request.app.state.database, who.tenant, sha256(name.encode()).hexdigest(), body)
    await held.take()
    return held


class _Held:
    """A key that somebody sent.

    Attributes:
        claim: Until when it is ours, which tells our claim from a later one; or the answer that is kept.
        body: Of the request.
    """

    claim: datetime.datetime | IdempotentAnswer

    def __init__(self, database: Database, tenant: str, id: str, body: _Body) -> None:
        self._database, self._tenant, self._id, self.body = database, tenant, id, body

    async def take(self) -> None:
        """Claim the key, or find the answer.

        Raises:
            Problem: 409: another request with it is under way.
        """
        self.claim = now() + CLAIMED
        async with session_of(self._database, self._tenant) as session:
            session.add(IdempotentAnswer(id=self._id, request="", expires_at=self.claim))
            try:
                await session.commit()
                return
            except IntegrityError:
                await session.rollback()
            row = await session.get(IdempotentAnswer, self._id)
            if row is not None and row.expires_at > now():
                if row.status == 0:
                    raise _under_way()
                self.claim = row
                return
            # It ran out, and one of those who see that takes it over.
            fresh = {"expires_at": self.claim, "status": 0, "request": "", "body": ""}
            if row is None or not await self._change(session, row.expires_at, fresh):
                raise _under_way()

    async def keep(self, answer: _Answer) -> bool:
        """Keep an answer, unless the claim has run out and is somebody else's."""
        assert isinstance(self.claim, datetime.datetime), "it was claimed"
        values = {
            "request": self.body.digest(),
            "status": answer.status,
            "headers": {name: value for name, value in answer.headers.items() if name in _KEPT_HEADERS},
            "body": answer.body.decode(),
            "expires_at": now() + KEPT,
        }
        try:
            async with session_of(self._database, self._tenant) as session:
                return await self._change(session, self.claim, values)
        except AWAY as error:
            logger.warning("an answer is not kept for its Idempotency-Key: %s", type(error).__name__)
            return False

    async def free(self) -> None:
        """Give the key up."""
        mine = (IdempotentAnswer.id == self._id, IdempotentAnswer.expires_at == self.claim)
        try:
            async with session_of(self._database, self._tenant) as session:
                await session.execute(delete(IdempotentAnswer).where(*mine))
                await session.commit()
        except AWAY as error:
            logger.warning("an Idempotency-Key stays claimed until it runs out: %s", type(error).__name__)

    async def _change(self, session: AsyncSession, claim: datetime.datetime, values: dict[str, Any]) -> bool:
        changed = await session.scalars(
            update(IdempotentAnswer)
            .where(IdempotentAnswer.id == self._id, IdempotentAnswer.expires_at == claim)
            .values(**values)
            .returning(IdempotentAnswer.id),
            execution_options={"synchronize_session": False},
        )
        found = changed.one_or_none()
        await session.commit()
        return found is not None


def _under_way() -> Problem:
    detail = "A request with this Idempotency-Key is under way; send this one again when it is over"
    return Problem(409, "Under way", detail, headers={"retry-after": "1"})


async def _again(row: IdempotentAnswer, body: _Body, receive: Receive) -> Response:
    """Return the kept answer.

    Raises:
        Problem: 422: the body is another one.
    """
    if not await body.rest(receive, CLAIMED.total_seconds()) or body.digest() != row.request:
        raise Problem.field("Idempotency-Key", "was used for another request; take a new key for this one")
    headers = {**row.headers, "idempotent-replayed": "true"}
    return Response(row.body.encode(), row.status, headers)


class _Body:
    """The SHA-256 of a request, as its body passes. A form's boundary is chosen anew at each attempt and left out."""

    def __init__(self, content_type: str, query: bytes) -> None:
        found = _BOUNDARY.search(content_type) if content_type.startswith("multipart/") else None
        self._boundary = found[1].encode() if found else b""
        self._hash = sha256(query + b"\0")
        self._tail = b""
        self._whole = False

    def add(self, message: Message) -> None:
        """Take a part."""
        if message["type"] != "http.request":
            return
        data = self._tail + message.get("body", b"")
        if self._boundary:
            data = data.replace(self._boundary, b"")
            # What may be the beginning of a boundary waits for the part after it.
            keep = len(self._boundary) - 1
            data, self._tail = (data[:-keep], data[-keep:]) if keep else (data, b"")
        self._hash.update(data)
        self._whole = self._whole or not message.get("more_body", False)

    async def rest(self, receive: Receive, seconds: float) -> bool:
        """Take what nobody has read; return whether all of it is known."""
        try:
            async with asyncio.timeout(seconds):
                while not self._whole:
                    message = await receive()
                    if message["type"] != "http.request":
                        return False
                    self.add(message)
        except TimeoutError:
            return False
        return True

    def digest(self) -> str:
        """Return it."""
        whole = self._hash.copy()
        whole.update(self._tail)
        return whole.hexdigest()


@dataclass
class _Answer:
    """Holds an answer back until it is kept: nobody may see it who could then make a second thing.

    Attributes:
        send: To the client.
    """

    send: Send
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)
    _held: list[Message] = field(default_factory=list[Message])
    _through: bool = False
    _whole: bool = False

    async def take(self, message: Message) -> None:
        """Hold a part; what made nothing, or is too long, goes on at once."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(MutableHeaders(scope=message))
            self._through = not 200 <= self.status < 300
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self._whole = not message.get("more_body", False)
            self._through = self._through or len(self.body) > ANSWER_BYTES
        self._held.append(message)
        if self._through:
            await self.release()

    @property
    def made(self) -> bool:
        """Whether it is one to keep: something was made, and it is all here."""
        return self._whole and not self._through and _is_text(bytes(self.body))

    async def release(self) -> None:
        """Send what is held."""
        while self._held:
            await self.send(self._held.pop(0))


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
