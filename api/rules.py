"""What assistants that tenants make may reach."""

from __future__ import annotations

from pydantic import Field

from serve.config import Strict


class AssistantRules(Strict):
    """What assistants that are made over the API may reach; those of the profile reach what it says."""

    tools: tuple[str, ...] | None = Field(default=None, description="Tools they may have; without: all there are")
    mcp: tuple[str, ...] = Field(default=(), description="Addresses of the MCP servers they may have, to the letter")
    people: tuple[str, ...] = Field(default=(), description="Whom they may put callers through to: tel:+... or sip:...")
