/**
 * The errors of a cache: the class, the codes, and the texts.
 *
 * A wrong argument is a `TypeError` or a `RangeError`, thrown where the argument is checked. A state of the machine, of
 * the file or of the other participants is a {@link CacheError}, made by a function of this file.
 *
 * All texts have one style: `argument: what is wrong. What to do.` The argument is left out when no argument is wrong. The
 * functions below are grouped by code. Some hold a whole text. The others (such as {@link noSpace}) take the text from their
 * caller: one system call, or one check, that alone knows what is wrong.
 */

import { readableSize } from "./size.ts";

/** The stable codes of {@link CacheError}. */
export type CacheErrorCode =
  /** The cache exists with another size than the one asked for. */
  | "ERR_SIZE_MISMATCH"
  /** The key or the value is larger than this cache accepts. */
  | "ERR_TOO_LARGE"
  /** The system has no room: memory, disk space, address space or file descriptors do not suffice. */
  | "ERR_NO_SPACE"
  /** Another participant was in the way for too long, or all seats of the cache are taken. */
  | "ERR_BUSY"
  /** The cache was closed in this thread, or the cache of a handle was destroyed. */
  | "ERR_CLOSED"
  /** A value that cannot be stored, or that cannot be read back here; the message says why. */
  | "ERR_DATA"
  /** The file is not a cache of this version (foreign, older, truncated or damaged), or a handle comes from another version. */
  | "ERR_LAYOUT"
  /** The file or its directory belongs to another user, or other users can open or replace the file. */
  | "ERR_NOT_OWNER"
  /** This platform, this directory or this configuration of the runtime does not offer what a cache needs. */
  | "ERR_UNSUPPORTED"
  /** What a call has waited for did not come within its `timeout`: a value (`waitFor`), a load (`getOrSet`), a lock. */
  | "ERR_TIMEOUT"
  /** The loader of `getOrSet` failed in another thread or process; `cause` has the name and the message of its error. */
  | "ERR_LOAD_FAILED"
  /** The server behind a tier did not answer; the message says what is known of the write. */
  | "ERR_UNREACHABLE";

/** The name of the property that every {@link CacheError} has: the same for all copies of the package in a process, and for all realms. */
const IS_CACHE_ERROR: unique symbol = Symbol.for("cache-machine CacheError");

/**
 * An error that is not a wrong argument: a state of the machine, the file, the value or the other participants.
 *
 * `instanceof CacheError` is also true for an error of another copy of the package in the same thread.
 */
export class CacheError extends Error {
  override readonly name: string = "CacheError";
  /** Stable and machine-readable, unlike the message. */
  readonly code: CacheErrorCode;

  constructor(code: CacheErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }

  /** @internal */
  get [IS_CACHE_ERROR](): true {
    return true;
  }
}

/**
 * Copies of the package share a seat, so an error may be made by another copy than the one that asks. Not a static method, because
 * esbuild gives a class that names itself another name, and Node.js prints that one.
 */
function isInstance(this: unknown, value: unknown): boolean {
  if (this !== CacheError) return Function.prototype[Symbol.hasInstance].call(this, value);
  return typeof value === "object" && value !== null && IS_CACHE_ERROR in value;
}
Object.defineProperty(CacheError, Symbol.hasInstance, { value: isInstance });

/** Whether an error says no more than that this value, or this change, is not possible now. */
export function isRefusal(error: unknown): boolean {
  return error instanceof CacheError && (error.code === "ERR_TOO_LARGE" || error.code === "ERR_BUSY");
}

// ---- ERR_BUSY

/** A change that was not made because of other participants. */
export function busy(why: string): CacheError {
  return new CacheError("ERR_BUSY", `${why}; nothing was changed. Try again later.`);
}

/** An opening for which there is no seat: all `seats` have living owners. */
export function noSeat(seats: number): CacheError {
  return new CacheError(
    "ERR_BUSY",
    `all ${seats} seats of this cache are taken: so many threads have it open, in all processes together. End some of ` +
      "them, close() the cache where it is not needed any more, or create a larger one: 64 MiB have 1,024 seats.",
  );
}

/** A spectator that has not seen a value whole. */
export function replacedTooOften(reads: number): CacheError {
  return new CacheError("ERR_BUSY", `key: it was replaced during each of ${reads} reads. Try again.`);
}

/** A file that could not be opened because other processes create and destroy it again and again. */
export function neverThere(path: string): CacheError {
  return new CacheError("ERR_BUSY", `${path}: other processes create and destroy it all the time. Try again later.`);
}

// ---- ERR_TIMEOUT

/** A wait that has reached its `timeout` of `ms` milliseconds. `what` names what did not come, such as `the lock "name"`. */
export function timedOut(what: string, ms: number): CacheError {
  return new CacheError("ERR_TIMEOUT", `timeout: ${what} did not come within ${ms} ms. Try again, or allow more time.`);
}

// ---- ERR_LOAD_FAILED

/** A load that has failed in another thread or process, with an error of this name and message. */
export function loadFailed(name: string, message: string): CacheError {
  const cause = new Error(message);
  // The stack would show this thread, which has not run the loader.
  Object.assign(cause, { name, stack: `${name}: ${message}` });
  return new CacheError(
    "ERR_LOAD_FAILED",
    `load: failed in another thread or process: ${name}: ${message}. The next call loads again.`,
    { cause },
  );
}

// ---- ERR_CLOSED

/** A use of a cache after `close()`. */
export function closed(): CacheError {
  return new CacheError("ERR_CLOSED", "this cache was closed in this thread. To use it, open it again.");
}

/** A handle whose file has no name any more. */
export function destroyed(path: string): CacheError {
  return new CacheError("ERR_CLOSED", `handle: the cache was destroyed (${path} is gone). Open it again by its name.`);
}

/** A spectator for whom there is no file to look at. */
export function noFile(path: string): CacheError {
  return new CacheError("ERR_CLOSED", `file: there is no ${path}. Look for its name again.`);
}

// ---- ERR_TOO_LARGE

/** A value of `length` bytes. Either it is above the limit, or its key and tags are so long that it does not fit with them. */
export function tooLarge(length: number, limit: number): CacheError {
  const why =
    length <= limit
      ? "its key and tags leave no room for it"
      : `the limit is ${limit} (maxEntrySize, or an eighth of the cache's size up to 256 MiB)`;
  return new CacheError("ERR_TOO_LARGE", `value: has ${length} bytes and ${why}. The old value was kept.`);
}

/** An entry that was stored without an expiry, and that with one would be above the largest size. */
export function noRoomForExpiry(): CacheError {
  return new CacheError("ERR_TOO_LARGE", "ttl: the entry has no room for an expiry. Store it again with a `ttl`.");
}

/**
 * A key above the limit, in bytes, or a name that is stored as one. `length` names the unit, such as `70000 bytes of UTF-8`.
 */
export function keyTooLong(length: string, limit: number, argument = "key"): CacheError {
  const remedy = `Use a shorter ${argument}, such as a hash of this one.`;
  return new CacheError("ERR_TOO_LARGE", `${argument}: has ${length}, the limit is ${limit}. ${remedy}`);
}

// ---- ERR_NO_SPACE

/** Memory, disk space or another resource of the system that is used up. */
export function noSpace(message: string, options?: ErrorOptions): CacheError {
  return new CacheError("ERR_NO_SPACE", message, options);
}

/** A limit of open files, known by the system's `code` (`EMFILE` of the process, `ENFILE` of the machine). */
export function noDescriptor(code: string, cause: unknown): CacheError {
  return noSpace(`no file descriptor is left (${code}). Raise the limit (\`ulimit -n\`).`, { cause });
}

/** Address space that the system has refused. `what` needed it: a cache, or code. */
export function noAddressSpace(cause: unknown, what = "the engine's code"): CacheError {
  return noSpace(
    `there is no address space for ${what}. Whatever its size, each open cache needs up to 10 GiB of address space (not ` +
      "of RAM), and Node.js needs 1 GiB more. Raise the limits of this process (`ulimit -v`, vm.max_map_count), or close " +
      "other caches.",
    { cause },
  );
}

// ---- ERR_UNSUPPORTED

/** Something that this platform, this directory or this configuration of the runtime does not offer. */
export function unsupported(message: string, options?: ErrorOptions): CacheError {
  return new CacheError("ERR_UNSUPPORTED", message, options);
}

// ---- ERR_DATA

/** A value that cannot be stored, or that cannot be read back here. */
export function badData(message: string, options?: ErrorOptions): CacheError {
  return new CacheError("ERR_DATA", message, options);
}

// ---- ERR_LAYOUT

/** A file or a handle of another version, or something that is no cache. */
export function badLayout(message: string, options?: ErrorOptions): CacheError {
  return new CacheError("ERR_LAYOUT", message, options);
}

/** A file, or the memory of a handle, that is no cache of this version. `subject` names it, `reason` is a clause. */
export function noCache(subject: string, reason: string): CacheError {
  return badLayout(
    `${subject} is not a cache that can be used: ${reason}. Remove it with destroyCache(name), or choose another name.`,
  );
}

// ---- ERR_NOT_OWNER

/** A file or a directory that another user owns or may change. */
export function notOwner(message: string): CacheError {
  return new CacheError("ERR_NOT_OWNER", message);
}

// ---- ERR_SIZE_MISMATCH

/** A cache of `actual` bytes, opened with a `size` of `wanted` bytes. */
export function sizeMismatch(actual: number, wanted: number): CacheError {
  return new CacheError(
    "ERR_SIZE_MISMATCH",
    `size: the cache exists with ${readableSize(actual)}, not with ${readableSize(wanted)}. Ask for the same size, leave ` +
      "`size` out to take the cache as it is, or remove it with destroyCache(name).",
  );
}
