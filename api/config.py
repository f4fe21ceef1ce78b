"""The part of a profile that describes the API and the page."""

from __future__ import annotations

from pydantic import Field

from api.access.oidc import OidcConfig
from serve.config import Strict


class ApiConfig(Strict):
    """The FastAPI application behind Serve's ingress."""

    host: str = Field(default="127.0.0.1", description="Address the ingress listens on")
    port: int = Field(default=8000, ge=1, le=65535)
    public_url: str | None = Field(
        default=None, pattern=r"^https?://[^/\s]+$", description="As browsers reach it, where a proxy stands in front"
    )
    oidc: OidcConfig | None = Field(default=None, description="Who vouches for people that sign in")
    local: bool = Field(
        default=True,
        description="No key is needed, so Host and Origin must be loopback: a page elsewhere cannot use it",
    )
    proxies: int = Field(
        default=0, ge=0, le=8, description="Proxies in front that append to X-Forwarded-For: for the audit log"
    )
    token_minutes: int = Field(default=10, ge=1, le=60, description="Life of a caller's token: the time to join")
    max_body_bytes: int = Field(default=65536, ge=1024, le=100 * 2**20)
    max_request_mb: float = Field(default=4.0, gt=0, le=32, description="Most of a JSON body under /v1")
    max_upload_mb: float = Field(default=25.0, gt=0, le=100, description="Most of an uploaded recording, with its form")
    max_uploads: int = Field(default=8, ge=1, description="Recordings taken in at once: each is held in memory")
    max_audio_seconds: float = Field(default=600.0, gt=0, le=1800, description="Length of an uploaded recording")
    answer_seconds: float = Field(default=300.0, gt=0, le=3600, description="Time of a whole answer under /v1")
