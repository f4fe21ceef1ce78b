"""What every language model keeps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from serve.contracts import Capabilities, ChatRequest, LanguageModel, PrefillingLanguageModel
from serve.errors import BadRequest, ParleyError
from serve.work import TellsWork
from tests.contract.conftest import answered, closed, idle

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

SYSTEM = {"role": "system", "content": "Answer in English."}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def asking(text: str, max_tokens: int | None = 6, **more: Any) -> ChatRequest:
    return ChatRequest([SYSTEM, {"role": "user", "content": text}], max_tokens=max_tokens, **more)


async def test_has_the_shape_of_its_role(llm: LanguageModel) -> None:
    assert isinstance(llm, LanguageModel)
    assert isinstance(llm.capabilities, Capabilities)
    assert llm.capabilities.prefill == isinstance(llm, PrefillingLanguageModel)


async def test_pieces_come_in_order_and_the_last_says_why(llm: LanguageModel) -> None:
    chunks = await answered(llm, asking("Say hello to me please"))
    *pieces, last = chunks
    assert "".join(piece.text for piece in pieces).strip()
    assert all(piece.finish_reason is None and piece.usage is None for piece in pieces)
    assert last.finish_reason in ("stop", "length")
    assert last.usage is not None
    assert last.usage.prompt_tokens > 0
    assert 0 < last.usage.completion_tokens <= 6
    assert last.usage.cached_tokens <= last.usage.prompt_tokens


async def test_no_more_tokens_than_asked_for(llm: LanguageModel) -> None:
    chunks = await answered(llm, asking("Count one two three four five six", max_tokens=2))
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_no_messages_are_refused(llm: LanguageModel) -> None:
    with pytest.raises(BadRequest, match="messages"):
        await answered(llm, ChatRequest([]))


async def test_empty_text_is_no_failure(llm: LanguageModel) -> None:
    assert (await answered(llm, asking("", max_tokens=2)))[-1].finish_reason


async def test_more_than_the_context_is_refused(llm: LanguageModel) -> None:
    with pytest.raises(BadRequest, match="messages"):
        await answered(llm, asking("word " * 20_000))


@pytest.mark.parametrize("text", ["naïve 你好 😀 \u202eabc", "<|im_end|><b>bold</b> **x** \x00 {}", "\n\n\t"])
async def test_any_text(llm: LanguageModel, text: str) -> None:
    assert (await answered(llm, asking(text, max_tokens=3)))[-1].finish_reason


async def test_the_same_seed_says_the_same(llm: LanguageModel) -> None:
    request = asking("Tell me about rivers", seed=7, temperature=0.0)
    texts = ["".join(chunk.text for chunk in await answered(llm, request)) for _ in range(2)]
    assert texts[0] == texts[1]


async def test_closing_stops_the_work(llm: LanguageModel) -> None:
    stream = llm.chat(asking("Tell me a long story about the sea " * 4, max_tokens=200))
    async with asyncio.timeout(60):
        await anext(stream)
    produced = getattr(llm, "produced", None)
    assert await closed(stream) < 5
    await idle()
    assert getattr(llm, "produced", None) == produced


async def test_an_engine_that_tells_its_work_tells_when_a_closed_stream_ended(llm: LanguageModel) -> None:
    if not isinstance(llm, TellsWork):
        pytest.skip("keeps no times")
    stream = llm.chat(asking("Tell me a long story about the sea " * 4, max_tokens=200))
    async with asyncio.timeout(60):
        await anext(stream)
    closing = time.monotonic()
    await stream.aclose()
    work = llm.work.recent()[-1]
    async with asyncio.timeout(10):
        while not work.ended:  # noqa: ASYNC110  # a thread of the engine's ends it
            await asyncio.sleep(0.01)
    assert work.stopped
    assert work.began < work.last <= work.ended
    assert 0 < work.tokens < 200
    assert work.ended - closing < 1.0


async def test_cancelling_before_the_first_token_stops_the_work(llm: LanguageModel) -> None:
    task = asyncio.create_task(answered(llm, asking("one two three four five " * 60, max_tokens=100)))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await idle()
    assert await answered(llm, asking("Hello", max_tokens=2))


async def test_what_was_read_ahead_is_not_read_again(llm: LanguageModel) -> None:
    if not isinstance(llm, PrefillingLanguageModel):
        pytest.skip("does not read ahead")
    request = asking("The quick brown fox jumps over the lazy dog. What did the fox do then?")
    async with asyncio.timeout(60):
        await llm.prefill(request)
    usage = (await answered(llm, request))[-1].usage
    assert usage is not None
    if not type(llm).__name__.startswith("Fake"):
        assert usage.cached_tokens >= 0.8 * usage.prompt_tokens


async def test_conversations_keep_their_own_cache(llm: LanguageModel) -> None:
    """Two conversations with one system prompt take turns: each finds its own history read."""
    if not isinstance(llm, PrefillingLanguageModel) or type(llm).__name__.startswith("Fake"):
        pytest.skip("has no cache")
    histories = [
        [SYSTEM, {"role": "user", "content": f"{subject} " * 12 + "Which of these do you like?"}]
        for subject in ("gardens, rivers, bread", "trains, violins, snow")
    ]
    cached: list[float] = []
    for _ in range(2):
        for history in histories:
            chunks = await answered(llm, ChatRequest(history, max_tokens=4))
            usage = chunks[-1].usage
            assert usage is not None
            cached.append(usage.cached_tokens / usage.prompt_tokens)
            text = "".join(chunk.text for chunk in chunks)
            history += [{"role": "assistant", "content": text}, {"role": "user", "content": "Why?"}]
    assert min(cached[2:]) > 0.6


async def test_who_asks_again_at_once_finds_what_was_read(llm: LanguageModel) -> None:
    """A draft is dropped and asked again with one word more: the same cache, though the first is still stopping."""
    if not isinstance(llm, PrefillingLanguageModel) or type(llm).__name__.startswith("Fake"):
        pytest.skip("has no cache")
    text = "Please tell me a long story about mountains and the people who live there with many"
    draft = llm.chat(asking(text, max_tokens=100))
    async with asyncio.timeout(60):
        await anext(draft)
    await draft.aclose()
    usage = (await answered(llm, asking(f"{text} goats", max_tokens=2)))[-1].usage
    assert usage is not None
    assert usage.cached_tokens > 0.6 * usage.prompt_tokens


async def test_tools_are_taken_where_they_are_promised(llm: LanguageModel) -> None:
    if not llm.capabilities.tools:
        pytest.skip("calls no tools")
    chunks = await answered(llm, asking("call the weather", max_tokens=12, tools=(TOOL,)))
    for call in (call for chunk in chunks for call in chunk.tool_calls):
        assert call.id
        assert call.name
        assert call.arguments
    assert chunks[-1].finish_reason in ("stop", "length", "tool_calls")


async def test_eight_at_once(llm: LanguageModel) -> None:
    results = await asyncio.gather(*(answered(llm, asking(f"Say {n} please", max_tokens=3)) for n in range(8)))
    assert all(chunks[-1].finish_reason for chunks in results)


async def test_well_after_a_failure(llm: LanguageModel) -> None:
    with pytest.raises(ParleyError):
        await answered(llm, ChatRequest([]))
    with pytest.raises(ParleyError):
        await answered(llm, asking("word " * 20_000))
    assert (await answered(llm, asking("Hello", max_tokens=2)))[-1].finish_reason
