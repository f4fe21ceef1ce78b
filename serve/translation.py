"""What Ray and Serve report, as errors of our own tree."""

from __future__ import annotations

from typing import Any, cast

import ray.exceptions
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from serve.errors import EngineFailed, Overloaded, ParleyError, ReplicaLost, Unavailable


def translate(error: Exception, model: str) -> ParleyError | None:
    """Return the error of our own tree that says what Ray or Serve reported; None where neither has."""
    match error:
        case ParleyError():
            return error
        case BackPressureError():
            return Overloaded(f"{model} has no free slot")
        case DeploymentUnavailableError() | ReplicaUnavailableError():
            return Unavailable(f"{model} is not available now")
        case RequestCancelledError():
            return ReplicaLost(f"{model} gave the request up")
        case ray.exceptions.RayActorError():
            return ReplicaLost(f"a replica of {model} was lost")
        case ray.exceptions.RayTaskError():
            cause = cast(Any, error).cause
            return cause if isinstance(cause, ParleyError) else EngineFailed(f"{model} failed ({type(cause).__name__})")
        case ray.exceptions.RayError() | RayServeException():
            return Unavailable(f"{model} cannot be reached ({type(error).__name__})")
        case _:
            return None
