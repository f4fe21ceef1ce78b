"""One call's records as rows, within a transaction that has the call's row for itself."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api import metrics
from api.db.tables import Assistant, Call, CallEvent, DeletedCall, File, Participant, Turn, Usage
from api.records.prices import Prices
from api.records.rows import bill_minutes, charge, end, insert_new
from api.webhooks import Event, announce, of_call, of_file, of_turn
from serve import records
from serve.errors import BadRequest
from serve.records import AnyRecord

SKEW = datetime.timedelta(seconds=5)
"""How far clocks of two machines may be apart."""

MACHINES = ("agent", "egress", "ingress")
"""Kinds of participants that are no callers."""


class Writer:
    """Writes records of one call.

    Args:
        session: In a transaction.
        call: Its row, locked.
        prices: What usage costs.
    """

    def __init__(self, session: AsyncSession, call: Call, prices: Prices) -> None:
        self._session, self._call, self._prices = session, call, prices
        self._of = {"call_id": call.id, "tenant_id": call.tenant_id}
        self._told: list[tuple[Event, Turn | File | None]] = []
        self._count: int | None = None

    async def write(self, record: AnyRecord) -> None:
        """Write a record that was not written before.

        Raises:
            BadRequest: It contradicts what is there.
        """
        at = moment(record.time)
        self._call.seen_at = max(self._call.seen_at or at, at)
        match record:
            case records.AgentJoined():
                await self._joined(record, at)
            case records.ParticipantConnected():
                await self._came(record, at)
            case records.ParticipantDisconnected():
                await self._left(record, at)
            case records.Turn():
                await self._turn(record, at)
            case records.FileReceived():
                await self._file(record, at)
            case records.Conversation():
                await self._conversation(record, at)
            case records.Events():
                self._events(record)
            case records.Used():
                row = usage_row(record, at, self._prices, self._call.assistant, self._of)
                self._session.add(row)
                charge(self._call, row)

    async def finish(self) -> None:
        """Bring the call's summary to what its turns say, and write what webhooks tell of all this."""
        await self._session.flush()
        if any(event == "turn.completed" for event, _ in self._told):
            await self._sum_up()
        for event, row in self._told:
            data = of_turn(row) if isinstance(row, Turn) else of_file(row) if row else of_call(self._call)
            await announce(self._session, self._call.tenant_id, event, data)

    async def _sum_up(self) -> None:
        about = select(Turn.error.is_not(None), Turn.interrupted, Turn.voice_ms).where(Turn.call_id == self._call.id)
        rows = (await self._session.execute(about)).all()
        times = [ms for _, _, ms in rows if ms is not None]
        self._call.turns = len(rows)
        self._call.errors = sum(bool(failed) for failed, _, _ in rows)
        self._call.interruptions = sum(bool(interrupted) for _, interrupted, _ in rows)
        self._call.median_ms = round(statistics.median(times)) if times else None

    async def _joined(self, record: records.AgentJoined, at: datetime.datetime) -> None:
        call = self._call
        if record.tenant and record.tenant != call.tenant_id:
            raise BadRequest("tenant", "is not the one that this call belongs to")
        # After an end whose state was forgotten, epochs begin again.
        back = call.status == "ended" and call.ended_at is not None and at > call.ended_at
        if record.epoch <= call.epoch and not back:
            return
        call.epoch = record.epoch
        first = call.answered_at is None
        call.answered_at = call.answered_at or at
        if call.status == "ended" and call.ended_at is not None and at < call.ended_at - SKEW:
            # The room had ended before this was told.
            call.live_at = call.live_at or at
            await bill_minutes(self._session, call, self._prices)
        elif call.status != "live":
            call.status, call.live_at, call.ended_at, call.reason = "live", at, None, ""
        if first:
            self._told.append(("call.started", None))

    async def _came(self, record: records.ParticipantConnected, at: datetime.datetime) -> None:
        if record.medium not in MACHINES and not self._call.caller:
            number = record.attributes.get("sip.phoneNumber", "")
            self._call.caller = (record.name or number or record.identity)[:200]
            self._call.medium = record.medium[:20]
        about = {"name": record.name[:200], "medium": record.medium[:20], "attributes": record.attributes}
        # Whoever takes a call over tells of all who are there, again.
        known = (await self._session.scalars(self._here(record.identity))).first()
        if known is not None:
            known.name, known.medium, known.attributes = about["name"], about["medium"], about["attributes"]
            return
        self._session.add(Participant(id=record.id, identity=record.identity[:200], joined_at=at, **about, **self._of))

    async def _left(self, record: records.ParticipantDisconnected, at: datetime.datetime) -> None:
        known = (await self._session.scalars(self._here(record.identity))).first()
        if known is not None:
            known.left_at, known.reason = at, record.reason[:100]

    def _here(self, identity: str) -> Any:
        mine = select(Participant).where(Participant.call_id == self._call.id, Participant.identity == identity[:200])
        return mine.where(Participant.left_at.is_(None)).order_by(Participant.joined_at.desc())

    async def _turn(self, record: records.Turn, at: datetime.datetime) -> None:
        if self._count is None:
            self._count = await self._session.scalar(select(func.count()).where(Turn.call_id == self._call.id)) or 0
        self._count += 1
        voice = record.measures.get("voice_to_voice_ms")
        turn = Turn(
            id=record.id,
            # Replicas count their own; a call that two have carried goes on counting.
            number=self._count,
            at=at,
            heard=record.heard,
            answer=record.answer,
            interrupted=record.interrupted,
            typed=record.typed,
            error=record.error[:100] if record.error is not None else None,
            voice_ms=round(voice) if isinstance(voice, int | float) else None,
            measures=record.measures,
            **self._of,
        )
        self._session.add(turn)
        self._told.append(("turn.completed", turn))

    async def _file(self, record: records.FileReceived, at: datetime.datetime) -> None:
        about: dict[str, Any] = {
            "name": record.name[:255],
            "media_type": record.media_type[:127],
            "size": record.size,
            "sender": record.sender[:200],
            "location": record.location[:500],
            "text": record.text,
            "status": "ready",
        }
        # One that the API stored itself is the same file; an id that is another call's is nobody's business here.
        name = record.file if 0 < len(record.file) <= 64 else record.id
        await self._session.flush()
        made = insert_new(self._session, File).values(id=name, created_at=at, **about, **self._of)
        if await self._session.scalar(made.returning(File.id)) is None:
            known = await self._session.get(File, name, populate_existing=True)
            if known is not None and known.call_id == self._call.id:
                known.text, known.status = record.text or known.text, "ready"
                known.sender, known.location = known.sender or about["sender"], known.location or about["location"]
                self._told.append(("file.ready", known))
                return
            name = record.id
            await self._session.execute(
                insert_new(self._session, File).values(id=name, created_at=at, **about, **self._of)
            )
        self._told.append(("file.ready", await self._session.get_one(File, name)))

    async def _conversation(self, record: records.Conversation, at: datetime.datetime) -> None:
        if record.epoch < self._call.epoch:
            return  # by an agent that another has replaced
        if record.messages:
            self._call.messages = list(record.messages)
        if record.reason and await end(self._session, self._call, at, record.reason, self._prices):
            self._told.append(("call.ended", None))

    def _events(self, record: records.Events) -> None:
        for place, event in enumerate(record.events):
            fields: dict[str, Any] = {key: value for key, value in event.items() if key not in ("event", "time")}
            kind, time = str(event.get("event", ""))[:60], event.get("time")
            at = moment(time if isinstance(time, int | float) else record.time)
            self._session.add(CallEvent(id=f"evt_{record.id}_{place:05}", at=at, event=kind, fields=fields, **self._of))
            # Who answers may depend on the number that was called: the agent knows.
            name = fields.get("assistant")
            if kind == "process" and record.epoch <= 1 and isinstance(name, str) and not self._call.assistant_id:
                self._call.assistant = name[:60]


def usage_row(record: records.Used, at: datetime.datetime, prices: Prices, assistant: str, of: dict[str, Any]) -> Usage:
    """Return a row of usage, with its price.

    Raises:
        BadRequest: Something is below nothing.
    """
    if any(value < 0 for value in record.used.values()):
        raise BadRequest("used", "is below 0")
    # Numbers without a fraction are counts.
    amounts = {name: int(value) if value == int(value) else value for name, value in record.used.items() if value}
    model, day = record.model[:100], at.date()
    cost, priced = prices.cost(model, amounts, day)
    return Usage(
        id=record.id,
        turn_id=record.turn[:64] or None,
        assistant=assistant,
        day=day,
        role=record.role,
        model=model,
        amounts=amounts,
        cost=cost,
        currency=prices.currency,
        price_date=priced,
        **of,
    )


async def late_usage(session: AsyncSession, gone: DeletedCall, told: Sequence[AnyRecord], prices: Prices) -> None:
    """Keep what a call used that was deleted before it was told; nothing else of it."""
    of = {"call_id": None, "tenant_id": gone.tenant_id}
    for record in told:
        if isinstance(record, records.Used):
            row = usage_row(record, moment(record.time), prices, gone.assistant, of)
            if await session.get(Usage, row.id) is None:
                session.add(row)
                metrics.charged(row, float(row.cost))


async def named(session: AsyncSession, tenant: str, asked: str) -> dict[str, Any]:
    """Return a call's columns for the assistant that a dispatch names: `asst_...@VERSION`, or a name of the profile."""
    if not asked.startswith("asst_"):
        return {"assistant": asked[:60] or "default"}
    name, _, version = asked.partition("@")
    found = await session.scalar(select(Assistant.name).where(Assistant.id == name, Assistant.tenant_id == tenant))
    if found is None:
        return {"assistant": name[:60]}
    return {"assistant": found, "assistant_id": name, "version": int(version) if version.isdecimal() else None}


def moment(seconds: float) -> datetime.datetime:
    """Return a time of a record.

    Raises:
        BadRequest: There is no such time.
    """
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise BadRequest("time", "is in seconds since 1970") from None
