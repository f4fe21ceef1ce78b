"""Errors in the shape that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse

from serve.errors import (
    AuthFailed,
    BadRequest,
    ContextExceeded,
    DeadlineExceeded,
    NotDeployed,
    Overloaded,
    ParleyError,
    ProviderDown,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)

logger = logging.getLogger("ray.serve")

PREFIX = "/v1/"
"""Paths that answer in this shape."""

INVALID = "invalid_request_error"
SERVER = "server_error"

_FIELDS = {"audio": "file", "sample_rate": "file", "text": "input", "adapter": "model"}
"""What a field of an engine's request is called in the request over HTTP."""


class Refused(Exception):
    """The API refuses a request by itself.

    Args:
        status: HTTP's.
        message: A sentence for a person.
        param: The parameter at fault.
        code: A stable name.
        kind: OpenAI's `type`.
        retry_after: Seconds after which another try makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {"retry-after": str(self.retry_after)} if self.retry_after is not None else None
        return JSONResponse(self.body, status_code=self.status, headers=headers)


def is_openai(path: str) -> bool:
    """Return whether a path belongs to this API."""
    return path.startswith(PREFIX) or path == PREFIX.rstrip("/")


def translate(error: Exception) -> Refused:
    """Return what a failed request is answered with; an error that nobody foresaw says nothing of itself."""
    match error:
        case Refused():
            return error
        case BadRequest():
            param = _FIELDS.get(error.field, error.field)
            code = "context_length_exceeded" if isinstance(error, ContextExceeded) else None
            return Refused(400, f"{param}: {error.problem}", param=param, code=code)
        case DeadlineExceeded():
            return Refused(504, str(error), code="deadline_exceeded", kind=SERVER)
        case NotDeployed():
            return Refused(503, str(error), param="model", code="model_not_running", kind=SERVER)
        case Overloaded():
            return Refused(503, str(error), code="overloaded", kind=SERVER, retry_after=1)
        case Unavailable():
            return Refused(503, str(error), code="unavailable", kind=SERVER, retry_after=1)
        case RateLimited():
            return Refused(429, str(error), code="rate_limit_exceeded", kind="requests", retry_after=1)
        case QuotaExceeded():
            return Refused(429, str(error), code="insufficient_quota", kind="insufficient_quota")
        case AuthFailed():
            # Not 401: it is this server's key at its provider that was refused, and not the caller's.
            return Refused(502, str(error), code="provider_auth_failed", kind=SERVER)
        case ProviderDown():
            return Refused(502, str(error), code="provider_down", kind=SERVER, retry_after=1)
        case ProviderError():
            return Refused(502, str(error), code="provider_failed", kind=SERVER)
        case ParleyError():
            return Refused(500, str(error), code=_snake(error.code), kind=SERVER)
        case _:
            logger.exception("a request failed in an unforeseen way: %s", type(error).__name__, exc_info=error)
            return Refused(500, "the server failed on this request", code="internal_error", kind=SERVER)


def invalid(errors: Sequence[Any]) -> Refused:
    """Return what a request is answered with whose fields pydantic refuses; names the first one."""
    first = errors[0]
    place = [part for part in first["loc"] if part not in ("body", "path", "query")]
    if first["type"] == "json_invalid":
        return Refused(400, "the body is not JSON")
    param = _dotted(place) or None
    code = "missing_required_parameter" if first["type"] == "missing" else None
    message = "; ".join(
        f"{_dotted([part for part in each['loc'] if part != 'body']) or 'body'}: {each['msg']}" for each in errors[:5]
    )
    return Refused(400, message, param=param, code=code)


def _dotted(place: Sequence[Any]) -> str:
    """Write a place as OpenAI does: `messages[0].role`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
