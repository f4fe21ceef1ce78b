"""One call, from the first sound to the last: what happens in which order is all here.

    caller's audio -> Ears (voice activity, speech to text) -> the turn is over? -> LanguageModel -> Pieces -> Voice
    -> Mouth -> caller's ears

livekit-agents' AgentSession decides turns, barge-in and preemptive generation; the parts are ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from livekit import rtc
from livekit.agents import NOT_GIVEN, AgentSession, inference, llm, utils
from livekit.agents.types import ATTRIBUTE_AGENT_STATE
from livekit.agents.voice import io, room_io

from agent.adapters import LanguageModel, Recogniser, SharedVad, Voice
from agent.assistants import Assistants, wanted
from agent.care import Care
from agent.carrier import MOVE_TOPIC
from agent.config import CallRequest, Turns
from agent.continuity import Continuity, history
from agent.documents import Document
from agent.ears import SAMPLE_RATE, WINDOW_MS, Ears
from agent.files import Files, Status
from agent.keeper import Keeper
from agent.keypad import Keypad
from agent.livekit import hang_up
from agent.mouth import Mouth
from agent.people import People
from agent.reception import Reception
from agent.recorder import Recorder
from agent.traces import TurnTraces
from agent.turns import TurnLog
from serve import logs
from serve.client import Models
from serve.contracts import RequestContext

logger = logging.getLogger("ray.serve.parley")

CONNECT_SECONDS = 10.0
VOICE_RATE = 24000
"""Hz of the agent's track where the voice does not say its own."""

MOVE_SECONDS = 20.0
"""How long a call that is to move waits for the end of a turn."""

SETTLE_SECONDS = 2.0
"""How long what was said last may take to become a question."""

TOLD = ("voice_to_voice_ms", "stages", "models", "interrupted", "typed", "retries", "fallback", "error")
"""What a turn's log line has: no words."""

Event = dict[str, Any]


class Call:
    """A call in progress on this replica.

    Args:
        request: Which room, and how to get in.
        models: The models it talks to.
        assistants: Who may answer.
        turns: How turns are taken.
        keeper: Keeps what another replica needs to go on, and has what one before has left.
        recorder: Is told what happens.
    """

    def __init__(
        self,
        request: CallRequest,
        models: Models,
        assistants: Assistants,
        turns: Turns,
        keeper: Keeper,
        recorder: Recorder,
    ) -> None:
        self.emit: Callable[[Event], None] = lambda event: None
        """Told the call's events, each a JSON object with a `type`."""
        self.let_go: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        """Gives the lease up for another replica."""
        self.recorder = recorder
        recorder.emit = lambda event: self.emit(event)
        models.used = recorder.used
        self.traces = TurnTraces(request.room)
        """Of its turns."""
        models.span = lambda role, method, asked: self.traces.span(role, method, asked)
        self.identity = request.identity
        self.keep: Callable[[str, Document, bytes], None] = lambda file, document, data: None
        """Given the id of each file that came over the room, what it is, and its bytes."""
        self.captions: io.TextOutput | None = None
        """Written what the assistant says, in step with the voice, for those who follow the call."""
        self.reason = "ended"
        self._request = request
        self._models = models
        self._assistants = assistants
        self._hang_up = False
        self._turns = turns
        self._keeper = keeper
        self._context = RequestContext(request.room)
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._files: Files | None = None
        self._about = logs.About()

    async def run(self) -> None:
        """Carry the call until the caller leaves, the room closes, or `end` is called."""
        room, left = rtc.Room(), self._keeper.left
        self._about = logs.begin(self._request.room)
        self.recorder.entrypoint(self._request.call, self.identity, resumed=left is not None)
        if left is not None:
            self.recorder.resumed(left.history, open_question=left.question is not None)
        self.recorder.watch_room(room)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await room.connect(self._request.url, self._request.token, _room_options())
            room.on("disconnected", self._on_closed)
            self.recorder.connect(room)
            async with utils.http_context.open():
                await self._converse(room)
        finally:
            try:
                await self._keeper.aclose()
                await utils.aio.cancel_and_wait(*self._tasks)
                async with asyncio.timeout(CONNECT_SECONDS):
                    await room.disconnect()
                    if self._hang_up:
                        await hang_up(self._request.room)
            finally:
                self.recorder.cleanup(self.reason)

    def end(self, reason: str) -> None:
        """End the call; `run` returns once everything is freed."""
        if not self._over.is_set():
            self.reason = self.recorder.reason = reason
            self._over.set()

    def hang_up(self, reason: str) -> None:
        """End the call, and send away whoever is in the room."""
        self._hang_up = True
        self.end(reason)

    async def _converse(self, room: rtc.Room) -> None:
        left = self._keeper.left
        self._assistants.tenant = wanted(self._request.metadata, room.remote_participants.values())[1]
        if left and left.assistant:
            name = await self._assistants.again(left.assistant, left.staff)
        else:
            name = await self._assistants.of(self._request.metadata, room)
        assistant = self._assistants[name]
        self._about.tenant = self._assistants.tenant
        self.traces.about |= {"parley.assistant": name, "parley.tenant": self._assistants.tenant}
        self._models.choose(assistant.models)
        hearing, speaking = await asyncio.gather(
            self._models.capabilities("stt", self._context), self._models.capabilities("tts", self._context)
        )
        model = LanguageModel(self._models, self._context, assistant)
        ears = Ears(
            self._models,
            self._request.room,
            self._turns,
            streaming=hearing.streaming,
            language=assistant.language,
            keeper=self._keeper,
        )
        rate = speaking.sample_rate or VOICE_RATE
        voice = Voice(self._models, self._context, assistant, rate)
        mouth = Mouth(room, rate)
        ears.answering = lambda: mouth.unfinished
        session: AgentSession[None] = AgentSession(
            stt=Recogniser(self._models, self._context),
            vad=SharedVad(ears),
            llm=model,
            tts=voice,
            turn_handling=_turn_handling(self._turns),
            aec_warmup_duration=None,
            user_away_timeout=None,
            # Who has hung up says nothing more: the line is free at once.
            session_close_transcript_timeout=0.1,
        )
        ears.interrupt = lambda: _interrupt(session)
        self.recorder.watch_session(session)
        people = People(room, self.end)
        keypad = Keypad(session, lambda: people.served)
        care = Care(session, assistant, self.end)
        used = self._tool_used
        reception = Reception(self._assistants, self._models, model, voice, ears, care, room, self._context, used)
        reception.changed = lambda name: self._keeper.note(assistant=name, staff=self._assistants.kept(name))
        spans, before = {"llm": model.span, "tts": voice.span}, left.turns if left else 0
        turns = TurnLog(session, self._models, spans, lambda: model.called, before)
        turns.on_turn = lambda turn: self._publish(room, turn)
        session.on("conversation_item_added", lambda event: self._on_said(turns, event.item))
        # While the answer is still heard, the model reads what the next prompt will begin with.
        session.on("conversation_item_added", lambda _: model.read_ahead(session.current_agent.chat_ctx))
        continuity = Continuity(self._keeper, session, model, voice, mouth)
        session.on("conversation_item_added", lambda event: continuity.said(event.item))
        session.on("conversation_item_added", lambda event: reception.heard(event.item))
        session.on("agent_state_changed", lambda event: continuity.spoken(event.new_state, care.asides))
        session.on("close", lambda event: self.end(f"{event.reason.value}"))
        session.on("error", lambda event: self._failed(care, turns, event.error))
        room.on("sip_dtmf_received", keypad.pressed)
        room.on("data_received", lambda packet: self._on_data(session, continuity, mouth, packet))
        # A LiveKit that was started again knows nothing of what the page shows.
        room.on("reconnected", lambda: self._spawn(_tell_state(room, session)))
        began = left.began if left and left.began else time.time()
        self._keeper.note(assistant=name, began=began, staff=self._assistants.kept(name))
        files = self._files = self._filing(room, model, care)
        try:
            session.output.audio = mouth
            await asyncio.gather(
                mouth.publish(),
                session.start(
                    await reception.seat(name, history(left), can=(hearing, speaking)),
                    room=room,
                    room_options=_io_options(people.served, continuity.typed, self.captions),
                    record=False,
                    session_host=False,
                ),
            )
            people.start(session)
            self.recorder.process(name)
            care.start(time.time() - began)
            if assistant.greeting and not (left and left.greeted):
                session.say(assistant.greeting)
            self._keeper.note(greeted=True)
            if left and left.question is not None:
                self.traces.asked(left.question)
                continuity.go_on(turns, left)
            reception.joined = lambda: model.read_ahead(session.current_agent.chat_ctx)
            if not reception.joining:
                reception.joined()
            await self._over.wait()
        finally:
            self._hang_up = self._hang_up or care.hang_up
            await asyncio.gather(care.aclose(), people.aclose(), keypad.aclose(), files.aclose())
            await continuity.aclose()
            await session.aclose()
            self.traces.close()
            await reception.aclose()
            await model.aclose()
            await mouth.aclose()

    async def file(self, name: str, data: bytes) -> Status | None:
        """Take a file that came through the API; None: the call has not begun yet."""
        return None if self._files is None else await self._files.take(name, data)

    def _filing(self, room: rtc.Room, model: LanguageModel, care: Care) -> Files:
        """Take files from now on; those that the replica before had are here again."""
        library = model.library
        if self._keeper.left:
            library.restore(self._keeper.left.files)

        async def sees() -> bool:
            return (await self._models.capabilities("llm", self._context)).images

        files = Files(
            room,
            library,
            sees=sees,
            say=care.say,
            changed=lambda: self._keeper.note(files=library.json()),
            received=self.recorder.file,
            keep=self.keep,
        )
        files.open()
        return files

    def _on_closed(self, reason: rtc.DisconnectReason.ValueType) -> None:
        if reason in (rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.PARTICIPANT_REMOVED):
            self.end("room closed")
        elif reason == rtc.DisconnectReason.ROOM_CLOSED:
            # LiveKit closes a room by itself when everybody has been away for a while.
            self.end("caller lost")
        else:
            self.end("connection lost")

    def _on_data(
        self, session: AgentSession[None], continuity: Continuity, mouth: Mouth, packet: rtc.DataPacket
    ) -> None:
        """Take what LiveKit's API sends, which no participant can: the wish that this call moves."""
        if packet.topic == MOVE_TOPIC and packet.participant is None:
            self._spawn(self._move(session, continuity, mouth))

    async def _move(self, session: AgentSession[None], continuity: Continuity, mouth: Mouth) -> None:
        """Let the call go at the end of a turn, for another replica to go on."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + MOVE_SECONDS
        while clock() < deadline:
            quiet = session.agent_state == "listening" and session.user_state != "speaking"
            # What has been said and is not understood yet may be a question, or a cough.
            if quiet and not continuity.open and self._keeper.silence > SETTLE_SECONDS:
                break
            await asyncio.sleep(0.05)  # three states, of which none tells when all are so
        # Whoever comes next begins at once, while this one is still put away: so nothing is said here from now on.
        mouth.pause()
        await self._keeper.aclose()
        await self.let_go()
        self.end("moved")
        self.recorder.moved()

    def _failed(self, care: Care, turns: TurnLog, error: Any) -> None:
        """A model failed for good on this turn: say so, rather than be silent."""
        cause = getattr(error, "error", error)
        name = type(cause.__cause__ or cause).__name__
        logger.error("call %s: %s failed with %s", self._request.room, type(error).__name__, name)
        turns.fail(name)
        if isinstance(error, llm.LLMError):
            care.say("apology")

    def _on_said(self, turns: TurnLog, item: Any) -> None:
        """A message is in the conversation: the caller's begins a turn."""
        self.traces.said(item)
        if getattr(item, "role", "") == "user":
            self._about.turn, self._about.trace = turns.count + 1, self.traces.trace

    def _publish(self, room: rtc.Room, turn: Event) -> None:
        """Tell the dispatcher and the page what a turn was and how long it took."""
        self._keeper.note(turns=turn["turn"])
        self._about.turn = turn["turn"]
        about = {name: turn[name] for name in TOLD if turn[name] is not None}
        logger.info("call %s: turn %d", self._request.room, turn["turn"], extra=about)
        if trace := self.traces.finished(turn):
            turn["trace"] = trace
        self.recorder.turn(turn)
        self.emit({"type": "turn", **{key: value for key, value in turn.items() if key not in ("heard", "answer")}})
        self._spawn(room.local_participant.send_text(json.dumps(turn), topic="parley.turn"))

    def _tool_used(self, use: dict[str, Any]) -> None:
        self.traces.tool(use)
        self.recorder.tool_used(use)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("a task of the call failed: %s", type(error).__name__)


async def _tell_state(room: rtc.Room, session: AgentSession[None]) -> None:
    async with asyncio.timeout(CONNECT_SECONDS):
        await room.local_participant.set_attributes({ATTRIBUTE_AGENT_STATE: session.agent_state})


def _interrupt(session: AgentSession[None]) -> None:
    """End the answer for good, so that its models stop; what only pauses goes on being made."""
    speech = session.current_speech
    if speech is not None and speech.allow_interruptions and not speech.interrupted:
        session.interrupt()


def _room_options() -> rtc.RoomOptions:
    """One peer connection instead of two, and no look-ups of STUN servers that a cluster does not need."""
    options = rtc.RoomOptions(auto_subscribe=True)
    options.single_peer_connection = True
    return options


def _io_options(caller: str | None, typed: Callable[..., Any], captions: io.TextOutput | None) -> room_io.RoomOptions:
    """Listen to one caller; who leaves, and who is listened to then, is `People`'s to say."""
    return room_io.RoomOptions(
        audio_input=room_io.AudioInputOptions(
            sample_rate=SAMPLE_RATE, frame_size_ms=WINDOW_MS, auto_gain_control=False, pre_connect_audio=False
        ),
        text_input=room_io.TextInputOptions(text_input_cb=typed),
        audio_output=False,
        text_output=room_io.TextOutputOptions(sync_transcription=True, next_in_chain=captions),
        participant_identity=caller or NOT_GIVEN,
        close_on_disconnect=False,
    )


def _turn_handling(turns: Turns) -> Any:
    return {
        "turn_detection": inference.TurnDetector(version="v1-mini") if turns.detector else "vad",
        "endpointing": {"min_delay": turns.min_delay, "max_delay": turns.max_delay},
        "interruption": {
            "mode": "vad",
            "min_duration": turns.interrupt_after,
            "false_interruption_timeout": turns.resume_after,
        },
        "preemptive_generation": {
            "enabled": turns.preemptive,
            "preemptive_tts": turns.preemptive,
            "max_speech_duration": 30.0,
            "max_retries": 8,
        },
    }
