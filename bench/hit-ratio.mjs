/**
 * Measures hit ratios: replays each trace against a small cache of this package and against the reference eviction policies.
 * A policy may hold as many entries as the cache of this package held on the same trace. Each miss is followed by a `set`,
 * as in an application.
 */

import { createCache } from "../dist/index.js";
import { Clock, Lru, S3Fifo } from "./eviction-policies.mjs";
import { requests, TRACES } from "./traces.mjs";

const SIZE = 4 << 20;
const VALUE = "v".repeat(200);
/** How often the entries of the cache are counted during a trace; each count walks the index. */
const SAMPLES = 50;

/** Number of entries that the cache holds when every key is stored once. */
function capacity() {
  const cache = createCache({ size: SIZE, nearCache: 0 });
  for (let i = 0; i < 100_000; i++) cache.set(`user:${100_000 + i}`, VALUE);
  const held = cache.size;
  cache.close();
  return held;
}

/** Replays a trace against this package: the hit ratio from request `from` on, and the mean number of entries in that time. */
function replayOurs(trace, from) {
  const cache = createCache({ size: SIZE, nearCache: 0 });
  const every = Math.ceil((trace.length - from) / SAMPLES);
  let hits = 0;
  let held = 0;
  let samples = 0;
  for (let i = 0; i < trace.length; i++) {
    const key = `user:${100_000 + trace[i]}`;
    if (cache.get(key) === undefined) cache.set(key, VALUE);
    else if (i >= from) hits++;
    if (i >= from && (i - from) % every === 0) {
      held += cache.size;
      samples++;
    }
  }
  cache.close();
  return { ratio: hits / (trace.length - from), held: Math.round(held / samples) };
}

function replay(policy, trace, from) {
  let hits = 0;
  for (let i = 0; i < trace.length; i++) if (policy.ask(trace[i]) && i >= from) hits++;
  return hits / (trace.length - from);
}

/** `{ unit, size, seed, traces: { name: { held, ours, s3fifo, lru, clock } } }`; the first third warms up. */
export async function hits({ quick, seed }) {
  const unit = capacity();
  const results = { unit, size: SIZE, seed, count: unit * (quick ? 15 : 60), traces: {} };
  const from = Math.floor(results.count / 3);
  for (const name of Object.keys(TRACES)) {
    // Lets a signal handler run between two traces.
    await new Promise(setImmediate);
    const trace = requests(name, unit, results.count, seed);
    const { ratio, held } = replayOurs(trace, from);
    results.traces[name] = {
      held,
      ours: ratio,
      s3fifo: replay(new S3Fifo(held), trace, from),
      lru: replay(new Lru(held), trace, from),
      clock: replay(new Clock(held), trace, from),
    };
  }
  return results;
}
