/**
 * Drivers for bentocache: a cache of this package as L1, which answers at once, or as L2, which answers with promises. As L1 it is
 * one memory for all processes, so no bus has to tell them of each other's changes.
 *
 * - The prefix of the store is a namespace of the cache. bentocache's own namespaces are beginnings of keys within it, as in
 *   all drivers of bentocache: the key `key` of the namespace `users` is the key `users:key` of the store.
 * - bentocache remembers that a tag was invalidated by an entry with the time. A process that has just found no such entry stores
 *   one that says so: here it cannot replace one with a later time. When the entry is evicted, the cache still knows the time,
 *   because the driver invalidates the tag there too.
 */

import { createHash } from "node:crypto";
import { type Cache, CacheError, openCache, type SetOptions } from "../index.ts";
import { checkCache, checkNames } from "./checks.ts";

/** Which cache a driver uses, and how. */
export interface CacheMachineDriverOptions {
  /** The cache. The driver does not close it. */
  cache?: Cache | undefined;
  /**
   * In place of `cache`: the name of the cache, which the driver opens, and closes with `disconnect`. By default, the application's own
   * cache.
   */
  name?: string | undefined;
  /** The size of the cache `name` if it has to be created, in bytes or as a text such as `"64mb"`; 32 MiB by default. */
  size?: number | string | undefined;
  /** The directory of the cache `name`; `/dev/shm` by default. */
  path?: string | undefined;
  /** `"threads"`: where processes cannot share a cache, each has its own, as with `openCache` and a `name`. */
  fallback?: "threads" | undefined;
  /**
   * What the keys of the store begin with; `"bentocache"` by default, or the `prefix` of the store. Stores with the same prefix in the
   * same cache share their entries. At most 250 bytes.
   */
  prefix?: string | undefined;
  /**
   * As in `memoryDriver`: whether bentocache serializes the values, `true` by default. With `false` the driver stores them as
   * `cache.set` does, and each `get` returns a copy. For L1 only, and not with an L2 behind it.
   */
  serialize?: boolean | undefined;
}

/** What `useL1Layer` and `useL2Layer` of bentocache take: options, and the function with which bentocache makes a driver of them. */
export interface CacheMachineDriverFactory<T> {
  options: Record<string, unknown>;
  /** @param config - the options with those that bentocache adds. */
  factory: (config: any) => T;
}

/**
 * Makes the L1 driver: `bentostore().useL1Layer(cacheMachineDriver({ name: "app" }))`.
 *
 * @throws {TypeError} for an option that does not exist or that is of the wrong type. bentocache opens the cache when it uses the
 * store for the first time, and then passes on the errors of `openCache`.
 */
export function cacheMachineDriver(options?: CacheMachineDriverOptions): CacheMachineDriverFactory<CacheMachineDriver> {
  return { options: checked(options), factory: opened };
}

/**
 * Makes the L2 driver: `bentostore().useL2Layer(cacheMachineL2Driver({ name: "app" }))`.
 *
 * @throws {TypeError} as {@link cacheMachineDriver}.
 */
export function cacheMachineL2Driver(
  options?: CacheMachineDriverOptions,
): CacheMachineDriverFactory<CacheMachineL2Driver> {
  const given = checked(options);
  if (given.serialize === false) {
    throw new TypeError("options.serialize: bentocache serializes everything for an L2 driver");
  }
  return { options: given, factory: (config) => new CacheMachineL2Driver(opened(config)) };
}

/** What a driver and those of its namespaces share. */
interface Shared {
  /** `undefined` after `disconnect` of a cache that the driver had opened: then the driver has nothing, and stores nothing. */
  cache: Cache | undefined;
  readonly opened: boolean;
  /** Whether items are objects, texts of JSON, or texts of another serializer, as far as they were seen. */
  form: "object" | "json" | "other";
}

/** How bentocache describes a value to its drivers, before it serializes that. */
interface Item {
  value: unknown;
  createdAt: number;
  logicalExpiration: number;
}

/** The L1 driver: bentocache's `L1CacheDriver`. */
export class CacheMachineDriver {
  readonly type = "l1" as const;
  readonly #shared: Shared;
  /** What the keys of this namespace begin with, without the colon; empty for the store itself. */
  readonly #path: string;

  /** @internal */
  constructor(shared: Shared, path: string) {
    this.#shared = shared;
    this.#path = path;
  }

  /**
   * Returns the driver of a namespace.
   *
   * @throws {RangeError} when the names of all namespaces together have more than 1,000 characters.
   */
  namespace(namespace: string): CacheMachineDriver {
    const path = withoutColons(this.#path === "" ? namespace : `${this.#path}:${namespace}`);
    if (path.length > LONGEST_PATH) throw new RangeError(`namespace: more than ${LONGEST_PATH} characters in all`);
    return new CacheMachineDriver(this.#shared, path);
  }

  get(key: string): string | undefined {
    const { cache } = this.#shared;
    if (cache === undefined) return undefined;
    const stored = this.#stored(key);
    const item = cache.get(stored) as string | undefined;
    if (key.startsWith(TAG_KEY)) return item ?? this.#evicted(cache.tagInvalidatedAt(tagOf(stored)));
    // The form of a value is known before its tags are asked for.
    if (typeof item === "string") this.#shared.form = item.startsWith(JSON_ITEM) ? "json" : "other";
    return item;
  }

  /** Removes a value, and returns it, in one step. */
  pull(key: string): string | undefined {
    return this.#shared.cache?.take(this.#stored(key));
  }

  /**
   * Stores a value. Returns whether it did: a value that is too large for the cache is not stored, and the old one is removed.
   *
   * @param ttl - milliseconds; `undefined` or 0 for a value that does not expire.
   */
  set(key: string, value: string, ttl?: number): boolean {
    const { cache } = this.#shared;
    if (cache === undefined) return false;
    const stored = this.#stored(key);
    if (ttl !== undefined && ttl < 0) {
      cache.delete(stored);
      return true;
    }
    const options = { ttl: ttl || Number.POSITIVE_INFINITY };
    if (key.startsWith(TAG_KEY)) return invalidate(cache, stored, value, options);
    return cache.trySet(stored, value, options);
  }

  /** Returns the milliseconds until a value expires. bentocache stores an expired value for a grace again with this time. */
  getRemainingTtl(key: string): number | undefined {
    // 0 would stand for a value that does not expire.
    return this.#shared.cache?.ttl(this.#stored(key)) ?? 1;
  }

  /** Removes the entries of this namespace and of those within it; without a namespace, all of the store in one step. */
  clear(): void {
    const { cache } = this.#shared;
    if (this.#path === "") cache?.clear();
    else cache?.deleteMany(cache.keys({ prefix: `${this.#path}:` }));
  }

  delete(key: string): boolean {
    return this.#shared.cache?.delete(this.#stored(key)) ?? false;
  }

  /** Removes many entries. Returns `true`, as bentocache's own drivers do. */
  deleteMany(keys: string[]): boolean {
    this.#shared.cache?.deleteMany(keys.map((key) => this.#stored(key)));
    return true;
  }

  /** Closes the cache if the driver has opened it. From then on the driver finds nothing and stores nothing. */
  disconnect(): void {
    if (!this.#shared.opened) return;
    this.#shared.cache?.close();
    this.#shared.cache = undefined;
  }

  #stored(key: string): string {
    const full = this.#path === "" ? key : `${this.#path}:${key}`;
    if (full.length <= LONGEST_KEY) return full;
    // The beginning stays, so that `clear` of a namespace finds the key. UTF-16 keeps lone surrogates apart.
    return `${full.slice(0, LONGEST_KEY)}#${createHash("sha256").update(full, "utf16le").digest("hex")}`;
  }

  /**
   * Returns an item that says when a tag was invalidated, in place of one that was evicted. It counts as expired, so bentocache asks its
   * L2, or goes on with this time.
   */
  #evicted(value: number): string | undefined {
    const { form } = this.#shared;
    if (value === 0 || form === "other") return undefined;
    const item: Item = { value, createdAt: value, logicalExpiration: value };
    return form === "object" ? (item as unknown as string) : JSON.stringify(item);
  }
}

/** The L2 driver: bentocache's `L2CacheDriver`. It does the same as {@link CacheMachineDriver}, also at once, and returns promises. */
export class CacheMachineL2Driver {
  readonly type = "l2" as const;
  readonly #driver: CacheMachineDriver;

  /** @internal */
  constructor(driver: CacheMachineDriver) {
    this.#driver = driver;
  }

  namespace(namespace: string): CacheMachineL2Driver {
    return new CacheMachineL2Driver(this.#driver.namespace(namespace));
  }

  async get(key: string): Promise<string | undefined> {
    return this.#driver.get(key);
  }

  async pull(key: string): Promise<string | undefined> {
    return this.#driver.pull(key);
  }

  async set(key: string, value: string, ttl?: number): Promise<boolean> {
    return this.#driver.set(key, value, ttl);
  }

  async clear(): Promise<void> {
    this.#driver.clear();
  }

  async delete(key: string): Promise<boolean> {
    return this.#driver.delete(key);
  }

  async deleteMany(keys: string[]): Promise<boolean> {
    return this.#driver.deleteMany(keys);
  }

  async disconnect(): Promise<void> {
    this.#driver.disconnect();
  }
}

/** Keys with more characters are stored under their beginning and a hash. In each encoding this many fit into a key of the cache. */
const LONGEST_KEY = 1024;
const LONGEST_PATH = 1000;
/** Names that can be tags of the cache as they are: not too long, and without lone surrogates. */
const PLAIN_TAG = /^[^\ud800-\udfff]{1,80}$/;
/** How the keys begin under which bentocache keeps when a tag was invalidated. */
const TAG_KEY = "___bc:t:";
/** How an item begins in bentocache's own JSON, which it uses unless it was given another serializer. */
const JSON_ITEM = '{"value":';

/** Checks the options; returns a copy. */
function checked(options: CacheMachineDriverOptions | undefined): Record<string, unknown> {
  if (options === undefined) return {};
  checkNames(options, ["cache", "name", "size", "path", "fallback", "prefix", "serialize"]);
  const { cache, name, size, path, fallback, prefix, serialize } = options;
  if (cache !== undefined) checkCache(cache, "options.cache");
  if (cache !== undefined && name !== undefined) throw new TypeError("options: `cache` or `name`, not both");
  if (name === undefined && [size, path, fallback].some((each) => each !== undefined)) {
    throw new TypeError("options: `size`, `path` and `fallback` belong to a `name`");
  }
  if (prefix !== undefined && typeof prefix !== "string") throw new TypeError("options.prefix: must be a string");
  if (serialize !== undefined && typeof serialize !== "boolean") {
    throw new TypeError("options.serialize: must be true or false");
  }
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given);
}

/** Makes the driver of a store. `config` are the options, and the prefix of the store. */
function opened(config: CacheMachineDriverOptions): CacheMachineDriver {
  const { name, size, path, fallback, serialize } = config;
  const whole = config.cache ?? (name === undefined ? openCache() : openCache(name, { size, path, fallback }));
  const prefix = withoutColons(config.prefix ?? "");
  const cache = prefix === "" ? whole : whole.namespace(prefix);
  const form = serialize === false ? "object" : "json";
  return new CacheMachineDriver({ cache, opened: config.cache === undefined, form }, "");
}

function withoutColons(prefix: string): string {
  return prefix.replace(/:+$/, "");
}

/**
 * Stores the item that says when a tag was invalidated, unless there is a later one, and invalidates the tag in the cache. Returns
 * whether it stored it.
 */
function invalidate(cache: Cache, stored: string, item: string, options: SetOptions): boolean {
  const time = timeOf(item);
  const tag = tagOf(stored);
  // bentocache stores 0 for a tag that nobody has invalidated.
  if (time > cache.tagInvalidatedAt(tag)) cache.invalidateTag(tag);
  try {
    cache.update(stored, (old) => (timeOf(old) > time ? old : item), options);
    return true;
  } catch (error) {
    // The cache knows the time all the same, unless another serializer has written it: then the caller has to be told.
    if (error instanceof CacheError && error.code === "ERR_BUSY" && !Number.isNaN(time)) return false;
    throw error;
  }
}

/** The time in an item that says when a tag was invalidated; NaN without one, and when another serializer has written it. */
function timeOf(stored: unknown): number {
  const time = itemOf(stored)?.value;
  return typeof time === "number" ? time : Number.NaN;
}

/** Returns the item in a stored value; `undefined` when another serializer has written it. */
function itemOf(stored: unknown): Item | undefined {
  if (typeof stored === "object" && stored !== null) return stored as Item;
  if (typeof stored !== "string" || !stored.startsWith(JSON_ITEM)) return undefined;
  try {
    return JSON.parse(stored) as Item;
  } catch {
    return undefined;
  }
}

function tagOf(stored: string): string {
  return PLAIN_TAG.test(stored) ? stored : createHash("sha256").update(stored, "utf16le").digest("base64");
}
