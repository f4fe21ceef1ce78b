"""An application on a database of its own, and a client that is let in as the test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from sqlalchemy import select

from api.access.principal import Principal
from api.access.scopes import SCOPES, Scope
from api.app import create_app
from api.config import ApiConfig
from api.db import Database, migrate, sqlite_url
from api.db.tables import Tenant
from api.db.tables.accounts import DEFAULT_TENANT

SECRET = "a-secret-that-is-long-enough-for-hs256"
"""LiveKit's, in the environment of tests with the fixture `livekit_keys`."""


class FakeDoorman:
    """Lets in whom the test names: `x-test-tenant` is the tenant, `x-test-scopes` the scopes (default: all)."""

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        tenant = request.headers.get("x-test-tenant")
        if tenant is None:
            return None
        given = request.headers.get("x-test-scopes")
        scopes: Iterable[Any] = SCOPES if given is None else given.split()
        return Principal(f"per_{tenant}", tenant, "person", frozenset[Any](scopes), "Test", "owner")


@asynccontextmanager
async def backend(folder: Path, dispatchers: Any = None, **config: Any) -> AsyncGenerator[FastAPI]:
    """Yield an application with a migrated database in a folder, and two tenants: the default one and `ten_other`."""
    database = Database(sqlite_url(folder / "parley.db"))
    await migrate.upgrade(database)
    async with database.system() as session:
        session.add(Tenant(id="ten_other", name="Other"))
        await session.commit()
    app = create_app(ApiConfig(**config), "parley", lambda: dispatchers, database=database)
    app.state.doormen = [FakeDoorman()]
    try:
        yield app
    finally:
        await database.aclose()


def client(app: FastAPI, tenant: str = DEFAULT_TENANT, scopes: Iterable[Scope] | None = None) -> httpx.AsyncClient:
    """Return a client of an application, let in for a tenant."""
    headers = {"x-test-tenant": tenant}
    if scopes is not None:
        headers["x-test-scopes"] = " ".join(scopes)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


async def warm(app: FastAPI, connections: int = 4) -> None:
    """Open connections, so that what a test begins at once is at the database at once."""
    async with AsyncExitStack() as stack:
        for _ in range(connections):
            session = await stack.enter_async_context(app.state.database.system())
            await session.scalar(select(1))
