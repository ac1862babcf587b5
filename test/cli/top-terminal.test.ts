/** `cache-machine top` as a program: in a terminal, in a pipe, and on every way out. */

import { type ChildProcess, execFile, fork } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Cache, openCache } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { TerminalOf } from "./terminal.ts";

const PROGRAM = fileURLToPath(new URL("../../dist/cli/index.js", import.meta.url));
const HOLDER = fileURLToPath(new URL("top-holder.mjs", import.meta.url));
const NAME = "seen";

let directory: string;
let cache: Cache;
let terminals: TerminalOf[];
let holders: ChildProcess[];

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-top-"));
  cache = openCache(NAME, { size: "1mb", path: directory });
  cache.set("a", 1);
  terminals = [];
  holders = [];
});

afterEach(async () => {
  for (const terminal of terminals) await terminal.end();
  for (const holder of holders) holder.kill("SIGKILL");
  cache.close();
  fs.rmSync(directory, { recursive: true });
});

const args = (...more: string[]): string[] => [PROGRAM, "top", NAME, "--path", directory, "-i", "0.2", ...more];

function start(size: { columns?: number; rows?: number } = {}, ...more: string[]): TerminalOf {
  const terminal = new TerminalOf(process.execPath, args(...more), size);
  terminals.push(terminal);
  return terminal;
}

async function hold(): Promise<number> {
  const holder = fork(HOLDER, [NAME, directory]);
  holders.push(holder);
  expect(await once(holder, "message")).toEqual(["locked", undefined]);
  return holder.pid as number;
}

/** The path of the cache's file. */
function file(): string {
  const [name] = fs.readdirSync(directory).filter((each) => /\.v\d+/.test(each) && !each.includes(".bell."));
  return path.join(directory, name as string);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("in a terminal", () => {
  test("draws the numbers, and takes no seat", async () => {
    const terminal = start();
    await terminal.until(new RegExp(`${process.pid} .* alive`));
    cache.get("a");
    await terminal.until(/hit ratio +100 %/);
    expect(terminal.isTaken).toBe(true);
    expect(cache.stats().participants).toBe(1);
    expect(terminal.lines[0]).toMatch(/^cache-machine top · seen · 1 MiB +\d\d:\d\d:\d\d$/);
    expect(terminal.lines.at(-1)).toMatch(/q {2}quit/);
  });

  test("q gives the terminal back as it was", async () => {
    const command = `stty -g; ${[process.execPath, ...args()].map((each) => `'${each}'`).join(" ")}; echo code $?; stty -g`;
    const terminal = new TerminalOf("/bin/sh", ["-c", command], { columns: 300 });
    terminals.push(terminal);
    await terminal.until(({ isTaken }) => isTaken);
    await terminal.until("every 0.2 s");
    terminal.keys("q");
    await terminal.ended;
    const [before, code, after] = terminal.lines;
    expect(code).toBe("code 0");
    expect(after).toBe(before);
    expect(after).toMatch(/^[0-9a-f:]{20,}$/);
    expect(terminal.isTaken).toBe(false);
    expect(terminal.written.lastIndexOf("\u001b[?25h")).toBeGreaterThan(terminal.written.lastIndexOf("\u001b[?25l"));
  });

  test("follows the size of the terminal", async () => {
    const terminal = start();
    await terminal.until("THREAD");
    for (const [columns, rows] of [
      [120, 40],
      [60, 20],
      [30, 8],
      [80, 24],
    ] as const) {
      terminal.resize(columns, rows);
      await terminal.until(({ lines }) => /^cache-m/.test(lines[0] ?? "") && /q {2}quit/.test(lines.at(-1) ?? ""));
      expect(terminal.lines.filter((line) => line.includes("cache-machine top"))).toHaveLength(1);
    }
  });

  test("writes only what has changed", async () => {
    const terminal = start();
    await terminal.until(/operations +0\/s/);
    const from = terminal.written.length;
    const time = terminal.lines[0];
    await terminal.until(({ lines }) => lines[0] !== time);
    const title = /cache-machine top/g;
    expect(terminal.written.slice(from).match(title)).toHaveLength(1);
    expect(terminal.written.slice(from)).not.toContain("THREAD");
  });

  test("keys sort, pause, change the interval, and help", async () => {
    const terminal = start();
    await terminal.until("sort: ops");
    terminal.keys("s");
    await terminal.until("sort: near");
    terminal.keys("\u001b[C");
    await terminal.until("sort: held");
    terminal.keys("\u001b[D");
    await terminal.until("sort: near");
    terminal.keys("+");
    await terminal.until("every 0.5 s");
    terminal.keys("-");
    await terminal.until("every 0.2 s");
    terminal.keys("p");
    await terminal.until(/paused · \d\d:/);
    cache.set("b", 1);
    terminal.keys(" ");
    await terminal.until(({ text }) => !text.includes("paused"));
    terminal.keys("?");
    await terminal.until("this help");
    terminal.keys("?");
    await terminal.until(({ text }) => !text.includes("this help"));
  });

  test("a process that is stopped with a lock is named with the remedy; killed, it is dead", async () => {
    const pid = await hold();
    const terminal = start({ columns: 120 });
    await terminal.until(new RegExp(`${pid} .* alive .* lock "report"`));
    process.kill(pid, "SIGSTOP");
    await terminal.until(new RegExp(`^! process ${pid} is stopped and holds lock "report" .* kill -CONT ${pid}`, "m"));
    await terminal.until(new RegExp(`${pid} .* frozen`));
    process.kill(pid, "SIGKILL");
    await terminal.until(new RegExp(`${pid} .* dead`));
  });

  test("says that the cache was removed, and goes on with a new one of that name", async () => {
    const terminal = start();
    await terminal.until("THREAD");
    fs.unlinkSync(file());
    await terminal.until(/The cache was removed at .* Waiting for a new one/);
    const next = openCache(NAME, { size: "2mb", path: directory });
    try {
      await terminal.until("seen · 2 MiB");
      await terminal.until("THREAD");
    } finally {
      next.close();
    }
  });

  test("Ctrl-C ends it, and so does -n", async () => {
    const terminal = start();
    await terminal.until("THREAD");
    terminal.keys("\u0003");
    expect(await terminal.ended).toEqual({ exitCode: 0, signal: 0 });
    expect(terminal.isTaken).toBe(false);
    expect(await start({}, "-n", "2").ended).toEqual({ exitCode: 0, signal: 0 });
  });

  test.each([
    ["SIGTERM", os.constants.signals.SIGTERM],
    ["SIGINT", os.constants.signals.SIGINT],
  ] as const)("%s ends it as it ends every program, and gives the terminal back", async (signal, number) => {
    const terminal = start();
    await terminal.until("THREAD");
    process.kill(terminal.pty.pid, signal);
    expect((await terminal.ended).signal).toBe(number);
    expect(terminal.isTaken).toBe(false);
    expect(terminal.written).toMatch(/\?25h.*\?1049l$/s);
  });

  test("an error that nobody catches is printed on the usual screen", async () => {
    const fails = 'data:text/javascript,setTimeout(()=>{throw new Error("broken by the test")},2000)';
    const terminal = new TerminalOf(process.execPath, ["--import", fails, ...args()]);
    terminals.push(terminal);
    await terminal.until("THREAD");
    expect((await terminal.ended).exitCode).toBe(1);
    expect(terminal.isTaken).toBe(false);
    expect(terminal.text).toContain("Error: broken by the test");
  });

  test("ends when the terminal is closed", async () => {
    const terminal = start();
    await terminal.until("THREAD");
    const { pid } = terminal.pty;
    (terminal.pty as unknown as { destroy(): void }).destroy();
    await expect.poll(() => isRunning(pid), { timeout: 20_000 }).toBe(false);
  });
});

describe("in a pipe", () => {
  const run = (...more: string[]) =>
    new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, args(...more), { timeout: 30_000 }, (error, out, err) => {
        resolve({ code: Number(error?.code ?? 0), out, err });
      });
    });

  test("each look is a line of plain text", async () => {
    const { code, out, err } = await run("-n", "2");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = out.split("\n");
    expect(lines).toHaveLength(3);
    expect(lines[1]).toMatch(
      /^\d{4}-\d\d-\d\dT[\d:.]+Z cache=seen .*ops\/s=0 .*entries=1 .*participants=1 frozen=0 dead=0$/,
    );
    expect(out).not.toContain("\u001b");
  });

  test("each look is an object of JSON", async () => {
    const { code, out } = await run("-n", "2", "--json");
    expect(code).toBe(0);
    const frames = out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(frames).toHaveLength(2);
    expect(frames[1]).toMatchObject({ name: "seen", present: true, entries: 1, warnings: [], rates: { reads: 0 } });
    expect(frames[1].participants).toMatchObject([{ pid: process.pid, threadId: 0, state: "alive" }]);
  });

  test("a reader that has seen enough ends it", async () => {
    const command = `${[process.execPath, ...args()].map((each) => `'${each}'`).join(" ")} | head -n 1; echo done`;
    const { stdout } = await new Promise<{ stdout: string }>((resolve, reject) => {
      execFile("/bin/sh", ["-c", command], { timeout: 30_000 }, (error, stdout) =>
        error === null ? resolve({ stdout }) : reject(error),
      );
    });
    expect(stdout.trimEnd().split("\n")).toHaveLength(2);
    expect(stdout).toMatch(/done\n$/);
  });

  test.each([
    [["-i", "0"], "--interval: must be a number of seconds"],
    [["-i", "soon"], "--interval: must be a number of seconds"],
    [["-n", "0"], "--count: must be a whole number"],
    [["-n", "1.5"], "--count: must be a whole number"],
    [["--sort", "size"], "--sort"],
  ])("%j is refused", async (flags, text) => {
    const { code, out, err } = await run(...flags);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain(text);
  });
});
