"""What Ray Serve says of the applications that run, asked seldom and never on the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger("ray.serve")

KNOWN_SECONDS = 3.0
"""An answer serves all who ask within that time."""

ANSWER_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Running:
    """An application, as Serve sees it.

    Attributes:
        status: Serve's: RUNNING, DEPLOYING, UNHEALTHY, DEPLOY_FAILED, NOT_STARTED or DELETING.
        message: What stands in the way; empty: nothing.
        deployed_at: Seconds since 1970.
        replicas: How many are in each of Serve's states, of all its deployments.
    """

    status: str
    message: str
    deployed_at: float
    replicas: Mapping[str, int]


class Serving:
    """Asks Serve's controller.

    Args:
        ask: `ray.serve.status` inside a replica; None: there is no Serve here.
    """

    def __init__(self, ask: Callable[[], Any] | None = None) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="serve-status")
        self._asked: Future[Any] | None = None
        self._known: dict[str, Running] | None = None
        self._until = 0.0

    async def applications(self) -> Mapping[str, Running] | None:
        """Return the applications by name; None: the controller does not answer."""
        if self._ask is None or time.monotonic() < self._until:
            return self._known
        # One question at a time: where the controller hangs, no thread is left behind for each request.
        if self._asked is None or self._asked.done():
            self._asked = self._thread.submit(self._ask)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await asyncio.shield(asyncio.wrap_future(self._asked))
            self._known = {name: _running(each) for name, each in status.applications.items()}
        except Exception as error:  # whatever it is, nothing is known now
            logger.warning("Serve does not say what runs: %s", type(error).__name__)
            self._known = None
        self._until = time.monotonic() + KNOWN_SECONDS
        return self._known


def _running(application: Any) -> Running:
    replicas: dict[str, int] = {}
    messages = [str(application.message)]
    for deployment in application.deployments.values():
        messages.append(str(deployment.message))
        for state, count in deployment.replica_states.items():
            name = str(getattr(state, "value", state))
            replicas[name] = replicas.get(name, 0) + count
    message = next((each for each in messages if each.strip()), "")
    status = getattr(application.status, "value", application.status)
    return Running(str(status), message, float(application.last_deployed_time_s), replicas)
