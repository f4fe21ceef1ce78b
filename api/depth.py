"""Refuses JSON that is nested deeper than anything this API takes, before anything parses it."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import refusal

logger = logging.getLogger("ray.serve")

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_OPEN_AND_CLOSE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"{}[]"))


def deeper_than(body: bytes, most: int) -> bool:
    """Return whether JSON nests arrays and objects deeper than so many levels, or leaves so many open."""
    # A level at a time, the innermost first: a few passes in C, where a loop over bytes would hold up others.
    left = _STRING.sub(b"", body).translate(_OPEN_AND_CLOSE, _OTHERS)
    for _ in range(most):
        before, left = len(left), left.replace(b"[]", b"")
        if len(left) == before:
            # Nothing, or what is no JSON: the parser says so, as long as it is not led too deep by it.
            return left.count(b"[") > most
    return bool(left)


class DepthLimit:
    """Answers 422 to bodies over a depth. Stands behind the limit of their size.

    Args:
        app: The application behind it.
        most: Levels.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] != "http" or "json" not in Headers(scope=scope).get("content-type", ""):
            await self._app(scope, receive, send)
            return
        messages: list[Message] = []
        more = True
        while more:
            messages.append(await receive())
            more = messages[-1].get("more_body", False)
        if deeper_than(b"".join(message.get("body", b"") for message in messages), self._most):
            logger.info("refused a request body nested deeper than %d", self._most)
            detail = f"body: has more than {self._most} levels of arrays and objects"
            await refusal(scope["path"], 422, "Invalid request", detail, "too_deep")(scope, receive, send)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)
