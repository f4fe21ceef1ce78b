"""LiveKit's jobs become requests on the `agent` deployment.

Speaks LiveKit's worker protocol: register, availability, assignment, status. A replica is reserved before the
dispatcher says yes, so that yes is never taken back and no is an honest "busy". LiveKit tells a caller nothing of a
refusal and never asks again; the dispatcher does both (`agent/waiting.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from livekit import api
from livekit.protocol import agent as proto
from livekit.protocol import models
from ray.serve.exceptions import RequestCancelledError

from agent.config import APPLICATION, DEPLOYMENT, AgentConfig, CallRequest
from agent.livekit import livekit_api, worker_token
from agent.waiting import Reservation, WaitingRoom
from serve.errors import ParleyError
from serve.settings import settings

logger = logging.getLogger("ray.serve")

REGISTER_SECONDS = 10.0
ASSIGNMENT_SECONDS = 10.0
RESERVE_SECONDS = 1.2
"""How long a new caller waits for a free slot before being told "busy"."""

PING_SECONDS = 10.0
BACKOFF_SECONDS = (0.2, 5.0)
STATUS = proto.JobStatus


class Dispatcher:
    """Registers with LiveKit as a worker that takes jobs for the whole `agent` deployment."""

    async def __init__(self, config: dict[str, Any]) -> None:
        self._config = AgentConfig.model_validate(config)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._assignments: dict[str, asyncio.Future[proto.JobAssignment]] = {}
        self._streams: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = WaitingRoom(self._config.name, self._reserve)
        self._main = asyncio.create_task(self._run(), name="dispatcher")

    async def check_health(self) -> None:
        """Raise when the dispatcher's own work has ended; being away from LiveKit is no reason to be replaced."""
        if self._main.done():
            raise RuntimeError("the dispatcher has stopped")

    async def calls(self) -> list[str] | None:
        """Return the ids of the calls this dispatcher holds; None while LiveKit does not send it any."""
        return sorted(self._streams) if self._socket is not None else None

    async def __del__(self) -> None:
        self._main.cancel()
        await self._waiting.aclose()
        if self._socket is not None:
            await self._socket.close()

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
        import ray.serve

        ray_serve: Any = ray.serve
        while True:
            try:
                handle = ray_serve.get_deployment_handle(DEPLOYMENT, app_name=APPLICATION)
                self._agents = handle.options(method_name="call", stream=True)
                async with asyncio.timeout(RESERVE_SECONDS), self._agents.choose_replica():
                    return
            except (TimeoutError, KeyError, ray_serve.exceptions.RayServeException):
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
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        self._take(proto.ServerMessage.FromString(message.data))
            finally:
                self._socket = None
        raise ConnectionError("LiveKit closed the connection")

    def _take(self, message: proto.ServerMessage) -> None:
        match message.WhichOneof("message"):
            case "availability":
                self._spawn(self._job(message.availability.job))
            case "assignment":
                waiting = self._assignments.get(message.assignment.job.id)
                if waiting and not waiting.done():
                    waiting.set_result(message.assignment)
            case "termination":
                if stream := self._streams.get(message.termination.job_id):
                    stream.cancel()
            case _:
                pass

    async def _job(self, job: proto.Job) -> None:
        """Answer one job: with a reserved slot, or with "busy" and a place in the queue."""
        async with AsyncExitStack() as stack:
            reservation = self._waiting.claim(job.room.name)
            if reservation is None and not self._waiting.crowded:
                reservation = await self._reserve(RESERVE_SECONDS)
            if reservation is None:
                await self._send(availability=proto.AvailabilityResponse(job_id=job.id, available=False))
                self._waiting.add(job.room.name)
                return
            stack.push_async_exit(reservation.stack)
            self._assignments[job.id] = asyncio.get_running_loop().create_future()
            try:
                answer = proto.AvailabilityResponse(
                    job_id=job.id,
                    available=True,
                    participant_identity=f"agent-{job.id}",
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
            await self._carry(job, assignment, reservation)

    async def _carry(self, job: proto.Job, assignment: proto.JobAssignment, reservation: Reservation) -> None:
        """Hold one call's request open until the call ends."""
        request = CallRequest(job.id, job.room.name, assignment.url or settings().livekit_url, assignment.token)
        stream = self._agents.dispatch(reservation.selection, request)
        self._streams[job.id] = stream
        status, error = STATUS.JS_SUCCESS, ""
        try:
            async for event in stream:
                if event["type"] == "connected":
                    await self._report(job.id, STATUS.JS_RUNNING)
                elif event["type"] == "ended":
                    await self._report(job.id, STATUS.JS_SUCCESS)
                logger.info("call %s: %s", job.id, event["type"])
        except RequestCancelledError:
            logger.info("call %s: ended by LiveKit", job.id)
        except Exception as raw:
            status, error = STATUS.JS_FAILED, type(raw).__name__
            logger.warning("call %s broke: %s", job.id, error)
        finally:
            stream.cancel()
            del self._streams[job.id]
            self._waiting.freed()
        if error:
            await self._report(job.id, status, error)
            await self._again(job)

    async def _again(self, job: proto.Job) -> None:
        """The agent's replica is gone: remove what it left in the room, and ask for another."""
        try:
            async with livekit_api() as livekit:
                ghost = api.RoomParticipantIdentity(room=job.room.name, identity=f"agent-{job.id}")
                await livekit.room.remove_participant(ghost)
        except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            logger.info("no ghost to remove in %s (%s)", job.room.name, type(error).__name__)
        self._waiting.add(job.room.name)

    async def _reserve(self, timeout: float) -> Reservation | None:  # noqa: ASYNC109  # None is an answer here
        """Return a slot on an agent replica, or None when all are taken."""
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(timeout):
                selection = await stack.enter_async_context(self._agents.choose_replica())
        except (TimeoutError, ParleyError):
            await stack.aclose()
            return None
        return Reservation(selection, stack)

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

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    import ray.serve

    ray_serve: Any = ray.serve
    return ray_serve.deployment(name="Dispatcher")(Dispatcher).bind(args["config"])
