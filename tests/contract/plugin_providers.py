"""Engines of the catalog, loaded against the servers of `fake_providers`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_asyncio

from serve import registry
from serve.audio import duration, rms
from serve.catalog import CATALOG
from serve.contracts import (
    ChatRequest,
    Engine,
    LanguageModel,
    SpeechRequest,
    SpeechToText,
    TextToSpeech,
    TranscribeRequest,
)
from tests.contract.conftest import answered, spoken, tone
from tests.contract.fake_providers import FakeProvider, fake_provider

KEY = "made-up-key"
HOSTS: dict[str, str] = {
    "deepgram-stt": "/v1/listen",
    "deepgram-tts": "/v1/speak",
    "elevenlabs-stt": "/v1",
    "elevenlabs-tts": "/v1",
    "cartesia-tts": "",
    "anthropic-llm": "",
    "google-llm": "",
    "aws-llm": "",
    "aws-tts": "",
}
"""What stands behind the server's address in the argument `base_url`."""
ONCE = {"retries": {"attempts": 1}}


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def server() -> AsyncGenerator[FakeProvider]:
    async with fake_provider() as provider:
        yield provider


@pytest.fixture
def provider(server: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    server.reset()
    for line in CATALOG.values():
        for variable in line.preset.get("variables", ()):
            monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.address)
    return server


@asynccontextmanager
async def loaded(name: str, provider: FakeProvider, **options: Any) -> AsyncGenerator[Engine]:
    arguments = options.pop("arguments", {})
    if not name.startswith(("aws", "google")):
        arguments = {"base_url": provider.address + HOSTS[name], **arguments}
    if name == "aws-tts":
        arguments = {"region": "us-east-1", **arguments}
    engine = registry.create(name, {**ONCE, "arguments": arguments, **options})
    async with asyncio.timeout(60):
        await engine.load()
    try:
        yield engine
    finally:
        async with asyncio.timeout(10):
            await engine.close()


async def ask(engine: Any) -> Any:
    """Return text or audio: what the engine's role is there for."""
    if isinstance(engine, SpeechToText):
        async with asyncio.timeout(30):
            return (await engine.transcribe(TranscribeRequest(tone(1.0, 8000), 8000))).text
    if isinstance(engine, LanguageModel):
        return "".join(chunk.text for chunk in await answered(engine, hello()))
    chunks = await spoken(cast("TextToSpeech", engine), SpeechRequest("Hello there."))
    audio = b"".join(chunk.audio for chunk in chunks)
    assert duration(audio, chunks[0].sample_rate) == pytest.approx(1.0, abs=0.15)
    assert rms(audio) > 0.05
    return audio


def hello(**more: Any) -> ChatRequest:
    return ChatRequest([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], **more)
