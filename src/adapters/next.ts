/**
 * `cache-machine/next`: a handler for `cacheHandlers` of Next.js, which keeps what `"use cache"` functions return. All processes that
 * serve an application have the same entries, and an invalidation reaches all of them at once. Over a tier so do all machines.
 *
 * @packageDocumentation
 */

import { storableKey } from "./keys.ts";
import {
  checkNextOptions,
  clockDifference,
  type Freshness,
  NextCache,
  type NextCacheOptions,
  type Opened,
  pack,
  type TagDurations,
  unlessAway,
  unpack,
} from "./next-cache.ts";
import { run, type Steps } from "./promises.ts";

export type { NextCacheOptions, TagDurations } from "./next-cache.ts";

/** An entry as Next.js hands it over and gets it back. */
export interface NextCacheEntry {
  /** What the function has returned, as a stream that can be read once. */
  value: ReadableStream<Uint8Array>;
  tags: string[];
  /** Seconds for which a browser uses the entry without asking. */
  stale: number;
  /** When the function was called: milliseconds of the clock of Next.js in this process. */
  timestamp: number;
  /** Seconds after which the entry must not be used. */
  expire: number;
  /** Seconds after which the entry is made anew while it is still used; -1 when one of its tags says so. */
  revalidate: number;
}

/** A handler for `cacheHandlers`, as Next.js 16 wants it. */
export interface NextCacheHandler {
  /** Returns an entry, or `undefined` when there is none, or one of its tags or of `softTags` has expired since it was made. */
  get(cacheKey: string, softTags: string[]): Promise<NextCacheEntry | undefined>;
  /** Stores an entry once its stream has ended. Stores nothing when the stream fails, or when the entry is too large. */
  set(cacheKey: string, pendingEntry: Promise<NextCacheEntry>): Promise<void>;
  /** Does nothing: each process sees what another one has invalidated. */
  refreshTags(): Promise<void>;
  /**
   * Returns when one of the tags last expired, in milliseconds of the clock of Next.js in this process; 0 for never. `Infinity`, which
   * tells Next.js to leave the decision to `get`, when the server of a tier is away.
   */
  getExpiration(tags: string[]): Promise<number>;
  /**
   * Lets tags expire in all processes. With `durations` the tags become stale instead: entries are used once more and made anew, and
   * expire `durations.expire` seconds later. Rejected with `ERR_UNREACHABLE` when the server of a tier is away.
   */
  updateTags(tags: string[], durations?: TagDurations): Promise<void>;
}

/** What is stored of an entry beside its bytes. `timestamp` is a time of the clock of the cache or of the tier here. */
type Metadata = Omit<NextCacheEntry, "value">;

/** The dev server keeps entries for at least so many seconds. */
const DEV_MIN_EXPIRE = 300;

/**
 * Creates a handler for `cacheHandlers`. The cache is opened when the handler is used for the first time, and stays open until the
 * process ends.
 *
 * ```js
 * // cache-handler.mjs
 * import { createCacheHandler } from "cache-machine/next";
 *
 * export default createCacheHandler({ name: "shop", size: "256mb" });
 * ```
 *
 * @throws {TypeError} naming the option that is wrong. A wrong `name` or `size` is an error when the handler is used.
 */
export function createCacheHandler(options: NextCacheOptions = {}): NextCacheHandler {
  const next = new NextCache(checkNextOptions(options));
  const keyOf = (cacheKey: string): string => storableKey(`use cache ${cacheKey}`);
  /** The entries that are being stored by this process. */
  const pending = new Map<string, Promise<void>>();

  return {
    async get(cacheKey, softTags) {
      const key = keyOf(cacheKey);
      await pending.get(key);
      return unlessAway(() => run(find(next, key, softTags)), undefined);
    },

    async set(cacheKey, pendingEntry) {
      const key = keyOf(cacheKey);
      const stored = store(next, key, pendingEntry).finally(() => {
        if (pending.get(key) === stored) pending.delete(key);
      });
      pending.set(key, stored);
      await stored;
    },

    async refreshTags() {},

    async getExpiration(tags) {
      return unlessAway(() => run(expiration(next, tags)), Infinity);
    },

    async updateTags(tags, durations) {
      return next.update(tags, durations);
    },
  };
}

function* find(next: NextCache, key: string, softTags: string[]): Steps<NextCacheEntry | undefined> {
  const opened: Opened = yield next.open();
  const stored: Uint8Array | undefined = yield opened.entries.get(key);
  const now = opened.now();
  if (stored === undefined || now === undefined) return undefined;
  const { header, parts } = unpack<Metadata>(stored);
  const freshness: Freshness = yield opened.tags.freshness([...header.tags, ...softTags], header.timestamp, now);
  if (freshness === "expired") return undefined;
  return {
    ...header,
    // A millisecond less, so that the entry never seems to be younger than it is.
    timestamp: header.timestamp + clockDifference(now) - 1,
    revalidate: freshness === "stale" ? -1 : header.revalidate,
    value: streamOf(parts[0] as Buffer),
  };
}

async function store(next: NextCache, key: string, pendingEntry: Promise<NextCacheEntry>): Promise<void> {
  let entry: NextCacheEntry;
  let value: Uint8Array;
  try {
    entry = await pendingEntry;
    value = await collect(entry.value);
  } catch {
    // The function or its stream has failed. Next.js tells whoever called it.
    return;
  }
  return unlessAway(() => run(storing(next, key, entry, value)), undefined);
}

function* storing(next: NextCache, key: string, entry: NextCacheEntry, value: Uint8Array): Steps<void> {
  const opened: Opened = yield next.open();
  const now = opened.now();
  if (now === undefined) return;
  const { tags, stale, timestamp: atNext, expire, revalidate } = entry;
  const timestamp = atNext - clockDifference(now);
  // What another process has computed since then stays.
  if ((yield opened.tags.freshness(tags, timestamp, now)) === "expired") return;
  const metadata: Metadata = { tags, stale, timestamp, expire, revalidate };
  const seconds = process.env.__NEXT_DEV_SERVER ? Math.max(expire, DEV_MIN_EXPIRE) : expire;
  yield* opened.store(key, pack(metadata, [value]), timestamp + seconds * 1000 - now, tags);
}

function* expiration(next: NextCache, tags: string[]): Steps<number> {
  const opened: Opened = yield next.open();
  const at = yield* opened.tags.expiredAt(tags);
  if (at === 0) return 0;
  const now = opened.now();
  return now === undefined ? Infinity : at + clockDifference(now);
}

async function collect(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return Buffer.concat(chunks);
    chunks.push(value);
  }
}

function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      if (bytes.length > 0) controller.enqueue(bytes);
      controller.close();
    },
  });
}

/** The handler for `cacheHandlers`, on the cache that the environment names: `require.resolve("cache-machine/next")`. */
const cacheHandler: NextCacheHandler = createCacheHandler();

export { cacheHandler };
export default cacheHandler;
