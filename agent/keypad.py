"""Telephone keys: what a caller on a phone presses becomes a message to the assistant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, utils

logger = logging.getLogger("ray.serve.parley")

PAUSE_SECONDS = 1.5
"""Without another key: the caller has finished, a number of several digits is one message."""

MOST = 64
"""Keys of one message."""


class Keypad:
    """Collects the keys of one call.

    Args:
        session: Who is told.
        served: Returns the identity of the caller: keys of others do not count.
        pause: Seconds.
    """

    def __init__(
        self, session: AgentSession[Any], served: Callable[[], str | None], pause: float = PAUSE_SECONDS
    ) -> None:
        self._session, self._served, self._pause = session, served, pause
        self._keys: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def pressed(self, key: rtc.SipDTMF) -> None:
        """Take a key; a handler of `sip_dtmf_received`."""
        if key.participant is None or key.participant.identity != self._served() or len(self._keys) >= MOST:
            return
        self._keys.append(key.digit)
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._finish(), name="keypad")

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            await utils.aio.cancel_and_wait(self._task)

    async def _finish(self) -> None:
        await asyncio.sleep(self._pause)
        # From here on a further key begins a message of its own.
        self._task, keys = None, self._keys
        self._keys = []
        try:
            # As a typed message does: what is being said is over.
            await self._session.interrupt()
            self._session.generate_reply(user_input=message(keys))
        except RuntimeError:
            logger.info("keys were pressed as the call ended")


def message(keys: list[str]) -> str:
    """Return what the assistant is told."""
    return f"The caller pressed {' '.join(keys)}."
