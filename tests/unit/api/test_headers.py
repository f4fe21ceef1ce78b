"""What every answer tells browsers, whom pages of other sites may ask as, and how deep a body may be."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from api.config import ApiConfig
from api.depth import deeper_than
from serve.settings import settings
from tests.unit.api.backend import backend, client

pytestmark = pytest.mark.unit

ORIGIN = "https://shop.example.com"


def plain(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


async def test_the_page_reaches_livekit_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", "ws://inside:7880")
    monkeypatch.setenv("LIVEKIT_PUBLIC_URL", "wss://voice.example.com")
    settings.cache_clear()
    async with backend(tmp_path) as app, plain(app) as http:
        policy = (await http.get("/")).headers["content-security-policy"].split("; ")
        assert "connect-src 'self' wss://voice.example.com https://voice.example.com" in policy
        assert "script-src 'self'" in policy
        assert {"default-src 'self'", "frame-ancestors 'none'", "object-src 'none'", "base-uri 'none'"} <= set(policy)


async def test_answers_are_no_pages_and_not_kept(tmp_path: Path) -> None:
    async with backend(tmp_path) as app, client(app) as http:
        for path in ("/api/v1/me", "/api/v1/nothing", "/v1/models", "/health/live"):
            headers = (await http.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'"), path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
        docs, page = (await http.get("/api/docs")).headers, (await http.get("/")).headers
        assert docs["content-security-policy"] == page["content-security-policy"]


@pytest.mark.parametrize("local", [True, False])
async def test_tls_is_held_to_where_there_is_tls(tmp_path: Path, local: bool) -> None:
    async with backend(tmp_path, local=local) as app, plain(app) as http:
        assert ("strict-transport-security" in (await http.get("/health/live")).headers) is not local


async def test_pages_of_other_sites_may_ask_where_they_are_named(tmp_path: Path) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "if-match"}
    async with backend(tmp_path, local=False) as app, client(app) as http:
        assert "access-control-allow-origin" not in (await http.options("/api/v1/keys", headers=asked)).headers
        assert "access-control-allow-origin" not in (await http.get("/api/v1/me", headers={"origin": ORIGIN})).headers
    async with backend(tmp_path / "2", local=False, allowed_origins=[ORIGIN]) as app, client(app) as http:
        before = await http.options("/api/v1/keys", headers=asked)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, ORIGIN)
        answer = await http.get("/api/v1/me", headers={"origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in answer.headers
        other = await http.get("/api/v1/me", headers={"origin": "https://evil.example.com"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("origin", ["*", "shop.example.com", "https://shop.example.com/", "https://*.example.com"])
def test_origins_are_named_one_by_one(origin: str) -> None:
    with pytest.raises(ValidationError):
        ApiConfig(local=False, allowed_origins=[origin])


def test_a_server_for_this_machine_has_no_other_origins() -> None:
    with pytest.raises(ValidationError, match="local: false"):
        ApiConfig(allowed_origins=[ORIGIN])


async def test_deep_json_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    async with backend(tmp_path, max_depth=8) as app, client(app) as http:
        for path in ("/api/v1/keys", "/v1/chat/completions"):
            for depth, status in ((8, (400, 422)), (9, (422,)), (20_000, (422,))):
                body = b"[" * depth + b"]" * depth
                answer = await http.post(path, content=body, headers={"content-type": "application/json"})
                assert answer.status_code in status
                assert ("levels" in answer.text) is (depth > 8), (path, depth)


@pytest.mark.parametrize(
    ("body", "levels"),
    [
        (b"", 0),
        (b"1", 0),
        (b"[]", 1),
        (b'{"a":[1,{"b":"}"}]}', 3),
        (b'"[[[[["', 0),
        (b'{"a":"\\"[[[[\\\\"}', 1),
        (b"[[],[[]],[]]", 3),
        (b"[[[", 3),
    ],
)
def test_depth_of_json(body: bytes, levels: int) -> None:
    assert not deeper_than(body, levels)
    assert levels == 0 or deeper_than(body, levels - 1)
