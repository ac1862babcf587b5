/**
 * The errors a cache can answer with. Wrong arguments are `TypeError` or `RangeError`; everything that is a state of
 * the machine, the file or the other participants is a `CacheError` with one of these stable codes.
 */

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
  /** The cache was closed by this thread. */
  | "ERR_CLOSED"
  /** A value that cannot be stored, or that cannot be read back here; the message says why. */
  | "ERR_DATA"
  /** The file is not a cache of this version: foreign, older, truncated or damaged. */
  | "ERR_LAYOUT"
  /** The file belongs to another user, or others may write to it. */
  | "ERR_NOT_OWNER"
  /** The native part is missing, or this platform has no process reach. */
  | "ERR_UNSUPPORTED"
  /** The time given for waiting has passed. */
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
