"""Migrations, on SQLite and PostgreSQL: up, down, with rows, by two at once; and the tables are what the models say."""

from __future__ import annotations

import asyncio
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select

from api.db import Database, migrate
from api.db.tables import Assistant, AssistantVersion, Base, Call, Tenant, Turn, Usage
from api.db.types import now
from tests.conftest import ROOT
from tests.databases import as_async, database_url, empty_url, postgres
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

__all__ = ["database_url", "empty_url", "postgres"]

MIGRATE = """
import asyncio, sys
from api.db import Database, migrate

async def main():
    database = Database(sys.argv[1])
    await migrate.upgrade(database)
    print(await migrate.current(database))
    await database.aclose()

asyncio.run(main())
"""


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - {"alembic_version"}


def drift(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


async def test_up_down_and_up_again(empty_url: str) -> None:
    database = Database(empty_url)
    assert await migrate.current(database) is None
    await migrate.upgrade(database)
    await migrate.upgrade(database)
    assert await migrate.current(database) == migrate.head()
    async with database.engine.connect() as connection:
        assert await connection.run_sync(tables) == set(Base.metadata.tables)
        assert await connection.run_sync(drift) == [], "models and migrations differ"
    await migrate.downgrade(database, "base")
    async with database.engine.connect() as connection:
        assert await connection.run_sync(tables) == set()
    await migrate.upgrade(database)
    assert await migrate.current(database) == migrate.head()
    await database.aclose()


async def test_every_step_down_and_up_keeps_rows_that_it_can(database_url: str) -> None:
    """Each migration is taken back and made again with rows in the tables; it takes those of the tables it made."""
    database = Database(database_url)
    revisions = [each.revision for each in ScriptDirectory.from_config(migrate.config()).walk_revisions()]
    async with database.system() as session:
        tenant = {"tenant_id": "ten_other"}
        session.add(Assistant(id="asst_1", name="a", updated_at=now(), **tenant))
        session.add(Call(id="room", **tenant))
        await session.flush()
        session.add(AssistantVersion(assistant_id="asst_1", number=1, definition={"greeting": "Grüße"}, **tenant))
        session.add(Turn(id="t", number=1, at=now(), heard="h", answer="a", call_id="room", **tenant))
        used = {"amounts": {"minutes": 1}, "role": "call", "model": "call"}
        session.add(Usage(id="u", call_id="room", day=now().date(), **used, **tenant))
        await session.commit()
    for revision in revisions[:-1]:
        await migrate.downgrade(database, f"{revision}-1")
        async with database.engine.connect() as connection:
            there = await connection.run_sync(tables)
        await migrate.upgrade(database)
        assert there, "only the first takes all"
        async with database.system() as session:
            for table in (Tenant, Assistant, AssistantVersion, Call, Turn, Usage):
                if table.__tablename__ in there:
                    assert await session.scalar(select(func.count()).select_from(table)), f"{revision} lost {table}"
    await migrate.downgrade(database, "base")
    await migrate.upgrade(database)
    async with database.system() as session:
        assert list(await session.scalars(select(Tenant.id))) == ["ten_default"]
    await database.aclose()


async def test_two_processes_migrate_at_once(postgres: PostgresServer) -> None:
    url = as_async(await postgres.create())
    command = (sys.executable, "-c", MIGRATE, url)
    pipe = asyncio.subprocess.PIPE
    started = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe) for _ in range(2)]
    async with asyncio.timeout(40):
        for process in started:
            out, error = await process.communicate()
            assert process.returncode == 0, error.decode()[-2000:]
            assert out.decode().strip() == migrate.head()
    database = Database(url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(tables) == set(Base.metadata.tables)
    await database.aclose()
