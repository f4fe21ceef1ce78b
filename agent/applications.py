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
        # Calls leave at the end of a turn; `agent.session.MOVE_SECONDS` and the way to another replica fit in.
        "graceful_shutdown_timeout_s": 30,
        # New replicas first: a call moves once, and to one that stays.
        "max_surge_percent": 100 if config.replicas.surge else 0,
    }
    deployment |= config.replicas.deployment()
    front = {"name": "Front", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
    return {
        "name": APPLICATION,
        "route_prefix": None,
        "import_path": "agent.host:build",
        # Arguments that change make new replicas; routes must not, so they are `user_config` alone.
        "args": {"config": _arguments(config)},
        "deployments": [deployment, front],
    }


def dispatcher(config: AgentConfig) -> dict[str, Any]:
    """Return the dispatcher's entry for Serve's declarative configuration."""
    return {
        "name": "dispatcher",
        "route_prefix": None,
        "import_path": "agent.dispatcher:build",
        "args": {"config": _arguments(config)},
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


def _arguments(config: AgentConfig) -> dict[str, Any]:
    """Return what a replica is told: not how many of them there are, or fewer of them would mean new ones."""
    return config.model_dump(mode="json", exclude={"replicas", "dispatchers", "resources"})
