"""What a caller could notice of an outage or a move: who is in the room, who is heard, and since when."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from livekit import rtc

from cluster import processes
from cluster.robot import RATE, Robot, loud_frames
from tests.conftest import Parley


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that happened in the room, by the robot's clock."""

    at: float
    what: str
    who: str = ""


class Watch:
    """Writes down what happens in a robot's room; made before the robot joins.

    Args:
        robot: The caller.
    """

    def __init__(self, robot: Robot) -> None:
        self.seen: list[Seen] = []
        self.heard: list[tuple[float, str]] = []
        """When 20 ms of an agent could be heard, and which agent's."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        room = robot.room
        for event in ("reconnecting", "reconnected", "disconnected"):
            room.on(event, lambda *_, event=event: self._note(event))
        room.on("participant_connected", lambda who: self._of_agent("joined", who))
        room.on("participant_disconnected", lambda who: self._of_agent("left", who))
        room.on("participant_attributes_changed", lambda _, who: self._of_agent("state", who))
        room.on("track_subscribed", self._on_track)

    def first(self, what: str, after: float = 0.0) -> Seen | None:
        """Return when something happened first after a moment."""
        return next((each for each in self.seen if each.what == what and each.at > after), None)

    def both(self) -> list[float]:
        """Return the moments at which two agents were heard within a tenth of a second."""
        pairs = zip(self.heard, self.heard[1:], strict=False)
        return [one[0] for one, two in pairs if one[1] != two[1] and two[0] - one[0] < 0.1]

    def lines(self, since: float) -> str:
        """Return what happened as text, for a test's log."""
        return "\n".join(f"{each.at - since:7.2f} s  {each.what} {each.who}" for each in self.seen)

    async def aclose(self) -> None:
        """Stop."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _note(self, what: str, who: str = "") -> None:
        self.seen.append(Seen(time.perf_counter(), what, who))

    def _of_agent(self, what: str, who: rtc.Participant) -> None:
        if who.kind != rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            return
        if what == "left":
            # WebRTC gives the way that its voice came to the next one's.
            for name, task in self._tasks.items():
                if name.startswith(f"{who.identity}/"):
                    task.cancel()
        for news in (what, who.attributes.get("lk.agent.state")):
            if news and news != "state":
                self._note(news, who.identity)

    def _on_track(self, track: rtc.Track, _: Any, who: rtc.RemoteParticipant) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._note("track", who.identity)
            self._tasks[f"{who.identity}/{track.sid}"] = asyncio.create_task(self._listen(track, who.identity))

    async def _listen(self, track: rtc.Track, who: str) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)
        try:
            async for event in stream:
                if loud_frames(np.frombuffer(event.frame.data, dtype=np.int16)).any():
                    self.heard.append((time.perf_counter(), who))
        finally:
            await stream.aclose()


async def greeted(robot: Robot) -> None:
    """Wait until the agent has greeted."""
    await robot.answered(wait=20)
    await robot.heard_after(robot.joined, 20)
    await robot.quiet(0.5, 20)


def process(parley: Parley, name: str) -> psutil.Process:
    """Return the one process of the cluster whose command line has a name in it."""
    found = [each for each in processes.find(parley.run) if name in " ".join(each.cmdline())]
    assert len(found) == 1, found
    return found[0]
