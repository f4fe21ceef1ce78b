"""Errors as RFC 9457 problems: what is wrong, which field, what would be right; never what was sent.

Under /v1 they have the shape of OpenAI's (`api.openai.errors`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.openai.errors import Refused, is_openai, translate
from api.openai.errors import invalid as openai_invalid
from serve.errors import ParleyError

logger = logging.getLogger("ray.serve")


class Problem(Exception):
    """What a handler answers instead of a result.

    Args:
        status: HTTP's.
        title: What kind of thing is wrong.
        detail: What is wrong here, and what would be right.
        headers: Of the answer.
        more: Members of the problem document beside these, as `errors` for fields.
    """

    def __init__(
        self, status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(f"{title}: {detail}")
        self.status, self.title, self.detail, self.headers, self.more = status, title, detail, headers or {}, more

    @classmethod
    def field(cls, field: str, problem: str, status: int = 422) -> Problem:
        """Return the problem of one field."""
        return cls(status, "Invalid request", f"{field}: {problem}", errors=[{"field": field, "problem": problem}])

    @classmethod
    def missing(cls, what: str) -> Problem:
        """Return the problem of something that is not there, or is not this tenant's."""
        return cls(404, "Not found", f"There is no such {what}")

    def response(self) -> JSONResponse:
        """Return the answer."""
        answer = problem_response(self.status, self.title, self.detail, **self.more)
        answer.headers.update(self.headers)
        return answer


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(default="about:blank", examples=["about:blank"])
    title: str = Field(examples=["Invalid request"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["name: String should have at least 1 character"])
    errors: list[dict[str, str]] | None = Field(default=None, examples=[[{"field": "name", "problem": "is missing"}]])


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return a route's `responses`: problems that it answers with, beside those that every route may."""
    every = (401, 403, 422, 429, 503)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in sorted({*every, *statuses})}


_TITLES = {
    400: "The request cannot be read",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    406: "Not in a form that can be answered",
    409: "It stands against what is there",
    410: "It is gone",
    412: "It was changed meanwhile",
    413: "Too large",
    415: "Not a kind that is read",
    422: "A field is not right; `errors` says which",
    428: "If-Match is needed",
    429: "Too many requests; Retry-After says when",
    502: "Somebody behind this server failed",
    503: "Something behind this server is away; try again",
}


def problem_response(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    """Return a problem document."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def refusal(path: str, status: int, title: str, detail: str, code: str | None = None) -> JSONResponse:
    """Return an error in the shape that a path's clients read."""
    return Refused(status, detail, code=code).response() if is_openai(path) else problem_response(status, title, detail)


AWAY = (OperationalError, InterfaceError, PoolTimeout, ConnectionError, TimeoutError)
"""What is raised where the database, or something else behind this server, does not answer."""


def away(path: str, error: Exception) -> JSONResponse:
    """Return what is answered then."""
    logger.warning("what is behind a request did not answer: %s", type(error).__name__)
    answer = refusal(path, 503, "Busy", "Something behind this server does not answer; try again", "unavailable")
    answer.headers["retry-after"] = "2"
    return answer


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"field": ".".join(str(part) for part in each["loc"][1:]) or "body", "problem": each["msg"]}
            for each in error.errors()
        ]
        # Kinds, not fields: names within an object may be the sender's own words.
        logger.info("refused a request: %s", [f"{each['loc'][0]} {each['type']}" for each in error.errors()][:20])
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

    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response()

    async def unreached(request: Request, error: Exception) -> JSONResponse:
        return away(request.url.path, error)

    app.add_exception_handler(Problem, problem)
    for kind in AWAY:
        app.add_exception_handler(kind, unreached)
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
        larger: Bytes for paths that begin so, where * stands for anything; the first that fits counts.
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
        most = next((size for start, size in self._larger.items() if fnmatchcase(path, f"{start}*")), self._most)
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
