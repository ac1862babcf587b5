/** The part of the conformance suite that compares random operations of several participants with a Map. */

import { ok, same } from "./assert.ts";
import type { Define } from "./check.ts";
import { bytes, text } from "./samples.ts";

const SEEDS = [1, 2];
const OPERATIONS = 800;
const TAGS = ["t", "u", "v"];

interface Known {
  value: unknown;
  expiresAt: number;
  tags: string[];
}

/** Adds the checks; their names contain the seeds. */
export function model(check: Define): void {
  for (const seed of SEEDS) {
    check(
      `${OPERATIONS} random operations have the same results as on a Map (seed ${seed})`,
      ({ cache, another, clock }) => {
        const sides = [cache, another(), another({ nearCache: 0 })];
        const known = new Map<string, Known>();
        const random = generator(seed);
        const pick = <T>(of: readonly T[]): T => of[random(of.length)] as T;
        const live = (key: string): Known | undefined => {
          const entry = known.get(key);
          if (entry !== undefined && entry.expiresAt <= clock.now) known.delete(key);
          return known.get(key);
        };
        const aValue = (): unknown =>
          pick([
            () => random(1000),
            () => `text ${random(1000)}`,
            () => ({ n: random(10), list: ["→", random(10)] }),
            () => bytes(random(300), seed),
            () => text(random(20_000), seed),
            () => (random(8) === 0 ? bytes(100_000 + random(50_000), seed) : true),
          ])();

        for (let i = 0; i < OPERATIONS; i++) {
          const side = pick(sides);
          const key = `key ${random(40)}`;
          const before = live(key);
          const value = aValue();
          const ttl = random(3) === 0 ? 1 + random(200) : Number.POSITIVE_INFINITY;
          const tags = TAGS.filter(() => random(4) === 0);
          const store = (stored: unknown): void => {
            known.set(key, { value: stored, expiresAt: clock.now + ttl, tags });
          };
          const place = `operation ${i}, ${key}`;
          switch (random(14)) {
            case 0:
            case 1:
              side.set(key, value, { ttl, tags });
              store(value);
              break;
            case 2:
              same(side.add(key, value, { ttl, tags }), before === undefined, place);
              if (before === undefined) store(value);
              break;
            case 3:
              same(side.replace(key, value, { ttl, tags }), before !== undefined, place);
              if (before !== undefined) store(value);
              break;
            case 4:
              same(side.delete(key), known.delete(key), place);
              break;
            case 5:
              same(side.take(key), before?.value, place);
              known.delete(key);
              break;
            case 6: {
              if (before !== undefined && typeof before.value !== "number") break;
              const sum = ((before?.value as number | undefined) ?? 5) + random(9);
              same(
                side.increment(key, sum - ((before?.value as number | undefined) ?? 5), { initial: 5, ttl }),
                sum,
                place,
              );
              if (before !== undefined) before.value = sum;
              else known.set(key, { value: sum, expiresAt: clock.now + ttl, tags: [] });
              break;
            }
            case 7:
              same(side.touch(key, ttl), before !== undefined, place);
              if (before !== undefined) before.expiresAt = clock.now + ttl;
              break;
            case 8: {
              const { version = 0 } = side.getEntry(key) ?? {};
              const stale = random(2) === 0;
              if (stale) {
                pick(sides).set(key, "in between");
                known.set(key, { value: "in between", expiresAt: Number.POSITIVE_INFINITY, tags: [] });
              }
              same(side.compareAndSet(key, version, value, { ttl, tags }), !stale, place);
              if (!stale) store(value);
              break;
            }
            case 9: {
              const tag = pick(TAGS);
              if (random(4) > 0) break;
              side.invalidateTag(tag);
              for (const [other, entry] of known) if (entry.tags.includes(tag)) known.delete(other);
              break;
            }
            case 10:
              clock.now += random(60);
              break;
            case 11:
              if (random(100) > 0) break;
              side.clear();
              known.clear();
              break;
            default: {
              const entry = side.getEntry(key);
              same(entry?.value, before?.value, place);
              same([entry?.expiresAt, entry?.tags], [before?.expiresAt, before?.tags], place);
            }
          }
          const now = live(key);
          for (const reader of sides) same(reader.get(key), now?.value, place);
          ok(pick(sides).has(key) === (now !== undefined), place);
        }
        for (const key of known.keys()) live(key);
        for (const side of sides) {
          same(side.size, known.size);
          const found = new Map(side.entries());
          for (const [key, { value }] of known) same(found.get(key), value, key);
        }
      },
    );
  }
}

/** A generator of whole numbers below a limit, repeatable by its seed. */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}
