"""Errors as RFC 9457 problems: what is wrong, which field, what would be right; never what was sent."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("ray.serve")


def problem_response(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    """Return a problem document."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"field": ".".join(str(part) for part in each["loc"][1:]) or "body", "problem": each["msg"]}
            for each in error.errors()
        ]
        logger.info("refused a request: %s", [each["field"] for each in errors])
        detail = "; ".join(f"{each['field']}: {each['problem']}" for each in errors)
        return problem_response(422, "Invalid request", detail, errors=errors)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        response = problem_response(error.status_code, "Request refused", str(error.detail))
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)


class BodyLimit:
    """Refuses bodies over a size, by their header or while they come in."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        body = bytearray()
        too_large = not length.isdigit() or int(length) > self._most
        more = not too_large
        while more:
            message = await receive()
            body += message.get("body", b"")
            too_large = len(body) > self._most
            more = message["type"] == "http.request" and message.get("more_body", False) and not too_large
        if too_large:
            logger.info("refused a request body over %d bytes", self._most)
            response = problem_response(413, "Too large", f"The body may have {self._most} bytes")
            await response(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]
        await self._app(scope, _replay(whole, receive), send)


def _replay(first: list[Message], receive: Receive) -> Receive:
    async def again() -> Message:
        return first.pop(0) if first else await receive()

    return again
