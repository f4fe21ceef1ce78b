"""What the caller hears: the agent's voice, sent at the pace of speech.

LiveKit's queued audio source encodes silence for as long as it exists, a third of what a silent call costs. This one
has no queue: it sends 40 ms at a time while there is something to say, and nothing otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from livekit import rtc
from livekit.agents import utils
from livekit.agents.voice import io

_FRAME_SECONDS = 0.01
"""A source without a queue takes frames of exactly 10 ms."""

_BEAT_FRAMES = 4
"""Frames sent at each waking: waking for each one costs more than all else while the agent speaks."""

_LAST_SECONDS = 1.0
"""An answer of which less is left is over: a "yes" that is said now is meant for it, and is no sign of listening."""

_LEAD_SECONDS = 0.02
"""How far ahead of the clock audio is sent: covers a late waking, and is what barge-in cannot take back."""


class Mouth(io.AudioOutput):
    """The session's audio output.

    Args:
        room: Where the track is published.
        sample_rate: Hz of the track; the session resamples to it.
    """

    def __init__(self, room: rtc.Room, sample_rate: int) -> None:
        super().__init__(label="mouth", capabilities=io.AudioOutputCapabilities(pause=True), sample_rate=sample_rate)
        self._room = room
        self._rate = sample_rate
        self._frame_bytes = int(sample_rate * _FRAME_SECONDS) * 2
        self._source = rtc.AudioSource(sample_rate, 1, queue_size_ms=0)
        self._audio = bytearray()
        self._played = 0.0
        # A segment is open from its first frame until its end is reported.
        self._open = self._flushed = self._interrupted = self._paused = False
        self._wake = asyncio.Event()
        self._pacer = asyncio.create_task(self._pace(), name="mouth")

    @property
    def played(self) -> float:
        """Seconds said of the segment that is being said."""
        return self._played

    @property
    def unfinished(self) -> bool:
        """Whether a segment is being said, or held, of which more is to come than its last words."""
        left = len(self._audio) / 2 / self._rate
        return self._open and not self._interrupted and (not self._flushed or left > _LAST_SECONDS)

    async def publish(self) -> None:
        """Publish the track; returns when the room has it, not when somebody listens."""
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(track, options)

    async def aclose(self) -> None:
        """Stop speaking and free the source."""
        await utils.aio.cancel_and_wait(self._pacer)
        await self._source.aclose()

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Take audio to say; it may come faster than it is spoken."""
        await self._wait(lambda: not self._flushed)
        await super().capture_frame(frame)
        if not self._interrupted:
            self._audio += frame.data
            self._open = True
            self._notify()

    def flush(self) -> None:
        """The segment is complete: report when its last sample has been spoken."""
        super().flush()
        self._flushed = self._open
        self._notify()

    def clear_buffer(self) -> None:
        """Fall silent at once; the end is reported when the segment is flushed."""
        self._audio.clear()
        self._interrupted = self._open
        self._notify()

    def pause(self) -> None:
        """Hold; what is not said yet is kept."""
        super().pause()
        self._paused = True

    def resume(self) -> None:
        """Go on where `pause` held."""
        super().resume()
        self._paused = False
        self._notify()

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def _wait(self, ready: Callable[[], bool]) -> None:
        while not ready():
            await self._wake.wait()

    async def _pace(self) -> None:
        """Say segments, one after the other, for as long as the call lasts."""
        while True:
            await self._wait(lambda: self._open and (self._interrupted or not self._paused))
            await self._segment()
            finished = (self._played, self._interrupted)
            self._open = self._flushed = self._interrupted = False
            self._played = 0.0
            self.on_playback_finished(playback_position=finished[0], interrupted=finished[1])
            self._notify()

    async def _segment(self) -> None:
        """Say one segment to its end, or to where it is interrupted."""
        if not self._interrupted:
            self.on_playback_started(created_at=time.time())
        due = time.monotonic()
        while not self._interrupted:
            if self._paused or not (self._audio or self._flushed):
                await self._wait(lambda: self._interrupted or self._can_go_on())
                due = time.monotonic()
            elif not self._audio:
                await self._until(due)
                break
            else:
                for _ in range(_BEAT_FRAMES):
                    if await self._frame():
                        due += _FRAME_SECONDS
                await self._until(due - _LEAD_SECONDS)
        await self._wait(lambda: self._flushed)

    def _can_go_on(self) -> bool:
        return not self._paused and bool(self._audio or self._flushed)

    async def _frame(self) -> bool:
        """Send 10 ms; the last frame of a segment is filled up with silence."""
        if not self._audio:
            return False
        data = bytes(self._audio[: self._frame_bytes])
        del self._audio[: self._frame_bytes]
        self._played += len(data) / 2 / self._rate
        data += bytes(self._frame_bytes - len(data))
        await self._source.capture_frame(rtc.AudioFrame(data, self._rate, 1, len(data) // 2))
        return True

    async def _until(self, when: float) -> None:
        """Sleep to a point of the clock, or until interrupted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, when - time.monotonic())):
                await self._wait(lambda: self._interrupted)
