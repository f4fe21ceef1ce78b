"""API keys of a tenant: made, shown once, renewed side by side, revoked."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.access import keys as made
from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs
from api.access.scopes import Scope
from api.db.tables import ApiKey, Tenant
from api.db.types import now
from api.etags import hold
from api.names import Name, PathId
from api.pages import After, Limit, Page, listed
from api.problems import Problem, problems

router = APIRouter(prefix="/api/v1/keys", tags=["keys"])

Reader = Annotated[Principal, needs("keys:read")]
Writer = Annotated[Principal, needs("keys:write")]


class Key(BaseModel):
    """A key, without its secret."""

    id: str = Field(examples=["key_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    name: str = Field(examples=["billing service"])
    prefix: str = Field(description="With what the key begins", examples=["parley_0f1e2d3c4b5a6978"])
    scopes: list[Scope] = Field(examples=[["calls:read", "usage:read"]])
    created_at: datetime.datetime
    created_by: str = Field(description="Id of a person or a key", examples=["per_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    expires_at: datetime.datetime | None = Field(description="null: never")
    used_at: datetime.datetime | None = Field(description="Last use, within about a minute; null: never used")
    revoked_at: datetime.datetime | None


class KeyWithSecret(Key):
    """A key that was made just now; nobody can show it again."""

    key: str = Field(description="Send it as Authorization: Bearer", examples=["parley_0f1e2d3c4b5a6978_..."])


class KeyCreate(BaseModel):
    """A key to make."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "reports", "scopes": ["calls:read"]}]}
    )

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=100, description="Of those that you have yourself")
    expires_at: AwareDatetime | None = Field(default=None, description="In the future; null: never")


class KeyRotate(BaseModel):
    """A key to make in place of another."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"expires_at": None}]})

    expires_at: AwareDatetime | None = Field(default=None, description="Of the new key; null: never")


@router.get("", operation_id="list_keys", responses=problems())
async def list_keys(
    session: Tenancy,
    who: Reader,
    alive: Annotated[bool | None, Query(description="Only those that are let in, or only others")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[Key]:
    """List the tenant's keys, the newest first."""
    query = select(ApiKey)
    if alive is not None:
        query = query.where(made.alive() if alive else ~made.alive())
    return await listed(session, query, (ApiKey.created_at, ApiKey.id), _key, limit, after)


@router.post("", operation_id="create_key", status_code=201, responses=problems(409))
async def create_key(
    session: Tenancy, who: Writer, body: KeyCreate, request: Request, response: Response
) -> KeyWithSecret:
    """Make a key. The answer shows it, and nothing ever does again."""
    _own(who, body.scopes)
    _later(body.expires_at)
    # Of two that are made at once, the second sees the first.
    await hold(session, Tenant, who.tenant)
    if await made.living(session, body.name):
        raise Problem(409, "There is one", "A key of this name is alive: rotate it, or take another name")
    row = ApiKey(name=body.name, scopes=sorted(set(body.scopes)), expires_at=body.expires_at)
    return await _make(session, who, row, "key.create", {}, request, response)


@router.get("/{key_id}", operation_id="get_key", responses=problems(404))
async def get_key(session: Tenancy, who: Reader, key_id: PathId) -> Key:
    """Show a key, without its secret."""
    row = await session.get(ApiKey, key_id)
    if row is None:
        raise Problem.missing("key")
    return _key(row)


@router.post("/{key_id}/rotate", operation_id="rotate_key", status_code=201, responses=problems(404, 409))
async def rotate_key(
    session: Tenancy, who: Writer, key_id: PathId, request: Request, response: Response, body: KeyRotate | None = None
) -> KeyWithSecret:
    """Make a second key with the name and scopes of this one. Both are let in until the old one is revoked."""
    expires_at = body.expires_at if body else None
    _later(expires_at)
    await hold(session, Tenant, who.tenant)
    row = await session.get(ApiKey, key_id)
    if row is None:
        raise Problem.missing("key")
    _own(who, row.scopes)
    if row.revoked_at is not None:
        raise Problem(409, "It was revoked", "This key was revoked; make a new one")
    if await made.living(session, row.name) >= made.AT_ONCE:
        raise Problem(409, "Rotated already", f"{made.AT_ONCE} keys of this name are alive: revoke the older one first")
    second = ApiKey(name=row.name, scopes=row.scopes, expires_at=expires_at)
    return await _make(session, who, second, "key.rotate", {"before": row.id}, request, response)


@router.delete("/{key_id}", operation_id="revoke_key", status_code=204, responses=problems(404))
async def revoke_key(session: Tenancy, who: Writer, key_id: PathId, request: Request) -> None:
    """Let a key in no more; within five seconds no replica does."""
    row = await hold(session, ApiKey, key_id)
    if row is None:
        raise Problem.missing("key")
    if row.revoked_at is None:
        row.revoked_at = now()
        await audit(session, who, "key.revoke", row.id, {"name": row.name}, request)
        await session.commit()
    request.app.state.keys.forget(row.id)


async def _make(
    session: AsyncSession,
    who: Principal,
    row: ApiKey,
    action: str,
    detail: dict[str, Any],
    request: Request,
    response: Response,
) -> KeyWithSecret:
    new = made.make()
    row.prefix, row.digest, row.created_by = new.prefix, new.digest, who.id
    session.add(row)
    await session.flush()
    await audit(session, who, action, row.id, {"name": row.name, "scopes": row.scopes, **detail}, request)
    await session.commit()
    response.headers["location"] = f"{router.prefix}/{row.id}"
    return KeyWithSecret(**_key(row).model_dump(), key=new.key)


def _key(row: ApiKey) -> Key:
    return Key.model_validate(
        {
            **{name: getattr(row, name) for name in Key.model_fields},
            "prefix": f"{made.MARK}{row.prefix}",
        }
    )


def _own(who: Principal, scopes: Sequence[str]) -> None:
    if beyond := sorted(set(scopes) - who.scopes):
        raise Problem(403, "Not allowed", f"scopes: you have not {', '.join(beyond)} yourself")


def _later(expires_at: datetime.datetime | None) -> None:
    if expires_at is not None and expires_at <= now():
        raise Problem.field("expires_at", "is in the past")
