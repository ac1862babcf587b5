/** The types of the public interface that describe data: keys, entries, and the reports of a cache about itself. */

/**
 * A key: a string, or bytes. A string and its bytes are different keys. A key has at most 4,096 bytes, also in a namespace; a
 * string counts in UTF-8, or in UTF-16 if it has lone surrogates. With a longer key, operations that read or remove find no
 * entry, and operations that store throw `ERR_TOO_LARGE`.
 */
export type Key = string | Uint8Array;

/** Stands for a cache in `attachCache`. Pass it to a worker through `workerData`, `postMessage` or `setEnvironmentData`. */
export interface CacheHandle {
  readonly reach: "threads" | "processes";
  /** Identity of the engine: only the same version of this package can join the cache. */
  readonly build: string;
  // The other properties are not public. Their types are not known in every project that uses this package.
}

/** An entry: its value, version, expiry and tags. */
export interface Entry<V> {
  value: V;
  /** Another number after every change of the value; no number comes back. For {@link Cache.compareAndSet}. */
  version: number;
  /** When the entry expires, in milliseconds of the cache's clock; `Infinity` for an entry that does not expire. */
  expiresAt: number;
  tags: string[];
}

/** An entry that may have expired: see {@link Cache.getStale}. */
export interface StaleEntry<V> extends Entry<V> {
  /** Whether the entry has expired, so that `get` does not find it any more. */
  stale: boolean;
}

/** A number after an increment, with the expiry and the version of its entry as in {@link Entry}. */
export interface CountedEntry {
  value: number;
  expiresAt: number;
  version: number;
}

/** Numbers about a cache, for all its participants together. {@link Cache.stats} returns them. */
export interface Stats {
  /** Bytes of all segments of the memory: the most that entries can take. */
  capacity: number;
  /** Bytes of the segments that are in use, with the dead records in them and the room that is left in them. */
  used: number;
  /** Bytes of shared memory: the `size` with which the cache was created. */
  size: number;
  /** Threads that have the cache open now, in all processes. */
  participants: number;
  /** Reads that found a value; `has`, `ttl` and iteration do not count. */
  hits: number;
  /** Reads that found no value. Reads of keys that are too long for any entry do not count. */
  misses: number;
  /** Values stored, increments included. */
  sets: number;
  /** Entries removed by `delete` and `take`. */
  deletes: number;
  /** Entries that had to make room for others. */
  evictions: number;
  /** Expired entries whose memory was taken back. */
  expirations: number;
  /** Segments of memory that were emptied to be used again. */
  reclaims: number;
  /** Those of the `reclaims` that moved all live entries to other segments, because most of the segment was dead. */
  compactions: number;
  /** The near cache of this `Cache`: how many decoded values it keeps, and the bytes of heap that they take, by estimate. */
  near: { entries: number; bytes: number };
}

/** How much a cache holds. {@link Cache.census} returns it. */
export interface Census {
  /** Entries that can be read now, those of namespaces included. */
  entries: number;
  /** Bytes that these entries take, overhead included. */
  bytes: number;
}

/** A short description of a cache, for logs. */
export interface CacheSummary {
  reach: "threads" | "processes";
  /** The name by which `openCache` opened the cache. */
  name?: string;
  /** The names of the namespaces, the outermost first, joined by `/`. */
  namespace?: string;
  /** Bytes of shared memory. */
  size: number;
  /** Threads that have the cache open now, in all processes. */
  participants?: number;
  /** Whether `close` was called. */
  closed?: true;
}

/** A segment: a piece of the memory into which entries are written one after the other. */
export interface Segment {
  /** `"free"` is not in use, `"open"` takes entries, `"sealed"` is full, `"reclaim"` is being emptied to be used again. */
  state: "free" | "open" | "sealed" | "reclaim";
  /** `"small"` holds entries on probation, `"main"` those that were read again. */
  class: "small" | "main";
  /** Bytes written. */
  used: number;
  /** Bytes of `used` that belong to entries which still exist. */
  live: number;
  /** Grows each time the segment is emptied. */
  generation: number;
}

/** A picture of the memory of a cache. */
export interface Inspection {
  segments: Segment[];
  /** Bytes that each segment has room for. */
  segmentBytes: number;
  /** Parts of the index, all of the same size: how many entries each has, and how many ghosts (traces of evicted entries). */
  index: { live: number; ghosts: number }[];
  /** How many entries each part of the index has room for. */
  indexPartEntries: number;
}
