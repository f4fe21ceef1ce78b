"""The API's entry in Serve's declarative configuration; does not import Ray, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.config import ApiConfig
from serve.config import Routes


def api(
    config: ApiConfig,
    agent_name: str,
    models: Sequence[dict[str, str]],
    routes: Routes,
    assistants: Sequence[str],
) -> dict[str, Any]:
    """Return the API's entry for Serve's declarative configuration.

    Args:
        config: Of the application; a change replaces the replica.
        agent_name: The name under which LiveKit dispatches calls.
        models: The catalog: `name`, `role` and `engine` of each; it and what follows reach the replica live.
        routes: Which model serves each role.
        assistants: Names that a caller may ask for.
    """
    return {
        "name": "api",
        "route_prefix": "/",
        "import_path": "api.ingress:build",
        "args": {"config": config.model_dump(mode="json"), "agent_name": agent_name},
        "deployments": [
            {
                "name": "Api",
                "num_replicas": 1,
                "max_ongoing_requests": 200,
                "user_config": {
                    "models": list(models),
                    "routes": routes.model_dump(mode="json"),
                    "assistants": list(assistants),
                },
                "ray_actor_options": {"num_cpus": 0},
                "health_check_period_s": 1,
                "health_check_timeout_s": 10,
            }
        ],
    }
