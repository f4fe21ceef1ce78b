"""The part of a profile that describes the API and the page."""

from __future__ import annotations

from pydantic import Field

from serve.config import Strict


class ApiConfig(Strict):
    """The FastAPI application behind Serve's ingress."""

    host: str = Field(default="127.0.0.1", description="Address the ingress listens on")
    port: int = Field(default=8000, ge=1, le=65535)
    local: bool = Field(
        default=True,
        description="No key is needed, so Host and Origin must be loopback: a page elsewhere cannot use it",
    )
    token_minutes: int = Field(default=10, ge=1, le=60, description="Life of a caller's token: the time to join")
    max_body_bytes: int = Field(default=65536, ge=1024, le=100 * 2**20)
