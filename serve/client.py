"""Role -> typed calls on models over Serve handles: route, deadline, another replica or model on failure, cancel.

Callers name a role; the routes say which model serves it now, and which ones stand by. Every call has a deadline, and
however it ends, the replica's work ends with it (a dropped stream alone would go on working: `cancel()` stops it).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ray.serve.exceptions import RayServeException

from serve import metrics, tracing
from serve.circuit import Circuit
from serve.config import DEPLOYMENTS, Route, Routes
from serve.contracts import (
    ROLES,
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
    Usage,
)
from serve.errors import DeadlineExceeded, NotDeployed
from serve.given import Given
from serve.translation import translate

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = logging.getLogger("ray.serve.parley")

T = TypeVar("T")

ATTEMPTS = 3
"""Tries of one request on one model: the first, and two on other replicas."""


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


@dataclass(frozen=True, slots=True)
class Service:
    """Who served a call's turn.

    Attributes:
        models: The model that answered, by role.
        retries: Requests that had to be sent again, to the same model or another.
        fallbacks: By role, the model that answered in place of the one that was to be asked.
        asked: By role, the model that was to be asked; of the roles that were needed.
    """

    models: dict[Role, str]
    retries: int
    fallbacks: dict[Role, str]
    asked: dict[Role, str]


class _Shared:
    """What all views of a cluster's models share: routes, handles, and who fails just now."""

    def __init__(self, routes: Routes, find: Handles) -> None:
        self.routes = routes
        self.find = find
        self.handles: dict[tuple[str, str], Handle] = {}
        self.circuits: dict[str, Circuit] = {}

    def circuit(self, model: str) -> Circuit:
        """Return a model's circuit breaker."""
        return self.circuits.setdefault(model, Circuit())


class Models:
    """The models of a cluster, by role.

    Args:
        routes: Which model serves each role; replaced as a whole by `update`.
        handles: Finds handles; Serve's own unless a test says otherwise.
    """

    def __init__(self, routes: Routes, handles: Handles = serve_handle) -> None:
        self._shared = _Shared(routes, handles)
        self._begin({})

    def _begin(self, chosen: Mapping[Role, str]) -> None:
        self._chosen = chosen
        self._served: dict[Role, str] = {}
        self._retries = 0
        self._fallbacks: dict[Role, str] = {}
        self._asked: dict[Role, str] = {}
        self._sides: dict[Role, str] | None = None
        self.used: Callable[[Role, str, Usage], None] = lambda role, model, usage: None
        """Told what each answer took, of which model."""
        self.span: Callable[[Role, str, Any], Span | None] = lambda role, method, request: None
        """Begins the span of a request, by method and request; None: it is not traced."""

    def choosing(self, chosen: Mapping[Role, str]) -> Models:
        """Return a view for one call, which asks the models chosen for some roles first, and notes who served."""
        view = Models.__new__(Models)
        view._shared = self._shared
        view._begin(dict(chosen))
        view._sides = {}
        return view

    def choose(self, chosen: Mapping[Role, str]) -> None:
        """Ask other models first from the next request on; for a view that `choosing` made."""
        self._chosen = dict(chosen)
        self._served = {}

    def service(self) -> Service:
        """Return who served since this was last asked, and what went wrong on the way."""
        served = Service({role: self.model(role) for role in ROLES}, self._retries, self._fallbacks, self._asked)
        self._retries, self._fallbacks, self._asked = 0, {}, {}
        return served

    def update(self, routes: Routes) -> None:
        """Take new routes, also for every view; requests in progress stay where they are."""
        self._shared.routes = routes

    @property
    def circuits(self) -> Mapping[str, Circuit]:
        """The circuit breakers of the models that were asked."""
        return self._shared.circuits

    def model(self, role: Role) -> str:
        """Return the model that served a role last, or else the one that would be asked."""
        return self._served.get(role) or self._chosen.get(role) or self._shared.routes.model(role)

    async def capabilities(self, role: Role, context: RequestContext) -> Capabilities:
        """Return what the model that serves a role can do."""
        return await self._unary(role, "capabilities", context=context)

    async def transcribe(self, request: TranscribeRequest, context: RequestContext) -> Transcript:
        """Transcribe one whole utterance."""
        return await self._unary_traced("stt", "transcribe", request, context)

    async def listen(self, request: ListenRequest, context: RequestContext) -> Transcript:
        """Send one piece of an utterance to the replica that has the pieces before it.

        Raises:
            StreamLost: That replica is gone; send the utterance whole by `transcribe`.
        """
        return await self._unary_traced("stt", "listen", request, context, once=True)

    async def prefill(self, request: ChatRequest, context: RequestContext) -> None:
        """Let the language model read a prompt ahead."""
        await self._unary_traced("llm", "prefill", request, context, once=True)

    def chat(self, request: ChatRequest, context: RequestContext) -> AsyncGenerator[ChatChunk, None]:
        """Stream the next message; close the generator to stop the model."""
        return self._stream_traced("llm", "chat", request, context)

    def speak(self, request: SpeechRequest, context: RequestContext) -> AsyncGenerator[SpeechChunk, None]:
        """Stream speech; close the generator to stop the model."""
        return self._stream_traced("tts", "speak", request, context)

    async def _unary_traced(
        self, role: Role, method: str, request: Any, context: RequestContext, *, once: bool = False
    ) -> Any:
        span, ask = self.span(role, method, request), self._unary
        return await tracing.unary(span, context, lambda told: ask(role, method, request, context=told, once=once))

    def _stream_traced(
        self, role: Role, method: str, request: Any, context: RequestContext
    ) -> AsyncGenerator[Any, None]:
        span = self.span(role, method, request)
        return tracing.stream(span, context, lambda told: self._stream(role, method, request, told))

    def _handle(self, model: str, role: Role, method: str, context: RequestContext, *, stream: bool) -> Handle:
        key, handles = (model, method), self._shared.handles
        if key not in handles:
            handles[key] = self._shared.find(model, role).options(method_name=method, stream=stream, session_id="")
        handle = handles[key]
        return handle.options(method_name=method, stream=stream, session_id=context.call) if context.call else handle

    def _tries(self, role: Role, context: RequestContext) -> _Tries:
        route = self._shared.routes.route(role)
        order = (context.model,) if context.model else self._order(role, route, context.call)
        self._asked[role] = order[0]
        return _Tries(role, order, route.patience, context.timeout, self._shared.circuit)

    def _order(self, role: Role, route: Route, call: str) -> tuple[str, ...]:
        """Return whom to ask; the view of a call stays on its side while shares change."""
        order = route.order(call, self._sides.get(role) if self._sides else None)
        if self._sides is not None:
            self._sides[role] = order[0]
        return tuple(dict.fromkeys((self._chosen.get(role) or order[0], *order)))

    async def _unary(self, role: Role, method: str, *request: Any, context: RequestContext, once: bool = False) -> Any:
        tries = self._tries(role, context)
        while True:
            response: Any = None
            finished = False
            try:
                response = self._handle(tries.model, role, method, context, stream=False).remote(*request, context)
                answer = await _bounded(response, tries.patience_ends, tries.model)
                finished = True
                return self._answered(role, tries, answer)
            except Exception as raw:  # Ray wraps what happened; `failed` says what it is
                await tries.failed(raw, over=once)
                self._retries += 1
            finally:
                if response is not None and not finished:
                    response.cancel()

    async def _stream(
        self, role: Role, method: str, request: Any, context: RequestContext
    ) -> AsyncGenerator[Any, None]:
        tries = self._tries(role, context)
        given = Given(request)
        while True:
            response: Any = None
            finished = False
            try:
                handle = self._handle(tries.model, role, method, context, stream=True)
                response = handle.remote(given.rest(), context)
                chunks: AsyncIterator[Any] = aiter(response)
                while True:
                    try:
                        chunk = await _bounded(anext(chunks), tries.patience_ends, tries.model)
                    except StopAsyncIteration:
                        finished = True
                        return
                    yield given.take(self._answered(role, tries, chunk))
                    tries.waiting()
            except Exception as raw:  # the same
                await tries.failed(raw, over=False)
                self._retries += 1
            finally:
                if response is not None and not finished:
                    response.cancel()

    def _answered(self, role: Role, tries: _Tries, answer: Any) -> Any:
        """Note who served; answers that have a place for it carry the model's name."""
        tries.succeeded()
        self._served[role] = tries.model
        if tries.model != tries.first:
            self._fallbacks[role] = tries.model
        if not isinstance(answer, Transcript | ChatChunk | SpeechChunk):
            return answer
        if answer.usage is not None:
            self.used(role, tries.model, answer.usage)
        return replace(answer, model=tries.model)


class _Tries:
    """The tries of one request: replicas of one model, then the models that stand by, within one deadline.

    Args:
        role: For the count of failures.
        order: Models to ask; those that only failed of late are left out while there are others.
        patience: Seconds until a model's next sign, where another stands by.
        timeout: Seconds for everything.
        circuit: Finds a model's circuit breaker.
    """

    def __init__(
        self, role: Role, order: tuple[str, ...], patience: float, timeout: float, circuit: Callable[[str], Circuit]
    ) -> None:
        self._role: Role = role
        self._circuit = circuit
        self._clock = asyncio.get_running_loop().time
        self._patience = patience
        self.deadline = self._clock() + timeout
        self.first = order[0]
        well = [model for model in order[:-1] if circuit(model).allow()]
        self._left = deque((*well, order[-1]))
        self._next()

    @property
    def patience_ends(self) -> float:
        """When the model that is asked now must have given a first sign; loop time."""
        return min(self.deadline, self._asked + self._patience) if self._left else self.deadline

    def waiting(self) -> None:
        """The model's next sign is waited for from now on."""
        self._asked = self._clock()

    def succeeded(self) -> None:
        """The model has given a sign."""
        self._circuit(self.model).succeeded()

    async def failed(self, raw: Exception, *, over: bool) -> None:
        """Return when there is another try; raise the request's error otherwise.

        Args:
            raw: What was raised.
            over: The request must not be sent again.
        """
        error = translate(raw, self.model)
        if error is None:
            raise raw
        pause = random.uniform(0.01, 0.05) * self._count  # noqa: S311  # jitter, so that callers do not return together
        late = self._clock() + pause >= self.deadline
        if error.elsewhere:
            self._circuit(self.model).failed()
        if over or late or not error.elsewhere:
            metrics.failed(self._role, self.model, error.code)
            raise error from raw
        if error.retryable and self._count < ATTEMPTS and self._clock() + pause < self.patience_ends:
            self._count += 1
            metrics.retried(self.model, error.code)
            logger.warning("%s on %s: trying again (%d of %d)", error.code, self.model, self._count, ATTEMPTS)
            await asyncio.sleep(pause)
        elif self._left:
            failed = self.model
            self._next()
            metrics.fell_back(failed, self.model, error.code)
            logger.warning("%s on %s: asking %s instead", error.code, failed, self.model)
        else:
            metrics.failed(self._role, self.model, error.code)
            raise error from raw

    def _next(self) -> None:
        self.model = self._left.popleft()
        self._asked = self._clock()
        self._count = 1


async def _bounded(work: Awaitable[T], deadline: float, model: str) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(f"{model} did not answer in time") from None
