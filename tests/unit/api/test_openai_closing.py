"""Closing the connection ends the model's work, whatever it was doing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.api.openai_app import HELLO, Cluster

pytestmark = pytest.mark.unit


class Gone:
    """A client on raw ASGI that leaves after so many parts of the answer, or before any."""

    def __init__(self, path: str, body: dict[str, Any], after: int) -> None:
        self.after = after
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        self._body: bytes | None = json.dumps(body).encode()
        self.parts = 0
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.parts += bool(message["body"])
            if self.parts >= self.after:
                self.gone.set()


@pytest.mark.parametrize(
    ("path", "more", "after", "model"),
    [
        ("/v1/chat/completions", {"stream": True}, 3, "llm-fake"),
        ("/v1/chat/completions", {"stream": True, "n": 4}, 3, "llm-fake"),
        ("/v1/chat/completions", {}, 0, "llm-fake"),
        ("/v1/chat/completions", {"n": 4}, 0, "llm-fake"),
        ("/v1/audio/speech", {"response_format": "pcm"}, 2, "tts-fake"),
    ],
)
async def test_closing_the_connection_ends_the_models_work(
    path: str, more: dict[str, Any], after: int, model: str
) -> None:
    cluster = Cluster(llm_fake={"answers": ["word " * 250], "delay": 0.01}, tts_fake={"delay": 0.01})
    app = cluster.app()
    body = {"model": model, "messages": HELLO} if "chat" in path else {"model": model, "input": "long words " * 40}
    caller = Gone(path, {**body, **more}, after)
    running = asyncio.create_task(app(caller.scope, caller.receive, caller.send))
    handle = cluster.handles[model]
    async with asyncio.timeout(5):
        if after == 0:
            while handle.engine.produced < 3:  # noqa: ASYNC110  # the engine tells nobody
                await asyncio.sleep(0.005)
            caller.gone.set()
        await running
    made = handle.engine.produced
    assert all(response.cancelled for response in handle.responses)
    await asyncio.sleep(0.1)
    assert handle.engine.produced == made < 100
