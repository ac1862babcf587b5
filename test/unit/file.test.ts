/** The file of a cache: how it is opened, created by one of many, and destroyed. */

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { destroyFile } from "../../src/memory/file.ts";
import type { Plan } from "../../src/memory/memory.ts";
import { takeTurn } from "../../src/memory/turn.ts";
import type { Native } from "../../src/system/native.ts";
import {
  at,
  directory,
  failure,
  idOf,
  isRoot,
  kill9,
  LIMIT,
  LIMIT_ADDRESS_SPACE,
  message,
  mountTmpfs,
  OPEN,
  open,
  pathOf,
  plan,
  run,
  SIZE,
  startProcess,
  startWorker,
  useRegions,
} from "./regions.ts";

useRegions();

describe("a cache file", () => {
  test("two processes and a worker that open one name see one file", async () => {
    const region = open();
    at(region)[0] = 1;
    const child = startProcess(
      `${OPEN} const r = open(); const seen = at(r)[0]; at(r)[0] = 2; send(seen); stay();`,
      directory,
    );
    expect(await message(child)).toBe(1);
    expect(at(region)[0]).toBe(2);
    const worker = startWorker(`${OPEN} const r = open(); const seen = at(r)[0]; at(r)[0] = 3; send(seen); stay();`, {
      directory,
    });
    expect(await message(worker)).toBe(2);
    expect(at(region)[0]).toBe(3);
    expect(fs.readdirSync(directory)).toEqual([`cache-machine-${process.geteuid?.()}-app.v7`]);
    expect(fs.statSync(pathOf(region)).size).toBe(SIZE);
    expect(fs.statSync(pathOf(region)).blocks * 512).toBe(SIZE);
  });

  test("memory below the region stays private to its process", async () => {
    const region = open();
    const below = new Uint8Array(region.memory.buffer, 0, region.base).fill(9);
    const child = startProcess(
      `${OPEN} const r = open(); const below = new Uint8Array(r.memory.buffer, 0, r.base);
       const seen = below.some((b) => b !== 0); below.fill(8); send(seen);`,
      directory,
    );
    expect(await message(child)).toBe(false);
    expect(below.every((byte) => byte === 9)).toBe(true);
  });

  test("names of caches become different file names that cannot leave the directory", () => {
    const uid = process.geteuid?.();
    const names = ["a/../../b", "a%2Fb", "a/b", ".hidden", "ä", "A"];
    const files = names.map((name) => path.basename(pathOf(open({ name }))));
    expect(files).toEqual(
      ["a%2F..%2F..%2Fb", "a%252Fb", "a%2Fb", ".hidden", "%C3%A4", "A"].map(
        (name) => `cache-machine-${uid}-${name}.v7`,
      ),
    );
    expect(() => open({ name: "€".repeat(128) })).toThrow(/^name: too long/);
    expect(() => open({ name: "\ud800" })).toThrow(/^name:/);
  });

  test("a file is created with mode 0600 whatever the umask is", async () => {
    const child = startProcess(`${OPEN} process.umask(0o777); send(open().handle.path);`, directory);
    expect(fs.statSync(await message<string>(child)).mode & 0o777).toBe(0o600);
    expect(open().size).toBe(SIZE);
  });

  test("closing a region closes its descriptor", () => {
    const count = () => fs.readdirSync("/proc/self/fd").length;
    open();
    const before = count();
    for (let i = 0; i < 10; i++) open().close();
    expect(count()).toBe(before);
  });

  test("destroyFile() removes the name, and opening it again creates a new cache", () => {
    const region = open();
    at(region)[0] = 5;
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(false);
    const next = open();
    expect(idOf(next)).not.toBe(idOf(region));
    expect(at(next)[0]).toBe(0);
    expect(at(region)[0]).toBe(5);
  });
});

describe("creating a cache file", () => {
  const RACE = `${OPEN}
    let formatted = 0;
    const racing = { ...plan, format(...args) { formatted++; plan.format(...args); } };
    send("ready"); await receive();
    const region = open({ plan: racing, size: Number(process.argv[3]) });
    const others = at(region)[0];
    Atomics.add(at(region), 0, 1);
    send({ id: region.handle.id, formatted }); await receive(); send(at(region)[0]); stay();`;

  async function race(count: number, size: number): Promise<void> {
    const racers = Array.from({ length: count }, () => startProcess(RACE, directory, String(size)));
    await Promise.all(racers.map((racer) => message(racer)));
    for (const racer of racers) racer.send("go");
    const results = await Promise.all(racers.map((racer) => message<{ id: string; formatted: number }>(racer)));
    expect(new Set(results.map(({ id }) => id)).size).toBe(1);
    expect(results.reduce((sum, { formatted }) => sum + formatted, 0)).toBe(1);
    for (const racer of racers) racer.send("count");
    expect(await Promise.all(racers.map((racer) => message(racer)))).toEqual(racers.map(() => count));
    expect(fs.readdirSync(directory)).toHaveLength(1);
  }

  test("eight processes that race create one file, which all of them see", () => race(8, SIZE));

  test.skipIf(!isRoot)(
    "eight processes that race create one file where there is room for one only (needs root)",
    async () => {
      mountTmpfs("12m");
      await race(8, 8 << 20);
    },
  );

  test("a creator that was overtaken opens the file of the faster one and leaves nothing of its own", () => {
    const winner = open({ name: "winner" });
    at(winner)[0] = 33;
    const target = path.join(directory, path.basename(pathOf(winner)).replace("winner", "app"));
    let formatted = 0;
    const overtaken: Plan = {
      ...plan,
      format(...args) {
        formatted++;
        plan.format(...args);
        fs.renameSync(pathOf(winner), target);
      },
    };
    const region = open({ plan: overtaken });
    expect(formatted).toBe(1);
    expect(idOf(region)).toBe(idOf(winner));
    expect(at(region)[0]).toBe(33);
    expect(fs.readdirSync(directory)).toHaveLength(1);
  });

  test("a creator killed before the file has its name leaves nothing", async () => {
    const child = startProcess(
      `${OPEN} open({ plan: { ...plan, format() { process.kill(process.pid, "SIGKILL"); } } });`,
      directory,
    );
    expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
    expect(fs.readdirSync(directory)).toEqual([]);
    expect(open().membership.claim()).toBe(0);
  });

  test("a creator killed right after the file has its name leaves a good file", async () => {
    const child = startProcess(`${OPEN} open(); process.kill(process.pid, "SIGKILL");`, directory);
    expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
    expect(fs.readdirSync(directory)).toHaveLength(1);
    expect(open().membership.claim()).toBe(0);
  });

  test("a creator killed while another waits for its turn lets the other one create", async () => {
    const child = startProcess(
      `${OPEN} open({ plan: { ...plan, format() { send("inside"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); } } });`,
      directory,
    );
    await message(child);
    const other = startProcess(
      `${OPEN} let created = false;
       const create = { ...plan, format(...args) { created = true; plan.format(...args); } };
       const wait = Atomics.wait;
       Atomics.wait = (...args) => { Atomics.wait = wait; send("waiting"); return wait(...args); };
       open({ plan: create }); send(created); stay();`,
      directory,
    );
    expect(await message(other)).toBe("waiting");
    const created = message(other);
    await kill9(child);
    expect(await created).toBe(true);
  });

  test("an error while a process takes its turn to create leaves no descriptor open, so that others can have the turn", () => {
    const count = () => fs.readdirSync("/proc/self/fd").length;
    const before = count();
    // As at the end of the stack.
    const tryLockDirectory = () => {
      throw new RangeError("no room for a call");
    };
    expect(() => takeTurn({ tryLockDirectory } as unknown as Native, directory)).toThrow("no room for a call");
    expect(count()).toBe(before);
  });

  test("an error while the file is formatted leaves nothing", () => {
    const failing: Plan = {
      ...plan,
      format() {
        throw new Error("no");
      },
    };
    expect(() => open({ plan: failing })).toThrow("no");
    expect(fs.readdirSync(directory)).toEqual([]);
  });

  test.skipIf(!isRoot)(
    "creating a cache on a file system that reserves no blocks fails with ERR_UNSUPPORTED (needs root)",
    () => {
      const place = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-ramfs-"));
      execFileSync("mount", ["-t", "ramfs", "none", place]);
      try {
        const error = failure(() => open({ path: place }));
        expect(error).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringMatching(/fallocate.*`path`/) });
        expect(fs.readdirSync(place)).toEqual([]);
      } finally {
        execFileSync("umount", ["-l", place]);
        fs.rmdirSync(place);
      }
    },
  );

  test.skipIf(!isRoot)(
    "creating a cache on a full file system fails with ERR_NO_SPACE, and failed creations give all blocks back (needs root)",
    () => {
      mountTmpfs("1m");
      const error = failure(() => open({ size: 4 << 20 }));
      expect(error).toMatchObject({ code: "ERR_NO_SPACE", message: expect.stringContaining("4 MiB (4194304 bytes)") });
      expect(error.message).toContain("--shm-size");
      expect(fs.readdirSync(directory)).toEqual([]);
      const failing: Plan = {
        ...plan,
        format() {
          throw new Error("no");
        },
      };
      for (let i = 0; i < 3; i++) expect(() => open({ size: 768 << 10, plan: failing })).toThrow("no");
      expect(fs.statfsSync(directory).bfree).toBe(fs.statfsSync(directory).blocks);
      expect(open({ size: 768 << 10 }).size).toBe(768 << 10);
    },
  );

  test("opening a cache in a directory that is missing, or cannot hold one, fails with ERR_UNSUPPORTED, which names the option", () => {
    const error = failure(() => open({ path: path.join(directory, "missing") }));
    expect(error).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringContaining("`path`") });
    expect(failure(() => open({ path: "/proc" })).code).toBe("ERR_UNSUPPORTED");
  });

  test.each(["first", "second"])(
    "opening the %s cache of a process fails with ERR_NO_SPACE when no descriptors are left",
    (which) => {
      const stdout = run(`
      ${OPEN} ${LIMIT}
      const fs = await import("node:fs");
      ${which === "second" ? "open().close();" : ""}
      limit("nofile", 100);
      try { for (;;) fs.openSync("/dev/null"); } catch {}
      try { open(); } catch (e) { console.log(e.code, e.message); }`);
      expect(stdout).toMatch(/^ERR_NO_SPACE .*EMFILE/);
    },
  );

  test("opening a cache without address space fails with ERR_NO_SPACE and leaves nothing", () => {
    const stdout = run(`
      ${OPEN} ${LIMIT_ADDRESS_SPACE}
      try { open(); } catch (e) { console.log(e.code, e.message); }`);
    expect(stdout).toMatch(/^ERR_NO_SPACE .*address space/);
    expect(fs.readdirSync(directory)).toEqual([]);
  });
});
