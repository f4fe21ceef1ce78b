"""Content is written anew with the newest key, with word of how far it is."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from sqlalchemy import select

from api.access.audit import audit
from api.db import Database, session_of
from api.db.reencrypt import BATCH, Done, reencrypt
from api.db.tables import Tenant
from cluster.accounts import opened
from serve.errors import ConfigError

TELL_SECONDS = 1.0
"""How often it is said how far it is."""


def run(batch: int = BATCH, as_json: bool = False) -> None:
    """Do it, and print what came of it; how far it is goes to stderr."""
    done = asyncio.run(_run(batch))
    if as_json:
        print(json.dumps({"values": done.values, "changed": done.changed}, indent=2))
        return
    for table, values in done.values.items():
        print(f"{table}: {values} values with the newest key, {done.changed[table]} of them written anew")


async def _run(batch: int) -> Done:
    database = await opened()
    try:
        done = await reencrypt(database, _Progress().say, batch)
        if any(done.changed.values()):
            await _note(database, done)
        return done
    except (OSError, TimeoutError) as error:
        raise ConfigError(f"DATABASE_URL: the database does not answer ({type(error).__name__})") from None
    finally:
        await database.aclose()


async def _note(database: Database, done: Done) -> None:
    """Write into each tenant's audit log that its content was written anew."""
    async with database.system() as session:
        tenants = (await session.scalars(select(Tenant.id))).all()
    for tenant in tenants:
        async with session_of(database, tenant) as session:
            await audit(session, None, "content.reencrypt", detail={"values": sum(done.changed.values())})
            await session.commit()


class _Progress:
    def __init__(self) -> None:
        self._told = time.monotonic()

    def say(self, table: str, seen: int, rows: int, changed: int) -> None:
        """Tell of it, once in a while."""
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            print(f"{table}: {seen} of {rows} rows, {changed} values written anew", file=sys.stderr)
