"""The call plane's entries in Serve's declarative configuration; imports neither Ray nor LiveKit: both take seconds."""

from __future__ import annotations

from typing import Any

from agent.config import APPLICATION, DEPLOYMENT, AgentConfig
from serve.config import Routes


def host(config: AgentConfig, routes: Routes) -> dict[str, Any]:
    """Return the agent's entry for Serve's declarative configuration."""
    deployment: dict[str, Any] = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": config.calls_per_replica,
        "user_config": {"routes": routes.model_dump(mode="json")},
        "ray_actor_options": {"num_cpus": config.resources.cpus},
        "health_check_period_s": 1,
        "health_check_timeout_s": 10,
        "graceful_shutdown_timeout_s": 5,
    }
    deployment |= config.replicas.deployment()
    front = {"name": "Front", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
    return {
        "name": APPLICATION,
        "route_prefix": None,
        "import_path": "agent.host:build",
        # Arguments that change make new replicas; routes must not, so they are `user_config` alone.
        "args": {"config": config.model_dump(mode="json")},
        "deployments": [deployment, front],
    }


def dispatcher(config: AgentConfig) -> dict[str, Any]:
    """Return the dispatcher's entry for Serve's declarative configuration."""
    return {
        "name": "dispatcher",
        "route_prefix": None,
        "import_path": "agent.dispatcher:build",
        "args": {"config": config.model_dump(mode="json")},
        "deployments": [
            {
                "name": "Dispatcher",
                "num_replicas": config.dispatchers,
                # Files on their way are requests, and so is each call that somebody follows; one that is to be adopted
                # must not wait behind them.
                "max_ongoing_requests": 400,
                "ray_actor_options": {"num_cpus": 0},
                "health_check_period_s": 1,
                "health_check_timeout_s": 10,
            }
        ],
    }
