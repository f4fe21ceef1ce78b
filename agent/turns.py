"""What each turn was and where its time went, as the agent sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from livekit.agents import AgentSession, llm

from agent.adapters import Span
from serve.client import Models

Turn = dict[str, Any]


class TurnLog:
    """Collects a session's turns; `on_turn` is told each once its answer has been heard or cut off.

    A turn is a JSON object: `turn` (1, 2, ...), `heard`, `answer` (as far as it was heard), `interrupted`, `typed`,
    `voice_to_voice_ms` (end of speech, or the typed message, to the first sound), `stages` (what each took),
    `timeline` (when each was, `from_ms` and `to_ms` after the end of speech: they overlap), `times` (seconds since 1970
    of the question and of the answer, as pairs; what is not known is null), `words` (how many the answer has), `models`
    (who answered, by role), `asked` (who was to answer, of the roles that were needed), `retries`, `fallback` (by role,
    who stood in, or null), `error`.

    Args:
        session: Whose turns.
        models: Say which model serves each role.
        spans: Of the last answer (`llm`) and the last speech (`tts`).
        called: Says whether the last answer calls tools: what was said before them is not all.
        before: Turns that replicas before this one have had.
    """

    def __init__(
        self,
        session: AgentSession[None],
        models: Models,
        spans: Mapping[str, Span],
        called: Callable[[], bool] = lambda: False,
        before: int = 0,
    ) -> None:
        self._spans, self._called = spans, called
        self._spoken: dict[str, Span] = {}
        self.on_turn: Callable[[Turn], None] = lambda turn: None
        self._models = models
        self._count = before
        self._asked: llm.ChatMessage | None = None
        self._asked_at = 0.0
        self._spoke_at = 0.0
        self._transcribed = False
        self._heard = ""
        session.on("user_input_transcribed", self._on_transcribed)
        session.on("agent_state_changed", self._on_state)
        session.on("conversation_item_added", lambda event: self._on_item(event.item))

    @property
    def count(self) -> int:
        """Turns that are over."""
        return self._count

    def go_on(self, question: str, heard: str) -> None:
        """Another replica took this question, and the caller has heard so much of its answer."""
        self._asked, self._asked_at = llm.ChatMessage(role="user", content=[question]), time.time()
        self._heard = heard

    def fail(self, error: str) -> None:
        """The turn in progress gets no answer."""
        if self._asked is not None:
            self._finish("", interrupted=False, metrics={}, error=error)

    def _on_transcribed(self, event: Any) -> None:
        self._transcribed = self._transcribed or bool(event.is_final and event.transcript)

    def _on_state(self, event: Any) -> None:
        if event.new_state == "speaking":
            self._spoke_at = time.time()
            # What is asked for from here on belongs to the next turn.
            self._spoken = {name: replace(span) for name, span in self._spans.items()}

    def _on_item(self, item: Any) -> None:
        if not isinstance(item, llm.ChatMessage):
            return
        if item.role == "user":
            if self._asked is not None and self._heard:
                self._finish("", interrupted=True, metrics={}, error=None)
            self._asked, self._asked_at = item, time.time()
        elif item.role == "assistant" and self._asked is not None and self._called() and not item.interrupted:
            self._heard = f"{self._heard} {item.text_content or ''}".strip()
        elif item.role == "assistant" and self._asked is not None:
            self._finish(item.text_content or "", interrupted=item.interrupted, metrics=dict(item.metrics), error=None)

    def _finish(self, answer: str, *, interrupted: bool, metrics: dict[str, Any], error: str | None) -> None:
        assert self._asked is not None
        asked: dict[str, Any] = dict(self._asked.metrics)
        typed = not self._transcribed
        self._count += 1
        service = self._models.service()
        whole = f"{self._heard} {answer}".strip()
        to_sound = metrics.get("e2e_latency")
        if to_sound is None and typed and self._spoke_at >= self._asked_at:
            to_sound = self._spoke_at - self._asked_at
        turn: Turn = {
            "turn": self._count,
            "heard": self._asked.text_content or "",
            "answer": whole,
            "interrupted": interrupted,
            "typed": typed,
            "voice_to_voice_ms": _ms(to_sound),
            "stages": {
                "endpointing_ms": _ms(asked.get("end_of_turn_delay")),
                "stt_ms": _ms(asked.get("transcription_delay")),
                "llm_first_token_ms": _ms(metrics.get("llm_node_ttft")),
                "tts_first_byte_ms": _ms(metrics.get("tts_node_ttfb")),
            },
            "timeline": self._timeline(asked, typed=typed),
            "times": self._times(asked, metrics, typed=typed),
            "words": len(whole.split()),
            "models": service.models,
            "asked": service.asked,
            "retries": service.retries,
            "fallback": service.fallbacks or None,
            "error": error,
        }
        self._asked, self._transcribed, self._spoken, self._heard = None, False, {}, ""
        self.on_turn(turn)

    def _times(self, asked: dict[str, Any], metrics: dict[str, Any], *, typed: bool) -> dict[str, Any]:
        """Return when the question was said or typed, and when its answer was heard: for subtitles of the call."""
        question = [self._asked_at, self._asked_at] if typed else _said(asked)
        return {"question": question, "answer": _said(metrics)}

    def _timeline(self, asked: dict[str, Any], *, typed: bool) -> list[dict[str, Any]]:
        """Return when each stage was, from the end of speech or the typed message on; what is not known is left out."""
        start = self._asked_at if typed else asked.get("stopped_speaking_at")
        if start is None:
            return []
        found: list[tuple[str, float, float]] = []
        if not typed:
            found += [
                (stage, 0.0, float(asked[metric]))
                for stage, metric in (("stt", "transcription_delay"), ("endpointing", "end_of_turn_delay"))
                if asked.get(metric) is not None
            ]
        found += [(name, span.asked - start, span.first - start) for name, span in self._spoken.items() if span.first]
        return [
            {"stage": stage, "from_ms": _ms(max(0.0, since)), "to_ms": _ms(to)} for stage, since, to in found if to > 0
        ]


def _said(metrics: dict[str, Any]) -> list[float] | None:
    since, to = metrics.get("started_speaking_at"), metrics.get("stopped_speaking_at")
    return None if since is None or to is None else [round(since, 3), round(max(since, to), 3)]


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
