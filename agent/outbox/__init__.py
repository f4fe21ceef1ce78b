"""The outbox: records of calls are safe once they are in it, and are delivered from it until the sink has them.

Backend -> Buffer (this process, bounded) -> Store (SQLite file | Redis stream) -> Courier (one at a time) -> Sink
"""

from __future__ import annotations

from agent.backend import Sink
from agent.config import AgentConfig
from agent.outbox.buffer import Buffer
from agent.outbox.courier import Courier
from agent.outbox.lines import LinesSink
from agent.outbox.store import Store
from agent.state import redis_url
from serve.settings import home

__all__ = ["Buffer", "Courier", "LinesSink", "open_courier", "open_outbox", "open_store"]


def open_outbox(config: AgentConfig) -> Buffer:
    """Return the outbox of this process, where the profile says (`agent.state`); runs on the current event loop."""
    return Buffer(open_store(config))


def open_courier(config: AgentConfig, owner: str, sink: Sink | None = None) -> Courier:
    """Return a courier; any number may run, one at a time delivers.

    Args:
        config: Says where the outbox is.
        owner: Id of this process.
        sink: Where records go; None: where the profile says (`agent.backend`).
    """
    return Courier(open_store(config), sink or open_sink(config), owner)


def open_sink(config: AgentConfig) -> Sink:
    """Return where records end up: the API, or JSON lines in `records.jsonl`, beside the embedded outbox."""
    if config.backend == "jsonl":
        return LinesSink(home() / "records.jsonl")
    from agent.outbox.handle import HandleSink

    return HandleSink()


def open_store(config: AgentConfig) -> Store:
    """Return where records are kept until they are delivered.

    Raises:
        ConfigError: Redis without its address.
    """
    if config.state == "embedded":
        from agent.outbox.sqlite import SqliteStore

        return SqliteStore(home() / "outbox.db")
    from agent.outbox.redis import RedisStore

    return RedisStore(redis_url(), config.name)
