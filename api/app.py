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
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from api.access.cookies import CookieDoorman, forget_expired
from api.access.local import LocalDoorman
from api.access.oidc import Issuer
from api.auth import LoopbackOnly
from api.background import Background
from api.config import ApiConfig
from api.db import Database, migrate, open_database
from api.openai import chat, models, speech, transcriptions, unknown
from api.openai.catalog import Catalog
from api.openai.errors import PREFIX
from api.openai.guard import Guard
from api.problems import BodyLimit, add_problem_handlers
from api.routes import files, health, sign_in, token
from api.secret import secret

PAGE = Path(__file__).parent / "web" / "dist"
"""The built page; `make setup` builds it."""

NOT_BUILT = "<!doctype html><title>Parley</title><p>The page is not built: run <code>make setup</code>.</p>"

SIGN_IN_SECONDS = 600
"""That somebody may take at their issuer."""

MIGRATE_SECONDS = 300.0
"""A change of large tables takes long; other replicas wait for it."""

_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"permissions-policy": b"microphone=(self), camera=()",
}


def create_app(
    config: ApiConfig,
    agent_name: str,
    dispatchers: Callable[[], Any],
    catalog: Catalog | None = None,
    request_ids: bool = True,
    assistants: Sequence[str] = ("default",),
    database: Database | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        config: Limits and who is let in.
        agent_name: The name under which LiveKit dispatches calls.
        dispatchers: Returns the handle of the dispatchers, who know the calls.
        catalog: The models under /v1.
        request_ids: Give answers under /v1 their `x-request-id`; False where a server in front does.
        assistants: Names that a caller may ask for.
        database: Of the backend; None: it is opened where the environment says.
    """
    app = FastAPI(
        title="Parley",
        version="0.1.0",
        summary="Talk to a model cluster.",
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan,
    )
    app.state.config = config
    app.state.database = database or open_database()
    app.state.background = Background()
    app.state.doormen = [CookieDoorman(config.local), *([LocalDoorman()] if config.local else [])]
    app.state.issuer = Issuer(config.oidc) if config.oidc else None
    app.state.background.every(3600, "forgetting sign-ins", partial(forget_expired, app.state.database))
    app.state.agent_name = agent_name
    app.state.assistants = assistants
    app.state.dispatchers = dispatchers
    app.state.catalog = catalog or Catalog()
    app.include_router(health.router)
    app.include_router(token.router)
    app.include_router(sign_in.router)
    app.include_router(files.router)
    for part in (models, chat, transcriptions, speech, unknown):
        app.include_router(part.router)
    add_problem_handlers(app)
    if PAGE.is_dir():
        # The console's addresses are the page's to read.
        for path in ("/console", "/console/{path:path}"):
            app.get(path, include_in_schema=False, response_class=FileResponse)(lambda: PAGE / "index.html")
        app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    else:
        app.get("/", include_in_schema=False, response_class=HTMLResponse)(lambda: NOT_BUILT)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    # Recordings, conversations and files are longer than what the page sends.
    larger = {
        f"{PREFIX}audio/transcriptions": round(config.max_upload_mb * 2**20),
        PREFIX: round(config.max_request_mb * 2**20),
        "/api/v1/calls/": files.FORM_BYTES,
    }
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
    app.add_middleware(SecurityHeaders)
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
        await app.state.database.aclose()


class SecurityHeaders:
    """Adds the headers that every answer carries."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, adding headers to the answer's start."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS.items()]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)
