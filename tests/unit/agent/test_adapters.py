"""The prompt: bounded, growing only between cuts, and the same whether it is read ahead or asked."""

from __future__ import annotations

from typing import Any, cast

import pytest
from livekit.agents import llm

from agent.adapters import LanguageModel
from serve.assistant import Assistant, Example
from serve.client import Models
from serve.contracts import RequestContext

pytestmark = pytest.mark.unit


@pytest.fixture
async def model() -> LanguageModel:
    assistant = Assistant(examples=[Example(user="u", assistant="a")], max_tokens=7)
    return LanguageModel(cast(Models, object()), RequestContext("c"), assistant)


def conversation(messages: int) -> llm.ChatContext:
    context = llm.ChatContext()
    context.add_message(role="system", content="be kind")
    for number in range(messages):
        context.add_message(role="user" if number % 2 == 0 else "assistant", content=f"m{number}")
    return context


def contents(model: LanguageModel, messages: int) -> list[Any]:
    return [message["content"] for message in model.request(conversation(messages)).messages]


async def test_instructions_and_examples_come_first(model: LanguageModel) -> None:
    request = model.request(conversation(1))
    assert [message["role"] for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.max_tokens == 7


async def test_history_without_instructions_reads_the_same(model: LanguageModel) -> None:
    history = llm.ChatContext()
    history.add_message(role="user", content="m0")
    asked = llm.ChatContext()
    asked.add_message(role="system", content=Assistant().instructions)
    asked.add_message(role="user", content="m0")
    assert model.request(history).messages == model.request(asked).messages


async def test_history_is_bounded_and_keeps_the_newest(model: LanguageModel) -> None:
    for messages in range(1, 200):
        said = contents(model, messages)
        assert len(said) <= 3 + 21
        assert said[-1] == f"m{messages - 1}"


async def test_between_cuts_the_prompt_only_grows(model: LanguageModel) -> None:
    cuts = 0
    for messages in range(1, 100):
        now, then = contents(model, messages), contents(model, messages + 1)
        cuts += then[: len(now)] != now
    assert cuts <= 8


async def test_what_is_read_ahead_begins_the_next_request(model: LanguageModel) -> None:
    for messages in range(2, 100, 2):
        ahead, asked = contents(model, messages), contents(model, messages + 1)
        assert asked[: len(ahead)] == ahead


def with_tools(turns: int) -> llm.ChatContext:
    """Return turns of a question, two calls of tools with their results, and an answer; the last has no answer yet."""
    context = llm.ChatContext()
    for number in range(turns):
        context.add_message(role="user", content=f"q{number}")
        for each in ("a", "b"):
            call = f"{number}{each}"
            context.insert(llm.FunctionCall(call_id=call, name="look", arguments="{}", group_id=f"g{number}"))
            context.insert(llm.FunctionCallOutput(call_id=call, name="look", output=f"r{call}", is_error=False))
        if number < turns - 1:
            context.add_message(role="assistant", content=f"a{number}")
    return context


async def test_a_tools_result_stays_with_its_call_wherever_history_is_cut(model: LanguageModel) -> None:
    for turns in range(1, 40):
        messages = model.request(with_tools(turns)).messages[3:]
        called = [call["id"] for message in messages for call in message.get("tool_calls", ())]
        answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
        assert called == answered
        assert messages[-1]["content"] == f"r{turns - 1}b"
        assert any(message.get("content") == f"q{turns - 1}" for message in messages)
        assert len(messages) <= 20 * 3


async def look() -> str:
    """Look."""
    return ""


async def test_tools_and_what_the_session_says_of_them_go_with_the_request(model: LanguageModel) -> None:
    tools: list[llm.Tool] = [llm.function_tool(look)]
    request = model.request(conversation(1), tools, "none")
    assert [each["function"]["name"] for each in request.tools] == ["look"]
    assert request.tool_choice == "none"
    assert model.request(conversation(1), tools, "auto").tool_choice is None
    assert model.request(conversation(1), (), "none").tool_choice is None
