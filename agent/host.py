"""The Serve deployment that carries calls: each is one streaming request that lasts as long as the call.

A call belongs to its replica. Whoever held its request may vanish: the call goes on, and the replica asks another
dispatcher to hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import importlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import ray.serve
from livekit import local_inference
from ray.serve.config import RequestRouterConfig
from ray.serve.context import _unset_request_context  # pyright: ignore[reportPrivateUsage]  # no public way

from agent import metrics
from agent.carrier import ask_to_adopt
from agent.config import API, DEPLOYMENT, DISPATCHER, AgentConfig, CallRequest
from agent.directory import Directory
from agent.hooks import Hooks
from agent.parcels import fetch
from agent.router import CallRouter
from agent.state import Lease, connect
from serve import logs, tracing
from serve.client import Models
from serve.config import Routes
from serve.errors import Overloaded, ParleyError, Unavailable

if TYPE_CHECKING:
    from agent.delivery import Delivery
    from agent.live import Live
    from agent.session import Call, Event

logger = logging.getLogger("ray.serve")
_serve: Any = ray.serve

LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0
END_SECONDS = 15.0
"""How long a call may take to free what it holds."""

ORPHAN_SECONDS = 60.0
"""How long a call goes on while no dispatcher holds it."""


GOES_ON = ("moved", "caller lost", "connection lost")
"""Ends after which somebody may come back into the same room: what was said is kept for them, for an hour."""


@dataclass(slots=True)
class Carried:
    """A call on this replica.

    Attributes:
        call: The session.
        lease: Says that it is ours.
        task: Runs the session.
        live: Tells those who follow the call.
        events: Of whoever holds the request now; None: nobody does.
        beside: Tasks that end with the call.
    """

    call: Call
    lease: Lease
    task: asyncio.Task[None]
    live: Live
    events: asyncio.Queue[Event | None] | None = None
    beside: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])


class Agent:
    """Carries up to `calls_per_replica` calls on one event loop."""

    def __init__(self, config: dict[str, Any]) -> None:
        logs.install()
        tracing.tracer()  # before somebody waits for it
        self._config = AgentConfig.model_validate(config)
        self._models: Models | None = None
        self._state = connect(self._config)
        self._carried: dict[str, Carried] = {}
        self._replica: str = _serve.get_replica_context().replica_id.unique_id
        self._hooks = Hooks.installed()
        self._delivery: Delivery | None = None
        self._directory = Directory(_ask_api)
        _load_once(self._config)
        metrics.CALLS_LIVE.set(0)
        metrics.CALL_SLOTS.set(self._config.calls_per_replica)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take routes: Serve calls this before the first request, and whenever they change.

        Live calls use new ones from their next request on.
        """
        routes = Routes.model_validate(user_config["routes"])
        if self._models is None:
            self._models = Models(routes)
        else:
            self._models.update(routes)

    async def call(self, request: CallRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Carry a call; yields its events, ends when it ends. It outlives this stream.

        Raises:
            Overloaded: This replica carries as many calls as it may, though nobody may hold the requests of some.
        """
        if len(self._carried) >= self._config.calls_per_replica:
            raise Overloaded("this replica carries as many calls as it may")
        lease = await self._claim(request)
        if lease is None:
            yield {"type": "refused", "reason": "another replica carries this call"}
            return
        carried = await self._begin(request, lease)
        async with contextlib.aclosing(self._events(carried)) as events:
            async for event in events:
                yield event

    async def _claim(self, request: CallRequest) -> Lease | None:
        """Take the call; a new one also while the state is away, for nobody but LiveKit's one job brings it here."""
        try:
            return await self._state.claim(
                request.room, self._replica, request.dispatcher, LEASE_SECONDS, over=request.over
            )
        except Unavailable as error:
            if request.over is not None:
                raise
            logger.warning("call %s: begins without a lease (%s)", request.room, error.code)
            # A state that comes back takes it in, as it does with those that it has lost.
            return Lease(request.room, self._replica, request.dispatcher, 1, LEASE_SECONDS)

    async def adopt(self, room: str, dispatcher: str) -> AsyncGenerator[dict[str, Any], None]:
        """Let a dispatcher hold the request of a call that goes on; yields its events from now on."""
        carried = self._carried.get(room)
        lease = await self._state.hand_over(carried.lease, dispatcher) if carried else None
        if carried is None or lease is None:
            yield {"type": "refused", "reason": "this call is not here, or somebody holds it"}
            return
        carried.lease = lease
        carried.call.recorder.adopted(dispatcher)
        async with contextlib.aclosing(self._events(carried)) as events:
            async for event in events:
                yield event

    async def file(self, room: str, name: str, parcel: str) -> dict[str, Any] | None:
        """Take a file from the API into a call (`agent/parcels.py`); None: it is not carried here.

        Raises:
            Unavailable: The file cannot be had.
        """
        carried = self._carried.get(room)
        if carried is None:
            return None
        status = await carried.call.file(name, await fetch(_dispatchers(), parcel))
        if status is None:
            raise Unavailable("the call has not begun yet; send the file again in a moment")
        return dict(status)

    async def end(self, room: str, reason: str) -> bool:
        """End a call and close its room; False: it is not carried here."""
        carried = self._carried.get(room)
        if carried is None:
            return False
        carried.call.hang_up(reason)
        return True

    async def _begin(self, request: CallRequest, lease: Lease) -> Carried:
        from agent.assistants import Assistants
        from agent.delivery import Delivery
        from agent.keeper import Keeper
        from agent.live import Live
        from agent.recorder import Recorder
        from agent.session import Call
        from agent.traces import TurnTraces

        assert self._models is not None, "Serve has not configured this replica"
        keeper = await Keeper.open(self._state, lease)
        self._delivery = self._delivery or Delivery.open(self._config, self._replica)
        backend = self._delivery.of(request.room, lease.epoch) if self._delivery else None
        recorder = Recorder(lease, self._hooks, backend, self._config.name, request.metadata)
        live = Live(self._state, request.room, request.metadata)
        recorder.live = live.hear
        assistants = Assistants(self._config, self._directory)
        call = Call(request, self._models.choosing({}), assistants, self._config.turns, keeper, recorder)
        call.traces = TurnTraces(request.room, on=self._config.traces)
        call.captions = live.captions
        keep = partial(self._directory.keep, request.room)
        call.keep = lambda *file: keep(assistants.tenant, *file)
        # A task of its own: what the session keeps in context variables must be entered and left in one task. It is no
        # part of this request: Serve cancels all that a request has asked of others when the request is cancelled.
        context = contextvars.copy_context()
        context.run(_unset_request_context)
        task = asyncio.create_task(call.run(), name=f"call {request.room}", context=context)
        carried = Carried(call, lease, task, live)
        self._carried[request.room] = carried
        metrics.CALLS_LIVE.set(len(self._carried))
        call.emit = lambda event: carried.events.put_nowait(event) if carried.events else None
        call.let_go = lambda: self._release(carried)
        carried.task.add_done_callback(lambda _: self._spawn(carried, self._over(request.room, carried)))
        self._spawn(carried, self._renew(carried))
        return carried

    async def _events(self, carried: Carried) -> AsyncGenerator[Event, None]:
        """Yield the call's events until it ends; without this stream the call looks for another holder."""
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        carried.events = events
        events.put_nowait({"type": "claimed", "epoch": carried.lease.epoch, "identity": carried.call.identity})
        if carried.task.done():
            events.put_nowait(None)
        else:
            carried.task.add_done_callback(lambda _: events.put_nowait(None))
        ended = False
        try:
            while (event := await events.get()) is not None:
                yield event
            ended = True
            await carried.task
        finally:
            if carried.events is events:
                carried.events = None
                # Who has moved is held no more, and needs nobody.
                if not ended and not carried.task.done() and carried.call.reason != "moved":
                    self._spawn(carried, self._orphaned(carried))

    async def _orphaned(self, carried: Carried) -> None:
        """Ask for somebody who holds the call; end it where there is nobody for long."""
        room, clock = carried.lease.call, asyncio.get_running_loop().time
        deadline = clock() + ORPHAN_SECONDS
        logger.warning("call %s: nobody holds it, asking another dispatcher", room)
        while clock() < deadline:
            if carried.task.done() or carried.events is not None:
                return
            try:
                await ask_to_adopt(_dispatchers(), room, self._replica)
            except Unavailable as error:
                logger.info("call %s: %s", room, error)
            await asyncio.sleep(0.5)  # Serve tells no event of a dispatcher that is back
        carried.call.end("no dispatcher")

    async def _renew(self, carried: Carried) -> None:
        """Keep the lease; give the call up when somebody else has it."""
        while not carried.task.done():
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if not await self._state.renew(carried.lease, LEASE_SECONDS):
                    carried.call.end("another replica took it over")
                    return
            except ParleyError as error:
                logger.warning("call %s: its lease was not renewed (%s); it goes on", carried.lease.call, error.code)

    async def _over(self, room: str, carried: Carried) -> None:
        """Free what the call held."""
        if not carried.task.cancelled() and (error := carried.task.exception()):
            logger.error("call %s failed: %s", room, type(error).__name__, exc_info=_without_text(error))
        if self._carried.get(room) is carried:
            del self._carried[room]
        metrics.CALLS_LIVE.set(len(self._carried))
        for task in carried.beside - {asyncio.current_task()}:
            task.cancel()
        await carried.live.aclose()
        if await self._release(carried) and carried.call.reason not in GOES_ON:
            with contextlib.suppress(ParleyError):
                await self._state.drop(room)
        if self._delivery:
            await self._delivery.flush()
        # WebRTC's threads belong to objects in reference cycles: without this they stay until a later collection.
        gc.collect()

    async def _release(self, carried: Carried) -> bool:
        with contextlib.suppress(ParleyError):
            return await self._state.release(carried.lease)
        return False

    def _spawn(self, carried: Carried, work: Any) -> None:
        task = asyncio.ensure_future(work)
        carried.beside.add(task)
        task.add_done_callback(carried.beside.discard)


class Front:
    """Stands first in the application and takes no requests: Serve refuses a router of one's own on that place."""

    def __init__(self, agent: Any) -> None:
        """Take the handle that binds the agent into the application."""


def _load_once(config: AgentConfig) -> None:
    """Bring in what every call of this process shares, before the first caller waits for it."""
    importlib.import_module("agent.session")  # livekit-agents takes seconds
    if config.turns.detector:
        local_inference.init_eot()


def _without_text(error: BaseException) -> BaseException:
    """Return an error of the same place in the code, without its words: they can be those of the conversation."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)


async def _ask_api(method: str, *args: Any) -> Any:
    return await _api().options(method_name=method).remote(*args)


@cache
def _api() -> Any:
    return _serve.get_deployment_handle(*API)


@cache
def _dispatchers() -> Any:
    return _serve.get_deployment_handle(*DISPATCHER)


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    # Not in the declarative configuration: whoever checks that there has another module named `agent`.
    router = RequestRouterConfig(request_router_class=cast(Any, CallRouter))
    agent = _serve.deployment(name=DEPLOYMENT, request_router_config=router)(Agent).bind(args["config"])
    return _serve.deployment(name="Front")(Front).bind(agent)
