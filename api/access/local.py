"""On one machine its user needs no key: who reaches a server that answers to loopback alone is the owner."""

from __future__ import annotations

from fastapi import Request

from api.access.principal import Principal
from api.access.scopes import ROLES
from api.db import Database
from api.db.tables.accounts import DEFAULT_TENANT

LOCAL = "per_local"
"""Id of that person."""


class LocalDoorman:
    """Lets in whoever shows nothing. Only for profiles with `api.local`, behind `api.auth.LoopbackOnly`."""

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        """Return this machine's user."""
        if "authorization" in request.headers:
            return None
        return local_user()


def local_user() -> Principal:
    """Return this machine's user: owner of the default tenant."""
    return Principal(LOCAL, DEFAULT_TENANT, "person", ROLES["owner"], "You", "owner")
