/**
 * The cache and its namespaces. Every process and every worker thread that imports this file opens the same cache by its name,
 * without messages, handles or a server.
 */

import { openCache } from "cache-machine";
import { cacheName, cacheSize } from "./settings.mjs";

export const cache = openCache(cacheName, { size: cacheSize });

/** Rendered pages by path, as bytes, because responses are bytes. */
export const pages = cache.namespace("pages");
/** The process and thread that rendered a page, by path. */
export const origins = cache.namespace("origins");
/** Results that clients have posted, by path. */
export const results = cache.namespace("results");
