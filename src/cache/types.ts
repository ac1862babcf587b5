/** The types of the public interface that are data: keys, entries, and what a cache tells about itself. */

/**
 * A key: text of up to 4,096 bytes of UTF-8 (of UTF-16 if it has lone surrogates), or as many bytes; in a namespace as well. A
 * string and its bytes are different keys. A longer one is a miss for whatever reads or removes, and `ERR_TOO_LARGE` for
 * whatever stores.
 */
export type Key = string | Uint8Array;

/** What a worker needs to have the same cache: pass it through `workerData`, `postMessage` or `setEnvironmentData`. */
export interface CacheHandle {
  readonly reach: "threads" | "processes";
  /** Identity of the engine: only the same version of this package can join. */
  readonly build: string;
  // What else is in it is between the threads, and needs types that not every project has.
}

/** An entry with what is known about it. */
export interface Entry<V> {
  value: V;
  /** Changes with every change of the value, and never comes back; for {@link Cache.compareAndSet}. */
  version: number;
  /** Milliseconds of the cache's clock, `Infinity` without expiry. */
  expiresAt: number;
  tags: string[];
}

/** Numbers about a cache, of all its participants together. */
export interface Stats {
  /** Entries that can be read now, those of namespaces included. Counting walks the index. */
  entries: number;
  /** Bytes that these entries take, overhead included. */
  bytes: number;
  /** Bytes that entries can take. */
  capacity: number;
  /** Bytes of the memory that hold anything, dead records included. */
  used: number;
  /** Bytes of shared memory, as asked for with `size`. */
  size: number;
  /** Threads that have the cache open now, in all processes. */
  participants: number;
  /** Reads that found a value; `has`, `ttl` and iteration do not count. */
  hits: number;
  /** Reads that found none. Those of keys that are too long for any entry do not count. */
  misses: number;
  /** Values stored, increments included. */
  sets: number;
  /** Entries removed by `delete` and `take`. */
  deletes: number;
  /** Entries that had to make room for others. */
  evictions: number;
  /** Expired entries whose memory was taken back. */
  expirations: number;
  /** Segments of memory that were emptied. */
  reclaims: number;
  /** Those of them that were emptied by moving what lived in them. */
  compactions: number;
  /** What this thread keeps of its own: decoded values, and the bytes of heap that they take, by estimate. */
  near: { entries: number; bytes: number };
}

/** What a cache is, in a log. */
export interface CacheSummary {
  reach: "threads" | "processes";
  /** As given to `openCache`. */
  name?: string;
  /** The names of a namespace, the outermost first. */
  namespace?: string;
  /** Bytes of shared memory. */
  size: number;
  /** Threads that have the cache open now, in all processes. */
  participants?: number;
  /** It was closed in this thread. */
  closed?: true;
}

/** A piece of the memory, into which entries are written one after the other. */
export interface Segment {
  /** `"open"` takes entries, `"sealed"` is full, and `"reclaim"` is being emptied to be used again. */
  state: "free" | "open" | "sealed" | "reclaim";
  /** `"small"` holds entries on probation, `"main"` those that were read again. */
  class: "small" | "main";
  /** Bytes written. */
  used: number;
  /** Those of them that belong to entries which are still there. */
  live: number;
  /** Grows whenever the segment is emptied. */
  generation: number;
}

/** A look into the memory of a cache. */
export interface Inspection {
  segments: Segment[];
  /** Bytes that each segment has room for. */
  segmentBytes: number;
  /** Parts of the index, all of the same size: entries, and those of entries that were evicted lately. */
  index: { live: number; ghosts: number }[];
  /** How many entries each part of the index has room for. */
  indexPartEntries: number;
}
