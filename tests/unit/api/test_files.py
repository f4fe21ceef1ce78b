"""Files into a call over the API: who may, what is answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from livekit import api

from api.app import create_app
from api.config import ApiConfig
from api.routes.files import FILE_BYTES
from serve.errors import Unavailable
from serve.settings import settings

pytestmark = pytest.mark.unit

SECRET = "a-secret-that-is-long-enough-for-hs256"
READ = {"name": "a.txt", "status": "read", "kind": "text/plain", "characters": 5, "note": "", "reason": "", "code": ""}


class FakeDispatchers:
    """Stands where the dispatchers' handle does."""

    def __init__(self) -> None:
        self.answer: Any = READ
        self.asked: list[tuple[str, str, bytes]] = []

    def options(self, method_name: str) -> FakeDispatchers:
        assert method_name == "file"
        return self

    async def remote(self, room: str, name: str, data: bytes) -> Any:
        self.asked.append((room, name, data))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def dispatchers() -> FakeDispatchers:
    return FakeDispatchers()


@pytest.fixture
async def client(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, dispatchers: FakeDispatchers
) -> AsyncGenerator[httpx.AsyncClient]:
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    monkeypatch.setenv("PARLEY_API_KEYS", "one,two")
    settings.cache_clear()
    app = create_app(ApiConfig(local=getattr(request, "param", True)), "parley", lambda: dispatchers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as http:
        yield http


URL = "/api/v1/calls/call-1/files"


async def test_a_file_goes_to_the_call(client: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    answer = await client.post(URL, files={"file": ("größe.txt", b"hello")})
    assert answer.status_code == 200
    assert answer.json() == {"name": "a.txt", "kind": "text/plain", "characters": 5, "note": ""}
    assert dispatchers.asked == [("call-1", "größe.txt", b"hello")]


@pytest.mark.parametrize(
    ("code", "status"),
    [("too_large", 413), ("unsupported", 415), ("unreadable", 422), ("too_many", 409), ("busy", 503)],
)
async def test_refusals_are_problems(
    client: httpx.AsyncClient, dispatchers: FakeDispatchers, code: str, status: int
) -> None:
    dispatchers.answer = {**READ, "status": "refused", "code": code, "reason": "is not right; send another"}
    answer = await client.post(URL, files={"file": ("a.txt", b"hello")})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "a.txt is not right; send another"
    assert answer.json()["code"] == code


async def test_an_unknown_call_is_404(client: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    dispatchers.answer = None
    answer = await client.post(URL, files={"file": ("a.txt", b"hello")})
    assert answer.status_code == 404
    assert answer.json()["title"] == "No such call"


async def test_dispatchers_that_fail_are_503(client: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    dispatchers.answer = Unavailable("not every agent answered; send the file again")
    answer = await client.post(URL, files={"file": ("a.txt", b"hello")})
    assert answer.status_code == 503
    assert "send the file again" in answer.json()["detail"]


async def test_what_is_no_form_with_one_file_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={})).status_code == 415
    assert (
        await client.post(URL, data={"x": "1"}, files={"file": ("a", b"1"), "more": ("b", b"2")})
    ).status_code == 422
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert (await client.post(URL, content=b"junk", headers=broken)).status_code == 422


async def test_size_is_bounded(client: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    assert (await client.post(URL, files={"file": ("a", bytes(FILE_BYTES))})).status_code == 200
    for size in (FILE_BYTES + 1, FILE_BYTES + 2**20):
        answer = await client.post(URL, files={"file": ("a", bytes(size))})
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
    assert len(dispatchers.asked) == 1


def token(room: str, secret: str = SECRET) -> str:
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken("key", secret).with_identity("ada").with_grants(grants).to_jwt()


@pytest.mark.parametrize("client", [False], indirect=True)
@pytest.mark.parametrize(
    ("bearer", "status"),
    [
        (None, 401),
        ("", 401),
        ("three", 401),
        ("two", 200),
        (token("call-1"), 200),
        (token("call-2"), 401),
        (token("call-1", "another-secret-that-is-long-enough"), 401),
    ],
)
async def test_elsewhere_the_callers_token_or_a_key_is_needed(
    client: httpx.AsyncClient, dispatchers: FakeDispatchers, bearer: str | None, status: int
) -> None:
    headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    answer = await client.post(URL, files={"file": ("a.txt", b"hello")}, headers=headers)
    assert answer.status_code == status
    assert len(dispatchers.asked) == (status == 200)
