"""A receiver of webhooks on loopback: keeps what comes, answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

Answer = tuple[int, dict[str, str]]


@dataclass
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Receiver:
    """What it is told and what it has seen.

    Attributes:
        answer: Makes the answer to a request; the default takes everything.
        hold: Set while it answers; cleared, it lets senders wait.
    """

    url: str = ""
    port: int = 0
    answer: Callable[[Received], Answer] = lambda received: (204, {})
    received: list[Received] = field(default_factory=list[Received])
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    here: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, count: int) -> list[Received]:
        """Return what has come once there are so many."""
        async with asyncio.timeout(10), self.here:
            await self.here.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request and answer it."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            received = Received(first.split(" ")[1], headers, body.decode())
            async with self.here:
                self.received.append(received)
                self.here.notify_all()
            await self.hold.wait()
            status, more = self.answer(received)
            told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
            writer.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-length: 0\r\n{told}\r\n".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncGenerator[Receiver]:
    """Yield a receiver that listens."""
    receiver = Receiver()
    receiver.hold.set()
    server = await asyncio.start_server(receiver.serve, host, 0)
    try:
        receiver.port = server.sockets[0].getsockname()[1]
        receiver.url = f"http://{'[::1]' if host == '::1' else host}:{receiver.port}/hook"
        yield receiver
    finally:
        server.close()
