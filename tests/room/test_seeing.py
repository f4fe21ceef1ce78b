"""A real call as those see it who run the cluster: a trace for each turn, one story from all logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from cluster import logs, status
from cluster.bench.collector import Seen
from cluster.call import Utterance, place, report
from cluster.top import Top
from cluster.top_view import view
from serve.contracts import Role
from tests.conftest import Parley

pytestmark = [pytest.mark.room, pytest.mark.timeout(120)]

QUESTION = "Hello, can you hear me?"

METHODS: tuple[tuple[Role, str], ...] = (("stt", "listen"), ("llm", "chat"), ("tts", "speak"))


async def test_each_turn_is_a_trace_and_says_nothing_of_what_was_said(
    parley: Parley, say: Callable[[str], Utterance]
) -> None:
    await parley.until_calls(0)
    before = {span.id for span in parley.collector.spans}
    result = report(await place(parley.page, [say(QUESTION)], turns=2))
    assert result["summary"]["failed"] == 0, result
    await parley.until_calls(0)

    def whole(spans: list[Seen]) -> bool:
        roots = {span.trace for span in spans if span.id not in before and "parley.turn" in span.attributes}
        return len(roots) == 2 and all({"replica speak", "replica chat"} <= names(spans, root) for root in roots)

    spans = [span for span in parley.collector.wait(whole, 20) if span.id not in before]
    told = result["calls"][0]["turns"]
    for number in range(1, 3):
        root = next(span for span in spans if span.attributes.get("parley.turn") == number)
        assert (root.name, root.parent) == ("turn", "")
        mine = [span for span in spans if span.trace == root.trace]
        known = {span.id: span for span in mine}
        assert all(span.parent in known for span in mine if span is not root), "every other span has its parent"
        assert {span.name for span in mine if span.parent == root.id} >= {
            *("room speech", "endpointing", "room playout", "stt listen", "llm chat", "tts speak")
        }
        for role, method in METHODS:
            served = next(span for span in mine if span.name == f"replica {method}")
            asked = known[served.parent]
            assert asked.name == f"{role} {method}"
            assert served.process != asked.process == root.process, "the replica is another process"
            assert asked.began <= served.began <= served.ended
            assert served.attributes["parley.model"] == parley.routes.model(role)
        assert "first token" in next(span for span in mine if span.name == "replica chat").events
        assert "first byte" in next(span for span in mine if span.name == "replica speak").events
        assert 0 < root.attributes["parley.voice_to_voice_ms"] < 20_000
        assert {"end of speech", "first sound"} <= set(root.events)
    calls = {span.attributes["parley.call"] for span in spans if span.name == "turn"}
    assert len(calls) == 1
    traces = {span.attributes["parley.turn"]: span.trace for span in spans if "parley.turn" in span.attributes}
    check_logs(calls.pop(), traces, parley)
    everything = " ".join(str(span) for span in spans).lower()
    for turn in told:
        for words in (turn["heard"], turn["answer"]):
            assert words.lower() not in everything
    for secret in (*parley.secrets.values(), parley.keys.secret):
        assert secret.lower() not in everything


async def test_a_call_is_seen_while_it_goes_on(parley: Parley, say: Callable[[str], Utterance]) -> None:
    await parley.until_calls(0)
    call = asyncio.create_task(place(parley.page, [say(QUESTION)], turns=2))
    looking = Top(status.current())
    try:
        await parley.until_calls(1)
        seen = await asyncio.to_thread(looking.look)
        while not seen["calls"]["list"]:  # agents tell the list a moment later
            assert not call.done()
            seen = await asyncio.to_thread(looking.look)
        await call
        later = seen
        async with asyncio.timeout(25):
            while later["calls"]["slots"] < parley.profile_calls:
                await asyncio.sleep(1)  # exporters tell what they know every 10 s, and no event of it
                later = await asyncio.to_thread(looking.look)
    finally:
        looking.close()
    assert seen["trouble"] == []
    (row,) = seen["calls"]["list"]
    assert row["assistant"] == "default"
    assert row["seconds"] < 30
    assert {each["role"]: each["status"] for each in seen["models"]} == dict.fromkeys(("stt", "llm", "tts"), "RUNNING")
    assert {each["name"] for each in seen["applications"]} == {"agent", "dispatcher", "api"}
    assert later["node"]["memory_total"] > later["node"]["memory_used"] > 0
    assert later["node"]["cpus"] >= 1
    assert all(each["slots"] > 0 for each in later["models"])
    assert seen["money"] is not None
    console = Console(width=140, record=True, file=StringIO())
    console.print(view(seen))
    assert row["id"] in console.export_text()


def names(spans: list[Seen], trace: str) -> set[str]:
    return {span.name for span in spans if span.trace == trace}


def check_logs(call: str, traces: dict[int, str], parley: Parley) -> None:
    """See that all processes' lines of a call are found, and say whose they are."""
    lines = logs.story(call, [parley.logs.parents[2] / "logs", parley.logs])
    assert [line.time for line in lines] == sorted(line.time for line in lines)
    assert {line.source.split()[0] for line in lines} >= {"dispatcher/Dispatcher", "agent/Agent"}
    turns = [line for line in lines if line.message.startswith(f"call {call}: turn ")]
    assert {line.turn: line.trace_id for line in turns} == traces
    assert all(line.more["stages"].keys() >= {"stt_ms"} for line in turns)
