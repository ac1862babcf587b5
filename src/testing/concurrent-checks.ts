/**
 * The part of the conformance suite that several participants, threads or processes, run together on one cache. They wait for each
 * other at barriers, which are counters in the same cache.
 */

import type { Cache } from "../index.ts";
import { ok, same } from "./assert.ts";
import { until } from "./patience.ts";
import { bytes, lengths, text, values } from "./samples.ts";

/** One of the participants of {@link meet}. */
export interface Member {
  /** The cache, which is empty and which all participants share. */
  readonly cache: Cache;
  /** 0, 1 … */
  readonly number: number;
  /** How many there are. */
  readonly count: number;
  /** Length of the longest value to store, in bytes. */
  readonly largest: number;
}

const COUNTS = 1000;
const UPDATES = 100;
const PRIZES = 100;
const PATIENCE_MS = 60_000;

/**
 * Runs the checks of a `Cache` that several threads or processes make together. All `count` participants must call it, each with its
 * own `number`. Rejects when a promise is not kept, or when one of the others does not come within a minute.
 */
export async function meet({ cache, number, count, largest }: Member): Promise<void> {
  const everyone = Array.from({ length: count }, (_, i) => i);
  let barriers = 0;
  const barrier = async (): Promise<void> => {
    const name = `barrier ${barriers++}`;
    cache.increment(name);
    await until(() => cache.get(name) === count, name, PATIENCE_MS);
  };

  await barrier();
  // No increment is lost, whether it creates the counter or changes a number that was set.
  if (number === 0) cache.set("sum", 1000);
  await barrier();
  for (let i = 0; i < COUNTS; i++) {
    cache.increment("sum");
    cache.decrement("difference", 0.5);
    if (i % 100 === 0) cache.increment(`new ${i}`, number + 1, { initial: 10 });
  }
  await barrier();
  same(cache.get("sum"), 1000 + COUNTS * count);
  same(cache.get("difference"), -0.5 * COUNTS * count);
  for (let i = 0; i < COUNTS; i += 100) same(cache.get(`new ${i}`), 10 + (count * (count + 1)) / 2);

  // Of all requests together exactly as many go through as a rate limit says. The windows are too long to end meanwhile.
  for (const algorithm of ["gcra", "fixed", "sliding"] as const) {
    const name = `limit ${algorithm}`;
    let through = 0;
    const rule = { limit: COUNTS, window: 1e10, algorithm };
    for (let i = 0; i < COUNTS; i++) if (cache.rateLimit(name, rule).allowed) through++;
    cache.increment(`through ${algorithm}`, through);
    await barrier();
    same(cache.get(`through ${algorithm}`), COUNTS);
  }

  // If all participants add the same key at the same time, exactly one succeeds; the same holds for take.
  let won = 0;
  for (let i = 0; i < PRIZES; i++) if (cache.add(`prize ${i}`, { winner: number })) won++;
  cache.increment("won", won);
  await barrier();
  same(cache.get("won"), PRIZES);
  for (const other of everyone) {
    const winners = Array.from({ length: PRIZES }, (_, i) => (cache.get(`prize ${i}`) as { winner: number }).winner);
    if (other === number) same(winners.filter((winner) => winner === number).length, won);
  }
  await barrier();
  for (let i = 0; i < PRIZES; i++) if (cache.take(`prize ${i}`) !== undefined) cache.increment("taken");
  await barrier();
  same(cache.get("taken"), PRIZES);
  for (let i = 0; i < PRIZES; i++) same(cache.get(`prize ${i}`), undefined);

  // No update is lost.
  for (let i = 0; i < UPDATES; i++) {
    cache.update("list", (seen: Record<string, number> = {}) => ({ ...seen, [number]: (seen[number] ?? 0) + 1 }));
  }
  await barrier();
  same(cache.get("list"), Object.fromEntries(everyone.map((other) => [String(other), UPDATES])));
  await barrier();

  // A value that one participant has set is read by the others at once, also in place of one they have just read; then it is removed.
  for (const writer of everyone) {
    const stored: [string, unknown][] = [
      ...values(),
      ...lengths(largest).flatMap((length): [string, unknown][] => [
        [`text ${length}`, text(length, writer)],
        [`bytes ${length}`, bytes(length, writer)],
      ]),
    ];
    if (writer === number) for (const [key, value] of stored) cache.set(key, value, { tags: ["all", key] });
    await barrier();
    for (const [key, value] of stored) same(cache.get(key), value, key);
    await barrier();
    if (writer === number) {
      for (const [key] of stored.slice(0, 40)) cache.set(key, `${key} by ${writer}`, { tags: ["all"] });
      for (const [key] of stored.slice(40, 50)) cache.delete(key);
      for (const [key] of stored.slice(50, 52)) cache.invalidateTag(key);
    }
    await barrier();
    for (const [key] of stored.slice(0, 40)) same(cache.get(key), `${key} by ${writer}`);
    for (const [key] of stored.slice(40, 52)) same(cache.get(key), undefined);
    await barrier();
    if (writer === number) cache.invalidateTag("all");
    await barrier();
    for (const [key] of stored) ok(cache.get(key) === undefined && !cache.has(key), `${key} is gone`);
    await barrier();
  }

  // A namespace is the same part of the cache for all participants, and clearing it leaves the rest as it was.
  const part = cache.namespace("meeting");
  part.set(`by ${number}`, number);
  cache.set(`kept ${number}`, "kept");
  await barrier();
  same(
    everyone.map((other) => part.get(`by ${other}`)),
    everyone,
  );
  same([...part.values()].sort(), everyone);
  await barrier();
  if (number === count - 1) part.clear();
  await barrier();
  same([part.size, everyone.map((other) => part.get(`by ${other}`))], [0, everyone.map(() => undefined)]);
  for (const other of everyone) same(cache.get(`kept ${other}`), "kept");
  ok(cache.stats().participants >= count, "all are counted as participants");
  await barrier();
  // Clearing removes the barriers too, so first everybody must have passed the last one.
  cache.set(`passed ${number}`, true);
  if (number === 0) {
    await until(() => everyone.every((other) => cache.has(`passed ${other}`)), "everyone to pass", PATIENCE_MS);
    cache.clear();
  }
  await until(() => cache.get("kept 0") === undefined, "clear", PATIENCE_MS);
  for (const other of everyone) same(cache.get(`kept ${other}`), undefined);
}
