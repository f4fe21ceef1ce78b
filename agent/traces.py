"""The traces of a call: one for each turn, from the first word of the question to the last sound of the answer.

The span `turn` is at the top. Below it: what LiveKit's room and the session tell (`room speech`, `endpointing`, `room
playout`), each request to a model (`stt transcribe`, `llm chat`, `tts speak`), with the replica's side of it below,
tools, and the database's transaction that stores the turn. No words, no audio, no names of people.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serve import logs, tracing
from serve.contracts import ChatRequest, ListenRequest, Role

if TYPE_CHECKING:
    from opentelemetry.trace import Span

STALE_SECONDS = 10.0
"""What was heard so long ago, and has become no question, is no part of the next one."""


class TurnTraces:
    """Begins and ends the spans of one call's turns; does nothing where there is no tracer.

    A question is heard, and its answer begun, before it is certain that it is one: so the next turn's span may be open
    beside the one that is being answered.

    Args:
        call: The room's name.
        on: The agent's `traces`.
    """

    def __init__(self, call: str, *, on: bool = True) -> None:
        self.about: dict[str, tracing.Value | None] = {"parley.call": call}
        """Of every turn: the call, the assistant, the tenant."""
        self._on = on and tracing.tracer() is not None
        self._next: Span | None = None
        self._now: Span | None = None
        self._answered: Span | None = None
        """The one that the last answer is for, or was."""
        self._question = ""
        self._heard_at = 0.0

    @property
    def trace(self) -> str:
        """Id of the trace of the question that is being answered; "" where none is."""
        return logs.trace_id(tracing.traceparent(self._now))

    def span(self, role: Role, method: str, request: Any) -> Span | None:
        """Begin the span of a request to a model; None: it belongs to no turn."""
        if not self._on:
            return None
        turn = self._turn_of(role, method, request)
        if turn is None or (isinstance(request, ListenRequest) and not request.last):
            return None
        return tracing.begin(f"{role} {method}", turn, {"parley.role": role})

    def tool(self, use: Mapping[str, Any]) -> None:
        """Add a tool's use, which has just ended, as `agent/tools.py` says."""
        turn = self._now or self._answered
        if self._on and turn is not None and turn.is_recording():
            began = time.time() - use["ms"] / 1000
            tracing.end(tracing.begin("tool", turn, {"parley.tool": use["tool"]}, began), use["outcome"])

    def said(self, item: Any) -> None:
        """A message is in the conversation: the caller's is a question."""
        if self._on and getattr(item, "role", "") == "user":
            self.asked(item.text_content or "")

    def asked(self, question: str) -> None:
        """What was said or typed is a question."""
        if not self._on:
            return
        if self._now is not None:
            tracing.end(self._now, "superseded")
        self._now, self._next = self._pending(), None
        self._question = question

    def finished(self, turn: Mapping[str, Any]) -> str:
        """End a turn's span, as `agent/turns.py` describes the turn; return it as a traceparent, "" where none is."""
        span, self._now, self._question = self._now or self._answered, None, ""
        if span is self._next:
            self._next = None
        if not self._on or span is None or not span.is_recording():
            return ""
        times, error = turn["times"], turn["error"]
        span.set_attributes({key: value for key, value in self._attributes(turn).items() if value is not None})
        self._room(span, turn, times)
        # What is told later, such as the database's part, has a parent that is over: that is how traces are.
        name = tracing.traceparent(span)
        tracing.end(span, error or ("interrupted" if turn["interrupted"] else "ok"))
        return name

    def close(self) -> None:
        """End what is open: the call leaves this replica."""
        for span in (self._next, self._now):
            tracing.end(span, "cancelled")
        self._on = False

    def _turn_of(self, role: Role, method: str, request: Any) -> Span | None:
        if role == "stt":
            return self._pending()
        if role == "llm" and isinstance(request, ChatRequest) and method == "chat":
            self._answered = self._answering(request)
        # Reading ahead, and all of speech, is for the answer that was asked for last.
        answered = self._answered
        return answered if answered is not None and answered.is_recording() else None

    def _answering(self, request: ChatRequest) -> Span:
        last = request.messages[-1] if request.messages else {}
        if self._now is not None and (last.get("role") != "user" or self._question in _text(last)):
            return self._now
        return self._pending()

    def _pending(self) -> Span:
        """Return the span of what is being said, which may become a question."""
        now = time.monotonic()
        if self._next is not None and self._next is not self._answered and now - self._heard_at > STALE_SECONDS:
            tracing.end(self._next, "unheard")
            self._next = None
        self._heard_at = now
        if self._next is None:
            self._next = tracing.begin("turn", None, self.about)
        assert self._next is not None
        return self._next

    def _attributes(self, turn: Mapping[str, Any]) -> dict[str, tracing.Value | None]:
        return {
            **self.about,
            "parley.turn": turn["turn"],
            "parley.typed": turn["typed"],
            "parley.interrupted": turn["interrupted"],
            "parley.voice_to_voice_ms": turn["voice_to_voice_ms"],
            "parley.retries": turn["retries"],
            "parley.words": turn["words"],
            **{f"parley.{stage}": value for stage, value in turn["stages"].items()},
            **{f"parley.model.{role}": model for role, model in turn["models"].items()},
        }

    def _room(self, span: Span, turn: Mapping[str, Any], times: Mapping[str, Any]) -> None:
        """Add what happened in the room, which is known once it is over."""
        question, answer, waited = times["question"], times["answer"], turn["stages"]["endpointing_ms"]
        if question and not turn["typed"]:
            self._past(span, "room speech", *question)
            span.add_event("end of speech", timestamp=tracing.nanoseconds(question[1]))
            if waited:
                self._past(span, "endpointing", question[1], question[1] + waited / 1000)
        if answer:
            self._past(span, "room playout", *answer)
            span.add_event("first sound", timestamp=tracing.nanoseconds(answer[0]))

    @staticmethod
    def _past(span: Span, name: str, since: float, to: float) -> None:
        tracing.end(tracing.begin(name, span, {}, since), at=to)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)  # pyright: ignore
    return str(content or "")
