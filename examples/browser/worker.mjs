/**
 * A worker: looks a tile up in the cache, and renders and stores it when it is not there. Who shares the cache reads the
 * tile from there, so the answer does not carry it.
 */

import { attachCache } from "cache-machine";
import { expose, transfer } from "comlink";
import { keyOf, renderTile } from "./fractal.mjs";

let cache;
let number;
let shared;

expose({
  /** Uses the cache that a handle stands for from now on. */
  join(handle, me, isShared) {
    cache?.close();
    // Bytes are copied at each read, so there is nothing to keep near.
    cache = attachCache(handle, { nearCache: 0 });
    number = me;
    shared = isShared;
  },

  /** Whether the tile was there, and which worker has made it. */
  tile(place) {
    const key = keyOf(place);
    const there = cache.get(key);
    const bytes = there ?? renderTile(place, number);
    if (there === undefined) cache.set(key, bytes);
    const answer = { found: there !== undefined, by: bytes[0] };
    return shared ? answer : transfer({ ...answer, bytes }, [bytes.buffer]);
  },

  /** Reads tiles at random for so many milliseconds: how many reads, and how many of them found one. */
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
