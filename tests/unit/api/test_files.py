"""Files over the API: who may send them, what is stored, how they come back."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from livekit import api
from obstore.store import S3Store

from agent.documents import report
from agent.files import new_file_id, plain
from api import directory
from api.db import session_of
from api.db.tables import Call, File
from api.db.tables.accounts import DEFAULT_TENANT
from api.filing import keep
from api.routes.uploads import FILE_BYTES, KNOWLEDGE_FILES
from api.storage import Storage, StorageAway
from serve.errors import Unavailable
from tests.unit.api.backend import SECRET, backend, client

pytestmark = pytest.mark.unit
URL = "/api/v1/calls/call-1/files"
KNOWLEDGE = "/api/v1/assistants/{}/files"


class FakeDispatchers:
    """Stands where the dispatchers' handle does; files without a call are really read."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.asked: list[tuple[str, str, bytes]] = []

    def options(self, method_name: str) -> FakeDispatchers:
        self.method = method_name
        return self

    async def remote(self, *args: Any) -> Any:
        if self.method == "read":
            return await report(*args)
        assert self.method == "file"
        self.asked.append(args)  # type: ignore[arg-type]
        if isinstance(self.answer, Exception):
            raise self.answer
        read = {"status": "read", "file": new_file_id(), "name": plain(args[1]), "kind": "text/plain"}
        said = {"characters": 5, "note": "", "reason": "", "code": ""}
        return {**read, **said, **self.answer} if self.answer != {} else None


@pytest.fixture
def dispatchers() -> FakeDispatchers:
    fake = FakeDispatchers()
    fake.answer = {"note": "all of it"}
    return fake


@pytest.fixture
async def app(tmp_path: Path, livekit_keys: None, dispatchers: FakeDispatchers) -> AsyncGenerator[FastAPI]:
    async with backend(tmp_path, dispatchers) as made:
        for tenant, call in ((DEFAULT_TENANT, "call-1"), ("ten_other", "call-2")):
            async with session_of(made.state.database, tenant) as session:
                session.add(Call(id=call))
                await session.commit()
        yield made


@pytest.fixture
async def http(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(app) as opened:
        yield opened


def stored(tmp_path: Path) -> list[Path]:
    home = Path(os.environ["PARLEY_HOME"])
    return [each for each in (home / "files").rglob("*") if each.is_file()]


async def sent(http: httpx.AsyncClient, data: bytes = b"hello", name: str = "a.txt", url: str = URL) -> httpx.Response:
    return await http.post(url, files={"file": (name, data, "text/html")})


async def test_a_file_goes_to_the_call_and_is_stored(
    http: httpx.AsyncClient, dispatchers: FakeDispatchers, tmp_path: Path
) -> None:
    answer = await sent(http, b"hello", "../../etc/größe.txt")
    assert answer.status_code == 201, answer.text
    about = answer.json()
    # Neither its name nor the type that was declared is believed.
    assert (about["name"], about["media_type"], about["size"], about["stored"]) == ("größe.txt", "text/plain", 5, True)
    assert (about["call_id"], about["characters"], about["note"]) == ("call-1", 5, "all of it")
    assert dispatchers.asked[0][2] == b"hello"
    assert [each.read_bytes() for each in stored(tmp_path)] == [b"hello"]
    at = f"/api/v1/files/{about['id']}"
    detail = (await http.get(at)).json()
    assert detail["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert [each["id"] for each in (await http.get("/api/v1/files", params={"call": "call-1"})).json()["items"]] == [
        about["id"]
    ]
    assert (await http.get("/api/v1/files", params={"assistant": "asst_1"})).json()["items"] == []
    assert (await http.delete(at)).status_code == 204
    assert stored(tmp_path) == []
    assert (await http.get(at)).status_code == 404


async def test_downloads_are_by_links_that_run_out(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"<script>alert(1)</script>" * 100
    about = (await sent(http, data, 'a";\r\nx: y.html')).json()
    at = f"/api/v1/files/{about['id']}"
    link = await http.post(f"{at}/link")
    assert link.status_code == 201
    address = urlsplit(str(link.json()["url"]))
    anybody = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with anybody:
        answer = await anybody.get(f"{address.path}?{address.query}")
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["content-disposition"].startswith("attachment; ")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "x" not in answer.headers
        assert (await anybody.get(address.path)).status_code == 401
        assert (await anybody.get(f"{address.path}?token=forged")).status_code == 403
        another = (await sent(http)).json()["id"]
        assert (await anybody.get(f"/api/v1/files/{another}/content?{address.query}")).status_code == 403
        monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 4e9)
        assert (await anybody.get(f"{address.path}?{address.query}")).status_code == 403
    assert (await http.get(f"{at}/content")).content == data


async def test_a_store_that_signs_is_sent_to(app: FastAPI, http: httpx.AsyncClient) -> None:
    about = (await sent(http)).json()
    app.state.storage = Storage(S3Store("bucket", region="eu", access_key_id="id", secret_access_key="key"))
    answer = await http.get(f"/api/v1/files/{about['id']}/content")
    assert answer.status_code == 302
    assert "X-Amz-Signature" in answer.headers["location"]
    link = await http.post(f"/api/v1/files/{about['id']}/link")
    assert "X-Amz-Expires=300" in link.json()["url"]


@pytest.mark.parametrize(
    ("code", "status"),
    [("too_large", 413), ("unsupported", 415), ("unreadable", 422), ("too_many", 409), ("busy", 503)],
)
async def test_refusals_are_problems_and_nothing_is_stored(
    http: httpx.AsyncClient, dispatchers: FakeDispatchers, code: str, status: int, tmp_path: Path
) -> None:
    dispatchers.answer = {"status": "refused", "code": code, "reason": "is not right; send another"}
    answer = await sent(http)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "a.txt is not right; send another"
    assert answer.json()["code"] == code
    assert stored(tmp_path) == []


async def test_calls_that_are_not_there(http: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    assert (await sent(http, url="/api/v1/calls/call-9/files")).status_code == 404
    assert (await sent(http, url="/api/v1/calls/call-2/files")).status_code == 404, "another tenant's"
    assert dispatchers.asked == []
    dispatchers.answer = {}
    gone = await sent(http)
    assert (gone.status_code, gone.json()["title"]) == (404, "No such call")


async def test_dispatchers_that_fail_are_503(http: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    dispatchers.answer = Unavailable("not every agent answered; send the file again")
    answer = await sent(http)
    assert answer.status_code == 503
    assert "send the file again" in answer.json()["detail"]


async def test_a_store_that_is_away_does_not_take_a_file_from_its_call(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise StorageAway

    monkeypatch.setattr(app.state.storage, "put", away)
    answer = await sent(http)
    assert (answer.status_code, answer.json()["stored"]) == (201, False)


async def test_what_is_no_form_with_one_file_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post(URL, json={})).status_code == 415
    two = await http.post(URL, data={"x": "1"}, files={"file": ("a", b"1"), "more": ("b", b"2")})
    assert two.status_code == 422
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert (await http.post(URL, content=b"junk", headers=broken)).status_code == 422


async def test_size_is_bounded(http: httpx.AsyncClient, dispatchers: FakeDispatchers) -> None:
    assert (await sent(http, bytes(FILE_BYTES))).status_code == 201
    for size in (FILE_BYTES + 1, FILE_BYTES + 2**20):
        answer = await sent(http, bytes(size))
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
    assert len(dispatchers.asked) == 1


def token(room: str, secret: str = SECRET) -> str:
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken("key", secret).with_identity("ada").with_grants(grants).to_jwt()


@pytest.mark.parametrize(
    ("bearer", "status"),
    [
        (None, 401),
        ("", 401),
        (token("call-1"), 201),
        (token("call-2"), 401),
        (token("call-1", "another-secret-that-is-long-enough"), 401),
    ],
)
async def test_a_callers_token_is_good_for_their_own_call(
    app: FastAPI, http: httpx.AsyncClient, dispatchers: FakeDispatchers, bearer: str | None, status: int
) -> None:
    del http.headers["x-test-tenant"]
    headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
    answer = await http.post(URL, files={"file": ("a.txt", b"hello")}, headers=headers)
    assert answer.status_code == status
    assert len(dispatchers.asked) == (status == 201)
    if status == 201:
        assert answer.json()["sender"] == "ada"
        # It opens nothing else.
        assert (await http.get(f"/api/v1/files/{answer.json()['id']}", headers=headers)).status_code == 401


async def test_scopes_and_tenants(app: FastAPI, http: httpx.AsyncClient) -> None:
    about = (await sent(http)).json()
    at = f"/api/v1/files/{about['id']}"
    async with client(app, scopes=["files:read"]) as reader:
        assert (await sent(reader)).status_code == 403
        assert (await reader.delete(at)).status_code == 403
        assert (await reader.get(f"{at}/content")).status_code == 200
    async with client(app, "ten_other") as stranger:
        assert (await stranger.get("/api/v1/files")).json()["items"] == []
        for method, path in (("GET", at), ("DELETE", at), ("POST", f"{at}/link"), ("GET", f"{at}/content")):
            assert (await stranger.request(method, path)).status_code == 404


async def assistant(http: httpx.AsyncClient) -> str:
    answer = await http.post("/api/v1/assistants", json={"name": "Desk", "definition": {}})
    return answer.json()["id"]


async def test_an_assistant_knows_its_files(app: FastAPI, http: httpx.AsyncClient, tmp_path: Path) -> None:
    id = await assistant(http)
    url = KNOWLEDGE.format(id)
    first = await sent(http, b"We are closed on Mondays.", "hours.txt", url)
    assert first.status_code == 201, first.text
    assert (first.json()["assistant_id"], first.json()["characters"]) == (id, 25)
    assert (await sent(http, b"item,price\ntea,2\nmilk,1\n", "prices.csv", url)).json()["media_type"] == "text/csv"
    assert (await sent(http, b"We are closed on Sundays.", "dir/hours.txt", url)).status_code == 201
    told = await directory.assistant(app.state.database, id, "")
    assert told is not None
    assert [(each["name"], each["text"][:24]) for each in told["files"]] == [
        ("hours.txt", "We are closed on Sundays"),
        ("prices.csv", "item: tea; price: 2\nitem"),
    ]
    assert len(stored(tmp_path)) == 2, "what was replaced is gone"
    for data, status in ((bytes(range(256)) * 8, 415), (b"\x89PNG\r\n\x1a\n" + bytes(64), 415), (b"", 422)):
        assert (await sent(http, data, "x.txt", url)).status_code == status
    assert len(stored(tmp_path)) == 2
    async with client(app, "ten_other") as stranger:
        assert (await sent(stranger, url=url)).status_code == 404
    assert (await sent(http, url=KNOWLEDGE.format("asst_nobody"))).status_code == 404


async def test_knowledge_is_bounded(app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    id = await assistant(http)
    async with session_of(app.state.database, DEFAULT_TENANT) as session:
        for number in range(KNOWLEDGE_FILES):
            text = f"{number} " * 20_000
            session.add(File(assistant_id=id, name=f"{number}.txt", media_type="text/plain", size=1, text=text))
        await session.commit()
    assert (await sent(http, b"more", "more.txt", KNOWLEDGE.format(id))).status_code == 409
    assert (await sent(http, b"other", "3.txt", KNOWLEDGE.format(id))).status_code == 201
    told = await directory.assistant(app.state.database, id, "")
    assert told is not None
    assert sum(len(each["text"]) for each in told["files"]) == directory.KNOWLEDGE_CHARACTERS


async def test_bytes_from_the_room_meet_their_record_in_either_order(app: FastAPI, tmp_path: Path) -> None:
    database, storage = app.state.database, app.state.storage
    early, late = new_file_id(), new_file_id()
    assert await keep(database, storage, "", "call-1", early, "a.txt", "text/plain", b"hello")
    async with session_of(database, DEFAULT_TENANT) as session:
        session.add(File(id=late, call_id="call-1", name="b.txt", media_type="text/plain", size=5, text="from record"))
        await session.commit()
    for _ in range(2):
        assert await keep(database, storage, "", "call-1", late, "b.txt", "text/plain", b"later")
    assert len(stored(tmp_path)) == 2
    async with session_of(database, DEFAULT_TENANT) as session:
        row = await session.get(File, late)
        assert row is not None
        assert (row.text, bool(row.location), len(row.digest)) == ("from record", True, 64)
    for tenant, call, id in (
        ("", "call-9", late),
        ("", "call-2", late),
        ("ten_other", "call-2", late),
        ("", "call-1", "x"),
    ):
        assert not await keep(database, storage, tenant, call, id, "c.txt", "text/plain", b"stray")
    assert b"stray" not in {each.read_bytes() for each in stored(tmp_path)}
