"""State in Redis: for calls on several machines, and for those that outlive one.

Redis copies to its replicas a moment later: a failover may forget the last writes. A lease that was forgotten so is
taken back in by its owner's next renewal, a record is whole again with the next save.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, get_args

from agent.state import scripts
from agent.state.contract import (
    AUDIO_BYTES,
    AUDIO_SECONDS,
    BOUND_SECONDS,
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
from agent.state.link import Link, Script
from serve.errors import Unavailable

CROWD = 64
"""Leases read at once."""

LIST_SECONDS = 3 * BOUND_SECONDS

_KEPT = int(KEPT_SECONDS * 1000)


class RedisState:
    """Implements `State`. Each operation on a call is one script, on keys that share a server.

    Args:
        url: See `agent.state.link.Link`.
        agent: The agent's name.
    """

    def __init__(self, url: str, agent: str) -> None:
        self._link = Link(url, agent)
        self._calls = self._link.key("calls", "index")
        self._queue = self._link.key("waiting", "rooms")
        self._living = [self._link.key("living", kind) for kind in ("now", "until")]

    async def claim(self, call: str, owner: str, dispatcher: str, ttl: float, over: int | None = None) -> Lease | None:
        """Take a call."""
        await self._run(scripts.NOTE_CALL, [self._calls], call, _KEPT, bound=BOUND_SECONDS / 2)
        # By its token, what is sent again after a lost connection is known to be the same claim.
        claim = (owner, dispatcher, _ms(ttl), "" if over is None else over, uuid.uuid4().hex, _KEPT)
        answer = await self._run(scripts.CLAIM, [self._lease(call)], *claim, bound=BOUND_SECONDS / 2)
        return Lease(call, owner, dispatcher, int(answer[0]), int(answer[1]) / 1000) if answer else None

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Hold on to a call."""
        who = (lease.owner, lease.epoch, lease.dispatcher)
        held, _ = await asyncio.gather(
            self._run(scripts.RENEW, [self._lease(lease.call)], *who, _ms(ttl), _KEPT),
            self._run(scripts.NOTE_CALL, [self._calls], lease.call, _KEPT),
        )
        return bool(held)

    async def hand_over(self, lease: Lease, dispatcher: str) -> Lease | None:
        """Let another dispatcher hold the call's request."""
        who = (lease.owner, lease.epoch, lease.dispatcher, dispatcher)
        left = await self._run(scripts.HAND_OVER, [self._lease(lease.call)], *who)
        return None if left is None else Lease(lease.call, lease.owner, dispatcher, lease.epoch, int(left) / 1000)

    async def release(self, lease: Lease) -> bool:
        """Give a call up."""
        given_up = (lease.owner, lease.epoch, _KEPT)
        released = await self._run(scripts.RELEASE, [self._lease(lease.call)], *given_up, bound=BOUND_SECONDS / 2)
        if released:
            await self._run(scripts.FORGET_CALL, [self._calls], lease.call, bound=BOUND_SECONDS / 2)
        return bool(released)

    async def leases(self) -> list[Lease]:
        """Return the leases of all calls not released."""
        calls = [call.decode() for call in await self._run(scripts.CALLS, [self._calls])]
        found: list[Lease | None] = []
        try:
            async with asyncio.timeout(LIST_SECONDS):
                for start in range(0, len(calls), CROWD):
                    found += await asyncio.gather(*(self._look(call) for call in calls[start : start + CROWD]))
        except TimeoutError:
            raise Unavailable(f"Redis did not answer within {LIST_SECONDS:g} s") from None
        return [lease for lease in found if lease]

    async def load(self, call: str, part: Part = "record") -> Record | None:
        """Return the record saved last, or the other part."""
        text = await self._run(scripts.LOAD, [self._link.key(call, part)])
        return decode(text) if text else None

    async def save(self, lease: Lease, record: Record, ttl: float, part: Part = "record") -> bool:
        """Replace the record, or the other part."""
        keys = [self._lease(lease.call), self._link.key(lease.call, part)]
        return bool(await self._run(scripts.SAVE, keys, lease.owner, lease.epoch, _ms(ttl), encode(record)))

    async def drop(self, call: str) -> None:
        """Forget record, files and audio."""
        await self._run(scripts.DROP, [self._link.key(call, kind) for kind in (*get_args(Part), "said", "audio")])

    async def keep_audio(self, lease: Lease, utterance: str, sequence: int, pcm: bytes) -> bool:
        """Keep a piece of the utterance that is being spoken."""
        keys = [self._lease(lease.call), self._link.key(lease.call, "said"), self._link.key(lease.call, "audio")]
        piece = (lease.owner, lease.epoch, utterance, sequence, pcm, AUDIO_BYTES, _ms(AUDIO_SECONDS))
        return bool(await self._run(scripts.KEEP_AUDIO, keys, *piece))

    async def audio(self, call: str) -> tuple[str, bytes] | None:
        """Return the utterance kept last."""
        answer = await self._run(scripts.AUDIO, [self._link.key(call, "said"), self._link.key(call, "audio")])
        return (answer[0].decode(), answer[1]) if answer else None

    async def wait(self, room: str) -> None:
        """Put a room at the end of the queue, once."""
        await self._run(scripts.WAIT, [self._queue], room, _ms(WAIT_SECONDS))

    async def waiting(self) -> list[str]:
        """Return the rooms that wait."""
        return [room.decode() for room in await self._run(scripts.WAITING, [self._queue], _ms(WAIT_SECONDS))]

    async def leave(self, room: str) -> None:
        """Take a room out of the queue."""
        await self._run(scripts.LEAVE, [self._queue], room)

    async def lead(self, name: str, owner: str, ttl: float) -> bool:
        """Say whether `owner` leads."""
        return bool(await self._run(scripts.LEAD, [self._link.key(name, "leader")], owner, _ms(ttl)))

    async def publish(self, call: str, events: Sequence[Record]) -> None:
        """Add events for those who follow a call."""
        if events:
            texts = [encode(event) for event in events]
            await self._run(scripts.PUBLISH, [self._link.key(call, "live")], LIVE_EVENTS, _ms(LIVE_SECONDS), *texts)

    async def live(self, call: str, after: str = "") -> list[tuple[str, Record]]:
        """Return the events after one."""
        milliseconds, number = position(after)
        since = f"{milliseconds}-{number + 1}"
        found = await self._run(scripts.LIVE, [self._link.key(call, "live")], since, LIVE_PAGE)
        return [(id.decode(), decode(fields[1])) for id, fields in found]

    async def note(self, call: str, now: Record | None) -> None:
        """Say what a live call does now."""
        await self._run(scripts.NOTE, self._living, call, b"" if now is None else encode(now), _ms(NOW_SECONDS))

    async def living(self) -> list[Record]:
        """Return what each live call does now."""
        return [decode(text) for text in await self._run(scripts.LIVING, self._living)]

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._link.aclose()

    async def _look(self, call: str) -> Lease | None:
        found = await self._run(scripts.LEASE, [self._lease(call)])
        if not found:
            return None
        owner, dispatcher, epoch, left = found
        return Lease(call, owner.decode(), dispatcher.decode(), int(epoch), int(left) / 1000)

    def _lease(self, call: str) -> bytes:
        return self._link.key(call, "lease")

    async def _run(
        self, script: Script, keys: list[bytes], *args: bytes | str | int, bound: float = BOUND_SECONDS
    ) -> Any:
        return await self._link.run(script, keys, *args, bound=bound)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
