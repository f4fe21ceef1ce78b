"""How Parley talks to LiveKit's server beside a room: tokens of agents, and its API."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from livekit import api

from serve.settings import settings

logger = logging.getLogger("ray.serve")

WORKER_TOKEN_LIFE = datetime.timedelta(minutes=10)


def worker_token() -> str:
    """Return the token with which a dispatcher registers."""
    return _token().with_grants(api.VideoGrants(agent=True)).with_ttl(WORKER_TOKEN_LIFE).to_jwt()


def agent_token(room: str, identity: str) -> str:
    """Return a token for an agent's participant in one room, for joins that no assignment covers."""
    grants = api.VideoGrants(room_join=True, room=room, agent=True, can_update_own_metadata=True)
    return _token().with_identity(identity).with_kind("agent").with_grants(grants).to_jwt()


@asynccontextmanager
async def livekit_api() -> AsyncGenerator[api.LiveKitAPI, None]:
    """Open LiveKit's API with this process's key."""
    here = settings()
    url = here.livekit_url.replace("ws://", "http://").replace("wss://", "https://")
    client = api.LiveKitAPI(url, here.livekit_api_key, here.livekit_api_secret.get_secret_value())
    try:
        yield client
    finally:
        await client.aclose()  # pyright: ignore[reportUnknownMemberType]  # untyped there


async def hang_up(room: str) -> None:
    """Close a room: whoever is in it is disconnected, telephone lines too; one that is gone already is fine."""
    try:
        async with livekit_api() as client:
            await client.room.delete_room(api.DeleteRoomRequest(room=room))
    except (api.TwirpError, aiohttp.ClientError) as error:
        logger.info("a room was not closed: %s", type(error).__name__)


async def tell_room(livekit: api.LiveKitAPI, room: str, status: dict[str, Any]) -> None:
    """Tell everyone in a room, by its metadata, what happens to the call.

    Args:
        livekit: LiveKit's API.
        room: The call.
        status: `{"status": "busy", "position": 2}`, "answered", or "failed": nobody can carry this call.
    """
    request = api.UpdateRoomMetadataRequest(room=room, metadata=json.dumps({"parley": status}))
    await livekit.room.update_room_metadata(request)


def _token() -> api.AccessToken:
    here = settings()
    return api.AccessToken(here.livekit_api_key, here.livekit_api_secret.get_secret_value())
