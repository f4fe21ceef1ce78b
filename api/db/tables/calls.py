"""Calls and all that hangs on them: deleted with them, by the database itself."""

from __future__ import annotations

import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from api.db.tables.base import Base, Created, Tenanted
from api.db.types import Content, ContentJson, Id, Money, new_id


class Call(Tenanted, Created, Base):
    """A call.

    Attributes:
        id: The room's name.
        status: "waiting" (nobody has answered yet), "live" or "ended".
        assistant_id: None: an assistant of the profile, whose name is in `assistant`.
        assistant: Its name, as it was.
        version: Of the assistant.
        medium: "standard" (browser), "sip" (phone), ...
        caller: The caller's name or number, as shown in lists.
        answered_at: An agent was there.
        live_at: Since when it has been live without a break; a caller may come back into a call that had ended.
        reason: Why it ended.
        epoch: Of the newest agent that carried it: what older ones say of its end no longer counts.
        turns, errors, interruptions: Counts of its turns.
        median_ms: Of the voice-to-voice times of its turns.
        cost: What its usage came to; `currency` is the profile's.
        messages: The conversation as it stands, in OpenAI's chat shapes.
        annotations: What the one who started it wants to keep with it: short strings.
    """

    __tablename__ = "calls"
    __table_args__ = (
        Index(None, "tenant_id", "created_at", "id"),
        Index(None, "tenant_id", "status", "created_at", "id"),
        Index(None, "tenant_id", "assistant", "created_at", "id"),
        Index("ix_calls_status_seen_at", "status", "seen_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    status: Mapped[str] = mapped_column(String(10), default="waiting")
    assistant_id: Mapped[str | None] = mapped_column(Id)
    assistant: Mapped[str] = mapped_column(String(60), default="default")
    version: Mapped[int | None]
    medium: Mapped[str] = mapped_column(String(20), default="standard")
    caller: Mapped[str] = mapped_column(String(200), default="")
    answered_at: Mapped[datetime.datetime | None]
    live_at: Mapped[datetime.datetime | None]
    ended_at: Mapped[datetime.datetime | None]
    seen_at: Mapped[datetime.datetime | None]
    reason: Mapped[str] = mapped_column(String(100), default="")
    epoch: Mapped[int] = mapped_column(default=0)
    turns: Mapped[int] = mapped_column(default=0)
    errors: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    median_ms: Mapped[int | None]
    cost: Mapped[Decimal] = mapped_column(Money, default=Decimal(0))
    currency: Mapped[str] = mapped_column(String(3), default="")
    messages: Mapped[list[dict[str, Any]] | None] = mapped_column(ContentJson)
    annotations: Mapped[dict[str, Any]] = mapped_column(default=dict)


class DeletedCall(Tenanted, Base):
    """A call that was deleted: what its agents still tell of it must not bring it back. Kept for a month.

    Attributes:
        assistant: Its name, for usage that is told late.
    """

    __tablename__ = "deleted_calls"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    assistant: Mapped[str] = mapped_column(String(60), default="default")
    at: Mapped[datetime.datetime] = mapped_column(index=True)


class _OfCall(Tenanted):
    call_id: Mapped[str] = mapped_column(Id, ForeignKey("calls.id", ondelete="CASCADE"), index=True)


class StoredRecord(_OfCall, Base):
    """A record (`serve/records.py`) that was stored: a second delivery is known by its id."""

    __tablename__ = "stored_records"

    id: Mapped[str] = mapped_column(Id, primary_key=True)


class Participant(_OfCall, Base):
    """Somebody in the room; once for each time they came.

    Attributes:
        id: That of the record.
    """

    __tablename__ = "participants"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    identity: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200), default="")
    medium: Mapped[str] = mapped_column(String(20), default="standard")
    attributes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    joined_at: Mapped[datetime.datetime]
    left_at: Mapped[datetime.datetime | None]
    reason: Mapped[str] = mapped_column(String(100), default="")


class Turn(_OfCall, Base):
    """A question and the answer as far as it was heard (`serve.records.Turn`).

    Attributes:
        id: That of the record.
        number: 1, 2, ...
        at: When it was over.
        voice_ms: From the end of the caller's speech to the answer's first sound, as the agent knows it.
        measures: Stages, models, timeline, fallbacks.
    """

    __tablename__ = "turns"
    __table_args__ = (Index(None, "call_id", "at"), Index(None, "tenant_id", "at"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int]
    at: Mapped[datetime.datetime]
    heard: Mapped[str] = mapped_column(Content)
    answer: Mapped[str] = mapped_column(Content)
    interrupted: Mapped[bool] = mapped_column(default=False)
    typed: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str | None] = mapped_column(String(100))
    voice_ms: Mapped[int | None]
    measures: Mapped[dict[str, Any]] = mapped_column(default=dict)


class CallEvent(_OfCall, Base):
    """Something that happened in the call; no words of the caller's (docs/lifecycle.md)."""

    __tablename__ = "call_events"
    __table_args__ = (Index(None, "call_id", "at", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "evt"))
    at: Mapped[datetime.datetime]
    event: Mapped[str] = mapped_column(String(60))
    fields: Mapped[dict[str, Any]] = mapped_column(default=dict)


class File(Tenanted, Created, Base):
    """A file of a call, or of an assistant's knowledge.

    Attributes:
        location: Its path in the store; empty: its bytes are not kept.
        digest: SHA-256 of its bytes.
        text: What was read from it.
        status: "ready", or "refused" with `problem`.
    """

    __tablename__ = "files"
    __table_args__ = (Index(None, "tenant_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "file"))
    call_id: Mapped[str | None] = mapped_column(Id, ForeignKey("calls.id", ondelete="CASCADE"), index=True)
    assistant_id: Mapped[str | None] = mapped_column(Id, ForeignKey("assistants.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(127))
    size: Mapped[int] = mapped_column(BigInteger)
    sender: Mapped[str] = mapped_column(String(200), default="")
    location: Mapped[str] = mapped_column(String(500), default="")
    digest: Mapped[str] = mapped_column(String(64), default="")
    text: Mapped[str] = mapped_column(Content, default="")
    status: Mapped[str] = mapped_column(String(10), default="ready")
    problem: Mapped[str] = mapped_column(String(300), default="")


class Usage(Tenanted, Base):
    """What one call used of one model, and what it came to at the price of that moment. It outlives the call's content:
    deleting a conversation takes `call_id` away, not the bill.

    Attributes:
        id: That of the record.
        turn_id: Of the turn it was used for; None: for none. No key: it is told whether the turn is stored or not.
        amounts: Fields of `serve.contracts.Usage` that are not 0, and `minutes` of the call itself.
        cost: The sum of amounts times prices, exact.
        price_date: Of the price that was applied; None: no price is known.
    """

    __tablename__ = "usage"
    __table_args__ = (Index(None, "tenant_id", "day", "assistant"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    call_id: Mapped[str | None] = mapped_column(Id, ForeignKey("calls.id", ondelete="SET NULL"), index=True)
    turn_id: Mapped[str | None] = mapped_column(Id)
    assistant: Mapped[str] = mapped_column(String(60), default="default")
    day: Mapped[datetime.date]
    role: Mapped[str] = mapped_column(String(10))
    model: Mapped[str] = mapped_column(String(100))
    amounts: Mapped[dict[str, Any]]
    cost: Mapped[Decimal] = mapped_column(Money, default=Decimal(0))
    currency: Mapped[str] = mapped_column(String(3), default="")
    price_date: Mapped[datetime.date | None]


class LiveKitDelivery(Base):
    """A webhook of LiveKit's that was taken: a second one with its id is a replay.

    Attributes:
        id: LiveKit's, of the event.
    """

    __tablename__ = "livekit_deliveries"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(index=True)
