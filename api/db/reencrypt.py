"""Write what is encrypted anew with the newest key, so that an old one can be dropped.

Batch by batch, beside everything else: a batch is read, then written in a short transaction of its own, and a value
that somebody has changed in between stays as they wrote it. Begun again, it writes only what is not done yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import Column, Table, Text, and_, bindparam, func, select, text, tuple_, type_coerce, update

from api.db.engine import Database
from api.db.tables import Base
from api.db.types import MARK, PLAIN, Content, ContentJson, content_keys, newest_key
from serve.errors import ConfigError

BATCH = 200
"""Rows that are read at a time, and written in one transaction."""

PASSES = 5
"""What processes with older settings write behind us is found by looking again; not for ever."""


@dataclass(slots=True)
class Done:
    """What was done.

    Attributes:
        values: That are there, by table.
        changed: That were written anew, by table.
    """

    values: dict[str, int] = field(default_factory=dict[str, int])
    changed: dict[str, int] = field(default_factory=dict[str, int])


Say = Callable[[str, int, int, int], None]
"""Told of each batch: the table, rows that were looked at, rows that there are, values that were written anew."""


async def reencrypt(database: Database, say: Say = lambda *_: None, batch: int = BATCH) -> Done:
    """Write all content with the newest of PARLEY_CONTENT_KEYS; returns when there is nothing else left.

    Args:
        database: Where; migrated.
        say: Told how far it is.
        batch: Rows at a time.

    Raises:
        ConfigError: There is no key; none opens what is stored; or somebody goes on writing with an older one.
    """
    newest = newest_key()
    if newest is None:
        raise ConfigError("PARLEY_CONTENT_KEYS: set it; the newest key comes first, then those of before")
    done = Done()
    for _ in range(PASSES):
        changed = 0
        for table, columns in encrypted():
            changed += await _table(database, table, columns, newest, done, say, batch)
        if not changed:
            await _forget(database)
            return done
    raise ConfigError(
        "PARLEY_CONTENT_KEYS: something goes on writing with an older key; start all replicas of the API with the new "
        "key first, then this again"
    )


def encrypted() -> list[tuple[Table, list[Column[Any]]]]:
    """Return the tables with columns that are encrypted, and those columns."""
    found = [
        (table, [column for column in table.columns if isinstance(column.type, Content | ContentJson)])
        for table in Base.metadata.sorted_tables
    ]
    return [(table, columns) for table, columns in found if columns]


async def _table(
    database: Database, table: Table, columns: Sequence[Column[Any]], newest: Fernet, done: Done, say: Say, batch: int
) -> int:
    """Do one table once; return how many values were changed."""
    keys, raw = list(table.primary_key.columns), [type_coerce(column, Text) for column in columns]
    asked = select(*keys, *raw).order_by(*keys).limit(batch)
    after: tuple[Any, ...] | None = None
    seen = values = changed = 0
    async with database.engine.connect() as connection:
        total = await connection.scalar(select(func.count()).select_from(table)) or 0
    while True:
        here = asked if after is None else asked.where(tuple_(*keys) > tuple_(*map(_literal, keys, after)))
        # Read in a transaction of its own: SQLite lets nobody write who has read what others have changed since.
        async with database.engine.connect() as connection:
            rows = (await connection.execute(here)).all()
        fresh: list[tuple[tuple[Any, ...], Column[Any], str, str]] = []
        for row in rows:
            key = tuple(row[: len(keys)])
            for column, value in zip(columns, row[len(keys) :], strict=True):
                values += value is not None
                if value is not None and (anew := _anew(value, newest)) is not None:
                    fresh.append((key, column, value, anew))
        if fresh:
            async with database.engine.begin() as connection:
                for key, column, old, anew in fresh:
                    mine = and_(*(each == _literal(each, value) for each, value in zip(keys, key, strict=True)))
                    as_it_was = type_coerce(column, Text) == old
                    statement = update(table).where(mine, as_it_was)
                    await connection.execute(statement.values({column.name: bindparam(None, anew, type_=Text())}))
            changed += len(fresh)
        seen += len(rows)
        done.changed[table.name] = done.changed.get(table.name, 0) + len(fresh)
        say(table.name, seen, max(total, seen), done.changed[table.name])
        if len(rows) < batch:
            done.values[table.name] = values
            return changed
        after = tuple(rows[-1][: len(keys)])


def _anew(value: str, newest: Fernet) -> str | None:
    """Return a value with the newest key; None: it has it.

    Raises:
        ConfigError: No key opens it.
    """
    if not value.startswith(MARK):
        return MARK + newest.encrypt(value.removeprefix(PLAIN).encode()).decode()
    token = value[len(MARK) :].encode()
    try:
        newest.decrypt(token)
        return None
    except InvalidToken:
        pass
    keys = content_keys()
    assert keys is not None, "there is a newest one"
    try:
        return MARK + keys.rotate(token).decode()
    except InvalidToken:
        raise ConfigError(
            "PARLEY_CONTENT_KEYS: none of the keys opens what is stored; add the one it was written with"
        ) from None


def _literal(column: Column[Any], value: Any) -> Any:
    return bindparam(None, value, type_=column.type)


async def _forget(database: Database) -> None:
    """SQLite: take what was overwritten out of the log beside the file, where nobody reads in it just now."""
    if database.engine.dialect.name == "sqlite":
        async with database.engine.connect() as connection:
            await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
