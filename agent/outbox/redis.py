"""The outbox in Redis: a stream and a consumer group. As durable as that Redis is (docs: appendonly, replicas)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.outbox.store import BOUND_SECONDS, STORED_MOST, Entry, Stored
from agent.state.link import Link, Script
from serve.errors import Unavailable

REFUSED_MOST = 10_000
"""Records set aside: the newest ones are kept."""

_APPEND = Script(
    """
local most = tonumber(ARGV[1])
if redis.call('XLEN', KEYS[1]) + (#ARGV - 1) / 3 > most then return 0 end
for n = 2, #ARGV, 3 do
    redis.call('XADD', KEYS[1], '*', 'id', ARGV[n], 'call', ARGV[n + 1], 'body', ARGV[n + 2])
end
return 1
"""
)
"""No MAXLEN: what is not delivered is never cut off. A delivered record is deleted, so the stream stays short."""

_TAKE = Script(
    """
local owner, ttl, count = unpack(ARGV)
if redis.call('XLEN', KEYS[1]) == 0 then return {} end
local leader = redis.call('GET', KEYS[2])
if leader and leader ~= owner then return false end
redis.call('SET', KEYS[2], owner, 'PX', ttl)
redis.pcall('XGROUP', 'CREATE', KEYS[1], 'courier', '0')
-- What was given out and not acknowledged comes first, whoever it was given to: they are gone, or it is me.
local entries = redis.call('XAUTOCLAIM', KEYS[1], 'courier', owner, 0, '0-0', 'COUNT', count)[2]
if #entries == 0 then
    local fresh = redis.call('XREADGROUP', 'GROUP', 'courier', owner, 'COUNT', count, 'STREAMS', KEYS[1], '>')
    entries = fresh and fresh[1][2] or {}
end
if not leader then
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], 'courier')) do
        if consumer[2] ~= owner and consumer[4] == 0 then
            redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'courier', consumer[2])
        end
    end
end
return entries
"""
)

_DONE = Script(
    """
redis.call('XACK', KEYS[1], 'courier', unpack(ARGV))
return redis.call('XDEL', KEYS[1], unpack(ARGV))
"""
)

_WAITING = Script("return redis.call('XLEN', KEYS[1])")

_SET_ASIDE = Script(
    """
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'position', ARGV[1], 'body', ARGV[2], 'reason', ARGV[3])
redis.call('XACK', KEYS[1], 'courier', ARGV[1])
return redis.call('XDEL', KEYS[1], ARGV[1])
"""
)


class RedisStore:
    """Implements `Store`. All its keys are on one server of a cluster, so each step is one.

    Args:
        url: See `agent.state.link.Link`.
        agent: The agent's name.
        most: Records that may wait.
    """

    def __init__(self, url: str, agent: str, most: int = STORED_MOST) -> None:
        self._link = Link(url, agent)
        self._most = most
        self._stream, self._leader, self._refused = (
            self._link.key("outbox", kind) for kind in ("stream", "courier", "refused")
        )

    async def append(self, entries: Sequence[Entry]) -> None:
        """Keep records; sent again after a lost connection, they may be there twice."""
        rows = [part for entry in entries for part in (entry.id, entry.call, entry.body)]
        if not await self._run(_APPEND, [self._stream], self._most, *rows):
            raise Unavailable(f"the outbox is full: {self._most} records wait to be delivered")

    async def take(self, owner: str, count: int, ttl: float) -> list[Stored] | None:
        """Return the first records that are not done."""
        found = await self._run(_TAKE, [self._stream, self._leader], owner, round(ttl * 1000), count)
        if found is None:
            return None
        entries = [(position.decode(), dict(zip(fields[::2], fields[1::2], strict=True))) for position, fields in found]
        return [Stored(position, fields.get(b"body", b"")) for position, fields in entries]

    async def done(self, taken: Sequence[Stored]) -> None:
        """Forget records."""
        await self._run(_DONE, [self._stream], *(stored.position for stored in taken))

    async def set_aside(self, taken: Stored, reason: str) -> None:
        """Keep a record out of the others' way."""
        await self._run(
            _SET_ASIDE, [self._stream, self._refused], taken.position, taken.body, reason, str(REFUSED_MOST)
        )

    async def waiting(self) -> int:
        """Return how many records are not done."""
        return int(await self._run(_WAITING, [self._stream]))

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._link.aclose()

    async def _run(self, script: Script, keys: list[bytes], *args: bytes | str | int) -> Any:
        return await self._link.run(script, keys, *args, bound=BOUND_SECONDS)
