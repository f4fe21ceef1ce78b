"""A browser that is signed in: a random cookie, of which the database has the hash."""

from __future__ import annotations

import datetime
import secrets
from hashlib import sha256

from fastapi import Request, Response
from sqlalchemy import delete, select

from api.access.principal import Principal
from api.access.scopes import ROLES, Role
from api.db import Database
from api.db.tables import Person, SignIn
from api.db.types import now
from api.problems import Problem

LIFE = datetime.timedelta(hours=12)
"""Then people sign in again: their issuer may have changed what they may do."""

_SAFE = {"GET", "HEAD", "OPTIONS"}


def cookie_name(local: bool) -> str:
    """Return the cookie's name; `__Host-` has browsers hold it to this host and to TLS."""
    return "parley_session" if local else "__Host-parley_session"


class CookieDoorman:
    """Lets in whoever has signed in with this browser.

    Args:
        local: The server answers to loopback alone, without TLS.
    """

    def __init__(self, local: bool) -> None:
        self._name = cookie_name(local)

    async def __call__(self, request: Request, database: Database) -> Principal | None:
        """Return the person of the cookie.

        Raises:
            Problem: 401: it has expired; 403: a page elsewhere has made the browser send it.
        """
        shown = request.cookies.get(self._name)
        if shown is None or "authorization" in request.headers:
            return None
        if request.method not in _SAFE and not _from_here(request):
            raise Problem(403, "Not from here", "A page of another site sent this; use an API key there")
        async with database.system() as session:
            known = (
                select(Person)
                .join(SignIn, SignIn.person_id == Person.id)
                .where(SignIn.id == _digest(shown), SignIn.expires_at > now(), Person.disabled_at.is_(None))
            )
            person = (await session.scalars(known)).one_or_none()
        if person is None:
            raise Problem(401, "Not signed in", "You were signed out; sign in again")
        role: Role = person.role  # type: ignore[assignment]  # checked where it is written
        return Principal(person.id, person.tenant_id, "person", ROLES[role], person.name or person.email, role)


async def sign_in(person: Person, response: Response, database: Database, local: bool) -> None:
    """Give a browser its cookie."""
    token = secrets.token_urlsafe(32)
    async with database.system() as session:
        session.add(SignIn(id=_digest(token), person_id=person.id, tenant_id=person.tenant_id, expires_at=now() + LIFE))
        await session.commit()
    response.set_cookie(
        cookie_name(local),
        token,
        max_age=int(LIFE.total_seconds()),
        secure=not local,
        httponly=True,
        samesite="lax",
        path="/",
    )


async def sign_out(request: Request, response: Response, database: Database, local: bool) -> None:
    """Take it back, also on the server."""
    name = cookie_name(local)
    if shown := request.cookies.get(name):
        async with database.system() as session:
            await session.execute(delete(SignIn).where(SignIn.id == _digest(shown)))
            await session.commit()
    response.delete_cookie(name, path="/", secure=not local, httponly=True, samesite="lax")


async def forget_expired(database: Database) -> None:
    """Delete sign-ins that have run out."""
    async with database.system() as session:
        await session.execute(delete(SignIn).where(SignIn.expires_at < now()))
        await session.commit()


def _from_here(request: Request) -> bool:
    """Return whether a browser says that one of our own pages sent this; all that are in use today do."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and origin.partition("://")[2] == request.headers.get("host")


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
