"""What a product's backend is told of calls (`serve/records.py`), and how.

Each record goes through an outbox (`agent/outbox/`) that outlives the replica, to a sink
(the API's database, or a file): delivered at least once, in order within a call, stored once by its id.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from serve.contracts import Role, Usage
from serve.records import (
    AgentJoined,
    AnyRecord,
    Conversation,
    Events,
    FileReceived,
    ParticipantConnected,
    ParticipantDisconnected,
    Turn,
    Used,
)


class Outbox(Protocol):
    """Takes records and sees to it that they arrive."""

    def put(self, record: AnyRecord) -> asyncio.Future[bool]:
        """Take a record; returns at once.

        Returns:
            Done when the record is where it outlives this process (True), or was dropped (False): it is too long, or
            the place has been away for so long that no more is kept. Need not be awaited; order is that of the calls.
        """
        ...

    async def flush(self, seconds: float) -> int:
        """Wait until everything is safe, but not longer than this; return how many records are not."""
        ...

    async def aclose(self) -> None:
        """Stop; what is not safe by then is lost, so `flush` first."""
        ...


class Sink(Protocol):
    """Where records end up."""

    async def deliver(self, records: Sequence[AnyRecord]) -> None:
        """Store records, each once: one whose id is there already changes nothing.

        Raises:
            BadRequest: Of one of them is wrong, and will be again: given one by one, the wrong ones are set aside.
            Exception: Anything else: all are delivered again.
        """
        ...


_TURN = ("turn", "heard", "answer", "interrupted", "typed", "error", "trace")


class Backend:
    """One call's side of it, for one owner of the call. Nothing here waits: each returns what `Outbox.put` does.

    Args:
        outbox: Where records go.
        call: The room's name.
        epoch: Of the lease.
        clock: Seconds since 1970.
    """

    def __init__(self, outbox: Outbox, call: str, epoch: int, clock: Callable[[], float] = time.time) -> None:
        self._outbox, self._call, self._epoch, self._clock = outbox, call, epoch, clock
        self._sequence = 0

    def agent_joined(self, agent: str, replica: str, *, assistant: str = "", tenant: str = "") -> asyncio.Future[bool]:
        """An agent carries the call, for the assistant and the tenant that its dispatch names."""
        who = AgentJoined(**self._next(), agent=agent, replica=replica, assistant=assistant, tenant=tenant)
        return self._outbox.put(who)

    def participant_connected(
        self, identity: str, name: str = "", medium: str = "standard", attributes: Mapping[str, str] | None = None
    ) -> asyncio.Future[bool]:
        """Somebody came."""
        who = {"identity": identity, "name": name, "medium": medium, "attributes": dict(attributes or {})}
        return self._outbox.put(ParticipantConnected.model_validate({**self._next(), **who}))

    def participant_disconnected(self, identity: str, reason: str = "") -> asyncio.Future[bool]:
        """Somebody left."""
        return self._outbox.put(ParticipantDisconnected(**self._next(), identity=identity, reason=reason))

    def save_conversation_turn(self, turn: Mapping[str, Any], question: str = "") -> asyncio.Future[bool]:
        """A turn is over.

        Args:
            turn: As `agent/turns.py` describes it.
            question: Id of the question in the conversation, which stays the same when another replica takes the call
                over: its turn is stored once, whoever finished it. Empty: this turn stands for itself.
        """
        known = {name: turn[name] for name in _TURN if name in turn}
        measures = {name: value for name, value in turn.items() if name not in known}
        return self._outbox.put(Turn.model_validate({**self._next(question), **known, "measures": measures}))

    def handle_file_upload(
        self,
        name: str,
        media_type: str,
        size: int,
        *,
        file: str = "",
        sender: str = "",
        location: str = "",
        text: str = "",
    ) -> asyncio.Future[bool]:
        """A file came; one with an id (`file`) is told once."""
        common = self._next(file and f"file {file}")
        what = FileReceived(
            **common,
            file=file or common["id"],
            name=name,
            media_type=media_type,
            size=size,
            sender=sender,
            location=location,
            text=text,
        )
        return self._outbox.put(what)

    def save_conversation(self, messages: Sequence[Mapping[str, Any]], reason: str = "") -> asyncio.Future[bool]:
        """This is the conversation now; with a reason, the call has ended."""
        said = {"messages": [dict(message) for message in messages], "reason": reason}
        return self._outbox.put(Conversation.model_validate({**self._next(), **said}))

    def events(self, events: Sequence[Mapping[str, Any]]) -> asyncio.Future[bool]:
        """These happened since the last time (`agent/events.py`)."""
        return self._outbox.put(Events.model_validate({**self._next(), "events": [dict(event) for event in events]}))

    def usage(self, role: Role, model: str, used: Usage, question: str = "") -> asyncio.Future[bool]:
        """So much was used since the last time, for the turn of a question; empty: for no turn."""
        turn = self._id(question) if question else ""
        return self._outbox.put(Used(**self._next(), role=role, model=model, used=asdict(used), turn=turn))

    def _id(self, once: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"parley {self._call} {once}"))

    def _next(self, once: str = "") -> dict[str, Any]:
        """Return what all records have; `once` makes an id that is the same whenever it is."""
        self._sequence += 1
        return {
            "id": self._id(once) if once else str(uuid.uuid4()),
            "call": self._call,
            "epoch": self._epoch,
            "sequence": self._sequence,
            "time": self._clock(),
        }
