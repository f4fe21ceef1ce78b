"""What vLLM does beyond the suite that every language model passes; `make test-vllm` installs it and runs both."""

from __future__ import annotations

import asyncio
import json
from importlib.util import find_spec
from typing import Any, cast

import psutil
import pytest
import pytest_asyncio

from serve import registry
from serve.contracts import ChatRequest, CheckedEngine, LanguageModel, PrefillingLanguageModel
from serve.errors import BadRequest, ConfigError, ContextExceeded, EngineFailed, EngineMissing
from tests.contract import tiny_llama
from tests.contract.conftest import answered, closed, idle, load
from tests.contract.test_llm import SYSTEM, TOOL, asking

pytestmark = [pytest.mark.contract, pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(loop_scope="session")
async def vllm() -> LanguageModel:
    return cast("LanguageModel", await load("vllm"))


def unfinished(engine: LanguageModel) -> int:
    """Return the requests that vLLM's own engine still has."""
    inner: Any = cast("Any", engine)._engine
    return inner.get_num_unfinished_requests()


async def said(engine: LanguageModel, request: ChatRequest) -> str:
    return "".join(chunk.text for chunk in await answered(engine, request))


async def test_tokens_come_one_by_one(vllm: LanguageModel) -> None:
    chunks = await answered(vllm, asking("Tell me about rivers", max_tokens=20))
    assert len(chunks) > 15
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20


async def test_closing_aborts_in_the_engine(vllm: LanguageModel) -> None:
    stream = vllm.chat(asking("Tell me a long story", max_tokens=1500))
    async with asyncio.timeout(30):
        await anext(stream)
    assert unfinished(vllm) == 1
    assert await closed(stream) < 0.1
    assert unfinished(vllm) == 0
    await idle()


async def test_a_caller_who_is_cancelled_leaves_nothing_running(vllm: LanguageModel) -> None:
    tasks = [asyncio.create_task(answered(vllm, asking(f"Story {n}", max_tokens=1500))) for n in range(6)]
    async with asyncio.timeout(30):
        while unfinished(vllm) < len(tasks):  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert unfinished(vllm) == 0
    await idle()


async def test_requests_share_what_they_have_in_common(vllm: LanguageModel) -> None:
    start = "You are a guide in a museum of trains, and answer in one sentence. " * 3
    first, second = (
        ChatRequest([{"role": "system", "content": start}, {"role": "user", "content": text}], max_tokens=2)
        for text in ("Which one is the oldest?", "May I take a picture?")
    )
    usages = [(await answered(vllm, request))[-1].usage for request in (first, second)]
    assert usages[0] is not None
    assert usages[1] is not None
    assert usages[0].cached_tokens < len(start) / 2
    assert usages[1].cached_tokens > len(start) * 0.8


async def test_reading_ahead_writes_nothing_that_counts(vllm: LanguageModel) -> None:
    assert isinstance(vllm, PrefillingLanguageModel)
    request = asking("What is it that you have read before I asked for it, and how much of it?", max_tokens=4)
    await vllm.prefill(request)
    usage = (await answered(vllm, request))[-1].usage
    assert usage is not None
    assert usage.cached_tokens > 0.7 * usage.prompt_tokens
    assert usage.completion_tokens == 4


async def test_an_adapter_answers_differently(vllm: LanguageModel) -> None:
    plain, adapted, again = [
        await said(vllm, asking("Tell me about rivers", max_tokens=16, adapter=name)) for name in (None, "other", None)
    ]
    assert plain == again
    assert plain != adapted
    with pytest.raises(BadRequest, match=r"adapter.*there are other"):
        await answered(vllm, asking("Hello", adapter="another"))


async def test_an_answer_keeps_to_a_schema(vllm: LanguageModel) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "stay", "schema": CITY}}
    answer = json.loads(await said(vllm, asking("Where?", max_tokens=400, response_format=schema)))
    assert answer["city"] in ("Oslo", "Rome")
    assert 1 <= answer["days"] <= 9
    text = await said(vllm, asking("Anything", max_tokens=400, response_format={"type": "json_object"}))
    assert isinstance(json.loads(text), dict)


async def test_a_schema_that_is_none_is_refused(vllm: LanguageModel) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "bad", "schema": {"type": "nonsense"}}}
    with pytest.raises(BadRequest, match="response_format"):
        await answered(vllm, asking("Where?", response_format=schema))


async def test_a_tool_call_arrives_whole(vllm: LanguageModel) -> None:
    chunks = await answered(vllm, asking("How is the weather?", max_tokens=20, tools=(TOOL,)))
    (call,) = [call for chunk in chunks for call in chunk.tool_calls]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
    assert call.id
    assert chunks[-1].finish_reason == "tool_calls"
    assert not any("tool_call" in chunk.text for chunk in chunks)


async def test_a_tool_is_called_where_it_must_be(vllm: LanguageModel) -> None:
    tool = {"type": "function", "function": {"name": "stay", "parameters": CITY, "strict": True}}
    one = {"type": "function", "function": {"name": "stay"}}
    chunks = await answered(vllm, asking("Where?", max_tokens=400, tools=(tool, TOOL), tool_choice=one))
    (call,) = [call for chunk in chunks for call in chunk.tool_calls]
    assert call.name == "stay"
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")


async def test_what_was_called_is_part_of_the_conversation(vllm: LanguageModel) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        *(SYSTEM, {"role": "user", "content": "How is the weather?"}),
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    ]
    assert (await answered(vllm, ChatRequest(messages, max_tokens=3)))[-1].finish_reason == "length"


async def test_goes_on_in_the_middle_of_an_answer(vllm: LanguageModel) -> None:
    assert vllm.capabilities.continues
    whole = await said(vllm, asking("Tell me about rivers", max_tokens=16))
    rest = await said(vllm, asking("Tell me about rivers", max_tokens=10, so_far=whole[:6]))
    assert rest == whole[6:]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/cat.png", "data:image/png;base64,aGVsbG8="])
async def test_pictures_are_fetched_from_nowhere(vllm: LanguageModel, url: str) -> None:
    assert not vllm.capabilities.images
    picture = [{"type": "text", "text": "http://a.b is text"}, {"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(BadRequest, match="messages"):
        await answered(vllm, ChatRequest([{"role": "user", "content": picture}], max_tokens=2))


async def test_stop_ends_the_answer_before_it(vllm: LanguageModel) -> None:
    whole = await said(vllm, asking("Tell me about rivers", max_tokens=16))
    stop = whole[5:7]
    chunks = await answered(vllm, asking("Tell me about rivers", max_tokens=16, stop=(stop,)))
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"


async def test_a_seed_repeats_what_chance_says(vllm: LanguageModel) -> None:
    texts = [await said(vllm, asking("Dice", max_tokens=12, seed=seed, temperature=2.0)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(("field", "value"), [("temperature", -1.0), ("max_tokens", 99_999), ("top_p", 2.0)])
async def test_a_wrong_value_names_its_field(vllm: LanguageModel, field: str, value: float) -> None:
    request = ChatRequest([{"role": "user", "content": "Hello"}], **cast("dict[str, Any]", {field: value}))
    with pytest.raises(BadRequest, match=field):
        await answered(vllm, request)


async def test_too_long_is_told_apart_and_quotes_nothing(vllm: LanguageModel) -> None:
    with pytest.raises(ContextExceeded) as caught:
        await answered(vllm, asking("secret " * 500))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": {"max_num_seq": 2}}, r"no argument 'max_num_seq'; did you mean"),
        ({"extra": {"dtype": "half"}}, "'dtype' has an option of its own"),
        ({"tool_parser": "hermes2"}, r"'tool_parser': choose one of .*hermes"),
        ({"max_model_len": 9000}, "vLLM does not take the options"),
        ({"model": "/no/such/folder"}, "/no/such/folder"),
    ],
)
async def test_wrong_options_are_named(vllm: LanguageModel, change: dict[str, Any], message: str) -> None:
    engine = registry.create("vllm", tiny_llama.options() | change)
    with pytest.raises(ConfigError, match=message):
        await engine.load()


async def test_a_dead_engine_says_so(vllm: LanguageModel) -> None:
    """Last: nothing answers after it."""
    assert isinstance(vllm, CheckedEngine)
    await vllm.check()
    stream = vllm.chat(asking("Tell me a long story", max_tokens=1500))
    async with asyncio.timeout(30):
        await anext(stream)
    (core,) = [child for child in psutil.Process().children() if "EngineCore" in child.name()]
    core.kill()
    async with asyncio.timeout(20):
        with pytest.raises(EngineFailed):
            async for _ in stream:
                pass
        while not await broken(vllm):  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0.1)
    with pytest.raises(EngineFailed):
        await answered(vllm, asking("Hello"))


async def broken(engine: CheckedEngine) -> bool:
    try:
        await engine.check()
    except EngineFailed:
        return True
    return False


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
async def test_without_vllm_the_command_is_named() -> None:
    with pytest.raises(EngineMissing, match=r"uv pip install 'parley\[vllm\]'"):
        await registry.create("vllm", {"model": "none"}).load()
