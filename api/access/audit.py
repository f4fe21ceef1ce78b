"""The audit log: every administrative act, who did it, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.principal import Principal
from api.db.tables import AuditEntry

SYSTEM = "system"
"""Who acts where nobody asked."""


async def audit(
    session: AsyncSession,
    who: Principal | None,
    action: str,
    target: str = "",
    detail: Mapping[str, Any] | None = None,
    request: Request | None = None,
) -> None:
    """Add an entry; it is written when the session commits, with the act itself or not at all.

    Args:
        session: The one that acts.
        who: Who asked; None: nobody did, and the session is a tenant's.
        action: As "key.create": a noun and a verb.
        target: Id of what is acted on.
        detail: What changed, as JSON; never a secret, never what people said.
        request: Where it came in.
    """
    entry = AuditEntry(
        actor=who.id if who else SYSTEM,
        action=action,
        target=target,
        detail=dict(detail or {}),
        address=address_of(request) if request else "",
    )
    if who is not None:
        entry.tenant_id = who.tenant
    session.add(entry)


def address_of(request: Request) -> str:
    """Return the address that a request came from.

    Each proxy in front appends who it was asked by to X-Forwarded-For; what is further left than the profile's
    `api.proxies` was written by the client, and is not believed.
    """
    proxies: int = request.app.state.config.proxies
    given = [each.strip() for each in request.headers.get("x-forwarded-for", "").split(",") if each.strip()]
    if proxies and len(given) >= proxies:
        return given[-proxies][:60]
    return request.client.host[:60] if request.client else ""
