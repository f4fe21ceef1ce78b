"""From a profile to what Serve is told: the declarative configuration of all applications."""

from __future__ import annotations

from typing import Any

import agent.applications
import api.applications
import serve.builder
from agent import tool_names
from cluster.profile import Profile
from serve import registry

QUIET_MODELS = {"encoding": "JSON", "log_level": "INFO", "enable_access_log": False}
"""One JSON object a line; a line for each request would be written on the voice path."""


def compose(profile: Profile) -> dict[str, Any]:
    """Return the configuration that `PUT /api/serve/applications/` takes.

    Args:
        profile: Checked by `cluster.profile.load`.
    """
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": profile.api.host, "port": profile.api.port},
        "logging_config": QUIET_MODELS,
        "applications": [
            *(serve.builder.application(model) for model in profile.models),
            agent.applications.host(profile.agent, profile.routes),
            agent.applications.dispatcher(profile.agent),
            api.applications.api(
                profile.api,
                profile.agent.name,
                _catalog(profile),
                profile.routes,
                profile.agent.everybody(),
                tool_names.names(),
            ),
        ],
    }


def _catalog(profile: Profile) -> list[dict[str, str]]:
    """Return what the API shows of each model."""
    return [
        {"name": model.name, "role": registry.entry(model.engine).role, "engine": model.engine}
        for model in profile.models
    ]


def validate(schema: dict[str, Any]) -> None:
    """Check a configuration by Serve's own schema; imports Ray, which takes seconds."""
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(schema)
