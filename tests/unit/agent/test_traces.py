"""Which span belongs to which turn: questions that begin while the last answer is heard, early answers, tools."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from agent import traces
from agent.traces import TurnTraces
from cluster.bench.collector import Collector, Seen
from serve import tracing
from serve.contracts import ChatRequest, ListenRequest, Role, SpeechRequest, TranscribeRequest

pytestmark = [pytest.mark.unit, pytest.mark.timeout(30)]

HEARD, PIECE = TranscribeRequest(b"", 16000), ListenRequest("s", 1, b"", 16000)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Generator[Collector]:
    collector = Collector().start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    tracing.tracer.cache_clear()
    yield collector
    tracing.tracer.cache_clear()
    collector.stop()


def ask(turns: TurnTraces, role: Role, request: Any) -> None:
    method = {"stt": "transcribe", "llm": "chat", "tts": "speak"}[role]
    tracing.end(turns.span(role, method, request))


def question(text: str, *more: dict[str, Any]) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}, *more])


def turn(number: int, **other: Any) -> dict[str, Any]:
    return {
        **{"turn": number, "typed": False, "interrupted": False, "voice_to_voice_ms": 700, "retries": 0, "words": 3},
        **{"stages": {"endpointing_ms": 450, "stt_ms": 100}, "models": {"llm": "l"}, "error": None},
        "times": {"question": [1000.0, 1002.0], "answer": [1002.7, 1004.0]},
        **other,
    }


def tree(spans: list[Seen], root: Seen) -> list[str]:
    return sorted(span.name for span in spans if span.parent == root.id)


def test_a_question_that_begins_during_an_answer_is_the_next_turns(collector: Collector) -> None:
    turns = TurnTraces("room")
    ask(turns, "stt", HEARD)
    ask(turns, "llm", question("one"))  # ahead of the decision that the turn is over
    turns.asked("one")
    ask(turns, "tts", SpeechRequest("a"))
    ask(turns, "stt", HEARD)  # the caller talks over it
    ask(turns, "tts", SpeechRequest("b"))
    first = turns.finished(turn(1, interrupted=True))
    ask(turns, "llm", question("two"))
    turns.asked("two")
    ask(turns, "llm", question("two"))  # again: what was begun early is thrown away
    ask(turns, "tts", SpeechRequest("c"))
    second = turns.finished(turn(2))
    spans = collector.wait(lambda spans: sum(span.name == "turn" for span in spans) == 2, 5)
    one, two = sorted((span for span in spans if not span.parent), key=lambda span: span.attributes["parley.turn"])
    assert (one.name, two.name) == ("turn", "turn")
    assert (one.attributes["parley.outcome"], two.attributes["parley.outcome"]) == ("interrupted", "ok")
    room = ["endpointing", "room playout", "room speech"]
    assert tree(spans, one) == sorted([*room, "stt transcribe", "llm chat", "tts speak", "tts speak"])
    assert tree(spans, two) == sorted([*room, "stt transcribe", "llm chat", "llm chat", "tts speak"])
    assert one.trace != two.trace
    assert (first, second) == tuple(f"00-{span.trace}-{span.id}-01" for span in (one, two))
    playout = next(span for span in spans if span.name == "room playout" and span.parent == one.id)
    assert (playout.began, playout.ended) == pytest.approx((1002.7, 1004.0))


def test_tools_and_the_answer_after_them_stay_in_their_turn(collector: Collector) -> None:
    turns = TurnTraces("room")
    ask(turns, "llm", question("typed words"))
    turns.asked("typed words")
    turns.tool({"tool": "weather", "outcome": "ok", "ms": 20})
    ask(turns, "stt", HEARD)  # a cough meanwhile
    ask(turns, "llm", question("typed words", {"role": "tool", "content": "sun"}))
    turns.finished(turn(1, typed=True, times={"question": [1.0, 1.0], "answer": None}))
    turns.close()
    spans = collector.wait(lambda spans: sum(not span.parent for span in spans) == 2, 5)
    root, cough = sorted(
        (span for span in spans if not span.parent), key=lambda span: "parley.turn" not in span.attributes
    )
    assert tree(spans, root) == ["llm chat", "llm chat", "tool"]
    assert (tree(spans, cough), cough.attributes["parley.outcome"]) == (["stt transcribe"], "cancelled")
    assert "words" not in " ".join(str(value) for span in spans for value in span.attributes.values())


def test_noise_long_ago_is_no_part_of_a_question(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = TurnTraces("room")
    ask(turns, "stt", HEARD)
    monkeypatch.setattr(traces, "STALE_SECONDS", -1.0)
    ask(turns, "stt", HEARD)
    assert turns.span("stt", "listen", PIECE) is None  # a piece in the middle is no span
    spans = collector.wait(lambda spans: any(span.name == "turn" for span in spans), 5)
    assert next(span.attributes["parley.outcome"] for span in spans if not span.parent) == "unheard"


def test_without_a_collector_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.tracer.cache_clear()
    turns = TurnTraces("room")
    assert turns.span("stt", "transcribe", HEARD) is None
    turns.asked("one")
    assert turns.finished(turn(1)) == ""
    turns.close()
