"""Webhooks: where a tenant wants to hear of what, and what became of each message."""

from __future__ import annotations

import base64
import datetime
import secrets
from typing import Annotated, Any, Literal

import httpx
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Update, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from api.access.audit import audit
from api.access.principal import Principal, Tenancy, needs
from api.db.tables import WebhookEndpoint, WebhookMessage
from api.db.types import now
from api.etags import IfMatch, check, etag_of, hold, tag
from api.names import PathId, QueryId
from api.pages import After, Limit, Page, listed
from api.problems import Problem, problems
from api.webhooks.addresses import Refused, check_url
from api.webhooks.events import TEST, Event, message

router = APIRouter(prefix="/api/v1", tags=["webhooks"])

MOST = 20
"""Endpoints of a tenant: each event is written once for each."""

ROTATION = datetime.timedelta(hours=24)
"""That the old secret signs beside the new one."""

MessageStatus = Literal["pending", "delivered", "dead"]

Reader = Annotated[Principal, needs("webhooks:read")]
Writer = Annotated[Principal, needs("webhooks:write")]

_AT = "2026-05-04T09:30:12.345000Z"
_HOOK = "hook_019df26e8a1d1c0f2b3a4d5e6f708192"
_URL = Field(
    max_length=2000,
    description="https only, unless `api.webhooks.allow_private`; no name and password in it",
    examples=["https://example.com/hooks/parley"],
)
_EVENTS = Field(min_length=1, max_length=10, description="What it hears of", examples=[["call.ended", "file.ready"]])
_DESCRIPTION = Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["The CRM"])


class NewWebhook(BaseModel):
    """An endpoint to make."""

    url: str = _URL
    events: list[Event] = _EVENTS
    description: Annotated[str, _DESCRIPTION] = ""


class WebhookChange(BaseModel):
    """What is to be another; what is left out stays."""

    url: Annotated[str | None, _URL] = None
    events: Annotated[list[Event] | None, _EVENTS] = None
    description: Annotated[str | None, _DESCRIPTION] = None
    enabled: bool | None = Field(default=None, description="false: nothing is written for it or sent to it")


class Webhook(BaseModel):
    """An endpoint."""

    id: str = Field(examples=[_HOOK])
    url: str = Field(examples=["https://example.com/hooks/parley"])
    events: list[str] = Field(examples=[["call.ended", "file.ready"]])
    description: str = Field(examples=["The CRM"])
    enabled: bool = Field(description="A receiver that answers 410 has it disabled", examples=[True])
    created_at: datetime.datetime = Field(examples=[_AT])
    old_secret_until: datetime.datetime | None = Field(
        description="Until then the secret before the last rotation signs as well", examples=[None]
    )

    @classmethod
    def of(cls, row: WebhookEndpoint) -> Webhook:
        """Return how a row is shown."""
        return cls(**_shown(row))


class WebhookWithSecret(Webhook):
    """An endpoint as it is shown once."""

    secret: str = Field(
        description="Verifies messages (standardwebhooks.com); it is not shown again",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )


class WebhookMessageShown(BaseModel):
    """An event on its way to an endpoint; what it tells is not shown here."""

    id: str = Field(description="The header webhook-id", examples=["msg_019df26e8a1d1c0f2b3a4d5e6f708192"])
    webhook_id: str = Field(examples=[_HOOK])
    event: str = Field(examples=["call.ended"])
    status: MessageStatus = Field(description="dead: it is not tried any more, unless it is replayed")
    created_at: datetime.datetime = Field(examples=[_AT])
    attempts: int = Field(examples=[1])
    next_at: datetime.datetime | None = Field(description="Of the next attempt", examples=[None])
    delivered_at: datetime.datetime | None = Field(examples=[_AT])
    answer: int | None = Field(description="Status that the receiver answered last", examples=[204])
    problem: str = Field(description="Why the last attempt failed", examples=[""])

    @classmethod
    def of(cls, row: WebhookMessage) -> WebhookMessageShown:
        """Return how a row is shown."""
        shown = {name: getattr(row, name) for name in cls.model_fields if name not in ("webhook_id", "next_at")}
        return cls(webhook_id=row.endpoint_id, next_at=row.next_at if row.status == "pending" else None, **shown)


class Replayed(BaseModel):
    """What is tried again."""

    messages: int = Field(description="How many", examples=[12])


@router.get("/webhooks", responses=problems())
async def list_webhooks(session: Tenancy, _: Reader, limit: Limit = 50, after: After = None) -> Page[Webhook]:
    """List webhook endpoints, the newest first."""
    return await listed(session, select(WebhookEndpoint), (WebhookEndpoint.id,), Webhook.of, limit, after)


@router.post("/webhooks", status_code=201, responses=problems(409))
async def create_webhook(
    request: Request, response: Response, session: Tenancy, who: Writer, body: NewWebhook
) -> WebhookWithSecret:
    """Make a webhook endpoint; its secret is shown this once."""
    _check(request, body.url)
    if (await session.scalar(select(func.count()).select_from(WebhookEndpoint)) or 0) >= MOST:
        raise Problem(409, "Too many webhooks", f"A tenant may have {MOST} endpoints; delete one first")
    row = WebhookEndpoint(
        url=body.url, events=list(dict.fromkeys(body.events)), description=body.description, secret=_new_secret()
    )
    session.add(row)
    await session.flush()
    await audit(session, who, "webhook.create", row.id, {"host": _host(row.url), "events": row.events}, request)
    await session.commit()
    tag(response, etag_of(row))
    return WebhookWithSecret(**_shown(row), secret=row.secret)


@router.get("/webhooks/{webhook_id}", responses=problems(404))
async def get_webhook(webhook_id: PathId, response: Response, session: Tenancy, _: Reader) -> Webhook:
    """Return a webhook endpoint, with its ETag."""
    row = await session.get(WebhookEndpoint, webhook_id)
    if row is None:
        raise Problem.missing("webhook")
    tag(response, etag_of(row))
    return Webhook.of(row)


@router.patch("/webhooks/{webhook_id}", responses=problems(404, 412, 428))
async def change_webhook(
    webhook_id: PathId,
    request: Request,
    response: Response,
    session: Tenancy,
    who: Writer,
    body: WebhookChange,
    _: IfMatch = None,
) -> Webhook:
    """Change a webhook endpoint. While it is disabled, messages on their way wait."""
    row = await _held(session, webhook_id)
    check(request, etag_of(row))
    changed = body.model_dump(exclude_unset=True, exclude_none=True)
    if body.url is not None:
        _check(request, body.url)
        row.url = body.url
    if body.events is not None:
        row.events = list(dict.fromkeys(body.events))
    if body.description is not None:
        row.description = body.description
    if body.enabled is not None:
        row.disabled_at = None if body.enabled else row.disabled_at or now()
    detail = {name: _host(row.url) if name == "url" else value for name, value in changed.items()}
    await audit(session, who, "webhook.change", row.id, detail, request)
    await session.commit()
    tag(response, etag_of(row))
    return Webhook.of(row)


@router.delete("/webhooks/{webhook_id}", status_code=204, responses=problems(404))
async def delete_webhook(webhook_id: PathId, request: Request, session: Tenancy, who: Writer) -> None:
    """Delete a webhook endpoint and its messages."""
    row = await _held(session, webhook_id)
    await session.delete(row)
    await audit(session, who, "webhook.delete", row.id, {"host": _host(row.url)}, request)
    await session.commit()


@router.post("/webhooks/{webhook_id}/rotate", responses=problems(404))
async def rotate_webhook_secret(
    webhook_id: PathId, request: Request, response: Response, session: Tenancy, who: Writer
) -> WebhookWithSecret:
    """Give a webhook endpoint a new secret; for 24 hours the old one signs as well."""
    row = await _held(session, webhook_id)
    row.old_secret, row.old_until, row.secret = row.secret, now() + ROTATION, _new_secret()
    await audit(session, who, "webhook.rotate", row.id, request=request)
    await session.commit()
    tag(response, etag_of(row))
    return WebhookWithSecret(**_shown(row), secret=row.secret)


@router.post("/webhooks/{webhook_id}/test", status_code=201, responses=problems(404, 409))
async def test_webhook(webhook_id: PathId, request: Request, session: Tenancy, who: Writer) -> WebhookMessageShown:
    """Send a message of the type webhook.test; what comes of it is among the messages a moment later."""
    row = await _held(session, webhook_id)
    if row.disabled_at is not None:
        raise Problem(409, "It is disabled", "Enable the webhook first; until then nothing is sent to it")
    sent = message(row.tenant_id, row.id, TEST, {"webhook_id": row.id})
    session.add(sent)
    await audit(session, who, "webhook.test", row.id, request=request)
    await session.commit()
    return WebhookMessageShown.of(sent)


@router.post("/webhooks/{webhook_id}/replay", responses=problems(404))
async def replay_dead_webhook_messages(webhook_id: PathId, request: Request, session: Tenancy, who: Writer) -> Replayed:
    """Send again all messages of a webhook endpoint that could not be delivered."""
    row = await _held(session, webhook_id)
    dead = (WebhookMessage.endpoint_id == row.id, WebhookMessage.status == "dead")
    count = await session.scalar(select(func.count()).select_from(WebhookMessage).where(*dead)) or 0
    await session.execute(_again().where(*dead))
    await audit(session, who, "webhook.replay", row.id, {"messages": count}, request)
    await session.commit()
    return Replayed(messages=count)


@router.get("/webhook_messages", responses=problems())
async def list_webhook_messages(
    session: Tenancy,
    _: Reader,
    webhook_id: QueryId = None,
    status: Annotated[MessageStatus | None, Query(description="With this status only")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[WebhookMessageShown]:
    """List messages, the newest first; those that could not be delivered have the status dead."""
    query = select(WebhookMessage)
    if webhook_id is not None:
        query = query.where(WebhookMessage.endpoint_id == webhook_id)
    if status is not None:
        query = query.where(WebhookMessage.status == status)
    return await listed(session, query, (WebhookMessage.id,), WebhookMessageShown.of, limit, after)


@router.get("/webhook_messages/{message_id}", responses=problems(404))
async def get_webhook_message(message_id: PathId, session: Tenancy, _: Reader) -> WebhookMessageShown:
    """Return a message."""
    row = await session.get(WebhookMessage, message_id)
    if row is None:
        raise Problem.missing("webhook message")
    return WebhookMessageShown.of(row)


@router.post("/webhook_messages/{message_id}/replay", responses=problems(404))
async def replay_webhook_message(
    message_id: PathId, request: Request, session: Tenancy, who: Writer
) -> WebhookMessageShown:
    """Send a message again now, whatever its status; it keeps its id."""
    row = await hold(session, WebhookMessage, message_id)
    if row is None:
        raise Problem.missing("webhook message")
    await session.execute(_again().where(WebhookMessage.id == row.id))
    await session.refresh(row)
    await audit(session, who, "webhook_message.replay", row.id, {"webhook": row.endpoint_id}, request)
    await session.commit()
    return WebhookMessageShown.of(row)


def _again() -> Update:
    """A lease stays: what is being sent just now is sent again after it."""
    return (
        update(WebhookMessage)
        .values(status="pending", attempts=0, next_at=now(), delivered_at=None)
        .execution_options(synchronize_session=False)
    )


def _shown(row: WebhookEndpoint) -> dict[str, Any]:
    until = row.old_until if row.old_until and row.old_until > now() else None
    same = {name: getattr(row, name) for name in ("id", "url", "events", "description", "created_at")}
    return {**same, "enabled": row.disabled_at is None, "old_secret_until": until}


async def _held(session: AsyncSession, webhook_id: str) -> WebhookEndpoint:
    row = await hold(session, WebhookEndpoint, webhook_id)
    if row is None:
        raise Problem.missing("webhook")
    return row


def _check(request: Request, url: str) -> None:
    try:
        check_url(url, request.app.state.config.webhooks.allow_private)
    except Refused as error:
        raise Problem.field("url", str(error)) from None


def _host(url: str) -> str:
    """The rest of an address may be a secret of the receiver's."""
    return httpx.URL(url).host


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
