/**
 * cache-machine as a page and its workers see it: the thread reach, without anything of Node.js.
 *
 * @packageDocumentation
 */

import type { Cache } from "./cache/cache.ts";
import type { CacheOptions, OpenOptions } from "./cache/options.ts";
import type { CacheHandle, Key } from "./cache/types.ts";
import { type CacheError, unsupported } from "./errors.ts";
import { attachThreads, checkHandle, createCache } from "./open/threads.ts";

export type { Cache } from "./cache/cache.ts";
export type { Lease, Leased } from "./cache/leased.ts";
export type {
  LoadContext,
  LoadedMany,
  LoadManyContext,
  LoadOptions,
  LoadOutcome,
  MemoizeOptions,
} from "./cache/load-options.ts";
export type {
  CacheOptions,
  CreateOptions,
  IncrementOptions,
  KeysOptions,
  NamespaceOptions,
  OpenOptions,
  SetOptions,
} from "./cache/options.ts";
export type {
  CacheHandle,
  CacheSummary,
  Census,
  CountedEntry,
  Entry,
  Inspection,
  Key,
  Segment,
  StaleEntry,
  Stats,
} from "./cache/types.ts";
export type { LoadTrace } from "./coordinate/loading.ts";
export type { HeldLock, Lock, LockOptions, LockState, Locks, PendingLock } from "./coordinate/locks.ts";
export type { WaitForOptions, WatchOptions } from "./coordinate/options.ts";
export {
  type RateLimitHeadersOptions,
  type RateLimitOptions,
  type RateLimitResult,
  rateLimitHeaders,
} from "./coordinate/rate-limit.ts";
export { CacheError, type CacheErrorCode } from "./errors.ts";
export type {
  ExportOptions,
  ExportProgress,
  ExportResult,
  FileUrl,
  ImportOptions,
  ImportProgress,
  ImportResult,
  SnapshotSource,
  SnapshotTarget,
} from "./snapshot/options.ts";
export type { Codec } from "./values/codec.ts";
export type { RateLimitAlgorithm, RateLimitState } from "./values/limit.ts";
export { createCache };

/** Joins the cache of a handle, which another thread of this page has posted. */
export function attachCache<V = any, K extends Key = string>(handle: CacheHandle, options?: CacheOptions): Cache<V, K> {
  const checked = checkHandle(handle);
  if (checked.reach !== "threads") throw noProcesses();
  return attachThreads<V, K>(checked, options);
}

/**
 * Always throws: processes cannot share a cache in a browser, and without environment data a worker could not find a cache by its
 * name, so there is nothing to fall back to either.
 */
export function openCache(_name?: string, _options?: OpenOptions): never {
  throw noProcesses();
}

/** Always throws: processes cannot share a cache in a browser. */
export function destroyCache(_name?: string): never {
  throw noProcesses();
}

function noProcesses(): CacheError {
  return unsupported(
    "processes cannot share a cache in a browser or an edge runtime. Use createCache, and attachCache(cache.handle) in workers.",
  );
}
