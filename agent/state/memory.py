"""State in this process: the rules in one place, readable. What runs behind the Ray actor, and in tests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from agent.state.contract import (
    AUDIO_BYTES,
    AUDIO_SECONDS,
    KEPT_SECONDS,
    LIVE_EVENTS,
    LIVE_PAGE,
    LIVE_SECONDS,
    NOW_SECONDS,
    WAIT_SECONDS,
    Lease,
    Part,
    Record,
    decode,
    encode,
    position,
)

SWEEP_SECONDS = 10.0
"""How often what nobody asks for any more is thrown away."""


@dataclass(slots=True)
class _Held:
    owner: str
    dispatcher: str
    epoch: int
    expires: float
    token: str = ""
    released: bool = False


@dataclass(slots=True)
class _Spoken:
    utterance: str
    next: int = 0
    pcm: bytearray = field(default_factory=bytearray)
    expires: float = 0.0


@dataclass(slots=True)
class _Feed:
    events: deque[tuple[tuple[int, int], bytes]] = field(default_factory=lambda: deque(maxlen=LIVE_EVENTS))
    last: tuple[int, int] = (0, 0)
    expires: float = 0.0


class Memory:
    """Implements `State`. No method awaits anything, so each is one step for everybody else.

    Args:
        clock: Seconds; tests bring their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._records: dict[tuple[str, Part], tuple[bytes, float]] = {}
        self._spoken: dict[str, _Spoken] = {}
        self._waiting: dict[str, float] = {}
        self._leaders: dict[str, tuple[str, float]] = {}
        self._feeds: dict[str, _Feed] = {}
        self._now: dict[str, tuple[bytes, float]] = {}
        self._swept = clock()

    async def claim(
        self, call: str, owner: str, dispatcher: str, ttl: float, over: int | None = None, token: str = ""
    ) -> Lease | None:
        """Take a call; the same `token` again is the same claim again, whose answer was lost."""
        self._sweep()
        now, held = self._clock(), self._held.get(call)
        if held and not held.released:
            if token and held.token == token:
                return self._lease(call, held)
            if held.expires > now and held.epoch != over:
                return None
        epoch = held.epoch + 1 if held else 1
        self._held[call] = _Held(owner, dispatcher, epoch, now + ttl, token)
        return self._lease(call, self._held[call])

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Hold on to a call."""
        held = self._held.get(lease.call)
        if held is None:
            held = self._held[lease.call] = _Held(lease.owner, lease.dispatcher, lease.epoch, 0.0)
        if not self._newest(lease):
            return False
        held.expires = self._clock() + ttl
        return True

    async def hand_over(self, lease: Lease, dispatcher: str) -> Lease | None:
        """Let another dispatcher hold the call's request."""
        held = self._held.get(lease.call)
        if held is None or not self._newest(lease) or held.dispatcher not in (lease.dispatcher, dispatcher):
            return None
        held.dispatcher = dispatcher
        return self._lease(lease.call, held)

    async def release(self, lease: Lease) -> bool:
        """Give a call up."""
        held = self._held.get(lease.call)
        if held and (held.owner, held.epoch) != (lease.owner, lease.epoch):
            return False
        if held:
            held.released, held.expires = True, self._clock()
        return True

    async def leases(self) -> list[Lease]:
        """Return the leases of all calls not released."""
        self._sweep()
        return [self._lease(call, held) for call, held in self._held.items() if not held.released]

    async def load(self, call: str, part: Part = "record") -> Record | None:
        """Return the record saved last, or the other part."""
        text, expires = self._records.get((call, part), (b"", 0.0))
        return decode(text) if text and expires > self._clock() else None

    async def save(self, lease: Lease, record: Record, ttl: float, part: Part = "record") -> bool:
        """Replace the record, or the other part."""
        text = encode(record)
        self._sweep()
        if not self._newest(lease):
            return False
        self._records[lease.call, part] = (text, self._clock() + ttl)
        return True

    async def drop(self, call: str) -> None:
        """Forget record, files and audio."""
        for part in get_args(Part):
            self._records.pop((call, part), None)
        self._spoken.pop(call, None)

    async def keep_audio(self, lease: Lease, utterance: str, sequence: int, pcm: bytes) -> bool:
        """Keep a piece of the utterance that is being spoken."""
        if not self._newest(lease):
            return False
        spoken = _Spoken(utterance) if sequence == 0 else self._heard(lease.call)
        if spoken is None or spoken.utterance != utterance or sequence > spoken.next:
            return False
        if sequence == spoken.next:
            if len(spoken.pcm) + len(pcm) > AUDIO_BYTES:
                return False
            spoken.pcm += pcm
            spoken.next += 1
        spoken.expires = self._clock() + AUDIO_SECONDS
        self._spoken[lease.call] = spoken
        return True

    async def audio(self, call: str) -> tuple[str, bytes] | None:
        """Return the utterance kept last."""
        spoken = self._heard(call)
        return (spoken.utterance, bytes(spoken.pcm)) if spoken else None

    async def wait(self, room: str) -> None:
        """Put a room at the end of the queue, once."""
        self._waiting.setdefault(room, self._clock())

    async def waiting(self) -> list[str]:
        """Return the rooms that wait."""
        self._sweep(now=True)
        return list(self._waiting)

    async def leave(self, room: str) -> None:
        """Take a room out of the queue."""
        self._waiting.pop(room, None)

    async def lead(self, name: str, owner: str, ttl: float) -> bool:
        """Say whether `owner` leads."""
        leader, until = self._leaders.get(name, (owner, 0.0))
        if leader != owner and until > self._clock():
            return False
        self._leaders[name] = (owner, self._clock() + ttl)
        return True

    async def publish(self, call: str, events: Sequence[Record]) -> None:
        """Add events for those who follow a call."""
        texts = [encode(event) for event in events]
        self._sweep()
        feed = self._feeds.setdefault(call, _Feed())
        # By the time of day, so that ids go on growing after this process was replaced by another.
        milliseconds = max(time.time_ns() // 1_000_000, feed.last[0])
        for text in texts:
            feed.last = (milliseconds, feed.last[1] + 1 if milliseconds == feed.last[0] else 0)
            feed.events.append((feed.last, text))
        feed.expires = self._clock() + LIVE_SECONDS

    async def live(self, call: str, after: str = "") -> list[tuple[str, Record]]:
        """Return the events after one."""
        since, feed = position(after), self._feeds.get(call)
        if feed is None or feed.expires <= self._clock():
            return []
        found = [(id, text) for id, text in feed.events if id > since][:LIVE_PAGE]
        return [(f"{id[0]}-{id[1]}", decode(text)) for id, text in found]

    async def note(self, call: str, now: Record | None) -> None:
        """Say what a live call does now."""
        self._sweep()
        if now is None:
            self._now.pop(call, None)
        else:
            self._now[call] = (encode(now), self._clock() + NOW_SECONDS)

    async def living(self) -> list[Record]:
        """Return what each live call does now."""
        self._sweep(now=True)
        return [decode(text) for text, _ in self._now.values()]

    async def aclose(self) -> None:
        """Nothing to free."""

    def _newest(self, lease: Lease) -> bool:
        held = self._held.get(lease.call)
        return held is None or (not held.released and (held.owner, held.epoch) == (lease.owner, lease.epoch))

    def _heard(self, call: str) -> _Spoken | None:
        spoken = self._spoken.get(call)
        return spoken if spoken and spoken.expires > self._clock() else None

    def _lease(self, call: str, held: _Held) -> Lease:
        return Lease(call, held.owner, held.dispatcher, held.epoch, held.expires - self._clock())

    def _sweep(self, *, now: bool = False) -> None:
        """Forget what has run out."""
        clock = self._clock()
        if not now and clock - self._swept < SWEEP_SECONDS:
            return
        self._swept = clock
        self._held = {call: held for call, held in self._held.items() if held.expires + KEPT_SECONDS > clock}
        self._records = {key: record for key, record in self._records.items() if record[1] > clock}
        self._spoken = {call: spoken for call, spoken in self._spoken.items() if spoken.expires > clock}
        self._waiting = {room: since for room, since in self._waiting.items() if since + WAIT_SECONDS > clock}
        self._feeds = {call: feed for call, feed in self._feeds.items() if feed.expires > clock}
        self._now = {call: now for call, now in self._now.items() if now[1] > clock}
        self._leaders = {name: leader for name, leader in self._leaders.items() if leader[1] > clock}
