"""What happens in a call, as typed records: LiveKit's own events by LiveKit's names, a job's life, and three of ours.

docs/lifecycle.md has their order. Records carry who, what and when; what was said is only in those whose class says
`content`. None of it goes into a log line.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

SIP = "sip."
"""What LiveKit's attributes of a telephone line begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all records have.

    Attributes:
        call: The room's name.
        time: Seconds since 1970.
        sequence: 1, 2, ... since this replica took the call.
    """

    type: ClassVar[str]
    content: ClassVar[bool] = False
    """It has what was said."""

    call: str
    time: float
    sequence: int

    def json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"type": self.type, **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Event):
    """A replica takes the call; `identity` is the agent's, `resumed`: another replica has left it."""

    type: ClassVar[str] = "entrypoint"
    job: str
    identity: str
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect(Event):
    """The agent is in the room; `participants` were there before."""

    type: ClassVar[str] = "connect"
    participants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(Event):
    """The session runs: from here on the caller is heard and answered."""

    type: ClassVar[str] = "process"
    assistant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Event):
    """The session is closed: `reason` as docs/lifecycle.md lists it, `close_reason` AgentSession's own."""

    type: ClassVar[str] = "close"
    reason: str
    close_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup(Event):
    """The call leaves this replica; `seconds` it was here. The last record."""

    type: ClassVar[str] = "cleanup"
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResumed(Event):
    """This replica goes on with what another has left; `open_question`: it has an answer to finish."""

    type: ClassVar[str] = "call_resumed"
    epoch: int
    open_question: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallMoved(Event):
    """This replica lets the call go at the end of a turn, for another to go on."""

    type: ClassVar[str] = "call_moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAdopted(Event):
    """Another dispatcher holds the call's request from now on."""

    type: ClassVar[str] = "call_adopted"
    dispatcher: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantConnected(Event):
    """Somebody is in the room: came in, or was there before the agent."""

    type: ClassVar[str] = "participant_connected"
    identity: str
    name: str
    kind: str
    attributes: dict[str, str]
    sip: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantDisconnected(Event):
    """Somebody has left it, for LiveKit's reason."""

    type: ClassVar[str] = "participant_disconnected"
    identity: str
    kind: str
    attributes: dict[str, str]
    sip: dict[str, str]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantAttributesChanged(Event):
    """Attributes of somebody else than this agent; `changed` holds the new values."""

    type: ClassVar[str] = "participant_attributes_changed"
    identity: str
    changed: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantMetadataChanged(Event):
    """Somebody's metadata."""

    type: ClassVar[str] = "participant_metadata_changed"
    identity: str
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantNameChanged(Event):
    """Somebody's name."""

    type: ClassVar[str] = "participant_name_changed"
    identity: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMetadataChanged(Event):
    """The room's metadata."""

    type: ClassVar[str] = "room_metadata_changed"
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackEvent(Event):
    """What events of tracks have: whose it is, `track` its sid, `kind` audio or video, `source` such as microphone."""

    identity: str
    track: str
    name: str
    kind: str
    source: str


class TrackPublished(TrackEvent):
    """Somebody sends a track: from now on, or since before the agent came."""

    type: ClassVar[str] = "track_published"


class TrackUnpublished(TrackEvent):
    """Nobody sends it any more."""

    type: ClassVar[str] = "track_unpublished"


class TrackSubscribed(TrackEvent):
    """The agent receives it."""

    type: ClassVar[str] = "track_subscribed"


class TrackUnsubscribed(TrackEvent):
    """The agent receives it no more."""

    type: ClassVar[str] = "track_unsubscribed"


class TrackMuted(TrackEvent):
    """Its owner has muted it."""

    type: ClassVar[str] = "track_muted"


class TrackUnmuted(TrackEvent):
    """Its owner has unmuted it."""

    type: ClassVar[str] = "track_unmuted"


class LocalTrackPublished(TrackEvent):
    """The agent's voice has its track."""

    type: ClassVar[str] = "local_track_published"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTrackSubscribed(Event):
    """Somebody receives the agent's voice."""

    type: ClassVar[str] = "local_track_subscribed"
    track: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSubscriptionFailed(Event):
    """The agent cannot receive a track."""

    type: ClassVar[str] = "track_subscription_failed"
    identity: str
    track: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReceived(Event):
    """A data packet came: `size` in bytes, `sender` an identity; "": LiveKit's API."""

    type: ClassVar[str] = "data_received"
    topic: str
    size: int
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SipDtmfReceived(Event):
    """A telephone key was pressed."""

    type: ClassVar[str] = "sip_dtmf_received"
    identity: str
    digit: str
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionQualityChanged(Event):
    """Of somebody's connection: excellent, good, poor, lost."""

    type: ClassVar[str] = "connection_quality_changed"
    identity: str
    quality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveSpeakersChanged(Event):
    """Who is loud now, the loudest first."""

    type: ClassVar[str] = "active_speakers_changed"
    identities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnecting(Event):
    """The agent has lost LiveKit and tries again."""

    type: ClassVar[str] = "reconnecting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected(Event):
    """The agent has LiveKit again."""

    type: ClassVar[str] = "reconnected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Event):
    """The agent is out of the room, for LiveKit's reason."""

    type: ClassVar[str] = "disconnected"
    reason: str


# From here on, the conversation (livekit.agents.AgentSession); before it, the room (livekit.rtc.Room).


@dataclass(frozen=True, slots=True, kw_only=True)
class UserStateChanged(Event):
    """The caller: speaking, listening or away."""

    type: ClassVar[str] = "user_state_changed"
    old_state: str
    new_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStateChanged(Event):
    """The agent: initializing, listening, thinking or speaking."""

    type: ClassVar[str] = "agent_state_changed"
    old_state: str
    new_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInputTranscribed(Event):
    """What the caller says, as it is understood so far, or finally."""

    type: ClassVar[str] = "user_input_transcribed"
    content: ClassVar[bool] = True
    transcript: str
    is_final: bool
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationItemAdded(Event):
    """A message is part of the conversation; its words are in `turn`."""

    type: ClassVar[str] = "conversation_item_added"
    role: str
    interrupted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechCreated(Event):
    """Something will be spoken; `source` is say or generate_reply."""

    type: ClassVar[str] = "speech_created"
    source: str
    user_initiated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFalseInterruption(Event):
    """What sounded like an interruption was none; `resumed`: the answer goes on."""

    type: ClassVar[str] = "agent_false_interruption"
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTranscriptionTimeout(Event):
    """Somebody spoke for `speech_duration` seconds, and nothing was understood."""

    type: ClassVar[str] = "user_transcription_timeout"
    speech_duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolExecutionUpdated(Event):
    """A tool: `update` is tool_call_started or tool_call_ended, `outcome` then ok, error, late or cancelled.

    `duration`: seconds from start to end; None until it has ended.
    """

    type: ClassVar[str] = "tool_execution_updated"
    update: str
    call_id: str
    name: str
    duration: float | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Event):
    """A model failed: `source` is whose error it was, `error` its class."""

    type: ClassVar[str] = "error"
    source: str
    error: str
    recoverable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Event):
    """A question and its answer are over; `turn` is what `agent/turns.py` says."""

    type: ClassVar[str] = "turn"
    content: ClassVar[bool] = True
    turn: dict[str, Any]


def kinds() -> dict[str, type[Event]]:
    """Return all classes of records by their type."""
    found = [each for each in globals().values() if isinstance(each, type) and issubclass(each, Event)]
    return {each.type: each for each in found if "type" in vars(each)}
