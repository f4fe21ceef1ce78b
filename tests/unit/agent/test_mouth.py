"""The agent's voice: paced, complete, silent at once when interrupted, and honest about what was heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents.voice import io

from agent.mouth import Mouth

pytestmark = pytest.mark.unit

RATE = 16000


class FakeSource:
    """Stands where WebRTC's audio source does."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.frames: list[tuple[float, rtc.AudioFrame]] = []

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        self.frames.append((time.monotonic(), frame))

    async def aclose(self) -> None:
        pass

    @property
    def seconds(self) -> float:
        return sum(frame.samples_per_channel for _, frame in self.frames) / RATE


def audio(seconds: float) -> rtc.AudioFrame:
    samples = int(seconds * RATE)
    return rtc.AudioFrame(b"\1\0" * samples, RATE, 1, samples)


@pytest.fixture
async def mouth(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[Mouth, FakeSource]]:
    monkeypatch.setattr(rtc, "AudioSource", FakeSource)
    made = Mouth(cast(rtc.Room, object()), RATE)
    yield made, made._source  # type: ignore[misc]  # pyright: ignore[reportPrivateUsage]
    await made.aclose()


def finished(mouth: Mouth) -> list[io.PlaybackFinishedEvent]:
    events: list[io.PlaybackFinishedEvent] = []
    mouth.on("playback_finished", events.append)
    return events


async def test_says_all_of_it_at_the_pace_of_speech(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    await out.capture_frame(audio(0.3))
    out.flush()
    started = time.monotonic()
    event = await asyncio.wait_for(out.wait_for_playout(), 5)
    assert time.monotonic() - started >= 0.27
    assert source.seconds == pytest.approx(0.3)
    assert not event.interrupted
    assert event.playback_position == pytest.approx(0.3)
    assert all(frame.samples_per_channel == RATE // 100 for _, frame in source.frames)


async def test_sends_nothing_when_there_is_nothing_to_say(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    out.flush()
    out.clear_buffer()
    await asyncio.sleep(0.05)
    assert source.frames == []


async def test_interruption_is_immediate_and_says_how_much_was_heard(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    await out.capture_frame(audio(5))
    out.flush()
    await asyncio.sleep(0.1)
    out.clear_buffer()
    event = await asyncio.wait_for(out.wait_for_playout(), 1)
    said = source.seconds
    assert event.interrupted
    assert event.playback_position == pytest.approx(said)
    assert said < 1
    await asyncio.sleep(0.1)
    assert source.seconds == said


async def test_late_audio_of_an_interrupted_answer_is_dropped(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    events = finished(out)
    await out.capture_frame(audio(1))
    await asyncio.sleep(0.05)
    out.clear_buffer()
    await out.capture_frame(audio(1))
    out.flush()
    await asyncio.wait_for(out.wait_for_playout(), 1)
    said = source.seconds
    await out.capture_frame(audio(0.1))
    out.flush()
    await asyncio.wait_for(out.wait_for_playout(), 1)
    assert source.seconds - said == pytest.approx(0.1)
    assert [event.interrupted for event in events] == [True, False]


async def test_pause_holds_and_resume_goes_on_where_it_held(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    await out.capture_frame(audio(0.4))
    out.flush()
    await asyncio.sleep(0.05)
    out.pause()
    await asyncio.sleep(0.06)
    held = source.seconds
    await asyncio.sleep(0.1)
    assert source.seconds == held
    out.resume()
    event = await asyncio.wait_for(out.wait_for_playout(), 2)
    assert not event.interrupted
    assert source.seconds == pytest.approx(0.4)


async def test_what_is_interrupted_while_held_back_ends_all_the_same(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    out.pause()
    await out.capture_frame(audio(0.4))
    out.flush()
    await asyncio.sleep(0.02)
    out.clear_buffer()
    event = await asyncio.wait_for(out.wait_for_playout(), 1)
    assert event.interrupted
    assert event.playback_position == 0
    assert source.frames == []


async def test_an_answer_that_comes_in_drops_waits_for_its_next_piece(mouth: tuple[Mouth, FakeSource]) -> None:
    out, source = mouth
    for _ in range(3):
        await out.capture_frame(audio(0.045))
        await asyncio.sleep(0.08)
    out.flush()
    event = await asyncio.wait_for(out.wait_for_playout(), 2)
    assert event.playback_position == pytest.approx(0.135)
    assert source.seconds == pytest.approx(0.15, abs=0.02)


async def test_an_answer_is_finished_when_its_last_second_is_said(mouth: tuple[Mouth, FakeSource]) -> None:
    speaking, _ = mouth
    assert not speaking.unfinished
    await speaking.capture_frame(audio(1.3))
    assert speaking.unfinished, "more may come"
    speaking.flush()
    assert speaking.unfinished
    speaking.pause()
    async with asyncio.timeout(2):
        speaking.resume()
        while speaking.unfinished:  # noqa: ASYNC110  # the clock ends it
            await asyncio.sleep(0.02)
        assert 0.2 < speaking.played < 0.6
        await speaking.wait_for_playout()
