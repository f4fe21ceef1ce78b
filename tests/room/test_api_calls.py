"""A call from its start over the API to its transcript: real rooms, real models, LiveKit's own webhooks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest
from livekit import api

from api.db import Database, sqlite_url
from api.records.prices import Prices
from api.records.sink import RecordSink
from cluster.call import Utterance
from cluster.robot import Robot
from tests.conftest import Parley

pytestmark = [pytest.mark.room, pytest.mark.timeout(180)]

Say = Callable[[str], Utterance]
Event = dict[str, Any]


@pytest.fixture
async def http(parley: Parley) -> AsyncGenerator[httpx.AsyncClient]:
    await parley.until_calls(0)
    async with httpx.AsyncClient(base_url=f"{parley.page}/api/v1", timeout=30) as http:
        yield http
    await parley.until_calls(0)


async def follow(http: httpx.AsyncClient, path: str, events: list[Event]) -> None:
    """Append a stream's events until it ends."""
    async with http.stream("GET", path) as stream:
        assert stream.status_code == 200
        kind = ""
        async for line in stream.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                events.append({"event": kind, **json.loads(value)})


async def until(ready: Callable[[], Any], seconds: float, what: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not ready():  # noqa: ASYNC110  # another task fills what is looked at
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what()) from None


def kinds(events: list[Event]) -> list[str]:
    return [each["event"] for each in events]


async def store(parley: Parley, call: str) -> None:
    """Store what this call has told, once it has told its end: the cluster of the tests writes records into a file."""
    lines: list[bytes] = []
    path = parley.home / "records.jsonl"

    def told() -> bool:
        lines[:] = [line for line in path.read_bytes().splitlines() if json.loads(line)["call"] == call]
        return any(json.loads(line)["kind"] == "conversation" and json.loads(line)["reason"] for line in lines)

    await until(told, 20, lambda: [json.loads(line)["kind"] for line in lines])
    database = Database(sqlite_url(parley.home / "parley.db"))
    try:
        await RecordSink(database, Prices()).store(lines)
    finally:
        await database.aclose()


async def settled(http: httpx.AsyncClient, path: str, ready: Callable[[Any], bool], seconds: float = 20) -> Any:
    """Return an answer once it is so: records arrive a moment later."""
    body: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not ready(body := (await http.get(path)).json()):  # noqa: ASYNC110  # nobody tells when a row is written
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(body) from None
    return body


async def test_a_call_is_begun_followed_ended_and_read(http: httpx.AsyncClient, parley: Parley, say: Say) -> None:
    made = (await http.post("/calls", json={"participant_name": "Ada", "annotations": {"ticket": "7"}})).json()
    path = f"/calls/{made['id']}"

    async def enter() -> tuple[str, str]:
        return made["server_url"], made["participant_token"]

    live: list[Event] = []
    lists: list[Event] = []
    everybody = asyncio.create_task(follow(http, "/calls/live", lists))
    following = asyncio.create_task(follow(http, f"{path}/live", live))
    try:
        async with Robot(parley.page, enter) as robot:
            await robot.answered()
            await robot.heard_after(robot.joined, 10)
            await robot.quiet(0.4, 15)
            await robot.say(say("Hello, can you hear me?").samples)
            await until(lambda: "turn" in kinds(live), 30, lambda: live)
            mine = [call for each in lists for call in each["calls"] if call["id"] == made["id"]]
            assert mine, lists
            assert mine[-1]["caller"] == "Ada"
            ended = await http.post(f"{path}/end")
            assert ended.status_code == 200, ended.text
            await asyncio.wait_for(following, 15)
    finally:
        everybody.cancel()
        following.cancel()
    turn = next(each for each in live if each["event"] == "turn")
    assert turn["heard"]
    assert turn["answer"]
    captions = [each for each in live if each["event"] == "caption"]
    for who in ("caller", "assistant"):
        mine = [each for each in captions if each["who"] == who]
        assert mine, who
        assert any(each["final"] for each in mine), mine
    states = {each["assistant"] for each in live if each["event"] == "state"}
    assert {"thinking", "speaking", "listening"} <= states
    assert live[-1] == {"event": "ended", "reason": "ended by API", "at": live[-1]["at"]}

    await store(parley, made["id"])
    shown = (await http.get(path)).json()
    assert shown["status"] == "ended"
    assert shown["turns"] > 0
    assert (shown["reason"], shown["annotations"]) == ("ended by API", {"ticket": "7"})
    assert "Ada" in [each["name"] for each in shown["participants"]]
    turns = (await http.get(f"{path}/turns")).json()["items"]
    assert turns[0]["heard"] == turn["heard"]
    assert turns[0]["models"].keys() >= {"stt", "llm", "tts"}
    written = (await http.get(f"{path}/transcript")).json()
    assert turn["heard"] in [each["text"] for each in written["said"]]
    text = (await http.get(f"{path}/transcript", params={"format": "text"})).text
    assert f"Ada: {turn['heard']}" in text
    vtt = (await http.get(f"{path}/transcript", headers={"accept": "text/vtt"})).text
    assert vtt.startswith("WEBVTT\n\n00:00:")
    assert f"<v Ada>{turn['heard']}</v>" in vtt
    assert "<v default>" in vtt

    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).status_code == 404


async def test_livekit_tells_of_a_room_that_no_agent_has_joined(http: httpx.AsyncClient, parley: Parley) -> None:
    """Nobody carries this call: only LiveKit's webhook can say that it is over."""
    made = (await http.post("/calls", json={})).json()
    url = made["server_url"].replace("ws://", "http://")
    async with api.LiveKitAPI(url, parley.keys.key, parley.keys.secret) as livekit:
        await livekit.room.create_room(api.CreateRoomRequest(name=made["id"]))
        await livekit.room.delete_room(api.DeleteRoomRequest(room=made["id"]))
    call = await settled(http, f"/calls/{made['id']}", lambda call: call["status"] == "ended", 15)
    assert call["reason"] == "room closed"
