"""What a call tells the backend: who joined, what was said, which files came, what it used.

Each is a record with an id of its own, delivered at least once, in order within a call, and stored once by its id.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from serve.contracts import Role

RECORD_BYTES = 2**20
"""The largest record, as JSON."""


class Record(BaseModel):
    """What all records have.

    Attributes:
        id: A UUID; two records with the same id are the same record.
        call: The room's name.
        epoch: Of the lease under which it was made: later replicas have higher ones.
        sequence: 1, 2, ... within the epoch.
        time: Seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    call: str
    epoch: int
    sequence: int
    time: float


class AgentJoined(Record):
    """An agent carries the call from now on; an epoch above 1: it took the call over.

    Attributes:
        agent: The agent's name.
        replica: The lease's owner.
        assistant: Who answers first, as the dispatch names it.
        tenant: Whose call it is, as the dispatch says; empty: the default tenant's.
    """

    kind: Literal["agent_joined"] = "agent_joined"
    agent: str
    replica: str
    assistant: str = ""
    tenant: str = ""


class ParticipantConnected(Record):
    """Somebody came into the room.

    Attributes:
        identity: LiveKit's, unique in the room.
        name: As shown; may be empty.
        medium: "standard" (browser), "sip" (phone), or another of LiveKit's participant kinds.
        attributes: LiveKit's, such as `sip.phoneNumber`.
    """

    kind: Literal["participant_connected"] = "participant_connected"
    identity: str
    name: str = ""
    medium: str = "standard"
    attributes: dict[str, str] = {}


class ParticipantDisconnected(Record):
    """Somebody left it, for LiveKit's reason."""

    kind: Literal["participant_disconnected"] = "participant_disconnected"
    identity: str
    reason: str = ""


class Turn(Record):
    """A question and the answer as far as it was heard.

    Attributes:
        turn: 1, 2, ...
        heard: The question's text.
        answer: What of the answer was heard.
        interrupted: It was cut off.
        typed: The question was typed.
        error: Name of the error where there is no answer.
        measures: What else is known of it (`agent/turns.py`): stages, timeline, models.
        trace: Its span, as W3C's traceparent; "" where it is not traced.
    """

    kind: Literal["turn"] = "turn"
    turn: int
    heard: str
    answer: str
    interrupted: bool = False
    typed: bool = False
    error: str | None = None
    measures: dict[str, JsonValue] = {}
    trace: str = ""


class FileReceived(Record):
    """A file came into the conversation; its bytes are elsewhere.

    Attributes:
        file: Its id.
        name: As the sender calls it.
        media_type: Such as `text/csv`.
        size: Bytes.
        sender: Identity of the participant.
        location: Where the bytes are; empty: not kept.
        text: What was read from it.
    """

    kind: Literal["file"] = "file"
    file: str
    name: str
    media_type: str
    size: int
    sender: str = ""
    location: str = ""
    text: str = ""


class Conversation(Record):
    """The conversation as it stands: the newest one of a call replaces those before.

    Attributes:
        messages: In OpenAI's chat shapes.
        reason: Why the call ended; empty while it goes on.
    """

    kind: Literal["conversation"] = "conversation"
    messages: list[dict[str, JsonValue]]
    reason: str = ""


class Events(Record):
    """What happened in the call since the record before: LiveKit's events and the session's (docs/lifecycle.md).

    Attributes:
        events: Each with `event`, `time` and fields of its own; no captions, no words.
    """

    kind: Literal["events"] = "events"
    events: list[dict[str, JsonValue]]


class Used(Record):
    """What a call used of one model since the record before; they add up.

    Attributes:
        role: What for.
        model: Whose.
        used: Fields of `serve.contracts.Usage`.
        turn: Id of the turn that it was used for; empty: for none, such as a greeting.
    """

    kind: Literal["usage"] = "usage"
    turn: str = ""
    role: Role
    model: str
    used: dict[str, float]


AnyRecord = Annotated[
    AgentJoined | ParticipantConnected | ParticipantDisconnected | Turn | FileReceived | Conversation | Events | Used,
    Field(discriminator="kind"),
]

_records: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


def read(body: bytes) -> AnyRecord:
    """Return the record that a JSON object is; pydantic's ValidationError where it is none that is known here."""
    return _records.validate_json(body)
