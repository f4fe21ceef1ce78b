"""What one replica does for the backend: keep records of its calls, and take a turn at delivering everybody's."""

from __future__ import annotations

import asyncio
import logging

from agent.backend import Backend
from agent.config import AgentConfig
from agent.outbox import Buffer, Courier, open_courier, open_outbox

logger = logging.getLogger("ray.serve.parley")

FLUSH_SECONDS = 2.0
"""How long the end of a call waits for its records to be safe."""


class Delivery:
    """An outbox and a courier, on the current event loop."""

    def __init__(self, outbox: Buffer, courier: Courier) -> None:
        self._outbox, self._courier = outbox, courier
        self._task = asyncio.create_task(courier.run(), name="courier")

    @classmethod
    def open(cls, config: AgentConfig, owner: str) -> Delivery | None:
        """Return the delivery that a profile asks for (`agent.backend`); None: nobody wants records."""
        if config.backend == "none":
            return None
        return cls(open_outbox(config), open_courier(config, owner))

    def of(self, call: str, epoch: int) -> Backend:
        """Return the backend of one call, for one owner of it."""
        return Backend(self._outbox, call, epoch)

    async def flush(self) -> None:
        """Wait a moment for what was told to be safe."""
        if left := await self._outbox.flush(FLUSH_SECONDS):
            logger.warning("%d records are not safe yet: they stay in memory", left)
