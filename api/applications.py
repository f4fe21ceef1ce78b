"""The API's entry in Serve's declarative configuration; does not import Ray, which takes seconds."""

from __future__ import annotations

from typing import Any

from api.config import ApiConfig


def api(config: ApiConfig, agent_name: str) -> dict[str, Any]:
    """Return the API's entry for Serve's declarative configuration."""
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
                "ray_actor_options": {"num_cpus": 0},
                "health_check_period_s": 1,
                "health_check_timeout_s": 10,
            }
        ],
    }
