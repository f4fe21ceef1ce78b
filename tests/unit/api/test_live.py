"""Following calls: one poll for all who watch one, resumed by id, cut off when too slow, ended with the call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.calls import following
from api.calls.following import Following, Told
from api.db import session_of
from api.db.tables import Call
from api.db.tables.accounts import DEFAULT_TENANT
from api.problems import Problem
from tests.unit.api.backend import backend, client
from tests.unit.api.fake_dispatchers import FakeDispatchers

pytestmark = [pytest.mark.unit, pytest.mark.timeout(60)]

WATCHERS = 200
END = {"type": "ended", "reason": "caller left"}


def now(call: str, tenant: str = "", **fields: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"call": call, "tenant": tenant, "assistant": "default", "began": 1.0, "name": "Ada"}
    about |= {"medium": "standard", "caller": "listening", "assistant_state": "speaking", "turns": 2}
    return about | fields


def caption(text: str, *, final: bool = False) -> dict[str, Any]:
    return {"type": "caption", "who": "caller", "text": text, "final": final}


async def never() -> str | None:
    return None


async def until(ready: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110  # what is looked at tells no event
            await asyncio.sleep(0.005)


@pytest.fixture
def dispatchers(monkeypatch: pytest.MonkeyPatch) -> FakeDispatchers:
    monkeypatch.setattr(following, "PAUSE_SECONDS", (0.01, 0.02))
    return FakeDispatchers()


@pytest.fixture
def followed(dispatchers: FakeDispatchers) -> Following:
    return Following(lambda: dispatchers)


async def collect(followed: Following, call: str = "room", after: str = "") -> list[Told]:
    async with followed.watch(call, after, never) as watcher:
        return [told async for told in watcher.events()]


async def test_two_hundred_watch_with_one_poll(followed: Following, dispatchers: FakeDispatchers) -> None:
    tasks = [asyncio.create_task(collect(followed)) for _ in range(WATCHERS)]
    await until(lambda: dispatchers.polls == 1)
    for number in range(50):
        await dispatchers.tell("room", caption(f"word {number}"))
        await asyncio.sleep(0)
    assert dispatchers.polls <= 1
    await dispatchers.tell("room", END)
    found = await asyncio.gather(*tasks)
    assert all(each == found[0] for each in found)
    assert [event["type"] for _, event in found[0]] == ["caption"] * 50 + ["ended"]
    await until(lambda: dispatchers.polls == 0)
    assert followed.polls == 0
    assert dispatchers.asked["live"] <= 53


async def test_who_comes_back_misses_nothing_and_sees_nothing_twice(
    followed: Following, dispatchers: FakeDispatchers
) -> None:
    await dispatchers.tell("room", *(caption(str(number), final=True) for number in range(10)), END)
    everything = await collect(followed)
    assert len(everything) == 11
    for place, (id, _) in enumerate(everything[:-1], 1):
        assert await collect(followed, after=id) == everything[place:]


async def test_who_comes_late_has_what_was_said_without_what_grew_further(
    followed: Following, dispatchers: FakeDispatchers
) -> None:
    await dispatchers.tell("room", caption("he"), caption("hello"), caption("Hello.", final=True))
    async with followed.watch("room", "", never) as first:
        await until(lambda: len(first.waiting) == 3)
        async with followed.watch("room", "", never) as second:
            assert [event["text"] for _, event in second.waiting] == ["Hello."]
        async with followed.watch("room", "1-0", never) as third:
            assert third.waiting[0][1]["type"] == "gap"


async def test_who_reads_too_slowly_is_cut_off_and_nobody_else(
    followed: Following, dispatchers: FakeDispatchers
) -> None:
    async with followed.watch("room", "", never) as slow, followed.watch("room", "", never) as quick:
        seen: list[Told] = []

        async def read() -> None:
            async for told in quick.events():
                seen.append(told)  # others look at it meanwhile

        reading = asyncio.create_task(read())
        for number in range(following.BEHIND + 10):
            await dispatchers.tell("room", caption(str(number)))
            await until(lambda number=number: len(seen) > number)
        await until(lambda: slow.over)
        await dispatchers.tell("room", END)
        await asyncio.wait_for(reading, 5)
        assert len(seen) == following.BEHIND + 11
        assert [event["type"] async for _, event in slow.events()] == ["cut_off"]


async def test_dispatchers_that_are_away_for_a_moment_lose_nothing(
    followed: Following, dispatchers: FakeDispatchers
) -> None:
    dispatchers.away = True
    task = asyncio.create_task(collect(followed))
    await until(lambda: dispatchers.asked["live"] > 2)
    await dispatchers.tell("room", caption("x", final=True), END)
    dispatchers.away = False
    assert [event["type"] for _, event in await asyncio.wait_for(task, 5)] == ["caption", "ended"]


async def test_a_call_whose_end_nobody_told_ends_for_who_watches(
    followed: Following, dispatchers: FakeDispatchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(following, "ROSTER_SECONDS", 0.0)
    ended: list[str] = []

    async def reason() -> str | None:
        return ended[0] if ended else None

    async with followed.watch("room", "", reason) as watcher:
        await dispatchers.tell("room", now=now("room"))
        await until(lambda: dispatchers.asked["living"] > 1)
        assert not watcher.over
        await dispatchers.state.note("room", None)
        ended.append("lost")
        assert [told async for told in watcher.events()] == [("", {"type": "ended", "reason": "lost"})]


async def test_an_end_after_which_the_caller_came_back_is_none(
    followed: Following, dispatchers: FakeDispatchers
) -> None:
    await dispatchers.tell("room", {"type": "ended", "reason": "caller lost"}, caption("again", final=True))
    async with followed.watch("room", "", never) as watcher:
        await until(lambda: bool(watcher.waiting))
        assert [event["type"] for _, event in watcher.waiting] == ["caption"]
        assert not watcher.over


async def test_so_many_calls_are_followed_at_once(
    followed: Following, dispatchers: FakeDispatchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CALLS", 1)
    async with followed.watch("room", "", never):
        followed.admit("room")
        followed.admit()
        with pytest.raises(Problem, match="1 calls are followed at this server already"):
            followed.admit("other")
    followed.admit("other")


async def test_so_many_follow_calls_at_once(followed: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WATCHERS", 1)
    with followed.counted():
        for call in ("room", None):
            with pytest.raises(Problem, match="1 follow calls at this server already"):
                followed.admit(call)
    followed.admit()


# Over HTTP.


@pytest.fixture
async def app(tmp_path: Path, dispatchers: FakeDispatchers) -> AsyncGenerator[FastAPI]:
    async with backend(tmp_path, dispatchers) as app:
        yield app


async def add(app: FastAPI, *rows: Any, tenant: str = DEFAULT_TENANT) -> None:
    async with session_of(app.state.database, tenant) as session:
        session.add_all(rows)
        await session.commit()


def read(body: str) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    found: list[dict[str, Any]] = []
    for block in body.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({"id": fields.get("id"), "event": fields["event"], **json.loads(fields["data"])})
    return found


async def test_a_stream_has_ids_types_and_an_end(app: FastAPI, dispatchers: FakeDispatchers) -> None:
    await add(app, Call(id="room", status="live"))
    await dispatchers.tell("room", caption("Hello.", final=True), now=now("room"))
    async with client(app) as http:
        request = asyncio.create_task(http.get("/api/v1/calls/room/live"))
        await until(lambda: dispatchers.polls == 1)
        await dispatchers.tell("room", {"type": "turn", "heard": "é\nx", "turn": 1}, END)
        answer = await asyncio.wait_for(request, 5)
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = read(answer.text)
        assert [each["event"] for each in events] == ["caption", "turn", "ended"]
        assert events[1]["heard"] == "é\nx"
        headers = {"last-event-id": events[0]["id"]}
        again = await asyncio.wait_for(http.get("/api/v1/calls/room/live", headers=headers), 5)
        assert read(again.text) == events[1:]
        wrong = await http.get("/api/v1/calls/room/live", headers={"last-event-id": "nonsense"})
        assert wrong.status_code == 422


async def test_a_call_that_has_ended_says_so_at_once(app: FastAPI, dispatchers: FakeDispatchers) -> None:
    await add(app, Call(id="room", status="ended", reason="caller left"))
    async with client(app) as http:
        answer = await asyncio.wait_for(http.get("/api/v1/calls/room/live"), 5)
        assert read(answer.text) == [{"id": None, "event": "ended", "reason": "caller left"}]
        dispatchers.away = True
        answer = await asyncio.wait_for(http.get("/api/v1/calls/room/live"), 5)
        assert read(answer.text)[-1]["event"] == "ended"


async def test_who_finds_no_room_to_follow_is_told_before_the_stream_begins(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(app, Call(id="room", status="live"))
    monkeypatch.setattr(following, "WATCHERS", 0)
    async with client(app) as http:
        for path in ("calls/live", "calls/room/live"):
            answer = await asyncio.wait_for(http.get(f"/api/v1/{path}"), 5)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_a_call_without_a_row_belongs_to_whom_its_agent_says(app: FastAPI, dispatchers: FakeDispatchers) -> None:
    await dispatchers.tell("phone", END, now=now("phone", "ten_other"))
    async with client(app) as http:
        assert (await http.get("/api/v1/calls/phone/live")).status_code == 404
    async with client(app, "ten_other") as http:
        answer = await asyncio.wait_for(http.get("/api/v1/calls/phone/live"), 5)
        assert [each["event"] for each in read(answer.text)] == ["ended"]


async def following_list(events: AsyncGenerator[Any]) -> dict[str, Any]:
    return json.loads((await asyncio.wait_for(anext(events), 5)).data)


async def test_the_list_of_live_calls_is_the_tenants_own_and_changes(
    dispatchers: FakeDispatchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ROSTER_SECONDS", 0.0)
    monkeypatch.setattr("api.routes.live.LIST_SECONDS", 0.01)
    from api.routes.live import _list  # pyright: ignore[reportPrivateUsage]

    await dispatchers.tell("a", now=now("a"))
    await dispatchers.tell("b", now=now("b", "ten_other"))
    events = _list(Following(lambda: dispatchers), DEFAULT_TENANT)
    try:
        first = await following_list(events)
        assert [(each["id"], each["assistant_state"]) for each in first["calls"]] == [("a", "speaking")]
        await dispatchers.tell("a", now=now("a", assistant_state="listening"))
        second = await following_list(events)
        assert second["calls"][0]["assistant_state"] == "listening"
        await dispatchers.state.note("a", None)
        assert await following_list(events) == {"calls": []}
    finally:
        await events.aclose()


async def test_following_needs_its_scope(app: FastAPI) -> None:
    async with client(app, scopes=["calls:write"]) as http:
        for path in ("calls/live", "calls/room/live"):
            answer: httpx.Response = await http.get(f"/api/v1/{path}")
            assert answer.status_code == 403
