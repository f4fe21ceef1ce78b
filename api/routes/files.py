"""Files that were sent into calls, and those of assistants: what there is, downloads by links that run out."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import BaseModel, Field
from sqlalchemy import select
from starlette.responses import RedirectResponse, Response, StreamingResponse

from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs, principal
from api.db import session_of
from api.db.tables import File
from api.db.types import now
from api.names import PathId, QueryId
from api.pages import After, Limit, Page, listed
from api.problems import Problem, problems
from api.secret import secret
from api.storage import Storage, attachment

router = APIRouter(prefix="/api/v1/files", tags=["files"])


class FileInfo(BaseModel):
    """A file of a call, or of an assistant's knowledge."""

    id: str = Field(examples=["file_0199f3a1c2d40f1e2d3c4b5a69788796"])
    call_id: str | None = Field(examples=["call-3f2a9c0d1e4b"])
    assistant_id: str | None = Field(examples=[None])
    name: str = Field(description="Without folders and control characters", examples=["report.pdf"])
    media_type: str = Field(description="By the file's content", examples=["application/pdf"])
    size: int = Field(description="Bytes", examples=[48213])
    sender: str = Field(description="Identity of the caller, or id of the person or key", examples=["caller-1f2e"])
    status: Literal["ready", "refused"]
    problem: str = Field(description="Why it was refused; empty: it was not")
    stored: bool = Field(description="It can be downloaded; false: only what was read from it is here")
    created_at: datetime.datetime


class FileDetail(FileInfo):
    """A file with what was read from it."""

    sha256: str = Field(description="Of its bytes; empty: they are not here")
    text: str = Field(description="What was read from it")


class FileRead(FileInfo):
    """A file that was taken."""

    characters: int = Field(description="Of its text; 0: a picture", examples=[12034])
    note: str = Field(description="What was left out of a long file; empty: nothing", examples=[""])

    @classmethod
    def of(cls, row: File, characters: int, note: str) -> FileRead:
        """Return what is told of a file that has just come."""
        return cls(**_about(row), characters=characters, note=note)


class Link(BaseModel):
    """Where a file can be had for a while, by whoever knows the address."""

    url: str = Field(examples=["http://127.0.0.1:8000/api/v1/files/file_0199f3a1/content?token=eyJm..."])
    expires_at: datetime.datetime


@router.get("", operation_id="list_files", responses=problems())
async def list_files(
    session: Tenancy,
    _: Annotated[Principal, needs("files:read")],
    call: Annotated[str | None, Query(max_length=64, description="Only those of this call")] = None,
    assistant: QueryId = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[FileInfo]:
    """List files, the newest first."""
    asked = select(File)
    if call is not None:
        asked = asked.where(File.call_id == call)
    if assistant is not None:
        asked = asked.where(File.assistant_id == assistant)
    return await listed(session, asked, (File.id,), lambda row: FileInfo(**_about(row)), limit, after)


@router.get("/{id}", operation_id="get_file", responses=problems(404))
async def get_file(session: Tenancy, _: Annotated[Principal, needs("files:read")], id: PathId) -> FileDetail:
    """Return what is known of a file, and what was read from it."""
    row = await _row(session, id)
    return FileDetail(**_about(row), sha256=row.digest, text=row.text)


@router.delete("/{id}", status_code=204, operation_id="delete_file", responses=problems(404))
async def delete_file(
    request: Request, session: Tenancy, who: Annotated[Principal, needs("files:write")], id: PathId
) -> None:
    """Delete a file, its bytes and what was read from it. A call in progress may still know it."""
    row = await _row(session, id)
    if row.location:
        storage: Storage = request.app.state.storage
        await storage.delete(row.location)
    await session.delete(row)
    await audit(session, who, "file.delete", id, {}, request)
    await session.commit()


@router.post("/{id}/link", status_code=201, operation_id="create_file_link", responses=problems(404, 410))
async def create_link(
    request: Request, session: Tenancy, who: Annotated[Principal, needs("files:read")], id: PathId
) -> Link:
    """Make a link from which a file can be downloaded without a key, until it runs out: for a browser, for minutes."""
    row = await _row(session, id)
    if not row.location:
        raise _no_bytes()
    config: Any = request.app.state.config
    storage: Storage = request.app.state.storage
    expires_at = now() + datetime.timedelta(seconds=config.link_seconds)
    url = await storage.link(row.location, config.link_seconds)
    if url is None:
        token = _signer(request).dumps([id, who.tenant])
        address = request.url_for("get_file_content", id=id)
        if config.public_url:
            address = f"{config.public_url}{address.path}"
        url = f"{address}?token={token}"
    return Link(url=url, expires_at=expires_at)


async def _reader(
    request: Request, id: PathId, token: Annotated[str | None, Query(max_length=500, description="Of a link")] = None
) -> str:
    """Return the tenant whose file may be read: that of a link, or of who asks.

    Raises:
        Problem: 401, 403.
    """
    if token is None:
        who = await principal(request)
        if "files:read" not in who.scopes:
            raise Problem(403, "Not allowed", "This needs the scope files:read")
        return who.tenant
    try:
        file, tenant = _signer(request).loads(token, max_age=request.app.state.config.link_seconds)
    except (BadSignature, ValueError, TypeError):
        raise Problem(403, "Not allowed", "This link has run out, or is none of ours; make another") from None
    if file != id:
        raise Problem(403, "Not allowed", "This link is for another file")
    return tenant


@router.get(
    "/{id}/content",
    name="get_file_content",
    operation_id="get_file_content",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        302: {"description": "To the store of files itself, where it signs links"},
        **problems(404, 410),
    },
)
async def content(request: Request, id: PathId, tenant: Annotated[str, Depends(_reader)]) -> Response:
    """Return a file as it was sent, to be saved: with a link's `token`, or the scope `files:read`."""
    async with session_of(request.app.state.database, tenant) as session:
        row = await _row(session, id)
    if not row.location:
        raise _no_bytes()
    storage: Storage = request.app.state.storage
    if (elsewhere := await storage.link(row.location, 60)) is not None:
        return RedirectResponse(elsewhere, 302, headers={"cache-control": "no-store"})
    pieces = await storage.read(row.location)
    if pieces is None:
        raise _no_bytes()
    headers = {
        "content-disposition": attachment(row.name),
        "content-length": str(row.size),
        # Whatever it holds, a browser neither shows nor runs it here.
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-store",
    }
    return StreamingResponse(pieces, media_type=row.media_type, headers=headers)


def _signer(request: Request) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret(request.app.state.config.local), salt="parley file link")


async def _row(session: Any, id: str) -> File:
    row = await session.get(File, id)
    if row is None:
        raise Problem.missing("file")
    return row


def _no_bytes() -> Problem:
    return Problem(410, "Gone", "The bytes of this file are not kept; `text` of the file is what was read from it")


def _about(row: File) -> dict[str, Any]:
    return {
        "id": row.id,
        "call_id": row.call_id,
        "assistant_id": row.assistant_id,
        "name": row.name,
        "media_type": row.media_type,
        "size": row.size,
        "sender": row.sender,
        "status": row.status,
        "problem": row.problem or "",
        "stored": bool(row.location),
        "created_at": row.created_at,
    }
