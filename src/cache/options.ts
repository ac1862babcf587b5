/**
 * The options of a cache and of its operations: their types, and the functions that check them. An option is checked here
 * and nowhere else. The caller's objects are read, never kept and never written to. An error names the option that is wrong.
 */

import { MAX_SIZE, MIN_SIZE } from "../engine/contract.ts";
import { checkOptions, refuseUnknown } from "../option-names.ts";
import { parseBytes, parseSize } from "../size.ts";
import { type Codec, ValueCodec } from "../values/codec.ts";
import { describe } from "../values/describe.ts";
import { requireEncoding } from "../values/runtime.ts";
import type { Key } from "./types.ts";

export { checkOptions };

/** How one `Cache` uses a cache. Each opening has options of its own; only the entries are shared. */
export interface CacheOptions {
  /**
   * Largest value that can be stored, in encoded bytes. By default, and at most, an eighth of the cache's size, up to 256
   * MiB.
   */
  maxEntrySize?: number | string | undefined;
  /** Milliseconds after which entries expire, unless an operation has a `ttl` of its own; `Infinity` by default. */
  ttl?: number | undefined;
  /**
   * The clock for expiry: a function that returns milliseconds. `() => Date.now()` by default; `Date` is looked up at each
   * call, so fake timers work. All participants must use the same clock, because each of them compares expiries, which others
   * have computed, with its own clock. The clock must not use the cache.
   */
  now?: (() => number) | undefined;
  /** Encodes objects that are not bytes. The default knows plain data, Map, Set, Date, RegExp, cycles and more. */
  codec?: Codec | undefined;
  /**
   * How many decoded values the near cache of this `Cache` keeps at most; by default as many as `nearCacheSize` has room
   * for. The near cache starts empty and takes memory only as it grows. 0 turns it off.
   */
  nearCache?: number | undefined;
  /**
   * Bytes of heap that these values may take, by estimate, as a number or a text such as `"16mb"`; `"64kb"` or more. The
   * default is an eighth of the cache's size. Whatever the option says, all near caches of a thread together take at most an
   * eighth of the size to which its heap may grow.
   */
  nearCacheSize?: number | string | undefined;
  /** Whether `get` of an object returns the same deeply frozen object each time, instead of a new copy; false by default. */
  frozenObjects?: boolean | undefined;
}

/** Options of a cache in memory of this process. */
export interface CreateOptions extends CacheOptions {
  /** Bytes of shared memory: a number, or text such as `"64mb"`. Rounded up to a multiple of 64 KiB; 32 MiB by default. */
  size?: number | string | undefined;
}

/** Options of a cache in memory of the machine. */
export interface OpenOptions extends CreateOptions {
  /**
   * Directory of the file; `/dev/shm` by default. It should be on tmpfs, because other file systems write the cache to a disk.
   * No other user may be able to rename files in it: it belongs to this user or to root, and if others may write to it, it has
   * the sticky bit.
   */
  path?: string | undefined;
  /**
   * What to do where processes cannot share a cache, which is an `ERR_UNSUPPORTED` by default. With `"threads"` the cache lies in
   * memory of this process instead. All openings of the name in this thread, and in threads that are started after the first one,
   * get the same cache, until `destroyCache` removes it or the process ends. `cache.reach` tells which kind it is, and the process
   * gets a warning with the code `CACHE_MACHINE_FALLBACK`.
   */
  fallback?: "threads" | undefined;
}

/** How one entry is stored. */
export interface SetOptions {
  /** Milliseconds until the entry expires, `Infinity` for never. The default is the `ttl` of the namespace or of the cache. */
  ttl?: number | undefined;
  /**
   * When the entry expires: a time of the cache's clock in milliseconds, such as `date.getTime()`; `Infinity` for never. Stands
   * in place of `ttl`. With a time that has come already, the operation acts as if it had stored the entry and the entry had
   * expired at once: what was there is removed.
   */
  expiresAt?: number | undefined;
  /**
   * Milliseconds for which `getStale` still finds the entry after it has expired, `Infinity` for as long as there is room; 0 by
   * default. The grace is added to the `ttl`, and needs none: `expire` and `expireTag` let an entry without a `ttl` expire.
   */
  grace?: number | undefined;
  /** Names under which `invalidateTag` finds the entry: up to 128, of up to 256 bytes each. */
  tags?: readonly string[] | undefined;
  /**
   * Whether an entry that is there keeps its expiry and its grace, while its value is replaced; `true` by default for `update`, otherwise
   * `false`. An absent entry gets the default `ttl`. A `touch` at the same moment does not get lost.
   */
  keepTtl?: boolean | undefined;
  /** Whether an entry that is there keeps its tags; `true` by default for `update`, otherwise `false`. */
  keepTags?: boolean | undefined;
}

/** How a namespace stores its entries. */
export interface NamespaceOptions {
  /**
   * Milliseconds after which entries of this namespace expire, unless an operation says otherwise; `Infinity` for never. The
   * default is that of the namespace or the cache around it.
   */
  ttl?: number | undefined;
}

/** Which keys are iterated over. */
export interface KeysOptions<K extends Key = Key> {
  /** What the keys begin with; by default all keys. */
  prefix?: K | undefined;
}

/** How a number is counted. */
export interface IncrementOptions {
  /** The number to which the first increment is added; 0 by default. */
  initial?: number | undefined;
  /** Milliseconds from the first increment until the number expires. Later increments do not change the expiry. */
  ttl?: number | undefined;
  /** Tags of a number that is created; later increments do not change them. As in {@link SetOptions}. */
  tags?: readonly string[] | undefined;
  /** The least sum that may be stored; `Number.MIN_SAFE_INTEGER` by default and at least. */
  min?: number | undefined;
  /** The largest sum that may be stored; `Number.MAX_SAFE_INTEGER` by default and at most. */
  max?: number | undefined;
}

/** Size in bytes of a cache that is created without a size: half of what a container has in /dev/shm by default. */
export const DEFAULT_SIZE: number = 32 << 20;
const MAX_NEAR = 1 << 24;
const MIN_NEAR_SIZE = 65_536;
/** The longest name of a file, in bytes. A name of a cache with more characters can never fit. */
const MAX_NAME = 255;

/**
 * {@link CacheOptions}, checked and with defaults filled in. Sizes are in bytes, times in milliseconds. `nearCacheSize` may be
 * `undefined`, because its default depends on the size of the cache.
 */
export interface Resolved {
  maxEntrySize: number;
  ttl: number;
  now: () => number;
  codec: ValueCodec;
  nearCache: number;
  nearCacheSize: number | undefined;
  frozenObjects: boolean;
}

/** The default clock. It looks `Date` up at each call: tests replace `Date` before and after a cache is opened. */
const wallClock = (): number => Date.now();

/** The names of {@link CacheOptions}. */
export const CACHE_OPTIONS: readonly (keyof CacheOptions)[] = [
  "maxEntrySize",
  "ttl",
  "now",
  "codec",
  "nearCache",
  "nearCacheSize",
  "frozenObjects",
];
/** The names of {@link CreateOptions}. */
export const CREATE_OPTIONS: readonly (keyof CreateOptions)[] = [...CACHE_OPTIONS, "size"];
/** The names of {@link OpenOptions}. */
export const OPEN_OPTIONS: readonly (keyof OpenOptions)[] = [...CREATE_OPTIONS, "path", "fallback"];

/**
 * Checks the options of a participant, whose names were checked already.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 * @throws {CacheError} `ERR_UNSUPPORTED` where there is no TextEncoder or no TextDecoder.
 */
export function resolve(given: CacheOptions): Resolved {
  requireEncoding();
  const { ttl, now = wallClock, codec, nearCache = MAX_NEAR, frozenObjects = false } = given;
  const { nearCacheSize, maxEntrySize } = given;
  if (typeof now !== "function") throw new TypeError("now: must be a function that returns milliseconds");
  if (typeof frozenObjects !== "boolean") throw new TypeError("frozenObjects: must be a boolean");
  if (typeof nearCache !== "number") throw new TypeError("nearCache: must be a number of entries");
  if (!Number.isInteger(nearCache) || nearCache < 0 || nearCache > MAX_NEAR) {
    throw new RangeError(`nearCache: must be a whole number of entries from 0 to ${MAX_NEAR}, not ${nearCache}`);
  }
  return {
    ttl: ttl === undefined ? Infinity : checkTtl(ttl),
    now,
    codec: new ValueCodec(codec),
    nearCache,
    nearCacheSize: nearCacheSize === undefined ? undefined : checkNearSize(nearCacheSize),
    frozenObjects,
    maxEntrySize: maxEntrySize === undefined ? Infinity : checkEntrySize(maxEntrySize),
  };
}

/**
 * Checks the option `size`. Returns it in bytes, `undefined` when it is missing.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function resolveSize(size: number | string | undefined): number | undefined {
  if (size === undefined) return undefined;
  const bytes = parseSize(size);
  if (bytes < MIN_SIZE || bytes > MAX_SIZE) {
    throw new RangeError(`size: must be from ${MIN_SIZE / (1 << 20)}mb to ${MAX_SIZE / (1 << 20)}mb, not ${size}`);
  }
  return bytes;
}

/**
 * Checks the option `fallback`. Returns whether a cache of this process may stand in for one of the machine.
 *
 * @throws {TypeError}.
 */
export function checkFallback(fallback: unknown): boolean {
  if (fallback === undefined || fallback === "threads") return fallback !== undefined;
  const got = typeof fallback === "string" ? JSON.stringify(fallback.slice(0, 30)) : describe(fallback);
  throw new TypeError(`fallback: must be "threads", not ${got}`);
}

/**
 * Checks the name of a cache. Whether it fits into the name of a file is checked in memory/place.ts.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function checkName(name: unknown): string {
  if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${typeof name}`);
  if (name === "") throw new RangeError("name: must not be empty");
  if (name.length > MAX_NAME) throw new RangeError(`name: too long, ${name.length} characters. Use a shorter one.`);
  return name;
}

/**
 * Checks a time to live, in milliseconds.
 *
 * @throws {TypeError} when it is not a number, {RangeError} when it is not more than 0.
 */
export function checkTtl(ttl: unknown): number {
  if (typeof ttl !== "number") throw new TypeError(`ttl: must be a number of milliseconds, not ${typeof ttl}`);
  // Written so that NaN fails too.
  if (!(ttl > 0)) throw new RangeError(`ttl: must be more than 0 milliseconds, not ${ttl}`);
  return ttl;
}

/** {@link SetOptions}, checked and read. What is `undefined` was not said. */
export interface Storing {
  ttl: number | undefined;
  expiresAt: number | undefined;
  grace: number | undefined;
  tags: readonly string[] | undefined;
  keepTtl: boolean | undefined;
  keepTags: boolean | undefined;
}

/** The options of a store that was given none. */
export const NOTHING_SAID: Storing = {
  ttl: undefined,
  expiresAt: undefined,
  grace: undefined,
  tags: undefined,
  keepTtl: undefined,
  keepTags: undefined,
};

const SET_OPTIONS = ["ttl", "expiresAt", "grace", "tags", "keepTtl", "keepTags"] as const;

/**
 * Checks the options of a store. Each is read once, because it may be a getter. The tags themselves are checked when they are
 * written: see values/tags.ts.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function checkStore(options: SetOptions): Storing {
  if (typeof options !== "object" || options === null) checkOptions(options, SET_OPTIONS);
  // As `checkOptions`, which would take 10 ns longer.
  for (const name in options) {
    switch (name) {
      case "ttl":
      case "expiresAt":
      case "grace":
      case "tags":
      case "keepTtl":
      case "keepTags":
        break;
      default:
        refuseUnknown(options, name, SET_OPTIONS);
    }
  }
  const given = options;
  const { ttl } = given;
  if (ttl !== undefined) checkTtl(ttl);
  const { expiresAt } = given;
  if (expiresAt !== undefined) checkTime(expiresAt);
  const { grace } = given;
  if (grace !== undefined) checkGrace(grace);
  const { tags } = given;
  if (tags !== undefined && !Array.isArray(tags)) throw new TypeError("tags: must be an array of strings");
  const own = tags === undefined ? undefined : [...tags];
  const { keepTtl, keepTags } = given;
  // Most stores have none of these.
  if (expiresAt !== undefined || keepTtl !== undefined || keepTags !== undefined) {
    checkTogether(ttl, expiresAt, own, keepTtl, keepTags);
  }
  return { ttl, expiresAt, grace, tags: own, keepTtl, keepTags };
}

/** Checks that options which exclude each other were not given together. */
function checkTogether(ttl: unknown, expiresAt: unknown, tags: unknown, keepTtl: unknown, keepTags: unknown): void {
  if (keepTtl !== undefined && typeof keepTtl !== "boolean") throw new TypeError("keepTtl: must be a boolean");
  if (keepTags !== undefined && typeof keepTags !== "boolean") throw new TypeError("keepTags: must be a boolean");
  const both = (one: string, other: string): TypeError =>
    new TypeError(`${one}: cannot stand together with \`${other}\`. Give one of them.`);
  if (ttl !== undefined && expiresAt !== undefined) throw both("ttl", "expiresAt");
  if (keepTtl === true && ttl !== undefined) throw both("keepTtl", "ttl");
  if (keepTtl === true && expiresAt !== undefined) throw both("keepTtl", "expiresAt");
  if (keepTags === true && tags !== undefined) throw both("keepTags", "tags");
}

const INCREMENT_OPTIONS = ["initial", "ttl", "tags", "min", "max"] as const;

/** {@link IncrementOptions}, checked, with defaults. */
export interface Counting {
  initial: number;
  min: number;
  max: number;
  ttl: number | undefined;
  tags: readonly string[] | undefined;
}

/** Without options. */
const COUNTING: Counting = {
  initial: 0,
  min: Number.MIN_SAFE_INTEGER,
  max: Number.MAX_SAFE_INTEGER,
  ttl: undefined,
  tags: undefined,
};

/**
 * Checks the options of an increment.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 */
export function checkIncrement(options: IncrementOptions | undefined): Counting {
  if (options === undefined) return COUNTING;
  const given = checkOptions(options, INCREMENT_OPTIONS);
  const { initial = 0, ttl, tags, min = COUNTING.min, max = COUNTING.max } = given;
  checkFinite("initial", initial);
  if (typeof min !== "number" || Number.isNaN(min)) throw new TypeError("min: must be a number");
  if (typeof max !== "number" || Number.isNaN(max)) throw new TypeError("max: must be a number");
  if (min > max) throw new RangeError(`min: must not be more than max, but ${min} is more than ${max}`);
  if (ttl !== undefined) checkTtl(ttl);
  if (tags !== undefined && !Array.isArray(tags)) throw new TypeError("tags: must be an array of strings");
  const bounds = { min: Math.max(min, COUNTING.min), max: Math.min(max, COUNTING.max) };
  return { initial, ttl, tags: tags && [...tags], ...bounds };
}

/** Checks that an argument is a number that can be counted with. @throws {TypeError} when it is not. */
export function checkFinite(name: string, value: unknown): void {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new TypeError(`${name}: must be a finite number`);
}

/** Options of one entry over options of many. An expiry of its own stands in place of theirs, however it is given. */
export function over(common: Storing | undefined, own: Storing | undefined): Storing | undefined {
  if (common === undefined || own === undefined) return own ?? common;
  const expiry = own.ttl === undefined && own.expiresAt === undefined && own.keepTtl === undefined ? common : own;
  const tags = own.tags === undefined && own.keepTags === undefined ? common : own;
  return {
    ttl: expiry.ttl,
    expiresAt: expiry.expiresAt,
    keepTtl: expiry.keepTtl,
    grace: own.grace ?? common.grace,
    tags: tags.tags,
    keepTags: tags.keepTags,
  };
}

/** Checks a time of the cache's clock, in milliseconds. */
function checkTime(expiresAt: unknown): void {
  if (typeof expiresAt !== "number" || Number.isNaN(expiresAt)) {
    const got = typeof expiresAt === "number" ? "NaN" : describe(expiresAt);
    throw new TypeError(
      `expiresAt: must be a number, a time of the cache's clock in milliseconds such as date.getTime(), not ${got}`,
    );
  }
}

/** Checks a grace, in milliseconds. */
function checkGrace(grace: unknown): void {
  if (typeof grace !== "number") throw new TypeError(`grace: must be a number of milliseconds, not ${typeof grace}`);
  // Written so that NaN fails too.
  if (!(grace >= 0)) throw new RangeError(`grace: must be 0 milliseconds or more, not ${grace}`);
}

/**
 * Checks the names of the options of a cache with a file, and the option `path`. Returns all options.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function checkPlace<T extends { path?: string | undefined }>(
  options: T | undefined,
  known: readonly (keyof T & string)[],
): { given: Partial<T>; path: string | undefined } {
  if ((options as { mode?: unknown } | undefined | null)?.mode !== undefined) {
    throw new TypeError(
      "mode: is not an option. Only its user can open the file of a cache (0600), because a process that can open it can " +
        "truncate it, which ends all processes that use the cache. Run them all as the same user.",
    );
  }
  const given = checkOptions(options, known);
  const { path } = given;
  if (path !== undefined && typeof path !== "string") throw new TypeError("path: must be the name of a directory");
  if (path === "") throw new RangeError("path: must not be empty");
  if (path?.includes("\0")) throw new RangeError("path: must not contain the character U+0000");
  return { given, path };
}

function checkNearSize(size: number | string): number {
  const bytes = parseBytes(size, "nearCacheSize");
  if (bytes < MIN_NEAR_SIZE) {
    throw new RangeError(`nearCacheSize: must be at least 64kb, not ${size}. To keep no values, set nearCache to 0.`);
  }
  return bytes;
}

function checkEntrySize(size: number | string): number {
  if (typeof size === "string") return parseBytes(size, "maxEntrySize");
  if (typeof size !== "number") throw new TypeError("maxEntrySize: must be a number of bytes, or text such as '1mb'");
  if (!(size > 0)) throw new RangeError(`maxEntrySize: must be more than 0 bytes, not ${size}`);
  return size;
}
