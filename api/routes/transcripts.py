"""A call's transcript, in the format that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select

from api.access.principal import Tenancy, needs
from api.calls import words
from api.calls.words import Transcript
from api.db.tables import Call, Turn
from api.etags import etag_of
from api.problems import Problem, problems
from api.routes.calls import CallId

router = APIRouter(prefix="/api/v1", tags=["calls"], dependencies=[needs("calls:read")])

Format = Literal["json", "text", "vtt"]

_QUALITY = re.compile(r"[01](\.[0-9]{1,3})?")

MOST_TURNS = 10_000
"""Longer calls are read by their turns."""

_TYPES: dict[Format, str] = {"json": "application/json", "text": "text/plain", "vtt": "text/vtt"}
_WRITTEN: dict[Format, Callable[[Transcript], str]] = {
    "json": lambda found: found.model_dump_json(),
    "text": words.text,
    "vtt": words.webvtt,
}
_CONTENT: dict[str, Any] = {
    "application/json": {"schema": {"$ref": "#/components/schemas/Transcript"}},
    "text/plain": {"schema": {"type": "string"}, "example": "[00:04] Ada: When do you open?\n"},
    "text/vtt": {
        "schema": {"type": "string"},
        "example": "WEBVTT\n\n00:00:04.200 --> 00:00:05.700\n<v Ada>When do you open?</v>\n",
    },
}


@router.get(
    "/calls/{id}/transcript",
    operation_id="get_transcript",
    response_model=Transcript,
    responses={200: {"description": "What was said", "content": _CONTENT}, 304: {"description": "As you have it"}}
    | problems(404, 406),
)
async def transcript(
    id: CallId,
    session: Tenancy,
    request: Request,
    format: Annotated[Format | None, Query(description="Goes before Accept; without either: json")] = None,
) -> Response:
    """Return what was said in a call, as JSON, plain text or WebVTT with a voice for each speaker."""
    wanted = format or _accepted(request.headers.get("accept", ""))
    call = await session.get(Call, id)
    if call is None:
        raise Problem.missing("call")
    asked = select(Turn).where(Turn.call_id == id).order_by(Turn.at, Turn.id).limit(MOST_TURNS)
    body = _WRITTEN[wanted](words.transcript(call, (await session.scalars(asked)).all()))
    headers = {"etag": etag_of(wanted, body), "vary": "Accept", "cache-control": "private, no-cache"}
    if headers["etag"] in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=_TYPES[wanted], headers=headers)


def _accepted(accept: str) -> Format:
    """Return the format that a client likes best.

    Raises:
        Problem: 406: there is none that it takes.
    """
    wishes: list[tuple[float, Format]] = []
    for each in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = [part.strip().lower() for part in each.split(";")]
        given = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        quality = float(given) if _QUALITY.fullmatch(given) else 0.0
        fitting: list[Format] = [
            name for name, known in _TYPES.items() if kind in (known, "*/*", f"{known.split('/')[0]}/*")
        ]
        if fitting and quality > 0:
            wishes.append((quality, fitting[0]))
    if not wishes:
        detail = f"There are {', '.join(_TYPES.values())}; or say ?format={'|'.join(_TYPES)}"
        raise Problem(406, "Not acceptable", detail)
    return max(wishes, key=lambda wish: wish[0])[1]
