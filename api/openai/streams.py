"""Answers that last: work ends when the client goes, streams begin only once there is something to send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.openai.errors import Refused, translate

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

EVENTS = "text/event-stream"
DONE = "data: [DONE]\n\n"


class BrokenOff(Exception):
    """The answer has begun and cannot be finished; the server cuts the connection, so that it does not look whole."""


def event(data: dict[str, Any]) -> str:
    """Return one server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns; cancel it where the client goes first.

    Raises:
        Refused: The client has gone; nobody reads the answer.
    """
    task, watch = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused(499, "the client closed the connection", code="client_closed")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Streamed(Response):
    """An answer that is sent as it is made, and whose making ends with the connection.

    Args:
        first: What is there already.
        rest: What follows; closed in any case.
        media_type: Of the body. An error in server-sent events is an event; in others it breaks the connection off.
        headers: More headers.
    """

    def __init__(
        self,
        first: str | bytes,
        rest: AsyncGenerator[Any, None],
        media_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._first, self._rest = first, rest
        self.status_code, self.background, self.body = 200, None, b""
        self.media_type = media_type
        # Proxies that would gather the answer before they pass it on are asked not to.
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]

    @classmethod
    async def begin(cls, request: Request, parts: AsyncGenerator[Any, None], media_type: str) -> Streamed:
        """Wait for the first part, so that what fails before it is answered with a status.

        Raises:
            ParleyError: From the work.
            Refused: The client has gone.
        """
        try:
            first = await while_connected(request.receive, _first(parts))
        except BaseException:  # also when cancelled: the engine must stop
            await parts.aclose()
            raise
        return cls(first, parts, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        with contextlib.suppress(Refused):  # the client has gone
            await while_connected(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await self._part(send, self._first)
            async for part in self._rest:
                await self._part(send, part)
        except Exception as error:  # the status is sent already: the break is told in the stream
            refused = translate(error)
            logger.warning("a stream broke off: %s", refused.body["error"]["code"] or type(error).__name__)
            if self.media_type != EVENTS:
                raise BrokenOff("the connection ends here") from None
            await self._part(send, event(refused.body))
        finally:
            await self._rest.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, send: Send, part: str | bytes) -> None:
        body = part.encode() if isinstance(part, str) else part
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _first(parts: AsyncGenerator[Any, None]) -> Any:
    return await anext(parts, b"")
