"""The API as a Serve application: the one that Serve's ingress routes "/" to."""

from __future__ import annotations

from functools import cache
from typing import Any

import ray.serve
from fastapi import FastAPI

from api.app import create_app
from api.config import ApiConfig
from api.db import open_database
from api.openai.catalog import Catalog, CatalogModel
from serve.config import Routes

_serve: Any = ray.serve

DISPATCHER = ("Dispatcher", "dispatcher")
"""Deployment and application that know the calls in progress."""


class Api:
    """One replica of the API; it keeps nothing, so any replica can answer any request."""

    def __init__(self, config: dict[str, Any], agent_name: str) -> None:
        self._config = ApiConfig.model_validate(config)
        self._agent_name = agent_name
        self._assistants: list[str] = []
        self._catalog = Catalog()
        self._database = open_database()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the catalog, the routes and the assistants; requests in progress stay where they are."""
        self._assistants[:] = user_config["assistants"]
        models = [CatalogModel.model_validate(model) for model in user_config["models"]]
        self._catalog.update(models, Routes.model_validate(user_config["routes"]))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve asks for it once, after the constructor."""
        # Serve's own middleware stands in front of it, and gives every answer its request id.
        return create_app(
            self._config,
            self._agent_name,
            _dispatchers,
            self._catalog,
            request_ids=False,
            assistants=self._assistants,
            database=self._database,
        )


@cache
def _dispatchers() -> Any:
    return _serve.get_deployment_handle(DISPATCHER[0], app_name=DISPATCHER[1])


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    return _serve.deployment(name="Api")(_serve.ingress()(Api)).bind(args["config"], args["agent_name"])
