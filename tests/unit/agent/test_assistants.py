"""Who answers a call: chosen, handed over to, in the caller's language; and how a call comes to an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from livekit import api, rtc

from agent.assistants import ATTRIBUTE, CALLED, Assistants, asked_for
from agent.config import AgentConfig
from agent.reception import listed
from agent.texts import text
from api.calls.entry import ASSISTANT
from serve.assistant import Assistant
from serve.contracts import Capabilities, ChatChunk, ToolCall, Transcript
from serve.errors import EngineFailed
from serve.settings import settings
from tests.unit.agent.fake_call import calling

pytestmark = pytest.mark.unit

HOUSE: dict[str, Any] = {
    "assistant": {"greeting": "", "instructions": "Be kind.", "numbers": ["+49 30 1"], "tools": ["hand_over"]},
    "assistants": {
        "sales": {"instructions": "Sell.", "description": "Prices and orders", "numbers": ["+49 30 1234-5"]},
        "hilfe": {"language": "de", "limits": {"silence_prompts": 1}, "models": {"llm": "other"}},
    },
}


def caller(**attributes: str) -> Any:
    return SimpleNamespace(attributes=attributes)


def test_what_an_assistant_leaves_out_is_as_the_default_has_it() -> None:
    config = AgentConfig.model_validate(HOUSE)
    german = config.assistants["hilfe"]
    assert (german.instructions, german.tools) == ("Be kind.", ("hand_over",))
    assert german.limits.silence_prompts == 1
    assert german.limits.silence_seconds == config.assistant.limits.silence_seconds
    assert german.numbers == (), "a number is one assistant's"
    assert AgentConfig.model_validate(config.model_dump(mode="json")) == config


def test_default_is_no_name_for_another() -> None:
    with pytest.raises(ValueError, match=r"agent\.assistant"):
        AgentConfig.model_validate({"assistants": {"default": {}}})


@pytest.mark.parametrize(
    ("metadata", "attributes", "chosen"),
    [
        ("", {}, "default"),
        ('{"assistant": "sales"}', {}, "sales"),
        ('{"assistant": "nobody"}', {}, "default"),
        ('{"assistant": 3}', {}, "default"),
        ("somebody else's", {}, "default"),
        ("[1]", {}, "default"),
        ("", {ATTRIBUTE: "hilfe"}, "hilfe"),
        ("", {ATTRIBUTE: "nobody"}, "default"),
        ('{"assistant": "sales"}', {ATTRIBUTE: "hilfe"}, "sales"),
        ("", {CALLED: "+4930 12345"}, "sales"),
        ("", {CALLED: "004930-12345"}, "sales"),
        ("", {CALLED: "+49301"}, "default"),
        ("", {CALLED: "+1555"}, "default"),
        ('{"assistant": "hilfe"}', {CALLED: "+493012345"}, "hilfe"),
    ],
)
def test_who_is_chosen(metadata: str, attributes: dict[str, str], chosen: str) -> None:
    assert Assistants(AgentConfig.model_validate(HOUSE)).choose(metadata, [caller(**attributes)]) == chosen


def test_the_attribute_is_the_one_that_tokens_carry() -> None:
    assert ATTRIBUTE == ASSISTANT


def test_unknown_names_are_warned_of_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    Assistants(AgentConfig.model_validate(HOUSE)).choose('{"assistant": "my password"}')
    assert "no assistant has the name" in caplog.text
    assert "my password" not in caplog.text


class FakeRoom(rtc.EventEmitter[str]):
    """A room that its caller joins later."""

    def __init__(self) -> None:
        super().__init__()
        self.remote_participants: dict[str, Any] = {}

    def join(self, **attributes: str) -> None:
        self.remote_participants["caller"] = caller(**attributes)
        self.emit("participant_connected", self.remote_participants["caller"])


async def test_the_caller_is_waited_for_where_the_number_decides() -> None:
    room: Any = FakeRoom()
    choice = asyncio.create_task(Assistants(AgentConfig.model_validate(HOUSE)).of("", room))
    await asyncio.sleep(0)
    room.join(**{CALLED: "+493012345"})
    assert await asyncio.wait_for(choice, 1) == "sales"


async def test_nobody_is_waited_for_where_there_is_one_assistant() -> None:
    room: Any = FakeRoom()
    assert await asyncio.wait_for(Assistants(AgentConfig()).of("", room), 0.1) == "default"


def test_asking_is_a_name_or_nothing() -> None:
    assert asked_for(json.dumps({"assistant": "a"})) == "a"
    assert asked_for(json.dumps({"assistant": ""})) is None


def test_texts_are_the_assistants_own_or_of_the_language() -> None:
    assert text(Assistant(language="de-AT"), "filler") == "Einen Moment, bitte."
    assert text(Assistant(language="fr"), "filler", "es") == "Un momento, por favor."
    assert text(Assistant(language="auto"), "filler") == "One moment, please."
    assert text(Assistant.model_validate({"texts": {"filler": "Hm."}}), "filler", "de") == "Hm."


def test_a_language_is_asked_for_as_a_model_lists_it() -> None:
    assert listed("de", ("en-US", "de-DE")) == "de-DE"
    assert listed("en-GB", ("en-US", "en-GB")) == "en-GB"
    assert listed("xx", ("en",)) is None


def hand_over(name: str) -> ToolCall:
    return ToolCall("c", "hand_over", json.dumps({"assistant": name}))


async def test_another_assistant_takes_over_and_knows_what_was_said() -> None:
    answers = ["Hello there.", hand_over("sales"), "Sales here."]
    async with calling(HOUSE, answers) as call:
        changed: list[str] = []
        call.reception.changed = changed.append
        await call.say("Hello.")
        await call.say("What does it cost?")
        await call.spoken.until("Sales here.")
        asked = call.engines.asked[-1]
        said = [message.get("content") for message in asked.messages]
        assert said[0] == "Sell."
        assert {"Hello.", "What does it cost?"} <= set(said)
        assert said[-1] == "The assistant sales has taken over, and goes on with the caller."
        assert (changed, call.reception.name) == (["sales"], "sales")
        description = call.engines.asked[0].tools[0]["function"]["parameters"]["properties"]["assistant"]
        assert description["enum"] == ["sales", "hilfe"]
        assert "Prices and orders" in description["description"]


async def test_another_assistant_has_its_own_models_and_language() -> None:
    async with calling(HOUSE, [hand_over("hilfe"), "Guten Tag."]) as call:
        await call.say("Deutsch, bitte.")
        await call.spoken.until("Guten Tag.")
        assert call.engines.models == ["l", "other"]
        assert (call.care.language, call.voice.language, call.ears.language) == ("de", "de", "de")


async def test_assistants_do_not_hand_a_silent_caller_round() -> None:
    answers = [hand_over("sales"), hand_over("hilfe"), "I stay.", hand_over("hilfe"), "Ja."]
    async with calling(HOUSE, answers) as call:
        await call.say("Sales, please.")
        await call.spoken.until("I stay.")
        assert "said nothing since" in call.results()[-1]
        await call.say("German, please.")
        await call.spoken.until("Ja.")
        assert call.reception.name == "hilfe"


async def test_without_a_name_the_first_other_takes_over() -> None:
    async with calling(HOUSE, [ToolCall("c", "hand_over", "{}"), "Sales here."]) as call:
        await call.say("Somebody else, please.")
        await call.spoken.until("Sales here.")
        assert call.reception.name == "sales"


async def test_a_name_that_is_none_is_told_to_the_model() -> None:
    async with calling(HOUSE, [hand_over("boss"), "There is no boss."]) as call:
        await call.say("The boss, please.")
        assert "there are: sales, hilfe" in call.results()[0]


def ending(**more: Any) -> dict[str, Any]:
    return {"assistant": {"greeting": "", "tools": ["end_call", "transfer_to_person"], **more}}


async def test_the_call_ends_after_last_words() -> None:
    goodbye = ToolCall("c", "end_call", json.dumps({"goodbye": "Take care!"}))
    async with calling(ending(), [goodbye]) as call:
        await call.say("That is all, bye.")
        assert await asyncio.wait_for(call.ended, 5) == "the assistant ended the call"
        assert call.spoken.texts == ["Take care!"]
        assert call.care.hang_up


async def test_the_call_ends_with_a_goodbye_where_the_model_has_none() -> None:
    async with calling(ending(language="fr"), [ToolCall("c", "end_call", "{}")]) as call:
        await call.say("Au revoir.")
        await asyncio.wait_for(call.ended, 5)
        assert call.spoken.texts == ["Au revoir."]


async def test_goodbye_is_said_once() -> None:
    answer = [ChatChunk("Bye now! "), ChatChunk(tool_calls=(ToolCall("c", "end_call", '{"goodbye": "Bye!"}'),))]
    async with calling(ending(), [answer]) as call:
        await call.say("Bye.")
        await asyncio.wait_for(call.ended, 5)
        assert call.spoken.texts == ["Bye now!"]


TRANSFER = ToolCall("c", "transfer_to_person", "{}")


@pytest.fixture
async def livekit(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[list[api.TransferSIPParticipantRequest]]:
    """Stand where LiveKit's server does: transfers to numbers that end in 0 fail."""
    asked: list[api.TransferSIPParticipantRequest] = []

    async def transfer(request: web.Request) -> web.Response:
        wish = api.TransferSIPParticipantRequest.FromString(await request.read())
        asked.append(wish)
        if wish.transfer_to.endswith("0"):
            return web.json_response({"code": "unavailable", "msg": "busy"}, status=503)
        done = api.TransferSIPParticipantResponse(status=api.SIPTransferStatus.STS_TRANSFER_SUCCESSFUL)
        return web.Response(body=done.SerializeToString(), content_type="application/protobuf")

    app = web.Application()
    app.router.add_post("/twirp/livekit.SIP/TransferSIPParticipant", transfer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("LIVEKIT_URL", f"ws://127.0.0.1:{port}")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "a-secret-that-is-long-enough-for-hs256")
    settings.cache_clear()
    yield asked
    settings.cache_clear()
    await runner.cleanup()


def phone() -> dict[str, Any]:
    return {"sip_1": SimpleNamespace(identity="sip_1", kind=rtc.ParticipantKind.PARTICIPANT_KIND_SIP, attributes={})}


async def test_a_caller_on_the_phone_is_put_through(livekit: list[api.TransferSIPParticipantRequest]) -> None:
    async with calling(ending(person="tel:+49301"), [TRANSFER]) as call:
        call.room.remote_participants = phone()
        await call.say("A person, please.")
        assert call.spoken.texts == ["I will put you through now. Please hold the line."]
        assert [(each.room_name, each.participant_identity, each.transfer_to) for each in livekit] == [
            ("room", "sip_1", "tel:+49301")
        ]
        assert call.used[0]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("person", "on_the_phone", "told"),
    [
        (None, True, "no person's number is configured"),
        ("tel:+49301", False, "not on a telephone line"),
        ("tel:+49300", True, "nobody could be reached"),
    ],
)
async def test_a_caller_who_cannot_be_put_through_is_told_why(
    livekit: list[api.TransferSIPParticipantRequest], person: str | None, on_the_phone: bool, told: str
) -> None:
    async with calling(ending(person=person), [TRANSFER, "That is not possible."]) as call:
        call.room.remote_participants = phone() if on_the_phone else {}
        await call.say("A person, please.")
        assert told in call.results()[0]
        assert call.spoken.texts[-1] == "That is not possible."


async def test_silence_is_asked_about_and_then_ends_the_call() -> None:
    limits = {"silence_seconds": 0.1, "silence_prompts": 2}
    async with calling(ending(limits=limits, language="de"), []) as call:
        call.care.start()
        assert await asyncio.wait_for(call.ended, 5) == "silence"
        assert call.spoken.texts == ["Sind Sie noch da?"] * 2 + [
            "Ich höre Sie nicht mehr und lege jetzt auf. Auf Wiederhören."
        ]
        assert not call.session.history.messages()[:-1], "prompts are no part of the conversation"


async def test_who_speaks_is_not_silent() -> None:
    limits = {"silence_seconds": 0.2, "silence_prompts": 1}
    async with calling(ending(limits=limits), ["Yes."] * 6) as call:
        call.care.start()
        for _ in range(6):
            await call.say("Well,")
            await asyncio.sleep(0.1)
        assert set(call.spoken.texts) == {"Yes."}
        await call.spoken.until("Are you still there?")
        assert not call.ended.done()


async def test_a_call_has_a_maximum_length_also_over_replicas() -> None:
    async with calling(ending(limits={"max_minutes": 1.0}), []) as call:
        call.care.start(begun=59.9)
        assert await asyncio.wait_for(call.ended, 5) == "maximum length"
        assert call.spoken.texts == ["I am sorry, our time is up. Thank you for the call, and goodbye."]


async def test_without_limits_a_call_goes_on() -> None:
    async with calling(ending(limits={"max_minutes": 0, "silence_seconds": 0}), []) as call:
        call.care.start(begun=10_000)
        await asyncio.sleep(0.3)
        assert (call.spoken.texts, call.ended.done()) == ([], False)


async def test_when_nothing_can_be_heard_the_caller_is_told() -> None:
    async with calling(ending(language="es"), []) as call:
        call.ears.lost()
        await call.spoken.until("Lo siento, no le he entendido. Repítalo, por favor.")


async def test_the_callers_language_is_followed_where_the_voice_has_it() -> None:
    speaks = Capabilities(tools=True, languages=("en-US", "de-DE"))
    async with calling(ending(language="auto"), [], speaks) as call:
        assert (call.voice.language, call.ears.asked) == (None, None)
        call.ears.understood(Transcript("Guten Tag", language="de"))
        assert (call.voice.language, call.ears.language) == ("de-DE", "de")
        call.care.say("filler")
        await call.spoken.until("Einen Moment, bitte.")
        call.ears.understood(Transcript("Bonjour", language="fr"))
        assert call.voice.language is None
        call.ears.understood(Transcript("", language="en"))
        assert call.care.language == "fr", "silence has no language"


async def test_an_assistant_of_one_language_stays_with_it() -> None:
    hears = Capabilities(tools=True, languages=("en", "de"))
    async with calling(ending(language="de"), [], hears) as call:
        assert call.ears.asked == "de"
        call.ears.understood(Transcript("Hello", language="en"))
        assert call.voice.language == "de"


async def test_models_that_are_away_are_no_reason_to_lose_the_caller() -> None:
    async with calling(HOUSE, [hand_over("sales"), "I stay."]) as call:
        seat = call.reception.seat

        async def away(*_: Any, **__: Any) -> Any:
            raise EngineFailed("gone")

        call.reception.seat = away  # type: ignore[method-assign]
        await call.say("Sales, please.")
        call.reception.seat = seat  # type: ignore[method-assign]
        assert "sales is not there now (EngineFailed)" in call.results()[0]
        assert call.reception.name == "default"
