/**
 * The operations of a sequence: for each member of `Cache` how its arguments are drawn, how it is called, and how its answer
 * is checked against the model. A new member of `Cache` needs an operation here.
 */

import type { Cache, Entry, IncrementOptions, Key, RateLimitOptions, RateLimitState, SetOptions } from "cache-machine";
import fc from "fast-check";
import { ok, same, throws } from "../../src/testing/assert.ts";
import { text } from "../../src/testing/samples.ts";
import { judge, limitOptions } from "./limits.ts";
import { type Known, type Model, name } from "./model.ts";
import { CLOSED, WRONG } from "./refusals.ts";
import {
  incrementOptions,
  key,
  path,
  prefix,
  type Recipe,
  type ReopenOptions,
  recipe,
  reopenOptions,
  setOptions,
  shortKeys,
  tags,
  ttl,
} from "./values.ts";
import { PARTICIPANTS, type Participant, type World } from "./world.ts";

/** The symbol of the method that Node.js calls to print an object. */
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** What an operation works with. `cache` is the view that `participant` has of the namespace `path`. */
export interface Turn {
  readonly world: World;
  readonly model: Model;
  readonly participant: Participant;
  readonly path: readonly string[];
  readonly cache: Cache<any, Key>;
  /** The position of the operation in the sequence. The values that it stores contain this number. */
  readonly serial: number;
}

interface Operation {
  /** How often it is drawn, in relation to the others. */
  readonly weight: number;
  readonly args: fc.Arbitrary<object>;
  /** Calls the cache and checks the answer. */
  run(turn: Turn, args: any): void;
}

/** One operation of a sequence, with its arguments. */
export interface Step {
  readonly op: string;
  readonly participant: number;
  readonly path: string[];
  readonly key?: Key;
  readonly keys?: Key[];
}

/** Makes an operation, with its arguments typed. */
function operation<A extends object>(
  weight: number,
  args: { [K in keyof A]: fc.Arbitrary<A[K]> },
  run: (turn: Turn, args: A) => void,
): Operation {
  return { weight, args: fc.record(args as never), run: (turn, given) => run(turn, absolute(turn, given)) };
}

/** Arguments whose `expiresAt` is a time of the clock. It was drawn as a number of milliseconds from now. */
function absolute<A extends { options?: SetOptions | undefined }>(turn: Turn, args: A): A {
  const from = args.options?.expiresAt;
  return from === undefined ? args : { ...args, options: { ...args.options, expiresAt: turn.model.now + from } };
}

interface OfKey {
  key: Key;
}
interface Storing extends OfKey {
  value: Recipe;
  options: SetOptions | undefined;
}
const storing = { key, value: recipe, options: setOptions };

// ---- reads -------------------------------------------------------------------------------------------------------

/** Checks a value that the cache has returned for a key; `undefined` is a miss. Counts a read. Returns the entry. */
export function checkRead(turn: Turn, key: Key, value: unknown, what: string): Known | undefined {
  const { world, model, participant, path } = turn;
  world.counts[value === undefined ? "misses" : "hits"]++;
  const entry = model.settle(path, key, value !== undefined, what);
  if (entry !== undefined) same(value, entry.value(), what);
  ok(!participant.options.frozenObjects || isFrozen(value), `${what}: the value is not frozen`);
  return entry;
}

function get(turn: Turn, key: Key): unknown {
  const value = turn.cache.get(key);
  checkRead(turn, key, value, "get");
  spoil(turn, value);
  return value;
}

/**
 * A leased read. The clock of the model may have let an entry expire that has not expired by the machine's clock, which counts for
 * what is in the near cache. So the value of such a key is not checked.
 */
function leased(turn: Turn, { key, ended }: OfKey & { ended: boolean }): void {
  const { cache, model, path, world } = turn;
  const value = cache.leased({ until: ended ? performance.now() : Number.POSITIVE_INFINITY }).get(key);
  if (ended) same(value, undefined, "get without a lease");
  else if (model.at(path, key) !== undefined) {
    checkRead(turn, key, value, "get under a lease");
    spoil(turn, value);
  } else world.counts[value === undefined ? "misses" : "hits"]++;
}

function getEntry(turn: Turn, key: Key): Entry<unknown> | undefined {
  return checkEntry(turn, key, turn.cache.getEntry(key), "getEntry");
}

/** Checks an entry that the cache has returned for a key, and returns it. */
function checkEntry(turn: Turn, key: Key, entry: Entry<unknown> | undefined, what: string): Entry<unknown> | undefined {
  const known = checkRead(turn, key, entry?.value, what);
  if (entry === undefined || known === undefined) return undefined;
  same([entry.expiresAt, entry.tags], [known.expiresAt, known.tags], `${what}: expiry and tags`);
  turn.model.checkVersion(known, entry.version, what);
  return entry;
}

function has(turn: Turn, key: Key): boolean {
  const present = turn.cache.has(key);
  turn.model.settle(turn.path, key, present, "has");
  return present;
}

function getTtl(turn: Turn, key: Key): boolean {
  const left = turn.cache.ttl(key);
  const known = turn.model.settle(turn.path, key, left !== undefined, "ttl");
  if (known !== undefined) same(left, known.expiresAt - turn.model.now, "ttl");
  return left !== undefined;
}

/** Changes a value that only the caller has. Later reads must not see the change. */
function spoil({ participant }: Turn, value: unknown): void {
  if (typeof value !== "object" || value === null) return;
  if (ArrayBuffer.isView(value)) new Uint8Array(value.buffer, value.byteOffset, value.byteLength).fill(0xee);
  else if (!participant.options.frozenObjects) Object.assign(value, { spoilt: true });
}

function isFrozen(value: unknown): boolean {
  // JavaScript cannot freeze binary data. A regular expression with the flag g or y keeps its position in itself.
  const bytes = ArrayBuffer.isView(value) || value instanceof ArrayBuffer || value instanceof URL;
  return bytes || (value instanceof RegExp && /[gy]/.test(value.flags)) || Object.isFrozen(value);
}

// ---- changes -------------------------------------------------------------------------------------------------------

/**
 * Calls an operation that stores, and stores in the model if the cache did. A value that is too large must be refused, in
 * every case.
 * @param expected - what the operation must return; `undefined` for `set`, which returns the cache.
 */
function store(
  turn: Turn,
  args: Storing,
  expected: (() => boolean) | undefined,
  call: (value: unknown) => unknown,
): void {
  const { world, participant, serial } = turn;
  const value = world.build(args.value, serial);
  if (world.refuses(participant, value)) {
    throws(() => call(value), "ERR_TOO_LARGE");
    return;
  }
  const deletes = turn.cache.stats().deletes;
  const done = call(value);
  if (expected === undefined) ok(done === turn.cache, "set does not return the cache");
  // `expected` runs after the call, because for a doubtful entry the answer decides whether it is present.
  else same(done, expected(), "stored");
  if (done === false) return;
  if (hasExpired(turn, args.options)) expireAtOnce(turn, args.key, turn.cache.stats().deletes - deletes);
  else {
    world.counts.sets++;
    putAs(turn, args.key, args.value, serial, args.options);
  }
  // The object is still the caller's. The stored value must not change with it.
  spoil({ ...turn, participant: { ...participant, options: {} } }, value);
}

/** Whether the entry that is stored with these options has expired already. */
function hasExpired({ model }: Turn, options: SetOptions | undefined): boolean {
  return options?.expiresAt !== undefined && options.expiresAt <= model.now;
}

/** Takes it that an operation has stored an entry which had expired: `removed` is how many entries it has removed. */
function expireAtOnce({ world, model, path }: Turn, key: Key, removed: number): void {
  const entry = model.at(path, key);
  ok(removed === 0 || (removed === 1 && entry !== undefined), `${removed} entries were removed`);
  if (removed === 0 && entry !== undefined) ok(model.mayMiss(entry), "the entry is still there");
  world.counts.deletes += removed;
  model.remove(path, key);
}

/**
 * Stores a value in the model as `set` does.
 * @param keeps - whether the entry keeps its expiry and tags unless the options say otherwise.
 */
function putAs(turn: Turn, key: Key, made: Recipe, serial: number, options: SetOptions = {}, keeps = false): void {
  const { world, model, path } = turn;
  const { expiresAt, grace, tags } = storedWith(turn, key, options, keeps);
  model.put(path, key, () => world.build(made, serial), expiresAt, tags, grace);
}

/** The expiry, the grace and the tags with which an entry has just been stored. */
function storedWith(
  turn: Turn,
  key: Key,
  options: SetOptions,
  keeps: boolean,
): { expiresAt: number; grace: number; tags: string[] } {
  const { world, model, participant, path, cache } = turn;
  const { ttl, expiresAt, tags, keepTtl = keeps && ttl === undefined && expiresAt === undefined } = options;
  const { keepTags = keeps && tags === undefined } = options;
  const fresh = {
    expiresAt: expiresAt ?? world.expiry(participant, path, ttl),
    grace: options.grace ?? 0,
    tags: [...(tags ?? [])],
  };
  const before = model.at(path, key);
  if (before === undefined || !(keepTtl || keepTags)) return fresh;
  const kept = {
    expiresAt: keepTtl ? before.expiresAt : fresh.expiresAt,
    grace: options.grace ?? (keepTtl ? before.grace : 0),
    tags: keepTags ? [...before.tags] : fresh.tags,
  };
  if (!model.mayMiss(before)) return kept;
  // Nobody knows whether there was an entry, so the cache decides.
  const found = cache.getEntry(key);
  world.counts[found === undefined ? "misses" : "hits"]++;
  const isKept = found?.expiresAt === kept.expiresAt && String(found.tags) === String(kept.tags);
  if (found !== undefined && !isKept) same([found.expiresAt, found.tags], [fresh.expiresAt, fresh.tags], "stored anew");
  return isKept ? kept : fresh;
}

/** The value that is there, or the value that is stored: whether the cache has it tells which one is expected. */
function getOrInsert(turn: Turn, args: Storing & { computes: boolean }): void {
  const { cache, world, model, path, participant, serial } = turn;
  const { key, options } = args;
  const value = world.build(args.value, serial);
  let calls = 0;
  const compute = (asked: Key): unknown => {
    same([asked, ++calls], [key, 1], "the key to compute");
    return value;
  };
  const call = (): unknown =>
    args.computes ? cache.getOrInsertComputed(key, compute, options) : cache.getOrInsert(key, value, options);
  if (has(turn, key)) {
    checkRead(turn, key, call(), "getOrInsert of what is there");
    same(calls, 0, "calls for what is there");
    return;
  }
  world.counts.misses++;
  if (world.refuses(participant, value)) {
    throws(call, "ERR_TOO_LARGE");
    return;
  }
  same(call(), value, "getOrInsert of what is absent");
  // Also a value that has expired removes what had expired before.
  model.remove(path, key);
  if (hasExpired(turn, options)) return;
  world.counts.sets++;
  putAs(turn, key, args.value, serial, options);
}

function increment(turn: Turn, args: OfKey & { by: number | undefined; options: IncrementOptions | undefined }): void {
  const { key, by, options } = args;
  count(turn, key, by ?? 1, options, () => turn.cache.increment(key, by, options));
}

/**
 * Checks the sum of an increment. A doubtful entry may be present or absent, so there are two possible sums. If both are the
 * same number, the expiry of the entry decides.
 */
function count(turn: Turn, key: Key, by: number, options: IncrementOptions | undefined, call: () => number): void {
  const { world, model, participant, path } = turn;
  const entry = model.at(path, key);
  const value = entry?.value();
  let sum: number | undefined;
  const fresh = (options?.initial ?? 0) + by;
  try {
    sum = call();
  } catch (error) {
    if (error instanceof RangeError) {
      const { min = -Number.MAX_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = options ?? {};
      const isOut = (sum: number): boolean =>
        !(sum >= Math.max(min, -Number.MAX_SAFE_INTEGER) && sum <= max) || Math.abs(sum) > Number.MAX_SAFE_INTEGER;
      const [old, anew] = [typeof value === "number" && isOut(value + by), isOut(fresh)];
      ok(old || anew, "increment: refuses a sum within its bounds");
      // Only one of the two sums explains it.
      if (!old) model.settle(path, key, false, "increment refused without an entry");
      if (!anew) model.settle(path, key, true, "increment refused");
      return;
    }
    ok(error instanceof TypeError && /not a number/.test(error.message), `increment: ${error}`);
    ok(typeof value !== "number", "increment: refuses a value that is a number");
  }
  if (sum === undefined) {
    model.settle(path, key, true, "increment of a value that is not a number");
    return;
  }
  world.counts.sets++;
  const kept = !(entry?.doubtful && Object.is(sum, fresh)) || turn.cache.ttl(key) === entry.expiresAt - model.now;
  const isOld = typeof value === "number" && Object.is(sum, value + by) && kept;
  if (isOld) {
    model.revalue(model.settle(path, key, true, "increment") as Known, sum);
    return;
  }
  model.settle(path, key, false, `increment to ${sum}`);
  same(sum, fresh, "increment");
  model.put(path, key, () => sum, world.expiry(participant, path, options?.ttl), options?.tags);
}

/** As {@link increment}, and checks the entry that it tells. */
function incrementEntry(
  turn: Turn,
  args: OfKey & { by: number | undefined; options: IncrementOptions | undefined },
): void {
  const { key, by, options } = args;
  let told: { value: number; expiresAt: number; version: number } | undefined;
  count(turn, key, by ?? 1, options, () => {
    told = turn.cache.incrementEntry(key, by, options);
    return told.value;
  });
  if (told === undefined) return;
  const entry = getEntry(turn, key);
  if (entry !== undefined) {
    const { value, expiresAt, version } = entry;
    same(told, { value, expiresAt, version }, "incrementEntry");
  }
}

function isLimit(value: unknown): value is RateLimitState {
  return typeof (value as RateLimitState | null | undefined)?.startedAt === "number";
}

/**
 * Asks a rate limit. A doubtful entry may be present or absent, so two answers are possible. If both are the same, the state
 * that the cache shows decides.
 */
function rateLimit(turn: Turn, { key, options }: OfKey & { options: RateLimitOptions }): void {
  const { world, model, path, cache } = turn;
  const entry = model.at(path, key);
  const value = entry?.value();
  let result: ReturnType<Cache["rateLimit"]>;
  try {
    result = cache.rateLimit(key, options);
  } catch (error) {
    ok(error instanceof TypeError && /not a rate limit/.test(error.message), `rateLimit: ${error}`);
    ok(!isLimit(value), "rateLimit: refuses a rate limit");
    model.settle(path, key, true, "rateLimit of another value");
    return;
  }
  if (result.allowed && options.peek !== true) world.counts.sets++;
  const old = isLimit(value) && entry !== undefined ? judge(options, value, entry.expiresAt, model.now) : undefined;
  const fresh = judge(options, undefined, -Infinity, model.now);
  const equal = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  const shown = options.peek === true ? undefined : cache.getEntry(key);
  if (options.peek !== true) world.counts[shown === undefined ? "misses" : "hits"]++;
  const explains = (judged: typeof fresh | undefined, before: unknown): boolean =>
    judged !== undefined &&
    equal(result, judged.result) &&
    (options.peek === true || shown === undefined || equal(shown.value, judged.state ?? before));
  if (explains(old, value)) {
    model.settle(path, key, true, "rateLimit");
    if (old?.state !== undefined) {
      const { state, expiresAt } = old;
      model.revalue(entry as Known, state);
      model.expire(entry as Known, expiresAt);
    }
  } else {
    if (entry !== undefined) model.settle(path, key, false, "rateLimit of a new limit");
    same(result, fresh.result, "rateLimit");
    const { state, expiresAt } = fresh;
    if (state !== undefined) model.put(path, key, () => ({ ...state }), expiresAt);
  }
}

/** The versions that `compareAndSet` is called with. */
const VERSIONS = ["current", "absent", "previous", "made up"] as const;

function compareAndSet(turn: Turn, args: Storing & { expect: (typeof VERSIONS)[number] }): void {
  const { cache, model, path } = turn;
  const before = getEntry(turn, args.key);
  const current = before?.version ?? 0;
  const version = { current, absent: 0, previous: Math.max(current - 1, 1), "made up": 2 ** 50 }[args.expect];
  const expected = (): boolean => {
    const present = model.at(path, args.key) !== undefined;
    return version === 0 ? !present : present && version === current;
  };
  store(turn, args, expected, (value) => cache.compareAndSet(args.key, version, value, args.options));
}

/** What another participant does to the key while `update` runs. */
const MEDDLING = ["set", "delete", "clear"] as const;

/** What the function of an `update` does. */
const CHANGES = ["stores", "stores", "stores", "chooses options", "declines", "fails"] as const;
type Updating = Storing & { meddle: (typeof MEDDLING)[number] | undefined; does: (typeof CHANGES)[number] };

function update(turn: Turn, args: Updating): void {
  const { world, participant, path, cache, serial } = turn;
  const { does, options } = args;
  const value = world.build(args.value, serial);
  const other = world.participants.find((each) => each !== participant) as Participant;
  const others = { ...turn, participant: other, cache: world.view(other, path) };
  const tooLarge = world.refuses(participant, value);
  let calls = 0;
  let present: unknown;
  const change = (before: unknown, entry: Entry<unknown> | undefined): unknown => {
    const known = checkRead(turn, args.key, before, "update");
    const { expiresAt, tags } = known ?? {};
    same([entry?.value, entry?.expiresAt, entry?.tags], [before, expiresAt, tags], "update: the entry");
    present = before;
    // The entry belongs to this function.
    if (entry !== undefined) Object.assign(entry, { expiresAt: 0, version: 0 }).tags.push("spoilt");
    if (calls++ === 0 && args.meddle !== undefined) {
      if (args.meddle === "set") set(others, { key: args.key, value: { data: "meddled" }, options: undefined });
      else if (args.meddle === "delete") remove(others, args);
      else clear(others);
    }
    if (does === "fails") throw new RangeError("no new value");
    return does === "declines" ? undefined : value;
  };
  const chosen = (next: unknown): SetOptions | undefined => {
    ok(Object.is(next, value), "update: the options of the new value");
    return options;
  };
  const call = (): unknown => cache.update(args.key, change, does === "chooses options" ? chosen : options);
  const deletes = cache.stats().deletes - world.counts.deletes;
  if (does === "fails") throws(call, "RangeError", "no new value");
  else if (does === "declines") same(call(), present, "update that declines");
  else if (tooLarge) throws(call, "ERR_TOO_LARGE");
  else {
    same(call(), value, "update");
    if (hasExpired(turn, options)) {
      expireAtOnce(turn, args.key, cache.stats().deletes - deletes - world.counts.deletes);
    } else {
      world.counts.sets++;
      putAs(turn, args.key, args.value, serial, options, true);
    }
  }
  ok(calls === 1 || (calls === 2 && args.meddle !== undefined), `update: has called the function ${calls} times`);
}

function set(turn: Turn, args: Storing): void {
  store(turn, args, undefined, (value) => turn.cache.set(args.key, value, args.options));
}

/** As {@link set}. A value that is refused leaves no entry. */
function trySet(turn: Turn, args: Storing): void {
  const { cache, world, model, path, participant, serial } = turn;
  const value = world.build(args.value, serial);
  const call = (): unknown => cache.trySet(args.key, value, args.options);
  if (!world.refuses(participant, value)) {
    store(
      turn,
      args,
      () => true,
      (made) => cache.trySet(args.key, made, args.options),
    );
    return;
  }
  const { deletes } = cache.stats();
  same(call(), false, "trySet of a value that is too large");
  const removed = cache.stats().deletes - deletes;
  model.settle(path, args.key, removed === 1, "trySet of a value that is too large");
  world.counts.deletes += removed;
  model.remove(path, args.key);
}

function remove(turn: Turn, { key }: OfKey): void {
  const { world, model, path } = turn;
  const removed = turn.cache.delete(key);
  model.settle(path, key, removed, "delete");
  if (removed) world.counts.deletes++;
  model.remove(path, key);
}

function clear({ model, path, cache }: Turn): void {
  cache.clear();
  model.clear(path);
}

// ---- walks ---------------------------------------------------------------------------------------------------------

/** Checks the keys of a walk: all that are present, and none twice. */
function checkWalk(turn: Turn, keys: readonly Key[], what: string): void {
  checkListed(turn, keys, () => true, what);
}

/** As {@link checkWalk}, for a walk that finds only some keys. */
function checkListed({ model, path }: Turn, keys: readonly Key[], finds: (key: Key) => boolean, what: string): void {
  const listed = new Set(keys.map((key) => name(path, key)));
  same(listed.size, keys.length, `${what}: some keys come twice`);
  for (const key of keys) model.settle(path, key, true, `${what}: ${String(key).slice(0, 20)}`);
  for (const entry of model.live(path))
    if (finds(entry.key) && !listed.has(name(path, entry.key))) model.settle(path, entry.key, false, what);
}

/** Checks the entries of a walk. */
function checkPairs(turn: Turn, pairs: Iterable<[Key, unknown]>, what: string): void {
  const all = [...pairs];
  checkWalk(
    turn,
    all.map(([key]) => key),
    what,
  );
  for (const [key, value] of all) {
    same(value, turn.model.at(turn.path, key)?.value(), what);
    spoil(turn, value);
  }
}

/** All ways to walk through a namespace. */
const WALKS: Record<string, (turn: Turn) => void> = {
  size: (turn) => turn.model.checkCount(turn.cache.size, turn.path, "size"),
  keys: (turn) => checkWalk(turn, [...turn.cache.keys()], "keys"),
  values: (turn) => {
    const { cache, model, path } = turn;
    const values = [...cache.values()];
    const pairs = [...cache.keys()].map((key): [Key, unknown] => [key, values.shift()]);
    same(values.length, 0, "values");
    checkPairs(turn, pairs, "values");
    model.checkCount(pairs.length, path, "values");
  },
  entries: (turn) => checkPairs(turn, turn.cache.entries(), "entries"),
  iterator: (turn) => checkPairs(turn, turn.cache, "iterator"),
  forEach: (turn) => {
    const pairs: [Key, unknown][] = [];
    const self = {};
    turn.cache.forEach(function (this: unknown, value, key, cache) {
      ok(this === self && cache.reach === turn.cache.reach, "forEach: this and the cache");
      pairs.push([key, value]);
    }, self);
    checkPairs(turn, pairs, "forEach");
  },
};

/** Checks that all ways to ask whether an entry is present give the same answer. */
function agree(turn: Turn, { key }: OfKey): void {
  const present = has(turn, key);
  const { cache, path } = turn;
  same(get(turn, key) !== undefined, present, "get agrees with has");
  same(getEntry(turn, key) !== undefined, present, "getEntry agrees with has");
  same(getTtl(turn, key), present, "ttl agrees with has");
  const listed = [...cache.keys()].some((other) => name(path, other) === name(path, key));
  same(listed, present, "keys agrees with has");
  same(cache.getMany([key])[0] !== undefined, present, "getMany agrees with has");
  same(cache.hasMany([key]), [present], "hasMany agrees with has");
  turn.world.counts[present ? "hits" : "misses"]++;
}

/** Options without an `expiresAt` that has come already. Of several stores nobody could say which one has removed an entry. */
function lasting(turn: Turn, options: SetOptions | undefined): SetOptions | undefined {
  return hasExpired(turn, options) ? { ...options, expiresAt: turn.model.now + 5 } : options;
}

/** Options of one entry over those of many: as `setMany` documents it. */
function together(common: SetOptions = {}, own: SetOptions = {}): SetOptions {
  const { ttl, expiresAt, keepTtl } = "ttl" in own || "expiresAt" in own || "keepTtl" in own ? own : common;
  const { tags, keepTags } = "tags" in own || "keepTags" in own ? own : common;
  return { ttl, expiresAt, keepTtl, tags, keepTags, grace: own.grace ?? common.grace };
}

// ---- all operations ---------------------------------------------------------------------------------------------------

/** The amounts that are added; `undefined` for the default. */
const by = fc.option(fc.constantFrom(2, 0.5, 0, -3, Number.MAX_SAFE_INTEGER), { nil: undefined });

/** All operations, by name. */
export const OPERATIONS: Record<string, Operation> = {
  get: operation<OfKey>(8, { key }, (turn, { key }) => void get(turn, key)),
  getEntry: operation<OfKey>(3, { key }, (turn, { key }) => void getEntry(turn, key)),
  getStale: operation<OfKey>(4, { key }, (turn, { key }) => {
    const { world, model, path } = turn;
    const entry = turn.cache.getStale(key);
    world.counts[entry === undefined ? "misses" : "hits"]++;
    const known = model.settleStale(path, key, entry?.stale);
    if (entry === undefined || known === undefined) return;
    same([entry.value, entry.expiresAt, entry.tags], [known.value(), known.expiresAt, known.tags], "getStale");
    model.checkVersion(known, entry.version, "getStale");
    spoil(turn, entry.value);
  }),
  has: operation<OfKey>(2, { key }, (turn, { key }) => void has(turn, key)),
  ttl: operation<OfKey>(2, { key }, (turn, { key }) => void getTtl(turn, key)),
  agree: operation<OfKey>(2, { key }, agree),
  leased: operation<OfKey & { ended: boolean }>(3, { key, ended: fc.boolean() }, leased),
  portable: operation<{ value: Recipe }>(1, { value: recipe }, ({ cache, world, serial, participant }, { value }) => {
    const made = world.build(value, serial);
    const decoded = cache.decode(cache.encode(made));
    same(decoded, made, "decode of what encode has returned");
    ok(!participant.options.frozenObjects || isFrozen(decoded), "decode: the value is not frozen");
  }),
  getMany: operation<{ keys: Key[] }>(2, { keys: shortKeys }, (turn, { keys }) => {
    const values = turn.cache.getMany(new Set(keys).values());
    const asked = [...new Set(keys)];
    same(values.length, asked.length, "getMany");
    for (const [i, key] of asked.entries()) checkRead(turn, key, values[i], "getMany");
  }),
  getManyEntries: operation<{ keys: Key[] }>(2, { keys: shortKeys }, (turn, { keys }) => {
    const entries = turn.cache.getManyEntries(keys);
    same(entries.length, keys.length, "getManyEntries");
    for (const [i, key] of keys.entries()) checkEntry(turn, key, entries[i], "getManyEntries");
  }),
  hasMany: operation<{ keys: Key[] }>(2, { keys: shortKeys }, ({ cache, model, path }, { keys }) => {
    const present = cache.hasMany(keys);
    same(present.length, keys.length, "hasMany");
    for (const [i, key] of keys.entries()) model.settle(path, key, present[i] as boolean, "hasMany");
  }),
  prefix: operation<{ prefix: Key }>(3, { prefix }, (turn, { prefix }) => {
    const { cache, model, path } = turn;
    const begins = (key: Key): boolean =>
      typeof key === "string"
        ? typeof prefix === "string" && key.startsWith(prefix)
        : typeof prefix !== "string" && Buffer.from(prefix).equals(key.subarray(0, prefix.length));
    const keys = [...cache.keys({ prefix })];
    ok(keys.every(begins), "keys: one does not begin with the prefix");
    checkListed(turn, keys, begins, "keys with a prefix");
    const pairs = [...cache.entries({ prefix })];
    same(
      pairs.map(([key]) => name(path, key)).sort(),
      keys.map((key) => name(path, key)).sort(),
      "entries with a prefix",
    );
    for (const [key, value] of pairs) same(value, model.at(path, key)?.value(), "entries with a prefix");
  }),
  set: operation<Storing>(12, storing, set),
  trySet: operation<Storing>(5, storing, trySet),
  setMany: operation<{ keys: Key[]; value: Recipe; options: SetOptions | undefined; own: (SetOptions | undefined)[] }>(
    2,
    { keys: shortKeys, value: recipe, options: setOptions, own: fc.array(setOptions, { maxLength: 3 }) },
    (turn, { keys: drawn, value, options: common, own: ofEntries }) => {
      const { cache, world, participant, serial } = turn;
      const made = world.build(value, serial);
      const keys = [...new Set(drawn)];
      const options = lasting(turn, common);
      const own = keys.map((_, i) => lasting(turn, absolute(turn, { options: ofEntries[i] }).options));
      const entries = keys.map((key, i): [Key, unknown, SetOptions?] => [key, made, own[i] as SetOptions]);
      const call = (): unknown =>
        cache.setMany(ofEntries.length === 0 ? new Map(keys.map((key) => [key, made])) : entries.values(), options);
      if (keys.length > 0 && world.refuses(participant, made)) {
        throws(call, "ERR_TOO_LARGE");
        return;
      }
      ok(call() === cache, "setMany does not return the cache");
      world.counts.sets += keys.length;
      for (const [i, key] of keys.entries()) putAs(turn, key, value, serial, together(options, own[i]));
    },
  ),
  add: operation<Storing>(4, storing, (turn, args) => {
    const { cache, model, path } = turn;
    let added: unknown;
    const expected = (): boolean => model.settle(path, args.key, added === false, "add") === undefined;
    store(turn, args, expected, (value) => (added = cache.add(args.key, value, args.options)));
  }),
  getOrInsert: operation<Storing & { computes: boolean }>(3, { ...storing, computes: fc.boolean() }, getOrInsert),
  replace: operation<Storing>(4, storing, (turn, args) => {
    const { cache, model, path } = turn;
    let replaced: unknown;
    const expected = (): boolean => model.settle(path, args.key, replaced === true, "replace") !== undefined;
    store(turn, args, expected, (value) => (replaced = cache.replace(args.key, value, args.options)));
  }),
  compareAndSet: operation<Storing & { expect: (typeof VERSIONS)[number] }>(
    4,
    { ...storing, expect: fc.constantFrom(...VERSIONS) },
    compareAndSet,
  ),
  update: operation<Updating>(
    4,
    {
      ...storing,
      meddle: fc.option(fc.constantFrom(...MEDDLING), { nil: undefined, freq: 2 }),
      does: fc.constantFrom(...CHANGES),
    },
    update,
  ),
  delete: operation<OfKey>(4, { key }, remove),
  compareAndDelete: operation<OfKey & { expect: (typeof VERSIONS)[number] }>(
    3,
    { key, expect: fc.constantFrom(...VERSIONS) },
    (turn, { key, expect }) => {
      const { world, model, path, cache } = turn;
      const current = getEntry(turn, key)?.version ?? 0;
      const version = { current, absent: 0, previous: Math.max(current - 1, 1), "made up": 2 ** 50 }[expect];
      const removed = cache.compareAndDelete(key, version);
      const isThere = model.at(path, key) !== undefined;
      same(removed, isThere && version !== 0 && version === current, "compareAndDelete");
      if (!removed) return;
      world.counts.deletes++;
      model.remove(path, key);
    },
  ),
  deleteMany: operation<{ keys: Key[] }>(1, { keys: shortKeys }, ({ world, model, path, cache }, { keys }) => {
    const present = [...new Set(keys)].flatMap((key) => model.at(path, key) ?? []);
    const removed = cache.deleteMany(keys.values());
    const certain = present.filter((entry) => !model.mayMiss(entry)).length;
    ok(certain <= removed && removed <= present.length, `deleteMany: ${removed} of ${certain} to ${present.length}`);
    world.counts.deletes += removed;
    for (const key of keys) model.remove(path, key);
  }),
  take: operation<OfKey>(3, { key }, (turn, { key }) => {
    const value = turn.cache.take(key);
    const known = checkRead(turn, key, value, "take");
    // An entry that has expired goes too.
    turn.model.remove(turn.path, key);
    if (known === undefined) return;
    turn.world.counts.deletes++;
    spoil(turn, value);
  }),
  increment: operation<OfKey & { by: number | undefined; options: IncrementOptions | undefined }>(
    5,
    { key, by, options: incrementOptions },
    increment,
  ),
  incrementEntry: operation<OfKey & { by: number | undefined; options: IncrementOptions | undefined }>(
    2,
    { key, by, options: incrementOptions },
    incrementEntry,
  ),
  rateLimit: operation<OfKey & { options: RateLimitOptions }>(8, { key, options: limitOptions }, rateLimit),
  decrement: operation<OfKey & { by: number | undefined; options: IncrementOptions | undefined }>(
    2,
    { key, by, options: incrementOptions },
    (turn, { key, by, options }) => {
      count(turn, key, -(by ?? 1), options, () => turn.cache.decrement(key, by, options));
    },
  ),
  touch: operation<OfKey & { ttl: number }>(4, { key, ttl }, (turn, { key, ttl }) => {
    const { cache, model, path } = turn;
    const known = model.settle(path, key, cache.touch(key, ttl), "touch");
    if (known !== undefined) model.expire(known, model.now + ttl);
  }),
  expire: operation<OfKey>(3, { key }, (turn, { key }) => {
    const { cache, model, path } = turn;
    const known = model.settle(path, key, cache.expire(key), "expire");
    if (known !== undefined) model.expire(known, model.now);
  }),
  invalidateTag: operation<{ tags: string[] }>(2, { tags }, ({ cache, model, path }, { tags }) => {
    cache.invalidateTag(...tags);
    for (const tag of tags) model.invalidate(path, tag);
  }),
  expireTag: operation<{ tags: string[] }>(2, { tags }, ({ cache, model, path }, { tags }) => {
    cache.expireTag(...tags);
    for (const tag of tags) model.expireTag(path, tag);
  }),
  tagInvalidatedAt: operation<{ tags: string[] }>(1, { tags }, ({ cache, model, path }, { tags }) => {
    const latest = Math.max(0, ...tags.map((tag) => model.invalidatedAt(path, tag)));
    // Tags share counters, so the answer may be the time of another tag.
    ok(cache.tagInvalidatedAt(...tags) >= latest, `tagInvalidatedAt: ${latest}`);
  }),
  clear: operation(1, {}, clear),
  walk: operation<{ walk: string }>(4, { walk: fc.constantFrom(...Object.keys(WALKS)) }, (turn, { walk }) =>
    WALKS[walk]?.(turn),
  ),
  stats: operation(1, {}, ({ world, cache }) => {
    const { participants, hits, misses, sets, deletes, evictions, capacity, used, size } = cache.stats();
    same(participants, world.configuration.together ? 1 : PARTICIPANTS, "stats().participants");
    same({ hits, misses, sets, deletes }, world.counts, "stats()");
    ok(world.configuration.lossy || evictions === 0, `stats(): ${evictions} evictions`);
    ok(used <= capacity && capacity < size, "stats(): bytes");
    same(size, world.configuration.size, "stats().size");
  }),
  census: operation(1, {}, ({ model, cache }) => {
    const { entries, bytes } = cache.census();
    model.checkCount(entries, undefined, "census().entries");
    ok(bytes >= entries * 32 && bytes <= cache.stats().used, "census(): bytes");
  }),
  inspect: operation(1, {}, ({ cache }) => {
    const { capacity, used } = cache.stats();
    const { entries } = cache.census();
    const { segments, segmentBytes, index, indexPartEntries } = cache.inspect();
    same(segments.length * segmentBytes, capacity, "inspect(): segments");
    for (const segment of segments) {
      ok(segment.live <= segment.used && segment.used <= segmentBytes, "inspect(): bytes of a segment");
    }
    ok(segments.filter(({ state }) => state !== "free").length * segmentBytes >= used, "inspect(): segments in use");
    // The index may still have entries that have expired or were cleared.
    const live = index.reduce((sum, part) => sum + part.live, 0);
    ok(live >= entries, `inspect(): ${live} live of ${entries} entries`);
    ok(
      index.every((part) => part.live + part.ghosts <= indexPartEntries),
      "inspect(): a part of the index has more entries than fit",
    );
  }),
  reopen: operation<{ options: ReopenOptions | undefined; byName: boolean; dispose: boolean }>(
    1,
    { options: reopenOptions, byName: fc.boolean(), dispose: fc.boolean() },
    ({ world, participant, cache }, { options = {}, byName, dispose }) => {
      if (dispose) participant.cache[Symbol.dispose]();
      else cache.close();
      cache.close();
      // In reach `threads` the handle has the memory, so the test can check that it stays the same.
      const { memory } = participant.cache.handle as { memory?: WebAssembly.Memory };
      const bytes = Buffer.from(memory?.buffer ?? new ArrayBuffer(0));
      const before = Buffer.from(bytes);
      for (const use of CLOSED) for (const view of [cache, participant.cache]) throws(() => use(view), "ERR_CLOSED");
      ok(before.equals(bytes), "a closed cache has written something");
      world.reopen(participant, options, byName);
    },
  ),
  whoAmI: operation(1, {}, ({ world, participant, path, cache }) => {
    same(Object.prototype.toString.call(cache), "[object Cache]", "its name as an object");
    same(cache.destroyed, false, "destroyed");
    same([cache.reach, cache.name], [world.configuration.reach, participant.name], "reach and name");
    same([cache.handle.reach, typeof cache.handle.build], [cache.reach, "string"], "handle");
    const { participants, ...summary } = cache.toJSON();
    const { size } = cache.stats();
    const what = { reach: cache.reach, name: participant.name, size, namespace: path.join("/") || undefined };
    same(JSON.parse(JSON.stringify(summary)), JSON.parse(JSON.stringify(what)), "JSON");
    same(participants, world.configuration.together ? 1 : PARTICIPANTS, "participants in JSON");
    const show = (cache as unknown as Record<symbol, (...args: unknown[]) => string>)[INSPECT];
    same(show?.call(cache, 0, {}, JSON.stringify), `Cache ${JSON.stringify(cache)}`, "the printed form");
  }),
  wrong: operation<OfKey & { wrong: string }>(
    3,
    { key, wrong: fc.constantFrom(...Object.keys(WRONG)) },
    ({ cache }, { key, wrong }) => {
      const [error, call] = WRONG[wrong] as (typeof WRONG)[string];
      throws(() => call(cache, key), error);
    },
  ),
  wait: operation<{ by: number }>(
    4,
    { by: fc.oneof(fc.constantFrom(10, 1, 0.5, 100, -1, -10, -0.5), fc.integer({ min: -60, max: 120 })) },
    ({ model }, { by }) => model.wait(by),
  ),
  /** Moves the clock to just before, exactly to, or just after the expiry of an entry. */
  waitForExpiry: operation<{ which: number; off: number }>(
    4,
    { which: fc.nat(5), off: fc.constantFrom(0, -0.5, 0.5) },
    ({ model }, { which, off }) => {
      const ends = model.live().filter(({ expiresAt }) => expiresAt < model.now + 1e6);
      const end = ends[which % ends.length];
      if (end !== undefined) model.wait(end.expiresAt + off - model.now);
    },
  ),
};

/** Fills a cache that evicts entries, and reads some of the entries again before they are evicted. */
export const FILL: Operation = operation<{ count: number; length: number; from: number }>(
  6,
  {
    count: fc.integer({ min: 1, max: 200 }),
    length: fc.constantFrom(20, 500, 6000, 30_000, 100_000),
    from: fc.nat(200),
  },
  (turn, { count, length, from }) => {
    const { world, participant, model, cache, serial } = turn;
    if (world.refuses(participant, text(length, serial))) return;
    const fewer = Math.ceil(Math.min(count, 1_500_000 / length));
    for (let i = from; i < from + fewer; i++) {
      const key = `fill ${i}`;
      const made = (): unknown => text(length, serial * 1000 + i);
      cache.set(key, made());
      world.counts.sets++;
      model.put(turn.path, key, made, world.expiry(participant, turn.path, undefined));
      if (i % 3 === 0) get(turn, `fill ${Math.floor(i / 2)}`);
    }
  },
);

/** Draws sequences of the given operations. */
export function steps(operations: Record<string, Operation>, maxLength: number): fc.Arbitrary<Step[]> {
  const step = fc.oneof(
    ...Object.entries(operations).map(([op, { weight, args }]) => ({
      weight,
      arbitrary: fc
        .tuple(fc.nat(PARTICIPANTS - 1), path, args)
        .map(([participant, where, given]): Step => ({ op, participant, path: where, ...given })),
    })),
  );
  return fc.array(step, { maxLength, size: "max" });
}
