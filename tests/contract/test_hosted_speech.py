"""Synthesisers in child processes: GPL stays apart, the dead are replaced, and voices are chosen."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, cast

import psutil
import pytest

from serve import registry
from serve.contracts import SpeechChunk, SpeechRequest, TextToSpeech
from serve.errors import ConfigError, DeadlineExceeded, EngineFailed, EngineMissing
from serve.worker import Worker
from tests.contract import tiny_voices
from tests.contract.conftest import closed, idle, spoken

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

TEXT = "The train to London leaves at noon."
LONG = "a long road " * 24
"""One piece, and more phonemes than a slow voice has patience for."""
GPL = {"piper", "kokoro_onnx", "phonemizer", "espeakng_loader"}


def options_of(name: str) -> dict[str, Any]:
    return {"piper": tiny_voices.piper_options, "kokoro": tiny_voices.kokoro_options, "espeak": dict[str, Any]}[name]()


@asynccontextmanager
async def loaded(name: str, **options: Any) -> AsyncGenerator[tuple[TextToSpeech, list[psutil.Process]]]:
    """Load an engine; also say which processes it has."""
    before = psutil.Process().children()
    engine = cast("TextToSpeech", registry.create(name, options))
    try:
        async with asyncio.timeout(60):
            await engine.load()
        yield engine, [child for child in psutil.Process().children() if child not in before]
    finally:
        async with asyncio.timeout(10):
            await engine.close()


async def rest(stream: AsyncGenerator[SpeechChunk, None]) -> None:
    async with asyncio.timeout(20):
        async for _ in stream:
            pass


def maps_espeak(process: psutil.Process) -> bool:
    return any("espeak" in Path(found.path).name for found in process.memory_maps())


async def pitch(engine: TextToSpeech, **request: Any) -> float:
    """Return the Hz of what a tiny voice says, by the times it crosses zero."""
    chunks = await spoken(engine, SpeechRequest(TEXT, **request))
    audio = memoryview(b"".join(chunk.audio for chunk in chunks)).cast("h").tolist()
    crossings = sum((one < 0) != (other < 0) for one, other in pairwise(audio))
    return crossings * chunks[0].sample_rate / len(audio) / 2


@pytest.mark.parametrize("name", ["piper", "kokoro", "espeak"])
async def test_gpl_code_is_in_the_child_alone(name: str) -> None:
    async with loaded(name, **options_of(name)) as (engine, children):
        await spoken(engine, SpeechRequest(TEXT))
        assert [maps_espeak(child) for child in children] == [True]
        assert not GPL & {module.split(".")[0] for module in sys.modules}
        assert not maps_espeak(psutil.Process())


@pytest.mark.parametrize("name", ["piper", "kokoro", "espeak"])
async def test_a_killed_child_is_replaced(name: str) -> None:
    async with loaded(name, **options_of(name)) as (engine, [child]):
        stream = engine.speak(SpeechRequest(f"{TEXT} " * 300))
        async with asyncio.timeout(20):
            await anext(stream)
        child.kill()
        with pytest.raises(EngineFailed):
            await rest(stream)
        assert (await spoken(engine, SpeechRequest(TEXT)))[0].audio
        assert not child.is_running()


async def test_a_sentence_under_way_is_given_up_and_the_process_kept() -> None:
    slow = str(tiny_voices.piper("en_US-slow-low", slow=True))
    async with loaded("piper", voice=slow) as (engine, [child]):
        stream = engine.speak(SpeechRequest(LONG))
        first = asyncio.ensure_future(anext(stream))
        began = sum(child.cpu_times()[:2])
        async with asyncio.timeout(20):
            while sum(child.cpu_times()[:2]) < began + 0.2:  # noqa: ASYNC110  # no event tells it
                await asyncio.sleep(0.02)
        assert not first.done()
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await closed(stream)
        clock = asyncio.get_running_loop().time
        asked = clock()
        assert (await spoken(engine, SpeechRequest("Go on.")))[0].audio
        assert clock() - asked < 1.0
        await idle()
        assert child.is_running(), "it was killed instead of stopped"


async def test_a_child_that_makes_no_audio_is_ended() -> None:
    slow = str(tiny_voices.piper("en_US-slow-low", slow=True))
    async with loaded("piper", voice=slow, answer_seconds=0.5) as (engine, [child]):
        with pytest.raises(DeadlineExceeded):
            await spoken(engine, SpeechRequest(LONG))
        assert (await spoken(engine, SpeechRequest("Go on.")))[0].audio
        assert not child.is_running()


async def test_as_many_texts_at_once_as_processes() -> None:
    async with loaded("piper", voice=str(tiny_voices.piper()), processes=2) as (engine, children):
        assert len(children) == 2
        streams = [engine.speak(SpeechRequest(f"{TEXT} " * 300)) for _ in range(2)]
        async with asyncio.timeout(20):
            for stream in streams:
                assert (await anext(stream)).audio
        for stream in streams:
            await closed(stream)


async def test_piper_speaks_with_the_voice_that_is_named_or_knows_the_language() -> None:
    voices = {"de": str(tiny_voices.piper("de_DE-tiny-low", language="de")), "en": str(tiny_voices.piper())}
    async with loaded("piper", voices=voices, voice="en") as (engine, _):
        assert engine.capabilities.voices == ("en", "de")
        assert engine.capabilities.languages == ("en-US", "de-DE")
        english, german = await pitch(engine), await pitch(engine, voice="de")
        # espeak-ng reads the text with German sounds, and the tone follows them.
        assert abs(english - german) > 1
        assert await pitch(engine, language="de-AT") == german
        assert await pitch(engine, language="en-GB") == await pitch(engine, language="fr") == english


async def test_piper_speaks_as_the_speaker_that_is_named() -> None:
    path = str(tiny_voices.piper("en_US-many-low", speakers=3))
    voices = {"first": path, "third": {"path": path, "speaker": 2}}
    async with loaded("piper", voices=voices) as (engine, _):
        assert await pitch(engine, voice="third") - await pitch(engine) == pytest.approx(200, abs=20)
    with pytest.raises(ConfigError, match="speakers 0 to 2, not 3"):
        async with loaded("piper", voice=path, speaker=3):
            pass


async def test_piper_takes_its_pace_from_options_and_request() -> None:
    path = str(tiny_voices.piper())
    seconds: list[float] = []
    for length, speed in ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0)):
        async with loaded("piper", voice=path, length_scale=length) as (engine, _):
            usage = (await spoken(engine, SpeechRequest(TEXT, speed=speed)))[-1].usage
            assert usage
            seconds.append(usage.audio_seconds)
    assert seconds[1] == pytest.approx(2 * seconds[0], rel=0.1)
    assert seconds[2] == pytest.approx(seconds[0], rel=0.1)


async def test_piper_finds_the_voice_in_a_folder_and_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / "models--rhasspy--piper-voices" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for file in (tiny_voices.piper(), Path(f"{tiny_voices.piper()}.json")):
        shutil.copy(file, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for voice in (str(snapshot), "hf://rhasspy/piper-voices/en_US-tiny-low.onnx"):
        async with loaded("piper", voice=voice) as (engine, _):
            assert engine.capabilities.voices == ("en_US-tiny-low",)
    with pytest.raises(EngineMissing, match="another"):
        async with loaded("piper", voice="hf://rhasspy/piper-voices/another.onnx"):
            pass


async def test_piper_says_which_files_it_reads() -> None:
    def files(**values: Any) -> tuple[str, ...]:
        return cast("Any", registry.options("piper", values)).files()

    assert files(voice="/v/a.onnx") == ("/v/a.onnx", "/v/a.onnx.json")
    assert files(voices={"b": "hf://o/r/b/"}) == ("hf://o/r/b/",)
    assert files(voice="c", voices={"b": "/b/", "c": "/c.onnx"}) == ("/c.onnx", "/c.onnx.json", "/b/")
    assert files() == ("hf://rhasspy/piper-voices/en/en_US/ljspeech/medium/",)


async def test_kokoro_speaks_with_the_voice_that_is_named_or_knows_the_language() -> None:
    async with loaded("kokoro", **tiny_voices.kokoro_options()) as (engine, _):
        assert engine.capabilities.sample_rate == tiny_voices.KOKORO_RATE
        assert engine.capabilities.languages == ("en-US", "en-GB", "fr")
        # Each voice's style lifts the tone by 50 Hz more; French has sounds of its own.
        american, british = await pitch(engine), await pitch(engine, voice="bm_lewis")
        assert british - american > 30
        assert await pitch(engine, language="en-GB") == american
        assert await pitch(engine, language="fr-CA") == await pitch(engine, voice="ff_siwis") > british


async def test_kokoro_does_not_speak_the_names_of_languages() -> None:
    model, voices = tiny_voices.kokoro()
    with TemporaryDirectory() as scratch:
        arguments = {"model": str(model), "voices": str(voices), "voice": "ff_siwis", "language": "de"}
        child = Worker(
            "serve.tts.kokoro_child:Speaking", {**arguments, "threads": 1, "cuda": False, "scratch": scratch}
        )
        try:
            # espeak-ng writes (en) before what it reads as English, and (de) behind it.
            said = await child.call("phonemes", "Das ist Windows Software.", "ff_siwis", within=20)
        finally:
            await child.close()
    assert "wˈɪndəʊz" in said
    assert not set(said) & set("()")


async def test_kokoro_leaves_no_files_behind() -> None:
    def kept() -> set[Path]:
        return {*Path(gettempdir()).glob("parley-kokoro-*"), *Path(gettempdir()).glob("tmp*/libespeak-ng*")}

    before = kept()
    async with loaded("kokoro", **tiny_voices.kokoro_options()) as (engine, _):
        await spoken(engine, SpeechRequest(TEXT))
    assert kept() == before


async def test_what_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    (tmp_path / "broken.onnx.json").write_text("{}")
    model, voices = (str(path) for path in tiny_voices.kokoro())
    for error, problem, name, options in (
        (
            ConfigError,
            r"'amyy' is no path, and none of voices \(amy\)",
            "piper",
            {"voice": "amyy", "voices": {"amy": "/a"}},
        ),
        (EngineMissing, "nowhere.onnx", "piper", {"voice": str(tmp_path / "nowhere.onnx")}),
        (EngineMissing, r"0 \.onnx files", "piper", {"voice": str(tiny_voices.folder() / "..")}),
        (EngineMissing, "broken.onnx is no model", "piper", {"voice": str(broken)}),
        (EngineMissing, "voices-v1.0.bin", "kokoro", {"model": model, "voices": str(tmp_path / "voices.bin")}),
        (EngineMissing, "voices' file", "kokoro", {"model": model, "voices": str(broken)}),
        (ConfigError, "no voice 'af_nobody'; there are af_heart", "kokoro", {"voice": "af_nobody"}),
        (ConfigError, "no language 'xx-nowhere'", "kokoro", {"language": "xx-nowhere"}),
        (EngineMissing, "onnxruntime-gpu", "kokoro", {"cuda": True}),
    ):
        given = {"model": model, "voices": voices, **options} if name == "kokoro" else options
        with pytest.raises(error, match=problem):
            async with loaded(name, **given):
                pass
