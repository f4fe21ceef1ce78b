"""What agents ask the API, over a Serve handle: who an assistant is, and what it knows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.db import Database, session_of
from api.db.tables import Assistant as AssistantRow
from api.db.tables import AssistantVersion, File
from api.db.tables.accounts import DEFAULT_TENANT
from api.staff import find

KNOWLEDGE_CHARACTERS = 100_000
"""Of an assistant's files, the newest first: what a call can look things up in."""

OTHERS = 20
"""Assistants that one may hand over to."""


async def assistant(database: Database, ref: str, tenant: str) -> dict[str, Any] | None:
    """Return an assistant for a call; None: the tenant has none of this name.

    Args:
        database: Where.
        ref: An id with a version, an id, or a name: `api.staff.find`.
        tenant: As the call's dispatch says; "": the default one.

    Returns:
        `ref` (with its version), `name`, `definition`, `files` (`name`, `kind`, `size`, `text`) and `others`
        (`name`, `description`, `ref`) whom it may hand over to.
    """
    async with session_of(database, tenant or DEFAULT_TENANT) as session:
        found = await find(session, ref)
        if found is None:
            return None
        row, version = found
        hands_over = "hand_over" in version.definition.get("tools", ())
        return {
            "ref": f"{row.id}@{version.number}",
            "name": row.name,
            "definition": version.definition,
            "files": await _knowledge(session, row.id),
            "others": await _others(session, row.id) if hands_over else [],
        }


async def _knowledge(session: AsyncSession, id: str) -> list[dict[str, Any]]:
    asked = select(File).where(File.assistant_id == id, File.status == "ready").order_by(File.id.desc())
    left, files = KNOWLEDGE_CHARACTERS, list[dict[str, Any]]()
    for each in (await session.scalars(asked)).all():
        if left <= 0:
            break
        text = each.text[:left]
        left -= len(text)
        files.append({"name": each.name, "kind": each.media_type, "size": each.size, "text": text})
    return files


async def _others(session: AsyncSession, id: str) -> list[dict[str, Any]]:
    asked = (
        select(AssistantRow.id, AssistantRow.name, AssistantVersion.number, AssistantVersion.definition)
        .join(AssistantVersion, AssistantVersion.assistant_id == AssistantRow.id)
        .where(AssistantVersion.number == AssistantRow.version, AssistantRow.deleted_at.is_(None))
        .where(AssistantRow.id != id)
        .order_by(AssistantRow.id.desc())
        .limit(OTHERS)
    )
    return [
        {"name": name, "description": definition.get("description", ""), "ref": f"{other}@{number}"}
        for other, name, number, definition in (await session.execute(asked)).all()
    ]
