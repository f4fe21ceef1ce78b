"""Tenants, the people and keys that act for them, and what they did."""

from __future__ import annotations

import datetime
from functools import partial
from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from api.db.tables.base import Base, Created, Tenanted
from api.db.types import Content, Id, new_id

DEFAULT_TENANT = "ten_default"
"""Who calls belong to where there is one tenant only; the first migration makes it."""


class Tenant(Created, Base):
    """A customer, a product, a team: what one of them has, no other sees.

    Attributes:
        name: As people know it.
        allowed: `calls` at once, `minutes` a month, `uploads` at once, `requests` a second, as whoever runs the server
            gave them; what is not there has the default of the profile (`api.limits`).
        limits: Of those, what the tenant wants to be less.
        keep_days: After so many days a call and all that hangs on it is deleted; None: never.
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "ten"))
    name: Mapped[str] = mapped_column(String(200))
    allowed: Mapped[dict[str, Any]] = mapped_column(default=dict)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    keep_days: Mapped[int | None]


class Person(Tenanted, Created, Base):
    """Somebody who signs in.

    Attributes:
        issuer: Who vouches for them (OpenID Connect); "local" on one machine.
        subject: Their id there.
        role: owner, engineer, operator or viewer.
    """

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "per"))
    issuer: Mapped[str] = mapped_column(String(500))
    subject: Mapped[str] = mapped_column(String(300))
    name: Mapped[str] = mapped_column(String(200), default="")
    email: Mapped[str] = mapped_column(String(320), default="")
    role: Mapped[str] = mapped_column(String(20))
    seen_at: Mapped[datetime.datetime | None]
    disabled_at: Mapped[datetime.datetime | None]


class SignIn(Tenanted, Created, Base):
    """A browser that is signed in.

    Attributes:
        id: SHA-256 of what the cookie holds.
    """

    __tablename__ = "sign_ins"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    person_id: Mapped[str] = mapped_column(Id, index=True)
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)


class ApiKey(Tenanted, Created, Base):
    """What a program shows.

    Attributes:
        prefix: The part of the key that is not secret; finds the row.
        digest: SHA-256 of the whole key, which has 256 random bits: nothing slower is needed.
        scopes: What it may do (`api.access.scopes`).
        created_by: Id of a person or a key.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "key"))
    name: Mapped[str] = mapped_column(String(200))
    prefix: Mapped[str] = mapped_column(String(32), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    created_by: Mapped[str] = mapped_column(Id, default="")
    expires_at: Mapped[datetime.datetime | None]
    used_at: Mapped[datetime.datetime | None]
    revoked_at: Mapped[datetime.datetime | None]


class AuditEntry(Tenanted, Created, Base):
    """An administrative act.

    Attributes:
        actor: Id of the person or key; "system" for what nobody asked for.
        action: As "key.create".
        target: Id of what was acted on.
        detail: What changed; never a secret, never content.
        address: Where the request came from.
    """

    __tablename__ = "audit"
    __table_args__ = (Index(None, "tenant_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "aud"))
    actor: Mapped[str] = mapped_column(Id)
    action: Mapped[str] = mapped_column(String(60))
    target: Mapped[str] = mapped_column(Id, default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    address: Mapped[str] = mapped_column(String(60), default="")


class IdempotentAnswer(Tenanted, Created, Base):
    """What a POST with an Idempotency-Key was answered, for a day.

    Attributes:
        id: SHA-256 of tenant, actor, path and key.
        request: SHA-256 of the body.
        status: 0 while it is being worked on.
        body: Of the answer, encrypted where content is: it may hold a key.
    """

    __tablename__ = "idempotent_answers"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(default=0)
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    body: Mapped[str] = mapped_column(Content, default="")
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
