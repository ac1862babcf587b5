/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The cache as people use it: the interface of a `Map` and more. This file documents every operation, checks its arguments, and
 * delegates to one {@link View}, which does the work.
 */

import { ABSENT, ANYTHING, PRESENT, VERSION, WANT_QUIET, WANT_VALUE } from "../engine/contract.ts";
import { plan } from "../engine/plan.ts";
import { CacheError } from "../errors.ts";
import type { Region } from "../memory/memory.ts";
import { ROOT, scopeOf } from "../values/scope.ts";
import { flatCopy } from "../values/text.ts";
import { inspectionOf, sizeOf, statsOf, summaryOf } from "./observe.ts";
import { Opening } from "./opening.ts";
import { asObject, checkTtl, type IncrementOptions, type Resolved, type SetOptions } from "./options.ts";
import type { CacheHandle, CacheSummary, Entry, Inspection, Key, Stats } from "./types.ts";
import { View } from "./view.ts";

/** What Node.js shows instead of an object's properties. */
const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** Makes structured clone refuse an object, from Node.js 22.10 on; elsewhere its copy is an empty object. */
const markAsUncloneable: ((object: object) => void) | undefined = (
  globalThis.process?.getBuiltinModule?.("node:worker_threads") as { markAsUncloneable?: (object: object) => void }
)?.markAsUncloneable;

/**
 * A cache shared between threads, or between processes. Made by `openCache`, `createCache` and `attachCache`.
 *
 * Values are copies: changing one changes nobody else's. A miss is `undefined`. Every operation is atomic, and once a
 * change has returned, every later read in any thread or process sees it, or a later one, or a miss.
 */
export class Cache<V = any> implements Disposable {
  readonly #view: View;

  /** @internal */
  constructor(view: View) {
    this.#view = view;
    markAsUncloneable?.(this);
  }

  /** `"threads"`: this process only. `"processes"`: all processes of this user on this machine. */
  get reach(): "threads" | "processes" {
    return this.#view.engine.region.reach;
  }

  /** The name given to `openCache`, `undefined` for a cache of this process. */
  get name(): string | undefined {
    return this.#view.opening.name;
  }

  /** What a worker needs for `attachCache`; passes through structured clone. */
  get handle(): CacheHandle {
    return { ...this.#view.engine.region.handle, build: plan.build };
  }

  /**
   * The value of `key`, or `undefined`. Never waits for anybody.
   *
   * @throws {TypeError} when the key is neither a string nor bytes.
   * @throws {CacheError} `ERR_DATA` when the value is there, but cannot be read here: it is of a type that this runtime does
   * not have, was stored with another `codec`, or is damaged. `set` and `delete` work as ever.
   */
  get(key: Key): V | undefined {
    return this.#view.get(key) as V | undefined;
  }

  /**
   * Stores a value; returns the cache, as `Map` does. When it throws, what was there is still there.
   *
   * @throws {TypeError} for a value that is no data at all: `undefined`, a function, a symbol, a Promise, a WeakMap.
   * @throws {CacheError} `ERR_DATA` when there is something of that kind within the value, a property named `__proto__`, or
   * more than 512 levels; `ERR_TOO_LARGE` for the key or the value; `ERR_BUSY` when another participant, alive but stopped,
   * is in the way.
   */
  set(key: Key, value: V, options?: SetOptions): this {
    this.#view.store(key, value, options, ANYTHING, 0);
    return this;
  }

  /** Stores only if the key is absent; whether it did. Of all that add at the same time one wins. */
  add(key: Key, value: V, options?: SetOptions): boolean {
    return this.#view.store(key, value, options, ABSENT, 0);
  }

  /** Stores only if the key is present; whether it did. */
  replace(key: Key, value: V, options?: SetOptions): boolean {
    return this.#view.store(key, value, options, PRESENT, 0);
  }

  /** Stores only if the entry still is the one with this version; whether it did. Version 0 stands for "absent". */
  compareAndSet(key: Key, version: number, value: V, options?: SetOptions): boolean {
    if (!Number.isSafeInteger(version) || version < 0) {
      throw new TypeError("version: must be one that getEntry has returned, or 0 for an absent entry");
    }
    return this.#view.store(key, value, options, version === 0 ? ABSENT : VERSION, version);
  }

  /**
   * Replaces the value by what `change` makes of it (of `undefined` when there is none), and tries again when another
   * participant was faster; returns the new value. `change` may run more than once. As with `set`, expiry and tags are
   * those of `options`, not those the entry had.
   *
   * @throws {CacheError} `ERR_BUSY` when others are faster all the time; `ERR_DATA` when the value cannot be read here.
   */
  update(key: Key, change: (value: V | undefined) => V, options?: SetOptions): V {
    if (typeof change !== "function") throw new TypeError("change: must be a function that returns the new value");
    return this.#view.update(key, change as (value: unknown) => unknown, options) as V;
  }

  /** Whether the key is present. Does not count as a read. */
  has(key: Key): boolean {
    return this.#view.expiry(key) !== undefined;
  }

  /** Removes the key; whether it was there. */
  delete(key: Key): boolean {
    return this.#view.remove(key, ANYTHING, 0);
  }

  /** Gets and removes in one step: of all that take at the same time one gets the value. */
  take(key: Key): V | undefined {
    return this.#view.take(key) as V | undefined;
  }

  /** The value with its version, expiry and tags. */
  getEntry(key: Key): Entry<V> | undefined {
    return this.#view.entry(key) as Entry<V> | undefined;
  }

  /** The values of many keys, in their order; `undefined` for those that are absent, or cannot be read here. */
  getMany(keys: Iterable<Key>): (V | undefined)[] {
    return Array.from(asIterable(keys, "keys"), (key) => {
      try {
        return this.get(key);
      } catch (error) {
        return unreadable(error);
      }
    });
  }

  /** Stores many entries, one after the other; each is atomic, all together are not. */
  setMany(entries: Iterable<readonly [Key, V]>, options?: SetOptions): this {
    for (const [key, value] of asIterable(entries, "entries")) this.set(key, value, options);
    return this;
  }

  /**
   * Adds to a number and returns the sum; no increment is lost, whoever makes it. An absent key counts from `initial`.
   *
   * @throws {TypeError} when the value is not a number.
   */
  increment(key: Key, by = 1, options?: IncrementOptions): number {
    if (typeof by !== "number" || !Number.isFinite(by)) throw new TypeError("by: must be a finite number");
    const { initial = 0, ttl } = asObject(options, "options");
    if (typeof initial !== "number" || !Number.isFinite(initial)) {
      throw new TypeError("initial: must be a finite number");
    }
    const { opening } = this.#view;
    const expiry = this.#view.expiryIn(ttl === undefined ? opening.options.ttl : checkTtl(ttl));
    return this.#view.increment(key, by, initial, expiry);
  }

  /** Subtracts from a number and returns the difference; see {@link increment}. */
  decrement(key: Key, by = 1, options?: IncrementOptions): number {
    if (typeof by !== "number") throw new TypeError("by: must be a finite number");
    return this.increment(key, -by, options);
  }

  /** Gives an entry a new time to live in milliseconds, `Infinity` for none; whether it was there. */
  touch(key: Key, ttl: number): boolean {
    return this.#view.touch(key, this.#view.expiryIn(checkTtl(ttl)));
  }

  /** Milliseconds that the entry still lives, `Infinity` without expiry, `undefined` when it is absent. */
  ttl(key: Key): number | undefined {
    const expiresAt = this.#view.expiry(key);
    if (expiresAt === undefined || expiresAt === Infinity) return expiresAt;
    const left = expiresAt - this.#view.now();
    // The clock went on after the engine asked for it.
    return left > 0 ? left : undefined;
  }

  /** Makes every entry with one of these tags a miss, everywhere and at once, whatever their number. */
  invalidateTag(...tags: string[]): void {
    this.#view.opening.checkOpen();
    for (const tag of tags) this.#view.invalidate(tag);
  }

  /**
   * A part of the cache with keys of its own and the same interface; namespaces can be nested. Clearing one is a single
   * step, whatever its size, and clears those within it; its tags are its own. The `size` of a namespace
   * and iterating over it walk the whole cache. Keys, values and tags have the same limits in all of them.
   *
   * @throws {RangeError} deeper than 16, or when the names of all levels have more than 255 bytes of UTF-8, with two to four
   * for each level.
   */
  namespace<W = V>(name: string): Cache<W> {
    const { opening, scope } = this.#view;
    opening.checkOpen();
    if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${typeof name}`);
    if (name === "") throw new RangeError("name: must not be empty");
    return new Cache<W>(new View(opening, scopeOf([...scope.path, flatCopy(name)])));
  }

  /** Removes everything, in one step. Entries that others store at the same time may stay. */
  clear(): void {
    this.#view.clear();
  }

  /** How many entries can be read now, without those of namespaces. Counting walks the whole index. */
  get size(): number {
    return sizeOf(this.#view);
  }

  /**
   * The keys, in no order. Iteration is weakly consistent: an entry that is there the whole time is seen exactly once
   * unless it is evicted or overwritten meanwhile; what is stored or removed meanwhile may be seen or not.
   */
  keys(): Generator<Key, void, undefined> {
    return this.#view.keys();
  }

  /** The values; see {@link keys}. */
  *values(): Generator<V, void, undefined> {
    for (const [, value] of this.entries()) yield value;
  }

  /** Keys and values; see {@link keys}. Entries whose values cannot be read here are left out. */
  *entries(): Generator<[Key, V], void, undefined> {
    for (const key of this.keys()) {
      let value: V | undefined;
      try {
        value = this.#view.read(key, WANT_VALUE | WANT_QUIET) as V | undefined;
      } catch (error) {
        value = unreadable(error);
      }
      if (value !== undefined) yield [key, value];
    }
  }

  /** As {@link entries}. */
  [Symbol.iterator](): Generator<[Key, V], void, undefined> {
    return this.entries();
  }

  /** Calls `callback` for each entry; see {@link keys}. */
  forEach(callback: (value: V, key: Key, cache: this) => void, thisArg?: unknown): void {
    if (typeof callback !== "function") throw new TypeError("callback: must be a function");
    for (const [key, value] of this.entries()) callback.call(thisArg, value, key, this);
  }

  /** Numbers about the whole cache, of all participants together. */
  stats(): Stats {
    return statsOf(this.#view);
  }

  /**
   * The memory as it is now, to look at: what each segment holds, and how full the index is. Walks the index, as
   * {@link stats}; others go on meanwhile, so it is no snapshot.
   */
  inspect(): Inspection {
    return inspectionOf(this.#view);
  }

  /**
   * Leaves the cache, with all its namespaces; the entries stay for the others. Every later use throws `ERR_CLOSED`.
   * May be called twice.
   */
  close(): void {
    this.#view.opening.close();
  }

  /** As {@link close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** What this cache is, for a log: the same that `console.log` shows. Its entries are not in it. */
  toJSON(): CacheSummary {
    return summaryOf(this.#view);
  }

  /** @internal */
  [INSPECT](depth: number, options: object, inspect: (value: unknown, options: object) => string): string {
    if (depth < 0 || !(#view in this)) return "[Cache]";
    return `Cache ${inspect(this.toJSON(), options)}`;
  }

  /** For tests: the number of the broken invariant, 0 when the structure is sound. @internal */
  validate(): number {
    this.#view.opening.checkOpen();
    return this.#view.engine.validate();
  }
}

/** Opens a region as a cache; `isNew` when this thread has just created it. @internal */
export function openRegion<V>(region: Region, options: Resolved, name?: string, isNew?: boolean): Cache<V> {
  return new Cache<V>(new View(new Opening(region, options, name, isNew), ROOT));
}

/** A value that cannot be read here is none to whoever reads many; every other error is one. */
function unreadable(error: unknown): undefined {
  if (!(error instanceof CacheError) || error.code !== "ERR_DATA") throw error;
}

function asIterable<T>(values: Iterable<T>, name: string): Iterable<T> {
  if (typeof values?.[Symbol.iterator] !== "function") throw new TypeError(`${name}: must be iterable`);
  return values;
}
