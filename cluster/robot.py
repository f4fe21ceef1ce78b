"""A caller that is a program: joins a room as a person would, speaks, listens, and measures from the audio alone.

Every time is read from one clock (`time.perf_counter`) at the edge of the room: when a frame of speech is sent, and
when a frame of the answer arrives to be played.
"""

from __future__ import annotations

import asyncio
import json
import time
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import numpy.typing as npt
from livekit import rtc

from serve.errors import BadRequest, Unavailable
from serve.settings import apply_ray_environment

# WebRTC's runtime reads its number of threads when it is first used.
apply_ray_environment()

RATE = 16000
"""Hz, in and out."""

_BEAT = 0.02
_AUDIBLE = 200.0
"""Root mean square of 10 ms, of 32768, above which a person hears speech; WebRTC's comfort noise stays below 50."""

CONNECT_SECONDS = 10.0
_SILENCE = np.zeros(int(RATE * _BEAT), np.int16)

Samples = npt.NDArray[np.int16]


class LineBusy(Unavailable):
    """Every line is taken."""


@dataclass(slots=True)
class Sound:
    """A stretch of the answer that could be heard: `began` to `ended`, seconds of the robot's clock."""

    began: float
    ended: float


Access = Callable[[], Awaitable[tuple[str, str]]]
"""Gives LiveKit's url and a token for one call."""


async def page_access(page: str) -> tuple[str, str]:
    """Ask the page's API for a way into a new call."""
    async with httpx.AsyncClient(timeout=CONNECT_SECONDS) as http:
        answer = await http.post(f"{page.rstrip('/')}/api/v1/token", json={"participant_name": "Robot"})
        answer.raise_for_status()
    return answer.json()["server_url"], answer.json()["participant_token"]


def loud_frames(samples: Samples) -> npt.NDArray[np.bool_]:
    """Return for each whole 10 ms of audio whether it can be heard."""
    size = RATE // 100
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    return np.sqrt(np.mean(frames**2, axis=1)) > _AUDIBLE if len(frames) else np.zeros(0, np.bool_)


class Robot:
    """One caller in one room. Use as `async with Robot(page) as robot:`.

    Args:
        page: Address of the page, whose API gives the token.
        access: Gives LiveKit's url and a token instead.
    """

    queue_ms = 0
    """Audio that WebRTC holds before it is sent: none, so that what is sent is heard at once."""

    def __init__(self, page: str, access: Access | None = None) -> None:
        self._access = access or (lambda: page_access(page))
        self.room = rtc.Room()
        self.turns: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.state = ""
        self.busy_position: int | None = None
        self.sounds: list[Sound] = []
        self.joined = 0.0
        self.captions: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._outgoing: Samples = np.zeros(0, np.int16)
        self._spoken_at: asyncio.Future[float] | None = None
        self._sent: list[tuple[float, Samples]] = []
        self._received: list[tuple[float, Samples]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._lost = False

    async def __aenter__(self) -> Self:
        try:
            await self._join()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def name(self) -> str:
        """The room's name."""
        return self.room.name

    async def _join(self) -> None:
        room = self.room
        room.on("track_subscribed", self._on_track)
        room.on("participant_attributes_changed", lambda _, who: self._on_attributes(who))
        room.on("participant_connected", self._on_attributes)
        room.on("room_metadata_changed", lambda _, new: self._on_metadata(new))
        room.on("disconnected", lambda *_: self._on_lost())
        room.register_text_stream_handler("parley.turn", lambda reader, _: self._read(reader, self._on_turn))
        room.register_text_stream_handler("lk.transcription", self._on_caption)
        url, token = await self._access()
        source = rtc.AudioSource(RATE, 1, queue_size_ms=self.queue_ms)
        self.joined = time.perf_counter()
        async with asyncio.timeout(CONNECT_SECONDS):
            await room.connect(url, token, rtc.RoomOptions(single_peer_connection=True))
            track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            await room.local_participant.publish_track(track, options)
        self._on_metadata(room.metadata)
        for participant in room.remote_participants.values():
            self._on_attributes(participant)
        self._tasks.append(asyncio.create_task(self._microphone(source), name="microphone"))

    async def aclose(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with asyncio.timeout(CONNECT_SECONDS):
            await self.room.disconnect()

    async def until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until something is so.

        Raises:
            Unavailable: It was not so in time; names what was waited for.
        """
        try:
            async with asyncio.timeout(seconds):
                while not ready():
                    if self._lost:
                        raise Unavailable(f"the room was closed while waiting for {what}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Unavailable(f"no {what} within {seconds:.0f} s") from None

    async def answered(self, wait: float = 0.0) -> None:
        """Wait until the agent is there.

        Args:
            wait: Seconds to wait in the queue when every line is busy.

        Raises:
            LineBusy: Every line is busy, and stayed so.
        """
        await self.until(lambda: bool(self.state) or self.busy_position is not None, 15.0, "answer to the call")
        if not self.state and wait <= 0:
            raise LineBusy(f"all lines are busy; {self.busy_position} in the queue (--wait SECONDS to wait)")
        if not self.state:
            await self.until(lambda: bool(self.state), wait, "free line")

    async def quiet(self, seconds: float, most: float) -> None:
        """Wait until the agent has been silent and listening for a while."""
        deadline = time.perf_counter() + most
        while time.perf_counter() < deadline:
            since = self.sounds[-1].ended if self.sounds else self.joined
            missing = since + seconds - time.perf_counter()
            if self.state == "listening" and missing <= 0:
                return
            await asyncio.sleep(max(0.02, missing))
        raise Unavailable(f"the agent was not quiet within {most:.0f} s")

    async def say(self, samples: Samples, *, audible: bool = True) -> float:
        """Send speech at the pace of speech.

        Args:
            samples: pcm16 mono at `RATE`.
            audible: Refuse what nobody would hear.

        Returns:
            When the last audible 10 ms was sent; of what is all faint, the last one.
        """
        loud = np.flatnonzero(loud_frames(samples))
        if audible and not len(loud):
            raise BadRequest("wav", "there is nothing to hear in it")
        self._last_loud = int(loud[-1] + 1) * (RATE // 100) if len(loud) else len(samples)
        self._spoken_at = asyncio.get_running_loop().create_future()
        self._outgoing = samples
        async with asyncio.timeout(len(samples) / RATE + 10):
            return await self._spoken_at

    async def type(self, text: str) -> None:
        """Send a typed message."""
        await self.room.local_participant.send_text(text, topic="lk.chat")

    async def heard_after(self, when: float, seconds: float) -> float:
        """Return when the first sound that began after a moment was heard."""
        await self.until(lambda: self._first_after(when) is not None, seconds, "answer")
        first = self._first_after(when)
        assert first is not None
        return first

    def received(self, start: float, end: float) -> Samples:
        """Return what came between two moments of the robot's clock: pcm16 mono at `RATE`."""
        parts = [part for at, part in self._received if start <= at <= end]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def record(self, path: Path) -> None:
        """Write both sides as a stereo WAV: the caller left, the agent right, as they sounded together."""
        if not self._sent:
            return
        start = self._sent[0][0]
        length = max(at - start + len(part) / RATE for at, part in [*self._sent, *self._received])
        sides = np.zeros((int(length * RATE) + RATE, 2), np.int16)
        for side, parts in enumerate((self._sent, self._received)):
            position = 0
            for at, part in parts:
                # Arrival times jitter; audio that follows at once is put end to end.
                due = int((at - start) * RATE)
                position = due if abs(due - position) > RATE // 10 else position
                end = min(position + len(part), len(sides))
                if position >= 0:
                    sides[position:end, side] = part[: end - position]
                position = end
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(sides.tobytes())

    def _first_after(self, when: float) -> float | None:
        return next((sound.began for sound in self.sounds if sound.began > when), None)

    async def _microphone(self, source: rtc.AudioSource) -> None:
        """Send what is to be said, and silence otherwise, by the clock."""
        size = int(RATE * _BEAT)
        due = time.perf_counter()
        while True:
            part = self._outgoing[:size]
            self._outgoing = self._outgoing[size:]
            beat = _SILENCE
            if len(part):
                beat = np.zeros(size, np.int16)
                beat[: len(part)] = part
            half = size // 2
            for frame in (beat[:half], beat[half:]):
                await source.capture_frame(rtc.AudioFrame(frame.tobytes(), RATE, 1, half))
            now = time.perf_counter()
            self._sent.append((now, beat))
            if self._spoken_at is not None and not self._spoken_at.done():
                self._last_loud -= len(part)
                if self._last_loud <= 0:
                    self._spoken_at.set_result(now + self._last_loud / RATE)
            due += _BEAT
            if due < now - 0.5:
                due = now  # the machine stood still: do not send a burst to catch up
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)
        try:
            async for event in stream:
                now = time.perf_counter()
                samples = np.frombuffer(event.frame.data, dtype=np.int16)
                self._received.append((now, samples))
                if np.abs(samples).max() > _AUDIBLE and (loud := loud_frames(samples)).any():
                    if self.sounds and now - self.sounds[-1].ended < 0.3:
                        self.sounds[-1].ended = now
                    else:
                        # The frame's first 10 ms are played at its arrival, the second 10 ms later.
                        began = now + 0.01 * int(np.argmax(loud))
                        self.sounds.append(Sound(began, began))
                        self._notify()
        finally:
            await stream.aclose()

    def _on_track(self, track: rtc.Track, publication: Any, participant: rtc.RemoteParticipant) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO and _is_agent(participant):
            self._tasks.append(asyncio.create_task(self._listen(track), name="listen"))

    def _on_attributes(self, participant: rtc.Participant) -> None:
        if _is_agent(participant):
            self.state = participant.attributes.get("lk.agent.state", self.state)
            self._notify()

    def _on_metadata(self, metadata: str) -> None:
        try:
            status = json.loads(metadata or "{}").get("parley", {})
        except ValueError:
            return
        self.busy_position = status.get("position") if status.get("status") == "busy" else None
        self._notify()

    def _on_caption(self, reader: rtc.TextStreamReader, identity: str) -> None:
        segment = (reader.info.attributes or {}).get("lk.segment_id", reader.info.stream_id)
        self._read(reader, lambda text: self.captions.__setitem__(f"{identity}/{segment}", text))

    def _on_turn(self, text: str) -> None:
        self.turns.put_nowait(json.loads(text))
        self._notify()

    def _on_lost(self) -> None:
        self._lost = True
        self._notify()

    def _read(self, reader: rtc.TextStreamReader, then: Callable[[str], None]) -> None:
        async def read() -> None:
            then(await reader.read_all())

        self._tasks.append(asyncio.create_task(read(), name="text"))

    def _notify(self) -> None:
        self._changed.set()


def _is_agent(participant: rtc.Participant) -> bool:
    return participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
