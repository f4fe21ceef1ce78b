"""Ray runs this to start a worker: hand over to the nursery, which forks one in a few milliseconds.

Ray's own script imports ray to find out what to run, and what it runs imports ray again: 3 s of a core for each
worker. This one imports nothing of the kind. Whatever is out of the ordinary, or a nursery that does not answer, takes
Ray's own way.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from array import array
from pathlib import Path
from typing import Any

SOCKET = "PARLEY_NURSERY"
"""Environment: the nursery's Unix socket."""

RAY_SETUP = "PARLEY_RAY_SETUP_WORKER"
"""Environment: Ray's own script."""


def main() -> None:
    """Start one worker."""
    arguments = sys.argv[1:]
    context, rest = "{}", list[str]()
    language = "PYTHON"
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--serialized-runtime-env-context":
            context = value
        elif name == "--language":
            language = value
        else:
            rest.append(argument)
    if not (language == "PYTHON" and _plain(context) and _hand_over(rest)):
        script = os.environ[RAY_SETUP]
        os.execv(sys.executable, [sys.executable, script, *arguments])  # noqa: S606 - Ray's own, no shell


def _plain(context: str) -> bool:
    """Whether the worker needs no environment of its own, which has to be there before the first import."""
    values: dict[str, Any] = json.loads(context or "{}") or {}
    return not any(
        values.get(key) for key in ("command_prefix", "env_vars", "override_worker_entrypoint", "java_jars")
    ) and values.get("py_executable") in (None, "", sys.executable)


def _hand_over(arguments: list[str]) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nursery:
            nursery.settimeout(20)
            nursery.connect(os.environ[SOCKET])
            order = json.dumps(
                {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
            ).encode()
            streams = array("i", [0, 1, 2])
            nursery.sendmsg(
                [len(order).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams.tobytes())]
            )
            nursery.sendall(order)
            return nursery.recv(1) == b"+"
    except (OSError, KeyError):
        return False


if __name__ == "__main__":
    main()
