"""What every speech to text engine keeps."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from serve.audio import duration, resample, silence
from serve.contracts import (
    Capabilities,
    SpeechRequest,
    SpeechToText,
    StreamingSpeechToText,
    TextToSpeech,
    TranscribeRequest,
    Transcript,
)
from serve.errors import BadRequest, ParleyError
from tests.contract.conftest import load, spoken, tone

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

RATES = (8000, 16000, 22050, 44100, 48000)
SENTENCE = "What time is it in Paris?"


async def speech() -> tuple[bytes, int]:
    """Return a sentence and its rate, spoken by flite; where it is not, by a tone."""
    try:
        voice = await load("flite")
    except pytest.skip.Exception:
        return tone(2.0, 16000), 16000
    assert isinstance(voice, TextToSpeech)
    chunks = await spoken(voice, SpeechRequest(SENTENCE))
    return b"".join(chunk.audio for chunk in chunks), chunks[0].sample_rate


async def transcribed(stt: SpeechToText, audio: bytes, rate: int) -> Transcript:
    async with asyncio.timeout(60):
        return await stt.transcribe(TranscribeRequest(audio, rate))


def streaming(stt: SpeechToText) -> StreamingSpeechToText:
    if not stt.capabilities.streaming:
        pytest.skip("does not stream")
    assert isinstance(stt, StreamingSpeechToText)
    return stt


async def test_has_the_shape_of_its_role(stt: SpeechToText) -> None:
    assert isinstance(stt, SpeechToText)
    assert isinstance(stt.capabilities, Capabilities)


async def test_speech_becomes_text_and_usage(stt: SpeechToText) -> None:
    audio, rate = await speech()
    result = await transcribed(stt, audio, rate)
    assert result.final
    assert result.text.strip()
    assert result.text == result.text.strip()
    assert not re.search(r"[<\[]", result.text)
    assert result.usage.audio_seconds == pytest.approx(duration(audio, rate), abs=0.05)
    assert result.usage.busy_seconds >= 0
    for word in result.words:
        assert 0 <= word.start <= word.end <= result.usage.audio_seconds + 0.2


@pytest.mark.parametrize("rate", RATES)
async def test_any_sample_rate(stt: SpeechToText, rate: int) -> None:
    audio, made = await speech()
    result = await transcribed(stt, resample(audio, made, rate), rate)
    assert result.text
    assert result.usage.audio_seconds == pytest.approx(duration(audio, made), abs=0.1)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.5])
async def test_silence_is_an_empty_text(stt: SpeechToText, seconds: float) -> None:
    assert (await transcribed(stt, silence(seconds, 16000), 16000)).text == ""


async def test_an_hour_is_heard_or_refused_in_bounded_time(stt: SpeechToText) -> None:
    with suppress(BadRequest):
        assert (await transcribed(stt, silence(3600, 16000), 16000)).text == ""
    assert (await transcribed(stt, silence(0.5, 16000), 16000)).text == ""


async def test_half_a_sample_is_refused(stt: SpeechToText) -> None:
    with pytest.raises(BadRequest, match="audio"):
        await transcribed(stt, b"\x00\x00\x00", 16000)


async def test_a_rate_that_cannot_be_is_refused(stt: SpeechToText) -> None:
    with pytest.raises(BadRequest, match="sample_rate"):
        await transcribed(stt, silence(0.1, 16000), 0)


async def test_pieces_of_any_length_make_the_same_text(stt: SpeechToText) -> None:
    engine, (audio, rate) = streaming(stt), await speech()
    texts: list[str] = []
    for step in (6400, 2222, 20_001):
        stream = await engine.open(rate, None)
        async with asyncio.timeout(60):
            for start in range(0, len(audio), step):
                assert isinstance(await stream.feed(audio[start : start + step]), str)
            texts.append((await stream.finish()).text)
    if not type(engine).__name__.startswith("Fake"):
        assert len(set(texts)) == 1


async def test_an_utterance_does_not_influence_the_next(stt: SpeechToText) -> None:
    engine, (audio, rate) = streaming(stt), await speech()
    first = await transcribed(engine, audio, rate)
    await transcribed(engine, tone(2.0, rate, 900.0), rate)
    assert (await transcribed(engine, audio, rate)).text == first.text


async def test_a_dropped_stream_frees_its_decoder(stt: SpeechToText) -> None:
    engine, (audio, rate) = streaming(stt), await speech()
    for _ in range(10):
        stream = await engine.open(rate, None)
        await stream.feed(audio[:3200])
        await stream.close()
        await stream.close()
    assert (await transcribed(engine, audio, rate)).text


async def test_cancelled_and_then_well(stt: SpeechToText) -> None:
    audio, rate = await speech()
    task = asyncio.create_task(stt.transcribe(TranscribeRequest(audio * 8, rate)))
    await asyncio.sleep(0.05)
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)
    assert (await transcribed(stt, audio, rate)).text


async def test_eight_at_once(stt: SpeechToText) -> None:
    audio, rate = await speech()
    alone = await transcribed(stt, audio, rate)
    results = await asyncio.gather(*(transcribed(stt, audio, rate) for _ in range(8)))
    assert {result.text for result in results} == {alone.text}


async def test_well_after_a_failure(stt: SpeechToText) -> None:
    with pytest.raises(ParleyError):
        await transcribed(stt, b"\x00", 16000)
    audio, rate = await speech()
    assert (await transcribed(stt, audio, rate)).text
