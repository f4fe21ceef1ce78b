"""What the tests of proxies share: a provider of their own, a loaded proxy, and no way past loopback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
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
)
from serve.errors import (
    ParleyError,
)
from serve.settings import settings
from tests.contract.conftest import answered, spoken, tone
from tests.contract.providers import KEY_ENV, azure_openai, azure_speech, fake_openai, openai
from tests.contract.providers.fake_azure_speech import FakeAzureSpeech
from tests.contract.providers.fake_openai import FakeAzureOpenAI, FakeOpenAI
from tests.contract.providers.server import KEY, FakeProvider

E = TypeVar("E")

QUICK = {"retries": {"pause": 0.01}}
ONCE = {"retries": {"attempts": 1}}
HELLO = ChatRequest([{"role": "user", "content": "say hello to me"}])
LONG = ChatRequest([{"role": "user", "content": "word " * 500}], max_tokens=500)
UTTERANCE = TranscribeRequest(tone(0.5, 48_000), 48_000)
TEXT = SpeechRequest("The train leaves at noon.")
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

reached: list[Any] = []
"""Addresses that sockets were connected to in this test."""
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "socket.connect":
        reached.append(arguments[1])


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _loopback_only() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    """Whatever a test does: no connection leaves this machine."""
    global _watching
    reached.clear()
    _watching = True
    yield
    _watching = False
    # Names of sockets in files are strings.
    assert not [
        address for address in reached if address[0] not in ("127.0.0.1", "::1") and not isinstance(address, str)
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


made: list[Engine] = []
"""Engines to close when the test has ended."""


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def _closing() -> AsyncIterator[None]:  # pyright: ignore[reportUnusedFunction]  # pytest uses it
    made.clear()
    yield
    for engine in made:
        await engine.close()


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
    made.append(engine)
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
