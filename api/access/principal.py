"""Who is asking: found once for each request, before any handler."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
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


_BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `Authorization: Bearer parley_...`")
"""Says in OpenAPI what is needed; the doormen read the header."""


async def principal(request: Request, _: Annotated[Any, Security(_BEARER)] = None) -> Principal:
    """Return who is asking; the request counts for their tenant.

    Raises:
        Problem: 401, with how to be let in; 429: the tenant asks too often.
    """
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    for doorman in request.app.state.doormen:
        if found := await doorman(request, request.app.state.database):
            request.state.principal = found
            await counted(request, found)
            return found
    raise Problem(
        401,
        "Not signed in",
        "Send an API key as Authorization: Bearer, or sign in",
        headers={"www-authenticate": "Bearer"},
    )


async def counted(request: Request, who: Principal) -> None:
    """Count a request for a tenant; the answer tells how many are left (`api.headers`).

    Raises:
        Problem: 429.
    """
    rate, too_many = await request.app.state.limits.count(who.tenant)
    request.state.rate = rate
    if too_many:
        detail = f"This tenant may ask {rate.limit} times in a second; go on in the next"
        raise Problem(429, "Too many requests", detail, headers={"retry-after": "1"}, limit="requests")


def needs(*scopes: Scope) -> Any:
    """Return a dependency: the one who asks, who has all these scopes; it is also what OpenAPI shows as needed."""

    async def check(who: Annotated[Principal, Depends(principal)]) -> Principal:
        if missing := [scope for scope in scopes if scope not in who.scopes]:
            raise Problem(403, "Not allowed", f"This needs the scope {' and '.join(missing)}")
        return who

    cast(Any, check).scopes = scopes  # read by `api.openapi`
    return Depends(check)


async def session(request: Request, who: Annotated[Principal, Depends(principal)]) -> AsyncGenerator[AsyncSession]:
    """Give a handler its session, within the tenant of whoever asks; what it does not commit is not written."""
    async with session_of(request.app.state.database, who.tenant) as opened:
        yield opened


Tenancy = Annotated[AsyncSession, Depends(session)]
"""A handler's session."""
