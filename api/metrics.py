"""Metrics of the backend: what calls cost, and webhooks on their way. Requests of the API are counted by Serve.

docs/operations.md has them in a table; cluster/monitoring/ has their panels and alerts.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from sqlalchemy import and_, event, func, select
from sqlalchemy.orm import Session, object_session

from api.db import Database
from api.db.tables import Usage, WebhookEndpoint, WebhookMessage
from api.db.types import now
from serve.instruments import Metric

COST = Metric(
    "parley_cost_total",
    "counter",
    "What calls cost at the profile's prices, by role (call: their minutes) and model, in units of `currency`",
    ("role", "model", "currency"),
)
WEBHOOKS_PENDING = Metric("parley_webhooks_pending", "gauge", "Messages that wait for an enabled endpoint")
WEBHOOKS_DEAD = Metric("parley_webhooks_dead", "gauge", "Messages that were given up and are kept")
WEBHOOKS_AGE = Metric(
    "parley_webhooks_overdue_seconds", "gauge", "How long the message that is due longest has been due; 0: none is"
)
WEBHOOK_ATTEMPTS = Metric(
    "parley_webhook_attempts_total", "counter", "Attempts by outcome: delivered, failed, dead", ("outcome",)
)
EVALUATION = Metric(
    "parley_evaluation_score",
    "gauge",
    "Score of the last `parley eval` on this machine, 0 to 1, by suite and what was evaluated: calls, or a model",
    ("suite", "target"),
)

METRICS = (COST, WEBHOOKS_PENDING, WEBHOOKS_DEAD, WEBHOOKS_AGE, WEBHOOK_ATTEMPTS, EVALUATION)

SHOW_SECONDS = 10.0
"""For a look into the database."""

_CHARGED = "parley_charged"


def charged(row: Usage, amount: float) -> None:
    """Count what a row of usage adds to the cost once its transaction is committed: what is undone costs nothing.

    Args:
        row: In a session.
        amount: In the row's currency; below 0 where a row is written anew and costs less, which is not counted.
    """
    session = object_session(row)
    if session is None or amount <= 0:
        return
    if _CHARGED not in session.info:
        session.info[_CHARGED] = []
        event.listen(session, "after_commit", _count)
        event.listen(session, "after_soft_rollback", _forget)
    session.info[_CHARGED].append((row.role, row.model, row.currency, amount))


def _count(session: Session) -> None:
    kept, session.info[_CHARGED] = session.info[_CHARGED], []
    for role, model, currency, amount in kept:
        COST.add(amount, role=role, model=model, currency=currency)


def _forget(session: Session, transaction: Any) -> None:
    session.info[_CHARGED] = []


async def show_evaluations(path: Path) -> None:
    """Show the scores that `parley eval` has left; none is no news."""
    try:
        scores = json.loads(await asyncio.to_thread(path.read_text, "utf-8"))
    except FileNotFoundError:
        return
    for each in scores:
        EVALUATION.set(float(each["score"]), suite=str(each["suite"]), target=str(each["target"]))


async def show_webhooks(database: Database) -> None:
    """Show what waits and what was given up; a look into the database, beside requests."""
    # By endpoint, as the index has them; most of the table is what was delivered.
    of = WebhookEndpoint.id == WebhookMessage.endpoint_id
    counted = select(func.count(WebhookMessage.id), func.min(WebhookMessage.next_at)).select_from(WebhookEndpoint)
    pending = counted.join(WebhookMessage, and_(of, WebhookMessage.status == "pending"))
    dead = counted.join(WebhookMessage, and_(of, WebhookMessage.status == "dead"))
    async with database.system() as session, asyncio.timeout(SHOW_SECONDS):
        waiting, oldest = (await session.execute(pending.where(WebhookEndpoint.disabled_at.is_(None)))).one()
        given_up, _ = (await session.execute(dead)).one()
    WEBHOOKS_PENDING.set(waiting)
    WEBHOOKS_DEAD.set(given_up)
    WEBHOOKS_AGE.set(max(0.0, (now() - oldest).total_seconds()) if oldest else 0.0)
