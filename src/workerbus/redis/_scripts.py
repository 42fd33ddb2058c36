"""The Lua scripts of the membership: each is one step at the server, by the server's clock.

| key | | |
|---|---|---|
| ``members`` | sorted set | incarnation, and as its score the server's time, in milliseconds, of its last beat |
| ``info`` | hash | incarnation to what the member says about itself, as JSON |
| ``runners`` | hash | a runner's name to its incarnation |
| ``names`` | hash | a worker's name to the incarnation that has claimed it |
| ``claims:<incarnation>`` | set | the names that it has claimed |
| ``server`` | string | the run id of the server, as it was seen last |
| ``inbox:<incarnation>`` | stream | what others write to it, and what it is told of them |

All keys begin with ``{prefix}:``. The braces are part of them, and keep them in one slot where there are several.

Rule 1: who is a member is decided here and nowhere else, and whoever is dropped leaves no key behind. Nothing is
written to an inbox that is not there (NOMKSTREAM), so what is late for the dead does not bring a key back.

Rule 2: what happens to a member is told in the inboxes of all others, in the same step. It stands there behind all that
the member had written, and before all that it writes next.

Rule 3: time passes for members only while the server is there. Where it was started anew, nobody has renewed for half a
lease, or the newest beat is that far in the future, the server or its clock was away: all get a whole lease from now.
One that lives renews its lease `BEATS` times in its length: where the newest beat of all is half as old again as one
should be, the server was out of reach for a short while, and of that only a beat's time counts.

The parts of a script are put together as text, since a script cannot call another one.
"""

from typing import Final

from workerbus.redis._script import Script

SILENT: Final = "its lease ran out"
"""Why a member is lost that did not renew in time."""
RESTARTED: Final = "it was restarted"
"""Why a member is lost under whose name another one has joined."""
NO_INBOX: Final = "its inbox was deleted"
"""Why a member is lost that could not be reached any more."""
FORGOTTEN: Final = "the server knows of it no more"
"""Why one is lost that is no member, and nothing was told of that: the server has lost what it had stored."""

COMMANDS: Final = (
    "eval",
    "evalsha",
    "exists",
    "get",
    "hdel",
    "hget",
    "hgetall",
    "hset",
    "sadd",
    "set",
    "smembers",
    "srem",
    "time",
    "unlink",
    "xadd",
    "xlen",
    "xrange",
    "zadd",
    "zcard",
    "zincrby",
    "zrange",
    "zrangebyscore",
    "zrem",
    "zrevrange",
    "zscore",
)
"""What a user of the server needs the right to, to be a member; the rule for the keys is ``~{prefix}:*``."""
USEFUL: Final = ("info",)
"""Without the right to these, a member cannot see that the server was started anew several times in a lease."""

BEATS: Final = 5
"""How many times in a lease a member renews it."""

LOST_AT_ONCE: Final = 100
"""How many members one script may declare lost because their leases ran out; the next beat goes on. What it costs is an
entry for each of the others: with a thousand members, some 5 ms in which the server does nothing else."""

# Before version 7, a script that has asked for the time may write only after `replicate_commands`.
_START = """
if redis.replicate_commands then redis.replicate_commands() end
local members, infos, runners, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local base, me = ARGV[1], ARGV[2]

local function inbox(member) return base .. 'inbox:' .. member end
local function claims(member) return base .. 'claims:' .. member end
"""

# `tell` comes after `drop`, or before the ZADD: nobody is told of itself. What is in `runners` and `names` is taken
# away only if it is still the member's.
_CHANGES = """
local lease, cap = tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function tell(...)
  for _, member in ipairs(redis.call('ZRANGE', members, 0, -1)) do
    redis.call('XADD', inbox(member), 'NOMKSTREAM', 'MAXLEN', '~', cap, '*', ...)
  end
end

local function drop(member)
  redis.call('ZREM', members, member)
  local readable, info = pcall(cjson.decode, redis.call('HGET', infos, member) or '')
  if readable and type(info) == 'table' and type(info.name) == 'string' then
    if redis.call('HGET', runners, info.name) == member then redis.call('HDEL', runners, info.name) end
  end
  redis.call('HDEL', infos, member)
  for _, name in ipairs(redis.call('SMEMBERS', claims(member))) do
    if redis.call('HGET', names, name) == member then redis.call('HDEL', names, name) end
  end
  redis.call('UNLINK', inbox(member), claims(member))
  if redis.call('ZCARD', members) == 0 then redis.call('UNLINK', base .. 'server') end
end

local function lose(lost, reason)
  for _, member in ipairs(lost) do drop(member) end
  if #lost > 0 then tell('k', 'lost', 'p', table.concat(lost, ' '), 'r', reason) end
  return #lost
end
"""

# One that lives does not save the dead by being late, unless it always is. A clock that goes back by a little changes
# nothing: one that is corrected every few seconds would keep the dead forever. A server with another run id was started
# anew, or has taken another one's place: members may have been without it several times in a lease.
_REAP = (
    """
local function is_new_server()
  local told = redis.pcall('INFO', 'server')
  local run = type(told) == 'string' and string.match(told, 'run_id:(%w+)')
  if not run or redis.call('GET', base .. 'server') == run then return false end
  redis.call('SET', base .. 'server', run)
  return true
end

local function allow_for_outages()
  local newest = redis.call('ZREVRANGE', members, 0, 0, 'WITHSCORES')[2]
  local pause, beat = newest and now - newest or 0, lease / $BEATS
  if is_new_server() or math.abs(pause) > lease / 2 then
    for _, member in ipairs(redis.call('ZRANGE', members, 0, -1)) do redis.call('ZADD', members, now, member) end
  elseif pause > 1.5 * beat then
    for _, member in ipairs(redis.call('ZRANGE', members, 0, -1)) do
      redis.call('ZINCRBY', members, math.floor(pause - beat), member)
    end
  end
end

local function reap()
  allow_for_outages()
  return lose(redis.call('ZRANGEBYSCORE', members, '-inf', '(' .. now - lease, 'LIMIT', 0, $LOST), '$SILENT')
end
""".replace("$BEATS", str(BEATS))
    .replace("$LOST", str(LOST_AT_ONCE))
    .replace("$SILENT", SILENT)
)

# ARGV: base, incarnation, lease, cap, name, info, whether to supersede ('1' or '0').
# A member that joins again has not got the answer to its first try: its peers know it, and it gets the place at which
# its inbox began, so that it skips nothing.
JOIN: Final = Script(
    _START
    + _CHANGES
    + _REAP
    + """
local name, info, supersede = ARGV[5], ARGV[6], ARGV[7] == '1'
reap()
local known = redis.call('ZSCORE', members, me)
local former = not known and redis.call('HGET', runners, name)
if former and redis.call('ZSCORE', members, former) then
  if not supersede then return {0, now, former, redis.call('HGET', infos, former)} end
  lose({former}, '$RESTARTED')
end
local all = redis.call('HGETALL', infos)
if not known then
  tell('k', 'joined', 'p', me, 'i', info)
  redis.call('HSET', infos, me, info)
  redis.call('HSET', runners, name, me)
end
redis.call('ZADD', members, now, me)
local first = redis.call('XRANGE', inbox(me), '-', '+', 'COUNT', 1)[1]
return {1, now, first and first[1] or redis.call('XADD', inbox(me), '*', 'k', 'joined', 'p', me, 'i', info), all}
""".replace("$RESTARTED", RESTARTED)
)

# ARGV: base, incarnation, lease, cap. Returns whether it is a member, the time, how many there are, how many were lost
# in this step, and how long its inbox is. Who is no member changes nothing, not even for others.
BEAT: Final = Script(
    _START
    + _CHANGES
    + _REAP
    + """
local lost, alive, length = 0, 0, 0
if redis.call('ZSCORE', members, me) then
  lost = reap()
  -- So many may be overdue that my turn has not come; too late is too late.
  local mine = redis.call('ZSCORE', members, me)
  if mine and now - mine > lease then
    lost = lost + lose({me}, '$SILENT')
  elseif mine and redis.call('EXISTS', inbox(me)) == 0 then
    lost = lost + lose({me}, '$NO_INBOX')
  elseif mine then
    redis.call('ZADD', members, now, me)
    alive, length = 1, redis.call('XLEN', inbox(me))
  end
end
return {alive, now, redis.call('ZCARD', members), lost, length}
""".replace("$SILENT", SILENT).replace("$NO_INBOX", NO_INBOX)
)

# ARGV: base, incarnation, lease, cap. Returns whether it was a member.
LEAVE: Final = Script(
    _START
    + _CHANGES
    + """
if not redis.call('ZSCORE', members, me) then return 0 end
drop(me)
tell('k', 'left', 'p', me)
return 1
"""
)

# ARGV: base, incarnation, cap. It stands in the inbox behind what has been told of those members, and of others.
ROLL_CALL: Final = Script(
    _START
    + """
if redis.call('ZSCORE', members, me) then
  local all = table.concat(redis.call('ZRANGE', members, 0, -1), ' ')
  redis.call('XADD', inbox(me), 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], '*', 'k', 'members', 'p', all)
end
return 0
"""
)

# ARGV: base, incarnation, names. Returns name, owner and its info for each that is taken; nil to who is no member.
CLAIM: Final = Script(
    _START
    + """
if not redis.call('ZSCORE', members, me) then return false end
local taken = {}
for n = 3, #ARGV do
  local name = ARGV[n]
  local owner = redis.call('HGET', names, name)
  if owner and owner ~= me and redis.call('ZSCORE', members, owner) then
    table.insert(taken, {name, owner, redis.call('HGET', infos, owner)})
  else
    redis.call('HSET', names, name, me)
    redis.call('SADD', claims(me), name)
  end
end
return taken
"""
)

# ARGV: base, incarnation, names.
RELEASE: Final = Script(
    _START
    + """
for n = 3, #ARGV do
  local name = ARGV[n]
  if redis.call('HGET', names, name) == me then
    redis.call('HDEL', names, name)
    redis.call('SREM', claims(me), name)
  end
end
return 0
"""
)
