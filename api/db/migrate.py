"""Bring a database to the version of this code, or back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from api.db.engine import Database

LOCK = 7_316_224_001
"""PostgreSQL's advisory lock: one process migrates, others wait for it."""


async def upgrade(database: Database, revision: str = "head") -> None:
    """Migrate forward; does nothing where nothing is to be done. Several processes may ask at once."""
    await _run(database, lambda config: command.upgrade(config, revision))


async def downgrade(database: Database, revision: str) -> None:
    """Migrate back to a revision ("base": to nothing)."""
    await _run(database, lambda config: command.downgrade(config, revision))


async def current(database: Database) -> str | None:
    """Return the revision that the database has; None: it is empty."""
    async with database.engine.connect() as connection:
        return await connection.run_sync(lambda here: MigrationContext.configure(here).get_current_revision())


def head() -> str:
    """Return the revision that this code needs."""
    found = ScriptDirectory.from_config(config()).get_current_head()
    assert found is not None, "there are migrations"
    return found


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    made.attributes["connection"] = connection
    return made


async def _run(database: Database, work: Callable[[Config], Any]) -> None:
    def migrate(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            connection.commit()
        else:
            # Tables are copied and dropped on the way; rows that point at them stay.
            connection.execute(text("PRAGMA foreign_keys=OFF"))
            connection.commit()
        try:
            work(config(connection))
            connection.commit()
        finally:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            else:
                connection.execute(text("PRAGMA foreign_keys=ON"))
            connection.commit()

    async with database.engine.connect() as connection:
        await connection.run_sync(migrate)
