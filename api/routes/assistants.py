"""Assistants: the profile's, to be seen, and a tenant's own, with all their versions."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api import staff as staffing
from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs
from api.db.tables import Assistant as AssistantRow
from api.db.tables import AssistantVersion
from api.db.types import new_id, now
from api.etags import IfMatch, check, etag_of, hold, tag
from api.names import PathId
from api.pages import After, Limit, Page, cursor_of, cut, older, values_of
from api.problems import Problem, problems
from api.staff import HIDDEN, Staff
from serve.assistant import Assistant

router = APIRouter(prefix="/api/v1/assistants", tags=["assistants"])

MOST = 500
"""Assistants of one tenant."""

VERSIONS = 10_000
"""Of one assistant."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\w(?:[\w .'-]{0,58}[\w.])?$", max_length=60)]
"""Shown to people, and spoken of by models that hand over."""

Number = Annotated[int, Path(ge=1, le=VERSIONS)]

_DEFINITION: dict[str, Any] = {
    "description": "Takes orders of the shop.",
    "instructions": "You take orders for a small shop. Answer in one or two short spoken sentences.",
    "greeting": "Hello, this is the shop. What would you like?",
    "tools": ["end_call"],
}


class AssistantChange(BaseModel):
    """What an assistant shall be; what its definition leaves out has the defaults."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "Order desk", "definition": _DEFINITION}]}
    )

    name: Name = Field(description="Unique among the tenant's assistants and those of the profile")
    definition: Assistant


class AssistantSummary(BaseModel):
    """An assistant, as lists show it."""

    id: str = Field(description="Of the profile's: their names", examples=["asst_0199f3a1c2d40f1e2d3c4b5a69788796"])
    name: str = Field(examples=["Order desk"])
    description: str = Field(examples=["Takes orders of the shop."])
    source: Literal["database", "profile"] = Field(description="profile: it is changed there, and read-only here")
    version: int | None = Field(description="That new calls begin with; null: it is the profile's", examples=[3])
    ref: str = Field(
        description="What a call's `assistant` may say; with a version, that one",
        examples=["asst_0199f3a1c2d40f1e2d3c4b5a69788796@3"],
    )
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None


class AssistantDetail(AssistantSummary):
    """An assistant with all that it is."""

    definition: Assistant = Field(description="Of the profile's, addresses and numbers are left out")


class VersionSummary(BaseModel):
    """What an assistant was from one change to the next."""

    number: int = Field(examples=[3])
    created_at: datetime.datetime
    created_by: str = Field(description="Id of a person or a key")


class VersionDetail(VersionSummary):
    """A version with its definition."""

    definition: Assistant


@router.get("", operation_id="list_assistants", responses=problems())
async def list_assistants(
    request: Request,
    session: Tenancy,
    _: Annotated[Principal, needs("assistants:read")],
    limit: Limit = 50,
    after: After = None,
) -> Page[AssistantSummary]:
    """List assistants: the profile's first, then the tenant's own, the newest first."""
    staff: Staff = request.app.state.staff
    position = values_of(after, 1)
    place = str(position[0]) if position else ""
    here = staff.names[staff.names.index(place) + 1 :] if place in staff.names else [] if place else staff.names
    items = [_profiles(staff, name) for name in here[: limit + 1]]
    if len(items) <= limit:
        asked = (
            select(AssistantRow, AssistantVersion)
            .join(AssistantVersion, AssistantVersion.assistant_id == AssistantRow.id)
            .where(AssistantVersion.number == AssistantRow.version, AssistantRow.deleted_at.is_(None))
            .order_by(AssistantRow.id.desc())
            .limit(limit + 1 - len(items))
        )
        if place and place not in staff.names:
            condition = older(after, AssistantRow.id)
            assert condition is not None, "there is a cursor"
            asked = asked.where(condition)
        items += [_summary(row, version) for row, version in (await session.execute(asked)).all()]
    page, more = cut(items, limit)
    return Page(items=list(page), next=cursor_of(page[-1].id) if more else None)


@router.post("", status_code=201, operation_id="create_assistant", responses=problems(409))
async def create_assistant(
    request: Request,
    response: Response,
    session: Tenancy,
    who: Annotated[Principal, needs("assistants:write")],
    body: AssistantChange,
) -> AssistantDetail:
    """Make an assistant; calls may ask for it at once."""
    _check(request, body)
    if (await session.scalar(select(func.count()).where(AssistantRow.deleted_at.is_(None))) or 0) >= MOST:
        raise Problem(409, "Too many", f"A tenant may have {MOST} assistants; delete one that is not needed")
    row = AssistantRow(id=new_id("asst"), name=body.name, version=1, updated_at=now())
    session.add(row)
    await _flush(session, body.name)
    version = _version(row, body.definition, who)
    session.add(version)
    await audit(session, who, "assistant.create", row.id, {"name": row.name}, request)
    await session.commit()
    tag(response, etag_of(row))
    return _detail(row, version)


@router.get("/{id}", operation_id="get_assistant", responses=problems(404))
async def get_assistant(
    request: Request,
    response: Response,
    session: Tenancy,
    _: Annotated[Principal, needs("assistants:read")],
    id: PathId,
) -> AssistantDetail:
    """Return an assistant as new calls have it; its ETag is what a change needs."""
    staff: Staff = request.app.state.staff
    if id in staff.named:
        shown = _profiles(staff, id)
        hidden = {name: value for name, value in staff.named[id].model_dump().items() if name not in HIDDEN}
        detail = AssistantDetail(**shown.model_dump(), definition=Assistant.model_validate(hidden))
        tag(response, etag_of(detail.model_dump_json()))
        return detail
    row = await _row(session, id)
    version = await _number(session, row, row.version)
    tag(response, etag_of(row))
    return _detail(row, version)


@router.put("/{id}", operation_id="change_assistant", responses=problems(404, 409, 412, 428))
async def change_assistant(
    request: Request,
    response: Response,
    session: Tenancy,
    who: Annotated[Principal, needs("assistants:write")],
    id: PathId,
    body: AssistantChange,
    if_match: IfMatch = None,
) -> AssistantDetail:
    """Change an assistant: its definition becomes a new version, with which new calls begin.

    Calls in progress keep theirs. A definition that is what it was makes none.
    """
    row = await _held(request, session, id)
    _check(request, body, row)
    version = await _number(session, row, row.version)
    if body.definition != Assistant.model_validate(version.definition):
        version = await _next(session, row, body.definition, who)
    row.name, row.updated_at = body.name, now()
    await _flush(session, body.name)
    await audit(session, who, "assistant.change", row.id, {"name": row.name, "version": row.version}, request)
    await session.commit()
    tag(response, etag_of(row))
    return _detail(row, version)


@router.delete("/{id}", status_code=204, operation_id="delete_assistant", responses=problems(404, 409))
async def delete_assistant(
    request: Request, session: Tenancy, who: Annotated[Principal, needs("assistants:write")], id: PathId
) -> None:
    """Delete an assistant: no new call gets it, calls in progress go on, and past ones still name it."""
    _not_profiles(request, id)
    if await hold(session, AssistantRow, id) is None:
        raise Problem.missing("assistant")
    row = await _row(session, id)
    row.deleted_at = now()
    await audit(session, who, "assistant.delete", row.id, {"name": row.name}, request)
    await session.commit()


@router.get("/{id}/versions", operation_id="list_assistant_versions", responses=problems(404))
async def list_versions(
    session: Tenancy,
    _: Annotated[Principal, needs("assistants:read")],
    id: PathId,
    limit: Limit = 50,
    after: After = None,
) -> Page[VersionSummary]:
    """List an assistant's versions, the newest first."""
    await _row(session, id)
    asked = select(AssistantVersion).where(AssistantVersion.assistant_id == id)
    asked = asked.order_by(AssistantVersion.number.desc()).limit(limit + 1)
    if (position := values_of(after, 1)) is not None:
        if not str(position[0]).isdecimal():
            raise Problem.field("after", "is no cursor; take `next` of the page before")
        asked = asked.where(AssistantVersion.number < min(int(position[0]), VERSIONS + 1))
    page, more = cut((await session.scalars(asked)).all(), limit)
    items = [VersionSummary.model_validate(each, from_attributes=True) for each in page]
    return Page(items=items, next=cursor_of(str(items[-1].number)) if more else None)


@router.get("/{id}/versions/{number}", operation_id="get_assistant_version", responses=problems(404))
async def get_version(
    session: Tenancy, _: Annotated[Principal, needs("assistants:read")], id: PathId, number: Number
) -> VersionDetail:
    """Return what an assistant was."""
    version = await _number(session, await _row(session, id), number)
    return VersionDetail.model_validate(version, from_attributes=True)


@router.post(
    "/{id}/versions/{number}/restore",
    status_code=201,
    operation_id="restore_assistant_version",
    responses=problems(404, 409, 412, 428),
)
async def restore_version(
    request: Request,
    response: Response,
    session: Tenancy,
    who: Annotated[Principal, needs("assistants:write")],
    id: PathId,
    number: Number,
    if_match: IfMatch = None,
) -> AssistantDetail:
    """Bring an old version back, as a new one. What is not allowed any more is refused as if it were sent now."""
    row = await _held(request, session, id)
    old = await _number(session, row, number)
    definition = Assistant.model_validate(old.definition)
    _check(request, AssistantChange(name=row.name, definition=definition), row)
    version = await _next(session, row, definition, who)
    row.updated_at = now()
    await audit(session, who, "assistant.restore", row.id, {"from": number, "version": row.version}, request)
    await session.commit()
    tag(response, etag_of(row))
    return _detail(row, version)


def _check(request: Request, body: AssistantChange, row: AssistantRow | None = None) -> None:
    state: Any = request.app.state
    if body.name in state.staff.named or body.name.startswith("asst_"):
        raise Problem(409, "Taken", f"name: {body.name!r} is taken; the profile has an assistant of this name")
    staffing.check(body.definition, state.staff, state.catalog, state.config.assistants)


async def _held(request: Request, session: AsyncSession, id: str) -> AssistantRow:
    """Return the row to change, as the client has read it.

    Raises:
        Problem: It is not there, or was changed meanwhile.
    """
    _not_profiles(request, id)
    row = await hold(session, AssistantRow, id)
    if row is None or row.deleted_at is not None:
        raise Problem.missing("assistant")
    check(request, etag_of(row))
    return row


def _not_profiles(request: Request, id: str) -> None:
    if id in request.app.state.staff.named:
        raise Problem(409, "Read-only", "This assistant is the profile's; an operator changes it there")


async def _row(session: AsyncSession, id: str) -> AssistantRow:
    row = await session.get(AssistantRow, id)
    if row is None or row.deleted_at is not None:
        raise Problem.missing("assistant")
    return row


async def _number(session: AsyncSession, row: AssistantRow, number: int) -> AssistantVersion:
    version = await session.get(AssistantVersion, (row.id, number))
    if version is None:
        raise Problem.missing("version")
    return version


async def _next(session: AsyncSession, row: AssistantRow, definition: Assistant, who: Principal) -> AssistantVersion:
    if row.version >= VERSIONS:
        raise Problem(409, "Too many", f"An assistant may have {VERSIONS} versions; make a new one")
    row.version += 1
    version = _version(row, definition, who)
    session.add(version)
    return version


def _version(row: AssistantRow, definition: Assistant, who: Principal) -> AssistantVersion:
    stored = definition.model_dump(mode="json")
    return AssistantVersion(
        assistant_id=row.id, number=row.version, definition=stored, created_by=who.id, created_at=now()
    )


async def _flush(session: AsyncSession, name: str) -> None:
    """Write what is there; the database knows whether a name is taken, whoever asks at the same moment."""
    try:
        await session.flush()
    except IntegrityError:
        raise Problem(409, "Taken", f"name: {name!r} is taken; another assistant has this name") from None


def _profiles(staff: Staff, name: str) -> AssistantSummary:
    return AssistantSummary(
        id=name,
        name=name,
        description=staff.named[name].description,
        source="profile",
        version=None,
        ref=name,
        created_at=None,
        updated_at=None,
    )


def _summary(row: AssistantRow, version: AssistantVersion) -> AssistantSummary:
    return AssistantSummary(
        id=row.id,
        name=row.name,
        description=version.definition.get("description", ""),
        source="database",
        version=row.version,
        ref=f"{row.id}@{row.version}",
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _detail(row: AssistantRow, version: AssistantVersion) -> AssistantDetail:
    definition = Assistant.model_validate(version.definition)
    return AssistantDetail(**_summary(row, version).model_dump(), definition=definition)
