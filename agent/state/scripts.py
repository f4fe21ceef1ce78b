"""What two may want at once, as Lua scripts: the rules of `agent/state/memory.py`, in Redis.

A lease is a hash: owner, dispatcher, epoch, expires (ms of that server's clock), token (of the claim), released (0, 1).
"""

from __future__ import annotations

from agent.state.link import Script

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function whole(number) return string.format('%.0f', number) end
"""

_NEWEST = """
local function newest(owner, epoch)
    local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'released')
    return not held[2] or (held[1] == owner and held[2] == epoch and held[3] == '0')
end
"""

CLAIM = Script(
    _NOW
    + """
local owner, dispatcher, ttl, over, token, kept = unpack(ARGV)
local held = redis.call('HMGET', KEYS[1], 'epoch', 'expires', 'token', 'released')
if held[1] and held[4] == '0' then
    if held[3] == token then return {held[1], whole(tonumber(held[2]) - now)} end
    if tonumber(held[2]) > now and held[1] ~= over then return false end
end
local epoch = whole((tonumber(held[1]) or 0) + 1)
redis.call('HSET', KEYS[1], 'owner', owner, 'dispatcher', dispatcher, 'epoch', epoch,
    'expires', whole(now + ttl), 'token', token, 'released', '0')
redis.call('PEXPIRE', KEYS[1], whole(ttl + kept))
return {epoch, ttl}
"""
)

RENEW = Script(
    _NOW
    + _NEWEST
    + """
local owner, epoch, dispatcher, ttl, kept = unpack(ARGV)
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'owner', owner, 'dispatcher', dispatcher, 'epoch', epoch, 'token', '', 'released', '0')
end
if not newest(owner, epoch) then return 0 end
redis.call('HSET', KEYS[1], 'expires', whole(now + ttl))
redis.call('PEXPIRE', KEYS[1], whole(ttl + kept))
return 1
"""
)

HAND_OVER = Script(
    _NOW
    + _NEWEST
    + """
local owner, epoch, from, to = unpack(ARGV)
local held = redis.call('HMGET', KEYS[1], 'dispatcher', 'expires')
if not held[1] or not newest(owner, epoch) then return false end
if held[1] ~= from and held[1] ~= to then return false end
redis.call('HSET', KEYS[1], 'dispatcher', to)
return whole(tonumber(held[2]) - now)
"""
)

RELEASE = Script(
    """
local owner, epoch, kept = unpack(ARGV)
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if not held[1] then return 1 end
if held[1] ~= owner or held[2] ~= epoch then return 0 end
redis.call('HSET', KEYS[1], 'released', '1')
redis.call('PEXPIRE', KEYS[1], kept)
return 1
"""
)

LEASE = Script(
    _NOW
    + """
local held = redis.call('HMGET', KEYS[1], 'owner', 'dispatcher', 'epoch', 'expires', 'released')
if not held[1] or held[5] == '1' then return false end
return {held[1], held[2], held[3], whole(tonumber(held[4]) - now)}
"""
)

NOTE_CALL = Script(
    _NOW
    + """
redis.call('ZADD', KEYS[1], whole(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now - 2 * ARGV[2]))
redis.call('PEXPIRE', KEYS[1], whole(2 * ARGV[2]))
return 1
"""
)
"""The calls there are: on another server than their leases, so it is written before a claim, and by every renewal."""

FORGET_CALL = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")

CALLS = Script("return redis.call('ZRANGE', KEYS[1], 0, -1)")

LOAD = Script("return redis.call('GET', KEYS[1])")

SAVE = Script(
    _NEWEST
    + """
local owner, epoch, ttl, record = unpack(ARGV)
if not newest(owner, epoch) then return 0 end
redis.call('SET', KEYS[2], record, 'PX', ttl)
return 1
"""
)

DROP = Script("return redis.call('DEL', unpack(KEYS))")

KEEP_AUDIO = Script(
    _NEWEST
    + """
local owner, epoch, utterance, sequence, pcm, most, kept = unpack(ARGV)
if not newest(owner, epoch) then return 0 end
sequence = tonumber(sequence)
local said = redis.call('HMGET', KEYS[2], 'utterance', 'next')
local next = tonumber(said[2]) or 0
if sequence == 0 then
    if #pcm > tonumber(most) then return 0 end
    redis.call('DEL', KEYS[3])
    next = 0
elseif said[1] ~= utterance or sequence > next then
    return 0
end
if sequence == next then
    if redis.call('STRLEN', KEYS[3]) + #pcm > tonumber(most) then return 0 end
    redis.call('APPEND', KEYS[3], pcm)
    redis.call('HSET', KEYS[2], 'utterance', utterance, 'next', string.format('%.0f', next + 1))
end
redis.call('PEXPIRE', KEYS[2], kept)
redis.call('PEXPIRE', KEYS[3], kept)
return 1
"""
)

AUDIO = Script(
    """
local utterance = redis.call('HGET', KEYS[1], 'utterance')
if not utterance then return false end
return {utterance, redis.call('GET', KEYS[2]) or ''}
"""
)

WAIT = Script(
    """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
    -- A server that takes over may have another clock; who comes later stays behind.
    if last[2] then now = math.max(now, tonumber(last[2]) + 1) end
    redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
"""
)

WAITING = Script(
    """
local clock = redis.call('TIME')
local oldest = clock[1] * 1000000 + clock[2] - ARGV[1] * 1000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', oldest))
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""
)

LEAVE = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")

LEAD = Script(
    """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)

PUBLISH = Script(
    """
for number = 3, #ARGV do
    redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', 'e', ARGV[number])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

LIVE = Script("return redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])")

_LIVING_NOW = """
for _, call in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now))) do
    redis.call('HDEL', KEYS[1], call)
    redis.call('ZREM', KEYS[2], call)
end
"""
"""Of two keys, what live calls do now and until when that is believed, what has run out goes."""

NOTE = Script(
    _NOW
    + _LIVING_NOW
    + """
local call, text, ttl = unpack(ARGV)
if text == '' then
    redis.call('HDEL', KEYS[1], call)
    redis.call('ZREM', KEYS[2], call)
else
    redis.call('HSET', KEYS[1], call, text)
    redis.call('ZADD', KEYS[2], whole(now + ttl), call)
    redis.call('PEXPIRE', KEYS[1], 2 * ttl)
    redis.call('PEXPIRE', KEYS[2], 2 * ttl)
end
return 1
"""
)

LIVING = Script(_NOW + _LIVING_NOW + "return redis.call('HVALS', KEYS[1])")
