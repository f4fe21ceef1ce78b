"""From a catalog entry to a Serve application. The only place that touches `serve.deployment`."""

from __future__ import annotations

from typing import Any

from serve import registry
from serve.config import DEPLOYMENTS, ModelConfig

_STICKY = {"request_router_class": "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"}
"""Pieces of one utterance, and prompts of one call, go to the replica that has what came before."""

_FRONT = "Front"
"""Serve refuses a router of one's own on an application's first deployment, so a model with one stands second."""


class Front:
    """Stands first in an application and takes no requests: callers hold handles of the model itself."""

    def __init__(self, model: Any) -> None:
        """Take the handle that binds the model into the application."""


def application(model: ModelConfig) -> dict[str, Any]:
    """Return the model's entry for Serve's declarative configuration.

    Args:
        model: A catalog entry whose engine and options have been checked.
    """
    role = registry.entry(model.engine).role
    deployment: dict[str, Any] = {
        "name": DEPLOYMENTS[role],
        "max_ongoing_requests": model.max_ongoing,
        "health_check_period_s": 1,
        "health_check_timeout_s": 10,
        "graceful_shutdown_timeout_s": 30,
        "max_surge_percent": 100 if model.replicas.surge else 0,
    }
    deployment |= model.resources.deployment() | model.replicas.deployment()
    deployments = [deployment]
    if _sticky(model):
        deployment["request_router_config"] = _STICKY
        deployments.append({"name": _FRONT, "num_replicas": 1, "ray_actor_options": {"num_cpus": 0}})
    return {
        "name": model.name,
        "route_prefix": None,
        "import_path": "serve.builder:build",
        "args": {"model": model.model_dump(mode="json")},
        "deployments": deployments,
    }


def build(args: dict[str, Any]) -> Any:
    """Build the application that `application` describes; Serve calls this on the cluster."""
    import ray.serve

    from serve.replica import REPLICAS

    model = ModelConfig.model_validate(args["model"])
    role = registry.entry(model.engine).role
    ray_serve: Any = ray.serve
    deployment = ray_serve.deployment(name=DEPLOYMENTS[role])(REPLICAS[role])
    app = deployment.bind(model.model_dump(mode="json"))
    return ray_serve.deployment(name=_FRONT)(Front).bind(app) if _sticky(model) else app


def _sticky(model: ModelConfig) -> bool:
    """Whether it matters which replica takes a request: there can be several, and they remember."""
    return model.replicas.max > 1 and registry.entry(model.engine).role != "tts"
