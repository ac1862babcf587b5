/**
 * The public class of a tier: values live in Redis or Valkey, and the cache is the memory of the host in front of it. This file is
 * documentation and delegation. `reading.ts` reads, `loading.ts` runs loaders, `server.ts` speaks to the server, `memory.ts` is the
 * host's memory, and `owner.ts` hears of changes.
 */

import { checkLoad, checkLoader, memoized } from "../cache/load-options.ts";
import type { Loading } from "../coordinate/loading.ts";
import type {
  Cache,
  IncrementOptions,
  Key,
  KeysOptions,
  LoadContext,
  LoadedMany,
  LoadManyContext,
  LoadOptions,
  MemoizeOptions,
  NamespaceOptions,
} from "../index.ts";
import { checkOptions } from "../option-names.ts";
import { describe } from "../values/describe.ts";
import { clientOf } from "./clients/client.ts";
import { type Core, checkOpen, idOf } from "./core.ts";
import { hasCode } from "./errors.ts";
import { Gate } from "./gate.ts";
import { type Load, type Loaded, lead, leadMany } from "./loading.ts";
import { ABSENT, Memory, type Place } from "./memory.ts";
import { Names } from "./names.ts";
import { checkKey, checkSet, checkTags, checkTime, checkValue, resolve } from "./options.ts";
import { Owner } from "./owner.ts";
import { type Found, read, readAlone, readMany, tagTimes } from "./reading.ts";
import { isInvalidation, Server, type Stored } from "./server.ts";
import type { Counts, TierCountedEntry, TierEntry, TierOptions, TierSetOptions, TierStats } from "./types.ts";

const KEYS_OPTIONS = ["prefix"] as const;
const INCREMENT_OPTIONS = ["initial", "ttl", "tags", "min", "max"] as const;
const NAMESPACE_OPTIONS = ["ttl"] as const;

/**
 * Opens a tier: values live in a Redis or Valkey server, and `cache` is the memory of this host in front of it. Each thread and process
 * of the host opens the tier for itself, with a client of its own and with the same options.
 *
 * One of them, the *owner*, hears of every change of a key with the `prefix` (`CLIENT TRACKING ON BCAST`), and removes the key from the
 * memory of the host. When it dies, another one takes over. Whatever dies or hangs, no read returns a value that was replaced on the
 * server more than `lease` milliseconds ago.
 *
 * The technique is that of client-side caching in Redis 6, with one copy for each host, and a lease (Gray and Cheriton, SOSP '89).
 *
 * The tier begins to work at once. Until it hears of changes, the first milliseconds, its reads ask the server.
 *
 * @param cache the memory of the host; the tier keeps its entries in namespaces of its own. It stays the caller's.
 * @throws {TypeError} and {RangeError} for wrong arguments.
 * @throws {CacheError} `ERR_CLOSED` when the cache was closed.
 */
export function openTier<V = any, K extends Key = string>(cache: Cache<any, any>, options: TierOptions): Tier<V, K> {
  checkCache(cache);
  const resolved = resolve(options);
  const names = new Names(resolved.prefix);
  const client = clientOf(resolved.client);
  const memory = new Memory(cache, resolved.prefix, resolved.lease, names, resolved.serve);
  const gate = new Gate();
  const server = new Server(client, names, {
    timeout: resolved.timeout,
    codec: cache,
    now: () => memory.serverNow(),
    isInTouch: () => memory.isGood,
    gate,
  });
  const owner = new Owner(memory, client, names, {
    lease: resolved.lease,
    timeout: resolved.timeout,
    onAnswer: () => gate.opened(),
  });
  const counts: Counts = { hits: 0, misses: 0, loads: 0, errors: 0 };
  const core: Core = { memory, server, gate, client, options: resolved, counts, closed: false };
  owner.start();
  return new Tier(core, owner, [], resolved.ttl);
}

function checkCache(cache: unknown): asserts cache is Cache<any, any> {
  const { encode, leased } = (cache ?? {}) as Partial<Cache>;
  if (typeof encode !== "function" || typeof leased !== "function") {
    throw new TypeError("cache: must be a cache, as openCache, createCache or attachCache return it");
  }
}

/**
 * A cache whose values live in a Redis or Valkey server, with the memory of the host in front. {@link openTier} opens one.
 *
 * Every method that returns a promise rejects it for wrong arguments, and never throws. Reads do not fail because of the server: what
 * cannot be read is a miss. Writes are rejected with `ERR_UNREACHABLE` when the server has not confirmed them.
 *
 * A write of this host is read by this host as soon as its promise is fulfilled, and by other hosts when they have heard of it: as a
 * rule within a millisecond, and at the latest after the `lease`.
 */
export class Tier<V = any, K extends Key = string> {
  readonly #core: Core;
  readonly #owner: Owner;
  readonly #path: readonly string[];
  readonly #place: Place;
  readonly #counts: Counts;
  /** Milliseconds that a value lives when a write does not say. */
  readonly #ttl: number;

  /** @internal */
  constructor(core: Core, owner: Owner, path: readonly string[], ttl: number) {
    this.#core = core;
    this.#owner = owner;
    this.#path = path;
    this.#place = core.memory.at(path);
    this.#counts = core.counts;
    this.#ttl = ttl;
  }

  // ---- reading

  /**
   * Returns what the host has in its memory, at once: the value, or `undefined` when the host does not have it, whether or not the
   * server does. As fast as a `get` of a cache.
   *
   * @throws {CacheError} `ERR_CLOSED`; `ERR_DATA` as `Cache.get`.
   */
  peek(key: K): V | undefined {
    const value = this.#place.peek(key);
    if (value === undefined || value === ABSENT) return undefined;
    this.#counts.hits++;
    return value as V;
  }

  /**
   * Returns the value of a key: from the memory of the host, or else from the server. `undefined` when there is none, and when the
   * server cannot be reached.
   *
   * @throws {CacheError} (as a rejection) `ERR_CLOSED`; `ERR_DATA` when the server has something under this key that another program, or
   * another version of this package, has stored.
   */
  get(key: K): Promise<V | undefined> {
    // Not an async function: that would take longer than the read itself.
    try {
      const value = this.#place.peek(key);
      if (value === undefined) return this.#get(key);
      this.#counts.hits++;
      return Promise.resolve(value === ABSENT ? undefined : (value as V));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #get(key: K): Promise<V | undefined> {
    return presentOf(await this.#read(key)) as V | undefined;
  }

  /** Reads a key that the memory does not have. */
  #read(key: Key): Promise<Found> {
    checkOpen(this.#core);
    checkKey(key);
    return read(this.#core, this.#place, key);
  }

  /** Returns the values of many keys, in the order of the keys. All that the host does not have is read by one command. As {@link get}. */
  async getMany(keys: Iterable<K>): Promise<(V | undefined)[]> {
    return this.#getMany(listOf(keys)) as Promise<(V | undefined)[]>;
  }

  async #getMany(keys: readonly K[]): Promise<unknown[]> {
    checkOpen(this.#core);
    const values = keys.map((key) => this.#place.peek(key));
    const missing = keys.filter((_, i) => values[i] === undefined);
    this.#counts.hits += keys.length - missing.length;
    if (missing.length === 0) return values.map((value) => (value === ABSENT ? undefined : value));
    const found = await readMany(this.#core, this.#place, missing);
    let next = 0;
    return values.map((value) => {
      if (value !== undefined) return value === ABSENT ? undefined : value;
      return presentOf(found[next++] as Found);
    });
  }

  /** Returns whether a key has a value. As {@link get}. */
  async has(key: K): Promise<boolean> {
    return (await this.get(key)) !== undefined;
  }

  /**
   * Returns the value of a key with its expiry and its tags. `expiresAt` is a time of this process's `Date.now()`, computed from what
   * is left by the server's clock. As {@link get}.
   */
  async getEntry(key: K): Promise<TierEntry<V> | undefined> {
    checkOpen(this.#core);
    checkKey(key);
    const known = this.#known(key);
    if (known !== undefined) {
      this.#counts.hits++;
      return known === ABSENT ? undefined : known;
    }
    const { value, stored } = await this.#read(key);
    if (value === undefined || value === ABSENT) return undefined;
    if (stored !== undefined) return entryOf(stored) as TierEntry<V>;
    // Another participant has read it. It is in the memory, unless it has changed since.
    const entry = this.#known(key);
    if (entry !== undefined && entry !== ABSENT) return entry;
    const { stored: again } = await readAlone(this.#core, this.#place, key);
    return again === undefined || again.ttl <= 0 ? undefined : (entryOf(again) as TierEntry<V>);
  }

  /** The entry in the memory of the host. Its expiry is a time of `Date.now()`, also when the cache has another clock. */
  #known(key: Key): TierEntry<V> | typeof ABSENT | undefined {
    const entry = this.#place.entry(key);
    if (entry === undefined || entry === ABSENT) return entry;
    const { value, expiresAt, tags } = entry;
    const left = expiresAt === Infinity ? Infinity : (this.#place.current().ttl(key) ?? 0);
    return { value: value as V, expiresAt: Date.now() + left, tags };
  }

  /** Returns how many milliseconds a value has left, `Infinity` for ever; `undefined` when there is no value. As {@link get}. */
  async ttl(key: K): Promise<number | undefined> {
    const entry = await this.getEntry(key);
    return entry && (entry.expiresAt === Infinity ? Infinity : entry.expiresAt - Date.now());
  }

  /**
   * Iterates over the keys that the server has, in no order (`SCAN`). A key that is stored or removed meanwhile may be missing or
   * returned. A key with an invalidated tag may be returned.
   *
   * @throws {CacheError} `ERR_UNREACHABLE`, since a list with gaps would not be a list; `ERR_CLOSED`.
   */
  async *keys(options?: KeysOptions<K>): AsyncGenerator<K, undefined, undefined> {
    const { prefix } = checkOptions<KeysOptions<K>>(options, KEYS_OPTIONS);
    if (prefix !== undefined) checkKey(prefix);
    checkOpen(this.#core);
    for await (const key of this.#core.server.keys(this.#path)) {
      if (prefix === undefined || beginsWith(key, prefix)) yield key as K;
    }
  }

  // ---- writing

  /**
   * Stores a value on the server.
   *
   * @throws {TypeError} and {RangeError} (as a rejection, like all others) for wrong arguments.
   * @throws {CacheError} `ERR_UNREACHABLE` when the server has not confirmed the write: the message says whether it may have been
   * made; `ERR_DATA` for a value that cannot be stored; `ERR_TOO_LARGE` for a key of more than 4,096 bytes; `ERR_CLOSED`.
   */
  async set(key: K, value: V, options?: TierSetOptions): Promise<void> {
    checkOpen(this.#core);
    checkKey(key);
    checkValue(value);
    const how = checkSet(options, this.#ttl);
    await this.#write([key], () =>
      how.ttl > 0
        ? this.#core.server.write(this.#path, key, value, how)
        : this.#core.server.remove(this.#path, key).then(() => {}),
    );
  }

  /**
   * Stores many values, side by side. Each may have options of its own: `[key, value, options]`, which stand in place of `options`. When
   * the promise is rejected, some of them may be stored. As {@link set}.
   */
  async setMany(
    entries: Iterable<readonly [key: K, value: V, options?: TierSetOptions | undefined]>,
    options?: TierSetOptions,
  ): Promise<void> {
    checkOpen(this.#core);
    checkSet(options, this.#ttl);
    const writes = listOf(entries, "entries").map((entry) => {
      if (typeof entry !== "object" || entry === null) {
        throw new TypeError("entries: each must be [key, value] or [key, value, options]");
      }
      const [key, value, own] = entry;
      checkKey(key);
      checkValue(value);
      return [key, value, checkSet(over(options, own), this.#ttl)] as const;
    });
    const kept = writes.filter(([, , { ttl }]) => ttl > 0);
    const expired = writes.filter(([, , { ttl }]) => ttl <= 0).map(([key]) => key);
    await this.#write(
      writes.map(([key]) => key),
      async () => {
        const { server } = this.#core;
        await Promise.all([
          kept.length > 0 && server.writeMany(this.#path, kept),
          expired.length > 0 && server.removeMany(this.#path, expired),
        ]);
      },
    );
  }

  /** Stores a value unless the key has one. Returns whether it was stored. As {@link set}. */
  async add(key: K, value: V, options?: TierSetOptions): Promise<boolean> {
    checkOpen(this.#core);
    checkKey(key);
    checkValue(value);
    const how = checkSet(options, this.#ttl);
    return this.#write([key], async () => {
      if (how.ttl > 0) return this.#core.server.add(this.#path, key, value, how);
      return (await this.#core.server.read(this.#path, key)) === undefined;
    });
  }

  /** Gives a value a new time to live. Returns whether there was a value. As {@link set}. */
  async touch(key: K, ttl: number): Promise<boolean> {
    checkOpen(this.#core);
    checkKey(key);
    checkTime("ttl", ttl);
    return this.#write([key], () => this.#core.server.touch(this.#path, key, ttl));
  }

  /** Removes a key. Returns whether it had a value. As {@link set}. */
  async delete(key: K): Promise<boolean> {
    checkOpen(this.#core);
    checkKey(key);
    return this.#write([key], () => this.#core.server.remove(this.#path, key));
  }

  /** Removes many keys. Returns how many of them had a value. As {@link set}. */
  async deleteMany(keys: Iterable<K>): Promise<number> {
    checkOpen(this.#core);
    const list = listOf(keys);
    for (const key of list) checkKey(key);
    if (list.length === 0) return 0;
    return this.#write(list, () => this.#core.server.removeMany(this.#path, list));
  }

  /**
   * Removes all values of this tier or namespace, with the namespaces within: looks for them with `SCAN` and removes them, so what
   * others store meanwhile may stay. As {@link set}.
   */
  async clear(): Promise<void> {
    checkOpen(this.#core);
    try {
      await this.#core.server.clear(this.#path);
    } finally {
      this.#place.clear();
    }
  }

  /**
   * Adds to a number on the server and returns the sum, exactly over all hosts. Only integers. As `Cache.increment`.
   *
   * @throws {TypeError} (as a rejection, like all others) when the value is no integer; {RangeError} when the sum would leave its
   * bounds. Then nothing is changed.
   * @throws {CacheError} as {@link set}. After `ERR_UNREACHABLE` the number may have been counted.
   */
  async increment(key: K, by = 1, options?: IncrementOptions): Promise<number> {
    return (await this.#count(key, by, options)).value;
  }

  /** Subtracts from a number. As {@link increment}. */
  async decrement(key: K, by = 1, options?: IncrementOptions): Promise<number> {
    checkInteger("by", by);
    return (await this.#count(key, -by, options)).value;
  }

  /** Adds to a number as {@link increment}, and returns the sum with its expiry, a time of this process's `Date.now()`. */
  async incrementEntry(key: K, by = 1, options?: IncrementOptions): Promise<TierCountedEntry> {
    const { value, ttl } = await this.#count(key, by, options);
    return { value, expiresAt: Date.now() + ttl };
  }

  #count(key: Key, by: number, options: IncrementOptions | undefined): Promise<{ value: number; ttl: number }> {
    checkOpen(this.#core);
    checkKey(key);
    checkInteger("by", by);
    const given = checkOptions<IncrementOptions>(options, INCREMENT_OPTIONS);
    const { initial = 0, ttl = this.#ttl, tags, min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = given;
    for (const [name, value] of Object.entries({ initial, min, max })) checkInteger(name, value);
    checkTime("ttl", ttl);
    const how = { initial, min, max, ttl, tags: tags === undefined ? [] : checkTags(tags) };
    return this.#write([key], () => this.#core.server.increment(this.#path, key, by, how));
  }

  /** Makes a change of the server, and then forgets what the host knows of the keys, also when it is not known what the server did. */
  async #write<T>(keys: readonly Key[], change: () => Promise<T>): Promise<T> {
    try {
      return await change();
    } catch (error) {
      if (hasCode(error, "ERR_UNREACHABLE")) this.#counts.errors++;
      throw error;
    } finally {
      for (const key of keys) this.#place.drop(key);
    }
  }

  // ---- tags

  /**
   * Makes all entries with any of these tags invalid, on all hosts: by one command, however many entries there are. As {@link set}.
   */
  async invalidateTag(...tags: string[]): Promise<void> {
    checkOpen(this.#core);
    const list = checkTags(tags);
    if (list.length === 0) return;
    try {
      await this.#core.server.invalidateTags(this.#path, list);
    } finally {
      this.#place.dropTags(list);
    }
  }

  /**
   * Returns when any of these tags was invalidated last, in milliseconds of the server's clock: see {@link now}. 0 when the server does
   * not know any of them.
   *
   * @throws {CacheError} `ERR_UNREACHABLE`, since no number would be true; `ERR_CLOSED`.
   */
  async tagInvalidatedAt(...tags: string[]): Promise<number> {
    checkOpen(this.#core);
    const times = await tagTimes(this.#core, this.#place, checkTags(tags, Infinity));
    let latest = 0;
    for (const time of times) if (time !== undefined && isInvalidation(time)) latest = Math.max(latest, time / 1000);
    return latest;
  }

  /**
   * The time of the server's clock in milliseconds, as far as this host knows: at most behind by as long as an answer takes to come.
   * `undefined` until the owner has asked for it.
   */
  now(): number | undefined {
    return this.#core.memory.serverNow();
  }

  // ---- loading

  /**
   * Returns the value of the key: from the memory of the host or from the server. When there is none, calls `load`, stores on the server
   * what it returns, and returns that. Of all threads and processes of this host, and with `singleFlight: "all"` of all hosts, only one
   * loads a key at a time. As `Cache.getOrSet`, with these differences:
   *
   * - A change of the key by any host during the load wins: what was loaded is handed to those who waited, and is not stored.
   * - While the server is away the loader runs, and its value is kept in the memory of the host for one `lease`.
   * - `grace` is how long after its `ttl` the server keeps a value for when a load fails or takes longer than `graceWait`.
   * - `refreshAhead` needs a `ttl` that is a number, here or by default.
   * - The `version` of an entry is always 0.
   *
   * @throws as `Cache.getOrSet`, but not because of the server.
   */
  getOrSet<T extends V | undefined = V>(
    key: K,
    load: (context: LoadContext<V, K>) => T | PromiseLike<T>,
    options?: LoadOptions<Exclude<T, undefined>, K>,
  ): Promise<T> {
    try {
      const loading = checkLoad(options);
      checkLoader(load);
      let value: unknown;
      if (!loading.fresh) {
        value = this.#place.peek(key);
        if (value !== undefined && value !== ABSENT && isPlain(loading)) {
          this.#counts.hits++;
          return Promise.resolve(value as T);
        }
      }
      return this.#getOrSet(key, value, load, loading) as Promise<T>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** @param known what the memory has said */
  async #getOrSet(
    key: K,
    known: unknown,
    run: (context: LoadContext<V, K>) => unknown,
    options: Loading,
  ): Promise<unknown> {
    checkOpen(this.#core);
    checkKey(key);
    if (options.signal?.aborted) throw options.signal.reason;
    let stale: Stored | undefined;
    let replace = options.fresh;
    if (!options.fresh) {
      const found: Found =
        known === undefined
          ? await this.#read(key).catch((error) => {
              // What another program has stored is replaced by what is loaded, as something unreadable in a cache is.
              if (!hasCode(error, "ERR_DATA")) throw error;
              replace = true;
              return { value: ABSENT, stored: undefined };
            })
          : { value: known, stored: undefined };
      const value = presentOf(found);
      if (known !== undefined) this.#counts.hits++;
      if (value !== undefined) return this.#hit(key, value, run, options);
      if (options.grace > 0) stale = found.stored;
    }
    const load: Load = { core: this.#core, place: this.#place, key, options, ttl: this.#ttl, stale, replace };
    if (stale === undefined) return this.#load(load, run);
    return this.#loadOrStale(load, stale, run);
  }

  /** A value was there. Loads it anew in the background when little of its time is left. */
  #hit(key: K, value: unknown, run: (context: LoadContext<V, K>) => unknown, options: Loading): unknown {
    const { refreshAhead, onOutcome } = options;
    if (refreshAhead === 0 && onOutcome === undefined) return value;
    const known = this.#known(key);
    const entry = known === ABSENT ? undefined : known;
    const expiresAt = entry?.expiresAt ?? Infinity;
    const ttl = typeof options.ttl === "number" ? options.ttl : this.#ttl;
    if (refreshAhead > 0 && expiresAt - Date.now() < refreshAhead * ttl) {
      const load: Load = {
        core: this.#core,
        place: this.#place,
        key,
        options: { ...options, fresh: true, signal: undefined, onOutcome: undefined },
        ttl: this.#ttl,
        stale: undefined,
        replace: true,
      };
      // The value is still right. The next call that finds it tries again.
      this.#load(load, run, true).catch(() => {});
    }
    onOutcome?.("hit", { value, version: 0, expiresAt, tags: entry?.tags ?? [] }, key);
    return value;
  }

  /** Loads a key whose old value is within its grace: returns the old value when the load fails or takes too long. */
  async #loadOrStale(load: Load, stale: Stored, run: (context: LoadContext<V, K>) => unknown): Promise<unknown> {
    const { options, place, key } = load;
    const old = (): unknown => {
      options.onOutcome?.("stale", { ...entryOf(stale), version: 0 }, key);
      return stale.value;
    };
    if (place.isBackingOff(key)) return old();
    const inBackground = options.graceWait === 0;
    const loaded = this.#load(load, run, inBackground).then(
      (value) => ({ value, failed: false }),
      (error) => {
        // Nothing is wrong with the loader when it was this call that has ended.
        if (options.signal?.aborted) throw error;
        place.backOff(key, options.graceBackoff);
        return { value: undefined, failed: true };
      },
    );
    if (inBackground) {
      loaded.catch(() => {});
      return old();
    }
    const first =
      options.graceWait === Infinity ? await loaded : await Promise.race([loaded, after(options.graceWait)]);
    return first === undefined || first.failed ? old() : first.value;
  }

  /** Runs the loader in the flight of the host. */
  async #load(load: Load, run: (context: LoadContext<V, K>) => unknown, inBackground = false): Promise<unknown> {
    const { place, key, options } = load;
    const { timeout, lease, fresh, signal, onOutcome } = options;
    const space = place.loading(!this.#core.gate.isOpen);
    let expiresAt = Infinity;
    let tags: string[] = [];
    const value = await space.getOrSet(
      key,
      async (flight) => {
        const context = { signal: flight.signal, background: inBackground || flight.background };
        const loaded = await lead(load, run as (context: LoadContext<any, any>) => unknown, context);
        // Handed to those who wait, and not stored, unless the server does not have it. Whoever comes after an invalidation of the tags
        // does not join.
        flight.ttl = loaded?.isUnsaved ? Math.min(place.keep(space), loaded.ttl) : 0;
        flight.tags = loaded?.tags;
        if (loaded !== undefined) {
          expiresAt = Date.now() + loaded.ttl;
          tags = [...loaded.tags];
        }
        return loaded?.value;
      },
      {
        timeout,
        lease,
        fresh,
        ...(Array.isArray(options.tags) && { tags: options.tags }),
        ...(signal && { signal }),
        ...(onOutcome && {
          onOutcome: (outcome, { value }) => onOutcome(outcome, { value, version: 0, expiresAt, tags }, key),
        }),
      },
    );
    return value;
  }

  /**
   * Returns the values of many keys, in the order of the keys, and loads those that are absent with one call of `load`. As
   * `Cache.getOrSetMany`, with the differences of {@link getOrSet}; an old value within its grace is not used.
   */
  async getOrSetMany<T extends V | undefined = V>(
    keys: Iterable<K>,
    load: (keys: K[], context: LoadManyContext) => LoadedMany<T, K> | PromiseLike<LoadedMany<T, K>>,
    options?: LoadOptions<Exclude<T, undefined>, K>,
  ): Promise<(T | undefined)[]> {
    const loading = checkLoad(options);
    checkLoader(load);
    const list = listOf(keys);
    for (const key of list) checkKey(key);
    const values = loading.fresh ? list.map(() => undefined) : await this.#getMany(list);
    const missing = list.filter((_, i) => values[i] === undefined);
    if (missing.length === 0) return values as T[];
    const { timeout, lease, fresh, signal } = loading;
    const space = this.#place.loading(!this.#core.gate.isOpen);
    let led = new Map<string, Loaded>();
    const loaded = await space.getOrSetMany(
      missing,
      async (wanted, flight) => {
        led = await this.#leadMany(wanted as K[], load, loading, flight);
        return wanted.map((key) => led.get(idOf(key))?.value);
      },
      {
        timeout,
        lease,
        fresh,
        // As for one key: see #load.
        ttl: (_, key) => {
          const one = led.get(idOf(key));
          return one?.isUnsaved ? Math.min(this.#place.keep(space), one.ttl) : 0;
        },
        tags: (_, key) => led.get(idOf(key))?.tags ?? (Array.isArray(loading.tags) ? loading.tags : undefined),
        ...(signal && { signal }),
      },
    );
    let next = 0;
    return values.map((value) => (value === undefined ? loaded[next++] : value)) as (T | undefined)[];
  }

  #leadMany(
    keys: K[],
    load: (keys: K[], context: LoadManyContext) => LoadedMany<any, K> | PromiseLike<LoadedMany<any, K>>,
    options: Loading,
    { signal, background }: LoadManyContext,
  ): Promise<Map<string, Loaded>> {
    const loads = keys.map((key) => ({
      core: this.#core,
      place: this.#place,
      key,
      options,
      ttl: this.#ttl,
      stale: undefined,
      replace: options.fresh,
    }));
    const run = async (missing: Key[]) => {
      const context: LoadManyContext = { signal, background, ttl: undefined, tags: undefined };
      const result = await load(missing as K[], context);
      return { values: valuesOf(missing as K[], result), said: context };
    };
    return leadMany(loads, run, signal);
  }

  /** Returns a function that calls `load` through {@link getOrSet}. As `Cache.memoize`. */
  memoize<A extends unknown[], T extends V | undefined>(
    load: (...args: A) => T | PromiseLike<T>,
    options: MemoizeOptions<Exclude<T, undefined>, A, K>,
  ): (...args: A) => Promise<T> {
    return memoized((key, run, others) => this.getOrSet<T>(key, run, others), load, options);
  }

  // ---- the rest

  /**
   * Returns a part of this tier with keys and tags of its own.
   *
   * @throws {TypeError} and {RangeError} for wrong arguments, also when the names of the namespaces together are too long.
   * @throws {CacheError} `ERR_CLOSED`.
   */
  namespace<W = V, L extends Key = K>(name: string, options?: NamespaceOptions): Tier<W, L> {
    checkOpen(this.#core);
    if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${describe(name)}`);
    if (name === "") throw new RangeError("name: must not be empty");
    const { ttl } = checkOptions<NamespaceOptions>(options, NAMESPACE_OPTIONS);
    const own = ttl === undefined ? this.#ttl : checkTime("ttl", ttl);
    return new Tier<W, L>(this.#core, this.#owner, [...this.#path, name], own);
  }

  /** Numbers about the tier. Cheap: nothing is asked of the server. */
  stats(): TierStats {
    const { memory, server, counts } = this.#core;
    checkOpen(this.#core);
    return {
      isGood: memory.isGood,
      leaseLeft: memory.leaseLeft,
      owner: this.#owner.report(),
      own: { ...counts, commands: server.commands },
    };
  }

  /**
   * Leaves the tier in this thread: also its namespaces cannot be used any more. The cache and the client stay open. May be called
   * twice.
   */
  async close(): Promise<void> {
    this.#core.closed = true;
    this.#core.gate.close();
    await this.#owner.close();
    this.#core.memory.close();
    await this.#core.client.close();
  }

  /** As {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  get [Symbol.toStringTag](): string {
    return "Tier";
  }
}

function presentOf({ value }: Found): unknown {
  return value === ABSENT ? undefined : value;
}

function entryOf({ value, ttl, tags }: Stored): TierEntry<unknown> {
  return { value, expiresAt: Date.now() + ttl, tags: [...tags] };
}

/** The options of one entry over those of all entries. */
function over(common: TierSetOptions | undefined, own: TierSetOptions | undefined): TierSetOptions | undefined {
  if (common === undefined || own === undefined) return own ?? common;
  const merged = { ...common, ...own };
  if (own.ttl !== undefined) delete merged.expiresAt;
  if (own.expiresAt !== undefined) delete merged.ttl;
  return merged;
}

function listOf<T>(list: Iterable<T>, argument = "keys"): T[] {
  if (typeof list === "string" || typeof (list as Partial<Iterable<T>> | null)?.[Symbol.iterator] !== "function") {
    throw new TypeError(`${argument}: must be an array or another iterable`);
  }
  return [...list];
}

function checkInteger(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number") throw new TypeError(`${name}: must be a number, not ${describe(value)}`);
  if (!Number.isSafeInteger(value))
    throw new RangeError(`${name}: must be an integer of at most 2^53 - 1, not ${value}`);
}

/** The values that a loader of many keys has returned, in the order of the keys. @throws {TypeError}. */
function valuesOf<K extends Key>(keys: readonly K[], result: LoadedMany<unknown, K>): unknown[] {
  if (Array.isArray(result)) {
    if (result.length === keys.length) return result;
    throw new TypeError(`load: must return ${keys.length} values, one for each key, not ${result.length}`);
  }
  if (typeof (result as Partial<ReadonlyMap<K, unknown>> | null)?.get !== "function") {
    throw new TypeError("load: must return an array with a value for each key, or a Map");
  }
  const byId = new Map([...(result as ReadonlyMap<K, unknown>)].map(([key, value]) => [idOf(key), value]));
  return keys.map((key) => byId.get(idOf(key)));
}

function beginsWith(key: Key, prefix: Key): boolean {
  if (typeof key === "string") return typeof prefix === "string" && key.startsWith(prefix);
  if (typeof prefix === "string" || key.length < prefix.length) return false;
  return prefix.every((byte, i) => key[i] === byte);
}

/** Whether a value that is there can be returned as it is. */
function isPlain({ refreshAhead, signal, onOutcome }: Loading): boolean {
  return refreshAhead === 0 && onOutcome === undefined && !signal?.aborted;
}

function after(ms: number): Promise<undefined> {
  return new Promise((resolve) => {
    setTimeout(resolve, Math.min(ms, 2 ** 31 - 1), undefined).unref();
  });
}
