"""Files into a call, from a product's backend or from the caller's page; and into an assistant's knowledge."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Path, Request
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from api import multipart
from api.access.audit import audit
from api.access.participants import sender
from api.access.principal import Principal, needs
from api.db import session_of
from api.db.tables import Assistant as AssistantRow
from api.db.tables import Call, File
from api.db.types import new_id, now
from api.etags import hold
from api.filing import Arrived, keep_of_call
from api.names import PathId
from api.problems import Problem, problems
from api.routes.files import FileRead
from api.storage import Storage, StorageAway, folder_of
from serve.errors import BadRequest, Overloaded, ParleyError

logger = logging.getLogger("ray.serve")
router = APIRouter(prefix="/api/v1", tags=["files"])

FILE_BYTES = 10 * 2**20
"""The largest file."""

FORM_BYTES = FILE_BYTES + 64 * 2**10
"""With its form."""

ANSWER_SECONDS = 80.0
"""A little more than a dispatcher takes at most."""

KNOWLEDGE_FILES = 20
"""Of one assistant."""

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_REFUSALS: dict[str, tuple[int, str]] = {
    "too_large": (413, "Too large"),
    "unsupported": (415, "Not a kind that is read"),
    "unreadable": (422, "Not readable"),
    "too_many": (409, "Too many files"),
    "busy": (503, "Busy"),
}


@router.post(
    "/calls/{id}/files",
    status_code=201,
    operation_id="send_file_into_call",
    responses=problems(404, 409, 413, 415),
    openapi_extra=_FORM,
)
async def send_file(
    request: Request, id: Annotated[str, Path(max_length=64)], who: Annotated[Principal, Depends(sender)]
) -> FileRead:
    """Send one file into a call: text, Markdown, CSV, PDF, DOCX, or a picture where the model sees.

    A caller shows the token with which they joined; everybody else needs the scope `files:write`. What the file is, is
    decided by its content.
    """
    state: Any = request.app.state
    async with state.limits.upload(who):
        part = await _part(request)
        async with session_of(state.database, who.tenant) as session:
            if await session.get(Call, id) is None:
                raise Problem.missing("call")
        status = await _ask(state.dispatchers, "file", id, part.filename or "file", part.data)
        if status is None:
            raise Problem(404, "No such call", "No agent is in a call of this name; it may have ended")
        arrived = Arrived(status["file"], status["name"], status["kind"], part.data, sender=who.id)
        async with session_of(state.database, who.tenant) as session:
            try:
                row = await keep_of_call(session, state.storage, who.tenant, id, arrived)
            except StorageAway:
                # It has been read, and is in the conversation: sending it again would bring it there twice.
                row = None
        if row is None:
            row = arrived.row("")
            row.created_at, row.call_id, row.status = now(), id, "ready"
        return FileRead.of(row, characters=status["characters"], note=status["note"])


@router.post(
    "/assistants/{id}/files",
    status_code=201,
    operation_id="add_file_to_assistant",
    responses=problems(404, 409, 413, 415),
    openapi_extra=_FORM,
)
async def add_file(
    request: Request, id: PathId, who: Annotated[Principal, needs("assistants:write", "files:write")]
) -> FileRead:
    """Add one file to what an assistant knows, for all calls that begin from now on; one of the same name goes.

    Text, Markdown, CSV, PDF or DOCX, by its content. An assistant may have 20; a call looks things up in the newest
    100,000 characters of them.
    """
    state: Any = request.app.state
    async with state.limits.upload(who):
        part = await _part(request)
        async with session_of(state.database, who.tenant) as session:
            if (row := await session.get(AssistantRow, id)) is None or row.deleted_at is not None:
                raise Problem.missing("assistant")
        read = await _ask(state.dispatchers, "read", part.filename or "file", part.data)
        if read is None:
            raise Problem(503, "Not reached", "The file was not read; send it again")
        file = Arrived(new_id("file"), read["name"], read["kind"], part.data, read["text"], who.id)
        made = await _know(request, who, id, file)
        return FileRead.of(made, characters=len(file.text), note=read["note"])


async def _know(request: Request, who: Principal, id: str, file: Arrived) -> File:
    """Store a file of an assistant, in place of one of the same name."""
    storage: Storage = request.app.state.storage
    path = f"{folder_of(who.tenant, 'assistants', id)}/{file.id}"
    # Before its row: a row whose bytes are missing would be worse than bytes that nobody finds.
    await storage.put(path, file.data, file.kind, file.name)
    try:
        async with session_of(request.app.state.database, who.tenant) as session:
            if (row := await hold(session, AssistantRow, id)) is None or row.deleted_at is not None:
                raise Problem.missing("assistant")
            mine = select(File).where(File.assistant_id == id)
            before = (await session.scalars(mine.where(File.name == file.name))).all()
            count = await session.scalar(select(func.count()).select_from(mine.subquery())) or 0
            if count - len(before) >= KNOWLEDGE_FILES:
                raise Problem(409, "Too many files", f"An assistant may have {KNOWLEDGE_FILES}; delete one first")
            made = file.row(path)
            made.assistant_id = id
            session.add(made)
            for each in before:
                await session.delete(each)
            await audit(session, who, "file.create", file.id, {"assistant": id}, request)
            await session.commit()
    except BaseException:
        await storage.delete(path)
        raise
    for each in before:
        if each.location:
            await storage.delete(each.location)
    return made


async def _part(request: Request) -> multipart.Part:
    """Return the one file of a form; the body is here already, bounded while it came in (`api.problems.BodyLimit`)."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise Problem(415, "No form", "Send the file as multipart/form-data, in a field named file")
    try:
        parts = await run_in_threadpool(multipart.parse, kind, await request.body())
    except BadRequest as error:
        raise Problem.field(error.field, error.problem) from None
    files = [part for part in parts if part.filename is not None]
    if len(files) != 1:
        raise Problem.field("file", f"send one file at a time; there are {len(files)}")
    if len(files[0].data) > FILE_BYTES:
        raise Problem(413, "Too large", f"A file may have {FILE_BYTES // 2**20} MB")
    return files[0]


async def _ask(dispatchers: Any, method: str, *args: Any) -> dict[str, Any] | None:
    """Let a file be read apart from this process; return what became of it, None where its call is not there.

    Raises:
        Problem: It was refused, or nobody was reached.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await dispatchers().options(method_name=method).remote(*args)
    except Exception as raw:  # whatever it is, the file is not there
        cause = getattr(raw, "cause", raw)
        logger.warning("a file was not read: %s", type(cause).__name__)
        detail = str(cause) if isinstance(cause, ParleyError) else "The file was not read; send it again"
        title = "Busy" if isinstance(cause, Overloaded) else "Not reached"
        raise Problem(503, title, detail, headers={"retry-after": "1"}) from None
    if status is None:
        return None
    found = cast("dict[str, Any]", status)
    if found["status"] == "refused":
        number, title = _REFUSALS.get(found["code"], _REFUSALS["unreadable"])
        raise Problem(number, title, f"{found['name']} {found['reason']}", code=found["code"])
    return found
