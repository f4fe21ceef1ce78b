"""Webhooks to products: who wants to hear of what, and what is on its way."""

from __future__ import annotations

import datetime
from functools import partial
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from api.db.tables.base import Base, Created, Tenanted
from api.db.types import Content, ContentJson, Id, new_id


class WebhookEndpoint(Tenanted, Created, Base):
    """Where a tenant wants to hear of events.

    Attributes:
        events: Types such as "call.ended".
        secret: Signs messages (Standard Webhooks: `whsec_` and base64); shown once.
        old_secret: The one before, which signs beside it until `old_until`.
        disabled_at: Nothing is written for it or sent to it.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index(None, "tenant_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "hook"))
    url: Mapped[str] = mapped_column(String(2000))
    events: Mapped[list[str]]
    description: Mapped[str] = mapped_column(String(200), default="")
    secret: Mapped[str] = mapped_column(Content)
    old_secret: Mapped[str | None] = mapped_column(Content)
    old_until: Mapped[datetime.datetime | None]
    disabled_at: Mapped[datetime.datetime | None]


class WebhookMessage(Tenanted, Created, Base):
    """One event for one endpoint.

    Attributes:
        id: The message's id to its receiver, the same at each attempt.
        payload: What is sent.
        status: "pending", "delivered" or "dead".
        next_at: When it is tried (again).
        leased_until: Somebody is at it until then.
        answer: Status of the last answer; None: there was none, and `problem` says why.
    """

    __tablename__ = "webhook_messages"
    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "tenant_id", "status", "id"),
        Index(None, "endpoint_id", "id"),
        # What is due, of one endpoint after another.
        Index(None, "endpoint_id", "status", "next_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "msg"))
    endpoint_id: Mapped[str] = mapped_column(Id, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(60))
    payload: Mapped[dict[str, Any]] = mapped_column(ContentJson)
    status: Mapped[str] = mapped_column(String(10), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime.datetime]
    leased_until: Mapped[datetime.datetime | None]
    delivered_at: Mapped[datetime.datetime | None]
    answer: Mapped[int | None]
    problem: Mapped[str] = mapped_column(String(300), default="")
