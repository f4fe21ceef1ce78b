"""What the fake engines share: failing on purpose."""

from __future__ import annotations

from typing import Literal, NoReturn

from serve import errors

Failure = Literal["EngineFailed", "BadRequest", "Overloaded", "DeadlineExceeded", "ReplicaLost", "RateLimited"]


def fail(failure: Failure) -> NoReturn:
    """Raise the error of this name."""
    if failure == "BadRequest":
        raise errors.BadRequest("request", "failed on purpose")
    kind: type[errors.ParleyError] = getattr(errors, failure)
    raise kind("failed on purpose")
