"""How well the embedded recogniser hears the embedded voice; `-s` shows the figures."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from typing import Any

import pytest

from serve.audio import duration
from serve.contracts import SpeechRequest, StreamingSpeechToText, TextToSpeech
from tests.contract.conftest import load, spoken

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="session")]

SENTENCES = (
    "What time is it in Paris right now?",
    "Set a timer for ten minutes please.",
    "What is the weather like in London today?",
    "Remind me to call my mother tomorrow morning.",
    "How far is it from here to the airport?",
    "Play some quiet music in the kitchen.",
    "Turn off the lights in the living room.",
    "I would like to book a table for two people tonight.",
    "How do I cook rice without burning it?",
    "What is the difference between a lake and a river?",
    "Tell me something interesting about the moon.",
    "Could you explain how a bicycle works?",
    "Is there a train to Boston this afternoon?",
    "My favorite color is blue and I live in Chicago.",
    "How many days are there in February?",
    "I want to learn how to speak Spanish.",
)
PIECE = 6400
"""200 ms at 16 kHz."""


def words(text: str) -> str:
    return re.sub(r"[^a-z' ]", "", text.lower())


async def test_word_error_rate_on_the_embedded_voice() -> None:
    jiwer: Any = pytest.importorskip("jiwer")
    hears, speaks = await load("pocketsphinx"), await load("flite")
    assert isinstance(hears, StreamingSpeechToText)
    assert isinstance(speaks, TextToSpeech)
    heard: list[str] = []
    waits: list[float] = []
    busy = seconds = 0.0
    for sentence in SENTENCES:
        chunks = await spoken(speaks, SpeechRequest(sentence))
        audio, rate = b"".join(chunk.audio for chunk in chunks), chunks[0].sample_rate
        async with asyncio.timeout(60):
            stream = await hears.open(rate, None)
            for start in range(0, len(audio), PIECE):
                await stream.feed(audio[start : start + PIECE])
            began = time.perf_counter()
            result = await stream.finish()
        waits.append(time.perf_counter() - began)
        heard.append(words(result.text))
        busy += result.usage.busy_seconds
        seconds += duration(audio, rate)
    rate = jiwer.wer([words(sentence) for sentence in SENTENCES], heard)
    print(
        f"\nWER {rate:.1%}, real-time factor {busy / seconds:.2f}, "
        f"final transcript after {1000 * statistics.median(waits):.0f} ms (p50), {1000 * max(waits):.0f} ms (max)"
    )
    assert rate <= 0.10
