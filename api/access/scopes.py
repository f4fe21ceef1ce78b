"""What one may do, as roles of people and scopes of keys."""

from __future__ import annotations

from typing import Literal, get_args

Scope = Literal[
    "calls:read",
    "calls:write",
    "assistants:read",
    "assistants:write",
    "files:read",
    "files:write",
    "webhooks:read",
    "webhooks:write",
    "models:read",
    "models:write",
    "models:use",
    "usage:read",
    "people:read",
    "people:write",
    "keys:read",
    "keys:write",
    "tenant:read",
    "tenant:write",
    "audit:read",
]
"""`models:use`: OpenAI's API under /v1. `files:read` and `calls:read` show what people said."""

Role = Literal["owner", "engineer", "operator", "viewer"]

SCOPES: tuple[Scope, ...] = get_args(Scope)

_VIEWER: tuple[Scope, ...] = (
    "calls:read",
    "assistants:read",
    "files:read",
    "models:read",
    "usage:read",
    "tenant:read",
)
_OPERATOR: tuple[Scope, ...] = ("calls:write", "models:write", "webhooks:read", "webhooks:write", "audit:read")
_ENGINEER: tuple[Scope, ...] = ("assistants:write", "files:write", "models:use")

ROLES: dict[Role, frozenset[Scope]] = {
    "viewer": frozenset(_VIEWER),
    "operator": frozenset((*_VIEWER, *_OPERATOR)),
    "engineer": frozenset((*_VIEWER, *_OPERATOR, *_ENGINEER)),
    "owner": frozenset(SCOPES),
}
"""Each role may what the one before it may, and more."""
