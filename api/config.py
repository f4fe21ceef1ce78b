"""The part of a profile that describes the API and the page."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from api.access.oidc import OidcConfig
from api.records.prices import Price, check
from api.rules import AssistantRules
from api.webhooks.config import WebhooksConfig
from serve.config import Replicas, Strict

Origin = Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.-]+(:[0-9]{1,5})?$", max_length=300)]
"""As browsers send it; not "*": whoever may ask is named."""


class TenantLimits(Strict):
    """What one tenant may use, unless whoever runs the server gives it more or less (`parley tenants set`)."""

    calls: int = Field(default=100, ge=0, le=100_000, description="Calls at once")
    minutes: float | None = Field(
        default=None, ge=0, le=1e9, description="Minutes of calls in a calendar month (UTC); null: any number"
    )
    uploads: int = Field(default=8, ge=1, le=1000, description="Files that come in at once, at each API replica")
    requests: int = Field(default=100, ge=1, le=100_000, description="Requests in a second")

    def of(self, allowed: dict[str, Any], own: dict[str, Any]) -> TenantLimits:
        """Return what holds for one tenant: what it was given instead of these, or less where it wants less itself."""
        most = self.model_dump() | allowed
        less = {name: wanted for name, wanted in own.items() if most.get(name) is None or wanted < most[name]}
        return TenantLimits.model_validate(most | less)


class ApiConfig(Strict):
    """The FastAPI application behind Serve's ingress."""

    host: str = Field(default="127.0.0.1", description="Address the ingress listens on")
    port: int = Field(default=8000, ge=1, le=65535)
    replicas: Replicas = Field(
        default_factory=Replicas, description="Of the API; more than one machine needs DATABASE_URL and api.storage"
    )
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
    allowed_origins: list[Origin] = Field(
        default=[], max_length=50, description="Other sites whose pages may ask with an API key; needs `local: false`"
    )
    limits: TenantLimits = Field(default_factory=TenantLimits, description="Of each tenant that has none of its own")
    token_minutes: int = Field(default=10, ge=1, le=60, description="Life of a caller's token: the time to join")
    max_body_bytes: int = Field(default=65536, ge=1024, le=100 * 2**20, description="Most of a body under /api/v1")
    max_depth: int = Field(default=32, ge=8, le=200, description="Levels of arrays and objects in a JSON body")
    max_request_mb: float = Field(default=4.0, gt=0, le=32, description="Most of a JSON body under /v1")
    max_upload_mb: float = Field(default=25.0, gt=0, le=100, description="Most of an uploaded recording, with its form")
    max_uploads: int = Field(default=8, ge=1, description="Recordings taken in at once: each is held in memory")
    max_audio_seconds: float = Field(default=600.0, gt=0, le=1800, description="Length of an uploaded recording")
    answer_seconds: float = Field(default=300.0, gt=0, le=3600, description="Time of a whole answer under /v1")
    webhooks: WebhooksConfig = Field(default_factory=WebhooksConfig)
    assistants: AssistantRules = Field(default_factory=AssistantRules)
    storage: str | None = Field(
        default=None,
        pattern=r"^(az|s3)://[^/\s?#@]+(/[^\s?#]*)?$",
        description="Where files are: az://container/prefix or s3://bucket/prefix; without: PARLEY_HOME/files",
    )
    link_seconds: int = Field(default=300, ge=10, le=3600, description="Life of a link to a file")
    prices: list[Price] = Field(default_factory=list[Price], description="What models and minutes cost (docs/api.md)")

    @field_validator("prices")
    @classmethod
    def _one_price_each(cls, prices: list[Price]) -> list[Price]:
        check(prices)
        return prices

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.local and self.allowed_origins:
            raise ValueError("allowed_origins: pages of other sites are let in only with local: false")
        return self
