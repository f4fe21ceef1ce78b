"""Delivery: from the store to the sink, again and again until the sink has said yes."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from pydantic import ValidationError

from agent import metrics
from agent.backend import Sink
from agent.outbox.store import Store, Stored
from serve.errors import BadRequest, Unavailable
from serve.records import AnyRecord, read

logger = logging.getLogger("ray.serve.parley")

BATCH = 20
DELIVER_SECONDS = 10.0
"""How long the sink may take for a batch."""

LEAD_SECONDS = 15.0
"""How long others stay away after a courier was given records: longer than a delivery."""

LOOK_SECONDS = 0.25
"""How often the store is looked at while there is nothing to do."""

SHOW_SECONDS = 2.0
"""How often what waits is counted while there is something."""

PAUSE_SECONDS = (0.2, 10.0)


class Courier:
    """Delivers a store's records, in order, at least once.

    Any number may run on a store; one at a time is given records, and another goes on when it is gone.

    Args:
        store: Closed with this.
        sink: Where they go.
        owner: Id of this process.
        lead: Seconds for which others stay away.
    """

    def __init__(self, store: Store, sink: Sink, owner: str, lead: float = LEAD_SECONDS) -> None:
        self._store, self._sink, self._owner, self._lead = store, sink, owner, lead
        self._batch = BATCH
        self._looked = 0.0

    async def run(self) -> None:
        """Deliver for as long as this task lives."""
        pause = PAUSE_SECONDS[0]
        while True:
            try:
                found = await self.once()
            except Exception as error:  # whatever a sink raises, the records are still there
                logger.warning("records could not be delivered (%s), again in %.1f s", type(error).__name__, pause)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                pause = min(pause * 2, PAUSE_SECONDS[1])
                # Large ones may have taken too long together.
                self._batch = max(1, self._batch // 2)
                continue
            pause, self._batch = PAUSE_SECONDS[0], BATCH
            if not found:
                await asyncio.sleep(LOOK_SECONDS)

    async def once(self) -> int:
        """Deliver one batch; return how many records it had. 0: nothing to do, or another courier does it.

        Raises:
            Exception: Of the store or the sink; what was not delivered is still there.
        """
        taken = await self._store.take(self._owner, self._batch, self._lead)
        if not taken:
            self._show(0, 0.0)
            return 0
        known: list[tuple[Stored, AnyRecord]] = []
        for stored in taken:
            try:
                known.append((stored, read(stored.body)))
            except ValidationError:
                await self._refuse(stored, "no record that is known here")
        if known:
            await self._look(known[0][1])
            await self._deliver(known)
        return len(taken)

    async def aclose(self) -> None:
        """Free the store; end the task of `run` first."""
        await self._store.aclose()

    async def _deliver(self, known: list[tuple[Stored, AnyRecord]]) -> None:
        """Deliver together; where the sink refuses one for good, one by one."""
        try:
            await self._hand(known)
        except BadRequest as error:
            if len(known) == 1:
                await self._refuse(known[0][0], str(error))
                return
            for each in known:
                await self._deliver([each])

    async def _hand(self, known: list[tuple[Stored, AnyRecord]]) -> None:
        try:
            async with asyncio.timeout(DELIVER_SECONDS):
                await self._sink.deliver([record for _, record in known])
        except TimeoutError:
            raise Unavailable(f"the sink took longer than {DELIVER_SECONDS:.0f} s") from None
        await self._store.done([stored for stored, _ in known])
        metrics.OUTBOX_DELIVERED.add(len(known))

    async def _look(self, oldest: AnyRecord) -> None:
        """Show what waits, now and then; whoever does not deliver shows nothing."""
        now = time.monotonic()
        if now - self._looked >= SHOW_SECONDS:
            self._looked = now
            self._show(await self._store.waiting(), max(0.0, time.time() - oldest.time))

    def _show(self, waiting: int, age: float) -> None:
        metrics.OUTBOX_WAITING.set(waiting)
        metrics.OUTBOX_AGE.set(age)

    async def _refuse(self, stored: Stored, reason: str) -> None:
        metrics.OUTBOX_SET_ASIDE.add()
        logger.error("a record is set aside, position %s: %s", stored.position, reason)
        await self._store.set_aside(stored, reason)
