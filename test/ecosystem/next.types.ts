/** The handlers fit the types of Next.js without a cast: compiled by next.test.ts, never run. */

import { type Cache, createCache } from "cache-machine";
import cacheHandler, { createCacheHandler } from "cache-machine/next";
import IncrementalCacheHandler, { createIncrementalCacheHandler } from "cache-machine/next/incremental";
import type { NextConfig } from "next";
import type { CacheHandler } from "next/dist/server/lib/cache-handlers/types.js";
import type { CacheHandler as IncrementalHandler } from "next/dist/server/lib/incremental-cache/index.js";

const cache: Cache<string, Uint8Array> = createCache();
export const handlers: CacheHandler[] = [
  cacheHandler,
  createCacheHandler({ cache }),
  createCacheHandler({ size: "1mb" }),
];
export const classes: (typeof IncrementalHandler)[] = [
  IncrementalCacheHandler,
  createIncrementalCacheHandler({ name: "shop", path: "/dev/shm", size: 1_048_576 }),
];
export class OwnHandler extends IncrementalCacheHandler {}

export const config: NextConfig = {
  cacheHandlers: { default: import.meta.resolve("cache-machine/next") },
  cacheHandler: import.meta.resolve("cache-machine/next/incremental"),
};

// @ts-expect-error There is no such option.
createCacheHandler({ sise: "1mb" });
// @ts-expect-error A handler is not a class.
export const wrong: typeof IncrementalHandler = cacheHandler;
// @ts-expect-error Entries are not texts.
void cacheHandler.set("key", Promise.resolve("text"));
