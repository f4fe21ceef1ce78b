"""Callers show the token with which they have joined: it is good for their own call, and nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request
from livekit import api
from sqlalchemy import select

from api.access.principal import Principal, counted, principal
from api.db.tables import Call
from api.problems import Problem
from serve.settings import settings


async def sender(request: Request, id: Annotated[str, Path(max_length=64)]) -> Principal:
    """Return who sends something into a call: somebody in it, or somebody who may write files of its tenant.

    Raises:
        Problem: 401, 403; 404: a caller's call is not known.
    """
    identity = _identity(id, request.headers.get("authorization", ""))
    if identity is None:
        who = await principal(request)
        if "files:write" not in who.scopes:
            raise Problem(403, "Not allowed", "This needs the scope files:write")
        return who
    # The token says which call; whose call that is, is in the database.
    async with request.app.state.database.system() as session:
        tenant = await session.scalar(select(Call.tenant_id).where(Call.id == id))
    if tenant is None:
        raise Problem.missing("call")
    who = Principal(identity[:64], tenant, "person", frozenset())
    await counted(request, who)
    return who


def _identity(room: str, authorization: str) -> str | None:
    """Return the participant's identity, where a bearer is a LiveKit token for this room."""
    given = authorization[7:].strip() if authorization.lower().startswith("bearer ") else ""
    here = settings()
    # Without a secret nothing is signed, and everything would fit.
    if given.count(".") != 2 or not here.livekit_api_secret.get_secret_value():
        return None
    try:
        claims = api.TokenVerifier(here.livekit_api_key, here.livekit_api_secret.get_secret_value()).verify(given)
    except Exception:  # whatever is wrong with it, it is no token of ours
        return None
    joins = bool(claims.video and claims.video.room_join and claims.video.room == room)
    return claims.identity if joins else None
