"""Tools of MCP servers: a real server, over HTTP on loopback, through livekit-agents' client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from mcp.server import MCPServer

from serve.contracts import ToolCall
from tests.unit.agent.fake_call import FakeCall, calling

pytestmark = pytest.mark.unit

KEY = "Bearer of-a-shop"


class Shop:
    """A server with three tools, which wants a key.

    Attributes:
        url: Where it is.
        refused: Requests without the key.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.refused = 0
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; returns when it does."""
        server = MCPServer("shop", log_level="ERROR")

        @server.tool()
        def price(item: str) -> str:  # pyright: ignore[reportUnusedFunction]
            """Say what an item costs."""
            return f"{item}: 3 euros"

        @server.tool()
        async def slow() -> str:  # pyright: ignore[reportUnusedFunction]
            """Take a while."""
            await asyncio.sleep(5)
            return "late"

        @server.tool()
        def broken() -> str:  # pyright: ignore[reportUnusedFunction]
            """Break."""
            raise ValueError("no stock")

        app = server.streamable_http_app()

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            headers: dict[bytes, bytes] = dict(scope.get("headers") or ())
            if scope["type"] == "http" and headers.get(b"authorization") != KEY.encode():
                self.refused += 1
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            await app(scope, receive, send)

        self._server = uvicorn.Server(
            uvicorn.Config(guarded, host="127.0.0.1", port=self.port, log_level="error", timeout_graceful_shutdown=1)
        )
        self._task = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(10):
            while not self._server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Close every connection."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = self._server.force_exit = True
            await asyncio.wait_for(self._task, 10)


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Shop]:
    monkeypatch.setenv("SHOP_KEY", KEY)
    server = Shop()
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def shopping(shop: Shop, answers: list[Any], **more: Any) -> AsyncGenerator[FakeCall]:
    server = {"url": shop.url, "headers": {"Authorization": "SHOP_KEY"}, **more.pop("mcp", {})}
    joined = asyncio.Event()
    async with calling({"assistant": {"greeting": "", "mcp": [server], **more}}, answers) as call:
        call.reception.joined = joined.set
        if call.reception.joining:
            await asyncio.wait_for(joined.wait(), 10)
        yield call


def names(call: FakeCall, question: int = 0) -> list[str]:
    return [each["function"]["name"] for each in call.engines.asked[question].tools]


async def test_tools_of_a_server_are_called(shop: Shop) -> None:
    async with shopping(shop, [ToolCall("c", "price", '{"item": "tea"}'), "Three euros."]) as call:
        await call.say("What is tea?")
        assert names(call) == ["price", "slow", "broken"]
        assert call.results() == ["tea: 3 euros"]
        assert call.spoken.texts == ["Three euros."]
        assert call.engines.asked[0].tools[0]["function"]["parameters"]["properties"]["item"]["type"] == "string"


async def test_only_the_named_tools_are_taken(shop: Shop) -> None:
    async with shopping(shop, ["Hello."], mcp={"tools": ["price"]}) as call:
        await call.say("Hello?")
        assert names(call) == ["price"]


async def test_what_goes_wrong_is_told_to_the_model(shop: Shop) -> None:
    answers = [ToolCall("c", "broken", "{}"), "Sold out.", ToolCall("c", "slow", "{}"), "Later."]
    async with shopping(shop, answers, tool_limits={"deadline": 0.5, "filler_after": 0.1}) as call:
        await call.say("Is there tea?")
        assert call.results()[0].startswith("broken failed: ")
        await call.say("And now?")
        assert "longer than 0.5 seconds" in call.results()[-1]
        assert call.spoken.texts == ["Sold out.", "One moment, please.", "Later."]


async def test_a_server_that_came_back_is_used_again(shop: Shop) -> None:
    price = ToolCall("c", "price", '{"item": "tea"}')
    async with shopping(shop, [price, "It is away.", price, "It is away.", price, "Three."]) as call:
        await shop.stop()
        await call.say("What is tea?")
        assert "price failed" in call.results()[0]
        await shop.start()
        await call.say("And now?")
        if call.results()[-1] != "tea: 3 euros":
            await call.say("And now?")
        assert call.results()[-1] == "tea: 3 euros"


async def test_a_server_that_is_away_costs_its_tools_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    async with shopping(Shop(), ["Hello."]) as call:
        await call.say("Hello?")
        assert call.engines.asked[0].tools == ()
    assert "the tools of 127.0.0.1:" in caplog.text


async def test_a_key_that_is_not_set_is_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SHOP_KEY")
    async with shopping(shop, ["Hello."]) as call:
        await call.say("Hello?")
        assert call.engines.asked[0].tools == ()
    assert "set SHOP_KEY" in caplog.text
    assert shop.refused == 0


async def test_a_key_that_is_refused_is_not_logged(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_KEY", "Bearer wrong-secret")
    async with shopping(shop, ["Hello."]) as call:
        await call.say("Hello?")
        assert call.engines.asked[0].tools == ()
    assert shop.refused
    assert "wrong-secret" not in caplog.text
