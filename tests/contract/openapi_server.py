"""The whole application on a loopback port, in a thread of its own, for tests that send it anything."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from agent.files import plain
from tests.unit.api.backend import backend
from tests.unit.api.openai_app import Cluster

START_SECONDS = 30


class FakeDispatchers:
    """Stands where the dispatchers' handle does: one that carries no call."""

    def broadcast(self, method: str) -> FakeDispatchers:
        return self

    async def results_async(self) -> list[list[str]]:
        return [[]]

    def __init__(self, method: str = "") -> None:
        self._method = method

    def options(self, *, method_name: str) -> FakeDispatchers:
        return FakeDispatchers(method_name)

    async def remote(self, *args: Any) -> Any:
        # A call can be ended, a file be read; there is no call that one could go into.
        if self._method == "read":
            read = {"status": "read", "name": plain(args[0]), "kind": "text/plain", "text": "What was read."}
            return {**read, "characters": 14, "note": ""}
        return True if self._method == "end" else None


@contextmanager
def running(folder: Path) -> Generator[tuple[FastAPI, str]]:
    """Yield the application and its address. Models are fake; webhooks go nowhere: nothing runs beside requests."""
    ready, stop, made = threading.Event(), threading.Event(), dict[str, Any]()

    async def serve() -> None:
        limits = {"requests": 100_000, "calls": 100_000}
        async with backend(folder, FakeDispatchers(), limits=limits) as app:
            app.state.catalog = Cluster().catalog
            # Named as TCP: else asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an ACK.
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
                listening.bind(("127.0.0.1", 0))
                config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
                server = uvicorn.Server(config)
                running = asyncio.create_task(server.serve([listening]))
                while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(0.01)
                made["app"], made["url"] = app, f"http://127.0.0.1:{listening.getsockname()[1]}"
                ready.set()
                await asyncio.to_thread(stop.wait)
                server.should_exit = True
                await running

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="openapi-server", daemon=True)
    thread.start()
    try:
        assert ready.wait(START_SECONDS), "the application did not start"
        yield made["app"], made["url"]
    finally:
        stop.set()
        thread.join(START_SECONDS)
