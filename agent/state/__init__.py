"""The state of calls: one interface, embedded on one machine or in Redis."""

from __future__ import annotations

from agent.config import AgentConfig
from agent.state.contract import Lease, Record, State
from serve.errors import ConfigError
from serve.settings import settings

__all__ = ["Lease", "Record", "State", "connect"]


def connect(config: AgentConfig) -> State:
    """Return the state that the profile names (`agent.state`); nothing is connected before its first use.

    Raises:
        ConfigError: Redis without its address.
    """
    if config.state == "embedded":
        from agent.state.actor import ActorState

        return ActorState()
    from agent.state.redis import RedisState

    return RedisState(redis_url(), config.name)


def redis_url() -> str:
    """Return Redis' address from the environment.

    Raises:
        ConfigError: It is not set.
    """
    url = settings().redis_url
    if url is None or not url.get_secret_value():
        raise ConfigError("agent.state is redis: set REDIS_URL, for example rediss://user:password@host:6380/0")
    return url.get_secret_value()
