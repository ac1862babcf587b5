/**
 * Runs the large example, examples/pm2, for a few seconds: it keeps the promises that it prints, and leaves nothing behind, however
 * it ends.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

const MAIN = fileURLToPath(new URL("../../examples/pm2/main.mjs", import.meta.url));
const WATCHDOG_MS = 110_000;

interface Run {
  driver: ChildProcess;
  output: { stdout: string; stderr: string };
  /** The exit code, or the signal that ended the driver. */
  ended: Promise<number | string>;
}

let run: string;
let temp: string;

beforeEach(() => {
  temp = mkdtempSync(join(tmpdir(), "example-"));
  run = temp.slice(-6);
});

afterEach(() => rmSync(temp, { recursive: true, force: true }));

test("the pm2 example keeps all its promises", async () => {
  const { output, ended } = start({ DURATION: "5" });
  expect(await ended, output.stderr).toBe(0);

  const summary = JSON.parse(output.stdout);
  expect(summary.promises).toHaveLength(10);
  for (const { promise, kept } of summary.promises) {
    expect(kept, promise).toBe(true);
    expect(output.stderr).toContain(`✓ ${promise}`);
  }
  // The same promises, checked again with the numbers of the summary.
  expect(summary.wrong).toEqual([]);
  expect(summary.failed.others).toBe(0);
  expect(summary.pages.asked).toBeGreaterThan(100);
  expect(
    summary.processes.map(({ name, state }: { name: string; state: string }) => `${name} ${state}`).sort(),
  ).toEqual(
    ["docs-0", "docs-1", "docs-2"].flatMap((name) =>
      name === summary.killed.name ? [`${name} killed`, `${name} restarted`] : [`${name} online`],
    ),
  );
  expect(summary.posted.servedAfter.sort()).toEqual(["docs-0", "docs-1", "docs-2"]);
  expect(summary.pages).toMatchObject({ again: 0, atOnce: 0 });
  expect(summary.waited.forTheResult).toMatchObject({ wrong: 0, by: ["docs-0", "docs-1", "docs-2"] });
  expect(summary.waited.forTheResult.requests).toBeGreaterThanOrEqual(9);
  expect(summary.limits).toMatchObject({ limit: 20, posts: 60, accepted: 20, refused: 40 });
  expect(summary.limits.loadedBy).toHaveLength(3);
  expect(summary.housekeeping.rounds).toBeGreaterThan(0);
  expect(summary.housekeeping.atOnce).toBe(0);
  expect(summary.restarted.firstFromCache).toBe(true);
  expect(summary.saved.answers).toBeGreaterThan(summary.pages.rendered);
  expect(summary.cache.size).toBe(64 << 20);
  expect(leftovers()).toEqual([]);
});

test("the pm2 example leaves nothing behind when it is interrupted", async () => {
  const { driver, output, ended } = start({ DURATION: "60" });
  await vi.waitFor(() => expect(output.stderr).toContain("from cache"), { timeout: 60_000 });
  driver.kill("SIGINT");
  // Under npm the driver gets the signal twice: from the terminal, and from npm.
  driver.kill("SIGINT");
  expect(await ended, output.stderr).toBe(130);
  expect(leftovers()).toEqual([]);
});

test("the pm2 example leaves nothing behind when it is killed", async () => {
  const { driver, output, ended } = start({ DURATION: "60" });
  await vi.waitFor(() => expect(output.stderr).toContain("from cache"), { timeout: 60_000 });
  expect(leftovers()).not.toEqual([]);
  driver.kill("SIGKILL");
  expect(await ended).toBe("SIGKILL");
  await vi.waitFor(() => expect(leftovers()).toEqual([]), { timeout: 20_000 });
});

function start(env: Record<string, string>): Run {
  const driver = spawn(process.execPath, [MAIN, "--json"], {
    env: { ...process.env, EXAMPLE_RUN: run, TMPDIR: temp, PROCESSES: "3", THREADS: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: WATCHDOG_MS,
    killSignal: "SIGKILL",
  });
  const output = { stdout: "", stderr: "" };
  driver.stdout?.setEncoding("utf8").on("data", (text) => (output.stdout += text));
  driver.stderr?.setEncoding("utf8").on("data", (text) => (output.stderr += text));
  return { driver, output, ended: once(driver, "close").then(([code, signal]) => code ?? signal) };
}

/** The processes (found by their environment), temporary files and shared memory of this run that still exist. */
function leftovers(): string[] {
  const processes = readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && environmentOf(pid).includes(run));
  const files = readdirSync(temp);
  const memory = readdirSync("/dev/shm").filter((file) => file.includes(run));
  return [...processes.map((pid) => `process ${pid}`), ...files, ...memory];
}

function environmentOf(pid: string): string[] {
  try {
    const variables = readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
    return variables.filter((variable) => variable.startsWith("EXAMPLE_RUN=")).map((variable) => variable.slice(12));
  } catch {
    // The process belongs to another user, or has ended.
    return [];
  }
}
