"""The outbox on one machine: a SQLite file that all replicas share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agent.outbox.store import BOUND_SECONDS, STORED_MOST, Entry, Stored
from serve.errors import Unavailable

T = TypeVar("T")

WIPE_SECONDS = 2.0
"""What was delivered is gone from the disk so soon after the last record: it is what people said."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, call TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (position INTEGER PRIMARY KEY, body BLOB NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS courier (one INTEGER PRIMARY KEY CHECK (one = 1), owner TEXT NOT NULL, until REAL NOT NULL);
"""


class SqliteStore:
    """Implements `Store`. One thread of its own does the work, one thing after the other.

    Args:
        path: Of the file; made with its folder, readable by its user only.
        most: Records that may wait.
    """

    def __init__(self, path: Path, most: int = STORED_MOST) -> None:
        self._path, self._most = path, most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._connection: sqlite3.Connection | None = None
        self._wipe: float | None = 0.0  # one before may have left something

    async def append(self, entries: Sequence[Entry]) -> None:
        """Keep records."""

        def work(database: sqlite3.Connection) -> None:
            first, last = database.execute("SELECT MIN(position), MAX(position) FROM records").fetchone()
            if last is not None and last - first + len(entries) >= self._most:
                raise Unavailable(f"the outbox is full: {self._most} records wait to be delivered")
            rows = [(entry.id, entry.call, entry.body) for entry in entries]
            # The same record again: the first attempt was done, though nobody heard of it.
            database.executemany("INSERT OR IGNORE INTO records (id, call, body) VALUES (?, ?, ?)", rows)

        await self._do(work)

    async def take(self, owner: str, count: int, ttl: float) -> list[Stored] | None:
        """Return the first records that are not done."""

        def look(database: sqlite3.Connection) -> bool:
            return database.execute("SELECT 1 FROM records LIMIT 1").fetchone() is not None

        def work(database: sqlite3.Connection) -> list[Stored] | None:
            now = time.time()
            leader, until = database.execute("SELECT owner, until FROM courier").fetchone() or (owner, 0.0)
            # A clock that was set back must not keep everybody away.
            if leader != owner and now < until < now + 10 * ttl:
                return None
            database.execute("INSERT OR REPLACE INTO courier VALUES (1, ?, ?)", (owner, now + ttl))
            rows = database.execute("SELECT position, body FROM records ORDER BY position LIMIT ?", (count,))
            return [Stored(str(position), body) for position, body in rows]

        # Looking alone writes nothing to the disk, and is what happens most of the time.
        if await self._do(look, write=False):
            return await self._do(work)
        if self._wipe is not None and time.monotonic() > self._wipe:
            self._wipe = None
            await self._do(_empty_log, write=False)
        return []

    async def done(self, taken: Sequence[Stored]) -> None:
        """Forget records."""
        positions = [(int(stored.position),) for stored in taken]

        def work(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM records WHERE position = ?", positions)

        await self._do(work)
        self._wipe = time.monotonic() + WIPE_SECONDS

    async def set_aside(self, taken: Stored, reason: str) -> None:
        """Keep a record out of the others' way."""

        def work(database: sqlite3.Connection) -> None:
            position = int(taken.position)
            database.execute("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", (position, taken.body, reason))
            database.execute("DELETE FROM records WHERE position = ?", (position,))

        await self._do(work)

    async def waiting(self) -> int:
        """Return how many records are not done."""

        def work(database: sqlite3.Connection) -> int:
            return database.execute("SELECT COUNT(*) FROM records").fetchone()[0]

        return await self._do(work, write=False)

    async def aclose(self) -> None:
        """Close the file."""
        self._thread.submit(self._close)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * BOUND_SECONDS):
                await asyncio.to_thread(self._thread.shutdown)

    async def _do(self, work: Callable[[sqlite3.Connection], T], *, write: bool = True) -> T:
        def bounded() -> T:
            with _transaction(self._open(), write=write) as database:
                return work(database)

        try:
            async with asyncio.timeout(2 * BOUND_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._thread, bounded)
        except TimeoutError:
            raise Unavailable("the outbox's disk does not answer") from None
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the outbox's file fails ({type(error).__name__})") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            database = sqlite3.connect(self._path, timeout=BOUND_SECONDS, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                # On the disk when it is committed: a machine that loses power has said nothing it does not keep.
                database.execute("PRAGMA synchronous = FULL")
                # What is deleted is overwritten.
                database.execute("PRAGMA secure_delete = ON")
                database.executescript(_SCHEMA)
            except sqlite3.Error:
                database.close()
                raise
            self._connection = database
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _empty_log(database: sqlite3.Connection) -> None:
    """Write the log back into the file and cut it off; where somebody is at work just now, it is done another time."""
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, *, write: bool) -> Generator[sqlite3.Connection]:
    if not write:
        yield database
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
