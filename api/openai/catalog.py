"""The models that /v1 knows: those of the catalog by their names, and the three roles."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.openai.errors import Refused
from serve.client import Circuit, Handles, Models, serve_handle
from serve.config import Name, Routes, Strict
from serve.contracts import ROLES, RequestContext, Role

ROLE_NAMES: dict[str, Role] = {f"parley-{role}": role for role in ROLES}
"""Names that stand for whatever serves a role, with its fallbacks."""


class CatalogModel(Strict):
    """A model of the catalog, as the API is told of it."""

    name: Name
    role: Role
    engine: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caller's `model` means.

    Attributes:
        model: A name of the catalog, asked alone; None: the role's route, with its fallbacks.
        adapter: The LoRA adapter after the colon.
    """

    model: str | None
    adapter: str | None = None

    def context(self, seconds: float, call: str = "") -> RequestContext:
        """Return the context of a request to it."""
        return RequestContext(call=call, timeout=seconds, model=self.model)

    def answered(self, model: str) -> str:
        """Return what an answer says of who gave it."""
        return f"{model}:{self.adapter}" if self.adapter else model


class Catalog:
    """What there is now; changes reach it live.

    Args:
        handles: Finds handles; Serve's own unless a test says otherwise.
    """

    def __init__(self, handles: Handles = serve_handle) -> None:
        self._handles = handles
        self._known: dict[str, CatalogModel] = {}
        self._routes: Routes | None = None
        self._models: Models | None = None
        self._since = int(time.time())

    def update(self, models: Sequence[CatalogModel], routes: Routes) -> None:
        """Take a new catalog and new routes; requests in progress stay where they are."""
        self._known = {model.name: model for model in models}
        self._routes, self._since = routes, int(time.time())
        if self._models is None:
            self._models = Models(routes, self._handles)
        else:
            self._models.update(routes)

    @property
    def models(self) -> Models:
        """The models' client.

        Raises:
            Refused: Nobody has said yet which models there are.
        """
        if self._models is None:
            raise Refused(503, "the catalog is not here yet", code="unavailable", kind="server_error", retry_after=1)
        return self._models

    @property
    def known(self) -> Sequence[CatalogModel]:
        """The models by the order of the profile."""
        return list(self._known.values())

    @property
    def routes(self) -> Routes | None:
        """Who serves each role; None: nobody has said yet."""
        return self._routes

    @property
    def circuits(self) -> Mapping[str, Circuit]:
        """The circuits of models that were asked from here."""
        return self._models.circuits if self._models else {}

    def find(self, name: str, role: Role) -> Choice:
        """Return what a name means where a role is needed.

        Raises:
            Refused: There is no such model, or it does other work.
        """
        base, _, adapter = name.partition(":")
        known = self._role(base)
        if known is None or (adapter and known != "llm"):
            raise self._unknown(name)
        if known != role:
            fitting = [each for each in (*ROLE_NAMES, *self._known) if self._role(each) == role]
            raise Refused(400, f"{base} is of the role {known}; for this there is: {', '.join(fitting)}", param="model")
        return Choice(None if base in ROLE_NAMES else base, adapter or None)

    def list(self) -> list[dict[str, Any]]:
        """Return every model, the roles first, as `GET /v1/models` shows them."""
        return [self.show(name) for name in (*ROLE_NAMES, *self._known)]

    def show(self, name: str) -> dict[str, Any]:
        """Return one model.

        Raises:
            Refused: There is no such model.
        """
        shown: dict[str, Any] = {"id": name, "object": "model", "created": self._since, "owned_by": "parley"}
        if name in ROLE_NAMES:
            role = ROLE_NAMES[name]
            served = self._routes.route(role) if self._routes else None
            return {**shown, "role": role, "models": list(served.names()) if served else []}
        if name not in self._known:
            raise self._unknown(name)
        return {**shown, "role": self._known[name].role, "engine": self._known[name].engine}

    def _role(self, name: str) -> Role | None:
        if name in ROLE_NAMES:
            return ROLE_NAMES[name]
        return self._known[name].role if name in self._known else None

    def _unknown(self, name: str) -> Refused:
        there = ", ".join((*ROLE_NAMES, *self._known))
        return Refused(404, f"no model {name[:80]!r}; there are: {there}", param="model", code="model_not_found")
