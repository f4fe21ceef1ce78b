"""Work that goes on beside requests: deliveries, deletions, following calls. Every replica runs it, so each piece must
be right with any number of them at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

logger = logging.getLogger("ray.serve")

PAUSE_SECONDS = 5.0
"""After a failure."""

Work = Callable[[], Awaitable[None]]


class Background:
    """Runs each piece of work again and again until it is closed."""

    def __init__(self) -> None:
        self._works: dict[str, tuple[Work, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, seconds: float, name: str, work: Work) -> None:
        """Add work that is done so often; what it raises is logged by its type, and it is tried again later."""
        self._works[name] = (work, seconds)

    def start(self) -> None:
        """Begin, on the current event loop."""
        self._tasks = [
            asyncio.create_task(self._run(name, work, seconds), name=name)
            for name, (work, seconds) in self._works.items()
        ]

    async def aclose(self) -> None:
        """End all of it; what was under way is begun again by another replica, or by the next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, work: Work, seconds: float) -> None:
        while True:
            pause = seconds
            try:
                await work()
            except Exception as error:  # whatever it is, it must not end the work for good
                logger.warning("%s failed (%s), again later", name, type(error).__name__)
                pause = max(seconds, PAUSE_SECONDS)
            # Jitter: replicas that began together must not meet each time.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
