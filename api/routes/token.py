"""LiveKit's standard token endpoint, as `TokenSource.endpoint` asks it: the page's way into a call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field

from api.access.local import LOCAL
from api.access.principal import Principal, principal
from api.access.scopes import ROLES
from api.calls.entry import enter
from api.db.tables.accounts import DEFAULT_TENANT
from api.problems import AWAY, Problem, problems

router = APIRouter(prefix="/api/v1", tags=["calls"])


class TokenRequest(BaseModel):
    """What livekit-client's `TokenSource.endpoint` sends; every field may be left out.

    The caller does not choose room, identity or agent: `room_name` and `participant_identity` are prefixes at most,
    and `room_config` is not taken from callers at all.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"participant_name": "Ada"}]})

    participant_name: str | None = Field(default=None, max_length=80)
    assistant: str | None = Field(
        default=None, min_length=1, max_length=80, description="Who shall answer, by name or id; without: the default"
    )


class TokenResponse(BaseModel):
    """Where to connect, and the token to connect with."""

    server_url: str = Field(examples=["ws://127.0.0.1:7880"])
    participant_token: str = Field(examples=["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYWxsZXIifQ.c2ln"])


@router.post("/token", operation_id="create_token", responses=problems())
async def token(request: Request, body: Annotated[TokenRequest | None, Body()] = None) -> TokenResponse:
    """Start a call from a page: a token for a new room into which the agent is dispatched.

    On one machine (`api.local`) nobody needs a key for this; elsewhere it needs the scope calls:write.
    """
    wish = body or TokenRequest()
    entrance = await enter(request, await _caller(request), wish.assistant, wish.participant_name)
    return TokenResponse(server_url=entrance.url, participant_token=entrance.token)


async def _caller(request: Request) -> Principal:
    try:
        who = await principal(request)
    except (*AWAY, OSError):
        if not request.app.state.config.local:
            raise
        # This machine's user may call also while nothing can be looked up.
        return Principal(LOCAL, DEFAULT_TENANT, "person", ROLES["owner"])
    if "calls:write" not in who.scopes:
        raise Problem(403, "Not allowed", "This needs the scope calls:write")
    return who
