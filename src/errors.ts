/**
 * The errors of a cache: the class, the codes, and the texts that users meet.
 *
 * A wrong argument is a `TypeError` or a `RangeError`, thrown where the argument is checked. A state of the machine, of
 * the file or of the other participants is a {@link CacheError}, made by a function of this file.
 *
 * All texts have one style: `argument: what is wrong. What to do.` The argument is left out where none is to blame. The
 * functions below are grouped by code. Some hold a whole text. The others (such as {@link noSpace}) take the text from
 * their caller, where only one system call or one check knows what is wrong.
 */

import { readableSize } from "./size.ts";

/** The stable codes of {@link CacheError}. */
export type CacheErrorCode =
  /** The cache exists with another size than the one asked for. */
  | "ERR_SIZE_MISMATCH"
  /** The key or the value is larger than this cache accepts. */
  | "ERR_TOO_LARGE"
  /** The operating system has no room for the memory. */
  | "ERR_NO_SPACE"
  /** Another participant holds what this operation needs and did not let go in time. */
  | "ERR_BUSY"
  /** The cache was closed in this thread, or it was destroyed. */
  | "ERR_CLOSED"
  /** A value that cannot be stored, or that cannot be read back here; the message says why. */
  | "ERR_DATA"
  /** The file is not a cache of this version: foreign, older, truncated or damaged. */
  | "ERR_LAYOUT"
  /** The file belongs to another user, or others may write to it. */
  | "ERR_NOT_OWNER"
  /** The native part is missing, or this platform has no process reach. */
  | "ERR_UNSUPPORTED"
  /** Reserved: no operation of this version waits for a given time, so none throws it. */
  | "ERR_TIMEOUT";

/** A state that keeps an operation from being done. Its message says what happened and what to do about it. */
export class CacheError extends Error {
  override readonly name: string = "CacheError";
  /** Stable and machine-readable, unlike the message. */
  readonly code: CacheErrorCode;

  constructor(code: CacheErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

// ---- ERR_BUSY

/** A change that another participant kept from being made. */
export function busy(why: string): CacheError {
  return new CacheError("ERR_BUSY", `${why}; nothing was changed. Try again later.`);
}

/** A participant for whom there is no seat: all `seats` have living owners. */
export function noSeat(seats: number): CacheError {
  return new CacheError(
    "ERR_BUSY",
    `all ${seats} seats of this cache are taken: as many threads have it open, in all processes together. End some of ` +
      "them, close() it where it is not needed any more, or create it larger: 64 MiB have 1,024 seats.",
  );
}

/** A file that vanished each time when it was opened, because other processes destroy and create it. */
export function neverThere(path: string): CacheError {
  return new CacheError("ERR_BUSY", `${path} is created and destroyed by others all the time. Try again later.`);
}

// ---- ERR_CLOSED

/** A use of a cache after `close()`. */
export function closed(): CacheError {
  return new CacheError("ERR_CLOSED", "this cache was closed in this thread; open it again to use it");
}

/** A handle whose file has no name any more. */
export function destroyed(path: string): CacheError {
  return new CacheError("ERR_CLOSED", `handle: the cache was destroyed (${path} is gone). Open it again by its name.`);
}

// ---- ERR_TOO_LARGE

/** A value of `length` bytes, where one may have `limit` bytes; one that is no longer than that has a long key or tags. */
export function tooLarge(length: number, limit: number): CacheError {
  const why =
    length <= limit
      ? "its key and tags leave no room for it"
      : `the limit is ${limit} (an eighth of the cache's size, or maxEntrySize)`;
  return new CacheError("ERR_TOO_LARGE", `value: has ${length} bytes and ${why}. The old value was kept.`);
}

/** An entry of the largest size, which was stored without an expiry. */
export function noRoomForExpiry(): CacheError {
  return new CacheError("ERR_TOO_LARGE", "ttl: the entry has no room for an expiry. Store it again with a `ttl`.");
}

/** A key, told with its unit such as `70000 bytes of UTF-8`, where one may have `limit` bytes. */
export function keyTooLong(told: string, limit: number): CacheError {
  const remedy = "Use a shorter key, such as a hash of this one.";
  return new CacheError("ERR_TOO_LARGE", `key: has ${told}, the limit is ${limit}. ${remedy}`);
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

/** A part of the address space that the system refused, for `what`: a cache or code. */
export function noAddressSpace(cause: unknown, what = "the engine's code"): CacheError {
  return noSpace(
    `there is no address space for ${what}. Whatever its size, each open cache needs up to 10 GiB of address space (not ` +
      "of RAM), and Node.js one more. Raise the limits of this process (`ulimit -v`, vm.max_map_count), or close other " +
      "caches.",
    { cause },
  );
}

// ---- ERR_UNSUPPORTED

/** Something that this platform, this directory or this configuration of Node.js does not offer. */
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

/** A file, or a region, that is no cache of this version. `subject` names it, `reason` tells what was seen. */
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
    `size: the cache exists with ${readableSize(actual)}, asked for was ${readableSize(wanted)}. Ask for the same, leave ` +
      "`size` out to take what is there, or remove it with destroyCache(name).",
  );
}
