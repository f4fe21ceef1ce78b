"""Files into a call: from a product's backend, or from the caller's page."""

from __future__ import annotations

import asyncio
import hmac
import logging
from hashlib import sha256
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from livekit import api
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api import multipart
from api.problems import problem_response
from serve.errors import BadRequest, Overloaded, ParleyError
from serve.settings import settings

logger = logging.getLogger("ray.serve")
router = APIRouter(prefix="/api/v1", tags=["calls"])

FILE_BYTES = 10 * 2**20
"""The largest file."""

FORM_BYTES = FILE_BYTES + 64 * 2**10
"""With its form."""

ANSWER_SECONDS = 80.0
"""A little more than a dispatcher takes at most."""

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
_ANSWERS: dict[int | str, dict[str, Any]] = {
    401: {"description": "Neither the caller's token nor an API key"},
    404: {"description": "No such call"},
    409: {"description": "The call has as many files as it may"},
    413: {"description": "Over 10 MB, or unpacks to too much"},
    415: {"description": "A kind that is not read, or no form"},
    422: {"description": "Broken, empty, encrypted, or not one file"},
    503: {"description": "Nobody could read it now; try again"},
}


class FileRead(BaseModel):
    """What was read."""

    name: str = Field(examples=["report.pdf"])
    kind: str = Field(description="Media type, by the file's content", examples=["application/pdf"])
    characters: int = Field(description="Of its text; 0: a picture")
    note: str = Field(description="What was left out of a long file; empty: nothing")


@router.post("/calls/{room}/files", response_model=FileRead, responses=_ANSWERS, openapi_extra=_FORM)
async def file(room: Annotated[str, Path(max_length=200)], request: Request) -> FileRead | JSONResponse:
    """Send one file into a call: text, Markdown, CSV, PDF, DOCX, or a picture where the model sees.

    Who is not on the server's own machine shows a token of a participant of the room, or an API key, as
    `Authorization: Bearer`.
    """
    if not request.app.state.config.local and not _may(room, request.headers.get("authorization", "")):
        detail = "Send the token with which you joined this call, or an API key, as Authorization: Bearer"
        refused = problem_response(401, "Not for you", detail)
        refused.headers["www-authenticate"] = "Bearer"
        return refused
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return problem_response(415, "No form", "Send the file as multipart/form-data, in a field named file")
    try:
        part = _only_file(await run_in_threadpool(multipart.parse, kind, await request.body()))
    except BadRequest as error:
        return problem_response(422, "Invalid request", f"{error.field}: {error.problem}")
    if len(part.data) > FILE_BYTES:
        return problem_response(413, "Too large", f"A file may have {FILE_BYTES // 2**20} MB")
    return await _send(request.app.state.dispatchers, room, part)


async def _send(dispatchers: Any, room: str, part: multipart.Part) -> FileRead | JSONResponse:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await dispatchers().options(method_name="file").remote(room, part.filename or "file", part.data)
    except Exception as raw:  # whatever it is, the file is not there
        cause = getattr(raw, "cause", raw)
        logger.warning("a file did not reach its call: %s", type(cause).__name__)
        detail = str(cause) if isinstance(cause, ParleyError) else "The file did not reach the call; send it again"
        problem = problem_response(503, "Busy" if isinstance(cause, Overloaded) else "Not reached", detail)
        problem.headers["retry-after"] = "1"
        return problem
    if status is None:
        return problem_response(404, "No such call", "No agent is in a call of this name; it may have ended")
    found = cast("dict[str, Any]", status)
    if found["status"] == "refused":
        number, title = _REFUSALS.get(found["code"], _REFUSALS["unreadable"])
        return problem_response(number, title, f"{found['name']} {found['reason']}", code=found["code"])
    return FileRead(name=found["name"], kind=found["kind"], characters=found["characters"], note=found["note"])


def _only_file(parts: list[multipart.Part]) -> multipart.Part:
    files = [part for part in parts if part.filename is not None]
    if len(files) != 1:
        raise BadRequest("file", f"send one file at a time; there are {len(files)}")
    return files[0]


def _may(room: str, authorization: str) -> bool:
    """Return whether a bearer is in the room, or has a key."""
    given = authorization[7:].strip() if authorization.lower().startswith("bearer ") else ""
    if not given:
        return False
    here = settings()
    keys = [each.strip() for each in here.parley_api_keys.get_secret_value().split(",") if each.strip()]
    # Every key is compared, each in constant time: how long it takes says nothing.
    digest = sha256(given.encode()).digest()
    fits = [hmac.compare_digest(digest, sha256(key.encode()).digest()) for key in keys]
    if any(fits):
        return True
    try:
        claims = api.TokenVerifier(here.livekit_api_key, here.livekit_api_secret.get_secret_value()).verify(given)
    except Exception:  # whatever is wrong with it, it is no token of ours
        return False
    return bool(claims.video and claims.video.room_join and claims.video.room == room)
