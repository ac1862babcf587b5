/** Snapshots and other processes: an exporter that is killed, imports at once, a full disk, a cache that is at work meanwhile. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Cache, destroyCache, exportCache, importCache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { closeEach, create, folder, SEED } from "./help.ts";

console.log(`snapshot processes: SEED=${SEED}`);
const directory = folder();
const WORKER = fileURLToPath(new URL("worker.mjs", import.meta.url));
closeEach();
let cache: Cache<string>;
let name: string;
let runs = 0;

beforeEach(() => {
  name = `snapshot-test-${process.pid}-${++runs}`;
  cache = openCache<string>(name, { size: "32mb" });
});
afterEach(() => {
  cache.close();
  destroyCache(name);
});

const textOf = (i: number): string => `${i} `.repeat(300);
function fill(entries: number): void {
  for (let i = 0; i < entries; i++) cache.set(`key ${i}`, textOf(i));
}

/** Starts a process; `lines` are what it prints. */
function start(...args: string[]) {
  const child = spawn(process.execPath, [WORKER, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator](), ended: once(child, "exit") };
}

test("an exporter that is killed at any moment leaves the old file or the new one, and the next export tidies up", {
  timeout: 240_000,
}, async () => {
  fill(8000);
  const file = join(directory, "killed.snapshot");
  const left = (): string[] =>
    readdirSync(directory).filter((each) => each.includes("killed") && each !== "killed.snapshot");
  let seed = SEED;
  let absent = 0;
  let behind = 0;
  for (let round = 0; round < 40; round++) {
    if (round % 4 === 0) rmSync(file, { force: true });
    const { child, lines, ended } = start("export", name, file);
    await lines.next();
    // In some rounds the first export is over, so the moment lies anywhere in a later one.
    if (round % 2 === 1) await lines.next();
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    const until = performance.now() + (seed / 2 ** 32) * 60;
    while (performance.now() < until) await new Promise(setImmediate);
    child.kill("SIGKILL");
    await ended;
    if (left().length > 0) behind++;
    // Of the killed exporters before, all but the last one's are gone.
    expect(left().length).toBeLessThan(2);
    if (existsSync(file)) {
      const copy = create({ size: "32mb" });
      expect(await importCache(copy, file)).toMatchObject({ entries: 8000, damaged: 0, truncated: false });
      copy.close();
    } else absent++;
  }
  console.log(`killed: ${absent} times there was no file, ${behind} times a temporary one`);
  expect(behind).toBeGreaterThan(3);
  await exportCache(cache, file);
  expect(left()).toEqual([]);
  expect(cache.validate()).toBe(0);
});

test("exports to one file at once, of several processes: each file is a whole one, and nobody removes what is being written", async () => {
  fill(3000);
  const file = join(directory, "shared.snapshot");
  const all = [1, 2, 3].map(() => start("export once", name, file));
  const results = await Promise.all(
    all.map(async ({ lines, ended }) => {
      await lines.next();
      const { value } = await lines.next();
      await ended;
      return JSON.parse(value as string);
    }),
  );
  for (const result of results) expect(result).toMatchObject({ entries: 3000 });
  expect(readdirSync(directory).filter((each) => each.includes("shared"))).toEqual(["shared.snapshot"]);
  expect(await importCache(create({ size: "32mb" }), file)).toMatchObject({ entries: 3000 });
});

test("two processes import at once: together they add each entry once, while this one writes", {
  timeout: 120_000,
}, async () => {
  fill(8000);
  const file = join(directory, "both.snapshot");
  await exportCache(cache, file);
  cache.clear();
  const both = [1, 2].map(() => start("import", name, file));
  let writes = 0;
  let running = true;
  const results = Promise.all(
    both.map(async ({ lines, ended }) => {
      await lines.next();
      const { value } = await lines.next();
      await ended;
      return JSON.parse(value as string);
    }),
  ).finally(() => {
    running = false;
  });
  while (running) {
    for (let i = 0; i < 50; i++) cache.set(`key ${writes++ % 1000}`, "newer");
    await new Promise(setImmediate);
  }
  const [one, two] = await results;
  expect([one.entries + one.present, two.entries + two.present]).toEqual([8000, 8000]);
  expect([one.busy, two.busy, one.damaged, two.damaged]).toEqual([0, 0, 0, 0]);
  for (let i = 0; i < 8000; i++) {
    const value = cache.get(`key ${i}`);
    if (value !== textOf(i)) expect([i < 1000, value]).toEqual([true, "newer"]);
  }
  expect(one.entries + two.entries).toBeGreaterThanOrEqual(7000);
  expect(cache.validate()).toBe(0);
});

test("an export under load has each entry that stays exactly once, and no value that never was", async () => {
  fill(5000);
  const file = join(directory, "load.snapshot");
  let i = 0;
  const result = await exportCache(cache, file, {
    onProgress() {
      for (let n = 0; n < 200; n++, i++) {
        const key = `key ${2500 + (i % 2500)}`;
        if (i % 3 === 0) cache.delete(key);
        else cache.set(key, `changed ${key}`);
        cache.set(`new ${i % 500}`, `changed new ${i % 500}`);
      }
    },
  });
  const copy = create({ size: "64mb" }) as Cache<string>;
  const imported = await importCache(copy, file);
  expect(imported.entries + imported.present).toBe(result.entries);
  for (let k = 0; k < 2500; k++) expect(copy.get(`key ${k}`)).toBe(textOf(k));
  for (const [key, value] of copy) {
    if (value !== `changed ${key}`) expect(value).toBe(textOf(Number(key.slice(4))));
  }
});

describe("a full disk", () => {
  const mountable =
    spawnSync("unshare", ["--mount", "--map-root-user", "true"]).status === 0 || process.getuid?.() === 0;

  test.skipIf(!mountable)("the error of the system, the old file as it was, and no temporary file", () => {
    fill(6000);
    const script = `
      mkdir -p "$1" && mount -t tmpfs -o size=1m none "$1" || exit 9
      echo old > "$1/file"
      "$2" "$3" "export once" "$4" "$1/file"
      cat "$1/file"; ls -A "$1"; umount "$1"`;
    const args = ["--mount", ...(process.getuid?.() === 0 ? [] : ["--map-root-user"]), "sh", "-c", script, "sh"];
    const output = execFileSync("unshare", [...args, join(directory, "full"), process.execPath, WORKER, name], {
      encoding: "utf8",
    });
    const [ready, error, ...rest] = output.trim().split("\n");
    expect([ready, JSON.parse(error as string).code, rest]).toEqual(["ready", "ENOSPC", ["old", "file"]]);
  });

  test("a limit on the size of files", () => {
    fill(6000);
    const file = join(directory, "limited");
    // In blocks of 512 bytes. Node.js ignores SIGXFSZ.
    const command = `ulimit -f 1000; exec "$0" "$1" "export once" "$2" "$3"`;
    const output = execFileSync("sh", ["-c", command, process.execPath, WORKER, name, file], { encoding: "utf8" });
    expect(JSON.parse(output.trim().split("\n")[1] as string).code).toBe("EFBIG");
    expect(readdirSync(directory).filter((each) => each.includes("limited"))).toEqual([]);
  });
});

test("a large cache is exported with little memory, and the event loop goes on", { timeout: 120_000 }, async () => {
  const big = create({ size: "256mb" });
  const value = Buffer.alloc(65_536, 7);
  for (let i = 0; i < 2300; i++) big.set(`${i}`, value);
  const file = join(directory, "large.snapshot");
  const before = process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed;
  let most = 0;
  let turns = 0;
  let running = true;
  const count = (): void => {
    turns++;
    if (running) setImmediate(count);
  };
  count();
  const onProgress = (): void => {
    const { arrayBuffers, heapUsed } = process.memoryUsage();
    most = Math.max(most, arrayBuffers + heapUsed - before);
  };
  const result = await exportCache(big, file, { onProgress });
  const exported = turns;
  big.clear();
  expect(await importCache(big, file)).toMatchObject({ entries: 2300, full: 0 });
  running = false;
  expect(result.bytes).toBeGreaterThan(150_000_000);
  console.log(
    `large: at most ${Math.round(most / 1e6)} MB more than before, ${exported} turns of the event loop in the export`,
  );
  expect(most).toBeLessThan(100_000_000);
  expect(exported).toBeGreaterThan(500);
  expect(turns - exported).toBeGreaterThan(20);
  expect(readFileSync(file).subarray(1, 7).toString()).toBe("CMSNAP");
});
