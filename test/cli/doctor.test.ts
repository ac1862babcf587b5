/** `cache-machine doctor` in the six cases that docs/night.md goes through, each as real processes, and with a cache that is fine. */

import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isMountable } from "../resources/mountable.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const PROGRAM = path.join(root, "dist/cli/index.js");
let directory: string;
let running: ChildProcess | undefined;

beforeEach(() => {
  directory = fs.realpathSync(fs.mkdtempSync("/dev/shm/doctor-test-"));
});

afterEach(async () => {
  if (running !== undefined && running.exitCode === null) {
    running.kill("SIGTERM");
    await once(running, "exit");
  }
  running = undefined;
  fs.rmSync(directory, { recursive: true, force: true });
});

interface Finding {
  cache: string | null;
  id: string;
  state: string;
  detail: string;
  remedy: string;
}

/** Starts a case and waits until it stands. */
async function prepare(name: string): Promise<{ pid?: number; file?: string; lock?: string }> {
  running = spawn(process.execPath, [path.join(root, `test/cli/cases/${name}`), directory], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: running.stdout as NodeJS.ReadableStream });
  const line = await Promise.race([once(lines, "line"), once(running, "exit")]);
  return JSON.parse(String(line[0]));
}

function doctor(...args: string[]) {
  return spawnSync(process.execPath, [PROGRAM, "doctor", "--path", directory, ...args], {
    encoding: "utf8",
    timeout: 60_000,
  });
}

/** What doctor finds: all that is not fine. */
function examine(...args: string[]): { status: number | null; found: Finding[] } {
  const { status, stdout, stderr } = doctor("--json", "--interval", "1", ...args);
  expect(stderr).toBe("");
  return { status, found: (JSON.parse(stdout) as Finding[]).filter(({ state }) => state !== "ok") };
}

test("a cache that is used as it should be: nothing is wrong", async () => {
  await prepare("healthy.mjs");
  expect(examine()).toEqual({ status: 0, found: [] });
  expect(doctor("--interval", "0.1").stdout).toMatch(/Nothing is wrong\.\n$/);
});

test.runIf(isMountable)("the directory is full: it names the directory and the largest file", async () => {
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m,mode=0700", "none", directory]);
  try {
    const { file } = await prepare("full.mjs");
    const { status, found } = examine();
    expect(status).toBe(1);
    expect(found).toMatchObject([{ cache: null, id: "space", state: "problem" }]);
    expect(found[0]?.detail).toContain(`${directory} is full: 0 B of 8 MiB are free`);
    expect(found[0]?.remedy).toContain(`${file} 4 MiB`);
    running?.kill("SIGTERM");
    await once(running as ChildProcess, "exit");
  } finally {
    execFileSync("umount", ["-l", directory]);
  }
});

test("the cache is too small: it names the cache, and how often it misses", async () => {
  await prepare("small.mjs");
  const { status, found } = examine("app");
  expect(status).toBe(1);
  expect(found).toMatchObject([{ cache: "app", id: "evictions", state: "problem" }]);
  expect(found[0]?.detail).toMatch(/[1-9]\d* evictions a second, \d+\.\d % of [\d,]+ reads were hits: it is too small/);
});

test("a process is stopped while it holds a lock: it names the process, the lock and who waits", async () => {
  const { pid, lock } = await prepare("frozen-lock.mjs");
  const { status, found } = examine();
  expect(status).toBe(1);
  expect(found).toMatchObject([{ cache: "app", id: "frozen", state: "problem" }]);
  expect(found[0]?.detail).toBe(`process ${pid} is stopped and holds the lock "${lock}", for which another one waits`);
  expect(found[0]?.remedy).toContain(`kill -CONT ${pid}`);
});

test("a process is stopped while it writes a large value: it names the process", async () => {
  const { pid } = await prepare("frozen-write.mjs");
  const { status, found } = examine();
  expect(status).toBe(1);
  expect(found).toMatchObject([{ cache: "app", id: "frozen", state: "problem" }]);
  expect(found[0]?.detail).toContain(`process ${pid} is stopped and holds `);
  expect(found[0]?.detail).toContain("a large value that is half written");
});

test("a near cache is too small for what is read: it names the process", async () => {
  const { pid } = await prepare("near.mjs");
  const { status, found } = examine();
  expect(found).toMatchObject([{ cache: "app", id: "near", state: "problem" }]);
  expect(found[0]?.detail).toContain(`process ${pid}: `);
  expect(status).toBe(1);
});

test("a file of an old layout: it names the file", async () => {
  const { file } = await prepare("stale.mjs");
  const { status, found } = examine();
  expect(status).toBe(1);
  expect(found).toMatchObject([{ cache: null, id: "stale", state: "problem" }]);
  expect(found[0]?.detail).toBe(`${file}: nobody has it open, 4 MiB are wasted`);
  expect(found[0]?.remedy).toContain("rm --all-stale");
});

test("one process has another clock: it names the process, and by how much", async () => {
  const { pid } = await prepare("clock.mjs");
  const { status, found } = examine();
  expect(status).toBe(1);
  expect(found).toMatchObject([{ cache: "app", id: "clock", state: "problem" }]);
  expect(found[0]?.detail).toMatch(new RegExp(`^the clock of process ${pid} is 3,(599|600|601) s behind: `));
});

test("for people: the worst comes first, each with its remedy below", async () => {
  const { pid } = await prepare("frozen-lock.mjs");
  const { status, stdout } = doctor("--interval", "0");
  expect(status).toBe(1);
  const lines = stdout.split("\n");
  expect(lines[0]).toBe("Cache app");
  expect(lines[1]).toBe(
    `  ✗ stopped participants: process ${pid} is stopped and holds the lock "report", for which another one waits`,
  );
  expect(lines[2]).toMatch(/^ {4}→ /);
  expect(stdout).toMatch(/1 problem, 0 warnings\.\n$/);
});

test("wrong usage ends with 2, and a cache that is not there with 1", () => {
  expect(doctor("--interval", "soon")).toMatchObject({ status: 2, stdout: "" });
  const { status, stderr } = doctor("nothing");
  expect(status).toBe(1);
  expect(stderr).toContain('there is no cache "nothing"');
});
