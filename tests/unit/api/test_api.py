"""The API by itself: tokens, health, limits, and who is let in."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import jwt
import pytest

from api.app import create_app
from api.config import ApiConfig
from api.db import migrate
from api.db.tables.accounts import DEFAULT_TENANT
from serve.settings import settings
from tests.unit.api.backend import SECRET

pytestmark = pytest.mark.unit


class FakeDispatchers:
    """Stands where the dispatchers' handle does."""

    def __init__(self, calls: list[list[str] | None] | Exception) -> None:
        self.answer = calls

    def broadcast(self, method: str) -> FakeDispatchers:
        assert method == "calls"
        return self

    async def results_async(self) -> list[list[str] | None]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def client(
    livekit_keys: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncGenerator[httpx.AsyncClient]:
    monkeypatch.setenv("LIVEKIT_URL", "ws://127.0.0.1:7880")
    settings.cache_clear()
    dispatchers = FakeDispatchers(getattr(request, "param", [["a", "b"], ["c"]]))
    app = create_app(ApiConfig(), "parley", lambda: dispatchers, assistants=["default", "sales"])
    await migrate.upgrade(app.state.database)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as http:
        yield http


def claims(answer: httpx.Response) -> dict[str, Any]:
    return jwt.decode(answer.json()["participant_token"], SECRET, algorithms=["HS256"])


async def test_a_token_names_room_caller_and_agent_and_lives_minutes(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/token", json={"participant_name": "Ada"})
    assert answer.status_code == 200
    assert answer.json()["server_url"] == "ws://127.0.0.1:7880"
    token = claims(answer)
    assert token["name"] == "Ada"
    assert token["video"]["room"] == token["roomConfig"]["name"]
    metadata = json.dumps({"assistant": "default", "tenant": DEFAULT_TENANT})
    assert token["roomConfig"]["agents"] == [{"agentName": "parley", "metadata": metadata}]
    assert 0 < token["exp"] - time.time() <= 600
    assert "roomAdmin" not in token["video"]


async def test_every_call_has_a_room_of_its_own_whatever_the_caller_asks(client: httpx.AsyncClient) -> None:
    wish: dict[str, Any] = {
        "room_name": "call-of-somebody",
        "participant_identity": "agent-1",
        "room_config": {"agents": []},
    }
    first, second = [claims(await client.post("/api/v1/token", json=wish)) for _ in range(2)]
    assert first["video"]["room"] != second["video"]["room"]
    assert "call-of-somebody" not in (first["video"]["room"], second["video"]["room"])
    assert first["sub"] != "agent-1"
    assert [each["agentName"] for each in first["roomConfig"]["agents"]] == ["parley"]


async def test_a_caller_may_choose_who_answers(client: httpx.AsyncClient) -> None:
    token = claims(await client.post("/api/v1/token", json={"assistant": "sales"}))
    assert token["attributes"] == {"parley.assistant": "sales", "parley.tenant": DEFAULT_TENANT}
    asked = {"assistant": "sales", "tenant": DEFAULT_TENANT}
    assert [json.loads(each["metadata"]) for each in token["roomConfig"]["agents"]] == [asked]
    assert not token["video"].get("canUpdateOwnMetadata"), "who answers is chosen once"


async def test_who_is_not_there_is_refused_with_the_choices(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/token", json={"assistant": "nobody"})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "assistant"
    assert "default, sales" in error["problem"]


async def test_no_body_is_fine(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/token")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
    ],
)
async def test_only_this_machine_is_let_in(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    answer = await client.post("/api/v1/token", json={}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "loopback" in answer.json()["detail"]


async def test_wrong_input_names_the_field(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/token", json={"participant_name": "x" * 500})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == "participant_name"


async def test_malformed_json_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/token", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_are_refused(client: httpx.AsyncClient, chunked: bool) -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    answer = await client.post("/api/v1/token", content=chunks() if chunked else b"x" * 100_000)
    assert answer.status_code == 413


async def test_health_and_status(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    assert (await client.get("/health/ready")).json() == {"status": "ok"}
    assert (await client.get("/api/v1/status")).json() == {"calls": 3}


@pytest.mark.parametrize("client", [RuntimeError("none"), [], [None, None]], indirect=True)
async def test_not_ready_without_a_registered_dispatcher(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/ready")
    assert answer.status_code == 503
    assert (await client.get("/api/v1/status")).status_code == 503
    assert (await client.get("/health/live")).status_code == 200


async def test_openapi_and_unknown_paths(client: httpx.AsyncClient) -> None:
    assert "/api/v1/token" in (await client.get("/api/openapi.json")).json()["paths"]
    answer = await client.get("/api/v1/nothing")
    assert answer.status_code == 404


async def test_answers_carry_security_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/live")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
