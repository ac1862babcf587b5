/**
 * The benchmark of the tier: what it calls stale, on histories that are written here, and that a run of a second tells the truth about
 * what can be checked without a clock: the same work for all contenders, the commands it takes, no value that is lost.
 */

import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, describe, expect, test } from "vitest";
import { compare, countStale, WATCHED_KEYS } from "../../bench/tier/staleness.mjs";
import { NO_SERVER, SERVERS } from "./servers.ts";

const WATCHDOG_MS = 300_000;
const root = fileURLToPath(new URL("../..", import.meta.url));
const out = fs.mkdtempSync(path.join(os.tmpdir(), "bench-tier-test-"));

afterAll(() => fs.rmSync(out, { recursive: true, force: true }));

/** What one reader saw: each read as the number whose key it asked for, the number it got, and when it began and ended. */
function reader(...reads: [asked: number, got: number, begun: number, ended: number][]): Float64Array {
  return Float64Array.from(reads.flat());
}

describe("staleness of a recorded history", () => {
  const later = WATCHED_KEYS;
  const writes = [
    [later, 100, 110],
    [2 * later, 200, 210],
  ];

  test("a read is stale from the acknowledgement of a newer number on, by the time at which it began", () => {
    const seen = reader([0, 0, 90, 91], [0, 0, 109, 140], [0, 0, 125, 126], [0, later, 130, 131], [0, later, 215, 216]);
    const { last, first } = compare(writes, [seen]);
    expect([...last]).toEqual([5, 15]);
    expect([...first]).toEqual([31]);
  });

  test("a number that was not acknowledged demands nothing, and may be seen", () => {
    const doubtful = [...writes, [3 * later, 300, Number.NaN]];
    const seen = reader([0, 2 * later, 320, 321], [0, 3 * later, 330, 331]);
    expect([...compare(doubtful, [seen]).last]).toEqual([0, 0]);
    expect(countStale(doubtful, 0, [2 * later])).toBe(0);
  });

  test("an old number after the end counts, also one that is older by more than one write", () => {
    const seen = reader([0, 0, 400, 401]);
    expect([...compare(writes, [seen]).last]).toEqual([190, 290]);
    expect(countStale(writes, 0, [later])).toBe(1);
    expect(countStale(writes, 1, [1])).toBe(0);
  });
});

test.skipIf(NO_SERVER)(
  "a short run of the benchmark compares contenders that did the same work",
  async () => {
    const contenders = ["tier", "server", "client-side"];
    const size = ["--seconds", "0.2", "--rounds", "1", "--keys", "300", "--processes", "2", "--writes", "0.1"];
    const args = ["bench/tier/run.mjs", "--only", contenders.join(), ...size, "--out", out];
    const env = { ...process.env, REDIS_SERVER: SERVERS[0]?.program };
    await promisify(execFile)(process.execPath, args, { cwd: root, env, timeout: WATCHDOG_MS });
    const { speed, work, staleness, micro } = JSON.parse(fs.readFileSync(path.join(out, "tier.json"), "utf8"));
    for (const kind of ["small", "large"]) {
      for (const name of contenders) {
        expect(speed[kind][name]).toHaveLength(1);
        expect(speed[kind][name][0]["0.1"]).toMatchObject({ missing: 0, failed: 0 });
        expect(speed[kind][name][0]["0.1"].readsPerSecond).toBeGreaterThan(0);
      }
    }
    expect(work).toHaveLength(2);
    for (const row of work) {
      const { tier, server } = row.contenders;
      for (const name of contenders) {
        const { warm } = row.contenders[name];
        const { reads, writes } = server.warm;
        expect(warm).toMatchObject({ reads, writes, missing: 0, failed: 0 });
      }
      expect(server.warm.total).toBe(server.warm.reads + server.warm.writes);
      expect(server.warm.commands).toEqual({ GET: server.warm.reads, SET: server.warm.writes });
      expect(tier.warm.commands.GET).toBeLessThan(server.warm.reads);
      expect(tier.warm.commands.TIME).toBeGreaterThan(0);
    }
    for (const name of contenders) {
      expect(Object.keys(staleness[name])).toEqual(["peace", "killed", "cut", "frozen", "restarted"]);
      expect(staleness[name].peace).toMatchObject({ missing: 0, failed: 0, unacknowledged: 0, staleLater: 0 });
      expect(staleness[name].peace.samples).toBeGreaterThan(0);
    }
    for (const ns of Object.values(micro[0].ns)) expect(ns).toBeGreaterThan(0);
    const page = fs.readFileSync(path.join(out, "tier.md"), "utf8");
    for (const title of ["Reads per second", "Commands for the same work", "Staleness", "What a read of"]) {
      expect(page).toContain(`\n## ${title}`);
    }
    expect(page).not.toMatch(/undefined|NaN/);
  },
  WATCHDOG_MS,
);
