"""Following calls while they go on, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.access.principal import Principal, needs
from api.calls.following import Event, Following
from api.db import session_of
from api.db.tables import Call
from api.db.tables.accounts import DEFAULT_TENANT
from api.openapi import EVENT_STREAM
from api.problems import AWAY, Problem, problems
from api.routes.calls import CallId

router = APIRouter(prefix="/api/v1", tags=["calls"])

Reader = Annotated[Principal, needs("calls:read")]
LastEvent = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=r"^[0-9]{1,16}-[0-9]{1,16}$",
        description="Id of the event seen last: it goes on after it",
    ),
]

PING_SECONDS = 15
SEND_SECONDS = 20.0
"""A watcher whose connection takes nothing for so long is given up."""

LIST_SECONDS = 1.0
"""How often the list of live calls is looked at."""

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `event` is the type, `data` a JSON object; a comment now and then",
        "content": {"text/event-stream": EVENT_STREAM},
    }
}


class LiveCall(BaseModel):
    """What a live call does now."""

    id: str = Field(examples=["call-7f3a9c1b2d4e"])
    assistant: str = Field(description="Who answers now", examples=["default"])
    caller: str = Field(description="Name or number", examples=["Ada"])
    medium: str = Field(examples=["standard"])
    began: float = Field(description="Seconds since 1970", examples=[1777887012.3])
    caller_state: str = Field(description="listening, speaking or away", examples=["speaking"])
    assistant_state: str = Field(description="initializing, listening, thinking or speaking", examples=["listening"])
    turns: int = Field(description="Since this agent took the call", examples=[3])

    @classmethod
    def of(cls, now: Event) -> LiveCall:
        """Return how what an agent notes (`agent/live.py`) is shown."""
        return cls(
            id=now["call"],
            assistant=now["assistant"],
            caller=now["name"],
            medium=now["medium"] or "standard",
            began=now["began"],
            caller_state=now["caller"],
            assistant_state=now["assistant_state"],
            turns=now["turns"],
        )


@router.get(
    "/calls/live", operation_id="follow_calls", response_class=EventSourceResponse, responses=_STREAM | problems()
)
async def follow_all(request: Request, who: Reader) -> EventSourceResponse:
    """Follow all live calls of the tenant: `calls` is the whole list, sent at once and whenever it has changed."""
    following: Following = request.app.state.following
    following.admit()
    return _answer(following, _list(following, who.tenant))


@router.get(
    "/calls/{id}/live",
    operation_id="follow_call",
    response_class=EventSourceResponse,
    responses=_STREAM | problems(404),
)
async def follow(id: CallId, request: Request, who: Reader, last_event_id: LastEvent = None) -> EventSourceResponse:
    """Follow a call: `caption` as they grow, `state`, `turn`, `event`, and `ended` last.

    Begins with what was told in the last minutes. `gap`: something older than what is kept was missed; `cut_off`: you
    read too slowly, come back with Last-Event-ID.
    """
    following: Following = request.app.state.following
    await _mine(request, following, id, who.tenant)
    following.admit(id)

    async def reason() -> str | None:
        try:
            return await _reason(request, id, who.tenant)
        except (*AWAY, OSError):
            return None  # it is asked again

    return _answer(following, _events(following, id, last_event_id or "", reason))


async def _events(following: Following, call: str, after: str, reason: Any) -> AsyncGenerator[ServerSentEvent]:
    if (why := await reason()) is not None and all(now["call"] != call for now in await _living(following)):
        # What its agent told last is there for some minutes; then only the end is.
        async for event in _last(following, call, after, why):
            yield event
        return
    async with following.watch(call, after, reason) as watcher:
        async for id, event in watcher.events():
            yield _sent(id, event)


async def _last(following: Following, call: str, after: str, why: str) -> AsyncGenerator[ServerSentEvent]:
    """Yield what is still kept of a call that has ended."""
    told = False
    try:
        while page := await following.ask("live", call, after, 0.0):
            for id, event in page:
                after, told = id, told or event["type"] == "ended"
                if event.get("final", True):
                    yield _sent(id, event)
    except TimeoutError:
        pass  # the end is known without it
    if not told:
        yield _sent("", {"type": "ended", "reason": why})


async def _list(following: Following, tenant: str) -> AsyncGenerator[ServerSentEvent]:
    before: list[dict[str, Any]] | None = None
    while True:
        try:
            found = await following.living()
        except TimeoutError:
            found = None
        if found is not None:
            mine = [LiveCall.of(now).model_dump() for now in found if _tenant(now) == tenant]
            mine.sort(key=lambda call: (call["began"], call["id"]))
            if mine != before:
                before = mine
                yield _sent("", {"type": "calls", "calls": mine})
        await asyncio.sleep(LIST_SECONDS)  # agents note what they do; nobody tells that something was noted


async def _mine(request: Request, following: Following, call: str, tenant: str) -> None:
    """Refuse somebody else's call. One that has no row yet belongs to whom its agent says.

    Raises:
        Problem: 404.
    """
    async with session_of(request.app.state.database, tenant) as session:
        if await session.get(Call, call) is not None:
            return
    if not any(now["call"] == call and _tenant(now) == tenant for now in await _living(following)):
        raise Problem.missing("call")


async def _reason(request: Request, call: str, tenant: str) -> str | None:
    async with session_of(request.app.state.database, tenant) as session:
        row = await session.get(Call, call)
    if row is None:
        return "deleted"
    return (row.reason or "ended") if row.status == "ended" else None


async def _living(following: Following) -> list[Event]:
    try:
        return await following.living()
    except TimeoutError:
        return []


def _tenant(now: Event) -> str:
    return now["tenant"] or DEFAULT_TENANT


def _sent(id: str, event: Event) -> ServerSentEvent:
    data = {name: value for name, value in event.items() if name != "type"}
    return ServerSentEvent(json.dumps(data, ensure_ascii=False), event=event["type"], id=id or None)


def _answer(following: Following, events: AsyncGenerator[ServerSentEvent]) -> EventSourceResponse:
    async def counted() -> AsyncGenerator[ServerSentEvent]:
        with following.counted():
            async with aclosing(events):
                async for event in events:
                    yield event

    return EventSourceResponse(counted(), ping=PING_SECONDS, send_timeout=SEND_SECONDS)
