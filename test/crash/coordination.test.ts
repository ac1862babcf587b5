/**
 * Tests that coordination survives participants that are killed, terminated and frozen at random moments: loads, waits, locks and
 * limits. The driver (coordination.mjs) starts and ends them, and all of them check what they see.
 *
 * `CRASH_SEED=7 npx vitest run test/crash/coordination.test.ts` replays the random choices; the moments also depend on the scheduler.
 * `CRASH_ROUNDS` is the number of deaths of each kind. `npm run soak` makes many.
 */

import { expect, it } from "vitest";
import { coordinate } from "./coordination.mjs";

const seed = Number(process.env.CRASH_SEED ?? Math.floor(Math.random() * 1e9));
const rounds = Number(process.env.CRASH_ROUNDS ?? 24);
console.log(`CRASH_SEED=${seed} CRASH_ROUNDS=${rounds}`);

it.each([
  ["kill", "processes", true, rounds],
  ["kill", "processes", false, rounds],
  ["terminate", "processes", true, rounds / 2],
  ["terminate", "threads", true, rounds],
  ["freeze", "processes", true, 2],
] as const)(
  "after each %s of a participant (reach %s, roomy %s), the others load, wait, lock and limit rightly",
  {
    timeout: 240_000,
  },
  async (how, reach, roomy, deaths) => {
    const result = await coordinate({ how, reach, roomy, deaths, seed });
    console.log(how, reach, JSON.stringify(result));
    expect(result.deaths).toBe(deaths);
    for (const count of [result.loads, result.joined, result.sections, result.granted, result.waits]) {
      expect(count).toBeGreaterThan(0);
    }
  },
);
