/** Who is alive in thread reach: the board, whose tokens name threads, and what each host proves about them. */

import fs from "node:fs";
import path from "node:path";
import { describe, expect, test, vi } from "vitest";
import { Board } from "../../src/liveness/board.ts";
import { attachThreadRegion, createThreadRegion, type ThreadHandle } from "../../src/memory/memory.ts";
import { PAGE } from "../../src/size.ts";
import { at, eventually, failure, keep, message, SEATS, SIZE, script, startWorker, useRegions } from "./regions.ts";

useRegions();

describe("the board", () => {
  const create = () => keep(createThreadRegion({ base: PAGE, size: SIZE, seats: SEATS }));
  const CLAIM = `
    const { attachThreadRegion, at } = await library();
    const region = attachThreadRegion(workerData);
    const seat = region.membership.claim();`;

  test("a worker sees the memory of the thread that created it, and claims a seat of its own", async () => {
    const region = create();
    expect(region.membership.claim()).toBe(0);
    const worker = startWorker(`${CLAIM} at(region)[0] = 42; send(seat); stay();`, region.handle);
    expect(await message(worker)).toBe(1);
    expect(at(region)[0]).toBe(42);
    expect(region.membership.take(1)).toBe(false);
  });

  test("a terminated worker is provably dead, also one that was in the middle of a loop", async () => {
    const region = create();
    const worker = startWorker(`${CLAIM} send(seat); for (;;);`, region.handle);
    const seat = await message<number>(worker);
    expect(region.membership.take(seat)).toBe(false);
    await worker.terminate();
    await eventually(() => region.membership.take(seat));
    expect(region.membership.take(seat)).toBe(false);
    region.membership.release(seat);
    expect(region.membership.take(seat)).toBe(true);
  });

  test("a nested worker that ended with its parent is provably dead", async () => {
    const region = create();
    const nested = script(`${CLAIM} send(seat); stay();`);
    const worker = startWorker(
      `${CLAIM} const child = new Worker(${JSON.stringify(nested)}, { workerData });
       send([seat, (await once(child, "message"))[0]]); stay();`,
      region.handle,
    );
    const seats = await message<number[]>(worker);
    expect(seats).toEqual([0, 1]);
    for (const seat of seats) expect(region.membership.take(seat)).toBe(false);
    await worker.terminate();
    for (const seat of seats) await eventually(() => region.membership.take(seat));
  });

  test("claim() reuses the seat of a dead worker, and fails with ERR_BUSY when all owners live", async () => {
    const region = create();
    const worker = startWorker(`${CLAIM} send(seat); stay();`, region.handle);
    await message(worker);
    const others = Array.from({ length: SEATS - 1 }, () => keep(attachThreadRegion(region.handle as ThreadHandle)));
    expect(others.map((other) => other.membership.claim())).toEqual([1, 2, 3]);
    expect(failure(() => region.membership.claim())).toMatchObject({
      code: "ERR_BUSY",
      message: expect.stringContaining(`all ${SEATS} seats`),
    });
    await worker.terminate();
    await eventually(() => {
      try {
        return region.membership.claim() === 0;
      } catch {
        return false;
      }
    });
    others[1]?.close();
    expect(region.membership.claim()).toBe(2);
  });

  test("participants of one thread do not take each other for dead, nor give back each other's seats", () => {
    const region = create();
    const other = keep(attachThreadRegion(region.handle as ThreadHandle));
    const seat = region.membership.claim();
    other.membership.release(seat);
    expect(other.membership.take(seat)).toBe(false);
    expect(other.membership.claim()).toBe(1);
    expect(other.membership.take(-1)).toBe(false);
    expect(other.membership.take(SEATS)).toBe(false);
    region.close();
    region.close();
    expect(other.membership.take(seat)).toBe(true);
    expect(failure(() => region.membership.claim()).code).toBe("ERR_CLOSED");
    expect(failure(() => region.membership.take(seat)).code).toBe("ERR_CLOSED");
  });

  test("a thread is provably dead when its id went to a thread with another start time", () => {
    const tokens = new SharedArrayBuffer(Board.bytes(2));
    const board = new Board(tokens);
    const view = new BigInt64Array(tokens);
    board.claim();
    const own = view[0] as bigint;
    view[1] = own - 1n;
    expect(board.take(1)).toBe(true);
    // No thread has the id 2^22 - 1 with this start time.
    view[0] = (((1n << 22n) - 1n) << 40n) | 5n;
    expect(new Board(tokens).take(0)).toBe(true);
    expect(view[0]).toBe(own);
  });

  test("a thread without an entry in procfs is provably dead only if procfs shows this thread, and other errors of procfs prove nothing", async () => {
    const tokens = new SharedArrayBuffer(Board.bytes(1));
    const dead = (((1n << 22n) - 1n) << 40n) | 5n;
    new BigInt64Array(tokens)[0] = dead;
    const living = `/proc/self/task/${path.basename(fs.readlinkSync("/proc/thread-self"))}/stat`;
    let refuse: string | undefined;
    let hidden = false;
    const real = process.getBuiltinModule;
    const readFileSync = ((...args: Parameters<typeof fs.readFileSync>) => {
      if (refuse === undefined || (args[0] === living && !hidden)) return fs.readFileSync(...args);
      throw Object.assign(new Error(refuse), { code: refuse });
    }) as typeof fs.readFileSync;
    process.getBuiltinModule = ((id: string) =>
      id === "node:fs" ? { ...fs, readFileSync } : real(id as "node:fs")) as typeof real;
    try {
      vi.resetModules();
      const board = new (await import("../../src/liveness/board.ts")).Board(tokens);
      for (refuse of ["EACCES", "EMFILE"]) expect(board.take(0)).toBe(false);
      hidden = true;
      for (refuse of ["EACCES", "ENOENT", "ESRCH"]) expect(board.take(0)).toBe(false);
      refuse = undefined;
      expect(board.take(0)).toBe(true);
    } finally {
      process.getBuiltinModule = real;
    }
  });

  test.each(["EMFILE", "ENFILE"])(
    "joining when no descriptor is left to read procfs (%s) fails with ERR_NO_SPACE, and does not fall back to tokens without procfs",
    async (code) => {
      const tokens = new SharedArrayBuffer(Board.bytes(1));
      const real = process.getBuiltinModule;
      const readlinkSync = (): never => {
        throw Object.assign(new Error(code), { code });
      };
      process.getBuiltinModule = ((id: string) =>
        id === "node:fs" ? { ...fs, readlinkSync } : real(id as "node:fs")) as typeof real;
      try {
        vi.resetModules();
        const { Board } = await import("../../src/liveness/board.ts");
        const error = failure(() => new Board(tokens));
        expect(error).toMatchObject({ code: "ERR_NO_SPACE", message: expect.stringContaining("ulimit -n") });
        expect(error.message).toContain(code);
        // With a descriptor it is as if nothing had been.
        process.getBuiltinModule = real;
        expect(new Board(tokens).claim()).toBe(0);
        expect(new BigInt64Array(tokens)[0]).toBeGreaterThan(0n);
      } finally {
        process.getBuiltinModule = real;
      }
    },
  );

  test("without procfs a terminated worker is provably dead once Node.js has reported its end", async () => {
    const hide = `
      const real = process.getBuiltinModule;
      process.getBuiltinModule = (id) =>
        id === "node:fs" ? { ...real(id), readlinkSync() { throw new Error("hidden"); } } : real(id);`;
    // The watching thread is a worker too, so that the thread of this test keeps its own `process.getBuiltinModule`.
    const inner = script(`${hide} ${CLAIM} send(seat); stay();`);
    const worker = startWorker(
      `${hide} ${CLAIM}
       const child = new Worker(${JSON.stringify(inner)}, { workerData });
       const [other] = await once(child, "message");
       const before = region.membership.take(other);
       const tokens = [...new BigInt64Array(workerData.board)].slice(0, 2);
       await child.terminate();
       send({ other, before, tokens, after: region.membership.take(other) }); stay();`,
      create().handle,
    );
    const answer = await message<{ tokens: bigint[] }>(worker);
    expect(answer).toMatchObject({ other: 1, before: false, after: true });
    for (const token of answer.tokens) expect(token).toBeLessThan(0n);
  });
});
