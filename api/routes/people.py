"""People of a tenant: what they may do, and whether they are let in."""

from __future__ import annotations

import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs
from api.access.scopes import ROLES, Role
from api.db.tables import Person, SignIn, Tenant
from api.db.types import now
from api.etags import hold
from api.names import PathId
from api.pages import After, Limit, Page, listed
from api.problems import Problem, problems

router = APIRouter(prefix="/api/v1/people", tags=["people"])

Reader = Annotated[Principal, needs("people:read")]
Writer = Annotated[Principal, needs("people:write")]


class PersonShown(BaseModel):
    """Somebody who signs in."""

    id: str = Field(examples=["per_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    name: str = Field(examples=["Ada Lovelace"])
    email: str = Field(examples=["ada@example.com"])
    issuer: str = Field(description="Who vouches for them", examples=["https://login.example.com"])
    role: Role
    created_at: datetime.datetime
    seen_at: datetime.datetime | None = Field(description="When they signed in last")
    disabled_at: datetime.datetime | None = Field(description="Not let in since; null: let in")


class PersonChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"role": "engineer"}, {"disabled": True}]}
    )

    role: Role | None = None
    disabled: bool | None = Field(default=None, description="true: signs them out and lets them in no more")


@router.get("", operation_id="list_people", responses=problems())
async def list_people(session: Tenancy, who: Reader, limit: Limit = 50, after: After = None) -> Page[PersonShown]:
    """List the tenant's people, the newest first."""
    return await listed(session, select(Person), (Person.created_at, Person.id), _shown, limit, after)


@router.get("/{person_id}", operation_id="get_person", responses=problems(404))
async def get_person(session: Tenancy, who: Reader, person_id: PathId) -> PersonShown:
    """Show one of the people."""
    row = await session.get(Person, person_id)
    if row is None:
        raise Problem.missing("person")
    return _shown(row)


@router.patch("/{person_id}", operation_id="change_person", responses=problems(404, 409))
async def change_person(
    session: Tenancy, who: Writer, person_id: PathId, body: PersonChange, request: Request
) -> PersonShown:
    """Give somebody another role, let them in no more, or again. A tenant keeps one owner who is let in.

    What somebody may do ends with their next request. Keys that they made are not revoked by it.
    """
    # Of two owners who remove each other at once, the second is the last one.
    await hold(session, Tenant, who.tenant)
    row = await session.get(Person, person_id)
    if row is None:
        raise Problem.missing("person")
    # Nobody hands out what they have not, nor takes it from whoever has more.
    for role in (_role(row), body.role):
        if role is not None and not ROLES[role] <= who.scopes:
            raise Problem(403, "Not allowed", f"You have not all that the role {role} may do")
    changed: dict[str, object] = {}
    if body.role is not None and body.role != row.role:
        changed |= {"role": body.role, "role_before": row.role}
        row.role = body.role
    if body.disabled is not None and body.disabled != (row.disabled_at is not None):
        changed["disabled"] = body.disabled
        row.disabled_at = now() if body.disabled else None
    if changed:
        await session.flush()
        if not await _owners(session):
            raise Problem(
                409, "The last owner", "A tenant keeps one owner who is let in; make somebody else owner first"
            )
        if row.disabled_at is not None:
            await session.execute(delete(SignIn).where(SignIn.person_id == row.id))
        await audit(session, who, "person.change", row.id, changed, request)
        await session.commit()
    return _shown(row)


def _shown(row: Person) -> PersonShown:
    return PersonShown.model_validate({name: getattr(row, name) for name in PersonShown.model_fields})


def _role(row: Person) -> Role:
    return next(role for role in ROLES if role == row.role)


async def _owners(session: AsyncSession) -> int:
    count = select(func.count()).select_from(Person).where(Person.role == "owner", Person.disabled_at.is_(None))
    return await session.scalar(count) or 0
