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

/** Where groups with a freezer can be created: as root, in version 1 or 2 of control groups. */
const FREEZERS = [
  { version: 1, root: "/sys/fs/cgroup/freezer", file: "freezer.state", freeze: "FROZEN", thaw: "THAWED" },
  { version: 2, root: "/sys/fs/cgroup", file: "cgroup.freeze", freeze: "1", thaw: "0" },
  { version: 2, root: "/sys/fs/cgroup/unified", file: "cgroup.freeze", freeze: "1", thaw: "0" },
].filter(({ root, file }) => hasFreezer(root, file));

function hasFreezer(root: string, file: string): boolean {
  const group = path.join(root, `cache-machine-test-${process.pid}`);
  try {
    fs.mkdirSync(group);
  } catch {
    return false;
  }
  try {
    return fs.existsSync(path.join(group, file));
  } finally {
    fs.rmdirSync(group);
  }
}

test.each(FREEZERS)(
  "version $version of control groups in $root: it names the group that has stopped a process",
  async ({ root: groups, ...freezer }) => {
    const { pid } = await prepare("frozen-lock.mjs");
    const above = path.join(groups, `cache-machine-test-${process.pid}`);
    const group = path.join(above, "inner");
    fs.mkdirSync(group, { recursive: true });
    const control = path.join(above, freezer.file);
    try {
      fs.writeFileSync(path.join(group, "cgroup.procs"), `${pid}`);
      process.kill(pid as number, "SIGCONT");
      fs.writeFileSync(control, freezer.freeze);
      await until(() => /^(FROZEN|frozen 1)$/m.test(stateIn(group)));
      const { status, found } = examine("--interval", "0");
      expect(status).toBe(1);
      const [frozen] = found.filter(({ id }) => id === "frozen");
      expect(frozen?.detail).toBe(
        `process ${pid} is stopped by the freezer of its control group and holds the lock "report", for which another one waits`,
      );
      expect(frozen?.remedy).toContain(`echo ${freezer.thaw} > ${control}`);
      // As it says: a signal does not help, and this does.
      process.kill(pid as number, "SIGCONT");
      expect(examine("--interval", "0").found.map(({ id }) => id)).toContain("frozen");
      fs.writeFileSync(control, freezer.thaw);
      await until(() => !/^(FROZEN|frozen 1)$/m.test(stateIn(group)));
      expect(examine().found).toEqual([]);
    } finally {
      fs.writeFileSync(control, freezer.thaw);
      running?.kill("SIGTERM");
      await once(running as ChildProcess, "exit");
      await until(() => fs.readFileSync(path.join(group, "cgroup.procs"), "utf8") === "");
      fs.rmdirSync(group);
      fs.rmdirSync(above);
    }
  },
);

/** What the group says of itself, in either version. */
function stateIn(group: string): string {
  const files = ["freezer.state", "cgroup.events"].map((name) => path.join(group, name)).filter(fs.existsSync);
  return files.map((file) => fs.readFileSync(file, "utf8")).join("");
}

async function until(isSo: () => boolean): Promise<void> {
  for (const end = Date.now() + 20_000; !isSo(); await new Promise((resolve) => setTimeout(resolve, 10))) {
    if (Date.now() > end) throw new Error("it did not come");
  }
}

test("a process is stopped while it writes a large value: it names the process, and so does top", async () => {
  const { pid } = await prepare("frozen-write.mjs");
  const { status, found } = examine();
  const top = spawnSync(process.execPath, [PROGRAM, "top", "app", "--path", directory, "--json", "-n", "1"], {
    encoding: "utf8",
  });
  const { warnings } = JSON.parse(top.stdout);
  expect(warnings[0]).toMatchObject({ code: "frozen-holder" });
  expect(warnings[0].text).toContain(`process ${pid} is stopped and holds `);
  expect(warnings[0].text).toContain("half a large value");
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

test("one process has another clock: it names the process, and by how much, and so does top", async () => {
  const { pid } = await prepare("clock.mjs");
  const { status, found } = examine();
  const top = spawnSync(process.execPath, [PROGRAM, "top", "app", "--path", directory, "--json", "-n", "1"], {
    encoding: "utf8",
  });
  const { warnings } = JSON.parse(top.stdout);
  expect(warnings).toMatchObject([{ code: "clock" }]);
  expect(warnings[0].text).toMatch(new RegExp(`^the clock of process ${pid} is 3,(599|600|601) s behind: `));
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
  // What is fine is told in few lines, so that the rest is on a screen with 24 of them.
  expect(lines).toContain("  ✓ fine: can be looked at, dead participants, seats");
  const all = doctor("--interval", "0", "--all").stdout;
  expect(all).toContain("\n  ✓ seats: 2 of 64 are taken\n");
  expect(all).not.toContain("✓ fine");
});

test("what was found may be why a cache is not there", async () => {
  const { file } = await prepare("stale.mjs");
  const { status, stdout, stderr } = doctor("app");
  expect(status).toBe(1);
  expect(stdout).toContain(`✗ files of other layouts: ${file}: nobody has it open`);
  expect(stdout).toContain(`→ Remove them: npx cache-machine rm --all-stale --path ${directory}\n`);
  expect(stderr).toContain('there is no cache "app"');
});

test("wrong usage ends with 2, and a cache that is not there with 1", () => {
  expect(doctor("--interval", "soon")).toMatchObject({ status: 2, stdout: "" });
  const { status, stderr } = doctor("nothing");
  expect(status).toBe(1);
  expect(stderr).toContain('there is no cache "nothing"');
});
