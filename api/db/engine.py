"""The connection pool, and sessions from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from serve.errors import ConfigError
from serve.settings import home, settings

POOL_CONNECTIONS = 8
"""Of one API replica: its requests are short, and PostgreSQL has 100 by default."""

WAIT_SECONDS = 5.0
"""For a connection, to connect, and for a statement: longer than any that the API needs."""

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000", "secure_delete=ON")
"""Of a SQLite file. What is deleted is overwritten, and does not stay in it until something else needs the place."""


class Database:
    """A pool of connections, on the current event loop; opened once in a process.

    Attributes:
        engine: SQLAlchemy's.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    def system(self) -> AsyncSession:
        """Return a session that sees every tenant: for deliveries, and what belongs to none.

        Handlers have theirs from `api.db.session_of`.
        """
        return self._sessions()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def open_database() -> Database:
    """Open the database that DATABASE_URL names; without it the file `parley.db` in PARLEY_HOME."""
    return Database(database_url())


def database_url() -> str:
    """Return the address of the database, for SQLAlchemy's async drivers.

    Raises:
        ConfigError: It is for no database that is known here.
    """
    given = settings().database_url
    if given is None or not given.get_secret_value():
        return sqlite_url(home() / "parley.db")
    scheme, separator, rest = given.get_secret_value().partition("://")
    match scheme:
        case "postgresql" | "postgres" | "postgresql+asyncpg":
            return f"postgresql+asyncpg://{rest}"
        case "sqlite" | "sqlite+aiosqlite" if separator:
            return f"sqlite+aiosqlite://{rest}"
        case _:
            raise ConfigError("DATABASE_URL: begin with postgresql:// or sqlite:///")


def sqlite_url(path: Path) -> str:
    """Return the address of a SQLite file; it is made with its folder, for its user only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What SQLite puts beside it has its mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return f"sqlite+aiosqlite:///{path}"


def _engine(url: str) -> AsyncEngine:
    if url.startswith("sqlite"):
        # Connections of one file: readers beside one writer.
        engine = create_async_engine(
            url,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=WAIT_SECONDS,
            connect_args={"timeout": WAIT_SECONDS},
        )

        @event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: Any, _: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            cursor = connection.cursor()
            for pragma in PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        return engine
    return create_async_engine(
        url,
        pool_size=POOL_CONNECTIONS,
        max_overflow=4,
        pool_timeout=WAIT_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={"timeout": WAIT_SECONDS, "command_timeout": WAIT_SECONDS, "server_settings": {"timezone": "UTC"}},
    )
