"""The one place where queries are kept within their tenant.

A handler has its session from `session_of`, and no other. Whatever it selects, updates or deletes of a table that
belongs to tenants is narrowed to its own, also through relations and joins; what it adds belongs to it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from api.db.engine import Database
from api.db.tables.base import Tenanted

_TENANT = "parley.tenant"


def session_of(database: Database, tenant: str) -> AsyncSession:
    """Return a session that sees and changes one tenant's rows only.

    Args:
        database: Where.
        tenant: The tenant's id; never from a request's body or address, always from who is asking.
    """
    session = database.system()
    session.sync_session.info[_TENANT] = tenant
    return session


@event.listens_for(Session, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    tenant: str | None = state.session.info.get(_TENANT)
    if tenant is None or state.is_column_load:
        return
    if not (state.is_select or state.is_update or state.is_delete):
        # INSERT has nothing to narrow, and sets what it sets: rows are added as objects, checked below.
        raise RuntimeError("a tenant's session selects, updates and deletes by tables' classes; it adds objects")
    if not state.is_orm_statement:
        raise RuntimeError("a tenant's session takes no statement that is not about tables' classes")
    state.statement = state.statement.options(
        with_loader_criteria(Tenanted, lambda table: table.tenant_id == tenant, include_aliases=True)
    )


@event.listens_for(Session, "before_flush")
def _own(session: Session, context: Any, instances: Any) -> None:
    tenant: str | None = session.info.get(_TENANT)
    if tenant is None:
        return
    for row in session.new:
        if isinstance(row, Tenanted):
            if row.tenant_id is None:  # pyright: ignore[reportUnnecessaryComparison]  # not set yet
                row.tenant_id = tenant
            if row.tenant_id != tenant:
                raise RuntimeError("a tenant's session adds rows of its own tenant only")
    for row in session.dirty:
        if isinstance(row, Tenanted) and row.tenant_id != tenant:
            raise RuntimeError("a row cannot go to another tenant")
