"""Which assistant takes a call: the one that is asked for, the one of the number that was called, or the default."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any, cast

from livekit import rtc

from agent.config import DEFAULT, AgentConfig
from serve.assistant import Assistant

logger = logging.getLogger("ray.serve.parley")

ATTRIBUTE = "parley.assistant"
"""Of the caller's participant, from the token: it is there as long as the caller, whoever carries the call."""

CALLED = "sip.trunkPhoneNumber"
"""LiveKit's attribute of a SIP participant: the number that was called."""

CALLER_SECONDS = 2.0
"""How long a call waits for its caller, where who answers depends on the number."""


class Assistants:
    """The assistants of a profile, by name, the default one first."""

    def __init__(self, config: AgentConfig) -> None:
        self.named = config.everybody()

    def __getitem__(self, name: str) -> Assistant:
        return self.named[name]

    def known(self, name: str) -> str:
        """Return the name; the default's, with a warning, where nobody has it."""
        if name in self.named:
            return name
        # What was asked for may be anything, so it is not logged.
        logger.warning("no assistant has the name that was asked for: the default one answers")
        return DEFAULT

    def choose(self, metadata: str, callers: Iterable[rtc.RemoteParticipant] = ()) -> str:
        """Return the name of the assistant for a call.

        Args:
            metadata: Of the dispatch: `{"assistant": NAME}`, or anything else.
            callers: Who is in the room.
        """
        attributes = [dict(caller.attributes) for caller in callers]
        if asked := asked_for(metadata) or next((each[ATTRIBUTE] for each in attributes if each.get(ATTRIBUTE)), None):
            return self.known(asked)
        called = {_digits(each[CALLED]) for each in attributes if each.get(CALLED)}
        return next((name for name, each in self.named.items() if called & set(map(_digits, each.numbers))), DEFAULT)

    async def of(self, metadata: str, room: rtc.Room) -> str:
        """Return the name of the assistant for the call in a room; waits for its caller where it depends on them."""
        depends = len(self.named) > 1 and not asked_for(metadata)
        if depends and not room.remote_participants:
            joined = asyncio.Event()

            def on_joined(_: rtc.RemoteParticipant) -> None:
                joined.set()

            room.on("participant_connected", on_joined)
            try:
                async with asyncio.timeout(CALLER_SECONDS):
                    await joined.wait()
            except TimeoutError:
                logger.info("nobody is there to say which assistant is wanted")
            finally:
                room.off("participant_connected", on_joined)
        return self.choose(metadata, room.remote_participants.values())


def asked_for(metadata: str) -> str | None:
    """Return the assistant that a dispatch asks for; other metadata is somebody else's, and asks for none."""
    try:
        value: Any = json.loads(metadata) if metadata else None
    except ValueError:
        return None
    name = cast("dict[str, Any]", value).get("assistant") if isinstance(value, dict) else None
    return name if isinstance(name, str) and name else None


def _digits(number: str) -> str:
    """Return a telephone number for comparison: its digits, with 00 for + taken away."""
    digits = "".join(each for each in number if each.isdigit())
    return digits.removeprefix("00")
