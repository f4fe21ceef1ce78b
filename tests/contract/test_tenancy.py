"""A tenant's session sees, changes and adds its own rows only, whatever a handler asks of it."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from api.db import Database, migrate, session_of
from api.db.tables import ApiKey, AssistantVersion, Base, Tenanted
from api.db.tables import Assistant as AssistantRow
from api.db.types import now
from tests.databases import database, database_url, postgres

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]

__all__ = ["database", "database_url", "postgres"]


def key(name: str, prefix: str) -> ApiKey:
    return ApiKey(name=name, prefix=prefix, digest="", scopes=[])


async def test_a_tenant_sees_and_changes_its_own_only(database: Database) -> None:
    for tenant in ("ten_default", "ten_other"):
        async with session_of(database, tenant) as session:
            session.add(key(tenant, tenant))
            await session.commit()
    async with session_of(database, "ten_other") as session:
        assert (await session.scalars(select(ApiKey.name))).all() == ["ten_other"]
        assert await session.scalar(select(func.count()).select_from(ApiKey)) == 1
        async with database.system() as everybody:
            theirs = await everybody.scalar(select(ApiKey.id).where(ApiKey.name == "ten_default"))
        assert theirs is not None
        assert await session.get(ApiKey, theirs) is None
        await session.execute(update(ApiKey).values(name="mine"))
        await session.execute(delete(ApiKey).where(ApiKey.name == "ten_default"))
        await session.commit()
    async with database.system() as session:
        assert sorted((await session.scalars(select(ApiKey.name))).all()) == ["mine", "ten_default"]


async def test_joins_are_narrowed_on_both_sides(database: Database) -> None:
    async with session_of(database, "ten_default") as session:
        session.add(AssistantRow(id="asst_1", name="one", updated_at=now()))
        await session.flush()
        session.add(AssistantVersion(assistant_id="asst_1", number=1, definition={}))
        await session.commit()
    async with session_of(database, "ten_other") as session:
        both = select(AssistantRow.name, AssistantVersion.number).join(
            AssistantVersion, AssistantVersion.assistant_id == AssistantRow.id
        )
        assert (await session.execute(both)).all() == []
        outer = select(AssistantVersion.number).where(
            AssistantVersion.assistant_id.in_(select(AssistantRow.id).where(AssistantRow.name == "one"))
        )
        assert (await session.scalars(outer)).all() == []


async def test_what_cannot_be_narrowed_is_refused(database: Database) -> None:
    async with session_of(database, "ten_other") as session:
        session.add(ApiKey(tenant_id="ten_default", name="", prefix="x", digest="", scopes=[]))
        with pytest.raises(RuntimeError, match="adds rows of its own"):
            await session.flush()
        session.expunge_all()
        await session.rollback()
        for statement in (text("SELECT name FROM api_keys"), insert(ApiKey).values(name="")):
            with pytest.raises(RuntimeError, match="tenant's session"):
                await session.execute(statement)


def test_every_table_of_tenants_knows_its_tenant() -> None:
    free = {"tenants", "livekit_deliveries"}
    for mapper in Base.registry.mappers:
        assert issubclass(mapper.class_, Tenanted) or mapper.local_table.name in free  # type: ignore[union-attr]


async def test_migrations_are_at_their_head(database: Database) -> None:
    assert await migrate.current(database) == migrate.head()
