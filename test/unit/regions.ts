/**
 * Regions without an engine on top, for the tests of files, mappings, locks and boards. The other side of most tests is
 * another process or thread, killed at a known place. Nothing is concluded from a delay.
 *
 * {@link useRegions} prepares a directory for each test and clears up after it.
 */

import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { buildSync } from "esbuild";
import { afterAll, afterEach, beforeEach, vi } from "vitest";
import { type FileOptions, openFileRegion } from "../../src/memory/file.ts";
import type { FileHandle, Plan, Region } from "../../src/memory/memory.ts";
import { PAGE } from "../../src/size.ts";

export const root: string = fileURLToPath(new URL("../..", import.meta.url));
export const isRoot: boolean = process.geteuid?.() === 0;
export const SIZE: number = 4 * PAGE;
export const SEATS = 4;

// ---- The other side: plain scripts that import a bundle of the modules ----------------------------------------------

export const scripts: string = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-scripts-"));
export const library: string = path.join(scripts, "library.mjs");
buildSync({
  stdin: {
    resolveDir: root,
    contents: `
      export * from "./src/memory/file.ts";
      export * from "./src/liveness/board.ts";
      export * from "./src/memory/memory.ts";
      export { Native } from "./src/system/native.ts";
      export * from "./src/bells/fifo.ts";
      export { Wakeups } from "./src/engine/wakeups.ts";
      const MAGIC = 0x0ddba11;
      export const plan = {
        version: 7,
        build: "test",
        headerBytes: 64,
        of: () => ({ base: 131072, seats: ${SEATS} }),
        format(memory, base, size) {
          const header = new Uint32Array(memory.buffer, base, 2);
          header[1] = size;
          header[0] = MAGIC;
        },
        inspect(bytes, size) {
          const header = new Uint32Array(bytes.buffer, bytes.byteOffset, 2);
          if (header[0] !== MAGIC || header[1] !== size) {
            throw Object.assign(new Error("not a test cache"), { code: "ERR_LAYOUT" });
          }
        },
      };
      /** One byte of the region that the tests write to. */
      export const at = (region) => new Uint8Array(region.memory.buffer, region.base + 4096, 1);`,
  },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  outfile: library,
});
/** The native part lies beside the bundle; the test of its absence uses a directory without it. */
export const binary: string = `cache_machine-linux-${process.arch}.node`;
fs.copyFileSync(path.join(root, "native", binary), path.join(scripts, binary));
export const { plan, at } = (await import(/* @vite-ignore */ pathToFileURL(library).href)) as {
  plan: Plan;
  at(region: Region): Uint8Array;
};

let scriptCount = 0;
/** Writes a script for a process or a worker. In both `send` and `receive` reach the test. */
export function script(body: string, directory: string = scripts): string {
  const file = path.join(directory, `script-${scriptCount++}.mjs`);
  fs.writeFileSync(
    file,
    `import { once } from "node:events";
     import { parentPort, Worker, workerData } from "node:worker_threads";
     const send = (m) => (parentPort ? parentPort.postMessage(m) : process.send(m));
     const receive = async () => (await once(parentPort ?? process, "message"))[0];
     const stay = () => setInterval(() => {}, 1000);
     const library = () => import(${JSON.stringify(path.join(directory, "library.mjs"))});
     ${body}`,
  );
  return file;
}

const children = new Set<ChildProcess>();
const workers = new Set<Worker>();

export function startProcess(body: string, ...args: string[]): ChildProcess {
  const child = fork(script(body), args, { execArgv: [], stdio: ["ignore", "inherit", "inherit", "ipc"] });
  children.add(child);
  return child;
}

export function startWorker(body: string, workerData: unknown): Worker {
  const worker = new Worker(script(body), { workerData });
  workers.add(worker);
  return worker;
}

/** Runs a script to its end; answers what it has printed. */
export function run(body: string): string {
  return spawnSync(process.execPath, [script(body), directory], { encoding: "utf8" }).stdout;
}

/** Limits for scripts, set once Node.js runs, because each version needs another amount to start. */
export const LIMIT = `
  const { execFileSync } = await import("node:child_process");
  const limit = (resource, value) => execFileSync("prlimit", ["--pid", process.pid, "--" + resource + "=" + value]);`;
export const LIMIT_ADDRESS_SPACE = `
  ${LIMIT}
  const { readFileSync } = await import("node:fs");
  const usedPages = Number(readFileSync("/proc/self/statm", "latin1").split(" ")[0]);
  // Room for all but a WebAssembly.Memory, which takes at least 4 GiB.
  limit("as", usedPages * 4096 + 2 ** 31);`;

/** The next message; fails when the other side ends without one. */
export async function message<T>(other: ChildProcess | Worker): Promise<T> {
  const ended = once(other, "exit").then(([code, signal]) => {
    throw new Error(`ended with ${code ?? signal} instead of a message`);
  });
  const [value] = await Promise.race([once(other, "message"), ended]);
  return value as T;
}

export async function kill9(child: ChildProcess): Promise<void> {
  const exit = once(child, "exit");
  child.kill("SIGKILL");
  await exit;
}

/** Waits until the kernel has completed what it has already announced: the proof is the condition, not the time. */
export async function eventually(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never true: ${condition}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

// ---- This side ------------------------------------------------------------------------------------------------------

/** The directory of the running test. */
export let directory: string;
const regions = new Set<Region>();
const mounts: string[] = [];

/** Prepares a directory for each test of a file, and ends and removes all that a test has started and made. */
export function useRegions(): void {
  // Dozens of processes are started; on a busy machine that takes its time, which says nothing.
  vi.setConfig({ testTimeout: 60_000 });

  beforeEach(() => {
    directory = fs.mkdtempSync("/dev/shm/cache-machine-test-");
  });

  afterEach(async () => {
    for (const region of regions) region.close();
    regions.clear();
    for (const child of children) if (child.exitCode === null && child.signalCode === null) await kill9(child);
    children.clear();
    for (const worker of workers) await worker.terminate();
    workers.clear();
    // Lazily: a mapping of its files is in use until the memory is collected.
    for (const mount of mounts.splice(0)) execFileSync("umount", ["--lazy", mount]);
    fs.rmSync(directory, { recursive: true });
  });

  afterAll(() => fs.rmSync(scripts, { recursive: true }));
}

/** Opens the cache file of the running test. */
export function open(options: Partial<FileOptions> = {}): Region {
  const region = openFileRegion({ name: "app", path: directory, plan, defaultSize: SIZE, ...options });
  regions.add(region);
  return region;
}

/** Has a region closed after the test. */
export function keep(region: Region): Region {
  regions.add(region);
  return region;
}

export function pathOf(region: Region): string {
  return (region.handle as FileHandle).path;
}

export function idOf(region: Region): string {
  return (region.handle as FileHandle).id;
}

/** The path that the cache file of the running test will have. */
export function emptyPath(): string {
  const region = open();
  const file = pathOf(region);
  region.close();
  fs.unlinkSync(file);
  return file;
}

/** Mounts a file system over the directory of the running test. */
export function mountTmpfs(size: string): void {
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", directory]);
  mounts.push(directory);
}

/** For scripts: `open` opens the cache file of the running test. */
export const OPEN = `
  const { openFileRegion, plan, at } = await library();
  const open = (more) => openFileRegion({ name: "app", path: process.argv[2] ?? workerData.directory, plan, defaultSize: ${SIZE}, ...more });`;

/** The error that `run` throws. */
export function failure(run: () => unknown): Error & { code?: string } {
  try {
    run();
  } catch (error) {
    return error as Error & { code?: string };
  }
  throw new Error("did not throw");
}
