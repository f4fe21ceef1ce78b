"""Liveness, readiness, and what goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.problems import problem_response

router = APIRouter(tags=["health"])

READY_SECONDS = 2.0


class Health(BaseModel):
    """`status` is "ok"."""

    status: str = "ok"


class Status(BaseModel):
    """How many calls are in progress."""

    calls: int


@router.get("/health/live")
async def live() -> Health:
    """Say that the process answers."""
    return Health()


@router.get("/health/ready", response_model=Health, responses={503: {"description": "No agent answers"}})
async def ready(request: Request) -> Health | JSONResponse:
    """Say whether a call would be taken up: an agent replica answers."""
    try:
        await calls(request.app.state.agents)
    except Exception as error:  # whatever it is, the answer is "not ready"
        return problem_response(503, "Not ready", f"No agent answers ({type(error).__name__})")
    return Health()


@router.get("/api/v1/status")
async def status(request: Request) -> Status:
    """Return how many calls are in progress."""
    return Status(calls=len(await calls(request.app.state.agents)))


async def calls(agents: Any) -> list[str]:
    """Return the ids of all calls in progress, asking every agent replica."""
    async with asyncio.timeout(READY_SECONDS):
        answers: list[list[str]] = await agents().broadcast("calls").results_async()
    return [call for replica in answers for call in replica]
