/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The cache as people use it: the interface of a `Map` and more. This file documents every operation, checks its arguments, and
 * delegates to one {@link View}, which does the work.
 */

import { oneLoader } from "../coordinate/flights.ts";
import { Locks } from "../coordinate/locks.ts";
import type { WaitForOptions, WatchOptions } from "../coordinate/options.ts";
import { checkRule, type RateLimitOptions, type RateLimitResult } from "../coordinate/rate-limit.ts";
import { waitFor } from "../coordinate/wait.ts";
import { watch, watchTag } from "../coordinate/watch.ts";
import { ABSENT, ANYTHING, PRESENT, VERSION, WANT_QUIET, WANT_VALUE } from "../engine/contract.ts";
import { plan } from "../engine/plan.ts";
import type { Region } from "../memory/memory.ts";
import { ROOT, scopeOf } from "../values/scope.ts";
import { flatCopy } from "../values/text.ts";
import { checkLease, type Lease, type Leased, LeasedView } from "./leased.ts";
import {
  checkLoad,
  checkLoader,
  isPlain,
  type LoadContext,
  type LoadedMany,
  type LoadManyContext,
  type LoadOptions,
  type MemoizeOptions,
  memoized,
} from "./load-options.ts";
import { listOf, Many } from "./many.ts";
import { inspectionOf, sizeOf, statsOf, summaryOf } from "./observe.ts";
import { Opening } from "./opening.ts";
import {
  checkFinite,
  checkIncrement,
  checkOptions,
  checkStore,
  checkTtl,
  type IncrementOptions,
  type KeysOptions,
  type NamespaceOptions,
  over,
  type Resolved,
  type SetOptions,
} from "./options.ts";
import type { CacheHandle, CacheSummary, CountedEntry, Entry, Inspection, Key, StaleEntry, Stats } from "./types.ts";
import { unreadable, View } from "./view.ts";

/** The name of the method by which Node.js prints an object. */
const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/**
 * Makes structured clone refuse an object. `undefined` before Node.js 22.10 and in browsers: there a copy of a `Cache` is an
 * empty object.
 */
const markAsUncloneable: ((object: object) => void) | undefined = (
  globalThis.process?.getBuiltinModule?.("node:worker_threads") as { markAsUncloneable?: (object: object) => void }
)?.markAsUncloneable;

/**
 * A cache shared between threads, or between processes. `openCache`, `createCache` and `attachCache` return it.
 *
 * Each reader gets a copy of a value, so changing it changes no other copy. A miss is `undefined`. Every operation on one
 * entry is atomic. Once a change has returned, every later read in any thread or process sees this change, or a later
 * change, or a miss.
 *
 * `V` is the type of the values and `K` that of the keys: `Cache<User>` has strings as keys, `Cache<User, Uint8Array>` bytes,
 * `Cache<User, Key>` both. Both types are promises of the program and are not checked when entries are read. A cache with strings
 * as keys can be handed in where `get`, `set`, `has`, `delete` and `clear` of a `Map` are wanted.
 */
export class Cache<V = any, K extends Key = string> implements Disposable {
  readonly #view: View;
  #many: Many | undefined;
  #locks: Locks | undefined;

  /** @internal */
  constructor(view: View) {
    this.#view = view;
    markAsUncloneable?.(this);
  }

  /**
   * The view of a cache, for the floors above that pass encoded values on; `undefined` for what is no cache of this copy of the
   * package. @internal
   */
  static viewOf(cache: unknown): View | undefined {
    return typeof cache === "object" && cache !== null && #view in cache ? (cache as Cache<any, any>).#view : undefined;
  }

  /** Who can share the cache: `"threads"` of this process, or `"processes"` of this user on this machine. */
  get reach(): "threads" | "processes" {
    return this.#view.engine.region.reach;
  }

  /** The name by which `openCache` opened the cache. `undefined` for a cache from `createCache` or `attachCache`. */
  get name(): string | undefined {
    return this.#view.opening.name;
  }

  /** The argument with which a worker of this process calls `attachCache`. It passes through structured clone. */
  get handle(): CacheHandle {
    return { ...this.#view.engine.region.handle, build: plan.build };
  }

  /**
   * Returns the value of the key, or `undefined` when it is absent. Never waits for another participant.
   *
   * @throws {TypeError} when the key is neither a string nor bytes.
   * @throws {CacheError} `ERR_DATA` when the value is present but cannot be read here: it is of a type that this runtime does
   * not have, or it was stored with another `codec`, or it is damaged. `set` and `delete` still work for this key.
   */
  get(key: K): V | undefined {
    return this.#view.get(key) as V | undefined;
  }

  /**
   * Stores a value. Returns the cache, as `Map` does. When it throws, the old value is still there.
   *
   * @throws {TypeError} for a value that is not data: `undefined`, a function, a symbol, a Promise, a WeakMap.
   * @throws {CacheError} `ERR_DATA` when the value contains such a thing, or a property named `__proto__`, or more than 512
   * levels; `ERR_TOO_LARGE` when the key or the value is too large; `ERR_BUSY` when another participant has been in the way
   * for 50 ms, for example because its process is stopped in the middle of a change.
   */
  set(key: K, value: V, options?: SetOptions): this {
    this.#view.store(key, value, options, ANYTHING, 0);
    return this;
  }

  /**
   * Stores a value if it can be stored now. Returns whether it did. Where {@link set} throws because the key or the value is too large, or
   * because another participant is in the way, this removes the old value, so that nobody goes on reading what was to be
   * replaced. For stores in other programs, to which a value that is not cached is no error.
   *
   * The old value stays only when the other participant is in the way of its removal too.
   *
   * @throws {TypeError} and {CacheError} as {@link set}, but not `ERR_TOO_LARGE` and not `ERR_BUSY`.
   */
  trySet(key: K, value: V, options?: SetOptions): boolean {
    return this.#view.tryStore(key, value, options);
  }

  /**
   * Stores the value only if the key is absent. Returns whether it stored it. Of several calls for an absent key at the
   * same time exactly one stores its value.
   *
   * @throws {TypeError} and {CacheError} as {@link set}.
   */
  add(key: K, value: V, options?: SetOptions): boolean {
    return this.#view.store(key, value, options, ABSENT, 0);
  }

  /**
   * Returns the value of the key. When the key is absent, stores `value` first, and returns that. Of several calls for an absent
   * key at the same time one stores its value, and all return it.
   *
   * @throws {TypeError} and {CacheError} as {@link set}; `ERR_DATA` as {@link get}.
   */
  getOrInsert(key: K, value: V, options?: SetOptions): V {
    return this.getOrInsertComputed(key, () => value, options);
  }

  /**
   * As {@link getOrInsert}, with a function that computes the value when the key is absent. It does not wait for others: several
   * threads may compute at the same time, and the value that was stored first is the one that all return.
   *
   * @throws {TypeError} and {CacheError} as {@link getOrInsert}. An error of `compute` is passed on.
   */
  getOrInsertComputed(key: K, compute: (key: K) => V, options?: SetOptions): V {
    if (typeof compute !== "function") throw new TypeError("compute: must be a function that returns the value");
    return this.#view.insert(key, compute as never, options) as V;
  }

  /**
   * Stores the value only if the key is present. Returns whether it stored it.
   *
   * @throws {TypeError} and {CacheError} as {@link set}.
   */
  replace(key: K, value: V, options?: SetOptions): boolean {
    return this.#view.store(key, value, options, PRESENT, 0);
  }

  /**
   * Stores the value only if the entry still has this version. Returns whether it stored it. Version 0 stands for an absent
   * entry.
   *
   * @param version - as {@link getEntry} returned it, or 0.
   * @throws {TypeError} and {CacheError} as {@link set}.
   */
  compareAndSet(key: K, version: number, value: V, options?: SetOptions): boolean {
    checkVersion(version);
    return this.#view.store(key, value, options, version === 0 ? ABSENT : VERSION, version);
  }

  /**
   * Calls `change` with the value and the entry (`undefined` when the key is absent), stores what `change` returns, and returns
   * that. When `change` returns `undefined`, the entry stays as it is, and its value is returned. When another participant has
   * changed the entry meanwhile, it begins again, so `change` may run more than once.
   *
   * The entry keeps its expiry and its tags, unless `options` have others, or `keepTtl` or `keepTags` is `false`. An absent entry
   * gets the default `ttl`.
   *
   * @param options - as for {@link set}; or a function that returns them, which is called with the new value.
   * @throws {CacheError} `ERR_BUSY` when other participants change the entry during each attempt; `ERR_DATA` when the old
   * value cannot be read here. Otherwise as {@link set}.
   */
  update(
    key: K,
    change: (value: V | undefined, entry: Entry<V> | undefined) => V,
    options?: SetOptions | ((value: V) => SetOptions | undefined),
  ): V;
  update(
    key: K,
    change: (value: V | undefined, entry: Entry<V> | undefined) => V | undefined,
    options?: SetOptions | ((value: V) => SetOptions | undefined),
  ): V | undefined;
  update(
    key: K,
    change: (value: V | undefined, entry: Entry<V> | undefined) => V | undefined,
    options?: SetOptions | ((value: V) => SetOptions | undefined),
  ): V | undefined {
    if (typeof change !== "function") throw new TypeError("change: must be a function that returns the new value");
    return this.#view.update(key, change as never, options as never) as V | undefined;
  }

  /** Returns whether the key is present. Does not count as a read. */
  has(key: K): boolean {
    return this.#view.expiry(key) !== undefined;
  }

  /**
   * Removes the entry. Returns whether there was one.
   *
   * @throws {CacheError} `ERR_BUSY` as {@link set}.
   */
  delete(key: K): boolean {
    return this.#view.remove(key, ANYTHING, 0);
  }

  /**
   * Removes the entry only if it still has this version. Returns whether it removed it. With version 0, which stands for an
   * absent entry, there is nothing to remove.
   *
   * @param version - as {@link getEntry} returned it, or 0.
   * @throws {CacheError} `ERR_BUSY` as {@link set}.
   */
  compareAndDelete(key: K, version: number): boolean {
    checkVersion(version);
    return this.#view.remove(key, VERSION, version);
  }

  /**
   * Removes many entries, one after the other. Returns how many there were. Each removal is atomic, all together are not: when one
   * throws, the entries before it are removed.
   *
   * @throws {TypeError} for a key that is neither a string nor bytes.
   * @throws {CacheError} `ERR_BUSY` as {@link set}.
   */
  deleteMany(keys: Iterable<K>): number {
    let removed = 0;
    for (const key of asIterable(keys, "keys")) if (this.delete(key)) removed++;
    return removed;
  }

  /**
   * Removes the entry and returns its value, in one step. `undefined` when the key is absent. Of several calls at the same
   * time exactly one gets the value.
   *
   * @throws {CacheError} `ERR_BUSY` as {@link update}; `ERR_DATA` as {@link get}, and then the entry is still there.
   */
  take(key: K): V | undefined {
    return this.#view.take(key) as V | undefined;
  }

  /**
   * Returns the value with its version, expiry and tags. `undefined` when the key is absent.
   *
   * @throws {CacheError} `ERR_DATA` as {@link get}.
   */
  getEntry(key: K): Entry<V> | undefined {
    return this.#view.entry(key) as Entry<V> | undefined;
  }

  /**
   * Returns the entry as {@link getEntry}, but also when it has expired and is within its grace. `stale` tells which. `undefined`
   * when the key is absent, was invalidated or removed, or its grace is over. An entry that `expireTag` let expire may have an
   * `expiresAt` in the future. Only this method finds an expired entry: `get` never returns what has expired.
   *
   * @throws {CacheError} `ERR_DATA` as {@link get}.
   */
  getStale(key: Key): StaleEntry<V> | undefined {
    return this.#view.staleEntry(key) as StaleEntry<V> | undefined;
  }

  /**
   * Returns the values of many keys, in the order of the keys. The value is `undefined` for a key that is absent, and for one
   * whose value cannot be read here. One pass reads all keys, which takes less time than as many calls of {@link get}.
   *
   * @throws {TypeError} naming the first of the keys that is neither a string nor bytes.
   */
  getMany(keys: Iterable<K>): (V | undefined)[] {
    return this.#readMany().values(listOf(keys)) as (V | undefined)[];
  }

  /**
   * Returns the entries of many keys as {@link getEntry}, in the order of the keys; `undefined` as {@link getMany}.
   *
   * @throws {TypeError} as {@link getMany}.
   */
  getManyEntries(keys: Iterable<K>): (Entry<V> | undefined)[] {
    return this.#readMany().entries(listOf(keys)) as (Entry<V> | undefined)[];
  }

  /**
   * Returns whether each of many keys is present, in the order of the keys. Does not count as reads.
   *
   * @throws {TypeError} as {@link getMany}.
   */
  hasMany(keys: Iterable<K>): boolean[] {
    return this.#readMany().presence(listOf(keys));
  }

  #readMany(): Many {
    this.#many ??= new Many(this.#view);
    return this.#many;
  }

  /**
   * Stores many entries, one after the other. An entry may have options of its own: `[key, value, options]`. What they say about
   * the expiry, or about the tags, stands in place of what the `options` of all entries say about it.
   *
   * Each store is atomic, all together are not: when one throws, the entries before it are stored, and the others are not. The
   * `options` of all entries are checked before the first one is stored.
   *
   * @throws {TypeError} and {CacheError} as {@link set}.
   */
  setMany(
    entries: Iterable<readonly [key: K, value: V, options?: SetOptions | undefined]>,
    options?: SetOptions,
  ): this {
    const common = options === undefined ? undefined : checkStore(options);
    for (const entry of asIterable(entries, "entries")) {
      if (typeof entry !== "object" || entry === null)
        throw new TypeError("entries: each must be [key, value] or [key, value, options]");
      const [key, value, own] = entry;
      const how = own === undefined ? common : over(common, checkStore(own));
      this.#view.storeAs(key, value, how, ANYTHING, 0);
    }
    return this;
  }

  /**
   * Adds to a number and returns the sum. An absent key counts from `initial`. No increment is lost, however many
   * participants count at the same time. The sum stays between `min` and `max`, and never leaves the integers that a number holds
   * exactly (2⁵³ − 1).
   *
   * @throws {TypeError} when the value of the key is not a number.
   * @throws {RangeError} when the sum would leave its bounds. Then nothing is changed.
   * @throws {CacheError} `ERR_TOO_LARGE` when the key is too long; `ERR_BUSY` as {@link set}.
   */
  increment(key: K, by = 1, options?: IncrementOptions): number {
    checkFinite("by", by);
    return this.#view.increment(key, by, checkIncrement(options));
  }

  /**
   * Adds to a number as {@link increment}, and returns the sum with the expiry and the version of its entry.
   *
   * @throws as {@link increment}.
   */
  incrementEntry(key: K, by = 1, options?: IncrementOptions): CountedEntry {
    const value = this.increment(key, by, options);
    const { version, sumExpiry: expiresAt } = this.#view.engine;
    return { value, expiresAt, version };
  }

  /** Subtracts from a number and returns the difference. Otherwise as {@link increment}. */
  decrement(key: K, by = 1, options?: IncrementOptions): number {
    checkFinite("by", by);
    return this.increment(key, -by, options);
  }

  /**
   * Asks whether a request may go through, and counts it if so. All threads and processes that share the cache count together,
   * and exactly: of requests that come at the same moment no more go through than the limit says. A refused request is not
   * counted.
   *
   * The limit is an ordinary entry under this key: `delete` resets it, and `get` describes it. It is removed when it says nothing
   * any more. A cache that is too small may evict it before, and then more requests go through. The first request of a key
   * begins a limit; the same key may later be used with another `limit`, `window` or `burst`, and keeps its count. With another
   * `algorithm` it begins anew.
   *
   * @throws {TypeError} for a wrong option, and when the key has a value that is no rate limit.
   * @throws {RangeError} for an option out of range; for a `cost` above `burst` or `limit`, which would never be allowed.
   * @throws {CacheError} `ERR_TOO_LARGE` when the key is too long; `ERR_BUSY` as {@link set}.
   */
  rateLimit(key: K, options: RateLimitOptions): RateLimitResult {
    return this.#view.limit(key, checkRule(options));
  }

  /**
   * Gives an entry a new time to live, without changing its value. Returns whether there was an entry.
   *
   * @param ttl - milliseconds from now on, or `Infinity` for an entry that does not expire.
   * @throws {CacheError} `ERR_BUSY` as {@link set}; `ERR_TOO_LARGE` when the entry was stored without an expiry and is so
   * large that there is no room for one.
   */
  touch(key: K, ttl: number): boolean {
    return this.#view.touch(key, this.#view.expiryIn(checkTtl(ttl)));
  }

  /**
   * Lets the entry expire now. `getStale` still finds it for its grace; an entry without a `grace` is gone. Returns whether there
   * was an entry that had not expired.
   *
   * @throws {CacheError} `ERR_BUSY` as {@link set}.
   */
  expire(key: Key): boolean {
    return this.#view.expire(key);
  }

  /**
   * Returns the milliseconds until the entry expires: `Infinity` for an entry that does not expire, `undefined` when the key
   * is absent. Does not count as a read.
   */
  ttl(key: K): number | undefined {
    const expiresAt = this.#view.expiry(key);
    if (expiresAt === undefined || expiresAt === Infinity) return expiresAt;
    const left = expiresAt - this.#view.now();
    // The clock may have passed the expiry since the engine asked for the time.
    return left > 0 ? left : undefined;
  }

  /**
   * Makes every entry of this cache or namespace that has one of these tags a miss, for all threads and processes at once. The
   * call takes the same time for one entry and for a million. Rarely an entry with other tags becomes a miss as well, because
   * tags share counters.
   */
  invalidateTag(...tags: string[]): void {
    this.#view.opening.checkOpen();
    this.#view.invalidate(tags);
  }

  /**
   * Lets every entry of this cache or namespace that has one of these tags expire now, for all threads and processes at once:
   * `getStale` still finds it for its grace; an entry without a `grace` is gone. Costs as much as {@link invalidateTag}, and as
   * there rarely an entry with other tags expires as well. When a tag expires again, the grace of an entry that has
   * expired with it begins again.
   */
  expireTag(...tags: string[]): void {
    this.#view.opening.checkOpen();
    this.#view.expireTags(tags);
  }

  /**
   * Returns when one of these tags was last invalidated by `invalidateTag`, in milliseconds of the cache's clock: the latest
   * time, or 0 when none of them was invalidated since the cache was created. Because tags share counters, rarely the time is
   * that of another tag: it is never earlier than the right one. {@link clear} is no invalidation.
   */
  tagInvalidatedAt(...tags: string[]): number {
    this.#view.opening.checkOpen();
    return this.#view.invalidatedAt(tags);
  }

  /**
   * Returns a part of the cache with keys and tags of its own and the same interface. Namespaces can be nested. `clear` of a
   * namespace is a single step, however many entries it has, and also clears the namespaces within it. `size` of a namespace,
   * and iterating over it, walk the whole cache. Keys, values and tags have the same limits in every namespace.
   *
   * With a `ttl`, entries of the namespace and of the namespaces within it expire after it, unless an operation or an inner
   * namespace says otherwise. It is a default of the object that is returned: who opens the namespace without it, or in another
   * thread, stores with a default of his own.
   *
   * @throws {RangeError} when namespaces are nested more than 16 deep, or when the names of all levels take more than 255
   * bytes together: each takes its UTF-8 and 2 to 4 bytes more.
   */
  namespace<W = V, L extends Key = K>(name: string, options?: NamespaceOptions): Cache<W, L> {
    const view = this.#view;
    const { opening, scope } = view;
    opening.checkOpen();
    if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${typeof name}`);
    if (name === "") throw new RangeError("name: must not be empty");
    const { ttl } = checkOptions(options, ["ttl"]);
    const inner = scopeOf([...scope.path, flatCopy(name)]);
    return new Cache<W, L>(new View(opening, inner, ttl === undefined ? view.ttl : checkTtl(ttl)));
  }

  /**
   * Removes every entry of this cache or namespace and of the namespaces within it, in one step. Entries that are stored
   * during the call may stay.
   */
  clear(): void {
    this.#view.clear();
  }

  /** How many entries can be read now, without those of the namespaces within it. Counting walks the whole index. */
  get size(): number {
    return sizeOf(this.#view);
  }

  /**
   * Iterates over the keys, in no particular order. Iteration is weakly consistent: an entry that exists during the whole
   * iteration, and is not overwritten meanwhile, is seen exactly once. An entry that is stored, overwritten, removed or
   * evicted meanwhile may be seen or not.
   *
   * With a `prefix` only over the keys that begin with it: strings that begin with a string, bytes that begin with bytes.
   * Other keys cost a glance at their first bytes.
   *
   * @throws {TypeError} when the prefix is neither a string nor bytes.
   */
  keys(options?: KeysOptions<K>): Generator<K, undefined, undefined> {
    const { prefix } = checkOptions<KeysOptions<K>>(options, ["prefix"]);
    return this.#view.keys(prefix) as Generator<K, undefined, undefined>;
  }

  /** Iterates over the values, as {@link entries}. */
  *values(): Generator<V, undefined, undefined> {
    for (const [, value] of this.entries()) yield value;
  }

  /** Iterates over pairs of key and value, as {@link keys}. Entries whose values cannot be read here are left out. */
  entries(options?: KeysOptions<K>): Generator<[K, V], undefined, undefined> {
    return this.#pairs(this.keys(options));
  }

  *#pairs(keys: Iterable<K>): Generator<[K, V], undefined, undefined> {
    for (const key of keys) {
      let value: V | undefined;
      try {
        value = this.#view.read(key, WANT_VALUE | WANT_QUIET) as V | undefined;
      } catch (error) {
        value = unreadable(error);
      }
      if (value !== undefined) yield [key, value];
    }
  }

  /** Iterates over pairs of key and value: the same as {@link entries}. */
  [Symbol.iterator](): Generator<[K, V], undefined, undefined> {
    return this.entries();
  }

  /** Calls `callback` for each entry, as {@link entries}. */
  forEach(callback: (value: V, key: K, cache: this) => void, thisArg?: unknown): void {
    if (typeof callback !== "function") throw new TypeError("callback: must be a function");
    for (const [key, value] of this.entries()) callback.call(thisArg, value, key, this);
  }

  /** Returns numbers about the whole cache, namespaces included, for all participants together. Walks the index. */
  stats(): Stats {
    return statsOf(this.#view);
  }

  /**
   * Returns a picture of the memory: what each segment holds, and how full each part of the index is. Walks the index, as
   * {@link stats} does. Other participants go on changing the memory meanwhile, so the picture is not a snapshot.
   */
  inspect(): Inspection {
    return inspectionOf(this.#view);
  }

  /**
   * Leaves the cache without changing its entries. From then on every operation on this `Cache` and on all its namespaces
   * throws `ERR_CLOSED`. Only `close`, `reach`, `name`, `handle` and `toJSON` can still be used.
   */
  close(): void {
    this.#view.opening.close();
  }

  /** Leaves the cache, for `using`: the same as {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The name that `Object.prototype.toString` gives to a cache: `"Cache"`. */
  get [Symbol.toStringTag](): string {
    return "Cache";
  }

  /** Returns a short description of this cache for logs, without its entries. `console.log` shows the same. */
  toJSON(): CacheSummary {
    return summaryOf(this.#view);
  }

  /** @internal */
  [INSPECT](depth: number, options: object, inspect: (value: unknown, options: object) => string): string {
    if (depth < 0 || !(#view in this)) return "[Cache]";
    return `Cache ${inspect(this.toJSON(), options)}`;
  }

  // ---- loading

  /**
   * Returns the value of the key. When it is absent, calls `load`, stores what `load` returns, and returns that. Of all threads and
   * processes that share the cache only one loads a key at a time: the others wait for it and get its value.
   *
   * Each call gets a copy of its own, as with {@link get}; the call whose loader has run gets what the loader has returned.
   *
   * - `null` is stored. `undefined` is returned and not stored.
   * - When the loader throws, nothing is stored, and all calls that waited for it are rejected: in its own thread with its error,
   *   elsewhere with `ERR_LOAD_FAILED`. The next call loads again.
   * - When the thread of the loader dies, or is silent for longer than `lease`, one of those who wait loads instead.
   * - `set`, `delete`, `clear`, `invalidateTag` and all other changes of the key during a load win: calls that waited before the
   *   change get the loaded value, it is not stored, and calls after the change load again.
   * - A value that is too large, or that cannot be stored because another participant is in the way, is returned and not stored.
   *
   * The promise is rejected, also when the value is present, with a `TypeError` or a `RangeError` for a wrong argument. An `Error`
   * says that the loader has asked for its own key, directly or by way of the loaders of other keys in this thread.
   *
   * @throws {CacheError} (as a rejection) `ERR_LOAD_FAILED` when the loader of another thread or process has failed;
   * `ERR_TIMEOUT` when there is no value within `timeout`; `ERR_CLOSED` when the cache was closed, also during the load;
   * `ERR_TOO_LARGE` when the key is too long; `ERR_BUSY` when the key cannot be claimed, because another participant is in the
   * way or too many keys are being loaded at once. The error of the loader, and the `reason` of the `signal`, are passed on.
   */
  getOrSet<T extends V | undefined = V>(
    key: K,
    load: (context: LoadContext<V, K>) => T | PromiseLike<T>,
    options?: LoadOptions<Exclude<T, undefined>, K>,
  ): Promise<T> {
    // Not an async function: that would take longer than the read itself.
    try {
      const loading = checkLoad(options);
      checkLoader(load);
      const view = this.#view;
      if (isPlain(loading)) {
        const value = view.readable(key);
        if (value !== undefined) return Promise.resolve(value as T);
      }
      return view.load(key, oneLoader(load), loading) as Promise<T>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Returns the values of many keys, in the order of the keys, and loads those that are absent: as {@link getOrSet} for each of
   * them, but with one call of `load` for all that this call has to load. It does not load a key that is being loaded
   * elsewhere, but waits for it. When that fails without a result, because the thread that loaded it has died, `load` is called
   * again for this key.
   *
   * `load` gets the keys, each of them once, and returns an array with a value for each of them in the same order, or a Map. It
   * returns `undefined` for a key without a value, and so does this method. When it throws, or when the load of any key fails, the
   * promise is rejected.
   *
   * @throws as {@link getOrSet}; a `TypeError` (as a rejection) when `load` returns another number of values.
   */
  getOrSetMany<T extends V | undefined = V>(
    keys: Iterable<K>,
    load: (keys: K[], context: LoadManyContext) => LoadedMany<T, K> | PromiseLike<LoadedMany<T, K>>,
    options?: LoadOptions<Exclude<T, undefined>, K>,
  ): Promise<(T | undefined)[]> {
    try {
      const loading = checkLoad(options);
      checkLoader(load);
      const list = [...asIterable(keys, "keys")];
      const found = isPlain(loading) ? this.getMany(list) : [];
      return this.#view.loadMany(list, found, load, loading) as Promise<(T | undefined)[]>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Returns a function that calls `load` through {@link getOrSet}: with the arguments of the call, and with its `this`. `key`
   * makes the key from the arguments.
   *
   * @throws {TypeError} and {RangeError} for wrong arguments. The function that it returns throws nothing: its promise is
   * rejected, also with the error of `key`.
   */
  memoize<A extends unknown[], T extends V | undefined>(
    load: (...args: A) => T | PromiseLike<T>,
    options: MemoizeOptions<Exclude<T, undefined>, A, K>,
  ): (...args: A) => Promise<T> {
    return memoized((key, run, others) => this.getOrSet<T>(key, run, others), load, options);
  }

  // ---- for a second tier behind this cache, such as a server

  /**
   * Returns a value as bytes, for a place outside of this cache: a server, a file. {@link decode} of every cache of this package
   * turns them back into the value, in any process and on any machine; an object that was encoded with a `codec` needs a cache
   * with the same `codec`. The bytes are a copy of their own, and nothing is stored.
   *
   * The first byte is the version of the format, 1, and the second the type of the value. `maxEntrySize` and the size of the
   * cache do not limit the value.
   *
   * @throws {TypeError} and {CacheError} `ERR_DATA` as {@link set}; `ERR_CLOSED`. Errors of getters, of `toJSON` and of the `codec`
   * are passed on.
   */
  encode(value: V): Uint8Array {
    return this.#view.toPortable(value);
  }

  /**
   * Returns the value that {@link encode} has turned into bytes. Any bytes are safe, also those of an attacker: they become a
   * value or an error. But they have no checksum: bytes that were changed or cut off can become another value, as a piece of
   * text is text, too.
   *
   * @param bytes - as {@link encode} returned them, also as a part of another array. The value does not share their memory.
   * @throws {TypeError} when they are not a `Uint8Array`.
   * @throws {CacheError} `ERR_DATA` for bytes of another version of the format, for bytes that are no value, and for a value that
   * {@link get} could not read here either: of a type that this runtime does not have, or encoded with another `codec`.
   * `ERR_CLOSED`.
   */
  decode(bytes: Uint8Array): V {
    return this.#view.fromPortable(bytes) as V;
  }

  /**
   * Returns an object whose `get` reads this cache or namespace for as long as a lease lasts: see {@link Leased}. For a cache in
   * front of a server: somebody hears of every change on the server, removes the entry here, and renews the lease. When he is
   * gone, the lease ends, and with it the reads of values that may have changed on the server.
   *
   * @param lease - is read anew by each `get`. `until` is the time of `performance.now()` at which it ends. `NaN` counts as ended.
   * @throws {TypeError} when `lease.until` is not a number.
   * @throws {CacheError} `ERR_CLOSED`.
   */
  leased(lease: Lease): Leased<V, K> {
    const view = this.#view;
    view.opening.checkOpen();
    return new LeasedView(view, checkLease(lease)) as Leased<V, K>;
  }

  // ---- waiting, watching, locks: see src/coordinate/

  /**
   * Waits until the key has a value, whoever stores it, and returns a promise of the value. With `version` it waits for a value of
   * another version; versions have no order. A waiting promise keeps the process alive.
   *
   * @throws {TypeError} and {RangeError} for wrong arguments, as a rejected promise, like all others.
   * @throws {CacheError} `ERR_TIMEOUT`; `ERR_CLOSED`, also when the cache is closed in this thread meanwhile; `ERR_DATA` as
   * {@link get}. The reason of the signal is passed on.
   */
  waitFor(key: K, options?: WaitForOptions): Promise<V> {
    return waitFor(this.#view, key, options) as Promise<V>;
  }

  /**
   * Calls `listener` with the key after the value of a key has changed, whoever changes it. Changes that come close together are
   * one call. After the last change the listener is called at least once, and a read in it returns that value, or a later one.
   * `delete`, `clear`, `invalidateTag`, `expire` and `expireTag` are changes too, `touch` is none. An entry that expires by
   * itself or is evicted calls nobody. A key that is stored and removed again before the listener could be called has not changed.
   *
   * Call `[Symbol.dispose]` of the result, or abort the signal, to end the watch. It also ends when the cache is closed. It does
   * not keep the process alive. An error of the listener is reported as uncaught.
   *
   * @param key - a key, or several.
   * @throws {CacheError} `ERR_CLOSED`.
   */
  watch(key: K | Iterable<K>, listener: (key: K) => unknown, options?: WatchOptions): Disposable {
    return watch(this.#view, key, listener, options);
  }

  /**
   * Calls `listener` with the tag after `invalidateTag` or `expireTag` of this tag, and after `clear` of this cache or namespace
   * or of one that it is in. Rarely it is called for another tag, because tags share counters. Otherwise as {@link watch}.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  watchTag(tag: string, listener: (tag: string) => unknown, options?: WatchOptions): Disposable {
    return watchTag(this.#view, tag, listener, options);
  }

  /** The locks of this cache or namespace: as `navigator.locks`, but for all threads and processes that share the cache. */
  get locks(): Locks {
    this.#locks ??= new Locks(this.#view);
    return this.#locks;
  }

  /** For tests: how often a wait of this thread has found by itself what no ring had told. @internal */
  get helped(): number {
    return this.#view.engine.wakeups.helped;
  }

  /** For tests: checks the memory. Returns the number of the broken invariant, or 0 when all hold. @internal */
  validate(): number {
    this.#view.opening.checkOpen();
    return this.#view.engine.validate();
  }
}

/** Opens a region as a cache. `isNew` says that this thread has just created the region. @internal */
export function openRegion<V, K extends Key>(
  region: Region,
  options: Resolved,
  name?: string,
  isNew?: boolean,
): Cache<V, K> {
  return new Cache<V, K>(new View(new Opening(region, options, name, isNew), ROOT));
}

/** Checks a version that was passed for comparison. */
function checkVersion(version: number): void {
  if (!Number.isSafeInteger(version) || version < 0) {
    throw new TypeError("version: must be a version that getEntry has returned, or 0 for an absent entry");
  }
}

function asIterable<T>(values: Iterable<T>, name: string): Iterable<T> {
  if (typeof values?.[Symbol.iterator] !== "function") throw new TypeError(`${name}: must be iterable`);
  return values;
}
