"""Role -> typed calls on models over Serve handles: route, deadline, another replica on failure, cancel.

Callers name a role; the routes say which model serves it now. Every call has a deadline, and however it ends,
the replica's work ends with it (a dropped stream alone would go on working: `cancel()` is what stops it).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar, cast

import ray.exceptions
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from serve.config import DEPLOYMENTS, Routes
from serve.contracts import (
    Capabilities,
    ChatChunk,
    ChatRequest,
    ListenRequest,
    RequestContext,
    Role,
    SpeechChunk,
    SpeechRequest,
    TranscribeRequest,
    Transcript,
)
from serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    NotDeployed,
    Overloaded,
    ParleyError,
    ReplicaLost,
    Unavailable,
)

logger = logging.getLogger("ray.serve.parley")

T = TypeVar("T")

ATTEMPTS = 3
"""Tries of one request within its deadline: the first, and two on other replicas."""


class Response(Protocol):
    """What a handle returns: awaitable, or iterable when it streams; `cancel` stops the replica's work."""

    def cancel(self) -> None:
        """Stop the request."""
        ...


class Handle(Protocol):
    """The part of Serve's `DeploymentHandle` that is used here; tests put their own in its place."""

    def options(self, *, method_name: str, stream: bool, session_id: str) -> Handle:
        """Return a handle for one method."""
        ...

    def remote(self, *args: Any) -> Any:
        """Send a request."""
        ...


class Handles(Protocol):
    """Finds the handle of a model."""

    def __call__(self, model: str, role: Role) -> Handle:
        """Return the handle, or raise NotDeployed."""
        ...


def serve_handle(model: str, role: Role) -> Handle:
    """Return the Serve handle of a model's application.

    Raises:
        NotDeployed: No application of this name is running.
    """
    import ray.serve

    ray_serve: Any = ray.serve
    try:
        handle = ray_serve.get_deployment_handle(DEPLOYMENTS[role], app_name=model)
    except (KeyError, RayServeException) as error:
        raise NotDeployed(f"no model {model!r} is running; `parley status` lists what is") from error
    # Calls come from a replica's own loop, on the machine that has the model where there is a choice.
    if not handle.is_initialized:  # Serve gives the same handle to all who ask in one process
        handle._init(_prefer_local_routing=True)
    return handle


class Models:
    """The models of a cluster, by role.

    Args:
        routes: Which model serves each role; replaced as a whole by `update`.
        handles: Finds handles; Serve's own unless a test says otherwise.
    """

    def __init__(self, routes: Routes, handles: Handles = serve_handle) -> None:
        self._routes = routes
        self._find = handles
        self._handles: dict[tuple[str, str], Handle] = {}

    def update(self, routes: Routes) -> None:
        """Take new routes; requests in progress stay where they are."""
        self._routes = routes

    def model(self, role: Role) -> str:
        """Return the model that serves a role now."""
        return self._routes.model(role)

    async def capabilities(self, role: Role, context: RequestContext) -> Capabilities:
        """Return what the model that serves a role can do."""
        return await self._unary(role, "capabilities", context=context)

    async def transcribe(self, request: TranscribeRequest, context: RequestContext) -> Transcript:
        """Transcribe one whole utterance."""
        return await self._unary("stt", "transcribe", request, context=context)

    async def listen(self, request: ListenRequest, context: RequestContext) -> Transcript:
        """Send one piece of an utterance to the replica that has the pieces before it.

        Raises:
            StreamLost: That replica is gone; send the utterance whole by `transcribe`.
        """
        return await self._unary("stt", "listen", request, context=context, attempts=1)

    async def prefill(self, request: ChatRequest, context: RequestContext) -> None:
        """Let the language model read a prompt ahead."""
        await self._unary("llm", "prefill", request, context=context, attempts=1)

    def chat(self, request: ChatRequest, context: RequestContext) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message; close the generator to stop the model."""
        return self._stream("llm", "chat", request, context)

    def speak(self, request: SpeechRequest, context: RequestContext) -> AsyncGenerator[SpeechChunk, None]:
        """Stream speech; close the generator to stop the model."""
        return self._stream("tts", "speak", request, context)

    def _handle(self, role: Role, method: str, context: RequestContext, *, stream: bool) -> Handle:
        model = self.model(role)
        key = (model, method)
        if key not in self._handles:
            self._handles[key] = self._find(model, role).options(method_name=method, stream=stream, session_id="")
        handle = self._handles[key]
        return handle.options(method_name=method, stream=stream, session_id=context.call) if context.call else handle

    async def _unary(
        self, role: Role, method: str, *request: Any, context: RequestContext, attempts: int = ATTEMPTS
    ) -> Any:
        deadline = asyncio.get_running_loop().time() + context.timeout
        for attempt in range(1, attempts + 1):
            response: Any = None
            finished = False
            try:
                response = self._handle(role, method, context, stream=False).remote(*request, context)
                answer = await _bounded(response, deadline, self.model(role))
                finished = True
                return answer
            except Exception as raw:
                await self._next_attempt(raw, role, attempt, attempts, deadline)
            finally:
                if response is not None and not finished:
                    response.cancel()
        raise AssertionError("unreachable: the last attempt raises")

    async def _stream(
        self, role: Role, method: str, request: Any, context: RequestContext
    ) -> AsyncGenerator[Any, None]:
        deadline = asyncio.get_running_loop().time() + context.timeout
        for attempt in range(1, ATTEMPTS + 1):
            response: Any = None
            started = finished = False
            try:
                response = self._handle(role, method, context, stream=True).remote(request, context)
                chunks: AsyncIterator[Any] = aiter(response)
                while True:
                    try:
                        chunk = await _bounded(anext(chunks), deadline, self.model(role))
                    except StopAsyncIteration:
                        finished = True
                        return
                    started = True
                    yield chunk
            except Exception as raw:
                # What was yielded has been heard: only a stream that gave nothing is safe to repeat as it is.
                await self._next_attempt(raw, role, attempt, attempt if started else ATTEMPTS, deadline)
            finally:
                if response is not None and not finished:
                    response.cancel()

    async def _next_attempt(self, raw: Exception, role: Role, attempt: int, attempts: int, deadline: float) -> None:
        """Return when the request may be tried again; raise its error otherwise."""
        error = translate(raw, self.model(role))
        if error is None:
            raise raw
        pause = random.uniform(0.01, 0.05) * attempt  # noqa: S311  # jitter, so that callers do not return together
        late = asyncio.get_running_loop().time() + pause >= deadline
        if attempt >= attempts or not error.retryable or late:
            raise error from raw
        logger.warning("%s on %s: trying again (%d of %d)", error.code, self.model(role), attempt, attempts)
        await asyncio.sleep(pause)


async def _bounded(work: Awaitable[T], deadline: float, model: str) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(f"{model} did not answer in time") from None


def translate(error: Exception, model: str) -> ParleyError | None:
    """Return the error of our own tree that says what Ray or Serve reported; None where neither has."""
    match error:
        case ParleyError():
            return error
        case BackPressureError():
            return Overloaded(f"{model} has no free slot")
        case DeploymentUnavailableError() | ReplicaUnavailableError():
            return Unavailable(f"{model} is not available now")
        case RequestCancelledError():
            return ReplicaLost(f"{model} gave the request up")
        case ray.exceptions.RayActorError():
            return ReplicaLost(f"a replica of {model} was lost")
        case ray.exceptions.RayTaskError():
            cause = cast(Any, error).cause
            return cause if isinstance(cause, ParleyError) else EngineFailed(f"{model} failed ({type(cause).__name__})")
        case ray.exceptions.RayError() | RayServeException():
            return Unavailable(f"{model} cannot be reached ({type(error).__name__})")
        case _:
            return None
