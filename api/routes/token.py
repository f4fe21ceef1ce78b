"""A caller's token: names the room, the caller, and the agent that is called."""

from __future__ import annotations

import datetime
import json
import logging
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.exceptions import RequestValidationError
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration
from pydantic import BaseModel, ConfigDict, Field

from serve.settings import settings

logger = logging.getLogger("ray.serve")
router = APIRouter(prefix="/api/v1", tags=["calls"])

ASSISTANT = "parley.assistant"
"""The caller's attribute that says which assistant was asked for; agents read it."""

EMPTY_SECONDS = 20
"""A room without people is closed after this long."""


class TokenRequest(BaseModel):
    """What livekit-client's `TokenSource.endpoint` sends; every field may be left out.

    The caller does not choose room, identity or agent: `room_name` and `participant_identity` are prefixes at most,
    and `room_config` is not taken from callers at all.
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"participant_name": "Ada"}]})

    participant_name: str | None = Field(default=None, max_length=80)
    assistant: str | None = Field(default=None, max_length=64, description="Who shall answer; without: the default")


class TokenResponse(BaseModel):
    """Where to connect, and the token to connect with."""

    server_url: str = Field(examples=["ws://127.0.0.1:7880"])
    participant_token: str


@router.post("/token")
async def token(request: Request, body: Annotated[TokenRequest | None, Body()] = None) -> TokenResponse:
    """Start a call: return a token for a new room into which the agent is dispatched."""
    here = settings()
    config: Any = request.app.state.config
    assistant = body.assistant if body else None
    choices: Sequence[str] = request.app.state.assistants
    if assistant is not None and assistant not in choices:
        problem = {"loc": ("body", "assistant"), "msg": f"is not one of {', '.join(choices)}", "type": "value_error"}
        raise RequestValidationError([problem])
    room = f"call-{uuid.uuid4().hex[:12]}"
    grants = api.VideoGrants(
        room_join=True,
        room=room,
        can_publish=True,
        can_subscribe=True,
        can_publish_data=True,
        can_publish_sources=["microphone"],
    )
    metadata = json.dumps({"assistant": assistant}) if assistant else ""
    dispatch = RoomAgentDispatch(agent_name=request.app.state.agent_name, metadata=metadata)
    signed = (
        api.AccessToken(here.livekit_api_key, here.livekit_api_secret.get_secret_value())
        .with_identity(f"caller-{uuid.uuid4().hex[:12]}")
        .with_name((body.participant_name if body else None) or "Caller")
        .with_grants(grants)
        # Said to the room, too: whoever carries the call later reads it there.
        .with_attributes({ASSISTANT: assistant} if assistant else {})
        .with_ttl(datetime.timedelta(minutes=config.token_minutes))
        .with_room_config(
            RoomConfiguration(
                name=room, empty_timeout=EMPTY_SECONDS, departure_timeout=EMPTY_SECONDS, agents=[dispatch]
            )
        )
    )
    return TokenResponse(server_url=here.livekit_public_url or here.livekit_url, participant_token=signed.to_jwt())
