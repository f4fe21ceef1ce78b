"""The hand-off from a call to the store: nobody waits for a disk or a network."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from itertools import islice

from agent import metrics
from agent.outbox.store import Entry, Store
from serve.errors import Unavailable
from serve.records import RECORD_BYTES, AnyRecord

logger = logging.getLogger("ray.serve.parley")

KEPT_MOST, KEPT_BYTES = 10_000, 64 * 2**20
"""What is kept here while the store is away. What comes on top of that is dropped, and said so."""

AT_ONCE, AT_ONCE_BYTES = 100, RECORD_BYTES
"""Given to the store together; one record may be as long as it likes."""

PAUSE_SECONDS = (0.1, 5.0)
TELL_SECONDS = 10.0
"""How often a trouble that lasts is logged."""


class Buffer:
    """Implements `agent.backend.Outbox`: a bounded queue in this process, and one task that empties it into the store.

    While the store is away, records stay here and go there later, in order. They are lost if this process dies
    meanwhile: until `put` is done, nobody was promised anything.

    Args:
        store: Closed with this.
        most: Records kept here.
        most_bytes: Of their JSON.
    """

    def __init__(self, store: Store, most: int = KEPT_MOST, most_bytes: int = KEPT_BYTES) -> None:
        self._store = store
        self._most, self._most_bytes = most, most_bytes
        self._kept: deque[tuple[Entry, asyncio.Future[bool]]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._told = 0.0
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._write(), name="outbox")

    @property
    def dropped(self) -> int:
        """How many records were dropped since this process began."""
        return self._dropped

    def put(self, record: AnyRecord) -> asyncio.Future[bool]:
        """Take a record."""
        safe: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            body = record.model_dump_json().encode()
        except ValueError:
            self._drop(safe, f"a {record.kind} that is no JSON", always=True)
            return safe
        if len(body) > RECORD_BYTES:
            self._drop(safe, f"a {record.kind} of {len(body)} bytes, the most is {RECORD_BYTES}", always=True)
        elif len(self._kept) >= self._most or self._bytes + len(body) > self._most_bytes:
            self._drop(safe, f"the store is away and {len(self._kept)} wait")
        else:
            self._kept.append((Entry(record.id, record.call, body), safe))
            metrics.OUTBOX_BUFFERED.set(len(self._kept))
            self._bytes += len(body)
            self._empty.clear()
            self._more.set()
        return safe

    async def flush(self, seconds: float) -> int:
        """Wait until everything is safe."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            pass
        return len(self._kept)

    async def aclose(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for _, safe in self._kept:
            self._drop(safe, "this process ends")
        self._kept.clear()
        await self._store.aclose()

    async def _write(self) -> None:
        pause = PAUSE_SECONDS[0]
        while True:
            await self._more.wait()
            batch = self._first()
            try:
                await self._store.append([entry for entry, _ in batch])
            except Unavailable as error:
                self._tell(f"records wait for the outbox, {len(self._kept)} by now: {error}")
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                pause = min(pause * 2, PAUSE_SECONDS[1])
                continue
            pause = PAUSE_SECONDS[0]
            for entry, safe in batch:
                self._kept.popleft()
                self._bytes -= len(entry.body)
                if not safe.done():
                    safe.set_result(True)
            metrics.OUTBOX_BUFFERED.set(len(self._kept))
            if not self._kept:
                self._more.clear()
                self._empty.set()

    def _first(self) -> list[tuple[Entry, asyncio.Future[bool]]]:
        size = 0
        for count, (entry, _) in enumerate(self._kept):
            size += len(entry.body)
            if count and (count == AT_ONCE or size > AT_ONCE_BYTES):
                return list(islice(self._kept, count))
        return list(self._kept)

    def _drop(self, safe: asyncio.Future[bool], why: str, *, always: bool = False) -> None:
        self._dropped += 1
        metrics.OUTBOX_DROPPED.add()
        if not safe.done():
            safe.set_result(False)
        self._tell(f"a record was dropped, {self._dropped} by now: {why}", always=always)

    def _tell(self, trouble: str, *, always: bool = False) -> None:
        if always or time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            logger.error(trouble)
