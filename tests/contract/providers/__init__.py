"""Fake providers for the contract suite: one of each kind a session, started when first asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tests.contract.providers.fake_azure_speech import FakeAzureSpeech
from tests.contract.providers.fake_openai import FakeAzureOpenAI, FakeOpenAI
from tests.contract.providers.server import KEY, FakeProvider

KEY_ENV = "PARLEY_TEST_KEY"

P = TypeVar("P", bound=FakeProvider)

_running: dict[type[FakeProvider], FakeProvider] = {}


def running(kind: type[P]) -> P:
    """Return the session's provider of a kind; needs the session's loop."""
    os.environ[KEY_ENV] = KEY
    if kind not in _running:
        _running[kind] = kind()
    return cast("P", _running[kind])


async def close() -> None:
    """Stop all that run."""
    while _running:
        _, provider = _running.popitem()
        await provider.close()


def openai(provider: FakeOpenAI) -> dict[str, Any]:
    """Return options that lead to a provider."""
    return {"base_url": provider.base_url, "key_env": KEY_ENV}


def azure_openai(provider: FakeAzureOpenAI) -> dict[str, Any]:
    """Return options that lead to a provider."""
    return {"endpoint": provider.url, "deployment": provider.deployment, "key_env": KEY_ENV}


def azure_speech(provider: FakeAzureSpeech) -> dict[str, Any]:
    """Return options that lead to a provider."""
    return {"endpoint": provider.url, "key_env": KEY_ENV}


OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"openai-{role}": lambda: openai(running(FakeOpenAI)) for role in ("stt", "llm", "tts")},
    **{f"azure-openai-{role}": lambda: azure_openai(running(FakeAzureOpenAI)) for role in ("stt", "llm", "tts")},
    **{f"azure-speech-{role}": lambda: azure_speech(running(FakeAzureSpeech)) for role in ("stt", "tts")},
}
"""Options of every proxy for the common suite."""
