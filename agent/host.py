"""The Serve deployment that carries calls: each is one streaming request that lasts as long as the call."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

from livekit import local_inference

from agent.config import DEPLOYMENT, AgentConfig, CallRequest
from serve.client import Models
from serve.config import Routes

logger = logging.getLogger("ray.serve")

END_SECONDS = 15.0
"""How long a call may take to free what it holds."""


class Agent:
    """Carries up to `max_ongoing_requests` calls on one event loop."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = AgentConfig.model_validate(config)
        self._models: Models | None = None
        _load_once(self._config)

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
        """Carry a call; yields its events, ends when it ends. Closing the stream ends the call."""
        from agent.session import Call, Event

        events: asyncio.Queue[Event | None] = asyncio.Queue()
        assert self._models is not None, "Serve has not configured this replica"
        assistant = self._config.assistant
        models = self._models.choosing(assistant.models)
        call = Call(request, models, assistant, self._config.turns, events.put_nowait)
        # A task of its own: what the session keeps in context variables must be entered and left in one task.
        task = asyncio.create_task(call.run(), name=f"call {request.call}")
        task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            await task
        finally:
            call.end("ended by the dispatcher")
            with contextlib.suppress(Exception):
                await asyncio.wait_for(asyncio.shield(task), END_SECONDS)
            if not task.done():
                logger.error("call %s did not end within %.0f s", request.call, END_SECONDS)
                task.cancel()
            # WebRTC's threads belong to objects in reference cycles: without this they stay until a later collection.
            gc.collect()


def _load_once(config: AgentConfig) -> None:
    """Bring in what every call of this process shares, before the first caller waits for it."""
    importlib.import_module("agent.session")  # livekit-agents takes seconds
    if config.turns.detector:
        local_inference.init_eot()


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    import ray.serve

    ray_serve: Any = ray.serve
    return ray_serve.deployment(name=DEPLOYMENT)(Agent).bind(args["config"])
