"""Who is asking: found once for each request, before any handler."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.scopes import Scope
from api.db import Database, session_of
from api.problems import Problem


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may do something in one tenant.

    Attributes:
        id: Of the person or the key; goes into the audit log.
        tenant: Id of the tenant.
        kind: A person who is signed in, or a program's key.
        scopes: What they may do.
        name: To show.
        role: Of a person.
    """

    id: str
    tenant: str
    kind: Literal["person", "key"]
    scopes: frozenset[Scope]
    name: str = ""
    role: str | None = None


class Doorman(Protocol):
    """Finds out who is asking; one for each way to be let in."""

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        """Return who it is; None: the request shows nothing of this kind.

        Raises:
            Problem: 401: what it shows is wrong, expired or revoked; 403: it may not be shown from there.
        """
        ...


async def principal(request: Request) -> Principal:
    """Return who is asking.

    Raises:
        Problem: 401, with how to be let in.
    """
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    for doorman in request.app.state.doormen:
        if found := await doorman(request, request.app.state.database):
            request.state.principal = found
            return found
    raise Problem(
        401,
        "Not signed in",
        "Send an API key as Authorization: Bearer, or sign in",
        headers={"www-authenticate": "Bearer"},
    )


def needs(*scopes: Scope) -> Any:
    """Return a dependency: the one who asks, who has all these scopes; it is also what OpenAPI shows as needed."""

    async def check(who: Annotated[Principal, Depends(principal)]) -> Principal:
        if missing := [scope for scope in scopes if scope not in who.scopes]:
            raise Problem(403, "Not allowed", f"This needs the scope {' and '.join(missing)}")
        return who

    return Depends(check)


async def session(request: Request, who: Annotated[Principal, Depends(principal)]) -> AsyncGenerator[AsyncSession]:
    """Give a handler its session, within the tenant of whoever asks; what it does not commit is not written."""
    async with session_of(request.app.state.database, who.tenant) as opened:
        yield opened


Tenancy = Annotated[AsyncSession, Depends(session)]
"""A handler's session."""
