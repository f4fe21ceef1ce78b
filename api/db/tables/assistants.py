"""Assistants, with all their versions."""

from __future__ import annotations

import datetime
from functools import partial
from typing import Any

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from api.db.tables.base import Base, Created, Tenanted
from api.db.types import Id, new_id


class Assistant(Tenanted, Created, Base):
    """Who answers; what it is, is in its versions.

    Attributes:
        name: Unique in its tenant among those that are not deleted.
        version: The one that new calls begin with.
        deleted_at: Calls of before still show it.
    """

    __tablename__ = "assistants"
    __table_args__ = (
        Index(
            "uq_assistants_tenant_id_name",
            "tenant_id",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=partial(new_id, "asst"))
    name: Mapped[str] = mapped_column(String(60))
    version: Mapped[int] = mapped_column(default=1)
    updated_at: Mapped[datetime.datetime]
    deleted_at: Mapped[datetime.datetime | None]


class AssistantVersion(Tenanted, Created, Base):
    """What an assistant was from one change to the next; never changed itself.

    Attributes:
        definition: As `serve.assistant.Assistant` describes it.
        created_by: Id of a person or a key.
    """

    __tablename__ = "assistant_versions"

    assistant_id: Mapped[str] = mapped_column(Id, ForeignKey("assistants.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    definition: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(Id, default="")
