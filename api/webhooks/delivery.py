"""Sends messages on their way, again and again until they are taken or given up.

Every replica does; a message is leased before it is sent, so that two never send it at once, and the lease of a
replica that died runs out. Receivers see a message at least once, with the same id each time.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks import Webhook

from api.access.audit import SYSTEM
from api.db import Database
from api.db.tables import AuditEntry, WebhookEndpoint, WebhookMessage
from api.db.types import first_id, now
from api.metrics import WEBHOOK_ATTEMPTS
from api.webhooks.addresses import CheckedTransport, Refused
from api.webhooks.config import WebhooksConfig

logger = logging.getLogger("ray.serve")

DELAYS = (5, 300, 1800, 2 * 3600, 4 * 3600, 7 * 3600, 10 * 3600)
"""Seconds between attempts, eight in a day: as the Standard Webhooks specification suggests, cut at 24 hours."""

JITTER = 0.2
LONGEST_WAIT = 12 * 3600
"""That a receiver's Retry-After may ask for."""

CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 15.0
LEASE = datetime.timedelta(seconds=60)
"""Longer than an attempt takes, with what is written after it."""

AT_ONCE = 32
"""Attempts of one replica."""

AT_ONCE_EACH = 4
"""Of those, to one endpoint: one that answers slowly does not hold up the others."""

GIVEN_UP = datetime.timedelta(days=3)
"""Where messages died before that and none was delivered since, the endpoint is disabled."""

FORGOTTEN_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        delivered: The receiver took it.
        answer: HTTP status; None: there was none.
        problem: What went wrong; no words of the receiver's.
        wait: Seconds that the receiver asks to wait.
        gone: The receiver wants no more (410).
    """

    delivered: bool
    answer: int | None = None
    problem: str = ""
    wait: float | None = None
    gone: bool = False


class Courier:
    """Delivers what is due.

    Args:
        database: Where messages are.
        config: Of the profile.
        transport: Connects; the checked one unless a test says otherwise.
    """

    def __init__(
        self, database: Database, config: WebhooksConfig, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._database = database
        self._config = config
        self._transport = transport
        self._busy: Counter[str] = Counter()

    async def deliver(self) -> None:
        """Send everything that is due; returns when nothing is."""
        tasks: set[asyncio.Task[None]] = set()
        self._busy.clear()
        claimed = await self._claim(AT_ONCE)
        if not claimed:
            return
        async with self._client() as http:
            try:
                while claimed or tasks:
                    for message, endpoint in claimed:
                        self._busy[endpoint] += 1
                        tasks.add(asyncio.create_task(self._one(http, message, endpoint)))
                    # What is written meanwhile is looked for as well.
                    _, tasks = await asyncio.wait(tasks, timeout=1, return_when=asyncio.FIRST_COMPLETED)
                    claimed = await self._claim(AT_ONCE - len(tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def forget(self) -> None:
        """Delete delivered messages after some days, and the others after more."""
        at = now()
        ages = ((self._config.keep_days, ("delivered",)), (self._config.keep_dead_days, ("dead", "pending")))
        for days, statuses in ages:
            # Ids sort by time, so the oldest are found without an index of their own.
            before = first_id("msg", at - datetime.timedelta(days=days))
            while True:
                old = (
                    select(WebhookMessage.id)
                    .where(WebhookMessage.id < before, WebhookMessage.status.in_(statuses))
                    .order_by(WebhookMessage.id)
                    .limit(FORGOTTEN_AT_ONCE)
                )
                async with self._database.system() as session:
                    found = (await session.scalars(old)).all()
                    await session.execute(delete(WebhookMessage).where(WebhookMessage.id.in_(found)))
                    await session.commit()
                if len(found) < FORGOTTEN_AT_ONCE:
                    break

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self._transport or CheckedTransport(self._config.allow_private),
            timeout=httpx.Timeout(WHOLE_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,
        )

    async def _claim(self, most: int) -> Sequence[tuple[str, str]]:
        """Lease messages that are due: their ids and those of their endpoints."""
        if most <= 0:
            return ()
        at = now()
        free = or_(WebhookMessage.leased_until.is_(None), WebhookMessage.leased_until < at)
        due = and_(WebhookMessage.status == "pending", WebhookMessage.next_at <= at, free)
        full = [endpoint for endpoint, count in self._busy.items() if count >= AT_ONCE_EACH]
        # The first few of each endpoint, by its index: a scalar each, which both databases plan alike.
        next_ones = [
            select(WebhookMessage.id)
            .where(WebhookMessage.endpoint_id == WebhookEndpoint.id, due)
            .order_by(WebhookMessage.next_at)
            .limit(1)
            .offset(place)
            .correlate(WebhookEndpoint)
            .scalar_subquery()
            for place in range(AT_ONCE_EACH)
        ]
        waiting = select(*next_ones).where(
            WebhookEndpoint.disabled_at.is_(None), WebhookEndpoint.id.not_in(full), next_ones[0].is_not(None)
        )
        async with self._database.system() as session:
            rows = list((await session.execute(waiting)).all())
            random.shuffle(rows)
            # One of each endpoint before a second of any.
            found = [each for column in zip(*rows, strict=True) for each in column if each is not None][:most]
            if not found:
                return ()
            lease = (
                update(WebhookMessage)
                # Somebody else may have taken it since: the second one to write sees the first one's lease.
                .where(WebhookMessage.id.in_(found), due)
                .values(leased_until=at + LEASE, attempts=WebhookMessage.attempts + 1)
                .returning(WebhookMessage.id, WebhookMessage.endpoint_id)
                .execution_options(synchronize_session=False)
            )
            taken = [(row.id, row.endpoint_id) for row in await session.execute(lease)]
            await session.commit()
            return taken

    async def _one(self, http: httpx.AsyncClient, message: str, endpoint: str) -> None:
        try:
            await self._attempt(http, message)
        except Exception as error:  # whatever it is, it is this message's alone, and its lease runs out
            logger.warning("webhook message %s failed (%s)", message, type(error).__name__)
        finally:
            self._busy[endpoint] -= 1

    async def _attempt(self, http: httpx.AsyncClient, message: str) -> None:
        both = (
            select(WebhookMessage, WebhookEndpoint)
            .join(WebhookEndpoint, WebhookEndpoint.id == WebhookMessage.endpoint_id)
            .where(WebhookMessage.id == message)
        )
        async with self._database.system() as session:
            found = (await session.execute(both)).one_or_none()
        if found is None:
            return
        row, endpoint = found
        outcome = await send(http, row, endpoint)
        await self._note(row, endpoint, outcome)

    async def _note(self, row: WebhookMessage, endpoint: WebhookEndpoint, outcome: Outcome) -> None:
        at = now()
        dead = not outcome.delivered and (outcome.gone or row.attempts > len(DELAYS))
        values = {
            "status": "delivered" if outcome.delivered else "dead" if dead else "pending",
            "answer": outcome.answer,
            "problem": outcome.problem,
            "leased_until": None,
            "delivered_at": at if outcome.delivered else None,
            "next_at": at if outcome.delivered or dead else at + _pause(row.attempts, outcome.wait),
        }
        # Only where nobody else has taken it over since, or replayed it.
        mine = and_(WebhookMessage.id == row.id, WebhookMessage.leased_until == row.leased_until)
        async with self._database.system() as session:
            await session.execute(update(WebhookMessage).where(mine).values(**values))
            if outcome.gone or (dead and await _given_up(session, endpoint, at)):
                await _disable(session, endpoint, outcome.problem, at)
            await session.commit()
        WEBHOOK_ATTEMPTS.add(outcome="delivered" if outcome.delivered else "dead" if dead else "failed")
        if not outcome.delivered:
            logger.info("webhook message %s: attempt %d: %s", row.id, row.attempts, outcome.problem)


async def _given_up(session: AsyncSession, endpoint: WebhookEndpoint, at: datetime.datetime) -> bool:
    """Return whether messages have been dying for days, and none was taken: new ones would only pile up."""
    of_it = WebhookMessage.endpoint_id == endpoint.id
    # `next_at` is when it was delivered, or died; the index has it.
    died = and_(of_it, WebhookMessage.status == "dead", WebhookMessage.next_at < at - GIVEN_UP)
    taken = and_(of_it, WebhookMessage.status == "delivered", WebhookMessage.next_at >= at - GIVEN_UP)
    long_ago, since = [
        await session.scalar(select(WebhookMessage.id).where(each).limit(1)) is not None for each in (died, taken)
    ]
    return long_ago and not since


async def _disable(session: AsyncSession, endpoint: WebhookEndpoint, why: str, at: datetime.datetime) -> None:
    still = and_(WebhookEndpoint.id == endpoint.id, WebhookEndpoint.disabled_at.is_(None))
    await session.execute(update(WebhookEndpoint).where(still).values(disabled_at=at))
    session.add(
        AuditEntry(
            tenant_id=endpoint.tenant_id,
            actor=SYSTEM,
            action="webhook.disable",
            target=endpoint.id,
            detail={"problem": why},
        )
    )


async def send(http: httpx.AsyncClient, row: WebhookMessage, endpoint: WebhookEndpoint) -> Outcome:
    """Make one attempt."""
    body = json.dumps(row.payload, ensure_ascii=False, separators=(",", ":"))
    headers = {"content-type": "application/json", "user-agent": "Parley-Webhooks/1", **sign(row.id, body, endpoint)}
    try:
        async with (
            asyncio.timeout(WHOLE_SECONDS),
            # The answer's body is not read: its status says all there is to know.
            http.stream("POST", endpoint.url, content=body.encode(), headers=headers) as answer,
        ):
            return _judge(answer)
    except Refused as error:
        return Outcome(False, problem=f"the URL {error}")
    except (TimeoutError, httpx.TimeoutException):
        return Outcome(False, problem="no answer in time")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Outcome(False, problem=f"no answer ({type(error).__name__})")


def sign(message: str, body: str, endpoint: WebhookEndpoint) -> dict[str, str]:
    """Return the headers by which a receiver knows a message: https://www.standardwebhooks.com."""
    at = now()
    secrets = [endpoint.secret]
    if endpoint.old_secret and endpoint.old_until and endpoint.old_until > at:
        secrets.append(endpoint.old_secret)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message, at, body) for secret in secrets),
    }


def _judge(answer: httpx.Response) -> Outcome:
    status = answer.status_code
    if answer.is_success:
        return Outcome(True, status)
    if status == 410:
        return Outcome(False, status, "the receiver wants no more (410): the endpoint was disabled", gone=True)
    if answer.is_redirect:
        return Outcome(False, status, f"the receiver redirects ({status}), which is not followed")
    return Outcome(False, status, f"the receiver answers {status}", wait=_asked(answer.headers.get("retry-after")))


def _asked(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return min(float(retry_after), LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return min(max((moment - now()).total_seconds(), 0.0), LONGEST_WAIT)


def _pause(attempts: int, asked: float | None) -> datetime.timedelta:
    """Return how long to wait after so many attempts: no less than the receiver asks for."""
    seconds = DELAYS[min(attempts, len(DELAYS)) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return datetime.timedelta(seconds=max(seconds, asked or 0.0))
