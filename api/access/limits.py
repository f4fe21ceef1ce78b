"""What a tenant may use: requests a second, calls at once, minutes a month, uploads at once."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, Storage
from limits.storage import storage_from_string
from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.principal import Principal
from api.config import TenantLimits
from api.db import Database
from api.db.tables import Call, Tenant, Usage
from api.db.types import now
from api.etags import hold
from api.problems import AWAY, Problem

logger = logging.getLogger("ray.serve")

KNOWN_SECONDS = 5.0
"""After so long a change of a tenant's limits holds in every replica."""

READ_SECONDS = 1.0
"""A request waits for its limits no longer than this."""

REDIS_SECONDS = 0.25
"""A request waits for Redis no longer than this."""

REDIS_PAUSE = 5.0
"""After Redis did not answer, each replica counts by itself for so long."""

JOIN_TIME = datetime.timedelta(hours=1)
"""A call that nobody has joined by then takes no room: its token has run out."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a tenant stands in this second.

    Attributes:
        limit: Requests a second.
        left: Of them.
    """

    limit: int
    left: int

    def headers(self) -> dict[str, str]:
        """Return the headers of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {"ratelimit-policy": f'"requests";q={self.limit};w=1', "ratelimit": f'"requests";r={self.left};t=1'}


class Limits:
    """Knows and holds the limits of all tenants.

    Args:
        defaults: Of tenants without their own.
        database: Where tenants' own are.
        redis_url: Where requests are counted for all replicas; None: each counts by itself.
    """

    def __init__(self, defaults: TenantLimits, database: Database, redis_url: str | None = None) -> None:
        self.defaults = defaults
        self._database = database
        self._known: dict[str, tuple[float, TenantLimits]] = {}
        self._here = MemoryStorage()
        self._everywhere = _storage(redis_url) if redis_url else None
        self._away_until = 0.0
        self._uploads: Counter[str] = Counter()

    async def of(self, tenant: str) -> TenantLimits:
        """Return a tenant's limits, as they were at most `KNOWN_SECONDS` ago; older where the database is away."""
        until, known = self._known.get(tenant, (0.0, self.defaults))
        if until > time.monotonic():
            return known
        try:
            async with asyncio.timeout(READ_SECONDS), self._database.system() as session:
                row = await session.get(Tenant, tenant)
                known = self.defaults.of(row.allowed, row.limits) if row else self.defaults
        except AWAY as error:
            logger.warning("a tenant's limits cannot be read (%s)", type(error).__name__)
        self._known[tenant] = (time.monotonic() + KNOWN_SECONDS, known)
        return known

    def forget(self, tenant: str) -> None:
        """Read a tenant's limits anew: they were changed."""
        self._known.pop(tenant, None)

    async def count(self, tenant: str) -> tuple[Rate, bool]:
        """Count a request; return where the tenant stands, and whether the request is one too many."""
        limit = (await self.of(tenant)).requests
        item = RateLimitItemPerSecond(limit, namespace="parley")
        # One step, where hit() and get_window_stats() of the package's strategies take three.
        used = await self._incremented(item.key_for(tenant), item.get_expiry())
        return Rate(limit, max(0, limit - used)), used > limit

    @asynccontextmanager
    async def upload(self, who: Principal) -> AsyncGenerator[None]:
        """Take up a place for a file that comes in.

        Raises:
            Problem: 429: all places of the tenant are taken here.
        """
        most = (await self.of(who.tenant)).uploads
        if self._uploads[who.tenant] >= most:
            raise _too_many("uploads", f"This tenant may send {most} files at once; wait for one to end", 2)
        self._uploads[who.tenant] += 1
        try:
            yield
        finally:
            self._uploads[who.tenant] -= 1

    async def aclose(self) -> None:
        """Let go of Redis."""
        bridge: Any = getattr(self._everywhere, "bridge", None)
        if bridge is not None:
            await bridge.get_connection().aclose()

    async def _incremented(self, key: str, expiry: int) -> int:
        if self._everywhere is not None and time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(REDIS_SECONDS):
                    return await self._everywhere.incr(key, expiry)
            except Exception as error:  # whatever Redis has, it must not stop requests
                self._away_until = time.monotonic() + REDIS_PAUSE
                logger.warning("Redis counts no requests (%s); this replica does by itself", type(error).__name__)
        return await self._here.incr(key, expiry)


async def room_for_call(session: AsyncSession, who: Principal, limits: Limits) -> None:
    """Make sure that the tenant may have one more call.

    The tenant's row is held until the session commits, so that of two calls begun at once the second counts the
    first: add the call's row with the same session, and commit soon.

    Raises:
        Problem: 429, with which limit it is and when to try again.
    """
    row = await hold(session, Tenant, who.tenant)
    mine = limits.defaults.of(row.allowed, row.limits) if row else limits.defaults
    moment = now()
    going_on = or_(Call.status == "live", and_(Call.status == "waiting", Call.created_at > moment - JOIN_TIME))
    calls = await session.scalar(select(func.count()).select_from(Call).where(going_on)) or 0
    if calls >= mine.calls:
        raise _too_many("calls", f"This tenant may have {mine.calls} calls at once, and has {calls}; wait for one", 5)
    if mine.minutes is None:
        return
    if await minutes_used(session, moment) >= mine.minutes:
        following = _month(moment + datetime.timedelta(days=32 - moment.day))
        detail = f"This tenant's {mine.minutes:g} minutes of the month are used up; there are more on {following:%d %B}"
        raise _too_many("minutes", detail, int((following - moment).total_seconds()) + 1)


async def minutes_used(session: AsyncSession, moment: datetime.datetime) -> float:
    """Return the minutes of this month's calls, with those that are going on."""
    minutes = func.sum(Usage.amounts["minutes"].as_float())
    billed = await session.scalar(select(minutes).select_from(Usage).where(Usage.day >= _month(moment).date()))
    live = await session.scalars(select(Call.answered_at).where(Call.status == "live", Call.answered_at.is_not(None)))
    return (billed or 0.0) + sum((moment - begun).total_seconds() / 60 for begun in live if begun is not None)


def _month(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _too_many(limit: str, detail: str, seconds: int) -> Problem:
    return Problem(429, "Too many", detail, headers={"retry-after": str(seconds)}, limit=limit)


def _storage(url: str) -> Storage:
    """Return the package's storage in Redis, by the addresses that the call plane takes too."""
    seconds = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    tls = {"ssl": True} if url.startswith("rediss+cluster") else {}
    address = url.replace("rediss+cluster", "redis+cluster", 1).replace("unix:", "redis+unix:", 1)
    made: Any = storage_from_string(f"async+{address}", implementation="redispy", **seconds, **tls)
    return made
