/**
 * The scripts that run on the server (Lua 5.1, Redis 6.2 or later, Valkey). A script is atomic: no other command runs in its
 * middle. All keys of one script lie in one slot.
 *
 * Scripts that read TIME replicate their effects, which is the only way since Redis 7 and the default since 5. They use `struct` of the
 * server's Lua for the numbers of `format.ts`. The header's expiry is written by SETRANGE after SET, so that a large value is not
 * copied within Lua.
 *
 * **Loads.** The loading key of a value is a sorted set: one token for each load under way, its score is the order of beginning. Every
 * change of the value deletes the whole set, and so overtakes all loads. A commit stores only if its token is still there, and
 * removes the tokens of the loads that began before it: a load that began later has read its source later, so it may still store.
 *
 * **Absent values.** Removing an absent value changes nothing, so the server would tell nobody. But other hosts may be loading it, and
 * their loads have to be overtaken in their memories as well. So the script renames the loading key to the value and deletes it: two
 * changes of a tracked key in one step, which no reader can see. RENAME needs no memory, so it works while the server is full.
 *
 * **Times of tags.** The clock is hybrid (Kulkarni et al., "Logical Physical Clocks", 2014): the server's microseconds, or one more than the
 * latest time it has given, whichever is more. So times of one tag and of entries with it are in the order of their events, even when
 * the server's wall clock is set back, or a replica with another clock takes over.
 */

import { createHash } from "node:crypto";

/** A script and the name by which the server knows it once it has run. */
export interface Script {
  readonly text: string;
  readonly sha1: string;
  /** Whether its last argument says until when it may be run: see {@link IN_TIME}. */
  readonly isChange: boolean;
}

function script(...parts: string[]): Script {
  const text = parts.join("\n");
  return { text, sha1: createHash("sha1").update(text).digest("hex"), isChange: text.startsWith(IN_TIME) };
}

/**
 * Begins a script that changes a value. Its last argument is the server's time in milliseconds at which its caller gives up, empty for never. A
 * change that was given up may still lie in a connection that has stalled. It must not be made when that goes on, over the newer
 * changes of others.
 */
const IN_TIME = `
local latest = table.remove(ARGV)
if latest ~= '' then
  local t = redis.call('TIME')
  if t[1] * 1000 + t[2] / 1000 > tonumber(latest) then return {10} end
end`;

/** How a script has answered: the first element of its answer. */
export const DONE = 1;
/** There is no entry, or it has expired. */
export const ABSENT = 2;
/** There is an entry with tags; whether it is good has to be found out. The head follows. */
export const TAGGED = 3;
/** The bytes are not of this version; they follow. */
export const FOREIGN = 4;
export const NOT_A_NUMBER = 5;
export const OUT_OF_RANGE = 6;
/** There is an entry, which was not changed. */
export const PRESENT = 7;
/** Another host loads; the milliseconds of its lease follow. */
export const LED = 8;
/** Overtaken: the token is gone, or a tag was invalidated. */
export const OVERTAKEN = 9;
/** Its caller had given up. Nothing was changed. */
export const LATE = 10;

/** The time of the server in milliseconds since 1970. */
const NOW = `
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end`;

/**
 * `look(key, sure)` looks at the entry of a key without reading its body, which may be large. A tag takes 258 bytes at most.
 * It returns ABSENT, PRESENT, TAGGED or FOREIGN, and the fixed part of its head, or what a caller answers with.
 * `sure` is the mark of an entry with tags whose goodness the caller knows: "+" and the mark for a good one, "-" and the mark for
 * one that counts as absent.
 */
const LOOK = `
local function head(value)
  local n = struct.unpack('<H', value, 28)
  local at = 30
  for _ = 1, n do
    if at + 1 > #value then return value end
    at = at + 2 + struct.unpack('<H', value, at)
  end
  return string.sub(value, 1, at - 1)
end
local function look(key, sure)
  local fixed = redis.call('GETRANGE', key, 0, 28)
  if #fixed == 0 then return ${ABSENT} end
  if #fixed < 29 or string.byte(fixed, 1) ~= 202 or string.byte(fixed, 2) ~= 1 then return ${FOREIGN}, fixed end
  if struct.unpack('<d', fixed, 4) <= now() then return ${ABSENT}, fixed end
  local tags = struct.unpack('<H', fixed, 28)
  if tags == 0 then return ${PRESENT}, fixed end
  local mark = string.sub(fixed, 4, 19)
  if sure == '+' .. mark then return ${PRESENT}, fixed end
  if sure == '-' .. mark then return ${ABSENT}, fixed end
  return ${TAGGED}, head(redis.call('GETRANGE', key, 0, 28 + 258 * math.min(tags, 128)))
end`;

/**
 * `store(value, bytes, life, ttl)` stores an entry. `life`: whole milliseconds until the server removes it, `ttl`: those until it
 * expires; empty for never. An entry without a stamp, which has no tags, gets the time of this server.
 */
const STORE = `
local function store(key, bytes, life, ttl)
  if life == '' then redis.call('SET', key, bytes) else redis.call('SET', key, bytes, 'PX', life) end
  local time = now()
  local expiresAt = ttl == '' and math.huge or time + tonumber(ttl)
  local stamp = struct.unpack('<d', bytes, 12)
  if stamp == 0 then stamp = time * 1000 end
  redis.call('SETRANGE', key, 3, struct.pack('<dd', expiresAt, stamp))
end`;

/** `forget(value, loading)` removes an entry, overtakes its loads, and lets the server tell everybody. */
const FORGET = `
local function forget(key, loading)
  if redis.call('UNLINK', key) == 1 then
    redis.call('DEL', loading)
  elseif redis.call('EXISTS', loading) == 1 then
    redis.call('RENAME', loading, key)
    redis.call('DEL', key)
  end
end`;

/** KEYS value, loading; ARGV bytes, life, ttl. */
export const WRITE: Script = script(
  IN_TIME,
  NOW,
  STORE,
  `
store(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
redis.call('DEL', KEYS[2])
return {${DONE}}`,
);

/** KEYS value, loading; ARGV bytes, life, ttl, sure. Answers DONE, PRESENT, TAGGED with the head, or FOREIGN with the bytes. */
export const ADD: Script = script(
  IN_TIME,
  NOW,
  LOOK,
  STORE,
  `
local what, head = look(KEYS[1], ARGV[4])
if what ~= ${ABSENT} then return {what, head} end
store(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
redis.call('DEL', KEYS[2])
return {${DONE}}`,
);

/**
 * KEYS: value and loading of each key. Answers for each key whether there was an entry: PRESENT, ABSENT, or the head of one with
 * tags.
 */
export const REMOVE: Script = script(
  IN_TIME,
  NOW,
  LOOK,
  FORGET,
  `
local found = {}
for i = 1, #KEYS, 2 do
  local what, head = look(KEYS[i], '')
  forget(KEYS[i], KEYS[i + 1])
  if what == ${TAGGED} then what = head elseif what == ${FOREIGN} then what = ${PRESENT} end
  found[#found + 1] = what
end
return found`,
);

/**
 * KEYS value, loading; ARGV ttl (empty for never), sure. Answers DONE with the milliseconds that the tags have to live (empty for ever),
 * ABSENT, TAGGED or FOREIGN.
 */
export const TOUCH: Script = script(
  IN_TIME,
  NOW,
  LOOK,
  FORGET,
  `
local what, head = look(KEYS[1], ARGV[2])
if what ~= ${PRESENT} then return {what, head} end
local grace = struct.unpack('<d', head, 20)
if ARGV[1] == '' then
  redis.call('SETRANGE', KEYS[1], 3, struct.pack('<d', math.huge))
  redis.call('PERSIST', KEYS[1])
else
  local life = math.ceil(tonumber(ARGV[1]) + grace)
  if life <= 0 then
    forget(KEYS[1], KEYS[2])
    return {${DONE}}
  end
  redis.call('SETRANGE', KEYS[1], 3, struct.pack('<d', now() + tonumber(ARGV[1])))
  if life < 9007199254740991 then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
  else
    redis.call('PERSIST', KEYS[1])
  end
end
redis.call('DEL', KEYS[2])
return {${DONE}}`,
);

/**
 * KEYS value, loading; ARGV by, initial, min, max, sure, and for a new number its bytes without the body (empty: it must not be created),
 * life, ttl. Answers DONE, the sum, and the milliseconds that are left (empty for ever); ABSENT, TAGGED, FOREIGN, NOT_A_NUMBER or
 * OUT_OF_RANGE.
 *
 * SET with KEEPTTL keeps the server's own expiry, and the head stays as it is.
 */
export const INCREMENT: Script = script(
  IN_TIME,
  NOW,
  LOOK,
  STORE,
  `
local what, fixed = look(KEYS[1], ARGV[5])
if what == ${TAGGED} or what == ${FOREIGN} then return {what, fixed} end
local isNew = what == ${ABSENT}
if isNew and ARGV[6] == '' then return {${ABSENT}} end
local before, number = ARGV[6], tonumber(ARGV[2])
if not isNew then
  local value = redis.call('GET', KEYS[1])
  before = head(value)
  if string.byte(value, 3) ~= 1 then return {${NOT_A_NUMBER}} end
  number = tonumber(string.sub(value, #before + 1))
  if not number then return {${FOREIGN}, value} end
end
local sum = number + tonumber(ARGV[1])
if not (sum >= tonumber(ARGV[3]) and sum <= tonumber(ARGV[4])) then return {${OUT_OF_RANGE}} end
local text = string.format('%.17g', sum)
local left = ARGV[8]
if isNew then
  store(KEYS[1], before .. text, ARGV[7], ARGV[8])
else
  redis.call('SET', KEYS[1], before .. text, 'KEEPTTL')
  local expiresAt = struct.unpack('<d', fixed, 4)
  left = expiresAt == math.huge and '' or string.format('%.17g', expiresAt - now())
end
redis.call('DEL', KEYS[2])
return {${DONE}, text, left}`,
);

/**
 * `tick(key)` gives the next time of the tags' clock, in microseconds, and `tock` keeps the latest one. `timeOf(text)` reads a time, and
 * whether it is that of a tag which was not invalidated; nothing for a text of another program (4e15 is in the year 2096).
 */
const CLOCK = `
local function micros(number) return string.format('%.0f', number) end
local function timeOf(text)
  local digits, created = string.match(text, '^(%d+)(c?)$')
  local time = digits and #digits <= 16 and tonumber(digits)
  if time and time < 4e15 then return time, created == 'c' end
end
local function tick(key)
  local t = redis.call('TIME')
  local last = timeOf(redis.call('GET', key) or '') or 0
  return math.max(t[1] * 1000000 + t[2], last + 1)
end
local function tock(key, time) redis.call('SET', key, micros(time)) end`;

/** KEYS clock. Answers a time that is later than all before and earlier than all after. */
export const TICK: Script = script(
  CLOCK,
  `
local time = tick(KEYS[1])
tock(KEYS[1], time)
return micros(time)`,
);

/**
 * KEYS value, loading, and the clock where it is on the same server; ARGV token, lease, whether only one may load ("1"), the stamp of an
 * entry that does not count (`*`: none counts). Answers PRESENT with the bytes, LED with the milliseconds left of the other's lease, or DONE with the
 * time of the clock.
 */
export const BEGIN: Script = script(
  NOW,
  CLOCK,
  `
local fixed = redis.call('GETRANGE', KEYS[1], 0, 28)
if #fixed > 0 then
  local isOurs = #fixed == 29 and string.byte(fixed, 1) == 202 and string.byte(fixed, 2) == 1
  if not isOurs and ARGV[4] ~= '*' then return {${PRESENT}, fixed} end
  local isSeen = ARGV[4] == '*' or struct.unpack('<d', fixed, 12) == tonumber(ARGV[4])
  if not isSeen and not (struct.unpack('<d', fixed, 4) <= now()) then
    return {${PRESENT}, redis.call('GET', KEYS[1])}
  end
end
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if #last > 0 and ARGV[3] == '1' then return {${LED}, redis.call('PTTL', KEYS[2])} end
redis.call('ZADD', KEYS[2], (tonumber(last[2]) or 0) + 1, ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
if not KEYS[3] then return {${DONE}} end
local time = tick(KEYS[3])
tock(KEYS[3], time)
return {${DONE}, micros(time)}`,
);

/** KEYS loading; ARGV token, lease. Answers DONE or OVERTAKEN. */
export const RENEW: Script = script(`
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {${OVERTAKEN}} end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {${DONE}}`);

/** KEYS value, loading; ARGV bytes, life, ttl, token. Answers DONE or OVERTAKEN. */
export const COMMIT: Script = script(
  NOW,
  STORE,
  `
local order = redis.call('ZSCORE', KEYS[2], ARGV[4])
if not order then return {${OVERTAKEN}} end
store(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', order)
return {${DONE}}`,
);

/**
 * KEYS value, loading; ARGV token, whether other hosts wait for this load ("1"). They are woken by a change of the value that changes
 * nothing: its first byte is written again, or an absent one is made and removed. If the server is too full for that, they find
 * out by the end of the lease.
 */
export const ABANDON: Script = script(`
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 or ARGV[2] ~= '1' then return {${DONE}} end
local byte = redis.call('GETRANGE', KEYS[1], 0, 0)
if byte ~= '' then
  redis.pcall('SETRANGE', KEYS[1], 0, byte)
else
  redis.pcall('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
end
return {${DONE}}`);

/**
 * KEYS clock, tags; ARGV life of the entry in whole milliseconds (empty for ever), the time before which the tags have to be known (empty: any
 * time). Answers DONE with a stamp that is later than the times of all tags, or OVERTAKEN when a tag was invalidated after that time.
 *
 * An absent tag may have been evicted, and nobody knows its time. So it gets the present one, which makes older entries with it
 * absent, with a `c` for "created": that is no invalidation, so it overtakes no load. The one thing that is lost: a tag that is invalidated
 * while a value is loaded, and evicted before the load ends.
 *
 * Each change of a tag's key is told to all hosts, which then drop what has this tag. So its life is made longer by the double, a day at
 * least, and only when it would not last.
 */
export const ENSURE: Script = script(
  CLOCK,
  `
local stamp = tick(KEYS[1])
local since = tonumber(ARGV[2])
local absent = {}
for i = 2, #KEYS do
  local value = redis.call('GET', KEYS[i])
  if value then
    local time, isCreated = timeOf(value)
    if not time then return {${FOREIGN}, value} end
    if since and not isCreated and time >= since then return {${OVERTAKEN}} end
    if time >= stamp then stamp = time + 1 end
  else
    absent[KEYS[i]] = true
  end
end
local life = tonumber(ARGV[1])
local long = life and string.format('%.0f', math.max(86400000, 2 * life))
for i = 2, #KEYS do
  local key = KEYS[i]
  if absent[key] then
    if life then
      redis.call('SET', key, micros(stamp) .. 'c', 'PX', long)
    else
      redis.call('SET', key, micros(stamp) .. 'c')
    end
  else
    local left = redis.call('PTTL', key)
    if left >= 0 and not life then
      redis.call('PERSIST', key)
    elseif left >= 0 and left < life + 60000 then
      redis.call('PEXPIRE', key, long)
    end
  end
end
tock(KEYS[1], stamp + 1)
return {${DONE}, micros(stamp + 1)}`,
);

/** KEYS tags; ARGV life as in ENSURE. Makes the tags that are there live as long as an entry; answers their values. */
export const KEEP: Script = script(`
local life = tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left >= 0 and not life then
    redis.call('PERSIST', key)
  elseif left >= 0 and left < life + 60000 then
    redis.call('PEXPIRE', key, string.format('%.0f', math.max(86400000, 2 * life)))
  end
end
return redis.call('MGET', unpack(KEYS))`);

/**
 * KEYS clock, tags. Invalidates the tags. An absent one gets a time as well, because values with it may be loading. It lives a day, which
 * no load takes; a tag that has entries lives as long as before, and a day at least.
 */
export const INVALIDATE: Script = script(
  CLOCK,
  `
local time = tick(KEYS[1])
for i = 2, #KEYS do
  local value = redis.call('GET', KEYS[i])
  local old = value and timeOf(value)
  if value and not old then return {${FOREIGN}, value} end
  if old and old >= time then time = old + 1 end
end
for i = 2, #KEYS do
  local left = redis.call('PTTL', KEYS[i])
  if left == -1 then
    redis.call('SET', KEYS[i], micros(time))
  else
    redis.call('SET', KEYS[i], micros(time), 'PX', string.format('%.0f', math.max(86400000, left)))
  end
end
tock(KEYS[1], time)
return {${DONE}}`,
);
