"""The app with fake engines behind the real client of models: for tests of /v1."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import numpy as np
import openai
from fastapi import FastAPI

from api.app import create_app
from api.config import ApiConfig
from api.openai.catalog import Catalog, CatalogModel
from serve import registry
from serve.config import Routes
from serve.contracts import RequestContext, Role, Transcript
from serve.errors import NotDeployed

BASE = "http://127.0.0.1:8000"
HELLO: list[Any] = [{"role": "user", "content": "one two three"}]
ROUTES = Routes.model_validate(
    {"stt": "stt-fake", "llm": {"default": "llm-fake", "fallbacks": ["llm-other"]}, "tts": "tts-fake"}
)


class Response:
    """Stands where Serve's response does: awaitable or iterable, and `cancel` ends the engine's work."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        if self._task:
            self._task.cancel()

    def __await__(self) -> Any:
        task = self._task = asyncio.ensure_future(self._work)
        return task.__await__()

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        return self._work


class Handle:
    """Calls an engine in this process; notes what it was asked.

    Attributes:
        asked: Requests and contexts.
        responses: What was returned.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.asked: list[tuple[Any, RequestContext]] = []
        self.responses: list[Response] = []
        self._method = ""

    def options(self, *, method_name: str, stream: bool, session_id: str) -> Handle:
        view = Handle(self.engine)
        view.asked, view.responses, view._method = self.asked, self.responses, method_name
        return view

    def remote(self, *args: Any) -> Response:
        if self._method == "capabilities":
            work: Any = self._capabilities()
        else:
            self.asked.append(args)  # pyright: ignore[reportArgumentType]
            work = getattr(self.engine, self._method)(args[0])
        self.responses.append(Response(work))
        return self.responses[-1]

    async def _capabilities(self) -> Any:
        return self.engine.capabilities


class Words:
    """A recogniser that hears what it is given, with places of words."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript

    async def transcribe(self, request: Any) -> Transcript:
        return self.transcript


class Cluster:
    """Fake models by name; all are there, except for `llm-away`, which the catalog has and nobody runs."""

    def __init__(self, **options: dict[str, Any]) -> None:
        catalog: dict[str, Role] = {"stt-fake": "stt", "llm-fake": "llm", "llm-other": "llm", "tts-fake": "tts"}
        self.handles = {
            name: Handle(registry.create(f"fake-{role}", options.get(name.replace("-", "_"), {})))
            for name, role in catalog.items()
        }
        self.catalog = Catalog(self.find)
        entries = [CatalogModel(name=name, role=role, engine=f"fake-{role}") for name, role in catalog.items()]
        self.catalog.update([*entries, CatalogModel(name="llm-away", role="llm", engine="fake-llm")], ROUTES)

    def find(self, model: str, role: Role) -> Handle:
        if model not in self.handles:
            raise NotDeployed(f"no model {model!r} is running")
        return self.handles[model]

    def last(self, model: str) -> Any:
        """Return the last request to a model."""
        return self.handles[model].asked[-1][0]

    def app(self, **config: Any) -> FastAPI:
        return create_app(ApiConfig(**config), "parley", lambda: None, self.catalog)


def client(cluster: Cluster, key: str = "none", **config: Any) -> openai.AsyncOpenAI:
    transport = httpx2.ASGITransport(cluster.app(**config))
    http = httpx2.AsyncClient(transport=transport, base_url=BASE)
    return openai.AsyncOpenAI(api_key=key, base_url=f"{BASE}/v1", http_client=http, max_retries=0)


def recording(seconds: float = 1.0, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.sin(np.arange(round(seconds * rate)) / 5) * 9000).astype("<i2").tobytes())
    return file.getvalue()
