"""What the call plane records: turns by outcome, stages, ends, and what waits in the outbox."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import metrics
from agent.outbox.courier import Courier
from agent.outbox.sqlite import SqliteStore
from agent.outbox.store import Entry
from serve.errors import Unavailable
from serve.records import AnyRecord, Conversation
from tests.counted import Counted, counted

pytestmark = pytest.mark.unit

__all__ = ["counted"]

STAGES = {"endpointing_ms": 300, "stt_ms": 120, "llm_first_token_ms": 250, "tts_first_byte_ms": None}
TURN: dict[str, Any] = {
    **{"answer": "Yes.", "interrupted": False, "typed": False, "error": None, "voice_to_voice_ms": 900},
    "stages": STAGES,
}


def test_a_turn_is_counted_with_its_stages(counted: Counted) -> None:
    metrics.count_turn(TURN)
    assert counted.all(metrics.TURNS, outcome="answered") == [1]
    assert counted.all(metrics.VOICE_TO_VOICE) == [0.9]
    assert counted.all(metrics.STAGE_SECONDS, stage="stt") == [0.12]
    assert counted.all(metrics.STAGE_SECONDS, stage="tts_first_byte") == [], "what is not known is no 0"
    metrics.count_turn({**TURN, "typed": True})
    assert (counted.all(metrics.VOICE_TO_VOICE), counted.all(metrics.TYPED_TO_VOICE)) == ([0.9], [0.9])


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"interrupted": True}, "interrupted"),
        ({"answer": ""}, "unanswered"),
        ({"error": "EngineFailed", "answer": ""}, "failed"),
    ],
)
def test_outcomes(counted: Counted, changed: dict[str, Any], outcome: str) -> None:
    metrics.count_turn({**TURN, **changed})
    assert counted.all(metrics.TURNS, outcome=outcome) == [1]
    assert bool(counted.all(metrics.BARGE_INS, kind="true")) == (outcome == "interrupted")


def test_reasons_that_somebody_writes_are_other(counted: Counted) -> None:
    metrics.count_end("caller left", 61.0)
    metrics.count_end("because tenant X says so", 1.0)
    assert counted.all(metrics.CALLS_ENDED, reason="caller left") == [1]
    assert counted.all(metrics.CALLS_ENDED, reason="other") == [1]
    assert counted.all(metrics.CALL_LENGTH) == [61.0, 1.0]


class Away:
    """A backend that takes nothing until it is there."""

    here = False

    async def deliver(self, records: Sequence[AnyRecord]) -> None:
        if not self.here:
            raise Unavailable("away")


async def test_what_waits_in_the_outbox_is_shown_with_its_age(counted: Counted, tmp_path: Path) -> None:
    store, sink = SqliteStore(tmp_path / "outbox.db"), Away()
    old = Conversation(id="1", call="room", epoch=1, sequence=1, time=time.time() - 90, messages=[], reason="")
    entries = [
        Entry(str(n), "room", old.model_copy(update={"id": str(n)}).model_dump_json().encode()) for n in range(3)
    ]
    await store.append(entries)
    courier = Courier(store, sink, "me")
    with pytest.raises(Unavailable):
        await courier.once()
    assert counted.all(metrics.OUTBOX_WAITING) == [3]
    assert counted.all(metrics.OUTBOX_AGE)[0] == pytest.approx(90, abs=5)
    sink.here = True
    assert await courier.once() == 3
    assert await courier.once() == 0
    assert (counted.all(metrics.OUTBOX_WAITING)[-1], counted.all(metrics.OUTBOX_AGE)[-1]) == (0, 0.0)
    assert counted.all(metrics.OUTBOX_DELIVERED) == [3]
    await courier.aclose()
