"""A call's events for the backend: in batches that are never large, without words or secret numbers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent import chronicle, events
from agent.chronicle import Chronicle
from agent.events import Event

pytestmark = pytest.mark.unit


def about(number: int) -> dict[str, Any]:
    return {"call": "room", "time": 1.0 + number, "sequence": number}


def state(number: int) -> Event:
    return events.UserStateChanged(**about(number), old_state="listening", new_state="speaking")


async def test_events_go_together_and_words_and_digits_stay_away() -> None:
    told: list[list[dict[str, Any]]] = []
    kept = Chronicle(told.append)
    kept.hear(state(1))
    kept.hear(events.UserInputTranscribed(**about(2), transcript="secret", is_final=True, language=""))
    kept.hear(events.Turn(**about(3), turn={"heard": "secret"}))
    kept.hear(events.SipDtmfReceived(**about(4), identity="caller", digit="7", code=7))
    kept.hear(events.ActiveSpeakersChanged(**about(5), identities=("caller",)))
    kept.hear(events.Cleanup(**about(6), reason="caller left", seconds=5.0))
    assert told == []
    kept.flush()
    kept.flush()
    assert [[event["event"] for event in batch] for batch in told] == [
        ["user_state_changed", "sip_dtmf_received", "cleanup"]
    ]
    assert told[0][1] == {"event": "sip_dtmf_received", "time": 5.0, "sequence": 4, "identity": "caller"}


async def test_a_flood_is_cut_and_counted() -> None:
    told: list[list[dict[str, Any]]] = []
    kept = Chronicle(told.append)
    for number in range(1000):
        changed = {"a": "x" * 5000, "b": "y"}
        kept.hear(events.ParticipantAttributesChanged(**about(number), identity="caller", changed=changed))
    kept.hear(events.ParticipantMetadataChanged(**about(1000), identity="caller", metadata="z" * 100_000))
    kept.flush()
    assert all(len(json.dumps(batch)) < chronicle.MOST_BYTES + 2048 for batch in told)
    assert sum(len(batch) for batch in told) == chronicle.MOST + 1
    assert told[-1][-1] == {"event": "left_out", "time": 200.0, "count": 801}
    kept.hear(state(1001))
    kept.flush()
    assert len(told[-1]) == 1, "afterwards all are kept again"


async def test_after_some_seconds_they_are_told_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "SECONDS", 0.01)
    told: asyncio.Queue[list[dict[str, Any]]] = asyncio.Queue()
    kept = Chronicle(told.put_nowait)
    kept.hear(state(1))
    async with asyncio.timeout(5):
        assert len(await told.get()) == 1
