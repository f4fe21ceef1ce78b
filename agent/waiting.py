"""Callers who found every line busy: told so, kept in order, and called as soon as a line is free.

The queue is in the state, so that all dispatchers see one; one of them at a time leads and serves it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import aiohttp
from livekit import api
from livekit.agents import utils

from agent import metrics
from agent.carrier import Carrier, Reservation
from agent.config import CallRequest
from agent.livekit import livekit_api, tell_room
from agent.state import State
from serve.errors import ParleyError
from serve.settings import settings

logger = logging.getLogger("ray.serve")

LOOK_SECONDS = 3.0
"""How often the first in the queue is looked after while nothing gets free: callers hang up."""

LEAD_SECONDS = 8.0
_QUEUE = "waiting"


class WaitingRoom:
    """The queue of rooms that wait for an agent, first come first served.

    Args:
        dispatcher: Id of the dispatcher that this is part of.
        state: Has the queue.
        carrier: Finds slots and carries calls.
    """

    def __init__(self, dispatcher: str, state: State, carrier: Carrier) -> None:
        self._dispatcher = dispatcher
        self._state = state
        self._carrier = carrier
        self._told: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._task = asyncio.create_task(self._serve(), name="waiting room")

    async def crowded(self) -> bool:
        """Return whether somebody waits already; a new caller goes behind them."""
        try:
            return bool(await self._state.waiting())
        except ParleyError as error:
            logger.warning("the queue cannot be seen (%s): taking who comes", error.code)
            return False

    async def add(self, room: str) -> None:
        """Put a room at the end of the queue, once."""
        try:
            await self._state.wait(room)
        except ParleyError as error:
            logger.error("call %s cannot wait: %s", room, error.code)
        self._changed.set()

    def freed(self) -> None:
        """A call has ended."""
        self._changed.set()

    async def aclose(self) -> None:
        """Stop."""
        await utils.aio.cancel_and_wait(self._task)

    async def _serve(self) -> None:
        while True:
            try:
                # Who does not lead looks now and then whether the leader is gone.
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                while await self._state.waiting() and await self._state.lead(_QUEUE, self._dispatcher, LEAD_SECONDS):
                    await self._first()
                # Nobody waits, or another dispatcher looks after them and says how many.
                metrics.CALLS_WAITING.set(0)
            except (ParleyError, api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the waiting room: %s", type(error).__name__)
                await asyncio.sleep(1)  # what failed is given time to come back

    async def _first(self) -> None:
        """Tell everybody where they stand, then wait a while for a slot for the first."""
        async with livekit_api() as livekit:
            rooms = await self._tell(livekit)
            if not rooms:
                return
            reservation = await self._slot()
            if reservation is None:
                return
            room = rooms[0]
            await self._state.leave(room)
            self._told.pop(room, None)
            self._answer(room, reservation, await _metadata(livekit, room))
            await tell_room(livekit, room, {"status": "answered"})

    async def _slot(self) -> Reservation | None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + LOOK_SECONDS
        while not await self._carrier.admits():
            if clock() > deadline:
                return None
            await asyncio.sleep(0.2)  # a lease is given up somewhere, and nobody tells
        return await self._carrier.reserve(max(0.5, deadline - clock()))

    def _answer(self, room: str, reservation: Reservation, metadata: str) -> None:
        """Carry the call of a room; LiveKit's job was refused long ago, so the agent comes with a token of our own."""
        request = CallRequest(uuid.uuid4().hex, room, settings().livekit_url, "", metadata=metadata)
        task = asyncio.create_task(self._carrier.carry(request, reservation))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _tell(self, livekit: api.LiveKitAPI) -> list[str]:
        """Drop rooms whose caller has left, tell the others their place, and return them."""
        here: list[str] = []
        for room in await self._state.waiting():
            people = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
            if people.participants:
                here.append(room)
            else:
                await self._state.leave(room)
                self._told.pop(room, None)
        metrics.CALLS_WAITING.set(len(here))
        for place, room in enumerate(here, start=1):
            if self._told.get(room) != place:
                await tell_room(livekit, room, {"status": "busy", "position": place})
                self._told[room] = place
        return here


async def _metadata(livekit: api.LiveKitAPI, room: str) -> str:
    """Return what the dispatch of a room's agent said; the job that brought it was refused."""
    try:
        dispatches = await livekit.agent_dispatch.list_dispatch(room)
    except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
        logger.info("the dispatch of %s is not known: %s", room, type(error).__name__)
        return ""
    return next((each.metadata for each in dispatches if each.metadata), "")
