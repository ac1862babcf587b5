/**
 * The native part: the answers of its functions, arguments of all kinds, hosts that forbid it, and threads that end while
 * they load and use it. `NATIVE_SEED` replays; `NATIVE_ROUNDS` multiplies the work, 1 by default.
 */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { endings, opening } from "./native-arena.mjs";

const rounds = Number(process.env.NATIVE_ROUNDS ?? 1);
const seed = Number(process.env.NATIVE_SEED ?? Math.floor(Math.random() * 1e9));
console.log(`NATIVE_SEED=${seed} NATIVE_ROUNDS=${rounds}`);

const root = fileURLToPath(new URL("../..", import.meta.url));
const fixture = (name: string): string => path.join(root, "test/host", name);
const binary = path.join(root, `native/cache_machine-linux-${process.arch}.node`);
const folder = `/dev/shm/cache-machine-native-${process.pid}`;
const name = `t-${process.pid}-native`;
const PAGE = 65_536;
const WATCHDOG_MS = 90_000 * rounds;
/** The answer to a wrong argument, and errors of the system. */
const [WRONG, EBADF, EAGAIN, EEXIST, ENODEV, EINVAL, ESPIPE, ENAMETOOLONG] = [-4096, -9, -11, -17, -19, -22, -29, -36];

beforeAll(() => fs.mkdirSync(folder));

afterAll(() => {
  fs.rmSync(folder, { recursive: true });
  for (const file of fs.readdirSync("/dev/shm")) if (file.includes(name)) fs.rmSync(path.join("/dev/shm", file));
});

/** Runs a program; answers how it ends and what it prints. */
async function run(args: string[], options: object = {}): Promise<{ exit: unknown[]; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (data) => (stdout += data));
  child.stderr?.on("data", (data) => (stderr += data));
  const late = setTimeout(() => child.kill("SIGKILL"), WATCHDOG_MS);
  const exit = await once(child, "close");
  clearTimeout(late);
  return { exit, stdout, stderr };
}

type Call = (...args: unknown[]) => number;
const native: { exports: Record<string, Call> } = { exports: {} };
process.dlopen(native, binary);
type Name = "reserve" | "map" | "unmap" | "link" | "lock" | "unlock" | "lockDirectory" | "join" | "leave";
const { reserve, map, unmap, link, lock, unlock, lockDirectory, join, leave } = native.exports as Record<Name, Call>;
const { makeFifo, openFifo, passFifo } = native.exports as Record<"makeFifo" | "openFifo" | "passFifo", Call>;

describe("the binaries", () => {
  test.each(["x64", "arm64"])("for %s need nothing but Node-API, and no C library", (arch) => {
    const bytes = fs.readFileSync(path.join(root, `native/cache_machine-linux-${arch}.node`));
    const record = JSON.parse(fs.readFileSync(path.join(root, "native/cache_machine.json"), "utf8")).binaries[arch];
    expect(createHash("sha256").update(bytes).digest("hex")).toBe(record.sha256);
    const { needed, undefinedNames, machine } = readElf(bytes);
    expect(needed).toBe(0);
    expect(machine).toBe(arch === "x64" ? 62 : 183);
    expect(undefinedNames.sort()).toEqual(record.imports);
    for (const each of undefinedNames) expect(each).toMatch(/^napi_/);
    expect(bytes.length).toBeLessThan(16_000);
  });

  /** The libraries that a shared object asks for, and the names that it expects others to have. */
  function readElf(bytes: Buffer): { needed: number; undefinedNames: string[]; machine: number } {
    const at = (offset: number): number => Number(bytes.readBigUInt64LE(offset));
    const sections = Array.from(
      { length: bytes.readUInt16LE(0x3c) },
      (_, i) => at(0x28) + i * bytes.readUInt16LE(0x3a),
    );
    const find = (type: number): { offset: number; size: number } => {
      const header = sections.find((section) => bytes.readUInt32LE(section + 4) === type) as number;
      return { offset: at(header + 0x18), size: at(header + 0x20) };
    };
    const [SHT_STRTAB, SHT_DYNAMIC, SHT_DYNSYM, DT_NEEDED] = [3, 6, 11, 1];
    const dynamic = find(SHT_DYNAMIC);
    const symbols = find(SHT_DYNSYM);
    const texts = find(SHT_STRTAB);
    let needed = 0;
    for (let entry = dynamic.offset; entry < dynamic.offset + dynamic.size; entry += 16) {
      if (at(entry) === DT_NEEDED) needed++;
    }
    const undefinedNames: string[] = [];
    // The first symbol of each table is empty.
    for (let entry = symbols.offset + 24; entry < symbols.offset + symbols.size; entry += 24) {
      const start = texts.offset + bytes.readUInt32LE(entry);
      if (bytes.readUInt16LE(entry + 6) === 0)
        undefinedNames.push(bytes.toString("latin1", start, bytes.indexOf(0, start)));
    }
    return { needed, undefinedNames, machine: bytes.readUInt16LE(0x12) };
  }
});

describe("the functions of the native part", () => {
  let file: number;
  let other: number;
  let memory: WebAssembly.Memory;
  const range = (base = PAGE, size = PAGE): Uint8Array => new Uint8Array(memory.buffer, base, size);
  const counter = (): Int32Array => new Int32Array(new SharedArrayBuffer(4));

  beforeEach(() => {
    const at = path.join(folder, "file");
    [file, other] = [fs.openSync(at, "w+"), fs.openSync(at, "r+")];
    memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
    return () => {
      fs.closeSync(file);
      fs.closeSync(other);
    };
  });

  test("reserve blocks, and let the file grow", () => {
    expect(reserve(file, PAGE, PAGE)).toBe(0);
    expect(fs.fstatSync(file)).toMatchObject({ size: 2 * PAGE, blocks: PAGE / 512 });
    expect(reserve(1_000_000, 0, PAGE)).toBe(EBADF);
    expect(reserve(file, 0, 0)).toBe(EINVAL);
    const dev = fs.openSync("/dev/null", "r+");
    expect([ENODEV, ESPIPE]).toContain(reserve(dev, 0, PAGE));
    fs.closeSync(dev);
  });

  test("map files and put zeros in their place", () => {
    fs.writeSync(file, Buffer.alloc(2 * PAGE, 7));
    range(0, 4 * PAGE).fill(1);
    expect(map(file, range(PAGE, 2 * PAGE))).toBe(0);
    expect([range(0)[PAGE - 1], range()[0], range(2 * PAGE)[PAGE - 1], range(3 * PAGE)[0]]).toEqual([1, 7, 7, 1]);
    range()[0] = 8;
    expect(fs.readSync(file, Buffer.alloc(1), 0, 1, 0)).toBe(1);
    expect(fs.readFileSync(path.join(folder, "file"))[0]).toBe(8);
    expect(unmap(range(PAGE, 2 * PAGE))).toBe(0);
    expect([range(0)[PAGE - 1], range()[0], range(2 * PAGE)[PAGE - 1], range(3 * PAGE)[0]]).toEqual([1, 0, 0, 1]);
    // A failure leaves the memory usable.
    const directory = fs.openSync(folder, "r");
    for (const fd of [directory, 1_000_000]) expect([EBADF, ENODEV, -13]).toContain(map(fd, range(0)));
    fs.closeSync(directory);
    range(0).fill(2);
  });

  test("give an unnamed file a name", () => {
    const unnamed = fs.openSync(folder, fs.constants.O_RDWR | 0o20200000);
    const named = path.join(folder, "näme");
    expect(link(unnamed, named)).toBe(0);
    expect(fs.statSync(named).ino).toBe(fs.fstatSync(unnamed).ino);
    expect(link(unnamed, named)).toBe(EEXIST);
    expect(link(unnamed, `${folder}/${"x".repeat(5_000)}`)).toBe(ENAMETOOLONG);
    expect(link(unnamed, `${folder}/${"ü".repeat(2_100)}`)).toBe(ENAMETOOLONG);
    expect(link(1_000_000, path.join(folder, "none"))).toBe(-2);
    fs.closeSync(unnamed);
  });

  test("lock bytes and directories for open file descriptions", () => {
    expect([lock(file, 5), lock(file, 5), lock(other, 5), lock(other, 6)]).toEqual([0, 0, EAGAIN, 0]);
    expect([unlock(file, 5), lock(other, 5), unlock(file, 5)]).toEqual([0, 0, 0]);
    expect(lock(file, 5)).toBe(EAGAIN);
    expect([lock(1_000_000, 1), unlock(1_000_000, 1)]).toEqual([EBADF, EBADF]);
    const directories = [fs.openSync(folder, "r"), fs.openSync(folder, "r")];
    expect(directories.map((fd) => lockDirectory(fd))).toEqual([0, EAGAIN]);
    for (const fd of directories) fs.closeSync(fd);
  });

  test("make a FIFO that only its user may open, whatever the umask is", () => {
    const at = path.join(folder, "fífo");
    const before = process.umask(0o777);
    try {
      expect(makeFifo(at)).toBe(0);
    } finally {
      process.umask(before);
    }
    expect(fs.lstatSync(at).isFIFO()).toBe(true);
    expect(fs.lstatSync(at).mode & 0o7777).toBe(0o600);
    expect(makeFifo(at)).toBe(EEXIST);
    expect(makeFifo(`${folder}/none/fifo`)).toBe(-2);
    expect(makeFifo(`${folder}/${"x".repeat(300)}`)).toBe(ENAMETOOLONG);
  });

  test("open a FIFO without waiting, and pass its descriptor on once", () => {
    const at = path.join(folder, "fifo");
    expect(makeFifo(at)).toBe(0);
    const fd = openFifo(at);
    expect(fs.fstatSync(fd).ino).toBe(fs.statSync(at).ino);
    // Open for reading and writing, and closed in a program that is started.
    const flags = Number.parseInt(
      /flags:\t(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"))?.[1] as string,
      8,
    );
    const {
      O_ACCMODE = 3,
      O_CLOEXEC = 0o2000000,
      O_NONBLOCK,
      O_NOFOLLOW,
      O_RDWR,
    } = fs.constants as Record<string, number>;
    const wanted = O_CLOEXEC | (O_NONBLOCK as number) | (O_NOFOLLOW as number);
    expect([flags & O_ACCMODE, flags & wanted]).toEqual([O_RDWR, wanted]);
    expect([passFifo(file), passFifo(fd), passFifo(fd)]).toEqual([WRONG, 0, WRONG]);
    fs.closeSync(fd);
    fs.symlinkSync(at, path.join(folder, "link"));
    expect(openFifo(path.join(folder, "link"))).toBe(-40);
    expect(openFifo(path.join(folder, "none"))).toBe(-2);
  });

  test.each([
    ["is closed with the thread when it was not passed on", false, "closed"],
    ["is left to libuv when it was passed on", true, "open"],
    ["is not closed when another file has its number by then", undefined, "open"],
  ])("a FIFO %s", async (_, passes, expected) => {
    const at = path.join(folder, `fifo-${String(passes)}`);
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      const native = { exports: {} };
      process.dlopen(native, workerData.binary);
      const { makeFifo, openFifo, passFifo } = native.exports;
      const fd = (makeFifo(workerData.at), openFifo(workerData.at));
      if (workerData.passes) passFifo(fd);
      parentPort.postMessage(fd);
      setInterval(() => {}, 1_000);`;
    const worker = new Worker(code, { eval: true, workerData: { binary, at, passes } });
    const [fd] = (await once(worker, "message")) as [number];
    expect(fs.fstatSync(fd).ino).toBe(fs.statSync(at).ino);
    // As if libuv had closed it, and this thread had opened a file since: that has the lowest free number.
    if (passes === undefined) {
      fs.closeSync(fd);
      expect(fs.openSync("/dev/null", "r")).toBe(fd);
    }
    await worker.terminate();
    const isOpen = fs.existsSync(`/proc/self/fd/${fd}`);
    if (isOpen) fs.closeSync(fd);
    expect(isOpen ? "open" : "closed").toBe(expected);
  });

  test("count the users of a mapping, and unmap it after the last one", () => {
    fs.writeSync(file, Buffer.alloc(PAGE, 7));
    expect(map(file, range())).toBe(0);
    const users = counter();
    // With other views of the same memories.
    expect([join(users, range()), join(new Int32Array(users.buffer), range())]).toEqual([1, 1]);
    expect(users[0]).toBe(2);
    const another = counter();
    expect(join(another, range(2 * PAGE))).toBe(1);
    expect(join(users, range(2 * PAGE))).toBe(WRONG);
    expect([leave(users), users[0], range()[0]]).toEqual([0, 1, 7]);
    expect([leave(users), users[0], range()[0]]).toEqual([1, -1, 0]);
    expect([leave(users), join(users, range()), users[0]]).toEqual([WRONG, 0, -1]);
    expect([leave(another), another[0]]).toEqual([1, -1]);
    // The same with a user in another thread.
    const shared = counter();
    shared[0] = 1;
    expect(map(file, range())).toBe(0);
    expect([join(shared, range()), leave(shared), shared[0], range()[0]]).toEqual([1, 0, 1, 7]);
  });

  test.each(["return", "exit", "terminate"])("no longer count the users of a thread that ends: %s", async (ending) => {
    fs.writeSync(file, Buffer.alloc(PAGE, 7));
    const [alone, shared] = [counter(), counter()];
    expect([map(file, range()), map(file, range(2 * PAGE)), join(shared, range(2 * PAGE))]).toEqual([0, 0, 1]);
    const code = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { binary, memory, users, ending } = workerData;
      const native = { exports: {} };
      // Loaded twice, as by two copies of the package.
      process.dlopen(native, binary);
      const first = native.exports;
      native.exports = {};
      process.dlopen(native, binary);
      for (let i = 0; i < 3; i++)
        for (const [at, each] of users.entries())
          for (const { join } of [first, native.exports]) join(each, new Uint8Array(memory.buffer, (at + 1) * ${PAGE}, ${PAGE}));
      users.length = 0;
      parentPort.postMessage("joined");
      if (ending === "exit") parentPort.once("message", () => process.exit());
      if (ending === "return") parentPort.once("message", () => {});
      if (ending === "terminate") setInterval(() => {}, 1_000);`;
    const users = [alone, shared].map((each) => new Int32Array(each.buffer));
    const worker = new Worker(code, { eval: true, workerData: { binary, memory, users, ending } });
    await once(worker, "message");
    expect([alone[0], shared[0]]).toEqual([6, 7]);
    const ended = once(worker, "exit");
    if (ending === "terminate") void worker.terminate();
    else worker.postMessage("end");
    await ended;
    expect([alone[0], shared[0]]).toEqual([-1, 1]);
    expect([range()[0], range(2 * PAGE)[0]]).toEqual([0, 7]);
    expect([leave(shared), range(2 * PAGE)[0]]).toEqual([1, 0]);
  });

  test("refuse arguments of a wrong type or value", () => {
    const detached = new Uint8Array(PAGE);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    const numbers = [
      undefined,
      null,
      true,
      "1",
      1n,
      {},
      [1],
      NaN,
      Infinity,
      -Infinity,
      -1,
      0.5,
      2 ** 53,
      1e300,
      Symbol("1"),
    ];
    const ranges = [
      undefined,
      null,
      1,
      {},
      memory,
      memory.buffer,
      new DataView(memory.buffer),
      new Int32Array(memory.buffer),
    ];
    ranges.push(range(1), range(0, PAGE - 1), range(0, 0), new Uint8Array(16), detached, new Proxy(range(), {}));
    const counters = [
      undefined,
      null,
      1,
      {},
      new Uint32Array(1),
      new Uint8Array(4),
      new Int32Array(0),
      new BigInt64Array(1),
    ];
    for (const wrong of numbers) {
      expect([reserve(wrong, 0, 1), reserve(file, wrong, 1), reserve(file, 0, wrong)]).toEqual([WRONG, WRONG, WRONG]);
      expect([map(wrong, range()), link(wrong, "/nowhere/x"), lockDirectory(wrong)]).toEqual([WRONG, WRONG, WRONG]);
      expect([lock(wrong, 1), lock(file, wrong), unlock(wrong, 1), unlock(file, wrong)]).toEqual(Array(4).fill(WRONG));
    }
    // A descriptor cannot be as large.
    expect(lock(2 ** 31, 1)).toBe(WRONG);
    for (const wrong of ranges) {
      expect([map(file, wrong), unmap(wrong), join(counter(), wrong)]).toEqual([WRONG, WRONG, WRONG]);
    }
    for (const wrong of counters) expect([join(wrong, range()), leave(wrong)]).toEqual([WRONG, WRONG]);
    for (const wrong of [undefined, 1, {}, Buffer.from("/x"), "/a\0b"]) {
      expect([link(file, wrong), makeFifo(wrong), openFifo(wrong)]).toEqual([WRONG, WRONG, WRONG]);
    }
    for (const call of Object.values(native.exports)) expect(call()).toBe(WRONG);
    expect(leave(counter())).toBe(WRONG);
    expect(fs.fstatSync(file).size).toBe(0);
  });

  test("answer with a whole number, and never throw or crash, whatever their arguments are", async () => {
    const times = 100_000 * rounds;
    const scratch = fs.mkdtempSync(path.join(folder, "fuzz-"));
    const setup = JSON.stringify({ seed, times, folder: scratch, binary });
    const { exit, stdout, stderr } = await run(["--expose-gc", fixture("native-fuzz.mjs"), setup]);
    expect([exit, stderr]).toEqual([[0, null], ""]);
    const answers = JSON.parse(stdout);
    console.log(stdout.trim());
    // Each function refused some arguments, and gave other answers too.
    for (const call of Object.keys(native.exports)) {
      expect(answers[call][WRONG]).toBeGreaterThan(0);
      expect(Object.keys(answers[call]).length).toBeGreaterThan(1);
    }
  });
});

describe("the native part", () => {
  const USE = `
    const { createCache, destroyCache, openCache } = await import("cache-machine");
    try { openCache("${name}-forbidden", { size: "1mb" }).close(); console.log("opened", destroyCache("${name}-forbidden")); }
    catch (error) { console.log(error.name, error.code, error.message); }
    console.log(createCache({ size: "1mb" }).set("a", 1).get("a"));`;
  const script = path.join(root, "test/host");
  const use = async (options: string[], env: object = {}, code = USE, cwd = script): Promise<string[]> => {
    const args = [...options, "--input-type=module", "-e", code];
    const { exit, stdout, stderr } = await run(args, { cwd, env: { ...process.env, ...env } });
    expect([exit, stderr.replace(/^.*(Permission is|--allow-addons|--trace-warnings).*\n/gm, "")]).toEqual([
      [0, null],
      "",
    ]);
    return stdout.trim().split("\n");
  };
  const permission = process.allowedNodeEnvironmentFlags.has("--permission")
    ? "--permission"
    : "--experimental-permission";

  test("is loaded where nothing forbids it, and opens a cache", async () => {
    expect(await use([])).toEqual(["opened true", "1"]);
  });

  test.each([
    ["--no-addons", ["--no-addons"], {}],
    ["--no-addons in NODE_OPTIONS", [], { NODE_OPTIONS: "--no-addons" }],
  ])("is forbidden by %s: opening says so, and caches of threads work", async (_, options, env) => {
    const [processes, threads] = await use(options, env);
    expect(processes).toMatch(/^CacheError ERR_UNSUPPORTED .*--no-addons forbids.*createCache\(\)/);
    expect(threads).toBe("1");
  });

  test("is forbidden by --no-addons of a worker: opening in the worker says so", async () => {
    const code = `
      import { Worker } from "node:worker_threads";
      const code = ${JSON.stringify(`(async () => {${USE}})()`)};
      new Worker(code, { eval: true, execArgv: ["--no-addons"] });`;
    expect((await use([], {}, code))[0]).toMatch(/^CacheError ERR_UNSUPPORTED .*--no-addons forbids/);
  });

  test("is forbidden by the permission model: opening says so, and caches of threads work", async () => {
    const [processes, threads] = await use([permission, "--allow-fs-read=*", "--allow-fs-write=*"]);
    expect(processes).toMatch(
      /^CacheError ERR_UNSUPPORTED .*permission model of Node.js forbids.*--allow-addons.*createCache\(\)/,
    );
    expect(threads).toBe("1");
  });

  describe("in a copy of the package", () => {
    const copy = path.join(folder, "copy");
    const lost = path.join(copy, "native", path.basename(binary));

    beforeEach(() => {
      fs.mkdirSync(path.join(copy, "native"), { recursive: true });
      for (const each of ["dist", "package.json"])
        fs.cpSync(path.join(root, each), path.join(copy, each), { recursive: true });
      fs.mkdirSync(path.join(copy, "node_modules"));
      fs.symlinkSync(path.join(root, "node_modules/devalue"), path.join(copy, "node_modules/devalue"));
      return () => fs.rmSync(copy, { recursive: true });
    });

    test("is forbidden by a file system without the right to execute: opening says so, and caches of threads work (needs root)", async ({
      skip,
    }) => {
      const place = path.dirname(lost);
      skip(spawnSync("mount", ["-t", "tmpfs", "-o", "noexec", "none", place]).status !== 0, "mounting is not allowed");
      try {
        fs.copyFileSync(binary, lost);
        const [processes, threads] = await use([], {}, USE, copy);
        expect(processes).toMatch(/^CacheError ERR_UNSUPPORTED .*noexec.*createCache\(\)/);
        expect(threads).toBe("1");
      } finally {
        execFileSync("umount", ["-l", place]);
      }
    });

    test.each([
      ["missing", undefined, /in none of its places: .*Copy node_modules\/cache-machine\/native/],
      ["cut short", Buffer.from("x"), /could not be loaded .*Install the package anew/],
      [
        "for another processor",
        fs.readFileSync(path.join(root, `native/cache_machine-linux-${process.arch === "x64" ? "arm64" : "x64"}.node`)),
        /could not be loaded .*Install the package anew/,
      ],
    ])(
      "is not forbidden, but its file is %s: opening says what to do, and caches of threads work",
      async (_, bytes, message) => {
        if (bytes !== undefined) fs.writeFileSync(lost, bytes);
        const [processes, threads] = await use([], {}, USE, copy);
        expect(processes).toMatch(/^CacheError ERR_UNSUPPORTED /);
        expect(processes).toContain(lost);
        expect(processes).toMatch(message);
        expect(threads).toBe("1");
      },
    );
  });
});

describe("threads that end while they open their first cache", () => {
  test("by terminate() leave their process alive, the cache sound, and no seat taken", async () => {
    const states = Array.from({ length: 7 }, () => 0);
    for (let i = 0; i < 3 * rounds; i++) {
      const ended = await opening({ seed: seed + i, terminations: 100 });
      for (const [state, count] of ended.states.entries()) states[state]! += count;
    }
    console.log(JSON.stringify(states));
    // Threads were ended both while they opened their first cache and later: otherwise the test would have tested nothing.
    expect(states[2]).toBeGreaterThan(50 * rounds);
    expect(states[3]! + states[4]! + states[5]!).toBeGreaterThan(5 * rounds);
  });

  test("by process.exit() in the main thread do not change the exit code, and print nothing", async () => {
    for (let i = 0; i < 12 * rounds; i++) {
      const end = await endings({ seed: seed + i, times: 3, exits: true });
      expect(end).toEqual({ exit: [7, null], stdout: "", stderr: "" });
    }
  });
});
