"""Pictures in messages: which models say that they see, and what those that do not are told."""

from __future__ import annotations

from typing import Any

import pytest

from serve.contracts import ChatRequest
from serve.llm.fake import FakeLanguageModel
from serve.llm.fake import Options as FakeOptions
from serve.llm.openai import AzureOptions, OpenAIChat, Options
from serve.replica import _without_pictures  # pyright: ignore[reportPrivateUsage]

pytestmark = pytest.mark.unit

PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_openais_models_see_and_compatible_servers_say_so() -> None:
    assert OpenAIChat(Options()).capabilities.images
    compatible = {"base_url": "http://127.0.0.1:9/v1"}
    assert not OpenAIChat(Options.model_validate(compatible)).capabilities.images
    assert OpenAIChat(Options.model_validate({**compatible, "images": True})).capabilities.images
    azure = AzureOptions.model_validate({"endpoint": "https://x.openai.azure.com", "deployment": "d", "images": False})
    assert not OpenAIChat(azure).capabilities.images
    assert not FakeLanguageModel(FakeOptions()).capabilities.images


def test_who_does_not_see_is_told_in_words() -> None:
    plain = ChatRequest([{"role": "user", "content": "Hello?"}])
    assert _without_pictures(plain) is plain
    shown = {"role": "user", "content": [{"type": "text", "text": "I send you the picture cat.png."}, PICTURE]}
    told = _without_pictures(ChatRequest([shown, *plain.messages]))
    assert told.messages == [
        {"role": "user", "content": "I send you the picture cat.png.\n[a picture]"},
        {"role": "user", "content": "Hello?"},
    ]
