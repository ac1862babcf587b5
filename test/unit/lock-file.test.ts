/** Who is alive in process reach: locks of single bytes of the cache file. */

import fs from "node:fs";
import { describe, expect, test } from "vitest";
import {
  directory,
  eventually,
  failure,
  kill9,
  message,
  OPEN,
  open,
  SEATS,
  startProcess,
  startWorker,
  useRegions,
} from "./regions.ts";

useRegions();

describe("locks of a cache file", () => {
  const CLAIM = `${OPEN} const region = open(); const seat = region.membership.claim();`;

  test("a process that is killed with SIGKILL is provably dead at once", async () => {
    const region = open();
    expect(region.membership.claim()).toBe(0);
    const child = startProcess(`${CLAIM} send(seat); for (;;);`, directory);
    expect(await message(child)).toBe(1);
    expect(region.membership.take(1)).toBe(false);
    await kill9(child);
    expect(region.membership.take(1)).toBe(true);
  });

  test("a terminated worker is provably dead at once, while its process lives on", async () => {
    const region = open();
    region.membership.claim();
    const worker = startWorker(`${CLAIM} send(seat); for (;;);`, { directory });
    expect(await message(worker)).toBe(1);
    expect(region.membership.take(1)).toBe(false);
    await worker.terminate();
    expect(region.membership.take(1)).toBe(true);
  });

  test("a process that was stopped with SIGSTOP counts as alive", async () => {
    const region = open();
    const child = startProcess(`${CLAIM} send(seat); stay();`, directory);
    const seat = await message<number>(child);
    child.kill("SIGSTOP");
    await eventually(() => /\) T /.test(fs.readFileSync(`/proc/${child.pid}/stat`, "latin1")));
    expect(region.membership.take(seat)).toBe(false);
  });

  test("a child process does not inherit the seat of its parent", async () => {
    const region = open();
    // The grandchild keeps running after its parent is killed.
    const child = startProcess(
      `${CLAIM} const { spawn } = await import("node:child_process");
       const grandchild = spawn("sleep", ["1000"], { stdio: "ignore", detached: true }); send([seat, grandchild.pid]); stay();`,
      directory,
    );
    const [seat, grandchild] = await message<[number, number]>(child);
    try {
      await kill9(child);
      expect(region.membership.take(seat)).toBe(true);
    } finally {
      process.kill(grandchild, "SIGKILL");
    }
  });

  test("participants of one thread hold seats of their own, and closing one gives back no other", () => {
    const [one, two] = [open(), open()];
    expect(one.membership.claim()).toBe(0);
    expect(one.membership.take(0)).toBe(false);
    expect(two.membership.take(0)).toBe(false);
    two.membership.release(0);
    expect(two.membership.claim()).toBe(1);
    expect(one.membership.claim()).toBe(2);
    expect(one.membership.take(SEATS)).toBe(false);
    // Closing another descriptor of the file drops nobody's lock, as it would with POSIX locks.
    two.close();
    expect(open().membership.claim()).toBe(1);
    one.membership.release(0);
    expect(open().membership.claim()).toBe(0);
    expect(failure(() => two.membership.take(0)).code).toBe("ERR_CLOSED");
  });

  test("claim() fails with ERR_BUSY when all seats have living owners", () => {
    const region = open();
    for (let seat = 0; seat < SEATS; seat++) expect(region.membership.claim()).toBe(seat);
    expect(failure(() => open().membership.claim())).toMatchObject({
      code: "ERR_BUSY",
      message: expect.stringContaining(`all ${SEATS} seats`),
    });
  });
});
