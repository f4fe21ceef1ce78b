"""The contract suite: every engine of the registry, through the same tests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Any, cast

import numpy as np
import psutil
import pytest
import pytest_asyncio

from serve import registry
from serve.audio import from_float
from serve.contracts import (
    ChatChunk,
    ChatRequest,
    Engine,
    LanguageModel,
    Role,
    SpeechChunk,
    SpeechRequest,
    SpeechToText,
    TextToSpeech,
)
from serve.errors import EngineMissing
from tests import databases
from tests.contract import providers, tiny_llama, tiny_models, tiny_voices

MUST_RUN = {
    *("pocketsphinx", "faster-whisper", "onnx-asr", "llamacpp", "piper", "kokoro"),
    *("livekit-stt", "livekit-llm", "livekit-tts", "fake-stt", "fake-llm", "fake-tts"),
    *providers.OPTIONS,
}
"""Engines whose dependencies requirements.lock brings; of flite and espeak one is enough."""

OPTIONS: dict[str, dict[str, Any] | Callable[[], dict[str, Any]]] = {
    **providers.OPTIONS,
    "faster-whisper": tiny_models.whisper_options,
    "onnx-asr": tiny_models.parakeet_options,
    "piper": tiny_voices.piper_options,
    "kokoro": tiny_voices.kokoro_options,
    "livekit-stt": {"plugin": "tests.contract.fake_plugins:FakeSTT"},
    "livekit-llm": {
        "plugin": "tests.contract.fake_plugins:FakeLLM",
        "takes": {"max_tokens": "max_tokens"},
    },
    "livekit-tts": {
        "plugin": "tests.contract.fake_plugins:FakeTTS",
        "takes": {"voice": "voice", "speed": "speed"},
        "voices": ["anna", "bert"],
    },
    "pocketsphinx": {"decoders": 2, "wait_seconds": 60.0, "max_audio_seconds": 60.0},
    "llamacpp": {"context": 512, "slots": 2, "max_tokens": 12},
    "vllm": tiny_llama.options,
}
"""Where the defaults would make the suite slow, or want a model that has to be made first."""


def engines_of(role: Role) -> list[str]:
    """Return the names to parametrise over; those that are another engine with a preset need not pass twice."""
    return [name for name, entry in registry.engines(role).items() if not entry.preset]


_loaded: dict[str, Engine] = {}
_missing: dict[str, str] = {}


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def engines() -> AsyncIterator[None]:
    """Close what was loaded; nothing may be left behind."""
    before = _children()
    yield
    for engine in _loaded.values():
        async with asyncio.timeout(30):
            await engine.close()
    await providers.close()
    await asyncio.to_thread(databases.stop)
    await asyncio.sleep(0.1)
    left = _children().items() - before.items()
    assert not left, f"processes left behind: {left}"


async def load(name: str) -> Engine:
    """Return the loaded engine, one for the session; skip where its dependency is missing."""
    if name in _missing:
        pytest.skip(_missing[name])
    if name not in _loaded:
        try:
            options = OPTIONS.get(name, {})
            engine = registry.create(name, options() if callable(options) else options)
            # vLLM imports torch in three processes, one after the other.
            async with asyncio.timeout(180 if name == "vllm" else 60):
                await engine.load()
        except EngineMissing as error:
            if name in MUST_RUN:
                raise
            _missing[name] = f"{name}: {error}"
            pytest.skip(_missing[name])
        _loaded[name] = engine
    return _loaded[name]


@pytest_asyncio.fixture(loop_scope="session")
async def stt(request: pytest.FixtureRequest) -> SpeechToText:
    return cast("SpeechToText", await load(request.param))


@pytest_asyncio.fixture(loop_scope="session")
async def llm(request: pytest.FixtureRequest) -> LanguageModel:
    return cast("LanguageModel", await load(request.param))


@pytest_asyncio.fixture(loop_scope="session")
async def tts(request: pytest.FixtureRequest) -> TextToSpeech:
    return cast("TextToSpeech", await load(request.param))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with every engine of the role it asks for."""
    for role in ("stt", "llm", "tts"):
        if role in metafunc.fixturenames:
            metafunc.parametrize(role, engines_of(role), indirect=True)


def tone(seconds: float, rate: int, hz: float = 220.0) -> bytes:
    """Return sound that is no speech."""
    time = np.arange(round(seconds * rate)) / rate
    return from_float((0.2 * np.sin(2 * math.pi * hz * time)).astype(np.float32))


async def spoken(engine: TextToSpeech, request: SpeechRequest) -> list[SpeechChunk]:
    """Return all chunks of a speech."""
    async with asyncio.timeout(60):
        return [chunk async for chunk in engine.speak(request)]


async def answered(engine: LanguageModel, request: ChatRequest) -> list[ChatChunk]:
    """Return all chunks of an answer."""
    async with asyncio.timeout(60):
        return [chunk async for chunk in engine.chat(request)]


async def closed(stream: AsyncGenerator[Any, None]) -> float:
    """Close a stream; return the seconds that took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(20):
        await stream.aclose()
    return clock() - began


async def idle(within: float = 20.0) -> None:
    """Wait until this process and its children do nothing: proof that cancelled work has ended."""
    deadline = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < deadline:
        before = _cpu_seconds()
        await asyncio.sleep(0.3)
        if _cpu_seconds() - before < 0.1:
            return
    pytest.fail(f"still at work {within:.0f} s after it was cancelled")


def _children() -> dict[int, str]:
    found: dict[int, str] = {}
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            command = " ".join(child.cmdline())
            # Python's own helper of spawned processes; it ends with this one.
            if "multiprocessing.resource_tracker" not in command:
                found[child.pid] = f"{child.status()} {command}"
    return found


def _cpu_seconds() -> float:
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total
