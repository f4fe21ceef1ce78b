"""What webhooks tell, and how it is written: with the thing it tells of, or not at all."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, field_serializer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.calls.shapes import CallFacts, TurnFacts
from api.db.tables import Call, File, Turn, WebhookEndpoint, WebhookMessage
from api.db.tables.base import Base
from api.db.types import now

Event = Literal["call.started", "call.ended", "turn.completed", "file.ready"]

EVENTS: tuple[Event, ...] = get_args(Event)

TEST = "webhook.test"
"""Of the message that somebody sends to try an endpoint."""


class CallData(CallFacts):
    """Of call.started and call.ended; while a call goes on its counts are 0."""

    cost: Decimal = Field(description="As far as it is known", examples=["0.0123"])

    @field_serializer("cost")
    def _plain(self, cost: Decimal) -> str:
        return f"{cost:f}"


class TurnData(TurnFacts):
    """Of turn.completed."""

    call_id: str = Field(examples=["call-7f3a9c"])


class FileData(BaseModel):
    """Of file.ready: a file was read and can be used, or was refused."""

    id: str = Field(examples=["file_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    call_id: str | None = Field(examples=["call-7f3a9c"])
    assistant_id: str | None = Field(examples=[None])
    name: str = Field(examples=["prices.csv"])
    media_type: str = Field(examples=["text/csv"])
    size: int = Field(description="Bytes", examples=[2048])
    status: str = Field(description="ready or refused", examples=["ready"])
    problem: str = Field(description="Why it was refused", examples=[""])


DATA: dict[Event, type[BaseModel]] = {
    "call.started": CallData,
    "call.ended": CallData,
    "turn.completed": TurnData,
    "file.ready": FileData,
}
"""The shape of an event's `data`."""


def of_call(call: Call) -> dict[str, Any]:
    """Return what call.started and call.ended say of a call."""
    return _data(CallData, call)


def of_turn(turn: Turn) -> dict[str, Any]:
    """Return what turn.completed says of a turn."""
    return _data(TurnData, turn)


def of_file(file: File) -> dict[str, Any]:
    """Return what file.ready says of a file."""
    return _data(FileData, file)


async def announce(session: AsyncSession, tenant: str, event: Event, data: dict[str, Any]) -> None:
    """Write a message for each of a tenant's endpoints that wants an event; the commit of the session sends them.

    One indexed query where nobody wants it. The session is not flushed.

    Args:
        session: The one that writes what the event tells of: a handler's, or the system's.
        tenant: Whose event it is.
        event: Its type.
        data: Plain JSON, from `of_call`, `of_turn` or `of_file`.
    """
    wanted = select(WebhookEndpoint.id, WebhookEndpoint.events).where(
        WebhookEndpoint.tenant_id == tenant, WebhookEndpoint.disabled_at.is_(None)
    )
    with session.no_autoflush:
        endpoints = (await session.execute(wanted)).all()
    for endpoint, events in endpoints:
        if event in events:
            session.add(message(tenant, endpoint, event, data))


def message(tenant: str, endpoint: str, event: str, data: dict[str, Any]) -> WebhookMessage:
    """Return a new message, to be added to a session."""
    at = now()
    payload = {"type": event, "timestamp": at.isoformat().replace("+00:00", "Z"), "data": data}
    return WebhookMessage(
        tenant_id=tenant, endpoint_id=endpoint, event=event, payload=payload, next_at=at, status="pending"
    )


def _data(shape: type[BaseModel], row: Base) -> dict[str, Any]:
    columns: Any = row.__table__.columns
    values = {name: _value(getattr(row, name), columns[name].default) for name in shape.model_fields}
    return shape(**values).model_dump(mode="json")


def _value(value: Any, default: Any) -> Any:
    """Return a column's value as it will be: a row that is not flushed yet has none where its default counts."""
    if value is not None or default is None:
        return value
    return default.arg if default.is_scalar else default.arg(None)
