"""The fakes do what their options say."""

from __future__ import annotations

import pytest

from serve import registry
from serve.contracts import ChatRequest, LanguageModel, SpeechRequest, SpeechToText, TextToSpeech, TranscribeRequest
from serve.errors import EngineFailed, Overloaded, RateLimited
from tests.contract.conftest import answered, spoken, tone

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]


async def test_stt_hears_its_script_and_fails_on_time() -> None:
    engine = registry.create("fake-stt", {"texts": ["one", "two"], "fail_after": 2, "failure": "Overloaded"})
    assert isinstance(engine, SpeechToText)
    request = TranscribeRequest(tone(0.1, 16000), 16000)
    assert [(await engine.transcribe(request)).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(Overloaded):
        await engine.transcribe(request)
    assert (await engine.transcribe(request)).text == "two"


async def test_llm_says_its_answers_and_fails_on_time() -> None:
    engine = registry.create("fake-llm", {"answers": ["a b c"], "fail_after": 2})
    assert isinstance(engine, LanguageModel)
    answer = engine.chat(ChatRequest([{"role": "user", "content": "hi"}]))
    assert [(await anext(answer)).text for _ in range(2)] == ["a", " b"]
    with pytest.raises(EngineFailed):
        await anext(answer)


async def test_llm_repeats_and_calls_tools() -> None:
    engine = registry.create("fake-llm", {})
    assert isinstance(engine, LanguageModel)
    chunks = await answered(engine, ChatRequest([{"role": "user", "content": "say this"}]))
    assert "".join(chunk.text for chunk in chunks) == "say this"
    tool = {"type": "function", "function": {"name": "weather"}}
    chunks = await answered(engine, ChatRequest([{"role": "user", "content": "call it"}], tools=(tool,)))
    assert [call.name for chunk in chunks for call in chunk.tool_calls] == ["weather"]
    assert chunks[-1].finish_reason == "tool_calls"


async def test_tts_is_as_long_as_its_text_and_fails_on_time() -> None:
    engine = registry.create("fake-tts", {"seconds_per_character": 0.1})
    assert isinstance(engine, TextToSpeech)
    usage = (await spoken(engine, SpeechRequest("ten chars.")))[-1].usage
    assert usage is not None
    assert usage.audio_seconds == pytest.approx(1.0)
    broken = registry.create("fake-tts", {"fail_after": 1, "failure": "RateLimited"})
    assert isinstance(broken, TextToSpeech)
    with pytest.raises(RateLimited):
        await spoken(broken, SpeechRequest("some text"))
