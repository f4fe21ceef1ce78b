"""Who is served, and when a call is over: on a fake of LiveKit's room, where connections break at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import AgentSession

from agent.keypad import Keypad
from agent.people import People

pytestmark = [pytest.mark.unit, pytest.mark.timeout(20)]

KIND, REASON = rtc.ParticipantKind, rtc.DisconnectReason
ALONE = 0.1


@dataclass
class FakeParticipant:
    """Somebody in the room; `joined` is a second of a minute."""

    identity: str
    joined: int = 0
    kind: Any = KIND.PARTICIPANT_KIND_STANDARD
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    disconnect_reason: Any = None

    @property
    def joined_at(self) -> datetime:
        return datetime(2026, 1, 1, 0, 0, self.joined, tzinfo=UTC)


class FakeRoom(rtc.EventEmitter[str]):
    """Tells who comes and goes as livekit.rtc.Room does."""

    name = "room"

    def __init__(self, *here: FakeParticipant) -> None:
        super().__init__()
        self.remote_participants = {each.identity: each for each in here}

    def join(self, who: FakeParticipant) -> None:
        self.remote_participants[who.identity] = who
        self.emit("participant_connected", who)

    def leave(self, identity: str, reason: Any = REASON.CLIENT_INITIATED) -> None:
        who = self.remote_participants.pop(identity)
        who.disconnect_reason = reason
        self.emit("participant_disconnected", who)


class FakeSession:
    """Notes whom it listens to, and what it is told."""

    def __init__(self) -> None:
        self.linked: list[str] = []
        self.told: list[str] = []
        self.room_io = self

    def set_participant(self, identity: str) -> None:
        self.linked.append(identity)

    async def interrupt(self) -> None:
        self.told.append("interrupt")

    def generate_reply(self, *, user_input: str) -> None:
        self.told.append(user_input)


class Scene:
    def __init__(self, *here: FakeParticipant) -> None:
        self.room, self.session, self.ended = FakeRoom(*here), FakeSession(), list[str]()
        self.people = People(cast(rtc.Room, self.room), self.ended.append, ALONE, back=3 * ALONE)

    def start(self) -> None:
        self.people.start(cast("AgentSession[Any]", self.session))


@asynccontextmanager
async def scene(*here: FakeParticipant) -> AsyncGenerator[Scene]:
    made = Scene(*here)
    try:
        yield made
    finally:
        await made.people.aclose()


async def test_the_one_who_came_first_is_served_then_the_next() -> None:
    async with scene(FakeParticipant("late", 9), FakeParticipant("early", 1), FakeParticipant("between", 5)) as here:
        assert here.people.served == "early"
        here.start()
        here.room.leave("early", REASON.SIGNAL_CLOSE)
        here.room.leave("between")
        assert here.session.linked == ["early", "between", "late"]
        assert here.ended == []
        here.room.leave("late")
        assert here.ended == ["caller left"]


async def test_who_leaves_before_the_session_begins_is_not_served() -> None:
    async with scene(FakeParticipant("ada", 1), FakeParticipant("bert", 2)) as here:
        here.room.leave("ada")
        here.start()
        assert here.session.linked == ["bert"]


@pytest.mark.parametrize(
    "kind", [KIND.PARTICIPANT_KIND_AGENT, KIND.PARTICIPANT_KIND_EGRESS, KIND.PARTICIPANT_KIND_INGRESS]
)
async def test_agents_recorders_and_streams_are_no_people(kind: Any) -> None:
    async with scene(FakeParticipant("other", 0, kind), FakeParticipant("ada", 1)) as here:
        here.start()
        here.room.join(FakeParticipant("another", 2, kind))
        here.room.leave("ada")
        assert (here.session.linked, here.ended) == (["ada"], ["caller left"])


async def test_an_avatar_is_nobody() -> None:
    avatar = FakeParticipant("avatar", 0, attributes={"lk.publish_on_behalf": "agent"})
    async with scene(avatar, FakeParticipant("ada", 1)) as here:
        assert here.people.served == "ada"


async def test_a_caller_who_is_cut_off_may_come_back() -> None:
    async with scene(FakeParticipant("ada")) as here:
        here.start()
        here.room.leave("ada", REASON.SIGNAL_CLOSE)
        await asyncio.sleep(ALONE / 2)
        here.room.join(FakeParticipant("ada"))
        await asyncio.sleep(ALONE * 2)
        assert (here.ended, here.people.served) == ([], "ada")
        here.room.leave("ada", REASON.SIGNAL_CLOSE)
        await asyncio.sleep(ALONE * 2)
        assert here.ended == ["caller lost"]


async def test_another_one_may_come_instead() -> None:
    async with scene(FakeParticipant("ada")) as here:
        here.start()
        here.room.leave("ada", REASON.SIGNAL_CLOSE)
        here.room.join(FakeParticipant("bert"))
        assert here.session.linked == ["ada", "bert"]


async def test_a_phone_that_is_lost_is_gone() -> None:
    async with scene(FakeParticipant("sip_1", 0, KIND.PARTICIPANT_KIND_SIP)) as here:
        here.start()
        here.room.leave("sip_1", REASON.MEDIA_FAILURE)
        assert here.ended == ["caller left"]


async def test_nobody_comes() -> None:
    async with scene() as here:
        here.start()
        await asyncio.sleep(ALONE * 2)
        assert here.ended == ["nobody came"]


async def test_keys_are_one_message_after_a_pause_and_those_of_others_do_not_count() -> None:
    session = FakeSession()
    keypad = Keypad(cast("AgentSession[Any]", session), lambda: "ada", pause=0.05)

    def press(digit: str, who: str | None) -> None:
        participant = cast(rtc.RemoteParticipant, FakeParticipant(who)) if who else None
        keypad.pressed(rtc.SipDTMF(code=0, digit=digit, participant=participant))

    for digit, who in (("4", "ada"), ("9", "bert"), ("2", "ada"), ("#", "ada"), ("0", None)):
        press(digit, who)
        await asyncio.sleep(0.01)
    assert session.told == []
    await asyncio.sleep(0.15)
    assert session.told == ["interrupt", "The caller pressed 4 2 #."]
    press("5", "ada")
    await asyncio.sleep(0.15)
    assert session.told[2:] == ["interrupt", "The caller pressed 5."]
    await keypad.aclose()


async def test_who_is_gone_while_our_own_line_is_broken_has_not_left() -> None:
    async with scene(FakeParticipant("ada")) as here:
        here.start()
        here.room.emit("reconnecting")
        here.room.leave("ada", REASON.UNKNOWN_REASON)
        await asyncio.sleep(2 * ALONE)
        assert here.ended == []
        here.room.emit("reconnected")
        await asyncio.sleep(2 * ALONE)
        assert here.ended == [], "whose browser is slower than we are"
        here.room.join(FakeParticipant("ada"))
        await asyncio.sleep(2 * ALONE)
        assert (here.session.linked, here.ended) == (["ada", "ada"], [])


async def test_who_does_not_come_back_after_we_did_is_lost() -> None:
    async with scene(FakeParticipant("phone", kind=KIND.PARTICIPANT_KIND_SIP)) as here:
        here.start()
        here.room.emit("reconnecting")
        here.room.leave("phone", REASON.UNKNOWN_REASON)
        here.room.emit("reconnected")
        assert here.ended == []
        await asyncio.sleep(5 * ALONE)
        assert here.ended == ["caller lost"]
