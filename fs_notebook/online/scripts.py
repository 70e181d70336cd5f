"""The Lua that Redis runs: each script is one atomic step of the commit rule.

All keys of a shard share a hash tag, so the names that scripts make from a shard's prefix lie
in the slot of the keys they were given. Each script answers with a word first: ``ok``, or why
nothing was written.

Beside its values a shard has an index of the entities that were ever put and not deleted:
sets of 48-bit hashes, small enough to stay packed integer sets (8 bytes an entity). A value
that is absent though the index knows it was lost, and is never taken for a new entity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Script:
    """A script's text and the digest that Redis knows it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode()).hexdigest())


INDEX_BUCKETS = 4096

# `unpack` can pass about 8,000 arguments; a thousand keys or pairs stay well below that.
_COMMON = """
local STEP = 1000
local function place(prefix, key)
  local digest = redis.sha1hex(key)
  return prefix .. string.sub(digest, 1, 3),
    string.format('%.0f', tonumber(string.sub(digest, 4, 15), 16))
end
local function type_of(key)
  return redis.call('TYPE', key).ok
end
"""

# The epoch follows Redis's clock where that is ahead of the last one. So an epoch that was
# lost with the server's last seconds, or in a flush, is not handed out a second time.
CLAIM = Script(
    _COMMON
    + """
local meta, index, fingerprint = KEYS[1], ARGV[1], ARGV[2]
local kind = type_of(meta)
local now = redis.call('TIME')
local epoch = tonumber(now[1]) * 1000000 + tonumber(now[2])
if kind == 'none' then
  for bucket = 0, 4095 do
    if redis.call('EXISTS', index .. string.format('%03x', bucket)) == 1 then
      return {'orphans'}
    end
  end
elseif kind == 'hash' then
  local held = redis.call('HMGET', meta, 'epoch', 'fingerprint')
  if not held[1] or not held[2] then return {'type', 'a hash of something else'} end
  if held[2] ~= fingerprint then return {'fingerprint', held[2]} end
  epoch = math.max(epoch, tonumber(held[1]) + 1)
else
  return {'type', kind}
end
local shown = string.format('%.0f', epoch)
redis.call('HSET', meta, 'epoch', shown, 'fingerprint', fingerprint)
local held = redis.call('HMGET', meta, 'cut', 'info')
return {'ok', shown, held[1], held[2]}
"""
)

_CHECK_LEASE = """
local kind = type_of(KEYS[1])
if kind == 'none' then return {'missing'} end
if kind ~= 'hash' then return {'type', kind} end
local held = redis.call('HMGET', KEYS[1], 'epoch', 'cut')
if not held[1] then return {'type', 'a hash of something else'} end
if held[1] ~= ARGV[1] then return {'fenced', held[1]} end
if (held[2] or '') ~= ARGV[2] then return {'stale', held[2] or 'none'} end
"""

# Everything is looked at before anything is written, since Redis does not undo what a script
# wrote before it failed. Memory is checked by Redis at the first write that may need some, and
# from then on lets a script finish; so puts come before deletes, and the position last.
COMMIT = Script(
    _COMMON
    + _CHECK_LEASE
    + """
local cut, info, index, puts = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local values = 6
local added, removed = {}, {}
local function note(into, key)
  local bucket, member = place(index, key)
  local members = into[bucket]
  if not members then
    local held = type_of(bucket)
    if held ~= 'none' and held ~= 'set' then return {'index', bucket, held} end
    members = {}
    into[bucket] = members
  end
  members[#members + 1] = member
end
for first = 2, puts + 1, STEP do
  local last = math.min(first + STEP - 1, puts + 1)
  local there = redis.call('EXISTS', unpack(KEYS, first, last))
  if there < last - first + 1 then
    for i = first, last do
      if there == 0 or redis.call('EXISTS', KEYS[i]) == 0 then
        local wrong = note(added, KEYS[i])
        if wrong then return wrong end
      end
    end
  end
end
for i = puts + 2, #KEYS do
  local wrong = note(removed, KEYS[i])
  if wrong then return wrong end
end
for first = 1, puts, STEP do
  local pairs_ = {}
  for i = first, math.min(first + STEP - 1, puts) do
    pairs_[#pairs_ + 1] = KEYS[i + 1]
    pairs_[#pairs_ + 1] = ARGV[values + i]
  end
  redis.call('MSET', unpack(pairs_))
end
local function each(command, sets)
  for bucket, members in pairs(sets) do
    for first = 1, #members, STEP do
      redis.call(command, bucket, unpack(members, first, math.min(first + STEP - 1, #members)))
    end
  end
end
each('SADD', added)
for first = puts + 2, #KEYS, STEP do
  redis.call('UNLINK', unpack(KEYS, first, math.min(first + STEP - 1, #KEYS)))
end
each('SREM', removed)
redis.call('HSET', KEYS[1], 'cut', cut, 'info', info)
return {'ok'}
"""
)

LOAD = Script(
    _COMMON
    + _CHECK_LEASE
    + """
local index = ARGV[3]
local values = {}
for first = 2, #KEYS, STEP do
  local last = math.min(first + STEP - 1, #KEYS)
  local part = redis.call('MGET', unpack(KEYS, first, last))
  for i = first, last do
    local value = part[i - first + 1]
    if not value then
      local held = type_of(KEYS[i])
      if held ~= 'none' then return {'entity', i - 1, held} end
      local bucket, member = place(index, KEYS[i])
      held = type_of(bucket)
      if held == 'set' then
        if redis.call('SISMEMBER', bucket, member) == 1 then return {'lost', i - 1} end
      elseif held ~= 'none' then
        return {'index', bucket, held}
      end
    end
    values[i - 1] = value
  end
end
return {'ok', values}
"""
)

# For readers. What is absent is looked for in the index, so that a value that was lost is not
# taken for an entity that nobody has seen: in the same round trip, and as of the same instant.
READ = Script(
    """
local base = ARGV[1]
local values = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  if not values[i] then
    if redis.call('EXISTS', base .. 'm') == 0 then return {values, 'unbuilt'} end
    local digest = redis.sha1hex(KEYS[i])
    local bucket = base .. 'i:' .. string.sub(digest, 1, 3)
    local member = string.format('%.0f', tonumber(string.sub(digest, 4, 15), 16))
    if redis.call('SISMEMBER', bucket, member) == 1 then return {values, 'lost', i - 1} end
  end
end
return {values}
"""
)

SNAPSHOT = Script(
    _COMMON
    + """
local kind = type_of(KEYS[1])
if kind ~= 'none' and kind ~= 'hash' then return {'type', kind} end
local held = redis.call('HMGET', KEYS[1], 'epoch', 'cut', 'info', 'fingerprint')
if kind == 'hash' and not held[1] then return {'type', 'a hash of something else'} end
local values = {}
if #KEYS > 1 then values = redis.call('MGET', unpack(KEYS, 2)) end
return {'ok', held, values}
"""
)

# The generation follows Redis's clock, as the epoch does: after a flush or a restored copy
# it never comes back to a number under which a reader remembers other records.
PUBLISH = Script(
    """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'hash' then return {'type', kind} end
local now = redis.call('TIME')
local generation = math.max(
  tonumber(now[1]) * 1000000 + tonumber(now[2]),
  tonumber(redis.call('HGET', KEYS[1], 'generation') or '0') + 1)
local shown = string.format('%.0f', generation)
redis.call('HSET', KEYS[1], 'generation', shown)
redis.call('SET', KEYS[2], shown)
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return {'ok'}
"""
)
