"""OpenAI and Azure OpenAI: what goes over the wire, and what their refusals mean."""

from __future__ import annotations

import io
import wave
from typing import Any, cast

import pytest

from serve import registry
from serve.contracts import (
    ChatRequest,
    SpeechRequest,
    TranscribeRequest,
)
from serve.errors import (
    AuthFailed,
    BadRequest,
    NotDeployed,
    ParleyError,
    ProviderDown,
    QuotaExceeded,
    RateLimited,
)
from serve.settings import settings
from tests.contract.conftest import answered, spoken
from tests.contract.providers import fake_openai
from tests.contract.providers.conftest import (
    HELLO,
    ONCE,
    OPENAI,
    TEXT,
    TOOL,
    UTTERANCE,
    failing,
    made,
    proxy,
    used,
)
from tests.contract.providers.fake_openai import FakeAzureOpenAI, FakeOpenAI
from tests.contract.providers.server import FakeProvider, Trouble

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (fake_openai.NO_KEY, AuthFailed),
        (fake_openai.NO_RIGHTS, AuthFailed),
        (fake_openai.NO_MONEY, QuotaExceeded),
        (fake_openai.NO_MODEL, NotDeployed),
        (fake_openai.too_many("60"), RateLimited),
        (fake_openai.BROKEN, ProviderDown),
        (fake_openai.BUSY, ProviderDown),
        (fake_openai.GATEWAY, ProviderDown),
    ],
)
@pytest.mark.parametrize("name", OPENAI)
async def test_openai_refuses(name: str, provider: FakeProvider, trouble: Trouble, kind: type[ParleyError]) -> None:
    provider.troubles.append(trouble)
    await failing(await proxy(name, provider, **ONCE), kind)


@pytest.mark.parametrize(
    ("name", "param", "field"),
    [
        ("openai-llm", "messages.[0].content", "messages"),
        ("openai-llm", "max_completion_tokens", "max_tokens"),
        ("openai-llm", "temperature", "temperature"),
        ("openai-llm", None, "messages"),
        ("openai-stt", "file", "audio"),
        ("openai-stt", "language", "language"),
        ("openai-tts", "input", "text"),
    ],
)
async def test_openai_names_the_field(name: str, provider: FakeProvider, param: Any, field: str) -> None:
    provider.troubles.append(fake_openai.wrong(param))
    error = await failing(await proxy(name, provider), BadRequest)
    assert error.field == field
    assert len(provider.received) == 1


async def test_an_error_inside_a_stream_is_understood(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    def events(_body: Any, _prompt: int) -> list[dict[str, Any]]:
        return [fake_openai.BROKEN.body]

    monkeypatch.setattr(fake, "_events", events)
    await failing(await proxy("openai-llm", fake, **ONCE), ProviderDown)


async def test_an_answer_that_ends_too_early_is_no_answer(fake: FakeOpenAI) -> None:
    """A gateway may end a broken answer as if it were whole."""
    fake.troubles.append(Trouble(end=4))
    engine = await proxy("openai-llm", fake)
    with pytest.raises(ProviderDown, match="broke off"):
        await answered(engine, HELLO)


async def test_azure_openai_without_its_deployment(azure: FakeAzureOpenAI) -> None:
    await failing(await proxy("azure-openai-llm", azure, deployment="another"), NotDeployed)


async def test_chat_sends_what_was_asked_for(fake: FakeOpenAI) -> None:
    engine = await proxy("openai-llm", fake, model="m", extra_body={"reasoning_effort": "low"}, adapters=["law"])
    form = {"type": "json_object"}
    request = ChatRequest(
        HELLO.messages,
        tools=(TOOL,),
        max_tokens=3,
        temperature=0.5,
        stop=("x",),
        seed=7,
        top_p=0.9,
        tool_choice="auto",
        response_format=form,
        adapter="law",
    )
    await answered(engine, request)
    assert fake.received[-1].json() == {
        "model": "law",
        "messages": HELLO.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 7,
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": form,
        "reasoning_effort": "low",
    }
    with pytest.raises(BadRequest, match="adapter"):
        await answered(engine, ChatRequest(HELLO.messages, adapter="medicine"))


async def test_chat_sends_nothing_that_was_not_asked_for(fake: FakeOpenAI) -> None:
    await answered(await proxy("openai-llm", fake, token_limit="max_completion_tokens"), HELLO)
    assert set(fake.received[-1].json()) == {"model", "messages", "stream", "stream_options", "max_completion_tokens"}


async def test_tool_calls_come_whole(fake: FakeOpenAI) -> None:
    request = ChatRequest([{"role": "user", "content": "call it"}], tools=(TOOL,))
    *_, calls, last = await answered(await proxy("openai-llm", fake), request)
    assert [(call.id, call.name, call.arguments) for call in calls.tool_calls] == [
        ("call_1", "weather", '{"city": "Ulm"}'),
        ("call_2", "weather", "{}"),
    ]
    assert last.finish_reason == "tool_calls"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.cached_tokens, last.usage.completion_tokens) == (2, 1, 1)


async def test_a_server_that_counts_nothing(fake: FakeOpenAI) -> None:
    chunks = await answered(await proxy("openai-llm", fake, stream_usage=False), HELLO)
    assert "stream_options" not in fake.received[-1].json()
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 0


async def test_a_compatible_server_never_sees_openais_key(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(variable, "sk-openai")
    settings.cache_clear()
    engine = await proxy("openai-llm", fake, key_env=None)
    await failing(engine, AuthFailed)
    assert "authorization" not in fake.received[-1].headers
    assert "sk-openai" not in str(fake.received[-1].headers)


async def test_openai_itself_is_sent_the_usual_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    engine = cast("Any", registry.create("openai-llm", {"organization": "org-1"}))
    await engine.load()
    made.append(engine)
    client = engine._connection.client
    assert client.api_key == "sk-openai"
    assert str(client.base_url) == "https://api.openai.com/v1/"
    assert client.max_retries == 0
    assert client.default_headers["OpenAI-Organization"] == "org-1"


async def test_azure_openai_says_deployment_and_version(azure: FakeAzureOpenAI) -> None:
    await used(await proxy("azure-openai-llm", azure, api_version="2099-01-01"))
    request = azure.received[-1]
    assert request.path == "/openai/deployments/our-deployment/chat/completions"
    assert request.query == {"api-version": "2099-01-01"}
    assert "max_completion_tokens" in request.json()


async def test_a_transcription_is_a_small_wav(fake: FakeOpenAI) -> None:
    engine = await proxy("openai-stt", fake, model="gpt-4o-transcribe", prompt="Parley")
    request = TranscribeRequest(UTTERANCE.audio, 48_000, language="en-GB", words=True)
    result = await engine.transcribe(request)
    form = fake.received[-1].form
    assert {name: value for name, value in form.items() if name != "file"} == {
        "model": ["gpt-4o-transcribe"],
        "response_format": ["json"],
        "language": ["en"],
        "prompt": ["Parley"],
    }
    with wave.open(io.BytesIO(form["file"][0])) as file:
        assert file.getframerate() == 16_000
        assert file.getnframes() == 8_000
    assert (result.text, result.language, result.words) == ("hello there", "en-GB", ())
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (14, 2)


async def test_whisper_says_where_words_are(fake: FakeOpenAI) -> None:
    engine = await proxy("openai-stt", fake, model="whisper-1")
    assert engine.capabilities.words
    result = await engine.transcribe(TranscribeRequest(UTTERANCE.audio, 48_000, words=True))
    assert sorted(fake.received[-1].form["timestamp_granularities[]"]) == ["segment", "word"]
    assert [(word.text, word.start, word.end) for word in result.words] == [("hello", 0.0, 0.25), ("there", 0.25, 0.5)]
    assert [segment.text for segment in result.segments] == ["hello there"]
    assert result.confidence == pytest.approx(0.9)
    assert result.language is None, "a language by its name is no BCP 47"


async def test_speech_sends_what_was_asked_for(fake: FakeOpenAI) -> None:
    engine = await proxy("openai-tts", fake, instructions="Whisper.")
    await spoken(engine, SpeechRequest("Hello *there*", voice="nova", speed=1.5))
    assert fake.received[-1].json() == {
        "model": "gpt-4o-mini-tts",
        "input": "Hello there",
        "voice": "nova",
        "response_format": "pcm",
        "speed": 1.5,
        "instructions": "Whisper.",
    }


async def test_a_long_text_goes_in_as_few_requests_as_can_be(fake: FakeOpenAI) -> None:
    chunks = await spoken(await proxy("openai-tts", fake), SpeechRequest("This is a sentence. " * 150))
    sizes = [len(request.json()["input"]) for request in fake.received]
    assert len(sizes) == 2
    assert max(sizes) <= 2000
    assert sum(sizes) == 2998
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.characters == 3000


async def test_a_server_with_voices_of_its_own(fake: FakeOpenAI) -> None:
    engine = await proxy("openai-tts", fake, voices=[], voice="af_heart")
    with pytest.raises(BadRequest) as caught:
        await spoken(engine, TEXT)
    assert caught.value.field == "voice"
    assert fake.received[-1].json()["voice"] == "af_heart"
