"""Which assistant takes a call: the one that is asked for, the one of the number that was called, or the default."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any, cast

from livekit import rtc

from agent.config import DEFAULT, AgentConfig
from agent.directory import Directory, Entry
from agent.library import Read
from serve.assistant import Assistant
from serve.errors import Unavailable

logger = logging.getLogger("ray.serve.parley")

ATTRIBUTE = "parley.assistant"
"""Of the caller's participant, from the token: it is there as long as the caller, whoever carries the call."""

TENANT = "parley.tenant"
"""Of the same: whose call it is."""

CALLED = "sip.trunkPhoneNumber"
"""LiveKit's attribute of a SIP participant: the number that was called."""

CALLER_SECONDS = 2.0
"""How long a call waits for its caller, where who answers depends on the number."""


class Assistants:
    """Who may answer one call: the assistants of a profile, the default one first, and those of its tenant.

    Args:
        config: Has the profile's.
        directory: Knows the tenants'; None: there are none.
    """

    def __init__(self, config: AgentConfig, directory: Directory | None = None) -> None:
        self.named = config.everybody()
        self.tenant = ""
        """Whose call it is; "": the default one's."""
        self._directory = directory
        self._entries: dict[str, Entry] = {}
        self._others: dict[str, tuple[str, str]] = {}
        """Reference and tenant of those who are known by name only."""

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
        callers = list(room.remote_participants.values())
        asked, tenant = wanted(metadata, callers)
        if asked and asked not in self.named and self._directory is not None:
            entry = await self._directory.find(asked, tenant)
            if entry is not None:
                return self._take(entry)
        return self.choose(metadata, callers)

    async def again(self, name: str, kept: dict[str, Any]) -> str:
        """Return the name of who answered before, on another replica: as they were, whatever they are now.

        Args:
            name: Theirs.
            kept: What `kept` gave there.
        """
        if not kept:
            return self.known(name)
        entry = Entry.of(kept, kept["tenant"])
        if self._directory is not None:
            # The version is the same; what its files say, and whom it knows, is not in the record.
            entry = await self._directory.find(entry.ref, entry.tenant, entry) or entry
        return self._take(entry)

    async def ready(self, name: str) -> None:
        """See to it that all is known of an assistant who takes over.

        Raises:
            Unavailable: It is a tenant's, and cannot be had.
        """
        if name not in self._others or name in self._entries:
            return
        ref, tenant = self._others[name]
        entry = await self._directory.find(ref, tenant) if self._directory is not None else None
        if entry is None:
            raise Unavailable("the directory of assistants does not have it")
        self._take(entry)

    def shelf(self, name: str) -> tuple[Read, ...]:
        """Return what an assistant knows."""
        return self._entries[name].shelf if name in self._entries else ()

    def kept(self, name: str) -> dict[str, Any]:
        """Return what another replica needs to go on with an assistant; {}: it is the profile's."""
        return self._entries[name].json() if name in self._entries else {}

    def _take(self, entry: Entry) -> str:
        strangers = {each.name: each for each in entry.others if each.name not in self.named}
        described = {name: Assistant(description=each.description) for name, each in strangers.items()}
        self.named = {**self.named, **described, entry.name: entry.assistant}
        self._others |= {name: (each.ref, entry.tenant) for name, each in strangers.items()}
        self._entries[entry.name] = entry
        return entry.name


def wanted(metadata: str, callers: Iterable[rtc.RemoteParticipant]) -> tuple[str, str]:
    """Return the assistant that a call asks for, and whose call it is; "": it does not say.

    What the dispatch says goes before what the callers' tokens say: both are signed, or an operator's.
    """
    attributes = [dict(caller.attributes) for caller in callers]
    of_callers = (next((each[name] for each in attributes if each.get(name)), "") for name in (ATTRIBUTE, TENANT))
    asked, tenant = of_callers
    return asked_for(metadata) or asked, _said(metadata, "tenant") or tenant


def asked_for(metadata: str) -> str | None:
    """Return the assistant that a dispatch asks for; other metadata is somebody else's, and asks for none."""
    return _said(metadata, "assistant")


def _said(metadata: str, key: str) -> str | None:
    try:
        value: Any = json.loads(metadata) if metadata else None
    except ValueError:
        return None
    said = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
    return said if isinstance(said, str) and said else None


def _digits(number: str) -> str:
    """Return a telephone number for comparison: its digits, with 00 for + taken away."""
    digits = "".join(each for each in number if each.isdigit())
    return digits.removeprefix("00")
