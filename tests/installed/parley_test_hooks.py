"""Hooks of the tests' own, installed as a deployer's package is: tests/conftest.py puts this folder on the path."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from agent.events import Event

TROUBLE = "trouble-"
"""In rooms whose name begins with this, the second hook does the worst it can."""


def record(event: Event) -> None:
    """Write events where tests read them."""
    with (Path(os.environ["PARLEY_HOME"]) / "events.jsonl").open("a") as file:
        file.write(json.dumps(event.json()) + "\n")


async def trouble(event: Event) -> None:
    """Block, then fail."""
    if event.call.startswith(TROUBLE):
        time.sleep(7)  # noqa: ASYNC251  # longer than its deadline, and not to be cancelled
        raise RuntimeError(event.type)
