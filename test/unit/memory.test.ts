/**
 * Where the memory comes from and who is alive: files, mappings, locks and tokens, without an engine on top. The other
 * side of most tests is another process or thread, killed at a known place; nothing is concluded from a delay.
 */

import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { getEnvironmentData, Worker } from "node:worker_threads";
import { build, buildSync } from "esbuild";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Board } from "../../src/liveness/liveness.ts";
import { attachFileRegion, destroyFile, type FileOptions, openFileRegion } from "../../src/memory/file.ts";
import {
  attachThreadRegion,
  createThreadRegion,
  type FileHandle,
  type Region,
  type ThreadHandle,
} from "../../src/memory/memory.ts";
import { PAGE, parseSize, readableSize } from "../../src/size.ts";
import { Native } from "../../src/system/native.ts";

// Dozens of processes are started here; on a busy machine that takes its time, which says nothing.
vi.setConfig({ testTimeout: 60_000 });

const root = fileURLToPath(new URL("../..", import.meta.url));
const isRoot = process.geteuid?.() === 0;
const SIZE = 4 * PAGE;
const SLOTS = 4;

// ---- The other side: plain scripts that import a bundle of the modules ----------------------------------------------

const scripts = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-scripts-"));
const library = path.join(scripts, "library.mjs");
buildSync({
  stdin: {
    resolveDir: root,
    contents: `
      export * from "./src/memory/file.ts";
      export * from "./src/liveness/liveness.ts";
      export * from "./src/memory/memory.ts";
      export { Native } from "./src/system/native.ts";
      const MAGIC = 0x0ddba11;
      export const plan = {
        version: 7,
        build: "test",
        of: () => ({ base: 131072, slots: ${SLOTS} }),
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
// Where the bundle finds it; the test of its absence uses a directory without it.
const binary = `cache_machine-linux-${process.arch}.node`;
fs.copyFileSync(path.join(root, "native", binary), path.join(scripts, binary));
const { plan, at } = (await import(/* @vite-ignore */ pathToFileURL(library).href)) as {
  plan: Plan;
  at(region: Region): Uint8Array;
};

let scriptCount = 0;
/** A script for a process or a worker; `send` and `receive` reach the test either way. */
function script(body: string, directory: string = scripts): string {
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

function startProcess(body: string, ...args: string[]): ChildProcess {
  const child = fork(script(body), args, { execArgv: [], stdio: ["ignore", "inherit", "inherit", "ipc"] });
  children.add(child);
  return child;
}

function startWorker(body: string, workerData: unknown): Worker {
  const worker = new Worker(script(body), { workerData });
  workers.add(worker);
  return worker;
}

/** What a script run to its end has printed. */
function run(body: string): string {
  return spawnSync(process.execPath, [script(body), directory], { encoding: "utf8" }).stdout;
}

/** Limits for scripts, set once Node.js runs: how much it takes to start is different for each version. */
const LIMIT = `
  const { execFileSync } = await import("node:child_process");
  const limit = (resource, value) => execFileSync("prlimit", ["--pid", process.pid, "--" + resource + "=" + value]);`;
const LIMIT_ADDRESS_SPACE = `
  ${LIMIT}
  const { readFileSync } = await import("node:fs");
  const usedPages = Number(readFileSync("/proc/self/statm", "latin1").split(" ")[0]);
  // Room for all but a WebAssembly.Memory, which takes at least 4 GiB.
  limit("as", usedPages * 4096 + 2 ** 31);`;

/** The next message; fails when the other side ends without one. */
async function message<T>(other: ChildProcess | Worker): Promise<T> {
  const ended = once(other, "exit").then(([code, signal]) => {
    throw new Error(`ended with ${code ?? signal} instead of a message`);
  });
  const [value] = await Promise.race([once(other, "message"), ended]);
  return value as T;
}

async function kill9(child: ChildProcess): Promise<void> {
  const exit = once(child, "exit");
  child.kill("SIGKILL");
  await exit;
}

/** For what the kernel completes on its own right after we were told: the proof is the condition, not the time. */
async function eventually(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never true: ${condition}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

// ---- This side --------------------------------------------------------------------------------------------------------

let directory: string;
const regions = new Set<Region>();
const mounts: string[] = [];

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
  // Lazily: what was mapped from it is in use until its memory is collected.
  for (const mount of mounts.splice(0)) execFileSync("umount", ["--lazy", mount]);
  fs.rmSync(directory, { recursive: true });
});

afterAll(() => fs.rmSync(scripts, { recursive: true }));

function open(options: Partial<FileOptions> = {}): Region {
  const region = openFileRegion({ name: "app", path: directory, plan, defaultSize: SIZE, ...options });
  regions.add(region);
  return region;
}

function keep(region: Region): Region {
  regions.add(region);
  return region;
}

function pathOf(region: Region): string {
  return (region.handle as FileHandle).path;
}

function idOf(region: Region): string {
  return (region.handle as FileHandle).id;
}

/** A path that no region has yet. */
function emptyPath(): string {
  const region = open();
  const file = pathOf(region);
  region.close();
  fs.unlinkSync(file);
  return file;
}

function mountTmpfs(size: string): void {
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", directory]);
  mounts.push(directory);
}

const OPEN = `
  const { openFileRegion, plan, at } = await library();
  const open = (more) => openFileRegion({ name: "app", path: process.argv[2] ?? workerData.directory, plan, defaultSize: ${SIZE}, ...more });`;

function failure(run: () => unknown): Error & { code?: string } {
  try {
    run();
  } catch (error) {
    return error as Error & { code?: string };
  }
  throw new Error("did not throw");
}

// -----------------------------------------------------------------------------------------------------------------------

describe("sizes", () => {
  test("are read in powers of 1024 and rounded up to 64 KiB", () => {
    expect(parseSize("64mb")).toBe(64 << 20);
    expect(parseSize(" 1.5 GiB ")).toBe(1.5 * 2 ** 30);
    expect(parseSize("512k")).toBe(512 << 10);
    expect(parseSize("100KB")).toBe(2 * PAGE);
    expect(parseSize("4gb")).toBe(2 ** 32);
    expect(parseSize("1b")).toBe(PAGE);
    expect(parseSize("70000")).toBe(2 * PAGE);
    expect(parseSize(1)).toBe(PAGE);
    expect(parseSize(0.5)).toBe(PAGE);
  });

  test("that make no sense are errors naming the option", () => {
    for (const size of ["", "mb", "64 bananas", "-1mb", "1tb", null, undefined, {}, true]) {
      expect(() => parseSize(size as string)).toThrow(TypeError);
      expect(() => parseSize(size as string)).toThrow(/^size:/);
    }
    for (const size of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32 + 1, "0", "5gb"]) {
      expect(() => parseSize(size)).toThrow(RangeError);
      expect(() => parseSize(size)).toThrow(/^size:/);
    }
  });

  test("are told in both ways", () => {
    expect(readableSize(64 << 20)).toBe("64 MiB (67108864 bytes)");
    expect(readableSize(100)).toBe("100 bytes");
  });
});

describe("thread reach", () => {
  const create = () => keep(createThreadRegion({ base: PAGE, size: SIZE, slots: SLOTS }));
  const CLAIM = `
    const { attachThreadRegion, at } = await library();
    const region = attachThreadRegion(workerData);
    const slot = region.membership.claim();`;

  test("memory is seen by workers, slots are their own", async () => {
    const region = create();
    expect(region.membership.claim()).toBe(0);
    const worker = startWorker(`${CLAIM} at(region)[0] = 42; send(slot); stay();`, region.handle);
    expect(await message(worker)).toBe(1);
    expect(at(region)[0]).toBe(42);
    expect(region.membership.take(1)).toBe(false);
  });

  test("a terminated worker is provably dead, also one in the middle of a loop", async () => {
    const region = create();
    const worker = startWorker(`${CLAIM} send(slot); for (;;);`, region.handle);
    const slot = await message<number>(worker);
    expect(region.membership.take(slot)).toBe(false);
    await worker.terminate();
    await eventually(() => region.membership.take(slot));
    expect(region.membership.take(slot)).toBe(false);
    region.membership.release(slot);
    expect(region.membership.take(slot)).toBe(true);
  });

  test("so is a nested worker that ended with its parent", async () => {
    const region = create();
    const nested = script(`${CLAIM} send(slot); stay();`);
    const worker = startWorker(
      `${CLAIM} const child = new Worker(${JSON.stringify(nested)}, { workerData });
       send([slot, (await once(child, "message"))[0]]); stay();`,
      region.handle,
    );
    const slots = await message<number[]>(worker);
    expect(slots).toEqual([0, 1]);
    for (const slot of slots) expect(region.membership.take(slot)).toBe(false);
    await worker.terminate();
    for (const slot of slots) await eventually(() => region.membership.take(slot));
  });

  test("claim() reuses the slot of a dead worker and tells when all owners live", async () => {
    const region = create();
    const worker = startWorker(`${CLAIM} send(slot); stay();`, region.handle);
    await message(worker);
    const others = Array.from({ length: SLOTS - 1 }, () => keep(attachThreadRegion(region.handle as ThreadHandle)));
    expect(others.map((other) => other.membership.claim())).toEqual([1, 2, 3]);
    expect(failure(() => region.membership.claim())).toMatchObject({
      code: "ERR_BUSY",
      message: expect.stringContaining(`all ${SLOTS} places`),
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

  test("participants of one thread do not take each other for dead, nor give back what is not theirs", () => {
    const region = create();
    const other = keep(attachThreadRegion(region.handle as ThreadHandle));
    const slot = region.membership.claim();
    other.membership.release(slot);
    expect(other.membership.take(slot)).toBe(false);
    expect(other.membership.claim()).toBe(1);
    expect(other.membership.take(-1)).toBe(false);
    expect(other.membership.take(SLOTS)).toBe(false);
    region.close();
    region.close();
    expect(other.membership.take(slot)).toBe(true);
    expect(failure(() => region.membership.claim()).code).toBe("ERR_CLOSED");
    expect(failure(() => region.membership.take(slot)).code).toBe("ERR_CLOSED");
  });

  test("a thread id that went to another thread is not the thread that had it", () => {
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

  test("what procfs does not tell is no proof", async () => {
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
      const board = new (await import("../../src/liveness/liveness.ts")).Board(tokens);
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
    "a procfs that no descriptor is left for (%s) is an error, not no procfs",
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
        const liveness = await import("../../src/liveness/liveness.ts");
        const error = failure(() => new liveness.Board(tokens));
        expect(error).toMatchObject({ code: "ERR_NO_SPACE", message: expect.stringContaining("ulimit -n") });
        expect(error.message).toContain(code);
        // With a descriptor it is as if nothing had been.
        process.getBuiltinModule = real;
        expect(new liveness.Board(tokens).claim()).toBe(0);
        expect(new BigInt64Array(tokens)[0]).toBeGreaterThan(0n);
      } finally {
        process.getBuiltinModule = real;
      }
    },
  );

  test("without procfs the end of a worker is reported by Node.js", async () => {
    const hide = `
      const real = process.getBuiltinModule;
      process.getBuiltinModule = (id) =>
        id === "node:fs" ? { ...real(id), readlinkSync() { throw new Error("hidden"); } } : real(id);`;
    // The watching thread is a worker here as well, so that this test changes nothing in its own.
    const inner = script(`${hide} ${CLAIM} send(slot); stay();`);
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

  test("a region larger than a memory is a RangeError, one without address space an ERR_NO_SPACE", () => {
    expect(() => createThreadRegion({ base: PAGE, size: 2 ** 32, slots: 1 })).toThrow(/^size: 4 GiB/);
    const stdout = run(`
      const { createThreadRegion } = await library();
      ${LIMIT_ADDRESS_SPACE}
      try { createThreadRegion({ base: 65536, size: 65536, slots: 1 }); } catch (e) { console.log(e.code, e.message); }`);
    expect(stdout).toMatch(/^ERR_NO_SPACE .*ulimit -v/);
  });

  test("needs nothing of Node.js when bundled for a browser", async () => {
    const { outputFiles, metafile } = await build({
      entryPoints: [path.join(root, "src/memory/memory.ts")],
      bundle: true,
      platform: "browser",
      format: "esm",
      write: false,
      metafile: true,
    });
    expect(
      Object.keys(metafile.inputs)
        .map((input) => path.basename(input))
        .sort(),
    ).toEqual(["errors.ts", "liveness.ts", "memory.ts", "size.ts"]);
    expect(outputFiles[0]?.text).not.toMatch(/from "node:/);
  });
});

describe("process reach", () => {
  test("one file, seen by two processes and a worker", async () => {
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

  test("what lies below the region stays private to the process", async () => {
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

  test("names become file names that cannot leave the directory or meet each other", () => {
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

  test("the umask takes nothing away", async () => {
    const child = startProcess(`${OPEN} process.umask(0o777); send(open().handle.path);`, directory);
    expect(fs.statSync(await message<string>(child)).mode & 0o777).toBe(0o600);
    expect(open().size).toBe(SIZE);
  });

  test("destroyFile() removes the name, and the next one gets a new cache", () => {
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

describe("process reach, mappings", () => {
  test("show the file that has the name now, not the one that had it", async () => {
    const region = open();
    destroyFile({ name: "app", path: directory }, 7);
    const child = startProcess(`${OPEN} at(open())[0] = 13; send("created");`, directory);
    await message(child);
    const next = open();
    expect(next.memory).not.toBe(region.memory);
    expect(at(next)[0]).toBe(13);
    expect(at(region)[0]).toBe(0);
    // The older user leaving does not take the newer one's mapping from those who come later.
    region.close();
    expect(open().memory).toBe(next.memory);
  });

  test("are shared by the threads of a process", async () => {
    const region = open();
    expect(open().memory).toBe(region.memory);
    // The byte below the region is private to the mapping, so it tells whether the worker has the same one.
    new Uint8Array(region.memory.buffer)[0] = 77;
    const nested = script(`${OPEN} send(new Uint8Array(open().memory.buffer)[0]); stay();`);
    const worker = startWorker(
      `${OPEN} const region = open();
       const again = (region.close(), open());
       const child = new Worker(${JSON.stringify(nested)}, { workerData });
       send([new Uint8Array(again.memory.buffer)[0], (await once(child, "message"))[0]]); stay();`,
      { directory },
    );
    expect(await message(worker)).toEqual([77, 77]);
  });

  test("are shared with a worker that started before, by handle", async () => {
    const worker = startWorker(
      `const { attachFileRegion, at } = await library(); send("ready");
       const region = attachFileRegion(await receive()); at(region)[0] = 6;
       send([region.membership.claim(), new Uint8Array(region.memory.buffer)[0]]); stay();`,
      { directory },
    );
    await message(worker);
    const region = open();
    region.membership.claim();
    new Uint8Array(region.memory.buffer)[0] = 78;
    worker.postMessage(region.handle);
    expect(await message(worker)).toEqual([1, 78]);
    expect(at(region)[0]).toBe(6);
  });

  test("are not shared between different builds of the module", () => {
    const region = open();
    const other = open({ plan: { ...plan, build: "another" } });
    expect(other.memory).not.toBe(region.memory);
    at(region)[0] = 4;
    expect(at(other)[0]).toBe(4);
  });

  test("are withdrawn with the last use of the thread that made them", () => {
    const key = (region: Region) => `cache-machine test ${pathOf(region)}`;
    const [first, second] = [open(), open()];
    first.close();
    first.close();
    expect(getEnvironmentData(key(second))).toMatchObject({ memory: second.memory });
    second.close();
    expect(getEnvironmentData(key(second))).toBeUndefined();
    expect(open().memory).not.toBe(second.memory);
  });

  test("end with their last user, in whichever thread that is", async () => {
    const region = open();
    const worker = startWorker(
      `${OPEN} const region = open(); send("joined"); await receive();
       const seen = at(region)[0]; region.close(); send(seen); stay();`,
      { directory },
    );
    await message(worker);
    at(region)[0] = 11;
    region.close();
    expect(at(region)[0]).toBe(11);
    const seen = message(worker);
    worker.postMessage("go");
    expect(await seen).toBe(11);
    expect(at(region)[0]).toBe(0);
    expect(at(open())[0]).toBe(11);
  });

  test("that have ended are made again for a handle", async () => {
    const region = open();
    at(region)[0] = 12;
    region.close();
    const again = keep(attachFileRegion(region.handle as FileHandle));
    expect(again.memory).not.toBe(region.memory);
    expect(at(again)[0]).toBe(12);
  });

  test.skipIf(!isRoot)("do not keep the blocks of a destroyed cache (needs root)", () => {
    mountTmpfs("1m");
    for (let i = 0; i < 10; i++) {
      const region = open({ size: 768 << 10 });
      destroyFile({ name: "app", path: directory }, 7);
      region.close();
    }
    expect(fs.statfsSync(directory).bfree).toBe(fs.statfsSync(directory).blocks);
  });

  test("of a destroyed cache cannot be joined by handle", () => {
    const region = open();
    fs.unlinkSync(pathOf(region));
    expect(failure(() => attachFileRegion(region.handle as FileHandle))).toMatchObject({ code: "ERR_CLOSED" });
    open();
    expect(failure(() => attachFileRegion(region.handle as FileHandle))).toMatchObject({ code: "ERR_CLOSED" });
  });

  test("that fail leave a memory that is whole", () => {
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
    expect(() => Native.load().map(999_999, memory, PAGE, PAGE)).toThrow("EBADF");
    const bytes = new Uint8Array(memory.buffer);
    bytes.fill(1);
    expect(bytes.every((byte) => byte === 1)).toBe(true);
  });
});

describe("process reach, life and death", () => {
  const CLAIM = `${OPEN} const region = open(); const slot = region.membership.claim();`;

  test("kill -9 frees the slot at once", async () => {
    const region = open();
    expect(region.membership.claim()).toBe(0);
    const child = startProcess(`${CLAIM} send(slot); for (;;);`, directory);
    expect(await message(child)).toBe(1);
    expect(region.membership.take(1)).toBe(false);
    await kill9(child);
    expect(region.membership.take(1)).toBe(true);
  });

  test("so does terminating a worker, while its process lives on", async () => {
    const region = open();
    region.membership.claim();
    const worker = startWorker(`${CLAIM} send(slot); for (;;);`, { directory });
    expect(await message(worker)).toBe(1);
    expect(region.membership.take(1)).toBe(false);
    await worker.terminate();
    expect(region.membership.take(1)).toBe(true);
  });

  test("a stopped process is alive", async () => {
    const region = open();
    const child = startProcess(`${CLAIM} send(slot); stay();`, directory);
    const slot = await message<number>(child);
    child.kill("SIGSTOP");
    await eventually(() => /\) T /.test(fs.readFileSync(`/proc/${child.pid}/stat`, "latin1")));
    expect(region.membership.take(slot)).toBe(false);
  });

  test("a child process does not inherit a place", async () => {
    const region = open();
    // The grandchild keeps running after its parent is killed.
    const child = startProcess(
      `${CLAIM} const { spawn } = await import("node:child_process");
       const grandchild = spawn("sleep", ["1000"], { stdio: "ignore", detached: true }); send([slot, grandchild.pid]); stay();`,
      directory,
    );
    const [slot, grandchild] = await message<[number, number]>(child);
    try {
      await kill9(child);
      expect(region.membership.take(slot)).toBe(true);
    } finally {
      process.kill(grandchild, "SIGKILL");
    }
  });

  test("participants of one thread hold slots of their own", () => {
    const [one, two] = [open(), open()];
    expect(one.membership.claim()).toBe(0);
    expect(one.membership.take(0)).toBe(false);
    expect(two.membership.take(0)).toBe(false);
    two.membership.release(0);
    expect(two.membership.claim()).toBe(1);
    expect(one.membership.claim()).toBe(2);
    expect(one.membership.take(SLOTS)).toBe(false);
    // Closing another descriptor of the file drops nobody's lock, as it would with POSIX locks.
    two.close();
    expect(open().membership.claim()).toBe(1);
    one.membership.release(0);
    expect(open().membership.claim()).toBe(0);
    expect(failure(() => two.membership.take(0)).code).toBe("ERR_CLOSED");
  });

  test("claim() says when all places are taken", () => {
    const region = open();
    for (let slot = 0; slot < SLOTS; slot++) expect(region.membership.claim()).toBe(slot);
    expect(failure(() => open().membership.claim())).toMatchObject({
      code: "ERR_BUSY",
      message: expect.stringContaining(`all ${SLOTS} places`),
    });
  });
});

describe("process reach, creation", () => {
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

  test("eight processes race: one file, which all of them see", () => race(8, SIZE));

  test.skipIf(!isRoot)("eight processes race where there is room for one file only (needs root)", async () => {
    mountTmpfs("12m");
    await race(8, 8 << 20);
  });

  test("whoever is overtaken takes what is there and leaves nothing", () => {
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

  test("one killed right after it leaves a good file", async () => {
    const child = startProcess(`${OPEN} open(); process.kill(process.pid, "SIGKILL");`, directory);
    expect(await once(child, "exit")).toEqual([null, "SIGKILL"]);
    expect(fs.readdirSync(directory)).toHaveLength(1);
    expect(open().membership.claim()).toBe(0);
  });

  test("one killed while another waits for its turn lets that go on", async () => {
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

  test("a format that throws leaves nothing", () => {
    const failing: Plan = {
      ...plan,
      format() {
        throw new Error("no");
      },
    };
    expect(() => open({ plan: failing })).toThrow("no");
    expect(fs.readdirSync(directory)).toEqual([]);
  });

  test.skipIf(!isRoot)("a file system that reserves no blocks is ERR_UNSUPPORTED (needs root)", () => {
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
  });

  test.skipIf(!isRoot)("a full file system is ERR_NO_SPACE, and gets its blocks back (needs root)", () => {
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
  });

  test("a directory that is none is ERR_UNSUPPORTED and names the option", () => {
    const error = failure(() => open({ path: path.join(directory, "missing") }));
    expect(error).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringContaining("`path`") });
    expect(failure(() => open({ path: "/proc" })).code).toBe("ERR_UNSUPPORTED");
  });

  test.each(["first", "second"])("no descriptors left is ERR_NO_SPACE: %s cache of a process", (which) => {
    const stdout = run(`
      ${OPEN} ${LIMIT}
      const fs = await import("node:fs");
      ${which === "second" ? "open().close();" : ""}
      limit("nofile", 100);
      try { for (;;) fs.openSync("/dev/null"); } catch {}
      try { open(); } catch (e) { console.log(e.code, e.message); }`);
    expect(stdout).toMatch(/^ERR_NO_SPACE .*EMFILE/);
  });

  test("no address space left is ERR_NO_SPACE and leaves nothing", () => {
    const stdout = run(`
      ${OPEN} ${LIMIT_ADDRESS_SPACE}
      try { open(); } catch (e) { console.log(e.code, e.message); }`);
    expect(stdout).toMatch(/^ERR_NO_SPACE .*address space/);
    expect(fs.readdirSync(directory)).toEqual([]);
  });
});

describe("process reach, files that are not as they should be", () => {
  test("another size is ERR_SIZE_MISMATCH telling both, unless none was asked for", () => {
    open({ size: 2 * PAGE });
    const error = failure(() => open({ size: 3 * PAGE }));
    expect(error).toMatchObject({ code: "ERR_SIZE_MISMATCH" });
    for (const told of ["128 KiB (131072 bytes)", "192 KiB (196608 bytes)", "leave `size` out"]) {
      expect(error.message).toContain(told);
    }
    expect(open().size).toBe(2 * PAGE);
    expect(open({ size: 2 * PAGE }).size).toBe(2 * PAGE);
  });

  test.each([
    ["empty", ""],
    ["short", "x".repeat(1000)],
    ["of no whole pages", "x".repeat(PAGE + 1)],
    ["of zeros", "\0".repeat(SIZE)],
    ["foreign", "x".repeat(SIZE)],
  ])("a file that is %s is ERR_LAYOUT and stays as it is", (_, content) => {
    const file = emptyPath();
    fs.writeFileSync(file, content, { mode: 0o600 });
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
    expect(fs.readFileSync(file, "latin1")).toBe(content);
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
    expect(open().size).toBe(SIZE);
  });

  test("a truncated cache is ERR_LAYOUT", () => {
    const region = open();
    const file = pathOf(region);
    region.close();
    fs.truncateSync(file, SIZE - PAGE);
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
  });

  test("links and special files are ERR_LAYOUT, and what they point to is not touched", () => {
    const region = open({ name: "real" });
    const file = emptyPath();
    fs.symlinkSync(pathOf(region), file);
    expect(failure(() => open())).toMatchObject({
      code: "ERR_LAYOUT",
      message: expect.stringContaining("destroyCache"),
    });
    expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
    expect(fs.existsSync(pathOf(region))).toBe(true);
    execFileSync("mkfifo", [file]);
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
    fs.unlinkSync(file);
    fs.mkdirSync(file);
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
  });

  test("a file that others may use is ERR_NOT_OWNER", () => {
    const region = open();
    fs.chmodSync(pathOf(region), 0o622);
    expect(failure(() => open())).toMatchObject({
      code: "ERR_NOT_OWNER",
      message: expect.stringContaining("its group and everybody may write to"),
    });
    fs.chmodSync(pathOf(region), 0o640);
    expect(failure(() => open()).message).toContain("its group may read");
    fs.chmodSync(pathOf(region), 0o600);
    expect(open().memory).toBe(region.memory);
  });

  test.skipIf(!isRoot)("another user's file is ERR_NOT_OWNER, and stays (needs root)", () => {
    const region = open();
    fs.chownSync(pathOf(region), 12345, 12345);
    expect(failure(() => open())).toMatchObject({ code: "ERR_NOT_OWNER", message: expect.stringContaining("12345") });
    expect(failure(() => destroyFile({ name: "app", path: directory }, 7)).code).toBe("ERR_NOT_OWNER");
    expect(fs.existsSync(pathOf(region))).toBe(true);
  });

  test("every failed opening gives its descriptor back", () => {
    open();
    const count = () => fs.readdirSync("/proc/self/fd").length;
    const before = count();
    for (let i = 0; i < 10; i++) failure(() => open({ size: 8 * PAGE }));
    expect(count()).toBe(before);
  });

  /** Whose name does not lead to a cache of ours: how it comes there, and the error. */
  const squatters: [string, (file: string) => void, string][] = [
    ["a link to nothing", (file) => fs.symlinkSync(`${file}-missing`, file), "ERR_LAYOUT"],
    ["a link to itself", (file) => fs.symlinkSync(file, file), "ERR_LAYOUT"],
    ["a link to a cache", (file) => fs.symlinkSync(pathOf(open({ name: "real" })), file), "ERR_LAYOUT"],
    ["a pipe", (file) => execFileSync("mkfifo", ["-m", "600", file]), "ERR_LAYOUT"],
    ["a directory", (file) => fs.mkdirSync(file), "ERR_LAYOUT"],
    ["a socket", (file) => bindSocket(file), "ERR_LAYOUT"],
    ["a file that everybody may write to", (file) => makeCache(file, 0o602), "ERR_NOT_OWNER"],
    ["a file that its group may write to", (file) => makeCache(file, 0o620), "ERR_NOT_OWNER"],
    ["a file that everybody may read", (file) => makeCache(file, 0o604), "ERR_NOT_OWNER"],
  ];
  const squattersOfRoot: typeof squatters = [
    ["another user's cache", (file) => makeCache(file, 0o600, 65_534), "ERR_NOT_OWNER"],
    ["another user's cache, open to all", (file) => makeCache(file, 0o666, 65_534), "ERR_NOT_OWNER"],
    ["another user's pipe", (file) => makePipe(file, 65_534), "ERR_NOT_OWNER"],
  ];

  // Where devices are not allowed at all, the kernel says that this is not permitted.
  const devices: typeof squatters = [
    [
      "a character device",
      (file) => execFileSync("mknod", ["-m", "600", file, "c", "1", "5"]),
      "ERR_(LAYOUT|NOT_OWNER)",
    ],
    ["a block device", (file) => execFileSync("mknod", ["-m", "600", file, "b", "7", "250"]), "ERR_(LAYOUT|NOT_OWNER)"],
  ];
  const canMakeDevices = spawnSync("mknod", [path.join(scripts, "device"), "c", "1", "5"]).status === 0;

  /** A file like that of a cache which nobody has open. */
  function makeCache(file: string, mode: number, uid?: number): void {
    const region = open({ name: "model" });
    fs.copyFileSync(pathOf(region), file);
    region.close();
    fs.chmodSync(file, mode);
    if (uid !== undefined) fs.chownSync(file, uid, uid);
  }

  function makePipe(file: string, uid: number): void {
    execFileSync("mkfifo", ["-m", "666", file]);
    fs.chownSync(file, uid, uid);
  }

  /** Its name is given later, since the path of a socket must be short; its owner is killed, or would remove it. */
  function bindSocket(file: string): void {
    const script = `require("node:net").createServer().listen("s", () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", script], { cwd: directory });
    fs.renameSync(path.join(directory, "s"), file);
  }

  /** Everything that is in the directory, told in full. */
  function inventory(): unknown[] {
    return fs.readdirSync(directory).map((entry) => {
      const file = path.join(directory, entry);
      const { mode, uid, ino, nlink, size } = fs.lstatSync(file);
      const content = fs.lstatSync(file).isFile() ? fs.readFileSync(file, "latin1") : "";
      const target = fs.lstatSync(file).isSymbolicLink() ? fs.readlinkSync(file) : "";
      return { entry, mode, uid, ino, nlink, size, content, target };
    });
  }

  const inUse = (): { files: number; maps: number } => ({
    files: fs.readdirSync("/proc/self/fd").length,
    maps: fs
      .readFileSync("/proc/self/maps", "latin1")
      .split("\n")
      .filter((line) => line.includes(directory)).length,
  });

  for (const [available, list] of [
    [true, squatters],
    [isRoot, squattersOfRoot],
    [canMakeDevices, devices],
  ] as const) {
    test.skipIf(!available).each(list)(
      "%s under our name: an error, nothing is changed, nothing stays open",
      (_, make, code) => {
        const file = emptyPath();
        make(file);
        const [before, held] = [inventory(), inUse()];
        for (let i = 0; i < 3; i++) {
          const error = { name: "CacheError", code: expect.stringMatching(`^${code}$`) };
          expect(failure(() => open())).toMatchObject(error);
          expect(failure(() => open({ size: SIZE }))).toMatchObject(error);
        }
        expect(inUse()).toEqual(held);
        expect(inventory()).toEqual(before);
      },
    );
  }

  test("a second name of a cache is refused, and goes alone", () => {
    const region = open();
    at(region)[0] = 21;
    const second = pathOf(region).replace("-app.", "-second.");
    fs.linkSync(pathOf(region), second);
    for (const name of ["app", "second"]) {
      expect(failure(() => open({ name }))).toMatchObject({
        code: "ERR_NOT_OWNER",
        message: expect.stringContaining("2 names"),
      });
    }
    expect(failure(() => attachFileRegion(region.handle as FileHandle)).code).toBe("ERR_NOT_OWNER");
    expect(destroyFile({ name: "second", path: directory }, 7)).toBe(true);
    expect(fs.statSync(pathOf(region)).nlink).toBe(1);
    expect(at(open())[0]).toBe(21);
  });

  test("a file that is renamed over ours: who is there goes on, who comes gets that file or its error", () => {
    const region = open();
    at(region)[0] = 22;
    const next = path.join(directory, "next");
    makeCache(next, 0o600);
    fs.renameSync(next, pathOf(region));
    const other = open();
    expect([idOf(other) === idOf(region), at(other)[0], at(region)[0]]).toEqual([false, 0, 22]);
    fs.writeFileSync(next, "x".repeat(SIZE), { mode: 0o600 });
    fs.renameSync(next, pathOf(region));
    expect(failure(() => open()).code).toBe("ERR_LAYOUT");
    expect(failure(() => attachFileRegion(region.handle as FileHandle)).code).toBe("ERR_CLOSED");
    expect([at(other)[0], at(region)[0]]).toEqual([0, 22]);
    expect(fs.readFileSync(pathOf(region), "latin1")).toBe("x".repeat(SIZE));
    other.close();
    region.close();
    expect(inUse().maps).toBe(0);
  });

  test.skipIf(!isRoot)("another user in a directory for all: cannot open, destroy or replace ours (needs root)", () => {
    fs.chmodSync(directory, 0o1777);
    const region = open();
    at(region)[0] = 23;
    // As that user would name it, so that it is found.
    const planted = pathOf(region).replace(/cache-machine-\d+-/, "cache-machine-65534-");
    makeCache(planted, 0o600);
    const readable = planted.replace("-app.", "-readable.");
    makeCache(readable, 0o666);
    const before = inventory();
    const stdout = run(`
      const { openFileRegion, destroyFile, plan } = await library();
      const { Native } = await library();
      const fs = await import("node:fs");
      Native.load();
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      const path = process.argv[2];
      const told = (run) => { try { run(); console.log("done"); } catch (e) { console.log(e.code); } };
      for (const name of ["app", "readable"]) {
        told(() => openFileRegion({ name, path, plan, defaultSize: ${SIZE} }));
        told(() => destroyFile({ name, path }, 7));
      }
      told(() => fs.openSync(${JSON.stringify(pathOf(region))}, "r"));
      told(() => fs.unlinkSync(${JSON.stringify(pathOf(region))}));
      told(() => openFileRegion({ name: "own", path, plan, defaultSize: ${SIZE} }));`);
    const refused = ["ERR_NOT_OWNER", "ERR_NOT_OWNER"];
    expect(stdout.trim().split("\n")).toEqual([
      ...refused,
      ...refused,
      "EACCES",
      expect.stringMatching(/EPERM|EACCES/),
      "done",
    ]);
    expect(inventory().filter((file) => !(file as { entry: string }).entry.includes("-own."))).toEqual(before);
    expect(at(region)[0]).toBe(23);
  });

  test.each([0, PAGE])(
    "one that is truncated to %i bytes while it is open crashes its users, as the README says",
    (left) => {
      const crash = `${OPEN}
      const { truncateSync } = await import("node:fs");
      const region = open();
      const bytes = new Uint8Array(region.memory.buffer, region.base, region.size);
      bytes[bytes.length - 1] = 1;
      truncateSync(region.handle.path, ${left});
      console.log("truncated");
      bytes[bytes.length - 1]++;
      console.log("alive");`;
      const { stdout, signal } = spawnSync(process.execPath, [script(crash), directory], { encoding: "utf8" });
      expect([stdout, signal]).toEqual(["truncated\n", "SIGBUS"]);
      // Who comes later is told, and can begin anew.
      expect(failure(() => open()).code).toBe("ERR_LAYOUT");
      expect(destroyFile({ name: "app", path: directory }, 7)).toBe(true);
      expect(open().size).toBe(SIZE);
    },
  );
});

test("without the native part the thread reach works and the process reach says where it was looked for", () => {
  const bare = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-bare-"));
  try {
    fs.copyFileSync(library, path.join(bare, "library.mjs"));
    const file = script(
      `${OPEN}
       const { createThreadRegion } = await library();
       console.log(createThreadRegion({ base: 0, size: 65536, slots: 1 }).membership.claim());
       try { open(); } catch (e) { console.log(e.code, e.message); }`,
      bare,
    );
    const { stdout } = spawnSync(process.execPath, [file, directory], { encoding: "utf8" });
    expect(stdout).toMatch(/^0\nERR_UNSUPPORTED /);
    expect(stdout).toContain(path.join(bare, binary));
    expect(fs.readdirSync(directory)).toEqual([]);
  } finally {
    fs.rmSync(bare, { recursive: true });
  }
});
