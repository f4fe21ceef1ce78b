"""What all tables have."""

from __future__ import annotations

import datetime
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from api.db.types import Id, Json, Time, now

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""So that migrations can name what they drop, in every database."""


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime.datetime: Time,
        dict[str, Any]: Json,
        list[str]: Json,
        list[dict[str, Any]]: Json,
    }


class Tenanted:
    """Belongs to a tenant; `api.db.tenancy` keeps it there."""

    @declared_attr
    def tenant_id(cls) -> Mapped[str]:
        """Whose it is."""
        return mapped_column(Id, ForeignKey("tenants.id", ondelete="CASCADE"))


class Created:
    """Knows when it was made."""

    created_at: Mapped[datetime.datetime] = mapped_column(Time, default=now)


__all__ = ["Base", "Created", "Tenanted"]
