"""Who is in the room: whom the agent serves, and when nobody is left.

One caller is served at a time, the one who has been there longest: heard, transcribed and answered. Everybody else in
the room hears the agent, and is not heard by it. Agents, recorders (egress) and streams (ingress) are no people.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession, utils
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

logger = logging.getLogger("ray.serve.parley")

ALONE_SECONDS = 5.0
"""A call in whose room there is nobody for this long is over."""

RETURN_SECONDS = 20.0
"""The same, after LiveKit itself was away: callers' browsers come back up to 7 s apart."""

SIP = rtc.ParticipantKind.PARTICIPANT_KIND_SIP
_GONE = {
    rtc.DisconnectReason.CLIENT_INITIATED,
    rtc.DisconnectReason.PARTICIPANT_REMOVED,
    rtc.DisconnectReason.ROOM_DELETED,
    rtc.DisconnectReason.ROOM_CLOSED,
    rtc.DisconnectReason.USER_REJECTED,
    rtc.DisconnectReason.USER_UNAVAILABLE,
}
"""Reasons after which nobody comes back by themselves; after the others the connection may be found again."""


class People:
    """The people of one call.

    Attributes:
        served: Identity of the caller who is served; None: nobody is there.

    Args:
        room: Connected.
        end: Ends the call, for a reason.
        alone: Seconds for which nobody may be there.
        back: The same, after our own connection was lost.
    """

    def __init__(
        self,
        room: rtc.Room,
        end: Callable[[str], None],
        alone: float = ALONE_SECONDS,
        back: float = RETURN_SECONDS,
    ) -> None:
        self._room, self._end, self._alone, self._back = room, end, alone, back
        self._away = False
        self._session: AgentSession[Any] | None = None
        self._waiting: asyncio.Task[None] | None = None
        here = self.here()
        self.served = here[0].identity if here else None
        room.on("participant_connected", self._on_joined)
        room.on("participant_disconnected", self._on_left)
        room.on("reconnecting", self._on_away)
        room.on("reconnected", self._on_back)

    def here(self) -> list[rtc.RemoteParticipant]:
        """Return who is there, the one who came first before the others."""
        people = [each for each in self._room.remote_participants.values() if is_person(each)]
        return sorted(people, key=lambda each: each.joined_at.timestamp() if each.joined_at else float("inf"))

    def start(self, session: AgentSession[Any]) -> None:
        """The session has begun: whoever is served now, it listens to them."""
        self._session = session
        if self.served is not None:
            session.room_io.set_participant(self.served)
        elif not self.here():
            self._wait("nobody came")

    async def aclose(self) -> None:
        """Stop."""
        self._room.off("participant_connected", self._on_joined)
        self._room.off("participant_disconnected", self._on_left)
        self._room.off("reconnecting", self._on_away)
        self._room.off("reconnected", self._on_back)
        if self._waiting is not None:
            await utils.aio.cancel_and_wait(self._waiting)

    def _on_joined(self, who: rtc.RemoteParticipant) -> None:
        if not is_person(who):
            return
        if self._waiting is not None:
            self._waiting.cancel()
        if self.served is None:
            self._serve(who.identity)

    def _on_left(self, who: rtc.RemoteParticipant) -> None:
        if not is_person(who):
            return
        others = self.here()
        if who.identity == self.served:
            self.served = None
            if others:
                logger.info("call %s: the caller has left, another one is served", self._room.name)
                self._serve(others[0].identity)
        if others or self._away:
            return
        # A phone has no second try: whoever calls again is in another room.
        if who.disconnect_reason in _GONE or who.kind == SIP:
            self._end("caller left")
        elif self._session is not None:
            self._wait("caller lost")

    def _on_away(self) -> None:
        """The line is ours that broke: everybody is listed as gone, and nobody has left."""
        self._away = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _on_back(self) -> None:
        self._away = False
        if not self.here() and self._session is not None:
            self._wait("caller lost", self._back)

    def _serve(self, identity: str) -> None:
        self.served = identity
        if self._session is not None:
            self._session.room_io.set_participant(identity)

    def _wait(self, reason: str, seconds: float | None = None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = asyncio.create_task(self._empty(reason, seconds or self._alone), name="people")

    async def _empty(self, reason: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._end(reason)


def is_person(who: rtc.RemoteParticipant) -> bool:
    """Return whether a participant is a person, on a page or a phone, and nobody's avatar."""
    return who.kind in DEFAULT_PARTICIPANT_KINDS and ATTRIBUTE_PUBLISH_ON_BEHALF not in who.attributes
