"""LiveKit's webhooks: what happens to rooms, told by the server itself.

Signature, hash of the body and age are checked; each event is taken once, by its id, in the transaction that it
changes something in. So repeated ones do nothing, and those out of order cannot: what is older than what is known of a
call changes nothing.
"""

from __future__ import annotations

import datetime
import logging
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request
from livekit import api
from livekit.protocol.webhook import WebhookEvent
from pydantic import BaseModel, Field
from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api.calls import ending
from api.db import Database
from api.db.tables import Call, LiveKitDelivery
from api.db.types import now
from api.problems import Problem, problems
from api.records.prices import Prices
from serve.settings import settings

logger = logging.getLogger("ray.serve")
router = APIRouter(prefix="/webhooks", tags=["calls"])

OLDEST = datetime.timedelta(minutes=15)
"""LiveKit tries an event again for some minutes; what is older was sent by somebody who kept it."""

EARLY = datetime.timedelta(minutes=2)
"""How far LiveKit's clock may be ahead."""

REMEMBERED = 2 * OLDEST
SECOND = datetime.timedelta(seconds=1)
"""Events have whole seconds."""


class Taken(BaseModel):
    """What became of an event."""

    taken: bool = Field(description="false: it was taken before", examples=[True])


@router.post(
    "/livekit",
    operation_id="take_livekit_event",
    responses=problems(400, 401),
    openapi_extra={
        "security": [],
        "requestBody": {"required": True, "content": {"application/webhook+json": {"schema": {"type": "object"}}}},
    },
)
async def take(
    request: Request, authorization: Annotated[str, Header(max_length=4000, description="LiveKit's signature")] = ""
) -> Taken:
    """Take an event of LiveKit's: signed with its key, not older than a quarter of an hour, and not taken before."""
    event = _event(await request.body(), authorization)
    moment = now()
    if not (moment - OLDEST).timestamp() < event.created_at < (moment + EARLY).timestamp():
        raise Problem(401, "Not signed in", "This event is not of now", headers={"www-authenticate": "Bearer"})
    at = datetime.datetime.fromtimestamp(event.created_at, datetime.UTC)
    if not 0 < len(event.id) <= 64:
        raise Problem(400, "Not an event", "id: LiveKit's events have one, of at most 64 characters")
    database: Database = request.app.state.database
    try:
        async with database.system() as session:
            session.add(LiveKitDelivery(id=event.id, at=now()))
            await session.flush()
            await _apply(session, event, at, request.app.state.prices)
            await session.commit()
    except IntegrityError:
        async with database.system() as session:
            if await session.get(LiveKitDelivery, event.id) is None:
                raise
        return Taken(taken=False)
    return Taken(taken=True)


async def forget(database: Database) -> None:
    """Forget events that would be refused by their age."""
    async with database.system() as session:
        await session.execute(delete(LiveKitDelivery).where(LiveKitDelivery.at < now() - REMEMBERED))
        await session.commit()


async def _apply(session: AsyncSession, event: WebhookEvent, at: datetime.datetime, prices: Prices) -> None:
    call = event.room.name or event.egress_info.room_name
    if not call:
        return
    if event.event == "room_finished":
        # Somebody was seen there later: a caller came back, and this is about the room of before.
        older = or_(Call.seen_at.is_(None), Call.seen_at <= at + SECOND)
        if await session.scalar(select(Call.id).where(Call.id == call, Call.status != "ended", older)) is not None:
            await ending.ended(session, call, at, ending.ROOM_CLOSED, prices)
            logger.info("call %s: its room is closed", call)
        return
    if event.event.startswith(("participant_", "track_", "egress_", "room_started")):
        seen = update(Call).where(Call.id == call, Call.status != "ended")
        await session.execute(seen.where(or_(Call.seen_at.is_(None), Call.seen_at < at)).values(seen_at=at))


def _event(body: bytes, authorization: str) -> WebhookEvent:
    """Return a signed event.

    Raises:
        Problem: 401: it is not signed with LiveKit's key, or the body is another; 400: it is no event.
    """
    here = settings()
    secret = here.livekit_api_secret.get_secret_value()
    refused = partial(Problem, 401, "Not signed in", headers={"www-authenticate": "Bearer"})
    token = authorization.removeprefix("Bearer ").strip()
    if not secret or not token:
        raise refused("Send LiveKit's signature in Authorization")
    try:
        text = body.decode()
        receiver = api.WebhookReceiver(api.TokenVerifier(here.livekit_api_key, secret))
        return receiver.receive(text, token)
    except UnicodeDecodeError:
        raise Problem(400, "Not an event", "The body is no text") from None
    except Exception:  # its library raises whatever comes: no signature, an old one, another body, no event
        raise refused("The signature does not fit the body") from None
