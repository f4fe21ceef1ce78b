"""Alembic's entry: runs on the connection that `api.db.migrate` hands over."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from api.db import types
from api.db.tables import Base


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write our own column types by their names."""
    if kind == "type" and item is types.Json:
        return "types.Json"
    if kind == "type" and type(item).__module__ == types.__name__:
        return f"types.{type(item).__name__}()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter most of a table: it is copied instead.
    render_as_batch=True,
    compare_type=True,
    render_item=render_item,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
