"""The tenant itself, and who one is in it."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs
from api.access.scopes import Role, Scope
from api.config import TenantLimits
from api.db.tables import Tenant
from api.etags import IfMatch, check, etag_of, hold, tag
from api.names import Name
from api.problems import Problem, problems

router = APIRouter(prefix="/api/v1", tags=["tenant"])


class TenantName(BaseModel):
    """A tenant by its name."""

    id: str = Field(examples=["ten_default"])
    name: str = Field(examples=["Example Ltd"])


class TenantShown(TenantName):
    """A tenant, and what it may use."""

    limits: TenantLimits = Field(description="That hold now: what the tenant is given, or less where it wants less")
    own_limits: dict[str, float] = Field(description="Where it wants less than it is given", examples=[{"calls": 5}])
    keep_days: int | None = Field(description="Then a call and all that hangs on it is deleted; null: never")
    created_at: datetime.datetime


class OwnLimits(BaseModel):
    """Where a tenant wants less than it is given; null: no more of that. What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    calls: int | None = Field(default=None, ge=0, le=100_000, description="At once")
    minutes: float | None = Field(default=None, ge=0, le=1e9, description="Of calls, in a calendar month (UTC)")
    uploads: int | None = Field(default=None, ge=1, le=1000, description="Files that come in at once")
    requests: int | None = Field(default=None, ge=1, le=100_000, description="In a second")


class TenantChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"keep_days": 30, "limits": {"calls": 5, "minutes": None}}]}
    )

    name: Name | None = None
    limits: OwnLimits | None = None
    keep_days: int | None = Field(default=None, ge=1, le=36_500)


class Me(BaseModel):
    """Who asks."""

    id: str = Field(examples=["per_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    kind: Literal["person", "key"]
    name: str = Field(examples=["Ada Lovelace"])
    role: Role | None = Field(description="Of a person")
    scopes: list[Scope] = Field(description="What one may do")
    tenant: TenantName


@router.get("/me", operation_id="get_me", responses=problems())
async def get_me(session: Tenancy, who: Annotated[Principal, needs()]) -> Me:
    """Show who asks, and what they may do."""
    tenant = await _tenant(session, who)
    return Me.model_validate(
        {
            "id": who.id,
            "kind": who.kind,
            "name": who.name,
            "role": who.role,
            "scopes": sorted(who.scopes),
            "tenant": TenantName(id=tenant.id, name=tenant.name),
        }
    )


@router.get("/tenant", operation_id="get_tenant", responses=problems())
async def get_tenant(
    session: Tenancy, who: Annotated[Principal, needs("tenant:read")], request: Request, response: Response
) -> TenantShown:
    """Show the tenant and its limits. The answer's ETag goes with a change as If-Match."""
    row = await _tenant(session, who)
    tag(response, etag_of(row))
    return _shown(row, request.app.state.config.limits)


@router.patch("/tenant", operation_id="change_tenant", responses=problems(412, 428))
async def change_tenant(
    session: Tenancy,
    who: Annotated[Principal, needs("tenant:write")],
    body: TenantChange,
    request: Request,
    response: Response,
    if_match: IfMatch = None,
) -> TenantShown:
    """Change the tenant's name, its own limits, and how long its calls are kept.

    Its limits lie within what it is given by the profile or by whoever runs the server (`parley tenants set`).
    """
    row = await hold(session, Tenant, who.tenant)
    if row is None:
        raise Problem.missing("tenant")
    check(request, etag_of(row))
    defaults: TenantLimits = request.app.state.config.limits
    changed: dict[str, Any] = {}
    if body.name is not None and body.name != row.name:
        changed["name"] = row.name = body.name
    if "keep_days" in body.model_fields_set and body.keep_days != row.keep_days:
        changed["keep_days"] = row.keep_days = body.keep_days
    own = _limits(row, body.limits, defaults) if body.limits else row.limits
    if own != row.limits:
        changed["limits"] = row.limits = own
    if changed:
        await audit(session, who, "tenant.change", row.id, changed, request)
        await session.commit()
        request.app.state.limits.forget(row.id)
    tag(response, etag_of(row))
    return _shown(row, defaults)


def _limits(row: Tenant, change: OwnLimits, defaults: TenantLimits) -> dict[str, Any]:
    own, most = dict(row.limits), defaults.of(row.allowed, {})
    for name in change.model_fields_set:
        wanted, given = getattr(change, name), getattr(most, name)
        if wanted is None:
            own.pop(name, None)
        elif given is not None and wanted > given:
            problem = f"may be {given:g} at most; whoever runs the server gives more (parley tenants set)"
            raise Problem.field(f"limits.{name}", problem)
        else:
            own[name] = wanted
    return own


async def _tenant(session: Tenancy, who: Principal) -> Tenant:
    row = await session.get(Tenant, who.tenant)
    if row is None:
        raise Problem.missing("tenant")
    return row


def _shown(row: Tenant, defaults: TenantLimits) -> TenantShown:
    return TenantShown(
        id=row.id,
        name=row.name,
        limits=defaults.of(row.allowed, row.limits),
        own_limits=row.limits,
        keep_days=row.keep_days,
        created_at=row.created_at,
    )
