"""The FastAPI application: routes, the page, and what guards them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.staticfiles import StaticFiles

from api.access.cookies import CookieDoorman, forget_expired
from api.access.idempotency import Idempotency, forget_answers
from api.access.keys import KeyDoorman
from api.access.limits import Limits
from api.access.local import LocalDoorman
from api.access.oidc import Issuer
from api.auth import LoopbackOnly
from api.background import Background
from api.calls.ending import Sweeper
from api.calls.following import Following
from api.config import ApiConfig
from api.db import Database, migrate, open_database
from api.depth import DepthLimit
from api.headers import Headers
from api.metrics import show_evaluations, show_webhooks
from api.openai import chat, models, speech, transcriptions, unknown
from api.openai.catalog import Catalog
from api.openai.errors import PREFIX
from api.openai.guard import Guard
from api.openapi import describe
from api.problems import BodyLimit, add_problem_handlers
from api.records.prices import Prices
from api.records.retention import Retention
from api.routes import assistants as assistant_routes
from api.routes import (
    audit,
    calls,
    files,
    health,
    keys,
    live,
    livekit,
    people,
    rules,
    sign_in,
    tenant,
    token,
    transcripts,
    uploads,
    usage,
    webhooks,
)
from api.routes import models as plane
from api.secret import secret
from api.serving import Serving
from api.staff import Staff
from api.storage import Storage, open_storage
from api.webhooks.delivery import Courier
from serve.settings import home, settings

PAGE = Path(__file__).parent / "web" / "dist"
"""The built page; `make setup` builds it."""

NOT_BUILT = "<!doctype html><title>Parley</title><p>The page is not built: run <code>make setup</code>.</p>"

SIGN_IN_SECONDS = 600
"""That somebody may take at their issuer."""

MIGRATE_SECONDS = 300.0
"""A change of large tables takes long; other replicas wait for it."""


def create_app(
    config: ApiConfig,
    agent_name: str,
    dispatchers: Callable[[], Any],
    catalog: Catalog | None = None,
    request_ids: bool = True,
    assistants: Sequence[str] = ("default",),
    database: Database | None = None,
    staff: Staff | None = None,
    storage: Storage | None = None,
    serve_status: Callable[[], Any] | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        config: Limits and who is let in.
        agent_name: The name under which LiveKit dispatches calls.
        dispatchers: Returns the handle of the dispatchers, who know the calls.
        catalog: The models under /v1.
        request_ids: Give answers under /v1 their `x-request-id`; False where a server in front does.
        assistants: Names of the profile's assistants, where `staff` does not say who they are.
        database: Of the backend; None: it is opened where the environment says.
        staff: The profile's assistants, and the tools that there are.
        storage: Of files; None: it is opened where the profile says.
        serve_status: Tells what runs, as `ray.serve.status`; None: nothing is known of that.
    """
    app = FastAPI(
        title="Parley",
        version="0.1.0",
        summary="Talk to a model cluster.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan,
    )
    app.state.config = config
    app.state.database = database or open_database()
    app.state.background = Background()
    app.state.keys = KeyDoorman()
    app.state.doormen = [CookieDoorman(config.local), app.state.keys, *([LocalDoorman()] if config.local else [])]
    redis = settings().redis_url
    app.state.limits = Limits(config.limits, app.state.database, redis.get_secret_value() if redis else None)
    app.state.background.every(10, "noting keys' use", partial(app.state.keys.note_uses, app.state.database))
    app.state.background.every(600, "forgetting answers", partial(forget_answers, app.state.database))
    app.state.prices = Prices(config.prices)
    app.state.issuer = Issuer(config.oidc) if config.oidc else None
    app.state.background.every(3600, "forgetting sign-ins", partial(forget_expired, app.state.database))
    app.state.agent_name = agent_name
    app.state.staff = staff or Staff(assistants)
    app.state.assistants = app.state.staff.names
    app.state.storage = storage or open_storage(config.storage)
    app.state.dispatchers = dispatchers
    app.state.catalog = catalog or Catalog()
    app.state.serving = Serving(serve_status)
    courier = Courier(app.state.database, config.webhooks)
    app.state.background.every(1, "delivering webhooks", courier.deliver)
    app.state.background.every(600, "forgetting webhooks", courier.forget)
    app.state.background.every(15, "counting webhooks", partial(show_webhooks, app.state.database))
    scores = home() / "evaluations" / "scores.json"
    app.state.background.every(30, "showing evaluations", partial(show_evaluations, scores))
    retention = Retention(app.state.database, app.state.storage, app.state.prices)
    app.state.background.every(600, "deleting old calls", retention.once)
    app.state.following = Following(dispatchers)
    sweeper = Sweeper(app.state.database, dispatchers, app.state.prices)
    app.state.background.every(60, "looking for lost calls", sweeper.sweep)
    app.state.background.every(600, "forgetting LiveKit's events", partial(livekit.forget, app.state.database))
    app.include_router(health.router)
    app.include_router(token.router)
    # Before the calls, of which none is named `live`.
    app.include_router(live.router)
    app.include_router(calls.router)
    app.include_router(transcripts.router)
    app.include_router(livekit.router)
    app.include_router(sign_in.router)
    app.include_router(assistant_routes.router)
    app.include_router(uploads.router)
    app.include_router(rules.router)
    app.include_router(keys.router)
    app.include_router(people.router)
    app.include_router(tenant.router)
    app.include_router(audit.router)
    app.include_router(files.router)
    app.include_router(usage.router)
    app.include_router(webhooks.router)
    app.include_router(plane.router)
    for part in (models, chat, transcriptions, speech, unknown):
        app.include_router(part.router)
    add_problem_handlers(app)
    describe(app)
    if PAGE.is_dir():
        app.get("/api/docs", include_in_schema=False, response_class=FileResponse)(lambda: PAGE / "docs.html")
        # The console's addresses are the page's to read.
        for path in ("/console", "/console/{path:path}"):
            app.get(path, include_in_schema=False, response_class=FileResponse)(lambda: PAGE / "index.html")
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    else:
        for path in ("/", "/api/docs"):
            app.get(path, include_in_schema=False, response_class=HTMLResponse)(lambda: NOT_BUILT)
    app.add_middleware(Idempotency)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    # Recordings, conversations and files are longer than what the page sends.
    larger = {
        f"{PREFIX}audio/transcriptions": round(config.max_upload_mb * 2**20),
        PREFIX: round(config.max_request_mb * 2**20),
        "/api/v1/calls/*/files": uploads.FORM_BYTES,
        "/api/v1/assistants/*/files": uploads.FORM_BYTES,
    }
    app.add_middleware(DepthLimit, most=config.max_depth)
    app.add_middleware(BodyLimit, most=config.max_body_bytes, larger=larger, uploads=config.max_uploads)
    if config.local:
        app.add_middleware(LoopbackOnly)
    app.add_middleware(Guard, local=config.local, ids=request_ids)
    if config.oidc:
        # Holds what must fit the issuer's answer, from going there to coming back.
        app.add_middleware(
            SessionMiddleware,
            secret_key=secret(config.local),
            session_cookie="parley_sign_in",
            max_age=SIGN_IN_SECONDS,
            https_only=not config.local,
        )
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allowed_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["ETag", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "Idempotent-Replayed"],
            max_age=600,
        )
    here = settings()
    app.add_middleware(Headers, local=config.local, livekit=(here.livekit_public_url or here.livekit_url,))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Bring the database to this version, and do the work beside requests until the end."""
    try:
        async with asyncio.timeout(MIGRATE_SECONDS):
            await migrate.upgrade(app.state.database)
        app.state.background.start()
        yield
    finally:
        await app.state.background.aclose()
        await app.state.limits.aclose()
        await app.state.database.aclose()
