"""Models, chat, keys and errors of OpenAI's API on fake engines, through OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx2
import openai
import pytest
from starlette.testclient import TestClient

from api.media import decode
from serve.contracts import ROLES
from serve.settings import settings
from tests.unit.api.openai_app import BASE, HELLO, Cluster, client, recording

pytestmark = pytest.mark.unit

TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


async def test_models_are_the_catalog_and_the_roles() -> None:
    api = client(Cluster())
    found = {model.id: model async for model in api.models.list()}
    assert set(found) == {
        *(f"parley-{role}" for role in ROLES),
        "stt-fake",
        "llm-fake",
        "llm-other",
        "llm-away",
        "tts-fake",
    }
    assert all(model.owned_by == "parley" for model in found.values())
    assert (await api.models.retrieve("llm-fake")).model_extra == {"role": "llm", "engine": "fake-llm"}
    assert (await api.models.retrieve("parley-llm")).model_extra == {"role": "llm", "models": ["llm-fake", "llm-other"]}
    with pytest.raises(openai.NotFoundError) as caught:
        await api.models.retrieve("gpt-5")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_whole_answer_says_who_gave_it_and_what_it_took() -> None:
    cluster = Cluster()
    answer = await client(cluster).chat.completions.create(model="parley-llm", messages=HELLO)
    assert answer.object == "chat.completion"
    assert answer.model == "llm-fake"
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_every_parameter_reaches_the_model() -> None:
    cluster = Cluster()
    await client(cluster).chat.completions.create(
        model="llm-fake:poems",
        messages=[{"role": "developer", "content": "be brief"}, *HELLO],
        temperature=0.5,
        top_p=0.25,
        max_tokens=9,
        max_completion_tokens=2,
        stop="three",
        seed=7,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        user="somebody",
        metadata={"a": "b"},
        store=False,
        prompt_cache_key="talk-1",
        extra_body={"logprobs": False, "n": 1},
    )
    request, context = cluster.handles["llm-fake"].asked[-1]
    assert request.messages == [{"role": "system", "content": "be brief"}, *HELLO]
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0.5, 0.25, 2, 7)
    assert (request.stop, request.adapter, request.tools) == (("three",), "poems", (TOOL,))
    assert request.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert (context.model, context.call) == ("llm-fake", "talk-1")


async def test_an_adapter_is_part_of_the_answers_model() -> None:
    answer = await client(Cluster()).chat.completions.create(model="llm-fake:poems", messages=HELLO)
    assert answer.model == "llm-fake:poems"


async def test_a_streamed_answer_is_the_same_in_pieces() -> None:
    stream = await client(Cluster()).chat.completions.create(
        model="llm-fake", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"llm-fake"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "one two three"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_stream_ends_as_openais_do() -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(Cluster().app()), base_url=BASE) as http:
        body = {"model": "parley-llm", "messages": HELLO, "stream": True}
        answer = await http.post("/v1/chat/completions", json=body, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in answer.headers
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") for event in events[:-1])
    assert "usage" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls(stream: bool) -> None:
    asked: dict[str, Any] = {"model": "llm-fake", "messages": [{"role": "user", "content": "call it"}]}
    create: Any = client(Cluster()).chat.completions.create
    answer: Any = await create(**asked, tools=[TOOL], stream=stream)
    if stream:
        choices: list[Any] = [chunk.choices[0] async for chunk in answer]
        calls: list[Any] = [call for choice in choices for call in choice.delta.tool_calls or ()]
        assert [call.index for call in calls] == [0]
    else:
        choices = answer.choices
        calls = choices[0].message.tool_calls
        assert choices[0].message.content is None
    assert [(call.id, call.type, call.function.name, call.function.arguments) for call in calls] == [
        ("call_1", "function", "weather", "{}")
    ]
    assert choices[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_are_as_many_requests(stream: bool) -> None:
    cluster = Cluster(llm_fake={"answers": ["a b", "c d", "e f"], "delay": 0.01})
    api = client(cluster)
    if stream:
        texts = ["", "", ""]
        finished: list[int] = []
        options: Any = {"include_usage": True}
        chunks = await api.chat.completions.create(
            model="llm-fake", messages=HELLO, n=3, seed=1, stream=True, stream_options=options
        )
        usage: Any = None
        async for chunk in chunks:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                finished += [choice.index] if choice.finish_reason else []
        assert sorted(finished) == [0, 1, 2]
    else:
        answer = await api.chat.completions.create(model="llm-fake", messages=HELLO, n=3, seed=1)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        texts, usage = [choice.message.content or "" for choice in answer.choices], answer.usage
    assert sorted(texts) == ["a b", "c d", "e f"]
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 6)
    assert sorted(request.seed for request, _ in cluster.handles["llm-fake"].asked) == [1, 2, 3]


async def test_one_of_several_that_fails_ends_the_others() -> None:
    cluster = Cluster(llm_fake={"answers": ["a " * 50], "delay": 0.01, "fail_after": 3, "failure": "BadRequest"})
    stream = await client(cluster).chat.completions.create(model="llm-fake", messages=HELLO, n=3, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass
    assert cluster.handles["llm-fake"].engine.produced <= 12


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "unsupported_parameter"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"presence_penalty": 1}, "presence_penalty", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "unsupported_parameter"),
        ({"top_k": 5}, "top_k", "unknown_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "missing_required_parameter"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"n": 9}, "n", None),
        ({"temperature": 3}, "temperature", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"messages": []}, "messages", None),
        ({"messages": [{"role": "cat", "content": "miaow"}]}, "messages[0].role", None),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages", "context_length_exceeded"),
        ({"model": "parley-stt"}, "model", None),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(changes: dict[str, Any], param: str, code: str | None) -> None:
    asked: dict[str, Any] = {"model": "llm-fake", "messages": HELLO, **changes}
    body = {key: asked.pop(key) for key in list(asked) if key not in ("model", "messages")}
    with pytest.raises(openai.BadRequestError) as caught:
        await client(Cluster()).chat.completions.create(**asked, extra_body=body)
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert caught.value.message


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry"),
    [
        ("EngineFailed", 500, "engine_failed", False),
        ("Overloaded", 503, "overloaded", True),
        ("DeadlineExceeded", 504, "deadline_exceeded", False),
        ("RateLimited", 429, "rate_limit_exceeded", True),
        ("BadRequest", 400, None, False),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_answer_is_a_status(
    failure: str, status: int, code: str | None, retry: bool, stream: bool
) -> None:
    cluster = Cluster(llm_fake={"fail_after": 0, "failure": failure})
    with pytest.raises(openai.APIStatusError) as caught:
        await client(cluster).chat.completions.create(model="llm-fake", messages=HELLO, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert ("retry-after" in caught.value.response.headers) == retry


async def test_a_failure_after_the_stream_began_is_an_event() -> None:
    cluster = Cluster(llm_fake={"fail_after": 2, "failure": "BadRequest"})
    stream = await client(cluster).chat.completions.create(model="parley-llm", messages=HELLO, stream=True)
    heard: list[str] = []

    async def listen() -> None:
        async for chunk in stream:
            heard.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError, match="failed on purpose") as caught:
        await listen()
    assert "".join(heard) == "one two"
    assert caught.value.param == "request"


async def test_a_role_falls_back_and_says_so() -> None:
    cluster = Cluster(llm_fake={"fail_after": 0, "failure": "EngineFailed"})
    answer = await client(cluster).chat.completions.create(model="parley-llm", messages=HELLO)
    assert answer.model == "llm-other"


async def test_a_model_that_does_not_run_and_one_that_is_not_there() -> None:
    api = client(Cluster())
    with pytest.raises(openai.InternalServerError) as away:
        await api.chat.completions.create(model="llm-away", messages=HELLO)
    assert (away.value.status_code, away.value.code) == (503, "model_not_running")
    with pytest.raises(openai.NotFoundError) as unknown:
        await api.chat.completions.create(model="gpt-5", messages=HELLO)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


async def test_an_unforeseen_failure_says_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()

    async def broken(_: Any) -> AsyncGenerator[Any, None]:
        raise ValueError("secret words")
        yield

    monkeypatch.setattr(cluster.handles["llm-fake"].engine, "chat", broken)
    with pytest.raises(openai.InternalServerError) as caught:
        await client(cluster).chat.completions.create(model="llm-fake", messages=HELLO)
    assert caught.value.code == "internal_error"
    assert "secret" not in caught.value.response.text


async def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = "first-key-of-the-tests", "second-key-of-the-tests"
    monkeypatch.setenv("PARLEY_API_KEYS", f"{first}, {second}")
    settings.cache_clear()
    for key in (first, second):
        assert (await client(Cluster(), key).models.list()).data
    for key in ("third-key", f"{first}, {second}", "first"):
        with pytest.raises(openai.AuthenticationError) as caught:
            await client(Cluster(), key).models.list()
        assert caught.value.code == "invalid_api_key"
        assert key not in caught.value.response.text
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(Cluster().app()), base_url=BASE) as http:
        assert (await http.get("/v1/models")).json()["error"]["code"] == "missing_api_key"
        assert (await http.get("/health/live")).status_code == 200


async def test_without_keys_only_this_machine_is_let_in() -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await client(Cluster(), local=False).models.list()
    assert caught.value.code == "no_api_keys"
    elsewhere = httpx2.AsyncClient(transport=httpx2.ASGITransport(Cluster().app()), base_url="http://evil.example")
    answer = await elsewhere.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_loopback")


async def test_answers_are_stamped() -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(Cluster().app()), base_url=BASE) as http:
        mine = await http.get("/v1/models", headers={"x-request-id": "my-id-1"})
        assert mine.headers["x-request-id"] == "my-id-1"
        odd = await http.get("/v1/models", headers={"x-request-id": "no good; at all"})
        assert odd.headers["x-request-id"].startswith("req_")
        assert int(odd.headers["openai-processing-ms"]) >= 0
        refused = await http.post("/v1/embeddings", json={})
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "unknown_url"
        assert refused.headers["x-request-id"].startswith("req_")
        broken = await http.post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
        assert (broken.status_code, broken.json()["error"]["message"]) == (400, "the body is not JSON")


def test_the_synchronous_client() -> None:
    with TestClient(Cluster().app(), base_url=BASE) as http:
        api = openai.OpenAI(api_key="none", base_url=f"{BASE}/v1", http_client=cast(Any, http), max_retries=0)
        assert api.chat.completions.create(model="parley-llm", messages=HELLO).choices[0].message.content
        pieces = [
            chunk.choices[0].delta.content
            for chunk in api.chat.completions.create(model="parley-llm", messages=HELLO, stream=True)
        ]
        assert "".join(piece or "" for piece in pieces) == "one two three"
        assert api.audio.transcriptions.create(model="parley-stt", file=("a.wav", recording())).text == "hello there"
        spoken = api.audio.speech.create(model="parley-tts", input="Hi there.", voice="tone", response_format="wav")
        assert decode(spoken.content, 60)


async def test_the_documentation_shows_it() -> None:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(Cluster().app()), base_url=BASE) as http:
        shown = (await http.get("/api/openapi.json")).json()
    for path in ("/v1/models", "/v1/chat/completions", "/v1/audio/transcriptions", "/v1/audio/speech"):
        assert path in shown["paths"]
    form = shown["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary"
    assert shown["components"]["schemas"]["ChatCompletionRequest"]["examples"]


async def test_routes_and_catalog_change_live() -> None:
    cluster = Cluster()
    api = client(cluster)
    changed = cluster.catalog._routes.model_copy(  # pyright: ignore
        update={"llm": cluster.catalog._routes.llm.model_copy(update={"default": "llm-other"})}  # pyright: ignore
    )
    known = [model for model in cluster.catalog._known.values() if model.name != "llm-away"]  # pyright: ignore
    cluster.catalog.update(known, changed)
    assert (await api.chat.completions.create(model="parley-llm", messages=HELLO)).model == "llm-other"
    with pytest.raises(openai.NotFoundError):
        await api.models.retrieve("llm-away")
