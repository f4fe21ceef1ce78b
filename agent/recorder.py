"""One call's recorder: listens to the room and the session, and tells the log, hooks and the backend.

It only listens. What happens next is decided in `agent/session.py` and `agent/people.py`.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

from livekit import rtc
from livekit.agents import AgentSession, llm

from agent import events, metrics
from agent.assistants import asked_for
from agent.backend import Backend
from agent.chronicle import Chronicle
from agent.documents import Document
from agent.events import Event
from agent.hooks import Hooks
from agent.live import ELSEWHERE, tenant_of
from agent.state import Lease
from serve.contracts import Role, Usage
from serve.instruments import one_of

logger = logging.getLogger("ray.serve.parley")

KEPT = 1000
"""Records that a call remembers."""

UNTOLD = frozenset(
    {
        *("active_speakers_changed", "connection_quality_changed", "user_state_changed", "agent_state_changed"),
        *("conversation_item_added", "speech_created", "local_track_subscribed"),
    }
)
"""What whoever holds the call's request is not told: it comes several times a turn. Neither is what has content."""

K = TypeVar("K", bound=Event)


class Recorder:
    """Records one call on one replica.

    Attributes:
        log: The newest records.
        emit: Told records as JSON, for whoever holds the call's request.
        live: Told all records, for those who follow the call.
        reason: Why the call ends, once it does.

    Args:
        lease: Says which call this is, and who carries it.
        hooks: Of this process.
        backend: This call's side of it; None: nobody wants records.
        agent: The agent's name.
        metadata: Of the dispatch: says whose call it is, and who is to answer.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        lease: Lease,
        hooks: Hooks | None = None,
        backend: Backend | None = None,
        agent: str = "",
        metadata: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.log: deque[Event] = deque(maxlen=KEPT)
        self.emit: Callable[[dict[str, Any]], None] = lambda event: None
        self.live: Callable[[Event], None] = lambda event: None
        self.reason = ""
        self._call, self._lease, self._agent, self._metadata = lease.call, lease, agent, metadata
        self._chronicle = Chronicle(lambda batch: self._tell(lambda backend: backend.events(batch)))
        self._hooks, self._backend, self._clock = hooks, backend, clock
        self._began = clock()
        self._count = self._question = 0
        self._messages: list[dict[str, Any]] = []
        self._known: set[str] = set()
        self._tools: dict[str, tuple[str, float]] = {}
        self._outcomes: defaultdict[str, deque[str]] = defaultdict(deque)
        self._used: dict[tuple[Role, str], Usage] = {}

    def record(self, what: type[K], /, **fields: Any) -> K:
        """Make a record, and tell everybody."""
        self._count += 1
        event = what(call=self._call, time=self._clock(), sequence=self._count, **fields)
        self.log.append(event)
        if self._hooks is not None:
            self._hooks.publish(event)
        self.live(event)
        if not event.content and event.type not in UNTOLD:
            self.emit(event.json())
        self._tell(lambda _: self._chronicle.hear(event))
        return event

    # A job's life.

    def entrypoint(self, job: str, identity: str, *, resumed: bool) -> None:
        """A replica takes the call."""
        (metrics.CALLS_RESUMED if resumed else metrics.CALLS_BEGUN).add()
        self.record(events.Entrypoint, job=job, identity=identity, resumed=resumed)

    def resumed(self, messages: Sequence[Mapping[str, Any]], *, open_question: bool) -> None:
        """It goes on from what another has left."""
        self._question = sum(message.get("role") == "user" for message in messages)
        self._messages = [dict(message) for message in messages]
        logger.info("call %s: resumed, epoch %d", self._call, self._lease.epoch)
        self.record(events.CallResumed, epoch=self._lease.epoch, open_question=open_question)

    def connect(self, room: rtc.Room) -> None:
        """The agent is in the room: whoever is there already is told as if they came now."""
        others = list(room.remote_participants.values())
        self.record(events.Connect, participants=len(others))
        said = {"assistant": asked_for(self._metadata) or "", "tenant": self._tenant(others)}
        self._tell(lambda backend: backend.agent_joined(self._agent, self._lease.owner, **said))
        for who in others:
            self._on_joined(who)
            for publication in who.track_publications.values():
                self._on_track(events.TrackPublished, who, publication)

    def process(self, assistant: str) -> None:
        """The session runs."""
        self.record(events.Process, assistant=assistant)

    def moved(self) -> None:
        """This replica lets the call go."""
        logger.info("call %s: moved", self._call)
        self.record(events.CallMoved)

    def adopted(self, dispatcher: str) -> None:
        """Another dispatcher holds the call's request."""
        logger.info("call %s: adopted by dispatcher %s", self._call, dispatcher)
        self.record(events.CallAdopted, dispatcher=dispatcher)

    def cleanup(self, reason: str) -> None:
        """The call leaves this replica; its last record."""
        self._tell_usage()
        said, ends = self._messages, "" if reason in ELSEWHERE else reason
        if said or ends:
            self._tell(lambda backend: backend.save_conversation(said, ends))
        seconds = self._clock() - self._began
        metrics.count_end(reason, seconds)
        self.record(events.Cleanup, reason=reason, seconds=round(seconds, 3))
        self._tell(lambda _: self._chronicle.flush())

    # What the call itself knows.

    def turn(self, turn: Mapping[str, Any]) -> None:
        """A turn is over: as `agent/turns.py` describes it."""
        metrics.count_turn(turn)
        self.record(events.Turn, turn=dict(turn))
        # The same question has the same number on every replica, so a turn that two have told is stored once.
        question = f"question {self._question}"
        self._tell(lambda backend: backend.save_conversation_turn(turn, question))
        self._tell_usage(question)

    def tool_used(self, use: Mapping[str, Any]) -> None:
        """What came of a tool, as `agent/tools.py` says: told with LiveKit's own word that it has ended."""
        self._outcomes[str(use["tool"])].append(str(use["outcome"]))

    def file(self, document: Document, sender: str, file: str) -> None:
        """A file came into the conversation."""
        about = {"file": file, "sender": sender, "text": document.text}
        self._tell(lambda backend: backend.handle_file_upload(document.name, document.kind, document.size, **about))

    def used(self, role: Role, model: str, usage: Usage) -> None:
        """A model has worked for this call."""
        before = self._used.get((role, model), Usage())
        added = {name: value + getattr(usage, name) for name, value in asdict(before).items()}
        self._used[role, model] = Usage(**added)

    # The room.

    def watch_room(self, room: rtc.Room) -> None:
        """Listen to a room; before it is connected."""
        on = cast("Callable[[str, Callable[..., Any]], Any]", room.on)
        on("participant_connected", self._on_joined)
        on("participant_disconnected", self._on_left)
        on("participant_attributes_changed", lambda changed, who: self._on_attributes(room, changed, who))
        on("participant_metadata_changed", lambda who, _, new: self._on_metadata(who, new))
        on("participant_name_changed", lambda who, _, new: self._on_name(who, new))
        on("room_metadata_changed", lambda _, new: self.record(events.RoomMetadataChanged, metadata=new))
        on("track_published", lambda track, who: self._on_track(events.TrackPublished, who, track))
        on("track_unpublished", lambda track, who: self._on_track(events.TrackUnpublished, who, track))
        on("track_subscribed", lambda _, track, who: self._on_track(events.TrackSubscribed, who, track))
        on("track_unsubscribed", lambda _, track, who: self._on_track(events.TrackUnsubscribed, who, track))
        on("track_muted", lambda who, track: self._on_track(events.TrackMuted, who, track))
        on("track_unmuted", lambda who, track: self._on_track(events.TrackUnmuted, who, track))
        on("local_track_published", lambda track: self._on_own_track(room, track))
        on("local_track_subscribed", lambda track: self.record(events.LocalTrackSubscribed, track=track.sid))
        on("track_subscription_failed", lambda who, sid: self._on_failed(who, sid))
        on("data_received", self._on_data)
        on("sip_dtmf_received", self._on_dtmf)
        on("connection_quality_changed", self._on_quality)
        on("active_speakers_changed", self._on_speakers)
        on("reconnecting", self._on_reconnecting)
        on("reconnected", lambda: self.record(events.Reconnected))
        on("disconnected", lambda reason: self.record(events.Disconnected, reason=reason_name(reason)))

    def _on_joined(self, who: rtc.RemoteParticipant) -> None:
        # Between the join and this, LiveKit may have told it by itself.
        if who.identity in self._known:
            return
        self._known.add(who.identity)
        kind, attributes = kind_name(who.kind), who.attributes
        about = {"identity": who.identity, "name": who.name, "kind": kind}
        self.record(events.ParticipantConnected, **about, attributes=attributes, sip=sip(attributes))
        self._tell(lambda backend: backend.participant_connected(who.identity, who.name, kind, attributes))

    def _on_left(self, who: rtc.RemoteParticipant) -> None:
        self._known.discard(who.identity)
        reason, attributes = reason_name(who.disconnect_reason), who.attributes
        about = {"identity": who.identity, "kind": kind_name(who.kind), "reason": reason}
        self.record(events.ParticipantDisconnected, **about, attributes=attributes, sip=sip(attributes))
        self._tell(lambda backend: backend.participant_disconnected(who.identity, reason))

    def _on_attributes(self, room: rtc.Room, changed: dict[str, str], who: rtc.Participant) -> None:
        # The agent's own say what `agent_state_changed` has said.
        if who.identity != room.local_participant.identity:
            self.record(events.ParticipantAttributesChanged, identity=who.identity, changed=dict(changed))

    def _on_metadata(self, who: rtc.Participant, metadata: str) -> None:
        self.record(events.ParticipantMetadataChanged, identity=who.identity, metadata=metadata)

    def _on_name(self, who: rtc.Participant, name: str) -> None:
        self.record(events.ParticipantNameChanged, identity=who.identity, name=name)

    def _on_own_track(self, room: rtc.Room, track: Any) -> None:
        self._on_track(events.LocalTrackPublished, room.local_participant, track)

    def _on_track(self, kind: type[events.TrackEvent], who: rtc.Participant, track: Any) -> None:
        self.record(
            kind,
            identity=who.identity,
            track=track.sid,
            name=track.name,
            kind=rtc.TrackKind.Name(track.kind).removeprefix("KIND_").lower(),
            source=rtc.TrackSource.Name(track.source).removeprefix("SOURCE_").lower(),
        )

    def _on_failed(self, who: rtc.RemoteParticipant, sid: str) -> None:
        self.record(events.TrackSubscriptionFailed, identity=who.identity, track=sid)

    def _on_data(self, packet: rtc.DataPacket) -> None:
        sender = packet.participant.identity if packet.participant else ""
        self.record(events.DataReceived, topic=packet.topic or "", size=len(packet.data), sender=sender)

    def _on_dtmf(self, key: rtc.SipDTMF) -> None:
        identity = key.participant.identity if key.participant else ""
        self.record(events.SipDtmfReceived, identity=identity, digit=key.digit, code=key.code)

    def _on_quality(self, who: rtc.Participant | None, quality: Any) -> None:
        if who is not None:
            name = str(quality.name).removeprefix("QUALITY_").lower()
            self.record(events.ConnectionQualityChanged, identity=who.identity, quality=name)

    def _on_speakers(self, speakers: Sequence[rtc.Participant]) -> None:
        self.record(events.ActiveSpeakersChanged, identities=tuple(who.identity for who in speakers))

    def _on_reconnecting(self) -> None:
        metrics.RECONNECTS.add()
        self.record(events.Reconnecting)

    # The session.

    def watch_session(self, session: AgentSession[Any]) -> None:
        """Listen to a session; before it is started."""
        on = cast("Callable[[str, Callable[[Any], None]], Any]", session.on)
        on("user_state_changed", lambda event: self._on_state(events.UserStateChanged, event))
        on("agent_state_changed", lambda event: self._on_state(events.AgentStateChanged, event))
        on("user_input_transcribed", self._on_transcribed)
        on("conversation_item_added", lambda event: self._on_item(session, event.item))
        on("speech_created", self._on_speech)
        on("agent_false_interruption", lambda event: self._on_false(event.resumed))
        on("user_transcription_timeout", lambda event: self._on_timeout(event.speech_duration))
        on("tool_execution_updated", lambda event: self._on_tool(event.update))
        on("error", self._on_error)
        on("close", lambda event: self._on_close(event.reason.value))

    def _on_state(self, kind: type[events.UserStateChanged | events.AgentStateChanged], event: Any) -> None:
        self.record(kind, old_state=event.old_state, new_state=event.new_state)

    def _on_transcribed(self, event: Any) -> None:
        about = {"is_final": event.is_final, "language": str(event.language or "")}
        self.record(events.UserInputTranscribed, transcript=event.transcript, **about)

    def _on_item(self, session: AgentSession[Any], item: Any) -> None:
        if not isinstance(item, llm.ChatMessage):
            return
        self._question += item.role == "user"
        self._messages = cast("list[dict[str, Any]]", cast(Any, session.history).to_provider_format("openai")[0])
        self.record(events.ConversationItemAdded, role=item.role, interrupted=item.interrupted)

    def _on_speech(self, event: Any) -> None:
        self.record(events.SpeechCreated, source=event.source, user_initiated=event.user_initiated)

    def _on_false(self, resumed: bool) -> None:
        metrics.BARGE_INS.add(kind="false")
        self.record(events.AgentFalseInterruption, resumed=resumed)

    def _on_timeout(self, seconds: float) -> None:
        metrics.UNHEARD.add()
        self.record(events.UserTranscriptionTimeout, speech_duration=seconds)

    def _on_tool(self, update: Any) -> None:
        if update.type == "tool_call_started":
            used = update.function_call
            self._tools[used.call_id] = (used.name, time.monotonic())
            self.record(events.ToolExecutionUpdated, update=update.type, call_id=used.call_id, name=used.name)
        elif update.type == "tool_call_ended":
            name, began = self._tools.pop(update.call_id, ("", time.monotonic()))
            said = {"done": "ok"}.get(update.status, update.status)
            # The guard of tools knows better: LiveKit sees an answer even where it says that the tool was late.
            outcome = self._outcomes[name].popleft() if self._outcomes[name] else said
            metrics.TOOLS.add(outcome=one_of(metrics.TOOL_OUTCOMES, str(outcome)))
            about = {"call_id": update.call_id, "name": name, "duration": round(time.monotonic() - began, 3)}
            self.record(events.ToolExecutionUpdated, update=update.type, **about, outcome=outcome)

    def _on_error(self, event: Any) -> None:
        cause = getattr(event.error, "error", event.error)
        kind = type(getattr(cause, "__cause__", None) or cause).__name__
        recoverable = bool(getattr(event.error, "recoverable", False))
        source = str(getattr(event.error, "type", type(event.error).__name__)).removesuffix("_error")
        self.record(events.Error, source=source, error=kind, recoverable=recoverable)

    def _on_close(self, reason: str) -> None:
        self.record(events.Close, reason=self.reason or reason, close_reason=reason)

    # The backend.

    def _tenant(self, others: Sequence[rtc.RemoteParticipant]) -> str:
        """Return whose call it is: who takes one over has no dispatch, and reads it in the caller's token."""
        callers = [tenant_of(self._metadata, who.attributes) for who in others]
        return next(filter(None, callers), tenant_of(self._metadata))

    def _tell_usage(self, question: str = "") -> None:
        used, self._used = self._used, {}
        for (role, model), usage in used.items():
            self._tell(lambda backend, of=(role, model, usage): backend.usage(*of, question))

    def _tell(self, what: Callable[[Backend], object]) -> None:
        """Tell the backend; whatever goes wrong there, the call goes on."""
        if self._backend is None:
            return
        try:
            what(self._backend)
        except Exception as error:  # a record that cannot be made must not hurt the call
            logger.error("call %s: a record was not made: %s", self._call, type(error).__name__)


def kind_name(kind: rtc.ParticipantKind.ValueType) -> str:
    """Return a participant's kind as tokens name it: standard, sip, agent, egress, ingress, connector, bridge."""
    return rtc.ParticipantKind.Name(kind).removeprefix("PARTICIPANT_KIND_").lower()


def reason_name(reason: rtc.DisconnectReason.ValueType | None) -> str:
    """Return LiveKit's name of a reason."""
    return rtc.DisconnectReason.Name(reason or rtc.DisconnectReason.UNKNOWN_REASON)


def sip(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return what LiveKit says of a telephone line, by its names without `sip.`: phoneNumber, trunkPhoneNumber, ..."""
    return {key.removeprefix(events.SIP): value for key, value in attributes.items() if key.startswith(events.SIP)}
