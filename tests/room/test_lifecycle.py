"""The life of a call as LiveKit tells it, in a real room: the order that docs/lifecycle.md promises."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.rtc._proto.room_pb2 import SimulateScenarioKind

from agent.recorder import Recorder
from agent.state import Lease
from cluster.call import Utterance
from cluster.robot import Robot
from tests.conftest import ROOT, Parley
from tests.installed.parley_test_hooks import TROUBLE
from tests.room.doors import Door, Event, has, matches

pytestmark = [pytest.mark.room, pytest.mark.timeout(120)]

Say = Callable[[str], Utterance]
QUESTION = "Hello, can you hear me?"
DIGITS = {"5": 5, "1": 1, "2": 2, "#": 11}
PHONE = {
    "sip.phoneNumber": "+15550100",
    "sip.trunkPhoneNumber": "+15550199",
    "sip.callID": "SCL_test",
    "sip.callStatus": "active",
}


@pytest.fixture(autouse=True)
async def all_lines_free(parley: Parley) -> AsyncGenerator[None]:
    await parley.until_calls(0)
    yield
    await parley.until_calls(0)


async def greeted(robot: Robot) -> None:
    await robot.answered()
    await robot.heard_after(robot.joined, 10)
    await robot.quiet(0.5, 15)


def promised(heading: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a table of docs/lifecycle.md: types of events with the values that it names, in its order."""
    page = (ROOT / "docs" / "lifecycle.md").read_text()
    table = page.split(f"\n### {heading}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE)
    return [
        (kind, {k: json.loads(v) for k, v in re.findall(r'`(\w+)`: ("[^"]*"|\S+)', values)}) for kind, values in rows
    ]


def in_order(events: list[Event], promise: list[tuple[str, dict[str, Any]]]) -> None:
    """Fail unless what is promised came, in this order, whatever came between."""
    assert len(promise) > 4, "the table is not there"
    rest = iter(events)
    for number, (kind, values) in enumerate(promise, start=1):
        if not any(matches(each, kind, values) for each in rest):
            raise AssertionError(f"row {number}, {kind} {values}, did not come after the rows before it")


async def test_the_events_of_a_call_come_as_the_page_says(parley: Parley, say: Say) -> None:
    door = Door(parley)
    async with Robot(parley.page, door.access("ada")) as robot:
        await greeted(robot)
        await robot.say(say(QUESTION).samples)
        await asyncio.wait_for(robot.turns.get(), 20)
        await robot.quiet(0.5, 15)
        me = robot.room.local_participant
        (microphone,) = me.track_publications.values()
        track = cast(rtc.LocalAudioTrack, microphone.track)
        track.mute()
        await door.until(has("track_muted"))
        track.unmute()
        await door.until(has("track_unmuted"))
        await me.publish_data(b"12345", topic="app.note")
        await door.until(has("data_received", topic="app.note", size=5, sender="ada"))
        await me.set_attributes({"app.page": "pricelist"})
        await door.until(has("participant_attributes_changed", changed={"app.page": "pricelist"}))
        await me.set_name("Ada")
        await me.set_metadata("vip")
        await door.until(has("participant_metadata_changed", metadata="vip"))
    events = await door.until(has("cleanup"))
    in_order(events, promised("A call"))
    in_order([each for each in events if each.get("identity") == "ada"], promised("A track"))
    told = {kind for heading in ("A call", "A track", "At any time") for kind, _ in promised(heading)}
    assert {each["type"] for each in events} <= told
    assert [each["sequence"] for each in events] == list(range(1, len(events) + 1))
    once = ("entrypoint", "connect", "process", "close", "cleanup", "participant_connected", "participant_disconnected")
    assert {kind: sum(each["type"] == kind for each in events) for kind in once} == dict.fromkeys(once, 1)
    assert (events[0]["type"], events[-1]["type"]) == ("entrypoint", "cleanup")
    for log in (parley.logs / "serve").rglob("*.log"):
        assert "pricelist" not in log.read_text(errors="replace"), "what a caller sent is in a log"


async def test_the_backend_is_told_of_a_call(parley: Parley, say: Say) -> None:
    door = Door(parley)
    async with Robot(parley.page, door.access("ada", attributes={"app.user": "17"})) as robot:
        await greeted(robot)
        await robot.type("What is your name?")
        turn = await asyncio.wait_for(robot.turns.get(), 20)
    await door.until(has("cleanup"))
    async with asyncio.timeout(10):
        while not any(each["kind"] == "conversation" for each in door.records()):  # noqa: ASYNC110  # the courier's file
            await asyncio.sleep(0.1)
    records = [each for each in door.records() if each["kind"] != "events"]
    kinds = [each["kind"] for each in records]
    assert kinds[:2] == ["agent_joined", "participant_connected"]
    assert kinds[-2:] == ["participant_disconnected", "conversation"]
    assert records[1]["attributes"] == {"app.user": "17"}
    (told,) = (each for each in records if each["kind"] == "turn")
    assert (told["heard"], told["answer"], told["typed"]) == (turn["heard"], turn["answer"], True)
    used = {each["role"]: each["used"] for each in records if each["kind"] == "usage"}
    assert used["llm"]["completion_tokens"] > 0
    assert used["tts"]["audio_seconds"] > 0
    assert records[-1]["reason"] == "caller left"
    assert [each["role"] for each in records[-1]["messages"]] == ["assistant", "user", "assistant"]


async def test_of_two_people_one_is_served_both_hear_and_the_other_one_follows(parley: Parley, say: Say) -> None:
    door, question = Door(parley), say(QUESTION)
    async with AsyncExitStack() as stack:
        first = Robot(parley.page, door.access("ada"))
        await stack.enter_async_context(first)
        await stack.enter_async_context(Robot(parley.page, door.access("tape", kind="egress", first=False)))
        second = await stack.enter_async_context(Robot(parley.page, door.access("bert", first=False)))
        await greeted(first)
        await door.until(has("participant_connected", identity="bert"))
        asked = await first.say(question.samples)
        await asyncio.gather(first.heard_after(asked, 20), second.heard_after(asked, 20))
        await asyncio.gather(*(asyncio.wait_for(each.turns.get(), 20) for each in (first, second)))
        await first.quiet(0.5, 15)
        before = len(door.events())
        await second.say(question.samples)
        await asyncio.sleep(2)  # nothing is to happen
        assert not any(each["type"] == "user_input_transcribed" for each in door.events()[before:])
        await first.aclose()
        await door.until(has("participant_disconnected", identity="ada"))
        asked = await second.say(question.samples)
        await second.heard_after(asked, 20)
        await asyncio.wait_for(second.turns.get(), 20)
        await second.aclose()
        # Who records is still there, and nobody to talk to.
        events = await door.until(has("cleanup", reason="caller left"), 8)
    kinds = {each["identity"]: each["kind"] for each in events if each["type"] == "participant_connected"}
    assert kinds == {"tape": "egress", "ada": "standard", "bert": "standard"}


async def test_a_caller_who_is_first_is_served_though_another_was_listed_first(parley: Parley) -> None:
    door = Door(parley)
    async with (
        Robot(parley.page, door.access("zoe", first=False)) as first,
        Robot(parley.page, door.access("ada", first=False)) as second,
    ):
        await door.dispatch()
        await greeted(first)
        await second.type("Who are you?")
        await first.type("What is your name?")
        turn = await asyncio.wait_for(first.turns.get(), 20)
        assert turn["heard"] == "What is your name?"


async def test_a_phone_is_a_caller_its_keys_are_told_and_its_hang_up_ends_the_call(parley: Parley) -> None:
    door = Door(parley)
    async with Robot(parley.page, door.access("sip_+15550100", kind="sip", attributes=PHONE)) as phone:
        await greeted(phone)
        for digit in "12":
            await phone.room.local_participant.publish_dtmf(code=DIGITS[digit], digit=digit)
            await asyncio.sleep(0.3)  # as fingers do
        turn = await asyncio.wait_for(phone.turns.get(), 20)
        assert turn["heard"] == "The caller pressed 1 2."
        assert turn["answer"]
    events = await door.until(has("cleanup", reason="caller left"), 8)
    (caller,) = (each for each in events if each["type"] == "participant_connected")
    assert (caller["kind"], caller["attributes"]) == ("sip", PHONE)
    assert caller["sip"] == {key.removeprefix("sip."): value for key, value in PHONE.items()}
    assert [each["digit"] for each in events if each["type"] == "sip_dtmf_received"] == ["1", "2"]


async def test_a_call_that_moves_says_so_on_both_sides(parley: Parley) -> None:
    door = Door(parley)
    async with Robot(parley.page, door.access("ada")) as robot:
        await greeted(robot)
        await door.move()
        await door.until(lambda all: sum(each["type"] == "process" for each in all) == 2)
        await robot.type("What is your name?")
        await asyncio.wait_for(robot.turns.get(), 20)
    events = await door.until(lambda all: sum(each["type"] == "cleanup" for each in all) == 2)
    second = next(n for n, each in enumerate(events) if each["type"] == "entrypoint" and each["resumed"])
    before, after = [each["type"] for each in events[:second]], [each["type"] for each in events[second:]]
    assert "call_moved" in before
    # The lease is free before all is tidied up: the next replica may begin meanwhile.
    end = [each["type"] for each in events if each["type"] in ("call_moved", "close", "cleanup")]
    assert end[:3] == ["call_moved", "close", "cleanup"]
    # What the one before tells of its end may stand between them.
    begun = [after.index(each) for each in ("entrypoint", "call_resumed", "connect")]
    assert begun == sorted(begun)
    assert has("call_resumed", epoch=2, open_question=False)(events)
    assert [each["reason"] for each in events if each["type"] == "cleanup"] == ["moved", "caller left"]


async def test_a_hook_that_blocks_and_fails_is_not_heard(parley: Parley, say: Say) -> None:
    door = Door(parley, TROUBLE)
    async with Robot(parley.page, door.access("ada")) as robot:
        await greeted(robot)
        for _ in range(2):
            asked = await robot.say(say(QUESTION).samples)
            heard = await robot.heard_after(asked, 20)
            turn = await asyncio.wait_for(robot.turns.get(), 20)
            assert turn["error"] is None
            assert heard - asked < 4
            await robot.quiet(0.5, 15)
    await door.until(has("cleanup", reason="caller left"), 8)


@pytest.mark.parametrize("scenario", ["SIMULATE_SIGNAL_RECONNECT", "SIMULATE_FULL_RECONNECT"])
async def test_a_lost_connection_is_told(parley: Parley, scenario: str) -> None:
    door = Door(parley)
    url, token = await door.access("ada", first=False)()
    room, recorder = rtc.Room(), Recorder(Lease(door.room, "here", "", 1, 10.0))
    recorder.watch_room(room)
    back = asyncio.Event()
    room.on("reconnected", back.set)
    try:
        async with asyncio.timeout(30):
            await room.connect(url, token)
            recorder.connect(room)
            kinds = cast(Any, SimulateScenarioKind)
            await room.simulate_scenario(kinds.Value(scenario))
            await back.wait()
    finally:
        async with asyncio.timeout(10):
            await room.disconnect()
    # Whether the room's end is told depends on which message comes first.
    assert [each.type for each in recorder.log][:3] == ["connect", "reconnecting", "reconnected"]
