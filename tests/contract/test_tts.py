"""What every text to speech engine keeps."""

from __future__ import annotations

import asyncio

import pytest

from serve.audio import duration, rms
from serve.contracts import Capabilities, SpeechChunk, SpeechRequest, TextToSpeech
from serve.errors import BadRequest, ParleyError
from tests.contract.conftest import closed, idle, spoken

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

TEXT = "The train to London leaves at noon."


def heard(chunks: list[SpeechChunk]) -> bytes:
    return b"".join(chunk.audio for chunk in chunks)


async def test_has_the_shape_of_its_role(tts: TextToSpeech) -> None:
    assert isinstance(tts, TextToSpeech)
    assert isinstance(tts.capabilities, Capabilities)
    assert tts.capabilities.sample_rate


async def test_audio_comes_in_pieces_and_the_last_carries_the_usage(tts: TextToSpeech) -> None:
    *pieces, last = await spoken(tts, SpeechRequest(TEXT))
    audio = heard([*pieces, last])
    rate = last.sample_rate
    assert {piece.sample_rate for piece in pieces} == {rate} == {tts.capabilities.sample_rate}
    assert all(len(piece.audio) % 2 == 0 and piece.audio and piece.usage is None for piece in pieces)
    assert len(pieces) > 3, "not streamed"
    assert 0.8 < duration(audio, rate) < 6
    assert rms(audio) > 0.01
    assert last.usage is not None
    assert last.usage.characters == len(TEXT)
    assert last.usage.audio_seconds == pytest.approx(duration(audio, rate), abs=0.01)


async def test_silence_round_the_speech_is_short(tts: TextToSpeech) -> None:
    chunks = await spoken(tts, SpeechRequest(TEXT))
    audio, rate = heard(chunks), chunks[0].sample_rate
    assert rms(audio[: 2 * (rate // 20)]) > 0.001
    assert rms(audio[-2 * (rate // 8) :]) > 0.001


@pytest.mark.parametrize("text", ["", "   \n ", "...", "😀"])
async def test_nothing_to_say_is_no_audio_but_usage(tts: TextToSpeech, text: str) -> None:
    chunks = await spoken(tts, SpeechRequest(text))
    assert chunks[-1].usage is not None
    assert duration(heard(chunks), chunks[-1].sample_rate) < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "naïve café — “quoted” … 你好 😀 \u202eabc",
        "<speak>Hi &amp; <b>bye</b></speak> **bold** `code`",
        "a\x00b [[x]] {y} \\n",
    ],
)
async def test_any_text(tts: TextToSpeech, text: str) -> None:
    chunks = await spoken(tts, SpeechRequest(text))
    assert 0 < duration(heard(chunks), chunks[-1].sample_rate) < 20


async def test_long_text_starts_at_once(tts: TextToSpeech) -> None:
    stream = tts.speak(SpeechRequest(TEXT * 100))
    async with asyncio.timeout(20):
        assert (await anext(stream)).audio
    assert await closed(stream) < 5
    await idle()


async def test_too_long_a_text_is_refused(tts: TextToSpeech) -> None:
    with pytest.raises(BadRequest, match="text"):
        await spoken(tts, SpeechRequest("word " * 100_000))


async def test_speed_changes_the_length(tts: TextToSpeech) -> None:
    slow, fast = [await spoken(tts, SpeechRequest(TEXT, speed=speed)) for speed in (0.8, 1.6)]
    assert len(heard(slow)) > 1.3 * len(heard(fast))


@pytest.mark.parametrize("speed", [0.0, -1.0, 100.0, float("nan")])
async def test_a_speed_that_cannot_be_is_refused(tts: TextToSpeech, speed: float) -> None:
    with pytest.raises(BadRequest, match="speed"):
        await spoken(tts, SpeechRequest(TEXT, speed=speed))


async def test_an_unknown_voice_is_refused(tts: TextToSpeech) -> None:
    with pytest.raises(BadRequest, match="voice"):
        await spoken(tts, SpeechRequest(TEXT, voice="nobody/../at-all"))
    with pytest.raises(BadRequest, match="voice"):
        await spoken(tts, SpeechRequest(TEXT, voice="nobody"))


async def test_closing_stops_the_work(tts: TextToSpeech) -> None:
    stream = tts.speak(SpeechRequest(TEXT * 200))
    async with asyncio.timeout(20):
        for _ in range(3):
            await anext(stream)
    produced = getattr(tts, "produced", None)
    assert await closed(stream) < 5
    await idle()
    assert getattr(tts, "produced", None) == produced
    assert heard(await spoken(tts, SpeechRequest(TEXT)))


async def test_eight_at_once_do_not_mix(tts: TextToSpeech) -> None:
    texts = [f"Number {n}. {TEXT}" * (1 + n % 3) for n in range(8)]
    alone = [len(heard(await spoken(tts, SpeechRequest(text)))) for text in texts]
    together = await asyncio.gather(*(spoken(tts, SpeechRequest(text)) for text in texts))
    # Flite gives or takes a few hundredths of a second; texts that mix would be off by a half at least.
    assert [len(heard(chunks)) for chunks in together] == pytest.approx(alone, rel=0.1)


async def test_well_after_a_failure(tts: TextToSpeech) -> None:
    with pytest.raises(ParleyError):
        await spoken(tts, SpeechRequest(TEXT, speed=0.0))
    assert heard(await spoken(tts, SpeechRequest(TEXT)))
