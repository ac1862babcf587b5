/**
 * The options of a cache and of its operations: their types, and their checks, each in one place and made once. The
 * caller's objects are read, never kept and never written to. An error names the option that is wrong.
 */

import { parseBytes, parseSize } from "../size.ts";
import { type Codec, ValueCodec } from "../values/codec.ts";
import { requireEncoding } from "../values/runtime.ts";

/** How a participant uses a cache. Each participant has its own; only entries are shared. */
export interface CacheOptions {
  /** Largest value in bytes once encoded; the region's own limit (1/8 of its size) by default. */
  maxEntrySize?: number | string | undefined;
  /** Milliseconds that entries live unless `set` says otherwise; `Infinity` by default. */
  ttl?: number | undefined;
  /**
   * The clock for expiry, in milliseconds; `() => Date.now()` by default, looked up at each call, so that fake timers work.
   * All participants must use one clock, because an expiry is a time that each of them compares with its own clock. The
   * clock must not use the cache.
   */
  now?: (() => number) | undefined;
  /** Encodes objects that are not bytes; the default knows structured data, Map, Set, Date, RegExp, cycles and more. */
  codec?: Codec | undefined;
  /**
   * How many decoded values this thread keeps at most; as many as `nearCacheSize` has room for by default. Memory is taken
   * as values come. 0 turns the near cache off.
   */
  nearCache?: number | undefined;
  /**
   * Bytes of heap that these values may take, by estimate, as a number or a text such as `"16mb"`: an eighth of the cache's
   * size by default, and at least `"64kb"`. All near caches of a thread together never take more than an eighth of what its
   * heap may grow to.
   */
  nearCacheSize?: number | string | undefined;
  /** `get` of an object returns one deeply frozen object again and again instead of a fresh copy; false by default. */
  frozenObjects?: boolean | undefined;
}

/** Options of a cache in memory of this process. */
export interface CreateOptions extends CacheOptions {
  /** Bytes of shared memory: a number, or text such as `"64mb"`; 32 MiB by default, rounded up to 64 KiB. */
  size?: number | string | undefined;
}

/** Options of a cache in memory of the machine. */
export interface OpenOptions extends CreateOptions {
  /**
   * Directory of the file; `/dev/shm` by default. It should be a tmpfs, since other file systems write to their disk, and
   * one in which no other user can rename files: this user's own or root's, and with the sticky bit where others may write.
   */
  path?: string | undefined;
}

/** How one entry is stored. */
export interface SetOptions {
  /** Milliseconds until the entry expires; `Infinity` for never. */
  ttl?: number | undefined;
  /** Names under which `invalidateTag` finds the entry: up to 16, of up to 256 bytes each. */
  tags?: readonly string[] | undefined;
}

/** How a number is counted. */
export interface IncrementOptions {
  /** What the number is before the first increment; 0 by default. */
  initial?: number | undefined;
  /** Milliseconds until it expires, from its first increment on; later ones do not prolong it. */
  ttl?: number | undefined;
}

/** Size of a cache that nobody gave a size: half of what a container has in /dev/shm by default. */
export const DEFAULT_SIZE: number = 32 << 20;
const MAX_NEAR = 1 << 24;
const MIN_NEAR_SIZE = 65_536;
/** No name of a file is longer, in bytes. */
const MAX_NAME = 255;

/** {@link CacheOptions}, checked and with all defaults filled in. Sizes are in bytes, times in milliseconds. */
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

/**
 * Checks the options of a participant.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 * @throws {CacheError} `ERR_UNSUPPORTED` where there is no TextEncoder.
 */
export function resolve(options: CacheOptions | undefined): Resolved {
  requireEncoding();
  const given = asObject(options, "options");
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
 * Checks the option `size`; its value in bytes, `undefined` when none was asked for.
 *
 * @param limits the smallest and the largest region, in bytes
 * @throws {TypeError} and {RangeError}.
 */
export function resolveSize(
  size: number | string | undefined,
  limits: { min: number; max: number },
): number | undefined {
  if (size === undefined) return undefined;
  const bytes = parseSize(size);
  if (bytes < limits.min || bytes > limits.max) {
    throw new RangeError(`size: must be from ${limits.min >> 20}mb to ${limits.max / (1 << 20)}mb, not ${size}`);
  }
  return bytes;
}

/** Checks the name of a cache. What of it fits a file name is checked where the file is. */
export function checkName(name: unknown): string {
  if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${typeof name}`);
  if (name === "") throw new RangeError("name: must not be empty");
  if (name.length > MAX_NAME) throw new RangeError(`name: too long, ${name.length} characters. Use a shorter one.`);
  return name;
}

/** Checks a time to live, in milliseconds. */
export function checkTtl(ttl: unknown): number {
  if (typeof ttl !== "number") throw new TypeError(`ttl: must be a number of milliseconds, not ${typeof ttl}`);
  // Written so that NaN fails too.
  if (!(ttl > 0)) throw new RangeError(`ttl: must be more than 0 milliseconds, not ${ttl}`);
  return ttl;
}

/** Checks the options of a store, each of which is read once. */
export function checkStore(options: SetOptions): { ttl: number | undefined; tags: readonly string[] | undefined } {
  const given = asObject(options, "options");
  const { ttl } = given;
  const checked = ttl === undefined ? undefined : checkTtl(ttl);
  const { tags } = given;
  if (tags !== undefined && !Array.isArray(tags)) throw new TypeError("tags: must be an array of strings");
  return { ttl: checked, tags: tags && [...tags] };
}

/** Checks that options are an object, or missing. */
export function asObject<T extends object>(options: T | undefined, name: string): Partial<T> {
  if (options === undefined) return {};
  if (typeof options !== "object" || options === null) throw new TypeError(`${name}: must be an object`);
  return options;
}

/** Checks where the file of a cache is to be. */
export function checkPlace<T extends { path?: string | undefined }>(options: T | undefined): Partial<T> {
  const given = asObject(options, "options");
  const { path } = given;
  if ((given as { mode?: unknown }).mode !== undefined) {
    throw new TypeError(
      "mode: is not an option, the file of a cache is always its user's alone (0600). Whoever may open it may truncate " +
        "it, which ends all processes that use it. Run them all as the same user.",
    );
  }
  if (path !== undefined && typeof path !== "string") throw new TypeError("path: must be the name of a directory");
  if (path === "") throw new RangeError("path: must not be empty");
  if (path?.includes("\0")) throw new RangeError("path: must not contain the character U+0000");
  return given;
}

function checkNearSize(size: number | string): number {
  const bytes = parseBytes(size, "nearCacheSize");
  if (bytes < MIN_NEAR_SIZE) {
    throw new RangeError(`nearCacheSize: must be at least 64kb, not ${size}. To keep nothing set nearCache to 0.`);
  }
  return bytes;
}

function checkEntrySize(size: number | string): number {
  if (typeof size === "string") return parseBytes(size, "maxEntrySize");
  if (typeof size !== "number") throw new TypeError("maxEntrySize: must be a number of bytes, or text such as '1mb'");
  if (!(size > 0)) throw new RangeError(`maxEntrySize: must be more than 0 bytes, not ${size}`);
  return size;
}
