"""A bare FastAPI application: what the backend's requests a second are held against."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(openapi_url=None)


class Health(BaseModel):
    """`status` is "ok"."""

    status: str = "ok"


@app.get("/health/live")
async def live() -> Health:
    """Say that the process answers."""
    return Health()
