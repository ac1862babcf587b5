/**
 * A worker: looks a tile up in the cache, and renders and stores it if it is missing. The page reads the tile from the shared cache,
 * so the answer does not contain it.
 */

import { attachCache } from "cache-machine";
import { expose, transfer } from "comlink";
import { keyOf, renderTile } from "./fractal.mjs";

let cache;
let number;
let shared;

expose({
  /** Joins the cache of this handle, and uses it from now on. */
  join(handle, me, isShared) {
    cache?.close();
    // Without a near cache, because bytes are copied at each read anyway.
    cache = attachCache(handle, { nearCache: 0 });
    number = me;
    shared = isShared;
  },

  /** Provides a tile: whether it was in the cache, and which worker has rendered it. */
  tile(place) {
    const key = keyOf(place);
    const there = cache.get(key);
    const bytes = there ?? renderTile(place, number);
    if (there === undefined) cache.set(key, bytes);
    const answer = { found: there !== undefined, by: bytes[0] };
    return shared ? answer : transfer({ ...answer, bytes }, [bytes.buffer]);
  },

  /** Reads random tiles for `ms` milliseconds: the number of reads, and of hits. */
  read(keys, ms) {
    const end = performance.now() + ms;
    let reads = 0;
    let hits = 0;
    while (keys.length > 0 && performance.now() < end) {
      for (let i = 0; i < 64; i++, reads++) {
        if (cache.get(keys[Math.floor(Math.random() * keys.length)]) !== undefined) hits++;
      }
    }
    return { reads, hits };
  },
});
