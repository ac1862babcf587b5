/**
 * Traces: sequences of requests, each the number of a key, made from a seed. `unit` is roughly the number of entries that the
 * cache holds; the lengths of loops and scans are multiples of it.
 *
 * - zipf: independent requests; popularity falls with rank^-s.
 * - scans: zipf, interrupted by runs over keys that are requested only once.
 * - loop: the same keys again and again, a few more than the cache holds.
 * - shifting: zipf in which a tenth of the ranks are dealt again at regular intervals.
 * - drifting: a window of popular keys that moves on.
 * - mixture: zipf, a loop, and keys that are requested only once, chosen at random for each request.
 */

import { random, shuffled, zipfian } from "./random.mjs";

/** Keys from here on are requested only once, or belong to a loop beside a zipf. */
const ONCE = 1 << 28;

/** Zipfian requests; popular keys are scattered over the key space. */
function popular(count, exponent, next) {
  const keys = shuffled(count, next);
  const draw = zipfian(count, exponent, next);
  return { keys, ask: () => keys[draw()] };
}

export const TRACES = {
  "zipf 0.8": (unit, next) => popular(10 * unit, 0.8, next).ask,
  "zipf 1.0": (unit, next) => popular(10 * unit, 1, next).ask,
  "zipf 1.2": (unit, next) => popular(10 * unit, 1.2, next).ask,
  "zipf 1.0, many keys": (unit, next) => popular(100 * unit, 1, next).ask,

  "zipf and scans": (unit, next) => {
    const { ask } = popular(10 * unit, 1, next);
    let once = ONCE;
    let left = 0;
    let until = 4 * unit;
    return () => {
      if (left > 0) {
        left--;
        return once++;
      }
      if (--until === 0) {
        left = 2 * unit;
        until = 4 * unit;
      }
      return ask();
    };
  },

  "loop of 1.2 × the cache": (unit) => {
    const length = Math.ceil(1.2 * unit);
    let at = 0;
    return () => at++ % length;
  },

  "loop and zipf": (unit, next) => {
    const { ask } = popular(10 * unit, 1, next);
    const length = 2 * unit;
    let at = 0;
    return () => (next() < 0.5 ? ask() : ONCE + (at++ % length));
  },

  "shifting popularity": (unit, next) => {
    const count = 10 * unit;
    const { keys, ask } = popular(count, 1, next);
    let until = 5 * unit;
    return () => {
      if (--until === 0) {
        until = 5 * unit;
        for (let i = 0; i < count / 10; i++) {
          const [a, b] = [Math.floor(next() * count), Math.floor(next() * count)];
          [keys[a], keys[b]] = [keys[b], keys[a]];
        }
      }
      return ask();
    };
  },

  "drifting window": (unit, next) => {
    const draw = zipfian(2 * unit, 0.7, next);
    let asked = 0;
    return () => Math.floor(asked++ / 8) + draw();
  },

  mixture: (unit, next) => {
    const { ask } = popular(20 * unit, 0.9, next);
    const length = Math.ceil(1.5 * unit);
    let at = 0;
    let once = 2 * ONCE;
    return () => {
      const toss = next();
      if (toss < 0.6) return ask();
      return toss < 0.8 ? ONCE + (at++ % length) : once++;
    };
  },
};

/** The first `count` requests of a trace. */
export function requests(name, unit, count, seed) {
  const ask = TRACES[name](unit, random(seed));
  return Uint32Array.from({ length: count }, ask);
}
