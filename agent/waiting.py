"""Callers who found every line busy: told so, kept in order, and called as soon as a line is free."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
from livekit import api
from livekit.agents import utils

from agent.livekit import livekit_api

logger = logging.getLogger("ray.serve")

LOOK_SECONDS = 3.0
"""How often the first in the queue is looked after while nothing gets free: callers hang up."""

CLAIM_SECONDS = 5.0
"""How long a slot is kept for a caller whose new job is on its way."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot on an agent replica; closing the stack gives it back."""

    selection: Any
    stack: AsyncExitStack


class WaitingRoom:
    """The queue of rooms that wait for an agent, first come first served.

    Args:
        agent_name: The name under which LiveKit dispatches.
        reserve: Waits for a free slot, for a number of seconds.
    """

    def __init__(self, agent_name: str, reserve: Callable[[float], Awaitable[Reservation | None]]) -> None:
        self._agent_name = agent_name
        self._reserve = reserve
        self._rooms: list[str] = []
        self._told: dict[str, int] = {}
        self._held: dict[str, tuple[Reservation, asyncio.Event]] = {}
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._serve(), name="waiting room")

    @property
    def crowded(self) -> bool:
        """Somebody waits already; a new caller goes behind them."""
        return bool(self._rooms)

    def add(self, room: str) -> None:
        """Put a room at the end of the queue, once."""
        if room not in self._rooms:
            self._rooms.append(room)
            self._changed.set()

    def freed(self) -> None:
        """A call has ended."""
        self._changed.set()

    def claim(self, room: str) -> Reservation | None:
        """Return the slot that is held for a room whose new job has come."""
        if room not in self._held:
            return None
        reservation, claimed = self._held.pop(room)
        claimed.set()
        return reservation

    async def aclose(self) -> None:
        """Stop; slots that are held are given back."""
        await utils.aio.cancel_and_wait(self._task)
        for reservation, _ in self._held.values():
            await reservation.stack.aclose()

    async def _serve(self) -> None:
        while True:
            try:
                await self._changed.wait()
                self._changed.clear()
                while self._rooms:
                    await self._first()
            except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the waiting room lost LiveKit: %s", type(error).__name__)
                await asyncio.sleep(1)
                self._changed.set()

    async def _first(self) -> None:
        """Tell everybody where they stand, then wait a while for a slot for the first."""
        async with livekit_api() as livekit:
            await self._tell(livekit)
            if not self._rooms:
                return
            room = self._rooms[0]
            reservation = await self._reserve(LOOK_SECONDS)
            if reservation is None:
                return
            self._rooms.remove(room)
            claimed = asyncio.Event()
            self._held[room] = (reservation, claimed)
            try:
                await _note(livekit, room, {"status": "answered"})
                self._told.pop(room, None)
                request = api.CreateAgentDispatchRequest(agent_name=self._agent_name, room=room)
                await livekit.agent_dispatch.create_dispatch(request)
                async with asyncio.timeout(CLAIM_SECONDS):
                    await claimed.wait()
            except (api.TwirpError, TimeoutError):
                logger.info("nobody came for the slot of %s", room)
            finally:
                if (held := self._held.pop(room, None)) is not None:
                    await held[0].stack.aclose()

    async def _tell(self, livekit: api.LiveKitAPI) -> None:
        """Drop rooms whose caller has left, and tell the others their place."""
        for room in list(self._rooms):
            people = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
            if not people.participants:
                self._rooms.remove(room)
                self._told.pop(room, None)
        for place, room in enumerate(self._rooms, start=1):
            if self._told.get(room) != place:
                await _note(livekit, room, {"status": "busy", "position": place})
                self._told[room] = place


async def _note(livekit: api.LiveKitAPI, room: str, status: dict[str, Any]) -> None:
    """Tell everyone in a room, by its metadata, what happens to the call."""
    request = api.UpdateRoomMetadataRequest(room=room, metadata=json.dumps({"parley": status}))
    await livekit.room.update_room_metadata(request)
