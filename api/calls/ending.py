"""How calls end that do not end by themselves: because somebody asks, or because nobody knows them any more."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from livekit import api
from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api.db import Database
from api.db.tables import Call
from api.db.types import now
from api.records.prices import Prices
from api.records.rows import end, locked
from api.webhooks import announce, of_call
from serve.settings import settings

logger = logging.getLogger("ray.serve")

AGENT_SECONDS = 6.0
"""For the agent to be told; it ends the call by itself then."""

LIVEKIT_SECONDS = 5.0

BY_API = "ended by API"
ROOM_CLOSED = "room closed"
LOST = "lost"
"""Why a call ended that neither LiveKit nor a dispatcher knows, and whose agent has not told."""

UNSEEN = datetime.timedelta(minutes=5)
"""A call of which nobody has heard for so long is looked for."""

BATCH = 100


async def hang_up(dispatchers: Callable[[], Any], call: str) -> bool:
    """End a call wherever it is: its agent is told why, then LiveKit closes the room, also of a call that waits.

    Returns:
        Whether the call is surely over: its agent has been told, or its room is gone.
    """
    try:
        async with asyncio.timeout(AGENT_SECONDS):
            told = bool(await dispatchers().options(method_name="end").remote(call, BY_API))
    except Exception as error:  # whatever it is, LiveKit is asked next
        logger.warning("call %s: its agent was not told to end (%s)", call, type(error).__name__)
        told = False
    try:
        async with livekit() as client:
            await client.room.delete_room(api.DeleteRoomRequest(room=call))
    except api.TwirpError as error:
        return told or error.code == api.TwirpErrorCode.NOT_FOUND
    except (aiohttp.ClientError, TimeoutError) as error:
        logger.warning("call %s: its room was not closed (%s)", call, type(error).__name__)
        return told
    return True


async def ended(session: AsyncSession, call: str, at: datetime.datetime, reason: str, prices: Prices) -> Call | None:
    """Write that a call has ended, where nobody has yet; whoever commits tells of it. None: there is no such call."""
    row = await locked(session, call)
    if row is not None and row.status != "ended":
        await end(session, row, at, reason, prices)
        await announce(session, row.tenant_id, "call.ended", of_call(row))
    return row


class Sweeper:
    """Ends calls that are live or waiting in the database, and of which neither LiveKit nor a dispatcher knows.

    Several at once are harmless: who comes second finds the call ended.

    Args:
        database: Where.
        dispatchers: Returns their handle.
        prices: Of calls' minutes.
    """

    def __init__(self, database: Database, dispatchers: Callable[[], Any], prices: Prices) -> None:
        self._database, self._dispatchers, self._prices = database, dispatchers, prices

    async def sweep(self) -> None:
        """Look for calls that nobody has told of for a while; ends none where somebody could not be asked."""
        moment = now()
        unseen = or_(Call.seen_at < moment - UNSEEN, and_(Call.seen_at.is_(None), Call.created_at < moment - UNSEEN))
        asked = select(Call.id).where(Call.status.in_(("live", "waiting")), unseen).order_by(Call.seen_at).limit(BATCH)
        async with self._database.system() as session:
            calls = (await session.scalars(asked)).all()
        if not calls:
            return
        known = await self._known(calls)
        if known:
            async with self._database.system() as session:
                await session.execute(update(Call).where(Call.id.in_(known)).values(seen_at=moment))
                await session.commit()
        for call in calls:
            if call in known:
                continue
            async with self._database.system() as session:
                await ended(session, call, moment, LOST, self._prices)
                await session.commit()
            logger.warning("call %s: nobody knows it any more, so it has ended", call)

    async def _known(self, calls: Sequence[str]) -> set[str]:
        async with livekit() as client:
            rooms = await client.room.list_rooms(api.ListRoomsRequest(names=calls))
        async with asyncio.timeout(LIVEKIT_SECONDS):
            answers: list[list[str] | None] = await self._dispatchers().broadcast("calls").results_async()
        held = {call for answer in answers for call in answer or ()}
        return ({room.name for room in rooms.rooms} | held) & set(calls)


@asynccontextmanager
async def livekit() -> AsyncGenerator[api.LiveKitAPI]:
    """Open LiveKit's API with this process's key, for a few seconds.

    Raises:
        TimeoutError: It did not answer.
    """
    here = settings()
    url = here.livekit_url.replace("ws://", "http://").replace("wss://", "https://")
    client = api.LiveKitAPI(url, here.livekit_api_key, here.livekit_api_secret.get_secret_value())
    try:
        async with asyncio.timeout(LIVEKIT_SECONDS):
            yield client
    finally:
        await client.aclose()  # pyright: ignore[reportUnknownMemberType]  # untyped there
