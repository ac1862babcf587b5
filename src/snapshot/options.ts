/** The options and results of exports and imports, and the functions that check them. */

import { Cache } from "../cache/cache.ts";
import type { View } from "../cache/view.ts";
import { checkOptions } from "../option-names.ts";
import { describe } from "../values/describe.ts";

/** A `URL`. These four types name as little as possible, so that they need the declarations neither of Node.js nor of the web. */
export interface FileUrl {
  readonly href: string;
  readonly protocol: string;
}

/** Where a snapshot is written: the path or the `file:` URL of a file, a `Writable` of Node.js, or a `WritableStream`. */
export type SnapshotTarget =
  | string
  | FileUrl
  | { write(chunk: any, ...rest: any[]): boolean; on(event: any, listener: (...values: any[]) => void): unknown }
  | { getWriter(): unknown };

/** Where a snapshot is read: the path or the `file:` URL of a file, a `Readable` of Node.js, or a `ReadableStream`. */
export type SnapshotSource =
  | string
  | FileUrl
  | { destroy(error?: Error): unknown; on(event: any, listener: (...values: any[]) => void): unknown }
  | { getReader(): unknown };

/** Options of `exportCache`. */
export interface ExportOptions {
  /** Ends the export when it is aborted. The promise is rejected with its reason. */
  signal?: AbortSignal | undefined;
  /** Is called after each block that was written, about every 64 KiB. An error that it throws ends the export. */
  onProgress?: ((progress: ExportProgress) => void) | undefined;
}

/** How far an export is. */
export interface ExportProgress {
  /** Entries that were written. */
  entries: number;
  /** About how many there will be: what the whole cache had when the export began. `undefined` for a namespace. */
  total: number | undefined;
  /** Bytes that were written. */
  bytes: number;
}

/** What an export has written. */
export interface ExportResult {
  /** Entries in the snapshot. */
  entries: number;
  /** Bytes of the snapshot. */
  bytes: number;
  /** Entries that are not in it because the memory that holds them is damaged. */
  skipped: number;
}

/** Options of `importCache`. */
export interface ImportOptions {
  /**
   * Milliseconds: of a snapshot that is older, nothing is imported, and the result says `outdated`. Its age is counted by the clock of
   * the machine, `Date.now()`. `Infinity` by default.
   */
  maxAge?: number | undefined;
  /** Ends the import when it is aborted. The promise is rejected with its reason; entries that were added stay. */
  signal?: AbortSignal | undefined;
  /** Is called after each block that was read, about every 64 KiB. An error that it throws ends the import. */
  onProgress?: ((progress: ImportProgress) => void) | undefined;
}

/** How far an import is. */
export interface ImportProgress {
  /** Entries that were added. */
  entries: number;
  /** Bytes that were read. */
  bytes: number;
  /** Bytes of the file; `undefined` for a stream. */
  total: number | undefined;
}

/** What an import has done. */
export interface ImportResult {
  /** Entries that were added. */
  entries: number;
  /** Entries that were not added because their key had an entry already, which stays. */
  present: number;
  /** Entries that were not added because they have expired since the export. */
  expired: number;
  /**
   * Entries that were not added because the cache was full: it had begun to evict. A snapshot has the hottest entries first, so these
   * are colder than those that were added. Whether their keys had entries already was not looked up.
   */
  full: number;
  /** Entries that were not added because they are too large for this cache or its `maxEntrySize`. */
  tooLarge: number;
  /** Entries that were not added because another participant was in the way, as for `ERR_BUSY`. */
  busy: number;
  /** Entries that the whole cache has evicted during the import, also for what others have stored meanwhile. */
  evicted: number;
  /** Blocks of the snapshot that are damaged or missing. Their entries were not added. */
  damaged: number;
  /** Whether the snapshot ends too early. What came before was added. */
  truncated: boolean;
  /** Whether the snapshot is older than `maxAge`, so that nothing was added. */
  outdated: boolean;
  /** When the export began, in milliseconds of `Date.now()`. */
  createdAt: number;
  /** The name of the cache that was exported; `undefined` without one. */
  name: string | undefined;
  /** Bytes that were read. */
  bytes: number;
}

/** The view of an argument `cache`. @internal @throws {TypeError} when it is no cache. */
export function checkCache(cache: unknown): View {
  const view = Cache.viewOf(cache);
  if (view !== undefined) return view;
  throw new TypeError(
    `cache: must be a Cache of this copy of cache-machine, not ${describe(cache)}. A tier, an adapter or a Map has no snapshot: ` +
      "pass what openCache, createCache or attachCache has returned.",
  );
}

/** @throws {TypeError} naming the option that is wrong. */
export function checkExport(options: ExportOptions | undefined): ExportOptions {
  const checked = checkOptions<ExportOptions>(options, ["signal", "onProgress"]);
  const { signal, onProgress } = checked;
  checkBoth(signal, onProgress);
  return { signal, onProgress };
}

/** @throws {TypeError} and {RangeError} naming the option that is wrong. */
export function checkImport(options: ImportOptions | undefined): ImportOptions & { maxAge: number } {
  const checked = checkOptions<ImportOptions>(options, ["maxAge", "signal", "onProgress"]);
  const { maxAge = Infinity, signal, onProgress } = checked;
  if (typeof maxAge !== "number")
    throw new TypeError(`maxAge: must be a number of milliseconds, not ${describe(maxAge)}`);
  if (!(maxAge >= 0)) throw new RangeError(`maxAge: must be 0 or more milliseconds, not ${maxAge}`);
  checkBoth(signal, onProgress);
  return { maxAge, signal, onProgress };
}

function checkBoth(signal: unknown, onProgress: unknown): void {
  if (signal !== undefined && typeof (signal as AbortSignal | null)?.throwIfAborted !== "function") {
    throw new TypeError(`signal: must be an AbortSignal, not ${describe(signal)}`);
  }
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new TypeError(`onProgress: must be a function, not ${describe(onProgress)}`);
  }
}
