"""Content is written anew with a newer key, on SQLite and PostgreSQL, beside those who go on writing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet
from sqlalchemy import Text, select, type_coerce

from api.db import Database
from api.db import reencrypt as work
from api.db.reencrypt import encrypted, reencrypt
from api.db.tables import (
    AuditEntry,
    Base,
    Call,
    File,
    IdempotentAnswer,
    Tenant,
    Turn,
    WebhookEndpoint,
    WebhookMessage,
)
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import MARK, content_keys, now
from cluster import reencrypt as command
from serve.errors import ConfigError
from serve.settings import settings
from tests.databases import database, database_url, postgres

pytestmark = [pytest.mark.contract, pytest.mark.timeout(90)]

__all__ = ["database", "database_url", "postgres"]

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
WORDS = "the words of a caller"
TURNS = 25

Use = Callable[[str], None]


@pytest_asyncio.fixture
async def use(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Use]:
    """Set PARLEY_CONTENT_KEYS, as a process that begins has it."""

    def use(keys: str) -> None:
        monkeypatch.setenv("PARLEY_CONTENT_KEYS", keys)
        settings.cache_clear()
        content_keys.cache_clear()

    yield use
    monkeypatch.undo()
    use("")
    monkeypatch.undo()
    settings.cache_clear()


def turn(number: int, words: str = WORDS) -> Turn:
    return Turn(
        id=f"turn-{number:03}", call_id="call", number=number, at=now(), heard=words, answer=f"{words} {number}"
    )


def rows() -> list[Base]:
    """Return something in every column that is encrypted."""
    said = {"text": WORDS}
    return [
        Call(id="call", messages=[said]),
        *(turn(number) for number in range(TURNS)),
        File(id="file", call_id="call", name="a", media_type="text/plain", size=1, text=WORDS),
        IdempotentAnswer(id="answer", request="", status=201, body=WORDS, expires_at=now()),
        WebhookEndpoint(id="hook", url="https://example.com", events=[], secret=WORDS, old_secret=WORDS),
        WebhookMessage(id="message", endpoint_id="hook", event="turn.completed", payload=said, next_at=now()),
    ]


async def add(database: Database, *all: Any) -> None:
    async with database.system() as session:
        for row in all:
            row.tenant_id = DEFAULT_TENANT
            session.add(row)
            await session.flush()
        await session.commit()


async def stored(database: Database) -> dict[str, list[str]]:
    """Return what is in the columns that are encrypted, as the database has it."""
    found: dict[str, list[str]] = {}
    async with database.engine.connect() as connection:
        for table, columns in encrypted():
            for column in columns:
                values = await connection.scalars(select(type_coerce(column, Text)).where(column.is_not(None)))
                found[f"{table.name}.{column.name}"] = list(values)
    return found


async def read(database: Database) -> str:
    """Return all content, as the application reads it."""
    said: list[Any] = []
    async with database.system() as session:
        for kind, names in (
            (Call, ["messages"]),
            (Turn, ["heard", "answer"]),
            (File, ["text"]),
            (IdempotentAnswer, ["body"]),
            (WebhookEndpoint, ["secret", "old_secret"]),
            (WebhookMessage, ["payload"]),
        ):
            for row in await session.scalars(select(kind)):
                said += [getattr(row, name) for name in names]
    return repr(said)


def opened_by(value: str, key: str) -> bool:
    try:
        Fernet(key).decrypt(value.removeprefix(MARK))
    except Exception:
        return False
    return value.startswith(MARK)


async def test_afterwards_the_old_key_can_go(database: Database, use: Use) -> None:
    use("")
    await add(database, *rows()[:10])
    use(OLD)
    await add(database, *rows()[10:])
    use(f"{NEW},{OLD}")
    done = await reencrypt(database, batch=4)
    kept = await stored(database)
    assert all(kept.values()), f"the test has a row for each column that is encrypted: {kept.keys()}"
    assert all(opened_by(value, NEW) for values in kept.values() for value in values)
    assert sum(done.values.values()) == sum(done.changed.values()) == sum(map(len, kept.values()))
    use(NEW)
    assert (await read(database)).count(WORDS) == sum(map(len, kept.values()))
    assert sum((await reencrypt(database)).changed.values()) == 0


async def test_begun_again_it_does_the_rest(database: Database, use: Use) -> None:
    use(OLD)
    await add(database, *rows())
    use(f"{NEW},{OLD}")

    def die(table: str, seen: int, *_: int) -> None:
        if table == "turns" and seen >= 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await reencrypt(database, die, batch=4)
    before = [value for value in (await stored(database))["turns.heard"] if opened_by(value, NEW)]
    assert len(before) == 8
    done = await reencrypt(database, batch=4)
    assert done.changed["turns"] == 2 * (TURNS - 8)
    assert set(before) <= set((await stored(database))["turns.heard"]), "what was done stays as it is"


async def test_what_is_written_meanwhile_stays(database: Database, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others change and add rows, some with the older key alone, between reading and writing of each batch."""
    use(OLD)
    await add(database, *rows())
    use(f"{NEW},{OLD}")
    anew, loop = work._anew, asyncio.get_running_loop()  # pyright: ignore[reportPrivateUsage]
    late = Fernet(OLD).encrypt(b"written late").decode()
    count, kept = 0, list[str]()

    async def meanwhile() -> None:
        nonlocal count
        count += 1
        async with database.system() as session:
            row = await session.get_one(Turn, "turn-003")
            kept.append(row.heard)
            row.heard = f"changed {count}"
            await session.commit()
        if count == 1:
            # Behind the place that is being looked at, by a replica that has not the new key yet.
            await add(database, turn(-1, "to be replaced"))
            table: Any = Turn.__table__
            async with database.engine.begin() as connection:
                as_it_is = type_coerce(MARK + late, Text)
                await connection.execute(table.update().where(table.c.id == "turn--01").values(heard=as_it_is))

    def slow(value: str, newest: Fernet) -> str | None:
        made = anew(value, newest)
        if made is not None and "turns" in looking:
            asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(10)
        return made

    looking: list[str] = []
    monkeypatch.setattr(work, "_anew", slow)
    each = work._table  # pyright: ignore[reportPrivateUsage]

    async def apart(database: Database, table: Any, *more: Any) -> int:
        looking[:] = [table.name]
        return await asyncio.to_thread(lambda: asyncio.run(_own(database, table, more)))

    async def _own(database: Database, table: Any, more: Any) -> int:
        # A process of its own, as `parley db reencrypt` is: its own loop and connections.
        own = Database(database.engine.url.render_as_string(hide_password=False))
        try:
            return await each(own, table, *more)
        finally:
            await own.aclose()

    monkeypatch.setattr(work, "_table", apart)
    await reencrypt(database, batch=5)
    assert count > 5
    assert kept == [WORDS, *(f"changed {each}" for each in range(1, count))], "a change was written over"
    use(NEW)
    async with database.system() as session:
        assert (await session.get_one(Turn, "turn-003")).heard == f"changed {count}"
        assert (await session.get_one(Turn, "turn--01")).heard == "written late"


async def test_a_key_that_is_missing_is_told_and_nothing_is_changed(database: Database, use: Use) -> None:
    use(OLD)
    await add(database, *rows())
    before = await stored(database)
    use(f"{NEW},{OTHER}")
    with pytest.raises(ConfigError, match="none of the keys opens"):
        await reencrypt(database)
    use("")
    with pytest.raises(ConfigError, match="PARLEY_CONTENT_KEYS"):
        await reencrypt(database)
    assert await stored(database) == before


async def test_somebody_who_goes_on_with_the_old_key_is_told_of(database: Database, use: Use) -> None:
    use(f"{NEW},{OLD}")
    await add(database, *rows())
    again = Fernet(OLD)

    async def spoil() -> None:
        table: Any = Turn.__table__
        async with database.engine.begin() as connection:
            old = type_coerce(MARK + again.encrypt(b"x").decode(), Text)
            await connection.execute(table.update().where(table.c.id == "turn-000").values(heard=old))

    await spoil()
    real = work._table  # pyright: ignore[reportPrivateUsage]

    async def table(*all: Any) -> int:
        changed = await real(*all)
        await spoil()
        return changed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "_table", table)
        with pytest.raises(ConfigError, match="older key"):
            await reencrypt(database)


async def test_the_command_says_what_it_did_and_each_tenant_has_it_in_its_log(
    database: Database, use: Use, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    use(OLD)
    await add(database, *rows())
    use(f"{NEW},{OLD}")
    await asyncio.to_thread(command.run)
    assert "turns: 50 values with the newest key, 50 of them written anew" in capsys.readouterr().out
    async with database.system() as session:
        noted = (await session.scalars(select(AuditEntry).where(AuditEntry.action == "content.reencrypt"))).all()
        tenants = (await session.scalars(select(Tenant.id))).all()
    assert sorted(each.tenant_id for each in noted) == sorted(tenants)
    assert noted[0].actor == "system"


async def test_words_that_look_encrypted_are_words(database: Database, use: Use) -> None:
    said = [f"{MARK}not really", "text:", "text:fernet:", "", "plain"]
    use("")
    await add(database, rows()[0], *(turn(number, words) for number, words in enumerate(said)))
    for keys in ("", NEW):
        use(keys)
        async with database.system() as session:
            assert list(await session.scalars(select(Turn.heard).order_by(Turn.id))) == said
    await reencrypt(database)
    async with database.system() as session:
        assert list(await session.scalars(select(Turn.heard).order_by(Turn.id))) == said
