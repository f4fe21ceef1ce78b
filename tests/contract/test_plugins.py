"""What the adapter does with any plugin; those here are fakes by LiveKit's own base classes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from serve import registry
from serve.contracts import (
    ChatRequest,
    Engine,
    LanguageModel,
    SpeechRequest,
    SpeechToText,
    StreamingSpeechToText,
    TextToSpeech,
    TranscribeRequest,
)
from serve.errors import (
    AuthFailed,
    BadRequest,
    ConfigError,
    EngineMissing,
    ParleyError,
    ProviderDown,
    RateLimited,
    StreamLost,
)
from serve.llm.plugin import Stops
from tests.contract.conftest import answered, closed, spoken, tone
from tests.contract.fake_plugins import SAID, Failing

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

ONCE = {"retries": {"attempts": 1}}
CLASSES = {"stt": "FakeSTT", "llm": "FakeLLM", "tts": "FakeTTS"}
ROLES = list(CLASSES)


def created(role: str, **options: Any) -> Engine:
    options = {"plugin": f"tests.contract.fake_plugins:{CLASSES[role]}", **ONCE, **options}
    return registry.create(f"livekit-{role}", options)


@asynccontextmanager
async def hosted(role: str, **options: Any) -> AsyncGenerator[Any]:
    engine = created(role, **options)
    async with asyncio.timeout(20):
        await engine.load()
    try:
        yield engine
    finally:
        async with asyncio.timeout(10):
            await engine.close()


def asking(text: str = "one two three", **more: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], **more)


async def ask(engine: Any) -> Any:
    async with asyncio.timeout(20):
        if isinstance(engine, SpeechToText):
            return (await engine.transcribe(TranscribeRequest(tone(0.5, 16000), 16000))).text
        if isinstance(engine, LanguageModel):
            return "".join(chunk.text for chunk in await answered(engine, asking()))
        return b"".join(chunk.audio for chunk in await spoken(cast("TextToSpeech", engine), SpeechRequest("Hello.")))


async def plugin_of(engine: Any) -> Any:
    """Return the plugin itself, for what it counts."""
    base = getattr(engine, "hosted", None) or engine._hosted
    async with base.instance() as plugin:
        return plugin


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("failure", "error"),
    [("401", AuthFailed), ("429", RateLimited), ("503", ProviderDown), ("404", ParleyError), ("api", ProviderDown)],
)
async def test_a_plugins_errors_become_ours_without_their_words(
    role: str, failure: str, error: type[ParleyError]
) -> None:
    async with hosted(role, arguments={"failure": failure}) as engine:
        with pytest.raises(error) as caught:
            await ask(engine)
        assert "words" not in str(caught.value)
        # It works again as soon as the provider does.
        (await plugin_of(engine)).failure = ""
        assert await ask(engine)


@pytest.mark.parametrize("role", ROLES)
async def test_what_is_no_error_of_a_provider_stays_what_it_is(role: str) -> None:
    async with hosted(role, arguments={"failure": "bug"}) as engine:
        with pytest.raises(Failing):
            await ask(engine)


@pytest.mark.parametrize("role", ROLES)
async def test_a_provider_that_only_fails_is_left_alone(role: str) -> None:
    async with hosted(role, arguments={"failure": "503"}) as engine:
        for _ in range(3):
            with pytest.raises(ProviderDown):
                await ask(engine)
        with pytest.raises(ProviderDown, match="left alone"):
            await ask(engine)


@pytest.mark.parametrize("role", ROLES)
async def test_it_loads_where_a_replica_loads(role: str) -> None:
    """LiveKit's plugins want the main thread when they are imported; a replica's loop runs in another."""
    done: list[Any] = []

    async def run() -> None:
        async with hosted(role, plugin=f"tests.contract.fake_plugins:{CLASSES[role]}") as engine:
            done.append(await ask(engine))

    def alone() -> None:
        asyncio.run(run())

    thread = threading.Thread(target=alone)
    thread.start()
    await asyncio.to_thread(thread.join, 30)
    assert done[0]


async def test_a_plugin_of_a_provider_may_be_imported_in_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("livekit.plugins.cartesia")]:
        monkeypatch.delitem(sys.modules, name)
    engine = registry.create("cartesia-tts", {"key_env": "MADE_UP"})
    monkeypatch.setenv("MADE_UP", "made-up")
    await engine.load()
    assert "livekit.plugins.cartesia" in sys.modules
    await engine.close()


async def test_what_is_missing_is_named() -> None:
    with pytest.raises(EngineMissing, match=r"no_such_package.*parley\[somebody\]"):
        await created("tts", plugin="no_such_package:TTS", extra="somebody").load()
    with pytest.raises(EngineMissing, match="fake_plugins:Nobody"):
        await created("tts", plugin="tests.contract.fake_plugins:Nobody").load()
    with pytest.raises(EngineMissing, match="SOME_VARIABLE"):
        await created("tts", variables=["SOME_VARIABLE"]).load()
    await created("tts", variables=["SOME_VARIABLE"], ambient=True).load()


async def test_wrong_arguments_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="plugin"):
        registry.create("livekit-tts", {})
    with pytest.raises(ConfigError, match=r"api_key.*key_env"):
        created("tts", arguments={"api_key": "in the profile"})
    with pytest.raises(ConfigError, match="no_such_argument"):
        await created("tts", arguments={"no_such_argument": 1}).load()
    with pytest.raises(ConfigError, match="2 channels"):
        await created("tts", arguments={"channels": 2}).load()


async def test_a_profile_comes_over_the_preset_key_by_key() -> None:
    options: Any = registry.options("elevenlabs-tts", {"arguments": {"model": "eleven_flash_v2_5"}, "piece": 200})
    assert options.arguments == {"encoding": "pcm_24000", "model": "eleven_flash_v2_5"}
    assert options.piece == 200
    assert options.variables == ("ELEVEN_API_KEY",)


async def test_a_plugin_finds_its_http_session() -> None:
    async with hosted("tts", plugin="tests.contract.fake_plugins:FakeHTTP") as engine:
        # As a replica calls it: in another task than the one that loaded it.
        assert await asyncio.create_task(ask(engine))


# Speech to text


@pytest.mark.parametrize("arguments", [{"streaming": False}, {"offline": False}, {}])
async def test_whole_utterances_by_either_way(arguments: dict[str, Any]) -> None:
    async with hosted("stt", arguments=arguments) as engine:
        assert engine.capabilities.streaming == arguments.get("streaming", True)
        assert await ask(engine) == SAID
        plugin = await plugin_of(engine)
        assert plugin.running == 0


async def test_a_plugin_without_a_stream_does_not_open_one() -> None:
    async with hosted("stt", arguments={"streaming": False}) as engine:
        with pytest.raises(BadRequest, match="whole utterances"):
            await engine.open(16000, None)


async def test_words_come_back_while_a_person_speaks() -> None:
    async with hosted("stt") as engine:
        assert isinstance(engine, StreamingSpeechToText)
        stream = await engine.open(48000, None)
        assert await stream.feed(tone(0.2, 48000)) == ""
        await asyncio.sleep(0.01)
        assert await stream.feed(tone(0.2, 48000)) == "hello from"
        result = await stream.finish()
        assert result.text == SAID
        assert result.confidence == 0.5
        assert result.usage.audio_seconds == pytest.approx(0.4)
        with pytest.raises(StreamLost):
            await stream.finish()


async def test_a_stream_that_does_not_end_by_itself() -> None:
    hangs = {"offline": False, "hangs": True}
    async with hosted("stt", arguments=hangs, settle_seconds=0.1) as engine:
        assert await ask(engine) == SAID
    async with hosted("stt", arguments=hangs, timeouts={"first": 0.2}) as engine:
        with pytest.raises(ProviderDown):
            await ask(engine)
        assert (await plugin_of(engine)).running == 0


async def test_a_dropped_utterance_ends_the_plugins_stream() -> None:
    async with hosted("stt", arguments={"hangs": True}) as engine:
        plugin = await plugin_of(engine)
        stream = await engine.open(16000, None)
        await stream.feed(tone(0.2, 16000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert plugin.running == 1
        await stream.close()
        assert plugin.running == 0


async def test_a_language_makes_an_instance_where_the_plugin_wants_it_so() -> None:
    async with hosted("stt", takes={"language": "language"}) as engine:
        request = TranscribeRequest(tone(0.2, 16000), 16000, language="de")
        assert (await engine.transcribe(request)).language == "de"
        assert (await engine.transcribe(TranscribeRequest(tone(0.2, 16000), 16000))).language == "en"
        with pytest.raises(BadRequest, match="language"):
            await engine.transcribe(TranscribeRequest(tone(0.2, 16000), 16000, language="de&model=dear"))


# Language models


async def test_closing_an_answer_ends_the_plugins_stream() -> None:
    async with hosted("llm", arguments={"hangs": True}) as engine:
        stream = engine.chat(asking())
        await anext(stream)
        plugin = await plugin_of(engine)
        assert plugin.running == 1
        assert await closed(stream) < 0.1
        assert plugin.running == 0


async def test_limits_that_the_plugin_does_not_know_are_kept() -> None:
    async with hosted("llm") as engine:
        chunks = await answered(engine, asking("one two three four", max_tokens=2))
        assert "".join(chunk.text for chunk in chunks) == "one two"
        assert chunks[-1].finish_reason == "length"
        chunks = await answered(engine, asking("one two STOP three", stop=("two ST", "three")))
        assert "".join(chunk.text for chunk in chunks) == "one "
        assert chunks[-1].finish_reason == "stop"
        with pytest.raises(BadRequest, match="response_format"):
            await answered(engine, asking(response_format={"type": "json_object"}))


async def test_settings_and_choices_are_passed_on() -> None:
    passes = {"max_tokens": "max_output", "temperature": "deep.down.temperature", "stop": "stops"}
    tool = {"type": "function", "function": {"name": "weather"}}
    async with hosted("llm", passes=passes) as engine:
        request = asking(max_tokens=9, temperature=0.0, stop=("X",), tools=(tool,), tool_choice="required")
        await answered(engine, request)
        (asked,) = (await plugin_of(engine)).asked
    down = {"down": {"temperature": 0.0}}
    assert asked == {"tool_choice": "required", "extra_kwargs": {"max_output": 9, "deep": down, "stops": ["X"]}}


@pytest.mark.parametrize(
    "message", [{"content": "no role"}, {"role": "nobody", "content": "x"}, {"role": "tool", "content": "no id"}]
)
async def test_what_are_no_messages_are_refused(message: dict[str, Any]) -> None:
    async with hosted("llm") as engine:
        with pytest.raises(BadRequest, match="messages"):
            await answered(engine, ChatRequest([message]))


async def test_stop_texts_are_found_across_pieces() -> None:
    stops = Stops(("</end>", "STOP"))
    said = "".join(stops.feed(piece) for piece in ("a <", "/en", "glish> b <", "/e", "nd> c"))
    assert (said, stops.met) == ("a </english> b ", True)
    stops = Stops(("STOP",))
    assert stops.feed("until ST") + stops.rest() == "until ST"


# Text to speech


async def test_closing_a_speech_ends_the_plugins_stream() -> None:
    async with hosted("tts", arguments={"hangs": True}) as engine:
        stream = engine.speak(SpeechRequest("A long way to go."))
        async with asyncio.timeout(10):
            await anext(stream)
        plugin = await plugin_of(engine)
        assert plugin.running == 1
        assert await closed(stream) < 0.1
        assert plugin.running == 0


async def test_speech_by_the_plugins_stream_is_the_same() -> None:
    async with hosted("tts") as whole, hosted("tts", streamed=True, arguments={"streaming": True}) as streamed:
        # What LiveKit flushes ends with 10 ms of silence.
        assert (await ask(whole)).startswith(await ask(streamed))


async def test_long_texts_go_in_sentences() -> None:
    async with hosted("tts", piece=100) as engine:
        await spoken(engine, SpeechRequest("This is a sentence of some length. " * 6))
        texts = (await plugin_of(engine)).texts
    assert [len(text) for text in texts] == [69, 69, 69]


async def test_instances_are_kept_and_bounded() -> None:
    async with hosted("tts", takes={"voice": "voice", "speed": "speed"}, instances=3) as engine:
        for speed in (1.0, 1.1, 1.2, 1.3, 1.4, 1.1):
            await spoken(engine, SpeechRequest("Hi.", speed=speed))
        assert len(engine._hosted._instances) == 3
        assert (await plugin_of(engine)).texts == ["Hi."]


async def test_what_the_plugin_does_not_take_is_refused() -> None:
    async with hosted("tts") as engine:
        with pytest.raises(BadRequest, match="voice"):
            await spoken(engine, SpeechRequest("Hi.", voice="bert"))
        with pytest.raises(BadRequest, match="speed"):
            await spoken(engine, SpeechRequest("Hi.", speed=1.5))
    async with hosted("tts", takes={"voice": "voice"}) as engine:
        with pytest.raises(BadRequest, match="voice"):
            await spoken(engine, SpeechRequest("Hi.", voice="nobody"))
