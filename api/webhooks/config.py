"""The part of a profile that describes webhooks out."""

from __future__ import annotations

from pydantic import Field

from serve.config import Strict


class WebhooksConfig(Strict):
    """Messages to products."""

    allow_private: bool = Field(
        default=False,
        description="Endpoints may be on this machine and private networks, and need no TLS; never metadata services",
    )
    keep_days: int = Field(default=7, ge=1, le=90, description="Delivered messages are deleted after that")
    keep_dead_days: int = Field(default=30, ge=1, le=365, description="Those that could not be delivered, after that")
