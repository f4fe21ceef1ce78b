"""Holds the requests of calls: starts them on agent replicas, and starts them again where a replica is lost.

A call is one streaming request on the `agent` deployment. When its stream breaks, the replica is gone: what it left in
the room is removed, and the call goes on elsewhere from what the state has kept. When a dispatcher is gone, the replica
asks another one to hold the call (`adopt`), and nobody in the room notices.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import aiohttp
from livekit import api
from ray.serve.exceptions import RayServeException

from agent import metrics
from agent.config import AgentConfig, CallRequest
from agent.livekit import agent_token, livekit_api, tell_room
from agent.state import Lease, State
from serve.errors import Overloaded, ParleyError, Unavailable
from serve.settings import settings

logger = logging.getLogger("ray.serve")

RESUME_SECONDS = 60.0
"""How long a broken call waits for another replica; its caller is in the room and hears nothing."""

MOST_LOSSES = 5
"""Replicas that one call may lose within `RESUME_SECONDS`: a call that breaks every one must not go round for ever."""

PAUSE_SECONDS = 0.4
"""Before the third replica; twice as long before each one after that."""

ADOPT_SECONDS = 5.0
MOVE_TOPIC = "parley.move"
"""Data on this topic, from LiveKit's API alone, asks the agent to let the call go at the end of a turn."""

Outcome = Literal["ended", "moved", "lost", "full", "refused", "given up"]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot on an agent replica; closing the stack gives it back."""

    selection: Any
    stack: AsyncExitStack


@dataclass(slots=True)
class Held:
    """A call whose request is held here.

    Attributes:
        request: What was asked last.
        stream: The response.
        replica: Id of the replica that carries it.
        epoch: Of its lease; 0: not known yet.
        moving: It was asked to move.
    """

    request: CallRequest
    stream: Any
    replica: str
    epoch: int = 0
    moving: bool = False


async def nothing(event: Event) -> None:
    """Hear of an event, and do nothing."""


class Carrier:
    """Holds calls.

    Args:
        dispatcher: Id of the dispatcher that this is part of.
        config: How many calls a replica takes, and how many slots stay free.
        state: Says who carries which call.
        freed: Told when a slot may be free.
    """

    def __init__(self, dispatcher: str, config: AgentConfig, state: State, freed: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._slots, self._spare = config.calls_per_replica, config.spare_calls
        self._state = state
        self._freed = freed
        self.agents: Any = None
        """Handle of the `agent` deployment, once it is there."""
        self.held: dict[str, Held] = {}

    async def admits(self) -> bool:
        """Return whether a new call may be taken: slots that are spare are for calls that lose theirs."""
        if not self._spare:
            return True
        try:
            living = sum(lease.seconds_left > 0 for lease in await self._state.leases())
        except ParleyError as error:
            logger.warning("calls cannot be counted (%s): taking who comes", error.code)
            return True
        return living < len(self.replicas()) * self._slots - self._spare

    def replicas(self) -> set[str]:
        """Return the ids of the replicas that Serve sends requests to; none that is drained, or whose node is."""
        router: Any = self.agents._router  # no public way to ask
        return {each.unique_id for each in router._asyncio_router._active_request_router.curr_replicas}

    async def reserve(self, timeout: float) -> Reservation | None:  # noqa: ASYNC109  # None is an answer here
        """Return a slot on an agent replica, or None when all are taken."""
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(timeout):
                handle = self.agents.options(method_name="call", stream=True)
                selection = await stack.enter_async_context(handle.choose_replica())
        except (TimeoutError, ParleyError, RayServeException):
            await stack.aclose()
            return None
        return Reservation(selection, stack)

    async def carry(
        self, request: CallRequest, reservation: Reservation, tell: Callable[[Event], Awaitable[None]] = nothing
    ) -> Outcome:
        """Hold a call until it ends, on as many replicas as it takes.

        Args:
            request: The call; where its token is empty, one is made.
            reservation: Where it begins.
            tell: Told its events.

        Returns:
            "ended"; "refused" where somebody else carries it; "full" or "lost" where no replica took it in time;
            "given up" where it broke each one that did.
        """
        request = replace(request, dispatcher=self._dispatcher)
        if not request.token:
            request = self._named(request)
        outcome: Outcome = "lost"
        gone_since = 0.0
        losses: list[float] = []
        while True:
            async with reservation.stack:
                handle = self.agents.options(method_name="call", stream=True)
                stream = handle.dispatch(reservation.selection, request)
                held = Held(request, stream, reservation.selection.replica_id)
                outcome = await self._follow(held, tell)
            if outcome in ("ended", "refused"):
                return outcome
            metrics.CALLS_BROKEN.add(outcome=outcome)
            gone_since = gone_since or time.monotonic()
            if held.epoch:
                request, gone_since = replace(request, over=held.epoch), time.monotonic()
            if outcome != "moved":
                logger.warning("call %s: %s, trying another replica", request.room, outcome)
                await self._remove(request)
            if outcome == "full":
                await asyncio.sleep(PAUSE_SECONDS)  # nobody tells when a slot is free, or the state is back
            if outcome == "lost":
                losses = [when for when in losses if time.monotonic() - when < RESUME_SECONDS] + [time.monotonic()]
            if len(losses) > MOST_LOSSES:
                metrics.CALLS_BROKEN.add(outcome="given up")
                await self._give_up(request.room, len(losses))
                return "given up"
            if outcome == "lost" and len(losses) > 1:
                await asyncio.sleep(PAUSE_SECONDS * 2 ** (len(losses) - 2))
            request = self._named(request)
            left = RESUME_SECONDS - (time.monotonic() - gone_since)
            again = await self.reserve(left) if left > 0 else None
            if again is None:
                return outcome
            reservation = again

    async def adopt(self, room: str, replica: str) -> None:
        """Hold the request of a call that goes on without a dispatcher; returns when it has ended."""
        handle = self.agents.options(method_name="adopt", stream=True, session_id=replica)
        request = CallRequest(room, room, settings().livekit_url, "", dispatcher=self._dispatcher)
        held = Held(request, handle.remote(room, self._dispatcher), replica)
        outcome = await self._follow(held, nothing)
        if outcome in ("moved", "lost") and held.epoch:
            await self._again(replace(request, over=held.epoch, identity=held.request.identity))

    async def rescue(self, lease: Lease) -> None:
        """Start a call again whose replica and dispatcher are both gone."""
        async with livekit_api() as livekit:
            people = await livekit.room.list_participants(api.ListParticipantsRequest(room=lease.call))
        callers = [each for each in people.participants if each.kind != api.ParticipantInfo.Kind.AGENT]
        if not callers:
            # Where LiveKit was lost too, they may come back, and find their conversation: so it is not dropped.
            await self._state.release(lease)
            return
        agents = [each.identity for each in people.participants if each.kind == api.ParticipantInfo.Kind.AGENT]
        logger.warning("call %s was left by its agent and its dispatcher: starting it again", lease.call)
        ghost = agents[0] if agents else ""
        request = CallRequest(lease.call, lease.call, settings().livekit_url, "", over=lease.epoch, identity=ghost)
        await self._again(request)

    async def move(self) -> None:
        """Ask calls on replicas that are about to go to let go at the end of a turn."""
        staying = self.replicas()
        for held in list(self.held.values()):
            if held.moving or not held.epoch or not staying or held.replica in staying:
                continue
            held.moving = True
            logger.info("call %s: its replica is going, so it moves", held.request.room)
            try:
                async with livekit_api() as livekit:
                    wish = api.SendDataRequest(
                        room=held.request.room,
                        data=b"{}",
                        kind=api.DataPacket.Kind.RELIABLE,
                        topic=MOVE_TOPIC,
                        destination_identities=[held.request.identity],
                    )
                    await livekit.room.send_data(wish)
            except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
                logger.info("call %s was not told to move: %s", held.request.room, type(error).__name__)
                held.moving = False

    async def _again(self, request: CallRequest) -> None:
        await self._remove(request)
        reservation = await self.reserve(RESUME_SECONDS)
        if reservation is None:
            logger.error("call %s: no replica took it up", request.room)
            return
        await self.carry(self._named(request), reservation)

    async def _follow(self, held: Held, tell: Callable[[Event], Awaitable[None]]) -> Outcome:
        """Pass a call's events on until its stream ends, and say how it ended."""
        room = held.request.room
        self.held[room] = held
        outcome: Outcome = "lost"
        try:
            async for event in held.stream:
                match event["type"]:
                    case "claimed":
                        held.epoch = event["epoch"]
                        held.request = replace(held.request, identity=event["identity"])
                    case "refused":
                        outcome = "refused"
                    case "call_moved":
                        outcome = "moved"
                    case "cleanup":
                        outcome = "moved" if event["reason"] == "moved" else "ended"
                    case _:
                        pass
                await tell(event)
                if event["type"] != "turn":
                    logger.info("call %s: %s", room, event["type"])
                if outcome == "moved":
                    break  # the next one need not wait until this one has left the room
        except Exception as raw:  # Ray raises an actor's death and the call's own error alike
            # The state may be away: it is no fault of the call's.
            full = isinstance(getattr(raw, "cause", raw), Overloaded | Unavailable)
            outcome = "full" if full else "lost"
            logger.warning("call %s broke: %s", room, type(raw).__name__)
        finally:
            held.stream.cancel()
            if self.held.get(room) is held:
                del self.held[room]
            self._freed()
        return outcome

    async def _give_up(self, room: str, losses: int) -> None:
        """Leave a call that breaks who takes it: nobody finds it again, and the caller is told."""
        logger.error("call %s broke %d times: it is at fault itself, and given up", room, losses)
        try:
            for lease in await self._state.leases():
                if lease.call == room and await self._state.release(lease):
                    await self._state.drop(room)
            async with livekit_api() as livekit, asyncio.timeout(ADOPT_SECONDS):
                await tell_room(livekit, room, {"status": "failed"})
        except (ParleyError, api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("call %s: given up, and not told (%s)", room, type(error).__name__)

    async def _remove(self, request: CallRequest) -> None:
        """Take what a lost replica left out of the room: else the caller sees an agent that says nothing."""
        if not request.identity:
            return
        try:
            async with livekit_api() as livekit, asyncio.timeout(ADOPT_SECONDS):
                ghost = api.RoomParticipantIdentity(room=request.room, identity=request.identity)
                await livekit.room.remove_participant(ghost)
        except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            logger.info("no ghost to remove in %s (%s)", request.room, type(error).__name__)

    def _named(self, request: CallRequest) -> CallRequest:
        """Give the call's next agent a name and a token of its own: LiveKit's assignment covers the first only."""
        identity = f"agent-{uuid.uuid4().hex[:12]}"
        return replace(
            request, identity=identity, token=agent_token(request.room, identity), dispatcher=self._dispatcher
        )


async def ask_to_adopt(dispatchers: Any, room: str, replica: str) -> None:
    """Ask any dispatcher to hold a call's request.

    Raises:
        Unavailable: None answered.
    """
    try:
        async with asyncio.timeout(ADOPT_SECONDS):
            await dispatchers.options(method_name="adopt").remote(room, replica)
    except Exception as error:  # whatever it is, nobody holds the call now
        raise Unavailable(f"no dispatcher took the call up ({type(error).__name__})") from None
