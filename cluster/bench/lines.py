"""Callers that cost little, so that eight of them leave the machine to what is measured."""

from __future__ import annotations

import asyncio
import time

import numpy as np
from livekit import rtc

from cluster.robot import RATE, Access, Robot, Samples, Sound, loud_frames
from serve.errors import Unavailable

_PART = RATE // 5
_FRAME_MS = 100
ANSWER_SECONDS = 10.0
SPOKEN_SECONDS = 30.0


class Line(Robot):
    """A robot that sends and hears in long frames: silence and the pace of speech are WebRTC's own work.

    Attributes:
        spoken: Seconds of speech sent.
        audible: Seconds of the agent's sound that were heard.
        asked: Utterances of `converse`.
        unanswered: Those that nobody answered in time.
    """

    queue_ms = 400

    def __init__(self, page: str, access: Access | None = None) -> None:
        super().__init__(page, access)
        self.spoken = self.audible = 0.0
        self.asked = self.unanswered = 0
        self._source: rtc.AudioSource | None = None

    async def aclose(self) -> None:
        """Hang up; the source that sends silence by itself ends, too."""
        await super().aclose()
        if self._source is not None:
            await self._source.aclose()

    async def _microphone(self, source: rtc.AudioSource) -> None:
        self._source = source

    async def utter(self, samples: Samples) -> float:
        """Say something; returns when it has been said, a moment of the robot's clock."""
        await self._send(samples)
        assert self._source is not None
        await self._source.wait_for_playout()
        return time.perf_counter()

    async def go_on(self, samples: Samples) -> None:
        """Speak without an end, until cancelled."""
        while True:
            await self._send(samples)

    async def converse(self, samples: Samples, period: float, first: float) -> None:
        """Speak, hear the answer out, and begin anew every so often, until cancelled.

        Args:
            samples: What to say.
            period: Seconds from one utterance's start to the next one's; longer where the answer takes longer.
            first: Seconds to wait before the first.
        """
        await asyncio.sleep(first)
        while True:
            began = time.perf_counter()
            ended = await self.utter(samples)
            self.asked += 1
            try:
                await self.heard_after(ended, ANSWER_SECONDS)
                await self.quiet(0.8, SPOKEN_SECONDS)
            except Unavailable:
                self.unanswered += 1
            await asyncio.sleep(max(0.0, began + period - time.perf_counter()))

    async def _send(self, samples: Samples) -> None:
        """Hand speech to WebRTC, which takes it at the pace of speech."""
        assert self._source is not None, "the caller has not joined"
        async with asyncio.timeout(len(samples) / RATE + 10):
            for start in range(0, len(samples), _PART):
                part = samples[start : start + _PART]
                await self._source.capture_frame(rtc.AudioFrame(part.tobytes(), RATE, 1, len(part)))
                self.spoken += len(part) / RATE

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=_FRAME_MS)
        try:
            async for event in stream:
                loud = loud_frames(np.frombuffer(event.frame.data, dtype=np.int16))
                if not loud.any():
                    continue
                self.audible += 0.01 * int(loud.sum())
                now = time.perf_counter()
                if self.sounds and now - self.sounds[-1].ended < 0.3:
                    self.sounds[-1].ended = now
                else:
                    self.sounds.append(Sound(now, now))
                    self._notify()
        finally:
            await stream.aclose()
