"""Calls: begin one, list them, read what is known of one, end and delete it."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy import func, select
from starlette.responses import StreamingResponse

from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs
from api.calls import ending
from api.calls.costs import by_model, by_turn
from api.calls.entry import enter
from api.calls.shapes import (
    CallItem,
    CallShown,
    EventShown,
    ExportedCall,
    NewCall,
    StartedCall,
    Status,
    TurnShown,
)
from api.db import session_of
from api.db.tables import Call, CallEvent, File, Participant, Turn, Usage
from api.db.types import now
from api.etags import etag_of, tag
from api.pages import After, Limit, Page, cursor_of, listed, newer
from api.problems import Problem, problems
from api.records.deletion import delete_call

router = APIRouter(prefix="/api/v1", tags=["calls"])

Reader = Annotated[Principal, needs("calls:read")]
Writer = Annotated[Principal, needs("calls:write")]
CallId = Annotated[str, Path(max_length=64, description="Of the call", examples=["call-7f3a9c1b2d4e"])]

EXPORT_CALLS = 50
"""Calls that an export reads at a time; the turns of one call at a time are in memory."""

PEOPLE = 500
"""Participants that are shown of one call."""


@router.post("/calls", status_code=201, operation_id="start_call", responses=problems())
async def start(request: Request, body: NewCall, who: Writer) -> StartedCall:
    """Start a call: the answer lets one caller in, and an agent comes when they do.

    The call begins also while the database is away, with an assistant of the profile.
    """
    made = await enter(request, who, body.assistant, body.participant_name, body.annotations)
    return StartedCall(
        id=made.call.id,
        server_url=made.url,
        participant_token=made.token,
        participant_identity=made.identity,
        expires_at=made.expires_at,
        assistant=made.call.assistant or "default",
        assistant_id=made.call.assistant_id,
        version=made.call.version,
    )


@router.get("/calls", operation_id="list_calls", responses=problems(), dependencies=[needs("calls:read")])
async def list_(
    session: Tenancy,
    limit: Limit = 50,
    after: After = None,
    status: Annotated[list[Status] | None, Query(max_length=3)] = None,
    assistant: Annotated[str | None, Query(max_length=64, description="Name or id")] = None,
    medium: Annotated[str | None, Query(max_length=20, examples=["sip"])] = None,
    since: Annotated[AwareDatetime | None, Query(alias="from", description="Begun then or later")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="Begun before then")] = None,
    errors: Annotated[bool | None, Query(description="true: with turns that have no answer")] = None,
    caller: Annotated[str | None, Query(min_length=1, max_length=100, description="Part of name or number")] = None,
) -> Page[CallItem]:
    """List calls, the newest first."""
    asked = select(Call)
    if status:
        asked = asked.where(Call.status.in_(status) if len(status) > 1 else Call.status == status[0])
    if assistant is not None:
        asked = asked.where(
            Call.assistant_id == assistant if assistant.startswith("asst_") else Call.assistant == assistant
        )
    if medium is not None:
        asked = asked.where(Call.medium == medium)
    if since is not None:
        asked = asked.where(Call.created_at >= since)
    if until is not None:
        asked = asked.where(Call.created_at < until)
    if errors is not None:
        asked = asked.where(Call.errors > 0 if errors else Call.errors == 0)
    if caller is not None:
        asked = asked.where(func.lower(Call.caller).contains(caller.lower(), autoescape=True))
    return await listed(session, asked, (Call.created_at, Call.id), CallItem.of, limit, after)


@router.get("/calls/{id}", operation_id="get_call", responses=problems(404), dependencies=[needs("calls:read")])
async def get(id: CallId, session: Tenancy, response: Response) -> CallShown:
    """Return a call with its participants and its cost; what was said is in its turns and its transcript."""
    call = await _call(session, id)
    asked = select(Participant).where(Participant.call_id == id).order_by(Participant.joined_at, Participant.id)
    people = (await session.scalars(asked.limit(PEOPLE))).all()
    rows = (await session.scalars(select(Usage).where(Usage.call_id == id).order_by(Usage.role, Usage.model))).all()
    files = await session.scalar(select(func.count()).select_from(File).where(File.call_id == id))
    shown = CallShown.whole(call, people, by_model(rows), files or 0)
    tag(response, etag_of(shown.model_dump_json()))
    return shown


@router.delete("/calls/{id}", status_code=204, operation_id="delete_call", responses=problems(404, 409))
async def delete(id: CallId, session: Tenancy, request: Request, who: Writer) -> None:
    """Delete a call with all that hangs on it, files too; its usage keeps its numbers. A live one is ended first."""
    if (await _call(session, id)).status != "ended":
        await session.rollback()
        await _end(request, session, id)
    await session.rollback()
    if not await delete_call(session, id, request.app.state.storage, request.app.state.prices):
        raise Problem.missing("call")
    await audit(session, who, "call.delete", id, request=request)
    await session.commit()


@router.post("/calls/{id}/end", operation_id="end_call", responses=problems(404))
async def end(id: CallId, session: Tenancy, request: Request, who: Writer) -> CallItem:
    """End a call, wherever it is; one that has ended stays as it is."""
    call = await _call(session, id)
    if call.status == "ended":
        return CallItem.of(call)
    await session.rollback()
    call = await _end(request, session, id)
    await audit(session, who, "call.end", id, request=request)
    await session.commit()
    return CallItem.of(call)


@router.get("/calls/{id}/turns", operation_id="list_turns", responses=problems(404), dependencies=[needs("calls:read")])
async def turns(id: CallId, session: Tenancy, limit: Limit = 50, after: After = None) -> Page[TurnShown]:
    """List a call's turns, the first one first: what was said, how long each stage took, and who served it."""
    await _call(session, id)
    asked = select(Turn).where(Turn.call_id == id)
    costs = await by_turn(session, id)
    shown = partial(TurnShown.of, costs=costs)
    return await listed(session, asked, (Turn.at, Turn.id), shown, limit, after, oldest_first=True)


@router.get(
    "/calls/{id}/events", operation_id="list_events", responses=problems(404), dependencies=[needs("calls:read")]
)
async def events(id: CallId, session: Tenancy, limit: Limit = 50, after: After = None) -> Page[EventShown]:
    """List what happened in a call, the first first; no words of the caller's."""
    await _call(session, id)
    asked = select(CallEvent).where(CallEvent.call_id == id)
    return await listed(session, asked, (CallEvent.at, CallEvent.id), EventShown.of, limit, after, oldest_first=True)


@router.get(
    "/export",
    operation_id="export_calls",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A call with its turns on each line, the oldest first",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **problems(),
    },
)
async def export(request: Request, who: Reader, format: Literal["ndjson"] = "ndjson") -> StreamingResponse:
    """Export all calls of the tenant, with what was said: NDJSON, a call on each line."""
    return StreamingResponse(
        _lines(request.app.state.database, who.tenant),
        media_type="application/x-ndjson",
        headers={"content-disposition": 'attachment; filename="calls.ndjson"'},
    )


async def _lines(database: Any, tenant: str) -> AsyncGenerator[str]:
    """Yield an export. No session outlives a line: whoever reads slowly holds no connection."""
    position: tuple[datetime.datetime, str] | None = None
    while True:
        async with session_of(database, tenant) as session:
            asked = select(Call).order_by(Call.created_at, Call.id).limit(EXPORT_CALLS)
            if (condition := newer(cursor_of(*position) if position else None, Call.created_at, Call.id)) is not None:
                asked = asked.where(condition)
            calls = (await session.scalars(asked)).all()
        for call in calls:
            async with session_of(database, tenant) as session:
                said = await session.scalars(select(Turn).where(Turn.call_id == call.id).order_by(Turn.at, Turn.id))
                here = select(Participant).where(Participant.call_id == call.id).order_by(Participant.joined_at)
                line = ExportedCall.line(call, await session.scalars(here), said, await by_turn(session, call.id))
            yield line.model_dump_json() + "\n"
        if len(calls) < EXPORT_CALLS:
            return
        position = (calls[-1].created_at, calls[-1].id)


async def _call(session: Any, id: str) -> Call:
    call = await session.get(Call, id)
    if call is None:
        raise Problem.missing("call")
    return call


async def _end(request: Request, session: Any, id: str) -> Call:
    """End a call, and write that it has ended; the session has changed nothing yet."""
    state = request.app.state
    if not await ending.hang_up(state.dispatchers, id):
        detail = "Neither the call's agent nor LiveKit could be reached; try again"
        raise Problem(503, "Busy", detail, headers={"retry-after": "2"})
    call = await ending.ended(session, id, now(), ending.BY_API, state.prices)
    if call is None:
        raise Problem.missing("call")
    return call
