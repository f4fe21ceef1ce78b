"""LiveKit's jobs become requests on the `agent` deployment.

Speaks LiveKit's worker protocol: register, availability, assignment, status. A replica is reserved before the
dispatcher says yes, so that yes is never taken back and no is an honest "busy". LiveKit tells a caller nothing of a
refusal and never asks again; the dispatchers do both (`agent/waiting.py`). Several of them share the work: which calls
there are is in the state, and none of them is needed for a call to go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import ray.serve
from livekit import api
from livekit.protocol import agent as proto
from livekit.protocol import models

from agent import metrics
from agent.carrier import Carrier, Event, Reservation
from agent.config import APPLICATION, DEPLOYMENT, AgentConfig, CallRequest
from agent.documents import report
from agent.livekit import livekit_api, worker_token
from agent.parcels import Parcels
from agent.state import connect
from agent.waiting import WaitingRoom
from serve import logs
from serve.errors import ParleyError, Unavailable
from serve.settings import settings

logger = logging.getLogger("ray.serve")
_serve: Any = ray.serve

REGISTER_SECONDS = 10.0
ASSIGNMENT_SECONDS = 10.0
RESERVE_SECONDS = 1.2
"""How long a new caller waits for a free slot before being told "busy"."""

PING_SECONDS = 10.0
BACKOFF_SECONDS = (0.2, 5.0)
WATCH_SECONDS = 1.0
"""How often replicas that are about to go are looked for."""

RESCUE_SECONDS = 3.0
"""How often calls are looked for that lost replica and dispatcher at once."""

FORGOTTEN_SECONDS = 3.0
"""How long after its registration a dispatcher looks for callers who came while none was registered."""

FOLLOW_SECONDS = 5.0
"""How long who follows a call may wait for news in one request."""

FOLLOW_PAUSE = 0.1
END_SECONDS = 5.0

BLIND_SECONDS = 8.0
"""How long after the state was away nobody is rescued: the living renew their leases within 5 s."""

STATUS = proto.JobStatus


class Dispatcher:
    """Registers with LiveKit as a worker that takes jobs for the whole `agent` deployment."""

    async def __init__(self, config: dict[str, Any]) -> None:
        logs.install()
        self._config = AgentConfig.model_validate(config)
        self._id: str = _serve.get_replica_context().replica_id.unique_id
        self._state = connect(self._config)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._assignments: dict[str, asyncio.Future[proto.JobAssignment]] = {}
        self._jobs: dict[str, tuple[str, str]] = {}
        """Of calls that LiveKit gave to this dispatcher: room and identity, by job."""
        self._rescued: set[str] = set()
        self._blind_until = 0.0
        self._parcels = Parcels()
        self._tasks: set[asyncio.Task[None]] = set()
        self._carrier = Carrier(self._id, self._config, self._state, lambda: self._waiting.freed())
        self._waiting = WaitingRoom(self._id, self._state, self._carrier)
        metrics.DISPATCHERS.set(0)
        self._main = asyncio.create_task(self._run(), name="dispatcher")
        self._watcher = asyncio.create_task(self._watch(), name="dispatcher watch")

    async def check_health(self) -> None:
        """Raise when the dispatcher's own work has ended; being away from LiveKit is no reason to be replaced."""
        if self._main.done() or self._watcher.done():
            raise RuntimeError("the dispatcher has stopped")

    async def calls(self) -> list[str] | None:
        """Return the rooms of the calls this dispatcher holds; None while LiveKit does not send it any."""
        return sorted(self._carrier.held) if self._socket is not None else None

    async def adopt(self, room: str, replica: str) -> None:
        """Hold the request of a call whose dispatcher is gone."""
        if room not in self._carrier.held:
            logger.info("call %s: adopted", room)
            self._spawn(self._carrier.adopt(room, replica))

    async def file(self, room: str, name: str, data: bytes) -> dict[str, Any] | None:
        """Send a file into a call, whoever carries it; None: nobody does."""
        if self._carrier.agents is None:
            raise Unavailable("no agent is there yet")
        return await self._parcels.deliver(self._carrier.agents, room, name, data)

    async def read(self, name: str, data: bytes) -> dict[str, Any]:
        """Read a file that belongs to no call (`agent.documents.report`)."""
        return await report(name, data)

    async def parcel(self, parcel: str) -> bytes | None:
        """Return a file that waits here."""
        return self._parcels.fetch(parcel)

    async def living(self) -> list[dict[str, Any]]:
        """Return what each live call does now (`agent/live.py`)."""
        return await self._state.living()

    async def live(self, room: str, after: str, wait: float) -> list[tuple[str, dict[str, Any]]]:
        """Return what went on in a call after an event, with ids; waits a while for the first.

        Args:
            room: The call.
            after: Id of the event known last; "": from the first that is kept.
            wait: Seconds, at most `FOLLOW_SECONDS`.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + min(wait, FOLLOW_SECONDS)
        while not (found := await self._state.live(room, after)) and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(FOLLOW_PAUSE)  # neither state tells who waits
        return found

    async def end(self, room: str, reason: str) -> bool:
        """End a call, whoever carries it; False: nobody was found who does."""
        if self._carrier.agents is None:
            return False
        async with asyncio.timeout(END_SECONDS):
            # Broadcast: a replica that carries as many calls as it may takes no other request.
            answers = await self._carrier.agents.broadcast("end", room, reason).results_async(return_exceptions=True)
        return any(each is True for each in answers)

    async def __del__(self) -> None:
        self._main.cancel()
        self._watcher.cancel()
        await self._waiting.aclose()
        if self._socket is not None:
            await self._socket.close()

    async def _watch(self) -> None:
        """Move calls from replicas that are about to go; start calls again that nobody carries."""
        looked = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if self._carrier.held:
                    await self._carrier.move()
                if clock() - looked > RESCUE_SECONDS and self._carrier.agents is not None:
                    looked = clock()
                    await self._rescue()
            except (ParleyError, api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("the watch over calls: %s", type(error).__name__)
                if isinstance(error, ParleyError):
                    self._blind_until = clock() + BLIND_SECONDS

    @property
    def _blind(self) -> bool:
        return asyncio.get_running_loop().time() < self._blind_until

    async def _rescue(self) -> None:
        if not await self._state.lead("rescue", self._id, 3 * RESCUE_SECONDS) or self._blind:
            return
        for lease in await self._state.leases():
            if lease.seconds_left < 0 and lease.call not in self._carrier.held and lease.call not in self._rescued:
                self._rescued.add(lease.call)
                task = self._spawn(self._carrier.rescue(lease))
                task.add_done_callback(lambda _, room=lease.call: self._rescued.discard(room))

    async def _run(self) -> None:
        """Stay registered, for as long as the deployment lives."""
        backoff = BACKOFF_SECONDS[0]
        async with aiohttp.ClientSession() as http:
            while True:
                try:
                    await self._agents_ready()
                    await self._serve(http)
                    backoff = BACKOFF_SECONDS[0]
                except (aiohttp.ClientError, OSError, TimeoutError, ConnectionError) as error:
                    logger.warning("dispatcher lost LiveKit (%s), again in %.1f s", type(error).__name__, backoff)
                await asyncio.sleep(backoff * random.uniform(0.8, 1.2))  # noqa: S311  # jitter
                backoff = min(backoff * 2, BACKOFF_SECONDS[1])

    async def _agents_ready(self) -> None:
        """Wait until a replica can take calls; before that every job would be refused."""
        while True:
            try:
                handle = _serve.get_deployment_handle(DEPLOYMENT, app_name=APPLICATION)
                async with (
                    asyncio.timeout(RESERVE_SECONDS),
                    handle.options(method_name="call", stream=True).choose_replica(),
                ):
                    self._carrier.agents = handle
                    return
            except (TimeoutError, KeyError, _serve.exceptions.RayServeException):
                await asyncio.sleep(0.2)  # there is no event for "an application has come up"

    async def _serve(self, http: aiohttp.ClientSession) -> None:
        """Register once, then answer until the connection is lost."""
        url = f"{settings().livekit_url.rstrip('/')}/agent"
        headers = {"Authorization": f"Bearer {worker_token()}"}
        async with http.ws_connect(url, headers=headers, heartbeat=PING_SECONDS) as socket:
            self._socket = socket
            register = proto.RegisterWorkerRequest(
                type=proto.JobType.JT_ROOM,
                agent_name=self._config.name,
                version="1",
                allowed_permissions=models.ParticipantPermission(
                    can_publish=True, can_subscribe=True, can_publish_data=True, can_update_metadata=True, agent=True
                ),
            )
            await self._send(register=register)
            async with asyncio.timeout(REGISTER_SECONDS):
                first = await socket.receive_bytes()
            if not proto.ServerMessage.FromString(first).HasField("register"):
                raise ConnectionError("LiveKit did not confirm the registration")
            logger.info("dispatcher registered as %s", self._config.name)
            metrics.DISPATCHERS.set(1)
            looking = self._spawn(self._find_forgotten())
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        self._take(proto.ServerMessage.FromString(message.data))
            finally:
                looking.cancel()
                self._socket = None
                metrics.DISPATCHERS.set(0)
        raise ConnectionError("LiveKit closed the connection")

    async def _find_forgotten(self) -> None:
        """Serve callers who came while nobody was registered: LiveKit asks once, and never again."""
        await asyncio.sleep(FORGOTTEN_SECONDS)  # who came a moment ago is asked for in these seconds
        try:
            async with livekit_api() as livekit, asyncio.timeout(REGISTER_SECONDS):
                known = {lease.call for lease in await self._state.leases()} | {*await self._state.waiting()}
                newest = time.time() - FORGOTTEN_SECONDS
                for room in (await livekit.room.list_rooms(api.ListRoomsRequest())).rooms:
                    if room.name in known or room.creation_time > newest or not room.num_participants:
                        continue
                    wanted = await livekit.agent_dispatch.list_dispatch(room.name)
                    here = await livekit.room.list_participants(api.ListParticipantsRequest(room=room.name))
                    served = any(each.kind == api.ParticipantInfo.Kind.AGENT for each in here.participants)
                    if not served and any(each.agent_name == self._config.name for each in wanted):
                        logger.info("call %s: its caller came while no dispatcher was registered", room.name)
                        await self._waiting.add(room.name)
        except (ParleyError, api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("callers who wait were not looked for: %s", type(error).__name__)

    def _take(self, message: proto.ServerMessage) -> None:
        match message.WhichOneof("message"):
            case "availability":
                self._spawn(self._job(message.availability.job))
            case "assignment":
                waiting = self._assignments.get(message.assignment.job.id)
                if waiting and not waiting.done():
                    waiting.set_result(message.assignment)
            case "termination":
                if (job := self._jobs.get(message.termination.job_id)) is not None:
                    self._spawn(self._dismiss(*job))
            case _:
                pass

    async def _dismiss(self, room: str, identity: str) -> None:
        """LiveKit ends a job: take its agent out of the room, which ends the call unless it has moved on already."""
        held = self._carrier.held.get(room)
        if held is None or held.request.identity != identity:
            return
        try:
            async with livekit_api() as livekit:
                who = api.RoomParticipantIdentity(room=room, identity=identity)
                await livekit.room.remove_participant(who)
        except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            logger.info("nobody to take out of %s (%s)", room, type(error).__name__)

    async def _job(self, job: proto.Job) -> None:
        """Answer one job: with a reserved slot, or with "busy" and a place in the queue."""
        async with AsyncExitStack() as stack:
            reservation = None
            # LiveKit does not wait for a state that is away.
            if self._blind or (not await self._waiting.crowded() and await self._carrier.admits()):
                reservation = await self._carrier.reserve(RESERVE_SECONDS)
            if reservation is None:
                metrics.CALLS_BUSY.add()
                await self._send(availability=proto.AvailabilityResponse(job_id=job.id, available=False))
                await self._waiting.add(job.room.name)
                return
            stack.push_async_exit(reservation.stack)
            identity = f"agent-{job.id}"
            self._assignments[job.id] = asyncio.get_running_loop().create_future()
            try:
                answer = proto.AvailabilityResponse(
                    job_id=job.id,
                    available=True,
                    participant_identity=identity,
                    participant_name=self._config.name,
                    participant_attributes={"lk.agent.name": self._config.name},
                )
                await self._send(availability=answer)
                async with asyncio.timeout(ASSIGNMENT_SECONDS):
                    assignment = await self._assignments[job.id]
            except TimeoutError:
                logger.warning("job %s was not assigned in time: its slot is free again", job.id)
                return
            finally:
                del self._assignments[job.id]
            url = assignment.url or settings().livekit_url
            request = CallRequest(job.id, job.room.name, url, assignment.token, identity, metadata=job.metadata)
            stack.pop_all()  # the carrier gives the slot back
            await self._carry(job.id, request, reservation)

    async def _carry(self, job: str, request: CallRequest, reservation: Reservation) -> None:
        """Hold a call until it ends, and tell LiveKit how its job goes."""
        self._jobs[job] = (request.room, request.identity)
        try:
            outcome = await self._carrier.carry(request, reservation, self._teller(job))
        finally:
            del self._jobs[job]
        if outcome in ("full", "lost"):
            await self._report(job, STATUS.JS_FAILED, outcome)
            await self._waiting.add(request.room)

    def _teller(self, job: str) -> Callable[[Event], Awaitable[None]]:
        async def tell(event: Event) -> None:
            if event["type"] == "connect":
                await self._report(job, STATUS.JS_RUNNING)
            elif event["type"] == "cleanup" and event["reason"] != "moved":
                await self._report(job, STATUS.JS_SUCCESS)

        return tell

    async def _report(self, job: str, status: proto.JobStatus, error: str = "") -> None:
        await self._send(update_job=proto.UpdateJobStatus(job_id=job, status=status, error=error))

    async def _send(self, **message: Any) -> None:
        """Send one message; a lost connection is the reader's to notice and mend."""
        if self._socket is None or self._socket.closed:
            return
        try:
            await self._socket.send_bytes(proto.WorkerMessage(**message).SerializeToString())
        except (ConnectionError, aiohttp.ClientError) as error:
            logger.info("a message to LiveKit was lost: %s", type(error).__name__)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    return _serve.deployment(name="Dispatcher")(Dispatcher).bind(args["config"])
