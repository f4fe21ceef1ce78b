"""Tools: what the model asks for is done, in time, and what goes wrong is told to the model and to nobody else."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import llm

from agent import tool_names
from agent.tools import Guard, function
from serve.assistant import ToolLimits
from serve.contracts import Capabilities, ChatChunk, ToolCall
from tests.unit.agent.fake_call import calling

pytestmark = pytest.mark.unit

SECRET = "the-order-of-somebody"


async def weather(city: str, days: int = 1) -> dict[str, Any]:
    """Say how the weather will be.

    Args:
        city: Where.
        days: From today.
    """
    return {"city": city, "days": days, "weather": "sunny"}


def in_a_thread() -> str:
    """Say where it runs."""
    return threading.current_thread().name


async def slow() -> str:
    """Take a while."""
    await asyncio.sleep(0.5)
    return "finally"


async def stubborn() -> str:
    """Never end, whatever is asked."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            raise


def broken() -> str:
    """Break."""
    raise RuntimeError(SECRET)


def refusing() -> str:
    """Refuse."""
    raise llm.ToolError("no order has this number")


def long() -> str:
    """Say much."""
    return "x" * 100_000


TOOLS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (weather, in_a_thread, slow, stubborn, broken, refusing, long)
}


class FakeEntry:
    """An entry point of a package that is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> Callable[..., Any]:
        return TOOLS[self.name]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str) -> list[FakeEntry]:
        return [FakeEntry(name) for name in TOOLS] if group == tool_names.GROUP else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def config(*tools: str, **limits: float) -> dict[str, Any]:
    return {"assistant": {"greeting": "", "tools": list(tools), "tool_limits": limits}}


def calls(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall("call_1", tool, json.dumps(arguments))


async def test_a_function_is_described_called_and_answered_for() -> None:
    async with calling(config("weather"), [calls("weather", city="Paris"), "Sunny in Paris."]) as call:
        answer = await call.say("How is the weather in Paris?")
        answer.expect.next_event().is_function_call(name="weather", arguments={"city": "Paris"})
        answer.expect.next_event().is_function_call_output(is_error=False)
        answer.expect.next_event().is_message(role="assistant")
        answer.expect.no_more_events()
        assert call.spoken.texts == ["Sunny in Paris."]
        assert json.loads(call.results()[0]) == {"city": "Paris", "days": 1, "weather": "sunny"}
        described = call.engines.asked[0].tools[0]["function"]
        assert described["name"] == "weather"
        assert described["description"].startswith("Say how the weather")
        assert described["parameters"]["properties"]["city"]["description"] == "Where."
        assert described["parameters"]["required"] == ["city"]
        assert call.used == [{"tool": "weather", "outcome": "ok", "ms": call.used[0]["ms"]}]


async def test_what_is_read_ahead_has_the_tools_too() -> None:
    async with calling(config("weather"), ["Hello."]) as call:
        await call.say("Hello?")
        call.model.read_ahead(call.session.current_agent.chat_ctx)
        await asyncio.sleep(0.05)
        read, asked = call.engines.read[0], call.engines.asked[0]
        assert read.tools == asked.tools != ()
        assert read.messages[: len(asked.messages)] == asked.messages


async def test_a_function_that_blocks_runs_in_a_thread() -> None:
    async with calling(config("in_a_thread"), [calls("in_a_thread"), "Done."]) as call:
        await call.say("Where?")
        assert call.results()[0].startswith("tool")


async def test_a_slow_tool_has_the_caller_asked_to_wait_once() -> None:
    answers = [[ChatChunk(tool_calls=(calls("slow"), ToolCall("call_2", "slow", "{}")))], "Here it is."]
    async with calling(config("slow", filler_after=0.1), answers) as call:
        await call.say("Look it up.")
        assert call.spoken.texts == ["One moment, please.", "Here it is."]
        assert call.results() == ["finally", "finally"]
        said = [item.text_content for item in call.session.history.items if isinstance(item, llm.ChatMessage)]
        assert "One moment, please." not in said


async def test_a_quick_tool_has_no_filler() -> None:
    async with calling(config("weather", filler_after=0.1), [calls("weather", city="x"), "Sunny."]) as call:
        await call.say("And now?")
        assert call.spoken.texts == ["Sunny."]


@pytest.mark.parametrize("tool", ["slow", "stubborn"])
async def test_a_tool_that_takes_too_long_is_given_up(tool: str) -> None:
    async with calling(config(tool, deadline=0.1), [calls(tool), "It takes too long."]) as call:
        started = asyncio.get_running_loop().time()
        await call.say("Look it up.")
        assert asyncio.get_running_loop().time() - started < 0.45
        assert "longer than 0.1 seconds" in call.results()[0]
        assert call.used[0]["outcome"] == "late"
        assert call.spoken.texts[-1] == "It takes too long."


async def test_an_error_is_told_to_the_model_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with calling(config("broken"), [calls("broken"), "That is not possible now."]) as call:
            await call.say("Do it.")
            assert "RuntimeError" in call.results()[0]
            assert SECRET not in call.results()[0]
            assert call.spoken.texts == ["That is not possible now."]
    assert "tool broken failed with RuntimeError" in caplog.text
    assert SECRET not in caplog.text


async def test_an_error_for_the_model_keeps_its_words() -> None:
    async with calling(config("refusing"), [calls("refusing"), "There is no such order."]) as call:
        await call.say("Where is my order?")
        assert call.results() == ["refusing failed: no order has this number"]


async def test_wrong_arguments_are_told_to_the_model() -> None:
    async with calling(config("weather"), [calls("weather", town="Paris"), "Where?"]) as call:
        await call.say("How is the weather?")
        assert "city" in call.results()[0]
        assert call.used[0]["outcome"] == "error"


async def test_a_result_is_bounded() -> None:
    async with calling(config("long", max_result=200), [calls("long"), "Much."]) as call:
        await call.say("Say much.")
        assert len(call.results()[0]) < 300
        assert "100000 characters" in call.results()[0]


async def test_tools_of_one_call_at_once_are_bounded() -> None:
    running, most = 0, 0

    async def counted() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    guard = Guard(ToolLimits(at_once=2, filler_after=0))
    tool = function("counted", counted, guard)
    context: Any = None
    results = await asyncio.gather(*(tool({}, context) for _ in range(6)))
    guard.close()
    assert most == 2
    assert results == ["Done."] * 6


async def test_a_thread_that_never_ends_takes_no_more_than_its_own(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()
    guard = Guard(ToolLimits(at_once=1, filler_after=0, deadline=0.05))
    context: Any = None
    blocked = function("blocked", lambda: go_on.wait(10), guard)
    try:
        assert "longer than" in await blocked({}, context)
        assert "longer than" in await blocked({}, context), "its thread is taken"
    finally:
        go_on.set()
        guard.close()


async def test_a_tool_that_is_not_there_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async with calling(config("weather", "gone"), ["Hello."]) as call:
        await call.say("Hello?")
        assert [each["function"]["name"] for each in call.engines.asked[0].tools] == ["weather"]
    assert "there is no tool gone here" in caplog.text


async def test_a_model_that_calls_no_tools_gets_none() -> None:
    async with calling(config("weather"), ["Hello."], Capabilities()) as call:
        await call.say("Hello?")
        assert call.engines.asked[0].tools == ()


async def test_ids_of_tool_calls_are_never_the_same_twice() -> None:
    answers = [calls("weather", city="a"), "One.", calls("weather", city="b"), "Two."]
    async with calling(config("weather"), answers) as call:
        await call.say("First?")
        await call.say("Second?")
        assert [json.loads(each)["city"] for each in call.results()] == ["a", "b"]


async def test_what_is_said_before_a_tool_stays_with_it() -> None:
    answers = [[ChatChunk("Let me look. "), ChatChunk(tool_calls=(calls("weather", city="a"),))], "Sunny."]
    async with calling(config("weather"), answers) as call:
        await call.say("How is it?")
        assert call.spoken.texts == ["Let me look.", "Sunny."]
        with_call = next(each for each in call.engines.asked[1].messages if each.get("tool_calls"))
        assert with_call["content"].strip() == "Let me look."


def test_names_are_known_without_importing_anything() -> None:
    assert set(tool_names.names()) > {"end_call", "hand_over", "transfer_to_person", "weather"}
