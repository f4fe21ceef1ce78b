"""What the recorder makes of LiveKit's events: names, fields, and what leaves it in which direction."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import AgentSession, llm
from livekit.agents.voice import events as livekit

from agent.backend import Backend
from agent.events import Event
from agent.recorder import KEPT, UNTOLD, Recorder
from agent.state import Lease
from serve.contracts import Usage
from serve.errors import Unavailable
from serve.records import AnyRecord

pytestmark = pytest.mark.unit

LEASE = Lease("room", "replica", "dispatcher", 3, 10.0)


class Kept:
    """An outbox that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[AnyRecord] = []
        self.broken = False

    def put(self, record: AnyRecord) -> asyncio.Future[bool]:
        if self.broken:
            raise Unavailable("the outbox is away")
        self.records.append(record)
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done

    async def flush(self, seconds: float) -> int:
        return 0

    async def aclose(self) -> None: ...


class Heard(rtc.EventEmitter[str]):
    """Emits a session's events, with LiveKit's own emitter."""

    history = llm.ChatContext.empty()


def recording(session: Heard, outbox: Kept | None = None) -> Recorder:
    recorder = Recorder(LEASE, backend=Backend(outbox, "room", 3) if outbox else None, agent="parley")
    recorder.watch_session(cast("AgentSession[Any]", session))
    return recorder


def last(recorder: Recorder) -> dict[str, Any]:
    return {key: value for key, value in recorder.log[-1].json().items() if key not in ("call", "time", "sequence")}


async def test_a_tool_is_told_with_its_time_and_with_what_its_guard_knows() -> None:
    session = Heard()
    recorder = recording(session)
    call = llm.FunctionCall(call_id="1", name="weather", arguments='{"city": "secret"}')

    def update(what: Any) -> None:
        session.emit("tool_execution_updated", livekit.ToolExecutionUpdatedEvent(update=what))

    update(livekit.ToolCallStarted(function_call=call))
    assert last(recorder) == {
        **{"type": "tool_execution_updated", "update": "tool_call_started", "call_id": "1", "name": "weather"},
        **{"duration": None, "outcome": ""},
    }
    recorder.tool_used({"tool": "weather", "outcome": "late", "ms": 10})
    update(livekit.ToolCallEnded(id="1", call_id="1", message="secret", status="done"))
    assert (last(recorder)["outcome"], last(recorder)["duration"] >= 0) == ("late", True)
    update(livekit.ToolCallStarted(function_call=call))
    update(livekit.ToolCallEnded(id="1", call_id="1", message="secret", status="done"))
    assert last(recorder)["outcome"] == "ok"
    assert "secret" not in json.dumps([each.json() for each in recorder.log])


async def test_an_error_is_told_by_its_class() -> None:
    session = Heard()
    recorder = recording(session)
    try:
        raise RuntimeError("secret") from ConnectionError("secret")
    except RuntimeError as raised:
        failed = llm.LLMError(timestamp=1.0, label="llm", error=raised, recoverable=False)
    session.emit("error", livekit.ErrorEvent(error=failed, source=None))
    assert last(recorder) == {"type": "error", "source": "llm", "error": "ConnectionError", "recoverable": False}


async def test_what_was_said_goes_to_no_stream_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    session, told = Heard(), list[dict[str, Any]]()
    recorder = recording(session)
    recorder.emit = told.append
    with caplog.at_level(logging.DEBUG):
        event = livekit.UserInputTranscribedEvent(transcript="secret", is_final=True)
        session.emit("user_input_transcribed", event)
        recorder.turn({"turn": 1, "heard": "secret", "answer": "secret"})
        session.emit("conversation_item_added", livekit.ConversationItemAddedEvent(item=_message("user", "secret")))
        session.emit("close", livekit.CloseEvent(reason=livekit.CloseReason.USER_INITIATED))
    assert [each.type for each in recorder.log] == [
        "user_input_transcribed",
        "turn",
        "conversation_item_added",
        "close",
    ]
    assert [each["type"] for each in told] == ["close"]
    assert not {each["type"] for each in told} & UNTOLD
    assert "secret" not in caplog.text


async def test_a_question_that_two_replicas_told_has_one_id() -> None:
    ids: list[str] = []
    for resumed in (False, True):
        session, outbox = Heard(), Kept()
        recorder = recording(session, outbox)
        if resumed:
            before = [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Who?"}]
            recorder.resumed(before, open_question=True)
        else:
            session.emit("conversation_item_added", livekit.ConversationItemAddedEvent(item=_message("user", "Who?")))
        recorder.turn({"turn": 1, "heard": "Who?", "answer": "Me.", "interrupted": False, "typed": False})
        ids += [each.id for each in outbox.records if each.kind == "turn"]
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_usage_adds_up_until_it_is_told() -> None:
    outbox = Kept()
    recorder = recording(Heard(), outbox)
    recorder.used("llm", "small", Usage(prompt_tokens=10, completion_tokens=1))
    recorder.used("llm", "small", Usage(prompt_tokens=5, completion_tokens=2))
    recorder.cleanup("caller left")
    recorder.cleanup("caller left")
    (used,) = (each for each in outbox.records if each.kind == "usage")
    assert (used.model, used.used["prompt_tokens"], used.used["completion_tokens"]) == ("small", 15, 3)


async def test_what_a_turn_used_is_told_as_the_turns_own() -> None:
    outbox = Kept()
    recorder = recording(Heard(), outbox)
    recorder.used("tts", "own", Usage(characters=12))
    recorder.turn({"turn": 1, "heard": "a", "answer": "b"})
    recorder.used("tts", "own", Usage(characters=8))
    recorder.cleanup("caller left")
    (turn,) = (each for each in outbox.records if each.kind == "turn")
    used = [(each.turn, each.used["characters"]) for each in outbox.records if each.kind == "usage"]
    assert used == [(turn.id, 12), ("", 8)]


async def test_a_backend_that_fails_costs_the_call_nothing(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Kept()
    outbox.broken = True
    recorder = recording(Heard(), outbox)
    recorder.turn({"turn": 1, "heard": "secret", "answer": "secret"})
    recorder.cleanup("caller left")
    assert [each.type for each in recorder.log] == ["turn", "cleanup"]
    assert "a record was not made: Unavailable" in caplog.text
    assert "secret" not in caplog.text


async def test_the_log_is_bounded_and_records_are_json() -> None:
    recorder = recording(Heard())
    for _ in range(KEPT + 10):
        recorder.moved()
    assert len(recorder.log) == KEPT
    first: Event = recorder.log[0]
    assert json.loads(json.dumps(first.json())) == {
        **{"type": "call_moved", "call": "room", "time": first.time, "sequence": 11}
    }


def _message(role: Any, text: str) -> llm.ChatMessage:
    return llm.ChatMessage(role=role, content=[text])
