/**
 * The options of a cache and of its operations: their types, and the functions that check them. An option is checked here
 * and nowhere else. The caller's objects are read, never kept and never written to. An error names the option that is wrong.
 */

import { MAX_SIZE, MIN_SIZE } from "../engine/contract.ts";
import { parseBytes, parseSize } from "../size.ts";
import { type Codec, ValueCodec } from "../values/codec.ts";
import { requireEncoding } from "../values/runtime.ts";

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
}

/** How one entry is stored. */
export interface SetOptions {
  /** Milliseconds until the entry expires, `Infinity` for never. The default is the option `ttl` of the cache. */
  ttl?: number | undefined;
  /** Names under which `invalidateTag` finds the entry: up to 128, of up to 256 bytes each. */
  tags?: readonly string[] | undefined;
  /**
   * Milliseconds for which `getStale` still finds the entry after it has expired, `Infinity` for as long as there is room; 0 by
   * default. The grace is added to the `ttl`, and needs none: `expire` and `expireTag` let an entry without a `ttl` expire.
   */
  grace?: number | undefined;
}

/** How a number is counted. */
export interface IncrementOptions {
  /** The number to which the first increment is added; 0 by default. */
  initial?: number | undefined;
  /** Milliseconds from the first increment until the number expires. Later increments do not change the expiry. */
  ttl?: number | undefined;
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

/**
 * Checks the options of a participant.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 * @throws {CacheError} `ERR_UNSUPPORTED` where there is no TextEncoder or no TextDecoder.
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

/**
 * Checks the options of a store. Each is read once, because it may be a getter. The tags themselves are checked when they are
 * written: see values/tags.ts.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function checkStore(options: SetOptions): {
  ttl: number | undefined;
  tags: readonly string[] | undefined;
  grace: number;
} {
  const given = asObject(options, "options");
  const { ttl } = given;
  const checked = ttl === undefined ? undefined : checkTtl(ttl);
  const { grace = 0 } = given;
  checkGrace(grace);
  const { tags } = given;
  if (tags !== undefined && !Array.isArray(tags)) throw new TypeError("tags: must be an array of strings");
  return { ttl: checked, tags: tags && [...tags], grace };
}

/**
 * Checks a grace, in milliseconds.
 *
 * @throws {TypeError} when it is not a number, {RangeError} when it is less than 0.
 */
function checkGrace(grace: unknown): void {
  if (typeof grace !== "number") throw new TypeError(`grace: must be a number of milliseconds, not ${typeof grace}`);
  // Written so that NaN fails too.
  if (!(grace >= 0)) throw new RangeError(`grace: must be 0 milliseconds or more, not ${grace}`);
}

/**
 * Checks that an argument with options is an object, or missing. Returns an empty object for a missing one.
 *
 * @throws {TypeError} when it is anything else.
 */
export function asObject<T extends object>(options: T | undefined, name: string): Partial<T> {
  if (options === undefined) return {};
  if (typeof options !== "object" || options === null) throw new TypeError(`${name}: must be an object`);
  return options;
}

/**
 * Checks the options that say where the file of a cache is. Returns all options.
 *
 * @throws {TypeError} and {RangeError}.
 */
export function checkPlace<T extends { path?: string | undefined }>(options: T | undefined): Partial<T> {
  const given = asObject(options, "options");
  const { path } = given;
  if ((given as { mode?: unknown }).mode !== undefined) {
    throw new TypeError(
      "mode: is not an option. Only its user can open the file of a cache (0600), because a process that can open it can " +
        "truncate it, which ends all processes that use the cache. Run them all as the same user.",
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
