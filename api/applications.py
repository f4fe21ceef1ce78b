"""The API's entry in Serve's declarative configuration; does not import Ray, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.config import ApiConfig
from serve.assistant import Assistant
from serve.config import Routes


def api(
    config: ApiConfig,
    agent_name: str,
    models: Sequence[dict[str, str]],
    routes: Routes,
    assistants: Mapping[str, Assistant],
    tools: Sequence[str],
) -> dict[str, Any]:
    """Return the API's entry for Serve's declarative configuration.

    Args:
        config: Of the application; a change replaces the replica.
        agent_name: The name under which LiveKit dispatches calls.
        models: The catalog: `name`, `role` and `engine` of each; it and what follows reach the replica live.
        routes: Which model serves each role.
        assistants: Of the profile, by name.
        tools: Names of all tools that assistants may have.
    """
    return {
        "name": "api",
        "route_prefix": "/",
        "import_path": "api.ingress:build",
        # How many there are is no argument: those that run stay when it changes.
        "args": {"config": config.model_dump(mode="json", exclude={"replicas"}), "agent_name": agent_name},
        "deployments": [
            {
                "name": "Api",
                **config.replicas.deployment(),
                # Whoever follows a call holds a request; `api.calls.following.WATCHERS` leaves room for others.
                "max_ongoing_requests": 1000,
                "user_config": {
                    "models": list(models),
                    "routes": routes.model_dump(mode="json"),
                    "assistants": {name: each.model_dump(mode="json") for name, each in assistants.items()},
                    "tools": list(tools),
                },
                "ray_actor_options": {"num_cpus": 0},
                "health_check_period_s": 1,
                "health_check_timeout_s": 10,
            }
        ],
    }
