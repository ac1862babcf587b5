/**
 * Tests that a lock is never held by two: participants that are killed and frozen at random moments count in two steps.
 * `COUNT_SEED=7 npx vitest run test/coordinate/counter.test.ts` replays the random choices; the moments also depend on the scheduler.
 * `node test/coordinate/count.mjs 100000 200` runs for longer.
 */

import { expect, test } from "vitest";
import { count } from "./count.mjs";

const seed = Number(process.env.COUNT_SEED ?? Math.floor(Math.random() * 1e9));

test("a counter that is read and written in two steps under a lock, by 4 processes with 2 threads each, of which 20 are killed, is exact", {
  timeout: 180_000,
}, async () => {
  console.log(`COUNT_SEED=${seed}`);
  const result = await count({ sections: 10_000, kills: 20, seed });
  console.log(JSON.stringify(result));
  expect(result.killed).toBe(20);
});
