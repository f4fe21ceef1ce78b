"""Metrics of the call plane: calls, turns and their stages, the outbox, the dispatchers.

docs/operations.md has them in a table; cluster/monitoring/ has their panels and alerts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serve.instruments import CALL_SECONDS, VOICE_SECONDS, Metric, one_of

REASONS = (
    *("caller left", "caller lost", "nobody came", "room closed", "connection lost", "the assistant ended the call"),
    *("silence", "maximum length", "error", "no dispatcher", "another replica took it over", "moved", "ended"),
)
"""Why calls end (docs/lifecycle.md); what else whoever ends one by the API says is `other`."""

TOOL_OUTCOMES = ("ok", "error", "late", "cancelled")

STAGES = {
    "endpointing": "endpointing_ms",
    "stt": "stt_ms",
    "llm_first_token": "llm_first_token_ms",
    "tts_first_byte": "tts_first_byte_ms",
}
"""A turn's stages, by their label and as `agent/turns.py` names them."""

CALLS_BEGUN = Metric("parley_calls_begun_total", "counter", "Calls that an agent took, those that it went on with not")
CALLS_RESUMED = Metric("parley_calls_resumed_total", "counter", "Calls that a replica went on with after another")
CALLS_ENDED = Metric(
    "parley_calls_ended_total", "counter", "Calls that left a replica, by docs/lifecycle.md's reasons", ("reason",)
)
CALL_LENGTH = Metric("parley_call_seconds", "histogram", "How long calls were on a replica", bounds=CALL_SECONDS)
CALLS_LIVE = Metric("parley_calls_live", "gauge", "Calls that a replica carries")
CALL_SLOTS = Metric("parley_call_slots", "gauge", "Calls that a replica may carry")
CALLS_BUSY = Metric("parley_calls_busy_total", "counter", "Callers who were told that all lines are busy, and wait")
CALLS_WAITING = Metric("parley_calls_waiting", "gauge", "Callers who wait for a free line")
CALLS_BROKEN = Metric(
    "parley_calls_broken_total",
    "counter",
    "Calls whose replica let go of them: lost, full, moved; given up: it broke each one that took it",
    ("outcome",),
)
DISPATCHERS = Metric(
    "parley_dispatchers_registered", "gauge", "1: this dispatcher is registered with LiveKit; 0: it is not"
)
RECONNECTS = Metric("parley_livekit_reconnects_total", "counter", "Times an agent lost LiveKit in a call")

TURNS = Metric(
    "parley_turns_total",
    "counter",
    "Turns by outcome: answered, interrupted (the caller talked over the answer), unanswered, failed",
    ("outcome",),
)
STAGE_SECONDS = Metric(
    "parley_turn_stage_seconds",
    "histogram",
    "What each stage of a turn took: endpointing, stt, llm_first_token, tts_first_byte; they overlap",
    ("stage",),
    VOICE_SECONDS,
)
VOICE_TO_VOICE = Metric(
    "parley_voice_to_voice_seconds",
    "histogram",
    "From the end of the caller's speech to the first sound of the answer, as the agent knows it",
    bounds=VOICE_SECONDS,
)
TYPED_TO_VOICE = Metric(
    "parley_typed_to_voice_seconds",
    "histogram",
    "From a typed message to the first sound of the answer",
    bounds=VOICE_SECONDS,
)
BARGE_INS = Metric(
    "parley_barge_ins_total",
    "counter",
    "Times a caller talked over the agent: true ends the answer, false did not (a back-channel, a noise)",
    ("kind",),
)
UNHEARD = Metric("parley_unheard_total", "counter", "Times somebody spoke and nothing was understood")
TOOLS = Metric("parley_tools_total", "counter", "Tools used, by outcome: ok, error, late, cancelled", ("outcome",))

OUTBOX_BUFFERED = Metric(
    "parley_outbox_buffered_records", "gauge", "Records in a replica's memory, on their way into the outbox"
)
OUTBOX_WAITING = Metric("parley_outbox_waiting_records", "gauge", "Records in the outbox that are not delivered yet")
OUTBOX_AGE = Metric("parley_outbox_oldest_seconds", "gauge", "Age of the oldest record in the outbox; 0: it is empty")
OUTBOX_DELIVERED = Metric("parley_outbox_delivered_total", "counter", "Records that the backend has taken")
OUTBOX_SET_ASIDE = Metric("parley_outbox_set_aside_total", "counter", "Records that the backend refused for good")
OUTBOX_DROPPED = Metric("parley_outbox_dropped_total", "counter", "Records that were lost: too long, or no room")

METRICS = (
    *(CALLS_BEGUN, CALLS_RESUMED, CALLS_ENDED, CALL_LENGTH, CALLS_LIVE, CALL_SLOTS, CALLS_BUSY, CALLS_WAITING),
    *(CALLS_BROKEN, DISPATCHERS, RECONNECTS, TURNS, STAGE_SECONDS, VOICE_TO_VOICE, TYPED_TO_VOICE, BARGE_INS),
    *(UNHEARD, TOOLS, OUTBOX_BUFFERED, OUTBOX_WAITING, OUTBOX_AGE, OUTBOX_DELIVERED, OUTBOX_SET_ASIDE),
    OUTBOX_DROPPED,
)


def count_turn(turn: Mapping[str, Any]) -> None:
    """Count a turn that is over, as `agent/turns.py` describes it."""
    interrupted, failed, answered = bool(turn.get("interrupted")), bool(turn.get("error")), bool(turn.get("answer"))
    stages: Mapping[str, int | None] = turn.get("stages") or {}
    TURNS.add(
        outcome="failed" if failed else "interrupted" if interrupted else "answered" if answered else "unanswered"
    )
    if interrupted:
        BARGE_INS.add(kind="true")
    for stage, name in STAGES.items():
        if (took := stages.get(name)) is not None:
            STAGE_SECONDS.observe(took / 1000, stage=stage)
    if (took := turn.get("voice_to_voice_ms")) is not None:
        (TYPED_TO_VOICE if turn.get("typed") else VOICE_TO_VOICE).observe(took / 1000)


def count_end(reason: str, seconds: float) -> None:
    """Count a call that leaves this replica."""
    CALLS_ENDED.add(reason=one_of(REASONS, reason))
    CALL_LENGTH.observe(seconds)
