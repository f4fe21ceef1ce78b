"""Liveness, readiness, and what goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from api.access.principal import Principal, needs
from api.problems import problem_response, problems

logger = logging.getLogger("ray.serve")
router = APIRouter(tags=["health"])

READY_SECONDS = 2.0


class Health(BaseModel):
    """`status` is "ok"."""

    status: str = Field(default="ok", examples=["ok"])


class Status(BaseModel):
    """How many calls are in progress."""

    calls: int = Field(examples=[3])


@router.get("/health/live", operation_id="get_liveness")
async def live() -> Health:
    """Say that the process answers."""
    return Health()


_AWAY: dict[int | str, dict[str, Any]] = {503: {"description": "No dispatcher answers"}}


@router.get("/health/ready", operation_id="get_readiness", response_model=Health, responses=_AWAY)
async def ready(request: Request) -> Health | JSONResponse:
    """Say whether a call would be taken up: a dispatcher answers, and LiveKit sends it jobs."""
    if await calls(request.app.state.dispatchers) is None:
        return problem_response(503, "Not ready", "No dispatcher is registered with LiveKit; calls would ring unheard")
    return Health()


@router.get("/api/v1/status", operation_id="get_status", response_model=Status, responses=problems() | _AWAY)
async def status(request: Request, _: Annotated[Principal, needs("calls:read")]) -> Status | JSONResponse:
    """Return how many calls are in progress."""
    here = await calls(request.app.state.dispatchers)
    if here is None:
        return problem_response(503, "Not ready", "No dispatcher is registered with LiveKit")
    return Status(calls=len(here))


async def calls(dispatchers: Callable[[], Any]) -> list[str] | None:
    """Return the ids of all calls in progress, or None where no dispatcher takes calls."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            answers: list[list[str] | None] = await dispatchers().broadcast("calls").results_async()
    except Exception as error:  # whatever it is, nobody can be asked
        logger.warning("no dispatcher answers: %s", type(error).__name__)
        return None
    here = [answer for answer in answers if answer is not None]
    return [call for answer in here for call in answer] if here else None
