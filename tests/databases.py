"""Fixtures: the backend's database, once as a SQLite file and once in a real PostgreSQL."""

from __future__ import annotations

import atexit
from collections.abc import AsyncGenerator
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio

from api.db import Database, migrate, sqlite_url
from api.db.tables import Tenant
from tests.postgres_server import PostgresServer


@cache
def _server() -> PostgresServer:
    server = PostgresServer()
    atexit.register(server.stop)  # where nobody calls `stop`
    server.start()
    return server


def stop() -> None:
    """End the server, where there is one."""
    if _server.cache_info().currsize:
        _server().stop()
        _server.cache_clear()


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """A PostgreSQL server; one for all tests, however many modules bring this fixture in."""
    return _server()


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without tables, for SQLAlchemy."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "parley.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return as_async(await server.create())


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database with all tables and two tenants: the default one and `ten_other`."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "parley.db")
        await fill(url)
        return url
    server: PostgresServer = request.getfixturevalue("postgres")
    if server.template is None:
        url = await server.create()
        await fill(as_async(url))
        server.template = url.rpartition("/")[2]
    return as_async(await server.create(server.template))


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """A database with all tables and two tenants."""
    opened = Database(database_url)
    yield opened
    await opened.aclose()


async def fill(url: str) -> None:
    """Make all tables, and a second tenant."""
    opened = Database(url)
    try:
        await migrate.upgrade(opened)
        async with opened.system() as session:
            session.add(Tenant(id="ten_other", name="Other"))
            await session.commit()
    finally:
        await opened.aclose()


def as_async(url: str) -> str:
    """Return a PostgreSQL address for SQLAlchemy's asyncpg."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)
