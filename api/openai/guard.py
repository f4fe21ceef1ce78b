"""What stands before every route under /v1: keys, request ids, times, and errors that nobody foresaw."""

from __future__ import annotations

import hmac
import re
import time
import uuid
from hashlib import sha256

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.openai.errors import Refused, is_openai, translate
from serve.settings import settings

_WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_BEARER = "bearer "


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
        self._keys = [
            sha256(key.strip().encode()).digest()
            for key in settings().parley_api_keys.get_secret_value().split(",")
            if key.strip()
        ]

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
            if refused := self._refused(headers.get("authorization", "")):
                await refused.response()(scope, receive, stamped)
            else:
                await self._app(scope, receive, stamped)
        except Exception as error:
            if started:
                raise  # the connection breaks off, which is how the client learns of it
            await translate(error).response()(scope, receive, stamped)

    def _refused(self, authorization: str) -> Refused | None:
        if not self._keys:
            if self._local:
                return None
            return Refused(401, "this server has no API keys: set PARLEY_API_KEYS where it runs", code="no_api_keys")
        if not authorization.lower().startswith(_BEARER):
            return Refused(401, "an API key is needed: Authorization: Bearer KEY", code="missing_api_key")
        given = sha256(authorization[len(_BEARER) :].strip().encode()).digest()
        # Every key is compared, each in constant time: how long it takes says nothing.
        fits = [hmac.compare_digest(given, key) for key in self._keys]
        return None if any(fits) else Refused(401, "this API key is not valid", code="invalid_api_key")
