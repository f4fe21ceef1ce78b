"""What the fake providers share: a server on loopback that records what it got, and fails when it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

from serve.audio import from_float

KEY = "key-of-the-tests"
WORD = "hello there"
"""What the fake recognisers hear."""


@dataclass
class Received:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    form: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Trouble:
    """What goes wrong with one request.

    Attributes:
        status: Answer with this and nothing else.
        body: Of that answer: JSON, or text.
        headers: Of that answer.
        first: Seconds before any answer.
        between: Seconds between two pieces of an answer.
        cut: Pieces after which the connection is dropped.
        end: Pieces after which the answer ends as if it were whole.
    """

    status: int | None = None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    first: float = 0.0
    between: float = 0.0
    cut: int | None = None
    end: int | None = None


class FakeProvider:
    """Serves on a port of its own, in the loop that runs.

    Attributes:
        received: Requests, without those that only open a connection.
        warmed: Requests that only open a connection.
        troubles: What goes wrong with the next requests, one each; None: nothing.
        left: Set when a client has gone before its answer was whole.
        sent: Pieces of streams sent so far.
        url: Where it is.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.warmed: list[Received] = []
        self.troubles: deque[Trouble | None] = deque()
        self.left = asyncio.Event()
        self.sent = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        application = web.Application(client_max_size=64 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
        # Until it has started, connections wait in the socket's queue.
        self._starting = asyncio.create_task(self._start())

    async def close(self) -> None:
        await self._starting
        await self._runner.cleanup()
        self._socket.close()

    async def answer(self, request: Received, trouble: Trouble, raw: web.Request) -> web.StreamResponse:
        """Answer a request that goes well so far."""
        raise NotImplementedError

    async def stream(
        self, pieces: Iterable[bytes], trouble: Trouble, raw: web.Request, content_type: str
    ) -> web.StreamResponse:
        """Send pieces one after the other, in chunks of HTTP, as far as nothing goes wrong."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(raw)
        async for number, piece in _paced(pieces, trouble.between):
            if number == trouble.cut and raw.transport is not None:
                raw.transport.abort()
                return response
            if number == trouble.end:
                break
            await response.write(piece)
            self.sent += 1
        await response.write_eof()
        return response

    async def _start(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def _serve(self, raw: web.Request) -> web.StreamResponse:
        form: dict[str, list[Any]] = {}
        if raw.content_type == "multipart/form-data":
            for name, value in (await raw.post()).items():
                form.setdefault(name, []).append(value.file.read() if isinstance(value, web.FileField) else value)
        body = b"" if form else await raw.read()
        headers = {name.lower(): value for name, value in raw.headers.items()}
        request = Received(raw.method, raw.path, dict(raw.query), headers, body, form)
        if raw.method == "HEAD":
            self.warmed.append(request)
            return web.Response(status=404)
        self.received.append(request)
        trouble = (self.troubles.popleft() if self.troubles else None) or Trouble()
        try:
            if trouble.first:
                await asyncio.sleep(trouble.first)
            if trouble.status is not None:
                if isinstance(trouble.body, str):
                    return web.Response(status=trouble.status, text=trouble.body, headers=trouble.headers)
                return web.json_response(trouble.body, status=trouble.status, headers=trouble.headers)
            return await self.answer(request, trouble, raw)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.set()
            raise


async def _paced(pieces: Iterable[bytes], pause: float) -> AsyncIterator[tuple[int, bytes]]:
    for number, piece in enumerate(pieces):
        # Even without a pause others get their turn, and a client who has gone is noticed.
        await asyncio.sleep(pause if number else 0)
        yield number, piece


def tone(text: str, rate: int, speed: float) -> list[bytes]:
    """Return a tone as long as the text, in pieces that end in the middle of a sample."""
    time = np.arange(round(len(text) * 0.05 * rate / speed)) / rate
    audio = from_float((0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))
    step = 2 * round(0.05 * rate) + 1
    return [audio[start : start + step] for start in range(0, len(audio), step)]
