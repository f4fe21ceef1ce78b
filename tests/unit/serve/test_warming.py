"""How the shell gets an engine ready: by a request of its own, or by the engine's `warm` where it has one."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from serve import registry
from serve.contracts import Capabilities, ChatChunk, ChatRequest
from serve.replica import Chat, Replica

pytestmark = pytest.mark.unit


class FakeModel:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def load(self) -> None:
        self.asked.append("load")

    async def close(self) -> None: ...

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        self.asked.append("chat")
        yield ChatChunk(finish_reason="stop")


class FakeProxy(FakeModel):
    async def warm(self) -> None:
        self.asked.append("warm")


@pytest.mark.parametrize(("engine", "asked"), [(FakeModel(), ["load", "chat"]), (FakeProxy(), ["load", "warm"])])
async def test_a_proxy_is_warmed_without_a_request(
    engine: FakeModel, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "create", lambda name, options: engine)  # pyright: ignore[reportUnknownArgumentType]
    monkeypatch.delattr(Replica, "__del__")  # Serve awaits it; nobody does here
    replica = Chat.__new__(Chat)
    await replica.__init__({"name": "llm-fake", "engine": "fake-llm"})  # pyright: ignore[reportGeneralTypeIssues]
    assert engine.asked == asked
