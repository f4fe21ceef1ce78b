"""What assistants that are made here may have, for those who make them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from api import staff
from api.access.principal import Principal, needs
from api.problems import problems

router = APIRouter(prefix="/api/v1", tags=["assistants"])


class AssistantChoices(BaseModel):
    """What there is to choose from; the profile says so, under `api.assistants`."""

    tools: list[str] = Field(description="Tools", examples=[["end_call", "hand_over"]])
    mcp: list[str] = Field(description="Addresses of MCP servers", examples=[["https://tools.example.com/mcp"]])
    people: list[str] = Field(description="Whom they may put callers through to", examples=[["tel:+4930123456"]])


@router.get("/assistant_rules", operation_id="get_assistant_rules", responses=problems())
async def get_rules(request: Request, _: Annotated[Principal, needs("assistants:read")]) -> AssistantChoices:
    """Show which tools, MCP servers and people an assistant that is made here may have."""
    state: Any = request.app.state
    rules = state.config.assistants
    tools = staff.tools_of(state.staff, rules)
    return AssistantChoices(tools=tools, mcp=list(rules.mcp), people=list(rules.people))
