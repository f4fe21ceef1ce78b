"""What stands before every route under /v1: keys, request ids, times, and errors that nobody foresaw."""

from __future__ import annotations

import re
import time
import uuid

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import keys
from api.access.local import local_user
from api.access.principal import Principal, counted
from api.access.scopes import Scope as May
from api.openai.errors import INVALID, Refused, is_openai, translate
from api.problems import AWAY, Problem, away

_WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NEEDED: May = "models:use"


class Guard:
    """Lets in who has a key, and stamps the answers.

    Args:
        app: The application behind it.
        local: Only this machine gets here, so that no key is needed where none is set.
        ids: Give the answers their request ids; False where a server in front does.
    """

    def __init__(self, app: ASGIApp, local: bool, ids: bool = True) -> None:
        self._app = app
        self._local, self._ids = local, ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401; an answer that failed before it began is 500."""
        if scope["type"] != "http" or not is_openai(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        began, started = time.perf_counter(), False
        given = headers.get("x-request-id", "")
        request_id = given if _WELL_FORMED.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                if self._ids:
                    answer["x-request-id"] = request_id
                answer["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
                answer["openai-version"] = "2020-10-01"
            await send(message)

        try:
            try:
                await self._let_in(Request(scope))
            except Refused as refused:
                await refused.response()(scope, receive, stamped)
                return
            except AWAY as error:
                await away(scope["path"], error)(scope, receive, stamped)
                return
            await self._app(scope, receive, stamped)
        except Exception as error:
            if started:
                raise  # the connection breaks off, which is how the client learns of it
            await translate(error).response()(scope, receive, stamped)

    async def _let_in(self, request: Request) -> None:
        """Find out who asks, and count the request for their tenant.

        Raises:
            Refused: They are not let in, or ask too often.
        """
        try:
            who = await self._who(request)
            request.state.principal = who
            await counted(request, who)
        except Problem as problem:
            code = {401: "invalid_api_key", 403: "insufficient_permissions", 429: "rate_limit_exceeded"}[problem.status]
            raise _refused(problem, code) from None

    async def _who(self, request: Request) -> Principal:
        state = request.app.state
        doorman: keys.KeyDoorman = state.keys
        given = keys.shown(request.headers.get("authorization", ""))
        who = await doorman.find(given, state.database) if given else None
        if who is not None:
            if _NEEDED not in who.scopes:
                raise Problem(403, "Not allowed", f"this API key has not the scope {_NEEDED}")
            return who
        if not doorman.in_environment:
            if self._local:
                return local_user()
            detail = (
                "this is no API key of this server's: make one (parley keys add), or set PARLEY_API_KEYS where it runs"
            )
            raise Refused(401, detail, code="no_api_keys")
        if not given:
            raise Refused(401, "an API key is needed: Authorization: Bearer KEY", code="missing_api_key")
        raise Refused(401, "this API key is not valid", code="invalid_api_key")


def _refused(problem: Problem, code: str) -> Refused:
    retry = problem.headers.get("retry-after")
    kind = "requests" if problem.status == 429 else INVALID
    return Refused(problem.status, problem.detail, code=code, kind=kind, retry_after=int(retry) if retry else None)
