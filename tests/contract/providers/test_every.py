"""What every proxy keeps, whoever its provider is: keys, tries, time-outs, the circuit, connections that are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from serve import registry
from serve.contracts import (
    Engine,
    LanguageModel,
    SpeechRequest,
    TranscribeRequest,
    WarmingEngine,
)
from serve.errors import (
    AuthFailed,
    ConfigError,
    EngineMissing,
    ProviderDown,
    RateLimited,
)
from tests.contract.providers import KEY_ENV
from tests.contract.providers.conftest import (
    AZURE,
    LONG,
    ONCE,
    OPENAI,
    QUICK,
    SPEECH,
    failing,
    proxy,
    reached,
    used,
    within,
)
from tests.contract.providers.server import FakeProvider, Trouble

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]


async def test_a_proxy_says_that_it_is_one(name: str) -> None:
    assert registry.entry(name).proxy
    assert name.rsplit("-", 1)[1] == registry.entry(name).role


async def test_warming_opens_a_connection_and_costs_nothing(name: str, provider: FakeProvider) -> None:
    engine = await proxy(name, provider)
    assert isinstance(engine, WarmingEngine)
    await engine.warm()
    assert len(provider.warmed) == 1
    assert not provider.received
    reached.clear()
    await used(cast("Engine", engine))
    assert not reached, "the request opened a connection of its own"


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


@pytest.mark.parametrize("name", ["openai-stt", "azure-speech-stt"])
async def test_digital_silence_is_not_paid_for(name: str, provider: FakeProvider) -> None:
    engine = await proxy(name, provider)
    assert (await engine.transcribe(TranscribeRequest(bytes(32_000), 16_000))).text == ""
    assert not provider.received
