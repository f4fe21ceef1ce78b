"""The API as a Serve application: the one that Serve's ingress routes "/" to."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import ray.serve
from fastapi import FastAPI

from api import directory, filing
from api.app import create_app
from api.config import ApiConfig
from api.db import open_database
from api.openai.catalog import Catalog, CatalogModel
from api.records.prices import Prices
from api.records.sink import RecordSink
from api.staff import Staff
from api.storage import open_storage
from serve import logs, tracing
from serve.config import Routes

_serve: Any = ray.serve

DISPATCHER = ("Dispatcher", "dispatcher")
"""Deployment and application that know the calls in progress."""

RECORDS_SECONDS = 9.0
"""For a delivery of records; whoever delivers waits a second longer."""


ASSISTANT_SECONDS = 2.0
"""For a look into the directory of assistants: a caller waits."""


class Api:
    """One replica of the API; it keeps nothing, so any replica can answer any request."""

    def __init__(self, config: dict[str, Any], agent_name: str) -> None:
        logs.install()
        tracing.tracer()  # before somebody waits for it
        self._config = ApiConfig.model_validate(config)
        self._agent_name = agent_name
        self._staff = Staff()
        self._catalog = Catalog()
        self._database = open_database()
        self._storage = open_storage(self._config.storage)
        self._sink = RecordSink(self._database, Prices(self._config.prices))

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the catalog, the routes and the assistants; requests in progress stay where they are."""
        self._staff.update(user_config["assistants"], user_config["tools"])
        models = [CatalogModel.model_validate(model) for model in user_config["models"]]
        self._catalog.update(models, Routes.model_validate(user_config["routes"]))

    async def records(self, bodies: list[bytes]) -> None:
        """Store records of calls (`serve/records.py`), each once; agents deliver them until this returns.

        Args:
            bodies: JSON objects.

        Raises:
            BadRequest: One of them will never fit; given one by one, the others are stored.
        """
        async with asyncio.timeout(RECORDS_SECONDS):
            await self._sink.store(bodies)

    async def assistant(self, ref: str, tenant: str) -> dict[str, Any] | None:
        """Return an assistant of the database for a call that begins (`api.directory.assistant`)."""
        async with asyncio.timeout(ASSISTANT_SECONDS):
            return await directory.assistant(self._database, ref, tenant)

    async def keep(self, tenant: str, call: str, file: str, name: str, kind: str, data: bytes) -> bool:
        """Store the bytes of a file that came into a call over LiveKit (`api.filing.keep`)."""
        return await filing.keep(self._database, self._storage, tenant, call, file, name, kind, data)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve asks for it once, after the constructor."""
        # Serve's own middleware stands in front of it, and gives every answer its request id.
        return create_app(
            self._config,
            self._agent_name,
            _dispatchers,
            self._catalog,
            request_ids=False,
            database=self._database,
            staff=self._staff,
            storage=self._storage,
            serve_status=_serve.status,
        )


@cache
def _dispatchers() -> Any:
    return _serve.get_deployment_handle(DISPATCHER[0], app_name=DISPATCHER[1])


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    return _serve.deployment(name="Api")(_serve.ingress()(Api)).bind(args["config"], args["agent_name"])
