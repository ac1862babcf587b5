/**
 * Tests that participants leave no resources behind, and what happens when a resource runs out: memory, address space, descriptors
 * or seats. Each job runs in a process of its own (jobs.mjs), in which only the test opens files.
 *
 * `RESOURCES_ROUNDS` multiplies the number of rounds, 1 by default. A full table of open files (ENFILE) would affect the whole
 * machine, so it is not tested; the code treats it like EMFILE.
 */

import { type ChildProcess, execFileSync, fork, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { CacheHandle } from "cache-machine";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { inTime } from "../crash/driver.mjs";
import { destroyCache, openCache } from "../host/apart.mjs";
import { isMountable } from "./mountable.ts";

const rounds = Number(process.env.RESOURCES_ROUNDS ?? 1);
const seed = Number(process.env.RESOURCES_SEED ?? Math.floor(Math.random() * 1e9));
console.log(`RESOURCES_SEED=${seed} RESOURCES_ROUNDS=${rounds}`);

const MINUTES = 60_000;
/** Time limit of a job. */
const PATIENCE_MS = 3 * MINUTES * rounds;
vi.setConfig({ testTimeout: PATIENCE_MS + MINUTES });
const MIB = 1 << 20;
const JOBS = fileURLToPath(new URL("jobs.mjs", import.meta.url));
const CROWD = fileURLToPath(new URL("many-participants.mjs", import.meta.url));
/** Number of mappings and descriptors that Node.js may open for itself meanwhile. */
const FEW = 8;

if (!isMountable) console.warn("resources: not root, or mounting is not allowed: a full file system is not tested");

let count = 0;
let name = "";

beforeEach(() => {
  name = `t-${process.pid}-resources-${++count}`;
});

afterEach(() => {
  for (const file of fs.readdirSync("/dev/shm")) if (file.includes(name)) fs.rmSync(path.join("/dev/shm", file));
});

/** Runs a job to its end: exit code and signal, and its output. */
async function end(job: string, options: object): Promise<{ exit: unknown[]; said: string; printed: string }> {
  const child = spawn(process.execPath, ["--expose-gc", JOBS, job, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let printed = "";
  let said = "";
  child.stdout.on("data", (data) => (printed += data));
  child.stderr.on("data", (data) => (said += data));
  const late = setTimeout(() => {
    said += "hangs";
    child.kill("SIGKILL");
  }, PATIENCE_MS);
  const exit = await once(child, "close");
  clearTimeout(late);
  return { exit, said, printed };
}

/** Runs a job, which must succeed; its results. */
async function run<T = any>(job: string, options: object): Promise<T> {
  const { exit, said, printed } = await end(job, options);
  expect([said, exit]).toEqual(["", [0, null]]);
  console.log(job, JSON.stringify(options), printed.trim());
  return JSON.parse(printed) as T;
}

describe("participants that come and go", () => {
  test("a leak of descriptors and mappings is noticed", async () => {
    const found = await run("openAndClose", { name, times: 20, held: true, leaks: true });
    expect(found.files).toBe(20);
    expect(found.mapped).toBe(1);
  });

  test("a leak of seats is noticed", async () => {
    const found = await run("workers", { name, times: 3, width: 2, tracked: false });
    expect(found).toMatchObject({ terminated: 6, participants: 7, files: 4 });
  });

  test.each([
    ["that another participant has open", true],
    ["that nobody else has open", false],
  ] as const)("opening and closing a cache thousands of times leaks nothing, for a cache %s", async (_, held) => {
    const found = await run("openAndClose", { name, times: 3_000 * rounds, held });
    expect(found).toMatchObject({ files: 0, mapped: held ? 1 : 0, participants: 1 });
    expect(found.maps).toBeLessThanOrEqual(FEW);
  });

  test("opening a cache many times in one thread takes one seat, and leaks nothing", async () => {
    const kept = await run("openAndClose", { name, times: 500, held: false, leaks: true, oneSeat: true });
    expect(kept).toMatchObject({ files: 0, mapped: 1, participants: 1 });
    const held = await run("openAndClose", { name, times: 1_000 * rounds, held: true, oneSeat: true });
    expect(held).toMatchObject({ files: 0, mapped: 1, participants: 1 });
    expect(held.maps).toBeLessThanOrEqual(FEW);
  });

  test("creating and destroying a cache a thousand times leaks nothing", async () => {
    const found = await run("createAndDestroy", { name, times: 1_000 * rounds });
    expect(found).toMatchObject({ files: 0, mapped: 0 });
    expect(found.maps).toBeLessThanOrEqual(FEW);
    expect(fs.readdirSync("/dev/shm").filter((file) => file.includes(name))).toEqual([]);
  });

  test("workers that are terminated with the cache open leak nothing", async () => {
    const found = await run("workers", { name, times: 80 * rounds });
    expect(found).toMatchObject({ participants: 1, mapped: 1 });
    expect(found.files).toBeLessThanOrEqual(0);
    expect(found.maps).toBeLessThanOrEqual(FEW);
  });

  test("workers that are terminated while they open and close caches leak nothing", async () => {
    const found = await run("terminatedWhileOpening", { name, times: 80 * rounds, seed });
    // All seats are free, terminated workers are not counted, and one participant too many gets ERR_BUSY.
    expect(found).toMatchObject({ participants: 1, broken: 0, full: 64, tooMany: "ERR_BUSY", mapped: 1, others: [] });
    expect(found.files).toBeLessThanOrEqual(0);
    expect(found.maps).toBeLessThanOrEqual(FEW);
    // Enough workers were terminated in the middle of a call.
    expect(found.interrupted).toBeGreaterThan(20 * rounds);
  });

  test.each([
    ["threads", "threadCaches", "64mb"],
    ["processes", "files", "1mb"],
  ])("closed caches of reach %s free their address space, which has room for a few at a time", async (_, job, size) => {
    const found = await run(job, { name, times: 200 * rounds, size, room: 64 * 2 ** 30 });
    expect(found.files).toBe(0);
    expect(found.maps).toBeLessThanOrEqual(FEW);
  });
});

describe("resources that run out", () => {
  test("without address space, opening a cache fails with ERR_NO_SPACE, and open caches work", async () => {
    const { refused } = await run("noAddressSpace", { name });
    expect(refused).toHaveLength(2);
    for (const { name, code, message } of refused) {
      expect([name, code]).toEqual(["CacheError", "ERR_NO_SPACE"]);
      expect(message).toMatch(/address space .*ulimit -v/);
    }
    expect(fs.readdirSync("/dev/shm").filter((file) => file.includes(`${name}-other`))).toEqual([]);
  });

  test("without descriptors, opening a cache fails with ERR_NO_SPACE, also in a worker, and open caches work", async () => {
    const found = await run("noDescriptors", { name });
    expect(found.refused).toHaveLength(3);
    for (const { name, code, message } of [...found.refused, found.inWorker[0]]) {
      expect([name, code]).toEqual(["CacheError", "ERR_NO_SPACE"]);
      expect(message).toMatch(/descriptor.*ulimit -n/);
    }
    expect(found.participants).toBe(1);
    expect(found.inWorkerAfter).toEqual([{ returned: 1 }, { returned: 1 }]);
    // A worker that joined meanwhile, or was refused, is found dead after its end like any other.
    if (found.inWorker[1].returned === undefined) expect(found.inWorker[1].code).toBe("ERR_NO_SPACE");
    expect(found.localAfter).toBe(1);
    expect(found.processesAfter).toBe(2);
  });

  test.skipIf(!isMountable)(
    "on a full file system, creating a cache fails with ERR_NO_SPACE, and existing caches can be filled (needs root)",
    async () => {
      const place = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-full-"));
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", place]);
      try {
        const free = (): number => fs.statfsSync(place).bfree;
        const empty = free();
        expect(() => openCache("large", { path: place, size: "8mb" })).toThrow(
          expect.objectContaining({ code: "ERR_NO_SPACE" }),
        );
        expect([fs.readdirSync(place), free()]).toEqual([[], empty]);
        const cache = openCache("app", { path: place, size: "1mb" });
        cache.set("before", 1);
        // A sparse file with the same bytes: a cache that did not reserve its blocks.
        const file = (cache.handle as CacheHandle & { path: string }).path;
        const sparse = file.replace("-app.", "-sparse.");
        fs.writeFileSync(sparse, fs.readFileSync(file).subarray(0, 256 << 10), { mode: 0o600 });
        fs.truncateSync(sparse, MIB);
        const filler = fs.openSync(path.join(place, "filler"), "w");
        try {
          for (;;) fs.writeSync(filler, Buffer.alloc(4096, 1));
        } catch (error) {
          expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
        } finally {
          fs.closeSync(filler);
        }
        expect(free()).toBe(0);
        expect(() => openCache("second", { path: place, size: "1mb" })).toThrow(
          expect.objectContaining({ code: "ERR_NO_SPACE" }),
        );
        expect(fs.readdirSync(place)).toHaveLength(3);
        const found = await run("fill", { name: "app", path: place });
        expect(found.read).toEqual([true, 0]);
        expect(found.share).toBeGreaterThan(0.85);
        // Another process has filled the cache; this one reads its entries.
        expect(cache.get("large")).toHaveLength(100_000);
        cache.set("after", 1);
        cache.close();
        expect((await end("fill", { name: "sparse", path: place })).exit).toEqual([null, "SIGBUS"]);
      } finally {
        execFileSync("umount", ["-l", place]);
        fs.rmdirSync(place);
      }
    },
  );
});

describe("threads that end without close()", () => {
  test.skipIf(!isMountable)(
    "threads that end without close() free the memory of destroyed caches at once, however they end (needs root)",
    async () => {
      const place = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-leave-"));
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=64m", "none", place]);
      try {
        const endings = ["return", "exit", "terminate"].flatMap((ending) => [
          { ending, who: "both", by: "name", last: false },
          { ending, who: "both", by: "name", last: true },
          { ending, who: "both", by: "handle", last: false },
          { ending, who: "both", by: "handle", last: true },
          { ending, who: "worker", by: "name", last: false },
        ]);
        const empty = fs.statfsSync(place).bfree;
        // The file system has room for two caches: if one stayed, the second one after it could not be created.
        const { free } = await run("leavers", { path: place, size: "24mb", endings });
        expect(free).toEqual(endings.map(() => empty));
        expect(fs.readdirSync(place)).toEqual([]);
      } finally {
        execFileSync("umount", ["-l", place]);
        fs.rmdirSync(place);
      }
    },
  );
});

describe("1,024 participants", () => {
  const SEATS = 1_024;
  const crowds: ChildProcess[] = [];

  afterAll(() => {
    for (const crowd of crowds) crowd.kill("SIGKILL");
  });

  async function ask(crowd: ChildProcess, message: object): Promise<any> {
    crowd.send(message);
    return (await inTime(once(crowd, "message"), JSON.stringify(message)))[0];
  }

  async function start(): Promise<ChildProcess> {
    const crowd = fork(CROWD, [name], { execArgv: [] });
    crowds.push(crowd);
    await inTime(once(crowd, "message"), "a crowd starts");
    return crowd;
  }

  test("1,024 participants have seats, one more gets ERR_BUSY, and all can leave and come back", async () => {
    const cache = openCache(name, { size: "64mb", nearCache: 0 });
    try {
      cache.set("kept", "value");
      const three = await Promise.all([start(), start(), start()]);
      const [closing, dying, staying] = three as [ChildProcess, ChildProcess, ChildProcess];
      // All at once, so that they compete for seats.
      const opened = await Promise.all(three.map((crowd) => ask(crowd, { open: 341 })));
      expect(opened).toEqual(three.map(() => ({ open: 341 })));
      expect(cache.stats().participants).toBe(SEATS);
      const tooMany = expect.objectContaining({ code: "ERR_BUSY", message: expect.stringContaining("1024") });
      for (let i = 0; i < 5; i++) expect(() => openCache(name)).toThrow(tooMany);
      expect((await ask(staying, { open: 1 })).error).toEqual(tooMany);
      expect([cache.get("kept"), cache.get(`${dying.pid} 341`), cache.validate()]).toEqual(["value", 340, 0]);
      cache.set("kept", "by a full house");

      await ask(closing, { close: true });
      const died = once(dying, "exit");
      dying.kill("SIGKILL");
      await died;
      expect(cache.stats().participants).toBe(SEATS - 2 * 341);
      // Takes the seats of those who left and of some who died.
      expect(await ask(closing, { open: 400 })).toEqual({ open: 400 });
      expect(cache.stats().participants).toBe(1 + 341 + 400);
      expect([cache.get("kept"), cache.validate()]).toEqual(["by a full house", 0]);
      for (const crowd of [closing, staying]) await ask(crowd, { close: true });
      expect(cache.stats().participants).toBe(1);
    } finally {
      cache.close();
      destroyCache(name);
    }
  });
});
