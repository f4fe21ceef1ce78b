"""The outbox: records of calls are safe once they are in it, and are delivered from it until the sink has them.

Backend -> Buffer (this process, bounded) -> Store (SQLite file | Redis stream) -> Courier (one at a time) -> Sink
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.backend import Sink
from agent.config import AgentConfig
from agent.outbox.buffer import Buffer
from agent.outbox.courier import Courier
from agent.outbox.lines import LinesSink
from agent.outbox.store import Store
from agent.state import redis_url

__all__ = ["Buffer", "Courier", "LinesSink", "folder", "open_courier", "open_outbox", "open_store"]


def open_outbox(config: AgentConfig) -> Buffer:
    """Return the outbox of this process, where the profile says (`agent.state`); runs on the current event loop."""
    return Buffer(open_store(config))


def open_courier(config: AgentConfig, owner: str, sink: Sink | None = None) -> Courier:
    """Return a courier; any number may run, one at a time delivers.

    Args:
        config: Says where the outbox is.
        owner: Id of this process.
        sink: Where records go; None: JSON lines in `records.jsonl`, beside the embedded outbox.
    """
    return Courier(open_store(config), sink or LinesSink(folder() / "records.jsonl"), owner)


def open_store(config: AgentConfig) -> Store:
    """Return where records are kept until they are delivered.

    Raises:
        ConfigError: Redis without its address.
    """
    if config.state == "embedded":
        from agent.outbox.sqlite import SqliteStore

        return SqliteStore(folder() / "outbox.db")
    from agent.outbox.redis import RedisStore

    return RedisStore(redis_url(), config.name)


def folder() -> Path:
    """Return where this machine keeps files: PARLEY_HOME, or a place of the user's own, as `parley` itself does."""
    if named := os.environ.get("PARLEY_HOME"):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "parley"
