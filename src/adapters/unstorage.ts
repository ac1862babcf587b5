/**
 * A driver for [unstorage](https://www.npmjs.com/package/unstorage) 1.16 and later: all processes of the machine have the same
 * items, and over a tier all machines. Nitro takes the path of this module as a `driver`.
 *
 * Nitro creates its drivers when a server starts, and also while it builds one. So the driver opens its cache at the first use.
 *
 * @packageDocumentation
 */

import { createHash } from "node:crypto";
import { type Cache, CacheError, openCache } from "../index.ts";
import { checkNames, checkStore } from "./checks.ts";
import { type Awaitable, after, all, listed, run, type Steps } from "./promises.ts";
import { type Answer, type CacheOrTier, type StoredFor, tryStore } from "./store.ts";

/** Options of {@link cacheMachineDriver}. */
export interface CacheMachineDriverOptions {
  /** A cache or a tier that is open already. It stays open when the storage is disposed of. Stands in place of `name`. */
  cache?: CacheOrTier | undefined;
  /**
   * The name of a cache in memory of the machine, which the driver opens and closes. Without `name` and `cache` it is the
   * application's own cache.
   */
  name?: string | undefined;
  /** With `name`: bytes of shared memory, as a number or a text such as `"64mb"`; 32 MiB by default. */
  size?: number | string | undefined;
  /** With `name`: the directory of the cache's file; `/dev/shm` by default. */
  path?: string | undefined;
  /** With `name`: as in `openCache`, for development on macOS and Windows. Then each process has items of its own. */
  fallback?: "threads" | undefined;
  /** Tells the items of this driver from those of other drivers over the same cache, which have another `base`; `""` by default. */
  base?: string | undefined;
  /** Seconds after which items expire, unless `setItem` has a `ttl` of its own; 0 for never. The default is the `ttl` of the cache. */
  ttl?: number | undefined;
  /** What Nitro adds: the path of this module. */
  driver?: string | undefined;
}

/** What the methods of the driver may be told: `TransactionOptions` of unstorage. */
export interface ItemOptions {
  /** Seconds until the item expires; the `ttl` of the driver by default, 0 for never. With a negative number nothing is stored. */
  ttl?: number | null | undefined;
  [name: string]: any;
}

/** One item of `setItems`. */
export interface ItemToSet {
  key: string;
  value: string;
  options?: ItemOptions;
}

/**
 * A driver as `createStorage` takes it: `Driver` of unstorage. Over a cache it answers at once, over a tier (`S`) by promises.
 */
export interface CacheMachineDriver<S extends CacheOrTier = Cache> {
  name: string;
  flags: { maxDepth: true; ttl: true };
  options: CacheMachineDriverOptions;
  /** Returns the namespace of the cache or of the tier in which the items are. */
  getInstance(): S;
  hasItem(key: string): Answer<S, boolean>;
  getItem(key: string): any;
  getItems(items: { key: string }[]): Answer<S, { key: string; value: any }[]>;
  getItemRaw(key: string): any;
  setItem(key: string, value: string, options?: ItemOptions): Answer<S, void>;
  setItems(items: ItemToSet[], options?: ItemOptions): Answer<S, void>;
  setItemRaw(key: string, value: any, options?: ItemOptions): Answer<S, void>;
  removeItem(key: string): Answer<S, void>;
  /** Returns the seconds until the item expires as `ttl`; `null` when there is no item. */
  getMeta(key: string): Answer<S, { ttl?: number } | null>;
  getKeys(base?: string, options?: { maxDepth?: number }): Answer<S, string[]>;
  clear(base?: string): Answer<S, void>;
  dispose(): void;
}

const OPTIONS = ["cache", "name", "size", "path", "fallback", "base", "ttl", "driver"] as const;

/**
 * Creates a driver, for `createStorage({ driver })`, `storage.mount(base, driver)` and Nitro.
 *
 * - Items are in a namespace of the cache, which `clear` empties in one step.
 * - An item that the cache cannot take, because it is too large or because another participant is in the way, is removed instead:
 *   it is absent afterwards.
 * - `dispose` closes a cache that the driver has opened. The items stay, because they belong to all processes.
 *
 * @throws {TypeError} naming the option that is wrong or does not exist. The methods throw `CacheError` as `openCache` and as the
 * methods of the cache, or are rejected as those of the tier; `unstorage` passes both on as rejections.
 */
export function cacheMachineDriver<S extends CacheOrTier>(
  options: CacheMachineDriverOptions & { cache: S },
): CacheMachineDriver<S>;
export function cacheMachineDriver(options?: CacheMachineDriverOptions): CacheMachineDriver;
export function cacheMachineDriver(options: CacheMachineDriverOptions = {}): CacheMachineDriver<any> {
  checkDriverOptions(options);
  const opened = new OpenedCache(options);
  const items = (): CacheOrTier => opened.items();
  const driverTtl = ttlOf(options.ttl);

  function set(key: string, value: unknown, { ttl }: ItemOptions = {}): Awaitable<void> {
    const seconds = ttlOf(ttl) ?? driverTtl;
    const stored = storedKey(key);
    const isOver = seconds !== undefined && seconds < 0;
    const item = stored === key ? value : { key, value };
    return after(!isOver && tryStore(items(), stored, item, storedFor(seconds)), (isStored) => {
      // What was there is not the latest any more. When another participant is in the way of its removal too, that is an error.
      if (!isStored) return after(items().delete(stored), nothing);
    });
  }

  /** The keys of the cache whose items are below a base, with the keys of these items. */
  function* below(base: string): Steps<[stored: string, key: string][]> {
    const found: [stored: string, key: string][] = [];
    const candidates: string[] = yield listed(items().keys({ prefix: beginning(base) }));
    for (const stored of candidates) {
      const key = stored.includes(HASHED) ? (yield items().getMany([stored]))[0]?.key : stored;
      if (key?.startsWith(base)) found.push([stored, key]);
    }
    return found;
  }

  function get(key: string): unknown {
    return after(items().get(storedKey(key)), (value) => itemValue(key, value));
  }

  const driver: CacheMachineDriver<CacheOrTier> = {
    name: "cache-machine",
    flags: { maxDepth: true, ttl: true },
    options,
    getInstance: items,
    hasItem: (key) => items().has(storedKey(key)),
    getItem: get,
    getItemRaw: get,
    getItems: (wanted) =>
      after(items().getMany(wanted.map(({ key }) => storedKey(key))), (values) =>
        wanted.map(({ key }, i) => ({ key, value: itemValue(key, values[i]) })),
      ),
    setItem: set,
    setItemRaw: set,
    setItems: (given, common) =>
      after(all(given.map(({ key, value, options: own }) => set(key, value, { ...common, ...own }))), nothing),
    removeItem: (key) => after(items().delete(storedKey(key)), nothing),
    getMeta: (key) =>
      after(items().ttl(storedKey(key)), (ttl) => {
        if (ttl === undefined) return null;
        return Number.isFinite(ttl) ? { ttl: ttl / 1000 } : {};
      }),
    getKeys: (base = "", { maxDepth = Infinity } = {}) =>
      after(run(below(base)), (found) => {
        const keys = found.map(([, key]) => key);
        return maxDepth === Infinity ? keys : keys.filter((key) => key.split(":").length - 1 <= maxDepth);
      }),
    clear(base = "") {
      if (base === "") return items().clear();
      return after(run(below(base)), (found) => after(items().deleteMany(found.map(([stored]) => stored)), nothing));
    },
    dispose: () => opened.close(),
  };
  return driver;
}

export default cacheMachineDriver;

function nothing(): void {}

/** The cache or the tier of a driver. A cache of its own is opened at the first use. */
class OpenedCache {
  readonly #options: CacheMachineDriverOptions;
  #own: Cache | undefined;
  #items: CacheOrTier | undefined;
  #isClosed = false;

  constructor(options: CacheMachineDriverOptions) {
    this.#options = { ...options };
  }

  items(): CacheOrTier {
    if (this.#items === undefined) {
      const { base = "", cache } = this.#options;
      // Not one namespace within the other: emptying the outer one would empty both.
      this.#items = (cache ?? this.#open()).namespace(base === "" ? "unstorage" : `unstorage:${base}`);
    }
    return this.#items;
  }

  #open(): Cache {
    if (this.#isClosed) throw new CacheError("ERR_CLOSED", "the storage was disposed of.");
    const { name, size, path, fallback } = this.#options;
    this.#own = name === undefined ? openCache() : openCache(name, { size, path, fallback });
    return this.#own;
  }

  close(): void {
    this.#isClosed = true;
    this.#own?.close();
  }
}

/** Without seconds the cache decides. */
function storedFor(seconds: number | undefined): StoredFor | undefined {
  return seconds === undefined ? undefined : { ttl: seconds === 0 ? Infinity : seconds * 1000 };
}

/** @throws {TypeError} when `ttl` is no number. */
function ttlOf(ttl: number | null | undefined): number | undefined {
  if (ttl === undefined || ttl === null) return undefined;
  if (typeof ttl !== "number" || Number.isNaN(ttl)) throw new TypeError("ttl: must be a number of seconds");
  return ttl;
}

// ---- Keys

/** So many UTF-16 units take at most 3,000 of the 4,096 bytes that a key may have. */
const LONGEST = 1000;
/** How many units of a longer key are kept, so that it is found below its base. */
const KEPT = 200;
/** Divides what is kept from the hash. A key that has it in it is hashed too. */
const HASHED = "\0";

/** The key under which an item is stored. When that is not its own key, the own key is part of the value: `{ key, value }`. */
function storedKey(key: string): string {
  if (key.length <= LONGEST && !key.includes(HASHED)) return key;
  // As UTF-16, because in UTF-8 all lone surrogates become the same character.
  return beginning(key) + HASHED + createHash("sha256").update(key, "utf16le").digest("base64url");
}

/** What the stored key of each item below this base begins with. */
function beginning(base: string): string {
  return base.slice(0, KEPT);
}

/** The value of an item from the value in the cache; `null` when there is none. */
function itemValue(key: string, value: any): unknown {
  if (value === undefined) return null;
  return storedKey(key) === key ? value : value.value;
}

// ---- Options

function checkDriverOptions(options: CacheMachineDriverOptions): void {
  checkNames(options, OPTIONS);
  const { cache, name, base, ttl } = options;
  if (cache !== undefined) checkStore(cache, "options.cache");
  for (const [option, value] of Object.entries({ name, base })) {
    if (value !== undefined && typeof value !== "string") throw new TypeError(`options.${option}: must be a string`);
  }
  if (cache !== undefined && name !== undefined) {
    throw new TypeError("options.cache, options.name: one of the two, not both");
  }
  for (const option of ["size", "path", "fallback"] as const) {
    if (name === undefined && options[option] !== undefined) {
      throw new TypeError(`options.${option}: goes with options.name`);
    }
  }
  ttlOf(ttl);
}
