"""The OpenAPI document: one style for all routes, whoever wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, routing
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from api.access.cookies import cookie_name
from api.access.principal import principal
from api.openai.errors import is_openai
from api.problems import ProblemDocument, problems
from api.webhooks.events import DATA

TAGS = {
    "calls": "Start calls, follow them live, read what was said, end and delete them.",
    "assistants": "Who answers: what they are told, which tools and models they have. Every version is kept.",
    "files": "What callers send, and what assistants know.",
    "usage": "Minutes, tokens, characters and what they cost.",
    "webhooks": "Be told of events, by the convention of standardwebhooks.com: signed, and tried again for a day.",
    "models": "What runs, how it does, and who is asked for which role.",
    "keys": "What programs show: `Authorization: Bearer`.",
    "people": "Who signs in, and what they may do.",
    "tenant": "The tenant that one acts for, and its limits.",
    "audit": "Every administrative act.",
    "health": "For load balancers and people who look.",
    "OpenAI-compatible": "OpenAI's API, for its clients: set `base_url` to `/v1` of this server.",
}

DESCRIPTION = """
A voice assistant's model cluster: its calls, and all that stands round them.

- Times are RFC 3339 in UTC, amounts of money decimal strings with their `currency`.
- Lists are pages, the newest first: give `next` as `after` for the page that follows.
- Errors are problem documents (RFC 9457); `errors` names the fields. Under `/v1` they have OpenAI's shape.
- `Idempotency-Key` on a POST that makes something: a repetition is answered as the first one was, for a day.
- What two people could edit has an `ETag`; a change needs it as `If-Match`.
- `RateLimit` says how many requests are left; a 429 says by `Retry-After` when to go on.
"""


class OpenAIFault(BaseModel):
    """What went wrong."""

    message: str = Field(examples=["input: write at least one character"])
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(examples=["input"])
    code: str | None = Field(examples=[None])


class OpenAIError(BaseModel):
    """An error as OpenAI's clients read it."""

    error: OpenAIFault


_OPENAI_STATUSES = {
    400: "The request cannot be read, or a parameter is not right; `param` says which",
    401: "Not signed in",
    403: "Not allowed",
    404: "There is no such model",
    413: "Too large",
    429: "Too many requests",
    500: "The model failed",
    502: "The provider behind the model failed",
    503: "The model is busy or away; try again",
    504: "The model took too long",
}


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same key, the request makes nothing twice; answered as the first for a day",
    "schema": {"type": "string", "pattern": "^[!-~]{1,253}$", "maxLength": 253},
    "example": "0f6c1a52-7d0e-4b1c-9a35-3a8f2a4be0c7",
}


EVENT_STREAM: dict[str, Any] = {
    "itemSchema": {
        "type": "object",
        "required": ["data"],
        "properties": {name: {"type": "string"} for name in ("data", "event", "id")},
    }
}
"""Of an answer that is server-sent events: what each of them has (a field of OpenAPI 3.2, as FastAPI writes it too)."""


def describe(app: FastAPI) -> None:
    """Give an application its OpenAPI document; made once, when it is first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # as FastAPI's manual has it


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=DESCRIPTION.strip(),
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for shape in (ProblemDocument, OpenAIError, *DATA.values()):
        whole = shape.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas.update(whole.pop("$defs", {}))
        schemas[shape.__name__] = whole
    made["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key"},
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie_name(app.state.config.local),
            "description": "Of a browser that is signed in; changes are taken from this server's own pages only",
        },
    }
    made["webhooks"] = {event: {"post": _told(event, shape.__name__)} for event, shape in DATA.items()}
    for route, path, operation in _operations(app, made):
        _finish(app, route, path, operation)
    _link(made["paths"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    # "Page_Key_" is how pydantic names Page[Key].
    return json.loads(re.sub(r"\bPage_(\w+?)_(?=\")", r"\1Page", json.dumps(made)))


def _operations(app: FastAPI, made: dict[str, Any]) -> Iterator[tuple[APIRoute, str, dict[str, Any]]]:
    # FastAPI keeps routers as they were included from 0.160 or so on; before, their routes are the application's.
    flat: Any = getattr(routing, "iter_route_contexts", iter)
    for route in flat(app.routes):
        if isinstance(getattr(route, "original_route", route), APIRoute) and route.include_in_schema:
            for method in route.methods:
                yield route, route.path_format, made["paths"][route.path_format][method.lower()]


def _finish(app: FastAPI, route: APIRoute, path: str, operation: dict[str, Any]) -> None:
    # A summary that nobody wrote is the name of the function; the first sentence of its docstring says more.
    first, _, rest = (operation.get("description") or "").partition("\n\n")
    if not route.summary and first:
        sentence, stop, more = " ".join(first.split()).partition(". ")
        operation["summary"] = sentence.rstrip(".")
        operation["description"] = "\n\n".join(filter(None, (more if stop else "", rest)))
        if not operation["description"]:
            del operation["description"]
    if route.operation_id is None:
        operation["operationId"] = route.name
    responses: dict[str, Any] = operation["responses"]
    if is_openai(path):
        for status, text in _OPENAI_STATUSES.items():
            responses[str(status)] = {"description": text, "content": _json("OpenAIError")}
        responses.pop("422", None)  # a parameter that is not right is a 400 here, as at OpenAI
        operation["security"] = [{"key": ["models:use"]}]
        if app.state.config.local:
            operation["security"].append({})
        return
    scopes = needed(route.dependant)
    if scopes is not None:
        operation["security"] = [{"key": scopes}, {"cookie": scopes}]
    statuses = [422] if "422" in responses else []
    # Host and Origin are looked at before anything else where the server answers to loopback alone.
    statuses += [403] if app.state.config.local else []
    statuses += [400, 413] if "requestBody" in operation else []
    for status, answer in problems(400, 413).items():
        if status in statuses:
            responses[str(status)] = answer
    # FastAPI says of an answer that is no JSON that it is a string; here each event is described.
    responses.get("200", {}).get("content", {}).get("text/event-stream", {}).pop("schema", None)
    for status, answer in responses.items():
        if int(status) >= 400:
            answer.setdefault("content", problems()[401]["content"])
    if "201" in responses and "POST" in (route.methods or ()):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
        responses.setdefault("409", problems(409)[409])
    operation["responses"] = dict(sorted(responses.items()))


def _link(paths: dict[str, Any]) -> None:
    """Say what can be asked of that which a POST has made: all below its path, by its id."""
    for path, methods in paths.items():
        answer: Any = methods.get("post", {}).get("responses", {}).get("201")
        below = re.compile(rf"{re.escape(path)}/{{(\w+)}}(/[^{{}}]+)?")
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {found[1]: "$response.body#/id"},
            }
            for other, operations in paths.items()
            if (found := below.fullmatch(other))
            for operation in operations.values()
        }
        if answer and links:
            answer["links"] = links


def needed(dependant: Dependant) -> list[str] | None:
    """Return the scopes that a route needs; None: it asks nobody who they are."""
    found: list[str] | None = None
    for each in dependant.dependencies:
        if each.call is principal:
            found = found or []
        scopes: Any = getattr(each.call, "scopes", None)
        inside = needed(each)
        for more in (list(scopes) if scopes else None, inside):
            if more is not None:
                found = [*(found or []), *(scope for scope in more if scope not in (found or []))]
    return found


def _told(event: str, shape: str) -> dict[str, Any]:
    """Return what OpenAPI says of a webhook."""
    headers = {
        "webhook-id": "The message's id, the same at each attempt: take each once",
        "webhook-timestamp": "Of this attempt, seconds since 1970; refuse what is more than five minutes away",
        "webhook-signature": "v1, and the HMAC-SHA256 of id, timestamp and body by the secret; several, space between",
    }
    body = {
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"const": event},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"$ref": f"#/components/schemas/{shape}"},
        },
    }
    return {
        "operationId": f"on_{event.replace('.', '_')}",
        "summary": event,
        "tags": ["webhooks"],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "2XX": {"description": "Taken; the body is not read"},
            "410": {"description": "Send no more: the endpoint is disabled"},
        },
    }


def _json(shape: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
