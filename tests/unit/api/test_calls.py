"""Calls over the API: begun, listed, read, ended, deleted, exported."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from api.calls import ending
from api.db import session_of
from api.db.tables import Call, CallEvent, DeletedCall, Participant, Turn, Usage
from api.db.tables.accounts import DEFAULT_TENANT
from tests.unit.api.backend import SECRET, backend, client
from tests.unit.api.fake_dispatchers import FakeDispatchers

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("livekit_keys")]

T0 = datetime.datetime(2026, 5, 4, 9, 0, tzinfo=datetime.UTC)


@dataclass
class Here:
    """An application with its fakes, and somebody who may do everything."""

    app: FastAPI
    http: httpx.AsyncClient
    dispatchers: FakeDispatchers

    async def add(self, *rows: Any, tenant: str = DEFAULT_TENANT) -> None:
        async with session_of(self.app.state.database, tenant) as session:
            for row in rows:
                session.add(row)
                await session.flush()
            await session.commit()

    async def count(self, table: Any) -> int:
        async with self.app.state.database.system() as session:
            return await session.scalar(select(func.count()).select_from(table)) or 0


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[Here]:
    dispatchers = FakeDispatchers()
    async with backend(tmp_path, dispatchers) as app, client(app) as http:
        yield Here(app, http, dispatchers)


def call(number: int, **fields: Any) -> Call:
    about: dict[str, Any] = {
        "id": f"call-{number}",
        "status": "ended",
        "created_at": T0 + datetime.timedelta(minutes=number),
        "answered_at": T0 + datetime.timedelta(minutes=number),
        "caller": f"Caller {number}",
    }
    return Call(**(about | fields))


def turn(of: int, number: int, **fields: Any) -> Turn:
    at = T0 + datetime.timedelta(minutes=of, seconds=10 * number)
    spoken = at.timestamp()
    measures = {
        "stages": {"stt_ms": 100},
        "timeline": [{"stage": "stt", "from_ms": 0, "to_ms": 100}],
        "models": {"llm": "llm-a"},
        "retries": 0,
        "fallback": None,
        "times": {"question": [spoken - 6, spoken - 5], "answer": [spoken - 4, spoken]},
    }
    about: dict[str, Any] = {"id": f"t-{of}-{number}", "call_id": f"call-{of}", "number": number, "at": at}
    about |= {"heard": f"Question {number}?", "answer": f"Answer <{number}> & more.", "measures": measures}
    return Turn(**(about | fields))


def claims(answer: httpx.Response) -> dict[str, Any]:
    return jwt.decode(answer.json()["participant_token"], SECRET, algorithms=["HS256"])


async def test_a_call_is_begun_with_its_row_and_a_token(here: Here) -> None:
    body = {"participant_name": "Ada", "annotations": {"ticket": "1042"}}
    answer = await here.http.post("/api/v1/calls", json=body)
    assert answer.status_code == 201, answer.text
    made, token = answer.json(), claims(answer)
    assert token["video"]["room"] == made["id"] == token["roomConfig"]["name"]
    assert token["sub"] == made["participant_identity"]
    assert token["name"] == "Ada"
    asked = {"assistant": "default", "tenant": DEFAULT_TENANT}
    assert [json.loads(each["metadata"]) for each in token["roomConfig"]["agents"]] == [asked]
    assert token["attributes"] == {"parley.assistant": "default", "parley.tenant": DEFAULT_TENANT}
    shown = (await here.http.get(f"/api/v1/calls/{made['id']}")).json()
    assert (shown["status"], shown["caller"], shown["annotations"]) == ("waiting", "Ada", {"ticket": "1042"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"assistant": "nobody"}, "assistant"),
        ({"assistant": ""}, "assistant"),
        ({"participant_name": "x" * 81}, "participant_name"),
        ({"annotations": {"k": "v" * 201}}, "annotations.k"),
        ({"annotations": {str(n): "v" for n in range(21)}}, "annotations"),
        ({"annotations": {"k": {}}}, "annotations.k"),
    ],
)
async def test_what_is_wrong_with_a_new_call_is_named(here: Here, body: dict[str, Any], field: str) -> None:
    answer = await here.http.post("/api/v1/calls", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert await here.count(Call) == 0


async def test_calls_begin_without_a_database_with_who_is_in_the_profile(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise OperationalError("", None, Exception())

    monkeypatch.setattr("api.calls.entry.session_of", away)
    page = await here.http.post("/api/v1/token", json={})
    assert page.status_code == 200
    assert claims(page)["video"]["room"]
    assert (await here.http.post("/api/v1/calls", json={"assistant": "default"})).status_code == 201
    other = await here.http.post("/api/v1/calls", json={"assistant": "asst_1"})
    assert other.status_code == 503
    assert other.headers["retry-after"]


async def test_the_page_needs_no_key_on_one_machine_and_one_elsewhere(tmp_path: Path) -> None:
    async with backend(tmp_path, FakeDispatchers(), local=False) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://parley.example") as nobody:
            assert (await nobody.post("/api/v1/token", json={})).status_code == 401
        async with client(app, scopes=["calls:read"]) as reader:
            assert (await reader.post("/api/v1/token", json={})).status_code == 403
        async with client(app, "ten_other", scopes=["calls:write"]) as writer:
            answer = await writer.post("/api/v1/token", json={})
            assert answer.status_code == 200
            assert claims(answer)["attributes"]["parley.tenant"] == "ten_other"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [4, 3, 2, 1, 0]),
        ("status=live", [4]),
        ("status=live&status=waiting", [4, 3]),
        ("assistant=sales", [2]),
        ("assistant=asst_9", [1]),
        ("medium=sip", [0]),
        ("errors=true", [1]),
        ("errors=false&status=ended", [2, 0]),
        ("caller=CALLER%202", [2]),
        ("caller=%25", []),
        ("from=2026-05-04T09:02:00Z&to=2026-05-04T09:04:00Z", [3, 2]),
        ("from=2026-05-04T11:03:00%2B02:00", [4, 3]),
    ],
)
async def test_calls_are_listed_as_asked_for(here: Here, query: str, found: list[int]) -> None:
    await here.add(
        call(0, medium="sip"),
        call(1, errors=2, assistant_id="asst_9"),
        call(2, assistant="sales"),
        call(3, status="waiting"),
        call(4, status="live"),
    )
    await here.add(call(9), tenant="ten_other")
    answer = await here.http.get(f"/api/v1/calls?{query}")
    assert [each["id"] for each in answer.json()["items"]] == [f"call-{number}" for number in found]


@pytest.mark.parametrize("query", ["from=yesterday", "from=2026-05-04T09:00:00", "status=gone", "limit=0", "after=x"])
async def test_a_wrong_list_is_refused(here: Here, query: str) -> None:
    answer = await here.http.get(f"/api/v1/calls?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith(query.split("=")[0])


async def test_pages_of_calls_turns_and_events_miss_and_repeat_nothing(here: Here) -> None:
    await here.add(*(call(number, created_at=T0) for number in range(7)))
    await here.add(*(turn(0, number) for number in range(7)))
    at = T0 + datetime.timedelta(minutes=1)
    await here.add(*(CallEvent(id=f"e{n}", call_id="call-0", at=at, event="connect") for n in range(7)))
    for path in ("calls", "calls/call-0/turns", "calls/call-0/events"):
        seen: list[str] = []
        following: str | None = None
        while True:
            parameters = {"limit": 3, **({"after": following} if following else {})}
            page = (await here.http.get(f"/api/v1/{path}", params=parameters)).json()
            seen += [each["id"] for each in page["items"]]
            if (following := page["next"]) is None:
                break
        assert len(seen) == 7
        assert seen == sorted(seen, reverse=path == "calls"), path


async def test_a_call_is_shown_with_people_and_cost(here: Here) -> None:
    day = T0.date()
    used = {"call_id": "call-0", "day": day, "role": "llm", "model": "m", "currency": "EUR"}
    await here.add(
        call(0, turns=1, cost=Decimal("0.03"), currency="EUR"),
        Participant(id="p", call_id="call-0", identity="caller-1", name="Ada", joined_at=T0, attributes={"x": "y"}),
        Usage(id="u1", amounts={"prompt_tokens": 5}, cost=Decimal("0.01"), **used),
        Usage(id="u2", amounts={"prompt_tokens": 7, "completion_tokens": 1}, cost=Decimal("0.02"), **used),
    )
    answer = await here.http.get("/api/v1/calls/call-0")
    shown = answer.json()
    assert (Decimal(shown["cost"]), shown["currency"], shown["files"]) == (Decimal("0.03"), "EUR", 0)
    assert [each["identity"] for each in shown["participants"]] == ["caller-1"]
    amounts = {"prompt_tokens": 12, "completion_tokens": 1}
    assert shown["usage"] == [{"role": "llm", "model": "m", "amounts": amounts, "cost": shown["cost"]}]
    assert answer.headers["etag"] == (await here.http.get("/api/v1/calls/call-0")).headers["etag"]


async def test_others_see_nothing_of_it(here: Here) -> None:
    await here.add(call(0), turn(0, 1))
    async with client(here.app, "ten_other") as other:
        for path in ("", "/turns", "/events", "/transcript", "/live"):
            assert (await other.get(f"/api/v1/calls/call-0{path}")).status_code == 404, path
        assert (await other.post("/api/v1/calls/call-0/end")).status_code == 404
        assert (await other.delete("/api/v1/calls/call-0")).status_code == 404
        assert (await other.get("/api/v1/export")).text == ""
    assert here.dispatchers.ended == []
    assert await here.count(Turn) == 1


async def test_a_call_is_ended_through_its_agent_and_once(here: Here) -> None:
    await here.add(call(0, status="live", live_at=T0))
    here.dispatchers.calls = ["call-0"]
    first = await here.http.post("/api/v1/calls/call-0/end")
    assert first.status_code == 200, first.text
    assert (first.json()["status"], first.json()["reason"]) == ("ended", ending.BY_API)
    assert here.dispatchers.ended == [("call-0", ending.BY_API)]
    second = await here.http.post("/api/v1/calls/call-0/end")
    assert second.json() == first.json()
    assert len(here.dispatchers.ended) == 1


async def test_nothing_is_said_to_have_ended_while_nobody_can_be_asked(here: Here) -> None:
    await here.add(call(0, status="live"))
    here.dispatchers.away = True
    answer = await here.http.post("/api/v1/calls/call-0/end")
    assert answer.status_code == 503
    assert (await here.http.delete("/api/v1/calls/call-0")).status_code == 503
    assert (await here.http.get("/api/v1/calls/call-0")).json()["status"] == "live"


async def test_a_deleted_call_leaves_its_bill(here: Here) -> None:
    used = Usage(id="u", call_id="call-0", day=T0.date(), role="llm", model="m", amounts={}, cost=Decimal("0.5"))
    event = CallEvent(call_id="call-0", at=T0, event="connect")
    await here.add(call(0, status="live", live_at=T0), turn(0, 1), event, used)
    here.dispatchers.calls = ["call-0"]
    assert (await here.http.delete("/api/v1/calls/call-0")).status_code == 204
    assert here.dispatchers.ended == [("call-0", ending.BY_API)]
    assert (await here.http.get("/api/v1/calls/call-0")).status_code == 404
    assert [await here.count(each) for each in (Call, Turn, CallEvent, DeletedCall)] == [0, 0, 0, 1]
    async with here.app.state.database.system() as session:
        row = (await session.scalars(select(Usage).where(Usage.id == "u"))).one()
        assert (row.call_id, row.cost) == (None, Decimal("0.5"))
    assert (await here.http.delete("/api/v1/calls/call-0")).status_code == 404


async def test_the_transcript_has_three_formats(here: Here) -> None:
    greeting = [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Question 1?"}]
    strange = turn(0, 2, heard="a -->\n\n<b>", interrupted=True, measures={})
    await here.add(call(0, messages=greeting, caller="Ada <x>"), turn(0, 1), strange)
    url = "/api/v1/calls/call-0/transcript"
    found = (await here.http.get(url)).json()
    assert [(each["speaker"], each["text"], each["begin"]) for each in found["said"][:3]] == [
        ("assistant", "Hello!", None),
        ("caller", "Question 1?", 4.0),
        ("assistant", "Answer <1> & more.", 6.0),
    ]
    assert found["said"][4]["interrupted"]
    text = await here.http.get(url, params={"format": "text"})
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.splitlines() == [
        "default: Hello!",
        "[00:04] Ada <x>: Question 1?",
        "[00:06] default: Answer <1> & more.",
        "Ada <x>: a --> <b>",
        "default: Answer <2> & more.",
    ]
    vtt = await here.http.get(url, headers={"accept": "text/vtt"})
    assert vtt.headers["content-type"].startswith("text/vtt")
    assert vtt.text == (
        "WEBVTT\n\n"
        "00:00:04.000 --> 00:00:05.000\n<v Ada &lt;x&gt;>Question 1?</v>\n\n"
        "00:00:06.000 --> 00:00:10.000\n<v default>Answer &lt;1&gt; &amp; more.</v>\n"
    )
    again = await here.http.get(url, headers={"accept": "text/vtt", "if-none-match": vtt.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await here.http.get(url, headers={"if-none-match": vtt.headers["etag"]})).status_code == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html, text/*;q=0.5", "text/plain"),
        ("text/plain;q=0.2, text/vtt;q=0.9", "text/vtt"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/vtt;q=x, text/plain", "text/plain"),
        ("image/png", "406"),
        ("text/vtt;q=0", "406"),
    ],
)
async def test_accept_chooses_a_format(here: Here, accept: str, kind: str) -> None:
    await here.add(call(0))
    answer = await here.http.get("/api/v1/calls/call-0/transcript", headers={"accept": accept})
    assert kind in (answer.headers["content-type"].split(";")[0], str(answer.status_code))


async def test_an_export_has_every_call_once(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.routes.calls.EXPORT_CALLS", 2)
    await here.add(*(call(number, created_at=T0) for number in range(5)), turn(3, 1), turn(3, 2))
    answer = await here.http.get("/api/v1/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["id"] for line in lines] == [f"call-{number}" for number in range(5)]
    assert [each["heard"] for each in lines[3]["transcript"]] == ["Question 1?", "Question 2?"]
