/** A short run of simulated hosts under fire; `npm run soak:tier` runs for as long as you like. */

import { describe, expect, test } from "vitest";
import { fire } from "./fire.mjs";
import { NO_SERVER, SERVERS } from "./servers.ts";

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));

describe.skipIf(NO_SERVER)("two hosts with two processes and a thread each", () => {
  test.each([
    ["everything but loss of data", {}],
    ["a server that loses its data", { losses: true, flights: "all" }],
  ])(`%s (SEED=${seed})`, async (_, plan) => {
    const { violations, history, ...found } = await fire({
      seed,
      ms: 7_000,
      gap: 0.6,
      lease: 700,
      timeout: 700,
      server: SERVERS[0],
      ...plan,
    });
    expect(violations.slice(0, 3)).toEqual([]);
    // The run was one: all kinds of calls, and faults in the middle of them.
    expect(found.reads).toBeGreaterThan(1_000);
    expect(found.writes).toBeGreaterThan(50);
    expect(found.loads).toBeGreaterThan(5);
    expect(found.kills + found.terminations + found.freezes).toBeGreaterThan(1);
    expect(found.cuts + found.delays + found.stalls + found.restarts + found.pauses).toBeGreaterThan(1);
  });
});
