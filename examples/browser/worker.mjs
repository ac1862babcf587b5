/**
 * A worker: provides tiles through the cache. If a tile is missing there, one worker renders it, and the others that want it at that
 * time wait for that one. The page reads the tile from the shared cache, so the answer does not contain it.
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

  /**
   * Provides a tile: the number of the worker that has rendered it, and the outcome. It was there ("hit"), this worker has rendered
   * it ("loaded"), or it has waited for another one that was rendering it ("joined").
   */
  async tile(place) {
    let outcome;
    const key = keyOf(place);
    const bytes = await cache.getOrSet(key, () => render(place, key), { onOutcome: (how) => (outcome = how) });
    const answer = { outcome, by: bytes[0] };
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

function render(place, key) {
  // The page shows what each worker is doing.
  postMessage({ rendering: key });
  return renderTile(place, number);
}
