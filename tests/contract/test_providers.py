"""Proxies against stand-ins that speak their providers' protocols: what is sent, and what goes wrong."""

from __future__ import annotations

import asyncio
import io
import sys
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, TypeVar, cast

import pytest
import pytest_asyncio

from serve import registry
from serve.contracts import (
    ChatRequest,
    Engine,
    LanguageModel,
    SpeechRequest,
    SpeechToText,
    TextToSpeech,
    TranscribeRequest,
    WarmingEngine,
)
from serve.errors import (
    AuthFailed,
    BadRequest,
    ConfigError,
    EngineMissing,
    NotDeployed,
    ParleyError,
    ProviderDown,
    QuotaExceeded,
    RateLimited,
)
from serve.settings import settings
from tests.contract.conftest import answered, spoken, tone
from tests.contract.providers import KEY_ENV, azure_openai, azure_speech, fake_azure_speech, fake_openai, openai
from tests.contract.providers.fake_azure_speech import FakeAzureSpeech
from tests.contract.providers.fake_openai import FakeAzureOpenAI, FakeOpenAI
from tests.contract.providers.server import KEY, FakeProvider, Trouble

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

T = TypeVar("T")
E = TypeVar("E")

QUICK = {"retries": {"pause": 0.01}}
ONCE = {"retries": {"attempts": 1}}
HELLO = ChatRequest([{"role": "user", "content": "say hello to me"}])
LONG = ChatRequest([{"role": "user", "content": "word " * 500}], max_tokens=500)
UTTERANCE = TranscribeRequest(tone(0.5, 48_000), 48_000)
TEXT = SpeechRequest("The train leaves at noon.")
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

_reached: list[Any] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "socket.connect":
        _reached.append(arguments[1])


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _loopback_only() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    """Whatever a test does: no connection leaves this machine."""
    global _watching
    _reached.clear()
    _watching = True
    yield
    _watching = False
    # Names of sockets in files are strings.
    assert not [
        address for address in _reached if address[0] not in ("127.0.0.1", "::1") and not isinstance(address, str)
    ]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    monkeypatch.setenv(KEY_ENV, KEY)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest_asyncio.fixture(loop_scope="session")
async def fake() -> AsyncIterator[FakeOpenAI]:
    provider = FakeOpenAI()
    yield provider
    await provider.close()


@pytest_asyncio.fixture(loop_scope="session")
async def azure() -> AsyncIterator[FakeAzureOpenAI]:
    provider = FakeAzureOpenAI()
    yield provider
    await provider.close()


@pytest_asyncio.fixture(loop_scope="session")
async def speech() -> AsyncIterator[FakeAzureSpeech]:
    provider = FakeAzureSpeech()
    yield provider
    await provider.close()


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def made() -> AsyncIterator[list[Engine]]:
    """Close what a test made."""
    engines: list[Engine] = _made
    engines.clear()
    yield engines
    for engine in engines:
        await engine.close()


_made: list[Engine] = []


async def proxy(name: str, provider: FakeProvider, **more: Any) -> Any:
    """Return a loaded proxy of its own, so that circuits do not mix."""
    if isinstance(provider, FakeAzureOpenAI):
        options = azure_openai(provider)
    elif isinstance(provider, FakeOpenAI):
        options = openai(provider)
    else:
        options = azure_speech(cast("FakeAzureSpeech", provider))
    engine = registry.create(name, options | more)
    await engine.load()
    _made.append(engine)
    return engine


async def used(engine: Engine) -> None:
    """Send a proxy the usual request of its role."""
    match engine:
        case SpeechToText():
            assert (await engine.transcribe(UTTERANCE)).text
        case LanguageModel():
            assert await answered(engine, HELLO)
        case TextToSpeech():
            assert await spoken(engine, TEXT)
        case _:
            raise AssertionError(engine)


async def failing(engine: Engine, kind: type[E]) -> E:
    """Return the error that the usual request ends in; there are no words of the provider in it."""
    with pytest.raises(ParleyError) as caught:
        await used(engine)
    assert type(caught.value) is kind
    assert fake_openai.SECRET not in str(caught.value)
    assert KEY not in str(caught.value)
    return cast("E", caught.value)


async def within(seconds: float, event: asyncio.Event) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


OPENAI = ("openai-stt", "openai-llm", "openai-tts")
AZURE = ("azure-openai-stt", "azure-openai-llm", "azure-openai-tts")
SPEECH = ("azure-speech-stt", "azure-speech-tts")


@pytest.fixture(params=[*OPENAI, *AZURE, *SPEECH])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest_asyncio.fixture(loop_scope="session")
async def provider(name: str) -> AsyncIterator[FakeProvider]:
    """The provider that belongs to the proxy `name`."""
    kind = FakeOpenAI if name in OPENAI else FakeAzureOpenAI if name in AZURE else FakeAzureSpeech
    started = kind()
    yield started
    await started.close()


# What every proxy keeps.


async def test_a_proxy_says_that_it_is_one(name: str) -> None:
    assert registry.entry(name).proxy
    assert name.rsplit("-", 1)[1] == registry.entry(name).role


async def test_warming_opens_a_connection_and_costs_nothing(name: str, provider: FakeProvider) -> None:
    engine = await proxy(name, provider)
    assert isinstance(engine, WarmingEngine)
    await engine.warm()
    assert len(provider.warmed) == 1
    assert not provider.received
    _reached.clear()
    await used(cast("Engine", engine))
    assert not _reached, "the request opened a connection of its own"


async def test_warming_survives_a_provider_that_is_away(name: str, provider: FakeProvider) -> None:
    await provider.close()
    engine = await proxy(name, provider, **ONCE)
    await engine.warm()
    await failing(engine, ProviderDown)


async def test_a_wrong_key_is_said(name: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, "another")
    await failing(await proxy(name, provider), AuthFailed)
    assert len(provider.received) == 1


async def test_a_missing_key_names_the_variable(
    name: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_ENV)
    with pytest.raises(EngineMissing, match=KEY_ENV):
        await proxy(name, provider)


async def test_busy_once_is_tried_again(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(503, "busy"))
    await used(await proxy(name, provider, **QUICK))
    assert len(provider.received) == 2


async def test_too_many_requests_waits_as_long_as_asked(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(429, {}, {"Retry-After": "0.3"}))
    engine = await proxy(name, provider, **QUICK)
    clock = asyncio.get_running_loop().time
    began = clock()
    await used(engine)
    assert clock() - began >= 0.3
    provider.troubles.append(Trouble(429, {}, {"Retry-After": "60"}))
    began = clock()
    await failing(engine, RateLimited)
    assert clock() - began < 2


async def test_who_only_fails_is_left_alone(name: str, provider: FakeProvider) -> None:
    engine = await proxy(name, provider, **ONCE)
    provider.troubles.extend(Trouble(500, "broken") for _ in range(3))
    for _ in range(3):
        await failing(engine, ProviderDown)
    assert "left alone" in str(await failing(engine, ProviderDown))
    assert len(provider.received) == 3


async def test_no_sign_in_time(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(first=30))
    engine = await proxy(name, provider, timeouts={"first": 0.2}, **ONCE)
    await failing(engine, ProviderDown)
    await within(0.1, provider.left)


async def test_cancelling_before_the_answer_closes_the_connection(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(first=30))
    engine = await proxy(name, provider)
    task = asyncio.create_task(used(engine))
    async with asyncio.timeout(5):
        while not provider.received:  # noqa: ASYNC110  # the provider tells nothing earlier
            await asyncio.sleep(0.01)
    task.cancel()
    await within(0.1, provider.left)
    with pytest.raises(asyncio.CancelledError):
        await task
    await used(engine)


# Streams.

STREAMS = [name for name in (*OPENAI, *AZURE, *SPEECH) if not name.endswith("stt")]


def begun(engine: Any) -> AsyncGenerator[Any, None]:
    """Return a long answer."""
    return engine.chat(LONG) if isinstance(engine, LanguageModel) else engine.speak(SpeechRequest("word " * 300))


@pytest.mark.parametrize("name", STREAMS)
async def test_closing_closes_the_connection(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(between=0.02))
    stream = begun(await proxy(name, provider))
    for _ in range(3):
        await anext(stream)
    await stream.aclose()
    await within(0.1, provider.left)
    sent = provider.sent
    await asyncio.sleep(0.1)
    assert provider.sent == sent


@pytest.mark.parametrize("name", STREAMS)
async def test_cancelling_in_mid_answer_closes_the_connection(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(between=0.02))
    engine = await proxy(name, provider)
    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in begun(engine):
            heard.set()

    task = asyncio.create_task(listen())
    await within(5, heard)
    task.cancel()
    await within(0.1, provider.left)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", STREAMS)
async def test_a_cut_stream_is_said_and_not_repeated(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(cut=6))
    stream, got = begun(await proxy(name, provider, **QUICK)), list[Any]()

    async def listen() -> None:
        async for chunk in stream:
            got.append(chunk)

    with pytest.raises(ProviderDown):
        await listen()
    assert got
    assert len(provider.received) == 1


@pytest.mark.parametrize("name", STREAMS)
async def test_cut_before_the_first_piece_is_tried_again(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(cut=0))
    await used(await proxy(name, provider, **QUICK))
    assert len(provider.received) == 2


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_stalls_is_given_up(name: str, provider: FakeProvider) -> None:
    provider.troubles.append(Trouble(between=30))
    stream = begun(await proxy(name, provider, timeouts={"between": 0.2}, **ONCE))
    with pytest.raises(ProviderDown):
        async for _ in stream:
            pass
    await within(0.1, provider.left)


# What OpenAI's refusals mean.


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


# What goes over the wire to OpenAI.


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
    _made.append(engine)
    client = engine._connection.client
    assert client.api_key == "sk-openai"
    assert str(client.base_url) == "https://api.openai.com/v1/"
    assert client.max_retries == 0
    assert client.default_headers["OpenAI-Organization"] == "org-1"


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_SPEECH_KEY"])
async def test_the_usual_variable_is_named(variable: str) -> None:
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "OPENAI_API_KEY": ("openai-tts", {}),
        "AZURE_OPENAI_API_KEY": ("azure-openai-tts", {"endpoint": "https://x.openai.azure.com", "deployment": "d"}),
        "AZURE_SPEECH_KEY": ("azure-speech-tts", {"region": "westeurope"}),
    }
    with pytest.raises(EngineMissing, match=variable):
        await registry.create(*options[variable]).load()


@pytest.mark.parametrize(("name", "option"), [("azure-openai-llm", "endpoint"), ("azure-speech-stt", "region")])
async def test_a_missing_address_names_the_option(name: str, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        await registry.create(name, {"key_env": KEY_ENV}).load()


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


@pytest.mark.parametrize("name", ["openai-stt", "azure-speech-stt"])
async def test_digital_silence_is_not_paid_for(name: str, provider: FakeProvider) -> None:
    engine = await proxy(name, provider)
    assert (await engine.transcribe(TranscribeRequest(bytes(32_000), 16_000))).text == ""
    assert not provider.received


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


# Azure Speech.


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (fake_azure_speech.NO_KEY, AuthFailed),
        (fake_azure_speech.NO_RIGHTS, AuthFailed),
        (fake_azure_speech.TOO_MANY, RateLimited),
        (fake_azure_speech.WRONG, BadRequest),
        (fake_azure_speech.BROKEN, ProviderDown),
    ],
)
@pytest.mark.parametrize("name", SPEECH)
async def test_azure_speech_refuses(
    name: str, provider: FakeProvider, trouble: Trouble, kind: type[ParleyError]
) -> None:
    provider.troubles.append(trouble)
    await failing(await proxy(name, provider, **ONCE), kind)


async def test_azure_hears(speech: FakeAzureSpeech) -> None:
    engine = await proxy("azure-speech-stt", speech, profanity="raw")
    result = await engine.transcribe(TranscribeRequest(UTTERANCE.audio, 48_000, language="de"))
    assert (result.text, result.confidence, result.language) == ("Hello there.", 0.91, "de-DE")
    assert result.usage.audio_seconds == pytest.approx(0.5)
    assert speech.received[-1].query == {"language": "de-DE", "format": "detailed", "profanity": "raw"}


@pytest.mark.parametrize("status", ["NoMatch", "InitialSilenceTimeout", "BabbleTimeout"])
async def test_azure_hears_nothing(speech: FakeAzureSpeech, status: str) -> None:
    speech.statuses.append(status)
    assert (await (await proxy("azure-speech-stt", speech)).transcribe(UTTERANCE)).text == ""
    assert len(speech.received) == 1


async def test_azure_gives_up_once(speech: FakeAzureSpeech) -> None:
    speech.statuses.append("Error")
    await used(await proxy("azure-speech-stt", speech, **QUICK))
    assert len(speech.received) == 2


async def test_azure_takes_a_minute(speech: FakeAzureSpeech) -> None:
    engine = await proxy("azure-speech-stt", speech)
    with pytest.raises(BadRequest, match="60 s"):
        await engine.transcribe(TranscribeRequest(tone(60.5, 8000), 8000))
    assert not speech.received


@pytest.mark.parametrize("text", ["</voice><audio src='http://x/'/>", "a < b && c > d", "\"quoted\" & 'single' ]]>"])
async def test_a_text_stays_text_in_ssml(speech: FakeAzureSpeech, text: str) -> None:
    await spoken(await proxy("azure-speech-tts", speech), SpeechRequest(f"Say {text} now", language="de", speed=1.25))
    (said,) = speech.said
    assert said.startswith("Say")
    assert said.endswith("now")
    body = speech.received[-1].body.decode()
    assert '<prosody rate="+25%">' in body
    assert 'xml:lang="de-DE"' in body


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SpeechRequest("x", voice="'/><evil"), "voice"),
        (SpeechRequest("x", language="en'/>"), "language"),
        (SpeechRequest("x", speed=3.0), "speed"),
    ],
)
async def test_azure_is_not_asked_what_it_would_refuse(
    speech: FakeAzureSpeech, request_: SpeechRequest, field: str
) -> None:
    engine = await proxy("azure-speech-tts", speech)
    with pytest.raises(BadRequest) as caught:
        await spoken(engine, request_)
    assert caught.value.field == field
    assert not speech.received


@pytest.mark.parametrize("name", SPEECH)
async def test_the_region_makes_the_address(name: str) -> None:
    engine = cast("Any", registry.create(name, {"region": "westeurope", "key_env": KEY_ENV}))
    await engine.load()
    _made.append(engine)
    role = name.rsplit("-", 1)[1]
    assert str(engine._client.http.base_url) == f"https://westeurope.{role}.speech.microsoft.com"
