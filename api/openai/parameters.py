"""Parameters that this API does not have: harmless ones are ignored, the others refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.openai.errors import Refused

HARMLESS = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""They change nothing in the answer."""


def check(extras: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse parameters that would change the answer's meaning.

    Args:
        extras: What the request has beside the parameters that are taken.
        neutral: Parameters of OpenAI's that are not taken, with the values that ask for nothing.

    Raises:
        Refused: Names the first one.
    """
    for name, value in extras.items():
        if value is None or name in HARMLESS:
            continue
        if name not in neutral:
            raise Refused(400, f"unknown parameter: {name[:80]}", param=name[:80], code="unknown_parameter")
        if value not in neutral[name]:
            allowed = " or ".join(str(each) for each in neutral[name]) or "nothing"
            problem = f"{name} is not supported here; leave it out, or send {allowed}"
            raise Refused(400, problem, param=name, code="unsupported_parameter")
