"""The secret that signs cookies and links, the same in every replica."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from serve.errors import ConfigError
from serve.settings import home, settings

LEAST = 32
"""Characters."""


def secret(local: bool) -> str:
    """Return PARLEY_SECRET; on one machine, where nobody set it, one that is made once and kept beside the database.

    Args:
        local: The profile is for one machine (`api.local`).

    Raises:
        ConfigError: It is not set where it must be, or is too short.
    """
    given = settings().parley_secret
    found = given.get_secret_value() if given else ""
    if not found and local:
        found = _kept(home() / "secret")
    if len(found) < LEAST:
        problem = f"set it to {LEAST} random characters or more, the same for all replicas: openssl rand -hex 32"
        raise ConfigError(f"PARLEY_SECRET: {problem}")
    return found


def _kept(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written whole before it has its name: two replicas that begin together must read the same.
    fresh = path.with_name(f"{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    if not path.exists():
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text().strip()
