"""The plugins of the catalog, against servers on loopback that speak their providers' protocols.

Google's speech services (gRPC, at an address that the plugin fixes) and Amazon Transcribe (HTTP/2, Python 3.12) are not
here: `test_plugins.py` has what the adapter does with any plugin.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from serve import registry
from serve.catalog import CATALOG
from serve.contracts import (
    ChatRequest,
    LanguageModel,
    SpeechRequest,
    SpeechToText,
    TextToSpeech,
    TranscribeRequest,
    WarmingEngine,
)
from serve.errors import AuthFailed, BadRequest, EngineMissing, ParleyError, ProviderDown, QuotaExceeded, RateLimited
from tests.contract.conftest import answered, closed, spoken, tone
from tests.contract.fake_providers import SAID, SECRET_TEXT, FakeProvider
from tests.contract.plugin_providers import HOSTS, KEY, ask, hello, loaded, provider, server

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

__all__ = ["provider", "server"]  # fixtures

HTTP = ("deepgram-stt", "deepgram-tts", "elevenlabs-stt", "elevenlabs-tts", "cartesia-tts")
STREAMING = [name for name in HOSTS if not name.endswith("-stt")]


@pytest.mark.parametrize("name", list(HOSTS))
async def test_it_answers_with_the_key_of_the_environment(name: str, provider: FakeProvider) -> None:
    async with loaded(name, provider) as engine:
        for _ in range(2):
            answer = await ask(engine)
            assert answer == SAID or isinstance(answer, bytes)
    sent = [headers for _, headers, _ in provider.asked]
    assert all(KEY in json.dumps(headers) for headers in sent)
    if not name.startswith("aws"):
        assert len(provider.ports) == 1, "the connection is not kept"


@pytest.mark.parametrize("name", list(HOSTS))
@pytest.mark.parametrize(("status", "error"), [(401, AuthFailed), (429, RateLimited), (500, ProviderDown)])
async def test_a_refusal_says_what_it_is_and_leaves_it_well(
    name: str, status: int, error: type[ParleyError], provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with loaded(name, provider) as engine:
        provider.modes = [status]
        with pytest.raises(error) as caught:
            await ask(engine)
        assert SECRET_TEXT not in str(caught.value)
        assert KEY not in str(caught.value)
        assert not any(word in caplog.text for word in (SECRET_TEXT, KEY, "Hello there", "Be brief"))
        assert len(provider.asked) == 1, "the plugin tried again by itself"
        provider.modes = ["ok"]
        assert await ask(engine)


@pytest.mark.parametrize("name", list(HOSTS))
async def test_a_wrong_request_is_no_failure_of_the_provider(name: str, provider: FakeProvider) -> None:
    provider.modes = [400]
    async with loaded(name, provider) as engine:
        for _ in range(5):
            with pytest.raises(BadRequest, match=r"audio|messages|text"):
                await ask(engine)


@pytest.mark.parametrize("name", ["elevenlabs-stt", "elevenlabs-tts"])
async def test_a_used_up_budget_is_told_by_the_providers_code(name: str, provider: FakeProvider) -> None:
    provider.modes, provider.quota = [401], True
    async with loaded(name, provider) as engine:
        with pytest.raises(QuotaExceeded):
            await ask(engine)


@pytest.mark.parametrize("name", [*HTTP, "anthropic-llm"])
async def test_too_many_requests_are_sent_again_when_the_provider_says(name: str, provider: FakeProvider) -> None:
    provider.modes, provider.headers = [429, "ok"], {"retry-after-ms": "300"}
    async with loaded(name, provider, retries={"attempts": 2, "pause": 0.01}) as engine:
        began = asyncio.get_running_loop().time()
        assert await ask(engine)
        assert asyncio.get_running_loop().time() - began > 0.29
    assert len(provider.asked) == 2


@pytest.mark.parametrize("name", list(HOSTS))
async def test_silence_is_waited_for_and_no_longer(name: str, provider: FakeProvider) -> None:
    async with loaded(name, provider, timeouts={"first": 1.5}) as engine:
        await ask(engine)
        provider.modes = ["silent"]
        with pytest.raises(ProviderDown):
            await ask(engine)
        async with asyncio.timeout(2):
            await provider.gone.wait()
        provider.modes = ["ok"]
        assert await ask(engine)


@pytest.mark.parametrize("name", list(HOSTS))
async def test_an_answer_that_is_cut_is_an_error(name: str, provider: FakeProvider) -> None:
    provider.modes = ["cut"]
    async with loaded(name, provider) as engine:
        with pytest.raises(ProviderDown):
            await ask(engine)
        provider.modes = ["ok"]
        assert await ask(engine)


@pytest.mark.parametrize("name", STREAMING)
async def test_closing_closes_the_connection_at_once(name: str, provider: FakeProvider) -> None:
    provider.modes = ["stalls"]
    async with loaded(name, provider) as engine:
        stream: Any
        if isinstance(engine, LanguageModel):
            stream = engine.chat(hello())
        else:
            stream = cast("TextToSpeech", engine).speak(SpeechRequest("Hello there."))
        async with asyncio.timeout(10):
            await anext(stream)
        assert await closed(stream) < 0.1
        async with asyncio.timeout(1):
            await provider.gone.wait()
        provider.modes = ["ok"]
        assert await ask(engine)


@pytest.mark.parametrize("name", [name for name in HOSTS if name.endswith("-stt")])
async def test_cancelling_an_utterance_closes_the_connection(name: str, provider: FakeProvider) -> None:
    provider.modes = ["silent"]
    async with loaded(name, provider) as engine:
        task = asyncio.create_task(ask(engine))
        async with asyncio.timeout(10):
            await provider.came.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(1):
            await provider.gone.wait()


@pytest.mark.parametrize("name", HTTP)
async def test_warming_opens_the_connection_that_the_first_request_takes(name: str, provider: FakeProvider) -> None:
    async with loaded(name, provider) as engine:
        assert isinstance(engine, WarmingEngine)
        async with asyncio.timeout(10):
            await engine.warm()
        await ask(engine)
    assert len(provider.ports) == 1


async def test_a_provider_that_is_away_does_not_keep_an_engine_from_coming_up(provider: FakeProvider) -> None:
    async with loaded("deepgram-tts", provider, arguments={"base_url": "http://127.0.0.1:1"}) as engine:
        async with asyncio.timeout(10):
            await cast("WarmingEngine", engine).warm()
        with pytest.raises(ProviderDown):
            await ask(engine)


@pytest.mark.parametrize("name", [name for name in CATALOG if CATALOG[name].preset])
async def test_a_missing_variable_is_named(name: str) -> None:
    variables = CATALOG[name].preset["variables"]
    with pytest.raises(EngineMissing, match=variables[0]):
        await registry.create(name, {}).load()


async def test_another_variable_can_hold_the_key(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECOND_ACCOUNT", "another-made-up-key")
    async with loaded("cartesia-tts", provider, key_env="SECOND_ACCOUNT") as engine:
        await ask(engine)
    assert "another-made-up-key" in json.dumps(provider.asked[0][1])


# What a request asks for reaches the provider.


def body(provider: FakeProvider) -> dict[str, Any]:
    return json.loads(provider.asked[-1][2])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("anthropic-llm", lambda body: (body["max_tokens"], body["temperature"], body["stop_sequences"])),
        (
            "google-llm",
            lambda body: (
                body["generationConfig"]["maxOutputTokens"],
                body["generationConfig"]["temperature"],
                body["generationConfig"]["stopSequences"],
            ),
        ),
    ],
)
async def test_limits_of_a_request_reach_the_model(
    name: str, where: Callable[[dict[str, Any]], Any], provider: FakeProvider
) -> None:
    async with loaded(name, provider, arguments={"model": "gemini-2.5-flash"} if "google" in name else {}) as engine:
        chunks = await answered(cast("LanguageModel", engine), hello(max_tokens=30, temperature=0.2, stop=("END",)))
    assert where(body(provider)) == (30, 0.2, ["END"])
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 25
    # Anthropic's plugin adds the first count to the last, which has it in it.
    assert chunks[-1].usage.completion_tokens == (5 if name == "anthropic-llm" else 4)


async def test_limits_of_a_request_reach_bedrock(provider: FakeProvider) -> None:
    async with loaded("aws-llm", provider) as engine:
        chunks = await answered(cast("LanguageModel", engine), hello(max_tokens=4, temperature=0.2))
    assert body(provider)["inferenceConfig"] == {"maxTokens": 4, "temperature": 0.2}
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.cached_tokens) == (25, 5)


async def test_tools_and_their_results_reach_anthropic(provider: FakeProvider) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": parameters}}
    call = {"id": "toolu_0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "toolu_0", "content": "sunny"},
        {"role": "user", "content": [{"type": "text", "text": "And Paris?"}]},
    ]
    async with loaded("anthropic-llm", provider) as engine:
        chunks = await answered(
            cast("LanguageModel", engine), ChatRequest(messages, tools=(tool,), tool_choice="required")
        )
    sent = body(provider)
    assert sent["system"][0]["text"] == "Be brief."
    assert sent["tool_choice"]["type"] == "any"
    assert sent["tools"][0]["input_schema"]["properties"] == parameters["properties"]
    blocks = [block for message in sent["messages"] for block in message["content"]]
    assert [block["type"] for block in blocks] == ["text", "tool_use", "tool_result", "text"]
    assert blocks[1]["input"] == {"city": "Rome"}
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("weather", {"city": "Paris"})]
    assert chunks[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("name", "request_", "found"),
    [
        ("elevenlabs-tts", SpeechRequest("Hi.", voice="anna", language="de"), "/v1/text-to-speech/anna/stream"),
        ("cartesia-tts", SpeechRequest("Hi.", voice="anna", language="de", speed=1.2), '"id": "anna"'),
        ("aws-tts", SpeechRequest("Hi.", voice="Anna", language="de-DE"), '"VoiceId": "Anna"'),
    ],
)
async def test_a_voice_reaches_the_provider(
    name: str, request_: SpeechRequest, found: str, provider: FakeProvider
) -> None:
    async with loaded(name, provider) as engine:
        await spoken(cast("TextToSpeech", engine), request_)
        path, _, sent = provider.asked[-1]
        assert found in f"{path} {json.dumps(json.loads(sent))}"
        with pytest.raises(BadRequest, match="voice"):
            await spoken(cast("TextToSpeech", engine), SpeechRequest("Hi.", voice="../../v1/user"))


async def test_words_of_deepgram_have_their_places(provider: FakeProvider) -> None:
    async with loaded("deepgram-stt", provider) as engine:
        result = await cast("SpeechToText", engine).transcribe(TranscribeRequest(tone(2.0, 16000), 16000, "de"))
    assert [word.text for word in result.words] == SAID.split()
    assert result.words[1].start == 0.5
    assert result.confidence == pytest.approx(0.98)
    assert result.language == "de"
    assert provider.asked[-1][2][:4] == b"RIFF"
