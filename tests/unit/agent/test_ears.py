"""What the ears make of sound: voice activity in the session's terms, drafts and finals in the right order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, cast

import numpy as np
import pytest
from livekit import rtc
from livekit.agents import stt, vad

from agent.config import Turns
from agent.ears import SAMPLE_RATE, Ears
from agent.keeper import Keeper, Left
from serve.client import Models
from serve.contracts import ListenRequest, RequestContext, Transcript
from tests.unit.agent.test_utterance import FakeModels

pytestmark = pytest.mark.unit

FRAME = 512


class FakeSilero:
    """Hears speech where there is any sound."""

    def predict(self, window: Any) -> float:
        return 0.9 if np.abs(window).max() > 0 else 0.01


class FakeKeeper:
    """Keeps what is being said, and may have some of it from a replica before."""

    def __init__(self, audio: bytes = b"") -> None:
        self.left = Left(audio=audio) if audio else None
        self.utterances: list[bytes] = []

    def begin(self) -> None:
        self.utterances.append(b"")

    def speaking(self, pcm: bytes) -> None:
        self.utterances[-1] += pcm


def hearing(keeper: FakeKeeper, models: FakeModels, turns: Turns | None = None) -> Ears:
    turns = turns or Turns()
    return Ears(cast(Models, models), "call", turns, streaming=True, language="en", keeper=cast(Keeper, keeper))


@pytest.fixture
async def ears(monkeypatch: pytest.MonkeyPatch) -> Ears:
    monkeypatch.setattr("agent.ears.SileroVAD", FakeSilero)
    return hearing(FakeKeeper(), FakeModels())


def frames(*stretches: tuple[float, int]) -> list[rtc.AudioFrame]:
    samples = np.concatenate([np.full(int(seconds * SAMPLE_RATE), level, np.int16) for seconds, level in stretches])
    cut = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return [rtc.AudioFrame(each.tobytes(), SAMPLE_RATE, 1, FRAME) for each in cut]


async def hear(ears: Ears, *stretches: tuple[float, int]) -> tuple[list[stt.SpeechEventType], list[vad.VADEventType]]:
    async def audio() -> AsyncGenerator[rtc.AudioFrame]:
        for frame in frames(*stretches):
            yield frame
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)

    heard = [event.type async for event in ears.transcribe(audio())]
    seen: list[vad.VADEventType] = []
    while not ears.vad_events.empty():
        seen.append(ears.vad_events.recv_nowait().type)
    return heard, [kind for kind in seen if kind is not vad.VADEventType.INFERENCE_DONE]


S, V = stt.SpeechEventType, vad.VADEventType


async def test_one_utterance(ears: Ears) -> None:
    heard, seen = await hear(ears, (0.3, 0), (1.0, 1000), (0.5, 0))
    assert seen == [V.START_OF_SPEECH, V.END_OF_SPEECH]
    assert heard[0] is S.START_OF_SPEECH
    assert heard.index(S.PREFLIGHT_TRANSCRIPT) < heard.index(S.FINAL_TRANSCRIPT)
    assert heard.count(S.FINAL_TRANSCRIPT) == 1


async def test_silence_and_clicks_are_not_speech(ears: Ears) -> None:
    heard, seen = await hear(ears, (0.512, 0), (0.032, 1000), (0.5, 0))
    assert heard == []
    assert seen == []


async def test_a_short_pause_drafts_but_does_not_end(ears: Ears) -> None:
    heard, seen = await hear(ears, (0.6, 1000), (0.16, 0), (0.6, 1000), (0.5, 0))
    assert seen == [V.START_OF_SPEECH, V.END_OF_SPEECH]
    assert heard.count(S.PREFLIGHT_TRANSCRIPT) == 2
    assert heard.count(S.FINAL_TRANSCRIPT) == 1


async def test_a_long_pause_makes_two_utterances(ears: Ears) -> None:
    heard, seen = await hear(ears, (0.6, 1000), (0.6, 0), (0.6, 1000), (0.6, 0))
    assert seen == [V.START_OF_SPEECH, V.END_OF_SPEECH] * 2
    assert heard.count(S.FINAL_TRANSCRIPT) == 2


async def test_another_assistant_hears_with_the_same_ears(ears: Ears) -> None:
    for _ in range(2):
        events = ears.activity()
        heard, _seen = await hear(ears, (0.3, 0), (1.0, 1000), (0.5, 0))
        assert heard.count(S.FINAL_TRANSCRIPT) == 1
        assert ears.vad_events is events, "who listens before the ears begin hears them"
        assert events.closed


async def test_a_silent_call_tells_the_session_nothing(ears: Ears) -> None:
    await hear(ears, (1.0, 0))
    assert ears.vad_events.empty()


async def test_what_is_said_is_kept_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.ears.SileroVAD", FakeSilero)
    keeper = FakeKeeper()
    await hear(hearing(keeper, FakeModels()), (0.3, 0), (1.0, 1000), (0.5, 0))
    kept = np.frombuffer(keeper.utterances[0], np.int16)
    assert len(keeper.utterances) == 1
    assert (kept == 1000).sum() >= 0.8 * SAMPLE_RATE


async def test_a_sentence_goes_on_that_another_replica_heard_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.ears.SileroVAD", FakeSilero)
    begun, models = np.full(SAMPLE_RATE, 1000, np.int16).tobytes(), FakeModels()
    keeper = FakeKeeper(begun)
    heard, _ = await hear(hearing(keeper, models), (0.6, 1000), (0.5, 0))
    assert heard.count(S.FINAL_TRANSCRIPT) == 1
    assert any(sound.startswith(begun) for sound in models.heard.values())
    assert keeper.utterances[0].startswith(begun), "what was begun must be kept again: this replica may die too"


class SpokenModels(FakeModels):
    """Understands the same words in whatever is said."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    async def listen(self, request: ListenRequest, context: RequestContext) -> Transcript:
        await asyncio.sleep(0)
        return Transcript(self.text, final=request.last)


async def over_an_answer(
    monkeypatch: pytest.MonkeyPatch, text: str, *stretches: tuple[float, int]
) -> tuple[list[stt.SpeechEvent], int]:
    """Return what is told of speech over an answer, and how often the answer was ended."""
    monkeypatch.setattr("agent.ears.SileroVAD", FakeSilero)
    ears, ended = hearing(FakeKeeper(), SpokenModels(text)), 0
    ears.answering = lambda: ended == 0

    def interrupt() -> None:
        nonlocal ended
        ended += 1

    ears.interrupt = interrupt

    async def audio() -> AsyncGenerator[rtc.AudioFrame]:
        for frame in frames(*stretches):
            yield frame
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)

    return [event async for event in ears.transcribe(audio())], ended


async def test_a_back_channel_says_nothing_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    events, ended = await over_an_answer(monkeypatch, "uh huh", (0.3, 0), (0.5, 1000), (0.5, 0))
    assert [event.type for event in events] == [S.START_OF_SPEECH, S.END_OF_SPEECH, S.FINAL_TRANSCRIPT]
    assert events[-1].alternatives[0].text == ""
    assert ended == 0


async def test_an_interruption_ends_the_answer_before_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    events, ended = await over_an_answer(monkeypatch, "tell me of dogs", (0.3, 0), (1.5, 1000), (0.5, 0))
    assert ended > 0
    assert events[1].type is S.INTERIM_TRANSCRIPT
    assert events[-1].alternatives[0].text == "tell me of dogs"


async def test_what_is_faint_against_the_caller_does_not_begin_an_utterance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.ears.SileroVAD", FakeSilero)
    ears = hearing(FakeKeeper(), FakeModels())
    _, seen = await hear(ears, (0.3, 0), (1.0, 4000), (0.6, 0))
    assert seen == [V.START_OF_SPEECH, V.END_OF_SPEECH]
    ears.answering = lambda: True
    ears.activity()
    _, seen = await hear(ears, (0.3, 0), (1.0, 400), (0.6, 0))
    assert seen == []
    ears.activity()
    _, seen = await hear(ears, (0.3, 0), (0.2, 400), (0.5, 4000), (0.6, 0))
    assert seen == [V.START_OF_SPEECH, V.END_OF_SPEECH], "a soft beginning is one all the same"


async def unfinished(
    monkeypatch: pytest.MonkeyPatch, text: str, *stretches: tuple[float, int]
) -> list[tuple[stt.SpeechEventType, float]]:
    """Return what is told of a text, and when in seconds."""
    monkeypatch.setattr("agent.ears.SileroVAD", FakeSilero)
    ears = hearing(FakeKeeper(), SpokenModels(text), Turns(dangling_delay=0.75))

    async def audio() -> AsyncGenerator[rtc.AudioFrame]:
        for frame in frames(*stretches):
            yield frame
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.7)

    told: list[tuple[stt.SpeechEventType, float]] = []
    async for event in ears.transcribe(audio()):
        told.append((event.type, time.monotonic()))
    return told


async def test_an_unfinished_sentence_is_final_a_while_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, least, most in (("tell me of dogs", 0.0, 0.2), ("tell me about", 0.3, 0.6)):
        times = dict(await unfinished(monkeypatch, text, (0.3, 0), (0.6, 1000), (0.3, 0)))
        assert least <= times[S.FINAL_TRANSCRIPT] - times[S.END_OF_SPEECH] <= most


async def test_who_goes_on_is_heard_before_the_unfinished_sentence_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = await unfinished(monkeypatch, "tell me about", (0.3, 0), (0.6, 1000), (0.4, 0), (2.0, 1000), (0.4, 0))
    kinds = [kind for kind, _ in told]
    again = kinds.index(S.START_OF_SPEECH, 1)
    assert kinds.count(S.FINAL_TRANSCRIPT) == 2
    assert kinds.index(S.FINAL_TRANSCRIPT) > again
