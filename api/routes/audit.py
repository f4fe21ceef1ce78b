"""The audit log, to read."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import select

from api.access.principal import Principal, Tenancy, needs
from api.db.tables import AuditEntry
from api.names import QueryId
from api.pages import After, Limit, Page, listed
from api.problems import problems

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


class Entry(BaseModel):
    """An administrative act."""

    id: str = Field(examples=["aud_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    created_at: datetime.datetime
    actor: str = Field(
        description='Id of a person or a key; "system": nobody asked', examples=["per_0190f3a1b2c3d4e5f60718293a4b5c6d"]
    )
    action: str = Field(examples=["key.create"])
    target: str = Field(description="Id of what was acted on", examples=["key_0190f3a1b2c3d4e5f60718293a4b5c6d"])
    detail: dict[str, Any] = Field(description="What changed", examples=[{"name": "reports"}])
    address: str = Field(description="Where the request came from", examples=["203.0.113.7"])


@router.get("", operation_id="list_audit_entries", responses=problems())
async def list_audit_entries(
    session: Tenancy,
    who: Annotated[Principal, needs("audit:read")],
    actor: QueryId = None,
    action: Annotated[
        str | None, Query(max_length=60, pattern=r"^[a-z_]+(\.[a-z_]+)?$", examples=["key.create"])
    ] = None,
    target: QueryId = None,
    since: Annotated[AwareDatetime | None, Query(description="Not before")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[Entry]:
    """List administrative acts, the newest first."""
    query = select(AuditEntry)
    for column, wanted in ((AuditEntry.actor, actor), (AuditEntry.action, action), (AuditEntry.target, target)):
        if wanted is not None:
            query = query.where(column == wanted)
    if since is not None:
        query = query.where(AuditEntry.created_at >= since)
    if until is not None:
        query = query.where(AuditEntry.created_at < until)
    return await listed(session, query, (AuditEntry.id,), _entry, limit, after)


def _entry(row: AuditEntry) -> Entry:
    return Entry.model_validate({name: getattr(row, name) for name in Entry.model_fields})
