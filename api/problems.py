"""Errors as RFC 9457 problems: what is wrong, which field, what would be right; never what was sent.

Under /v1 they have the shape of OpenAI's (`api.openai.errors`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.openai.errors import Refused, is_openai, translate
from api.openai.errors import invalid as openai_invalid
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve")


def problem_response(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    """Return a problem document."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def refusal(path: str, status: int, title: str, detail: str, code: str | None = None) -> JSONResponse:
    """Return an error in the shape that a path's clients read."""
    return Refused(status, detail, code=code).response() if is_openai(path) else problem_response(status, title, detail)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"field": ".".join(str(part) for part in each["loc"][1:]) or "body", "problem": each["msg"]}
            for each in error.errors()
        ]
        logger.info("refused a request: %s", [each["field"] for each in errors])
        if is_openai(request.url.path):
            return openai_invalid(error.errors()).response()
        detail = "; ".join(f"{each['field']}: {each['problem']}" for each in errors)
        return problem_response(422, "Invalid request", detail, errors=errors)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        response = refusal(request.url.path, error.status_code, "Request refused", str(error.detail))
        response.headers.update(error.headers or {})
        return response

    async def failed(_: Request, error: Exception) -> JSONResponse:
        return translate(error).response()

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    # Only the routes under /v1 raise these: others answer by themselves when a model or a dispatcher fails.
    app.add_exception_handler(Refused, failed)
    app.add_exception_handler(ParleyError, failed)


class BodyLimit:
    """Refuses bodies over a size, by their header or while they come in.

    Args:
        app: The application behind it.
        most: Bytes.
        larger: Bytes for paths that begin so; the first that fits counts.
        uploads: Bodies over a mebibyte that may be in memory at once.
    """

    def __init__(self, app: ASGIApp, most: int, larger: Mapping[str, int] | None = None, uploads: int = 8) -> None:
        self._app = app
        self._most = most
        self._larger = larger or {}
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 413; 503 where too many large bodies are here already."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        most = next((size for prefix, size in self._larger.items() if path.startswith(prefix)), self._most)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        body = bytearray()
        too_large = not length.isdigit() or int(length) > most
        more, counted = not too_large, False
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                too_large = len(body) > most
                more = message.get("more_body", False) and not too_large
                if len(body) > _LARGE and not counted:
                    if self._uploads == 0:
                        busy = Refused(503, "too many large requests at once", code="overloaded", retry_after=1)
                        await busy.response()(scope, receive, send)
                        return
                    self._uploads -= 1
                    counted = True
            if too_large:
                logger.info("refused a request body over %d bytes", most)
                response = refusal(path, 413, "Too large", f"The body may have {most} bytes", "request_too_large")
                await response(scope, receive, send)
                return
            whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]
            body.clear()
            await self._app(scope, _replay(whole, receive), send)
        finally:
            self._uploads += counted


_LARGE = 2**20
"""Bytes over which a body counts as large."""


def _replay(first: list[Message], receive: Receive) -> Receive:
    async def again() -> Message:
        return first.pop(0) if first else await receive()

    return again
