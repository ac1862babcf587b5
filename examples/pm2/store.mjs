/**
 * The cache, and what is in it. Every process and every worker thread that imports this file opens it by its name and
 * has the same one: no messages, no handles, no server in between.
 */

import { openCache } from "cache-machine";
import { cacheName, cacheSize } from "./settings.mjs";

export const cache = openCache(cacheName, { size: cacheSize });

/** Rendered pages by path. Bytes and not strings, since bytes are what a response is made of. */
export const pages = cache.namespace("pages");
/** Which thread of which process rendered a page, by the same path. */
export const origins = cache.namespace("origins");
/** What clients computed and posted, by path. */
export const results = cache.namespace("results");
