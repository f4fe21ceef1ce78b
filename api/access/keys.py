"""API keys: made, shown once, and found again by what a request shows."""

from __future__ import annotations

import datetime
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

from fastapi import Request
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.principal import Principal
from api.access.scopes import ROLES, SCOPES, Scope
from api.db import Database
from api.db.tables import ApiKey
from api.db.tables.accounts import DEFAULT_TENANT
from api.db.types import now
from api.problems import Problem
from serve.errors import ConfigError
from serve.settings import settings

MARK = "parley_"
"""What every key begins with: scanners for leaked secrets look for it."""

ENVIRONMENT = "key_environment"
"""Id of whoever shows one of PARLEY_API_KEYS."""

SHORTEST = 16
"""Characters of a key of the environment."""

KNOWN_SECONDS = 5.0
"""A key that was revoked at another replica is let in no longer than this."""

AT_ONCE = 2
"""Keys alive with one name: the one in use, and the one that replaces it."""

KNOWN_KEYS = 4096
"""Remembered at once."""

NOTE_SECONDS = 60.0
"""The time a key was last used is as exact as this: one write in a minute, however often it is used."""

_SHAPE = re.compile(r"parley_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_BEARER = "bearer "
_NOBODYS = "0" * 64


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made just now.

    Attributes:
        key: All of it; shown once, stored nowhere.
        prefix: The part that is not secret.
        digest: SHA-256 of all of it.
    """

    key: str
    prefix: str
    digest: str


def make() -> NewKey:
    """Make a key with 256 random bits."""
    prefix = secrets.token_hex(8)
    key = f"{MARK}{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(key, prefix, digest_of(key))


def digest_of(key: str) -> str:
    """Return what is stored of a key."""
    return sha256(key.encode()).hexdigest()


def environment_keys() -> list[str]:
    """Return the digests of PARLEY_API_KEYS.

    Raises:
        ConfigError: One is too short to be a secret.
    """
    given = [key.strip() for key in settings().parley_api_keys.get_secret_value().split(",") if key.strip()]
    if any(len(key) < SHORTEST for key in given):
        raise ConfigError(
            f"PARLEY_API_KEYS: each key has {SHORTEST} characters or more; `openssl rand -hex 24` makes one"
        )
    return [digest_of(key) for key in given]


def shown(authorization: str) -> str | None:
    """Return the key or token of an Authorization header; None: it holds none."""
    return authorization[len(_BEARER) :].strip() if authorization.lower().startswith(_BEARER) else None


def alive() -> ColumnElement[bool]:
    """Return the condition for keys that are let in."""
    return ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now())


async def living(session: AsyncSession, name: str) -> int:
    """Return how many keys of a tenant's session have this name and are let in."""
    return await session.scalar(select(func.count()).select_from(ApiKey).where(ApiKey.name == name, alive())) or 0


class KeyDoorman:
    """Lets in who shows a key of the database or of the environment."""

    def __init__(self) -> None:
        self._environment = environment_keys()
        self._known: dict[str, tuple[float, ApiKey]] = {}
        self._used: dict[str, datetime.datetime] = {}

    @property
    def in_environment(self) -> bool:
        """Whether there are keys in the environment."""
        return bool(self._environment)

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        """Return whose key it is; None: the request shows none of ours."""
        given = shown(request.headers.get("authorization", ""))
        return await self.find(given, database) if given else None

    async def find(self, key: str, database: Database) -> Principal | None:
        """Return whose key this is; None: it has not the shape of ours.

        Raises:
            Problem: 401: it is not valid, or has expired, or was revoked.
        """
        digest = digest_of(key)
        # Every key is compared, each in constant time: how long it takes says nothing.
        fits = [hmac.compare_digest(digest, each) for each in self._environment]
        if any(fits):
            return Principal(ENVIRONMENT, DEFAULT_TENANT, "key", ROLES["owner"], "PARLEY_API_KEYS")
        if not key.startswith(MARK):
            return None
        row = await self._row(key, digest, database)
        moment = now()
        if row.revoked_at is not None:
            raise _refused("This API key was revoked; use another")
        if row.expires_at is not None and row.expires_at <= moment:
            raise _refused(f"This API key expired at {row.expires_at:%Y-%m-%dT%H:%M:%SZ}; use another")
        self._used[row.id] = moment
        # A scope that this version does not know any more opens nothing.
        scopes = frozenset[Scope](scope for scope in SCOPES if scope in row.scopes)
        return Principal(row.id, row.tenant_id, "key", scopes, row.name)

    def forget(self, id: str) -> None:
        """Look a key up anew: it was changed here."""
        for digest in [digest for digest, (_, row) in self._known.items() if row.id == id]:
            del self._known[digest]

    async def note_uses(self, database: Database) -> None:
        """Write when keys were last used; beside requests, never before an answer."""
        used, self._used = self._used, {}
        if not used:
            return
        async with database.system() as session:
            for id, moment in used.items():
                stale = or_(
                    ApiKey.used_at.is_(None), ApiKey.used_at < moment - datetime.timedelta(seconds=NOTE_SECONDS)
                )
                await session.execute(
                    update(ApiKey).where(ApiKey.id == id, stale).values(used_at=moment),
                    execution_options={"synchronize_session": False},
                )
            await session.commit()

    async def _row(self, key: str, digest: str, database: Database) -> ApiKey:
        until, row = self._known.get(digest, (0.0, None))
        if row is not None and until > time.monotonic():
            return row
        shape = _SHAPE.fullmatch(key)
        found = None
        if shape is not None:
            # Nobody knows yet for which tenant this is.
            async with database.system() as session:
                found = await session.scalar(select(ApiKey).where(ApiKey.prefix == shape[1]))
        if not hmac.compare_digest(digest, found.digest if found else _NOBODYS) or found is None:
            raise _refused("This API key is not valid")
        if len(self._known) >= KNOWN_KEYS:
            self._known.clear()
        self._known[digest] = (time.monotonic() + KNOWN_SECONDS, found)
        return found


def _refused(detail: str) -> Problem:
    return Problem(401, "Not signed in", detail, headers={"www-authenticate": 'Bearer error="invalid_token"'})
