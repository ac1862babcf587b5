/**
 * cache-machine: one cache for all threads and processes. This is the package as Node.js sees it.
 *
 * - `openCache` and `destroyCache`: a cache in memory of the machine, by its name.
 * - `createCache`: a cache in memory of this process, for its threads.
 * - `attachCache`: joins a cache of either kind in another thread, by its handle.
 * - `exportCache` and `importCache`: the entries of a cache in a file.
 * - `set` and `get`: the application's own cache, without configuration.
 *
 * @packageDocumentation
 */

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
export { attachCache, destroyCache, get, openCache, set } from "./open/processes.ts";
export { createCache } from "./open/threads.ts";
export { exportCache } from "./snapshot/export.ts";
export { importCache } from "./snapshot/import.ts";
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
