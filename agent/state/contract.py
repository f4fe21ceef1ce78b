"""What a call needs to outlive its replica: who carries it, where the conversation is, what is being said now.

A call is known by the name of its room. An *owner* is the agent replica that carries it, a *dispatcher* the one that
holds its request. Times to live are in seconds. Every operation ends within `BOUND_SECONDS` (`leases`: a few times
that), or raises `serve.errors.Unavailable`; none is needed to go on speaking.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from serve.errors import BadRequest

BOUND_SECONDS = 2.0
"""How long one operation may take, with everything that is tried again."""

RECORD_BYTES = 2**20
"""The largest record, as JSON."""

AUDIO_BYTES = 60 * 16000 * 2
"""The most that is kept of an utterance: 60 s of pcm16 mono at 16 kHz."""

AUDIO_SECONDS = 60.0
"""How long it is kept after its last piece."""

KEPT_SECONDS = 3600.0
"""How long a lease that has run out can still be found, and a released one still refuses what is older."""

WAIT_SECONDS = 3600.0
"""How long a room may stand in the queue."""

LIVE_EVENTS = 500
"""How many of a call's newest events can be followed."""

LIVE_SECONDS = 300.0
"""How long they can be after the last one: whoever follows a call comes back within that, and misses nothing."""

LIVE_PAGE = 100
"""The most that are returned at once."""

NOW_SECONDS = 30.0
"""How long what a call does now is believed; it is said again before that."""

_POSITION = re.compile(r"([0-9]{1,16})-([0-9]{1,16})")

Record = dict[str, Any]
"""A JSON object: conversation, open question, answer so far, playout position, participants."""

Part = Literal["record", "files"]
"""What is large and changes seldom is kept beside the record, which is written several times a second."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Says who carries a call.

    Attributes:
        call: The room's name.
        owner: The agent replica.
        dispatcher: Who holds the call's request.
        epoch: Raised by one with every claim of this call: the newest is right.
        seconds_left: Until it runs out, when this was asked; negative: it ran out so long ago.
    """

    call: str
    owner: str
    dispatcher: str
    epoch: int
    seconds_left: float


class State(Protocol):
    """Where calls keep what they need to survive; the same rules whatever is behind it."""

    async def claim(self, call: str, owner: str, dispatcher: str, ttl: float, over: int | None = None) -> Lease | None:
        """Take a call.

        Args:
            call: The room's name.
            owner: The replica that will carry it.
            dispatcher: Who holds its request.
            ttl: Seconds until others may take it, unless it is renewed.
            over: The epoch that is held now by an owner who is known to be dead: taken over at once.

        Returns:
            The lease, or None: somebody holds it.
        """
        ...

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Hold on to a call for another while; False: somebody else has it by now, so stop.

        A state that lost everything takes the lease back in, so that a call outlives that too.
        """
        ...

    async def hand_over(self, lease: Lease, dispatcher: str) -> Lease | None:
        """Let another dispatcher hold the call's request: same owner, same epoch.

        Of several that saw the same `lease`, one succeeds.

        Returns:
            The lease as it is now, or None: it has changed hands.
        """
        ...

    async def release(self, lease: Lease) -> bool:
        """Give a call up; the record stays until it is dropped. False: it was somebody else's by now."""
        ...

    async def leases(self) -> list[Lease]:
        """Return the leases of all calls not released: living ones, and those that have run out."""
        ...

    async def load(self, call: str, part: Part = "record") -> Record | None:
        """Return the record saved last, or the other part."""
        ...

    async def save(self, lease: Lease, record: Record, ttl: float, part: Part = "record") -> bool:
        """Replace the record, or the other part; False: the lease is not the newest, and nothing was changed.

        Raises:
            BadRequest: It is no JSON, or longer than `RECORD_BYTES`.
        """
        ...

    async def drop(self, call: str) -> None:
        """Forget all parts and the audio: the call is over. Whom `release` refused leaves that to the new owner."""
        ...

    async def keep_audio(self, lease: Lease, utterance: str, sequence: int, pcm: bytes) -> bool:
        """Keep a piece of the utterance that is being spoken, pcm16 mono at 16 kHz.

        Args:
            lease: Of the call.
            utterance: Its id.
            sequence: 0, 1, ...; 0 begins anew, and what was kept of any other utterance goes.
            pcm: The piece.

        Returns:
            False: not kept. The lease is old, a piece before it is missing (send all again, as 0), or it is too long.
        """
        ...

    async def audio(self, call: str) -> tuple[str, bytes] | None:
        """Return the id of the utterance kept last, and its audio so far."""
        ...

    async def wait(self, room: str) -> None:
        """Put a room at the end of the queue, once."""
        ...

    async def waiting(self) -> list[str]:
        """Return the rooms that wait, the first come first."""
        ...

    async def leave(self, room: str) -> None:
        """Take a room out of the queue."""
        ...

    async def lead(self, name: str, owner: str, ttl: float) -> bool:
        """Say whether `owner` leads what is called `name`, from now on for `ttl` seconds; ask again before that."""
        ...

    async def publish(self, call: str, events: Sequence[Record]) -> None:
        """Add events for those who follow a call; the oldest go beyond `LIVE_EVENTS`.

        Where an answer was lost on its way they may be there twice.
        """
        ...

    async def live(self, call: str, after: str = "") -> list[tuple[str, Record]]:
        """Return the events after the one with this id, the oldest first, at most `LIVE_PAGE`; "": all that are kept.

        Ids grow, as pairs of numbers, also where the state has lost everything in between.

        Raises:
            BadRequest: `after` is no id.
        """
        ...

    async def note(self, call: str, now: Record | None) -> None:
        """Say what a live call does now; None: it is not live any more."""
        ...

    async def living(self) -> list[Record]:
        """Return what each live call does now."""
        ...

    async def aclose(self) -> None:
        """Free connections; what is kept stays."""
        ...


def encode(record: Record) -> bytes:
    """Return a record as JSON.

    Raises:
        BadRequest: It is no JSON object, or too long.
    """
    try:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError):
        raise BadRequest("record", "is not JSON") from None
    if len(text) > RECORD_BYTES:
        raise BadRequest("record", f"is {len(text)} bytes of JSON, the most is {RECORD_BYTES}")
    return text


def decode(text: bytes) -> Record:
    """Return the record that was encoded."""
    return cast("Record", json.loads(text))


def position(event: str) -> tuple[int, int]:
    """Return the two numbers of a live event's id; before all others: "".

    Raises:
        BadRequest: It is none.
    """
    if not event:
        return (0, 0)
    found = _POSITION.fullmatch(event)
    if found is None:
        raise BadRequest("after", "is no id of a live event")
    return int(found[1]), int(found[2])
