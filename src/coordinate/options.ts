/**
 * The options of waiting and watching. They are part of the public types, which must not lead to the types of the engine: those
 * need a library of types that not every project has.
 */

/** How long to wait, and for what. */
export interface WaitForOptions {
  /** Milliseconds after which the promise is rejected with `ERR_TIMEOUT`; `Infinity` by default. */
  timeout?: number | undefined;
  /** Rejects the promise with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** The version of a value that is known already, as `getEntry` returned it: waits for a value of another version. */
  version?: number | undefined;
}

/** How long a watch lasts. */
export interface WatchOptions {
  /** Ends the watch when it is aborted. */
  signal?: AbortSignal | undefined;
}
