"""The connection to Redis: one pool in each process, every command bounded, scripts, and errors as Parley's own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import weakref
from typing import Any
from urllib.parse import quote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from serve.errors import ConfigError, Unavailable

logger = logging.getLogger("ray.serve.parley")

SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
CONNECTIONS = 32
"""Of one process, to each server."""

ATTEMPT_SECONDS = 1.0
"""How long a server may take to accept a connection, or to answer."""

PAUSE_SECONDS = (0.05, 0.5)
"""Between two attempts: the first, doubled up to the second, with jitter."""

_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ClusterError,
    RedisClusterException,
    ReadOnlyError,
    TryAgainError,
    OSError,
)
"""A server that is down, being started, or not a primary any more: worth another attempt."""

_open: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]] = weakref.WeakKeyDictionary()


class Script:
    """A Lua script: what it does happens as one step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324  # Redis' own name for it


class Link:
    """Redis at a URL, for one agent's name.

    Args:
        url: redis:// or rediss:// (TLS); with `+cluster` for a Redis Cluster. May carry user and password.
        agent: The agent's name: two agents may share a Redis.
    """

    def __init__(self, url: str, agent: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            raise ConfigError(f"REDIS_URL begins with {scheme or 'nothing'}://; known are {', '.join(SCHEMES)}")
        self._url, self._agent = url, agent
        self._shared: _Shared | None = None

    def key(self, tag: str, kind: str) -> bytes:
        """Return a key; all keys of a tag are on one server of a cluster."""
        return f"parley:{self._agent}:{{{quote(tag, safe='')}}}:{kind}".encode()

    async def run(self, script: Script, keys: list[bytes], *args: bytes | str | int, bound: float) -> Any:
        """Run a script; while Redis is away again, until the bound. A script may so run twice.

        Raises:
            Unavailable: No answer within `bound` seconds, or Redis refuses.
        """
        pause, seen = PAUSE_SECONDS[0], ""
        try:
            async with asyncio.timeout(bound):
                while True:
                    try:
                        return await self._attempt(script, keys, args)
                    except (AuthenticationError, NoPermissionError):
                        raise Unavailable("Redis refuses the user or password in REDIS_URL") from None
                    except OutOfMemoryError:
                        raise Unavailable("Redis is out of memory") from None
                    except _AWAY as error:
                        seen = type(error).__name__
                    except RedisError as error:
                        logger.error("Redis refuses a command: %s", type(error).__name__)
                        raise Unavailable(f"Redis refuses a command ({type(error).__name__})") from error
                    await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                    pause = min(pause * 2, PAUSE_SECONDS[1])
        except TimeoutError:
            raise Unavailable(f"Redis did not answer within {bound:g} s{f' ({seen})' if seen else ''}") from None

    async def aclose(self) -> None:
        """Let go of the pool; the last one closes it."""
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.release()

    async def _attempt(self, script: Script, keys: list[bytes], args: tuple[bytes | str | int, ...]) -> Any:
        client = self._client()
        try:
            return await client.evalsha(script.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await client.eval(script.text, len(keys), *keys, *args)
        except AttributeError as error:
            # redis 8.1: one task of a cluster's client drops a connection that another one is just making.
            raise RedisConnectionError("the connection was dropped") from error

    def _client(self) -> Any:
        if self._shared is None:
            shared = _open.setdefault(asyncio.get_running_loop(), {})
            if self._url not in shared:
                shared[self._url] = _Shared(self._url)
            self._shared = shared[self._url]
            self._shared.users += 1
        return self._shared.client


class _Shared:
    """A client and its pool, for all links of this process (of this event loop) to the same URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.users = 0
        self.client = _client(url)

    async def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            _open.get(asyncio.get_running_loop(), {}).pop(self._url, None)
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await self.client.aclose()


def _client(url: str) -> Any:
    options: dict[str, Any] = {
        "socket_timeout": ATTEMPT_SECONDS,
        "socket_connect_timeout": ATTEMPT_SECONDS,
        "health_check_interval": 10,
        # Attempts are made in one place, above, within one bound.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    scheme, rest = url.split("://", 1)
    if scheme.endswith("+cluster"):
        return RedisCluster.from_url(
            f"{scheme.removesuffix('+cluster')}://{rest}", max_connections=CONNECTIONS, **options
        )
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=ATTEMPT_SECONDS, **options)
    return Redis.from_pool(pool)
