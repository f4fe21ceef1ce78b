"""The one way into a new call: a room's name, its row in the database, a caller's token that brings the agent in."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.room import RoomConfiguration

from api.access.limits import room_for_call
from api.access.principal import Principal
from api.db import session_of
from api.db.tables import Call
from api.db.types import now
from api.problems import AWAY, Problem
from api.staff import Chosen, choose
from serve.settings import settings

logger = logging.getLogger("ray.serve")

ASSISTANT = "parley.assistant"
"""The caller's attribute that says which assistant was asked for; agents read it."""

TENANT = "parley.tenant"
"""The caller's attribute that says whose call it is: whoever carries the call later reads it there."""

EMPTY_SECONDS = 20
"""A room without people is closed after this long."""

DATABASE_SECONDS = 2.0
"""A caller waits for the database no longer than this; without it the call begins all the same."""

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Entrance:
    """The way into a call.

    Attributes:
        call: Its row, as it is or will be in the database.
        url: LiveKit's.
        token: The caller's.
        identity: The caller's.
        expires_at: Until then the token lets in.
    """

    call: Call
    url: str
    token: str
    identity: str
    expires_at: datetime.datetime


async def enter(
    request: Request,
    who: Principal,
    assistant: str | None,
    name: str | None,
    annotations: Mapping[str, str] | None = None,
) -> Entrance:
    """Begin a call.

    Args:
        request: Of whoever asks.
        who: Whose call it will be.
        assistant: Its name or id; None: the default one.
        name: The caller's.
        annotations: To be kept with the call.

    Raises:
        Problem: 422: there is no such assistant; 429: the tenant has as many calls as it may.
    """
    chosen = Chosen(DEFAULT)
    call = Call(
        id=f"call-{uuid.uuid4().hex[:12]}",
        tenant_id=who.tenant,
        status="waiting",
        caller=name or "",
        created_at=now(),
        seen_at=now(),
        annotations=dict(annotations or {}),
    )
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            chosen = await _write(request, who, assistant, call)
    except (*AWAY, OSError) as error:
        # Whoever calls must not wait for a database; the row is made later, from what the agent tells.
        logger.warning("a call begins without its row: the database is away (%s)", type(error).__name__)
        if assistant is not None:
            chosen = _of_profile(request, assistant)
    return _entrance(request, call, chosen)


async def _write(request: Request, who: Principal, assistant: str | None, call: Call) -> Chosen:
    state = request.app.state
    async with session_of(state.database, who.tenant) as session:
        # It holds the tenant's row, so it comes first.
        await room_for_call(session, who, state.limits)
        chosen = Chosen(DEFAULT) if assistant is None else await choose(session, state.staff, assistant)
        if chosen is None:
            raise _unknown(request)
        call.assistant, call.assistant_id, call.version = chosen.name, chosen.id, chosen.version
        session.add(call)
        await session.commit()
    return chosen


def _of_profile(request: Request, assistant: str) -> Chosen:
    if assistant not in request.app.state.staff.named:
        detail = "Only the profile's assistants answer while the database is away; try again"
        raise Problem(503, "Busy", detail, headers={"retry-after": "2"})
    return Chosen(assistant)


def _unknown(request: Request) -> Problem:
    choices = ", ".join(request.app.state.staff.names)
    return Problem.field("assistant", f"is not one of {choices}, nor one of this tenant's own (name or id)")


def _entrance(request: Request, call: Call, chosen: Chosen) -> Entrance:
    """Sign the caller's token. They choose neither room nor identity nor agent."""
    here, config = settings(), request.app.state.config
    life = datetime.timedelta(minutes=config.token_minutes)
    identity = f"caller-{uuid.uuid4().hex[:12]}"
    asked: dict[str, Any] = {"assistant": chosen.ref, "tenant": call.tenant_id}
    grants = api.VideoGrants(
        room_join=True,
        room=call.id,
        can_publish=True,
        can_subscribe=True,
        can_publish_data=True,
        can_publish_sources=["microphone"],
    )
    dispatch = RoomAgentDispatch(agent_name=request.app.state.agent_name, metadata=json.dumps(asked))
    token = (
        api.AccessToken(here.livekit_api_key, here.livekit_api_secret.get_secret_value())
        .with_identity(identity)
        .with_name(call.caller or "Caller")
        .with_grants(grants)
        # Said to the room, too: whoever carries the call later reads it there, and has no dispatch.
        .with_attributes({ASSISTANT: chosen.ref, TENANT: call.tenant_id})
        .with_ttl(life)
        .with_room_config(
            RoomConfiguration(
                name=call.id, empty_timeout=EMPTY_SECONDS, departure_timeout=EMPTY_SECONDS, agents=[dispatch]
            )
        )
    )
    url = here.livekit_public_url or here.livekit_url
    return Entrance(call, url, token.to_jwt(), identity, call.created_at + life)
