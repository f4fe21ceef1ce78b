"""What operators see of models: what runs, who is asked, how long it took."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.db import session_of
from api.db.tables import Call, Turn
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.openai.catalog import CatalogModel
from api.serving import Serving
from serve.config import Routes
from tests.unit.api.backend import backend, client

pytestmark = pytest.mark.unit

CATALOG = [
    CatalogModel(name="stt-a", role="stt", engine="pocketsphinx"),
    CatalogModel(name="llm-a", role="llm", engine="llamacpp"),
    CatalogModel(name="llm-b", role="llm", engine="llamacpp"),
    CatalogModel(name="tts-a", role="tts", engine="flite"),
]
ROUTES = Routes.model_validate(
    {"stt": "stt-a", "llm": {"default": "llm-a", "fallbacks": ["llm-b"], "weights": {"llm-b": 0.1}}, "tts": "tts-a"}
)


def status(**states: int) -> Any:
    """What `ray.serve.status` returns, as far as it is read."""
    deployment = SimpleNamespace(replica_states=states, message="")
    application = SimpleNamespace(
        status="RUNNING", message="", last_deployed_time_s=1.0, deployments={"Chat": deployment}
    )
    return SimpleNamespace(applications={"llm-a": application})


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[FastAPI]:
    async with backend(tmp_path) as made:
        made.state.catalog.update(CATALOG, ROUTES)
        yield made


@pytest.fixture
async def http(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(app, scopes=["models:read"]) as made:
        yield made


async def test_what_runs(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.state.serving = Serving(lambda: status(RUNNING=2, STARTING=1, STOPPING=3))
    models = {each["name"]: each for each in (await http.get("/api/v1/models")).json()["items"]}
    assert list(models) == ["stt-a", "llm-a", "llm-b", "tts-a"]
    assert models["llm-a"]["status"] == "RUNNING"
    assert models["llm-a"]["replicas"] == {"running": 2, "wanted": 3, "stopping": 3}
    assert (models["llm-b"]["status"], models["llm-b"]["replicas"]) == ("NOT_STARTED", None)
    assert (await http.get("/api/v1/models/llm-a")).json() == models["llm-a"]
    assert (await http.get("/api/v1/models/nobody")).status_code == 404


async def test_a_controller_that_hangs_is_waited_for_once(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.serving.ANSWER_SECONDS", 0.05)
    monkeypatch.setattr("api.serving.KNOWN_SECONDS", 0.0)
    free, asked = threading.Event(), 0

    def hang() -> Any:
        nonlocal asked
        asked += 1
        free.wait(10)
        return status(RUNNING=1)

    app.state.serving = Serving(hang)
    for _ in range(3):
        answer = await http.get("/api/v1/models")
        assert {each["status"] for each in answer.json()["items"]} == {"UNKNOWN"}
    assert asked == 1
    free.set()
    monkeypatch.setattr("api.serving.ANSWER_SECONDS", 5)
    assert (await http.get("/api/v1/models/llm-a")).json()["status"] == "RUNNING"


async def test_routes(http: httpx.AsyncClient) -> None:
    items = (await http.get("/api/v1/routes")).json()["items"]
    assert [each["role"] for each in items] == ["stt", "llm", "tts"]
    assert (items[1]["fallbacks"], items[1]["weights"]) == (["llm-b"], {"llm-b": 0.1})


async def test_times_are_of_the_tenants_own_turns(app: FastAPI, http: httpx.AsyncClient) -> None:
    for tenant, more in ((DEFAULT_TENANT, 0), ("ten_other", 5000)):
        async with session_of(app.state.database, tenant) as session:
            session.add(Call(id=f"call-{tenant}"))
            await session.flush()
            for number in range(1, 22):
                measures = {
                    "models": {"stt": "stt-a", "llm": "llm-a", "tts": "tts-a"},
                    "stages": {"stt_ms": None, "llm_first_token_ms": number * 10 + more, "tts_first_byte_ms": 7},
                }
                session.add(
                    Turn(
                        id=f"{tenant}-{number}",
                        call_id=f"call-{tenant}",
                        number=number,
                        at=now(),
                        heard="",
                        answer="",
                        measures=measures,
                    )
                )
            await session.commit()
    models = {each["name"]: each for each in (await http.get("/api/v1/models")).json()["items"]}
    assert models["llm-a"]["times"] == {"stage": "llm_first_token_ms", "turns": 21, "p50_ms": 110, "p95_ms": 200}
    assert models["tts-a"]["times"]["p95_ms"] == 7
    assert models["stt-a"]["times"] is None


async def test_rights(app: FastAPI) -> None:
    async with client(app, scopes=["calls:read"]) as http:
        for path in ("models", "models/llm-a", "routes"):
            assert (await http.get(f"/api/v1/{path}")).status_code == 403
