/**
 * Every error of the public interface: its class and code, that its message says what happened and what to do about it,
 * and that nothing was changed.
 */

import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { inspect, isDeepStrictEqual } from "node:util";
import type { Cache, CacheHandle, OpenOptions } from "cache-machine";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { BUSY, HEADER_SIZE, HEADER_VERSION } from "../../src/engine/contract.ts";
// In this copy of the package, one thread can be several participants.
import { attachCache, CacheError, createCache, destroyCache, openCache } from "../host/apart.mjs";
import { isMountable } from "../resources/mountable.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const isRoot = process.geteuid?.() === 0;
if (!isMountable) console.warn("errors: not root, or mounting is not allowed: the tests that need a tmpfs are skipped");
const MIB = 1 << 20;
const PAGE = 65_536;

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-errors-"));
let directory = "";
let count = 0;
const mounted: string[] = [];
const opened = new Set<Cache>();

beforeEach(() => {
  directory = path.join(scratch, `directory ${count++}`);
  fs.mkdirSync(directory);
});

afterEach(() => {
  for (const cache of opened) cache.close();
  opened.clear();
  for (const place of mounted.splice(0)) execFileSync("umount", ["-l", place]);
});

afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }));

function keep(cache: Cache): Cache {
  opened.add(cache);
  return cache;
}

/** Caches of these tests are files in a directory of their own, so nothing can be left in /dev/shm. */
const open = (options?: OpenOptions): Cache => keep(openCache("app", { path: directory, size: "1mb", ...options }));
const create = (): Cache => keep(createCache({ size: "1mb" }));
const fileOf = (cache: Cache): string => (cache.handle as CacheHandle & { path: string }).path;

/** The error that `run` throws; its message must have each of the texts. */
function failure(run: () => unknown, kind: string | ErrorConstructor, ...texts: string[]): CacheError {
  let result: unknown;
  try {
    result = run();
  } catch (error) {
    expect(error).toBeInstanceOf(typeof kind === "string" ? CacheError : kind);
    if (typeof kind === "string") expect(error).toMatchObject({ name: "CacheError", code: kind });
    for (const text of texts) expect((error as Error).message).toContain(text);
    return error as CacheError;
  }
  throw new Error(`nothing was thrown, but returned: ${String(result)}`);
}

/** Runs a script with a copy of the package; answers its output. */
function run(body: string, from = root, args: string[] = []): string {
  const file = path.join(fs.mkdtempSync(path.join(scratch, "script-")), "script.mjs");
  const url = pathToFileURL(path.join(from, "dist/index.js")).href;
  fs.writeFileSync(
    file,
    `import { createCache, openCache } from ${JSON.stringify(url)};
     const directory = ${JSON.stringify(directory)};
     const report = (run) => { try { console.log("returned", run()); } catch (e) { console.log(e.name, e.code, e.message); } };
     ${body}`,
  );
  const { stdout, stderr, status } = spawnSync(process.execPath, [...args, file], {
    encoding: "utf8",
    timeout: 30_000,
  });
  expect([stderr, status]).toEqual(["", 0]);
  return stdout;
}

test("every CacheError is made by a function of src/errors.ts", () => {
  const files = fs.readdirSync(path.join(root, "src"), { recursive: true, encoding: "utf8" });
  // The adapters, the tier and the checks have the class as users have it.
  const sources = files.filter((file) => file.endsWith(".ts") && !/^(adapters|testing|tier)\//.test(file));
  const makers = sources.filter((file) =>
    fs.readFileSync(path.join(root, "src", file), "utf8").includes("new CacheError("),
  );
  expect(makers).toEqual(["errors.ts"]);
});

test("instanceof knows errors of another copy of the package, but an instance of a subclass only by its own class", async () => {
  class Mine extends CacheError {}
  const mine = new Mine("ERR_BUSY", "mine");
  const error = new CacheError("ERR_BUSY", "theirs");
  const other: typeof import("cache-machine") = await import(`${path.join(root, "dist/index.js")}?another`);
  expect(other.CacheError).not.toBe(CacheError);
  for (const each of [mine, error])
    expect([each instanceof CacheError, each instanceof other.CacheError]).toEqual([true, true]);
  expect([mine instanceof Mine, error instanceof Mine]).toEqual([true, false]);
  for (const none of [new Error("busy"), { code: "ERR_BUSY" }, null, undefined, "ERR_BUSY", structuredClone(error)]) {
    expect((none as unknown) instanceof CacheError).toBe(false);
  }
  // Nothing of this is seen of an error.
  expect(Reflect.ownKeys(error).sort()).toEqual(["code", "message", "name", "stack"]);
  expect(inspect(error)).toMatch(/^CacheError: theirs\n/);
});

describe("ERR_UNSUPPORTED", () => {
  test("without the native part: says where it was looked for and what works without; threads do work", () => {
    const bare = path.join(scratch, "bare");
    fs.mkdirSync(path.join(bare, "node_modules"), { recursive: true });
    fs.cpSync(path.join(root, "dist"), path.join(bare, "dist"), { recursive: true });
    fs.copyFileSync(path.join(root, "package.json"), path.join(bare, "package.json"));
    for (const name of Object.keys(JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8")).dependencies)) {
      fs.symlinkSync(path.join(root, "node_modules", name), path.join(bare, "node_modules", name));
    }
    const output = run(
      `report(() => openCache("app", { path: directory }));
       report(() => createCache({ size: "1mb" }).set("a", { b: 1 }).get("a").b);`,
      bare,
    );
    const [processes, threads] = output.split("\n");
    expect(processes).toMatch(/^CacheError ERR_UNSUPPORTED .*cache_machine-linux-\w+\.node.*createCache\(\)/);
    expect(processes).toContain(path.join(fs.realpathSync(bare), "native/cache_machine-linux-"));
    expect(threads).toBe("returned 1");
    expect(fs.readdirSync(directory)).toEqual([]);
  });

  test.each([
    ["platform", "darwin"],
    ["arch", "ppc64"],
  ])("on another %s: says which it is, which are supported and what works everywhere", (property, value) => {
    const output = run(
      `Object.defineProperty(process, "${property}", { value: "${value}" });
       report(() => openCache("app", { path: directory }));
       report(() => createCache({ size: "1mb" }).set("a", 1).get("a"));`,
    );
    const [processes, threads] = output.split("\n");
    expect(processes).toMatch(/^CacheError ERR_UNSUPPORTED .*Linux.*createCache\(\)/);
    expect(processes).toContain(value);
    expect(threads).toBe("returned 1");
  });

  test("without SharedArrayBuffer: says which headers a page needs", () => {
    const output = run(`delete globalThis.SharedArrayBuffer; report(() => createCache());`);
    expect(output).toMatch(/^CacheError ERR_UNSUPPORTED .*Cross-Origin-Opener-Policy.*Cross-Origin-Embedder-Policy/);
  });

  test("a directory that does not exist: names it and the option", () => {
    failure(() => open({ path: path.join(directory, "missing") }), "ERR_UNSUPPORTED", "missing", "`path`");
  });
});

describe("ERR_SIZE_MISMATCH", () => {
  test("tells both sizes and the ways out, and each of these ways works", () => {
    open({ size: "2mb" }).set("a", 1);
    const texts = ["2 MiB (2097152 bytes)", "3 MiB (3145728 bytes)", "leave `size` out", "destroyCache(name)"];
    failure(() => open({ size: "3mb" }), "ERR_SIZE_MISMATCH", ...texts);
    expect(open({ size: undefined }).get("a")).toBe(1);
    expect(open({ size: 2 * MIB }).get("a")).toBe(1);
    expect(open({ size: 2 * MIB - 5 }).get("a")).toBe(1);
    expect(destroyCache("app", { path: directory })).toBe(true);
    expect(open({ size: "3mb" }).get("a")).toBeUndefined();
  });
});

describe("ERR_LAYOUT", () => {
  const damages: [string, (file: string) => void][] = [
    ["empty", (file) => fs.truncateSync(file, 0)],
    ["truncated", (file) => fs.truncateSync(file, MIB - PAGE)],
    ["truncated within its header", (file) => fs.truncateSync(file, 40)],
    ["longer than it was", (file) => fs.truncateSync(file, 2 * MIB)],
    ["all zeros", (file) => fs.writeFileSync(file, Buffer.alloc(MIB))],
    ["somebody else's", (file) => fs.writeFileSync(file, Buffer.alloc(MIB, "no cache "))],
    ["of an older layout", (file) => patch(file, 8 * HEADER_VERSION, [0, 0, 0, 0])],
    ["of a newer layout", (file) => patch(file, 8 * HEADER_VERSION, [255, 255, 0, 0])],
    ["of another size than its header says", (file) => patch(file, 8 * HEADER_SIZE, [0, 0, 32, 0])],
  ];
  test.each(damages)("a file that is %s: says so and how to go on, and leaves it alone", (_, damage) => {
    const cache = open();
    const file = fileOf(cache);
    cache.close();
    damage(file);
    const before = fs.readFileSync(file);
    failure(() => open(), "ERR_LAYOUT", "destroyCache(name)", "another name");
    failure(() => open({ size: undefined }), "ERR_LAYOUT", "destroyCache(name)");
    expect(fs.readFileSync(file).equals(before)).toBe(true);
    expect(
      open({ path: fs.mkdtempSync(path.join(scratch, "other-")) })
        .set("a", 1)
        .get("a"),
    ).toBe(1);
    expect(destroyCache("app", { path: directory })).toBe(true);
    expect(open().set("a", 1).get("a")).toBe(1);
  });

  test("a handle of another version of the package: says that all threads need the same", () => {
    const { handle } = create();
    failure(() => attachCache({ ...handle, build: "older" }), "ERR_LAYOUT", "another version", "the same");
  });

  function patch(file: string, at: number, bytes: number[]): void {
    const fd = fs.openSync(file, "r+");
    fs.writeSync(fd, Uint8Array.from(bytes), 0, bytes.length, at);
    fs.closeSync(fd);
  }
});

describe("ERR_NOT_OWNER", () => {
  test.skipIf(!isRoot)("a file of another user: says whose, and how to avoid it; it stays (needs root)", () => {
    const cache = open();
    const file = fileOf(cache);
    cache.close();
    fs.chownSync(file, 12_345, 12_345);
    failure(() => open(), "ERR_NOT_OWNER", file, "12345", "`path`");
    failure(() => destroyCache("app", { path: directory }), "ERR_NOT_OWNER", file, "12345");
    expect(fs.existsSync(file)).toBe(true);
  });

  test("a file that others may write to: says who and what to do", () => {
    const cache = open();
    const file = fileOf(cache);
    cache.close();
    fs.chmodSync(file, 0o666);
    failure(() => open(), "ERR_NOT_OWNER", file, "0666", "chmod", "destroyCache");
    expect(destroyCache("app", { path: directory })).toBe(true);
    expect(open().set("a", 1).get("a")).toBe(1);
  });
});

describe("ERR_NO_SPACE", () => {
  test.skipIf(!isMountable)(
    "a full file system: tells the size and what to do, and leaves nothing (needs root)",
    () => {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "none", directory]);
      mounted.push(directory);
      failure(() => open({ size: "4mb" }), "ERR_NO_SPACE", "4 MiB (4194304 bytes)", "smaller `size`");
      expect(fs.readdirSync(directory)).toEqual([]);
      const cache = open({ size: "1mb" });
      cache.set("a", "works");
      failure(() => open({ size: "2mb" }), "ERR_SIZE_MISMATCH");
      failure(() => openCache("second", { path: directory, size: "2mb" }), "ERR_NO_SPACE", "2 MiB");
      expect(cache.get("a")).toBe("works");
    },
  );
});

describe("ERR_BUSY", () => {
  test.each([
    ["threads", create],
    ["processes", open],
  ])("one participant too many, reach %s: tells how many there can be and what to do", (_, make) => {
    const first = make();
    const others = Array.from({ length: 63 }, () => keep(attachCache(first.handle, { nearCache: 0 })));
    first.set("a", 1);
    expect(first.stats().participants).toBe(64);
    failure(() => attachCache(first.handle), "ERR_BUSY", "64", "close()");
    if (first.reach === "processes") failure(() => open(), "ERR_BUSY", "64", "close()");
    expect(others[62]?.get("a")).toBe(1);
    others[30]?.close();
    expect(keep(attachCache(first.handle)).get("a")).toBe(1);
    failure(() => attachCache(first.handle), "ERR_BUSY");
  });

  const hour = { ttl: 3_600_000 };
  const changes: [string, (cache: Cache) => unknown][] = [
    ["set", (cache) => cache.set("k", "new")],
    ["set of a large value", (cache) => cache.set("k", Buffer.alloc(100_000))],
    ["replace", (cache) => cache.replace("k", "new")],
    ["compareAndSet", (cache) => cache.compareAndSet("k", cache.getEntry("k")?.version ?? 0, "new")],
    ["update", (cache) => cache.update("k", () => "new")],
    ["setMany", (cache) => cache.setMany([["k", "new"]])],
    ["delete", (cache) => cache.delete("k")],
    ["take", (cache) => cache.take("k")],
    ["increment", (cache) => cache.increment("k")],
    ["decrement", (cache) => cache.decrement("k")],
    ["incrementEntry", (cache) => cache.incrementEntry("k")],
    ["rateLimit", (cache) => cache.rateLimit("k", { limit: 1, window: 1 })],
    ["touch", (cache) => cache.touch("k", 5)],
  ];

  test.each(changes)(
    "%s while another participant holds the bucket of the key: says so, and nothing was changed",
    (_, change) => {
      const cache = create();
      let meanwhile: (() => void) | undefined;
      let clockCalls = 0;
      // `touch` asks for the time first. The engine asks for it second, while it holds the bucket.
      const other = attachCache(cache.handle, {
        now() {
          if (clockCalls++ === 1) meanwhile?.();
          return Date.now();
        },
      });
      keep(other);
      for (const value of ["old", 5]) {
        cache.set("k", value, { ...hour, tags: ["t"] });
        const before = cache.getEntry("k");
        let refused: CacheError | undefined;
        meanwhile = () => {
          refused = failure(() => change(cache), "ERR_BUSY", "another participant", "nothing was changed", "Try again");
          expect([cache.get("k"), cache.has("k")]).toEqual([value, true]);
        };
        clockCalls = 0;
        other.touch("k", hour.ttl);
        expect(refused).toBeInstanceOf(CacheError);
        expect(cache.getEntry("k")).toEqual({ ...before, expiresAt: expect.any(Number) });
        expect(cache.ttl("k")).toBeGreaterThan(5);
      }
      expect([cache.increment("k"), cache.set("k", "again").get("k"), cache.validate()]).toEqual([6, "again", 0]);
    },
  );

  test("a change that the end of the stack cuts short leaves nothing held", () => {
    const first = create();
    for (const again of [false, true]) {
      first.set("k", "kept", hour);
      let clockCalls = 0;
      const { cache, engine } = watched(first, () => {
        // The error that the engine gets when the stack has no room to call the clock, here while it holds the bucket.
        if (clockCalls++ === 0) throw new RangeError("Maximum call stack size exceeded");
      });
      const { recover } = engine;
      const stack = (engine.__stack_pointer as WebAssembly.Global).value;
      failure(() => cache.touch("k", hour.ttl), RangeError, "stack");
      expect(clockCalls).toBe(1);
      // The thread may be idle from now on. All others can change the key at once.
      expect([first.get("k"), first.increment("n"), first.set("k", "new").get("k")]).toEqual(["kept", 1, "new"]);
      if (again) {
        // At first the stack has no room to recover either.
        engine.recover = () => Math.max(...new Array(1e7));
        failure(() => cache.get("k"), RangeError, "stack");
        engine.recover = recover;
      }
      expect([cache.set("k", "again").get("k"), cache.validate()]).toEqual(["again", 0]);
      expect((engine.__stack_pointer as WebAssembly.Global).value).toBe(stack);
      first.delete("n");
    }
  });

  test("a large store whose chunks were evicted meanwhile is tried again", () => {
    const first = create();
    const { cache, engine } = watched(first);
    const commit = engine.commit_large as (...args: unknown[]) => number;
    let tries = 0;
    // The answer of the engine when a chunk was evicted before the last one was written.
    engine.commit_large = (...args: unknown[]) => (++tries <= 3 ? BUSY : commit(...args));
    const value = Buffer.alloc(100_000, "value");
    let now = 0;
    // On this clock there is always time for another try, however slow the machine is.
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now++);
    try {
      cache.set("k", value);
    } finally {
      clock.mockRestore();
    }
    expect(tries).toBe(4);
    for (const reader of [cache, first]) expect(value.equals(reader.get("k"))).toBe(true);
    expect(cache.validate()).toBe(0);
    expect(cache.census().bytes).toBeLessThan(110_000);
  });

  test("trySet while another participant is in the way returns false, and removes the old value if the other one lets it", () => {
    const first = create();
    const { cache, engine, wait } = watched(first);
    for (const [removal, left] of [
      [undefined, undefined],
      [() => wait(-1), "old"],
    ] as const) {
      first.set("k", "old");
      const removes = engine.remove;
      engine.set = () => wait(BUSY);
      if (removal !== undefined) engine.remove = removal;
      expect(cache.trySet("k", "new")).toBe(false);
      engine.remove = removes;
      expect(first.get("k")).toBe(left);
    }
  });

  test("a store that is tried again waits no longer in all than one store, and the next change waits as long as any other", () => {
    const first = create();
    first.set("k", "kept");
    const { cache, engine, wait } = watched(first);
    let now = 0;
    const clock = vi.spyOn(performance, "now").mockImplementation(() => now++);
    try {
      const results = [
        () => {
          now += 40;
          return BUSY;
        },
        () => wait(BUSY),
      ];
      engine.commit_large = () => results.shift()?.();
      failure(() => cache.set("k", Buffer.alloc(100_000)), "ERR_BUSY");
      expect(results).toEqual([]);
      expect(now).toBeGreaterThan(50);
      expect(now).toBeLessThan(60);
      engine.remove = () => wait(-1);
      now = 1_000;
      failure(() => cache.delete("k"), "ERR_BUSY");
      expect(now).toBeGreaterThan(1_050);
    } finally {
      clock.mockRestore();
    }
    expect(first.get("k")).toBe("kept");
  });

  type Imports = { now(): number; pause(attempt: number): number };
  type Watched = { cache: Cache; engine: Record<string, unknown>; wait(answer: number): number };

  /**
   * Attaches one more participant. Returns it with the functions of its engine, which a test can replace, and with `wait`, which waits
   * as the engine does until the engine would give up, and then returns its argument.
   *
   * @param onClock called when the engine asks for the time
   */
  function watched(first: Cache, onClock: () => void = () => {}): Watched {
    const { Instance } = WebAssembly;
    const engine: Record<string, unknown> = {};
    let pause: Imports["pause"] = () => 0;
    WebAssembly.Instance = class {
      readonly exports = engine;
      constructor(module: WebAssembly.Module, { host }: { host: Imports & WebAssembly.ModuleImports }) {
        pause = host.pause;
        const now = (): number => {
          onClock();
          return host.now();
        };
        Object.assign(engine, new Instance(module, { host: { ...host, now } }).exports);
      }
    } as unknown as typeof WebAssembly.Instance;
    try {
      const cache = keep(attachCache(first.handle));
      const wait = (answer: number): number => {
        for (let attempt = 0; pause(attempt) === 1; attempt++);
        return answer;
      };
      return { cache, engine, wait };
    } finally {
      WebAssembly.Instance = Instance;
    }
  }
});

describe("a large value", () => {
  const LENGTH = 100_000;
  const typedArrays = Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array;

  /** Runs `meanwhile` before a chunk is copied from the user's memory or into it. */
  function beforeChunk(number: number, meanwhile: () => void, run: () => void): void {
    const { set } = typedArrays;
    let chunks = 0;
    typedArrays.set = function (this: Uint8Array, source: Uint8Array, at?: number): void {
      if (source.length > 1_000 && chunks++ === number) {
        typedArrays.set = set;
        meanwhile();
      }
      set.call(this, source, at);
    };
    try {
      run();
    } finally {
      typedArrays.set = set;
    }
    expect(chunks).toBeGreaterThan(number);
  }

  test("is never torn when it is replaced or removed while it is read: the read returns the new value, or none", () => {
    const cache = create();
    const other = keep(attachCache(cache.handle));
    const [old, anew] = [Buffer.alloc(LENGTH, "old"), Buffer.alloc(LENGTH, "new")];
    const reads: [string, () => unknown][] = [
      ["get", () => cache.get("k")],
      ["getEntry", () => cache.getEntry("k")?.value],
      ["getMany", () => cache.getMany(["k"])[0]],
      ["entries", () => [...cache][0]?.[1]],
    ];
    const changes: [string, () => unknown, unknown][] = [
      ["large", () => other.set("k", anew), anew],
      ["small", () => other.set("k", "small"), "small"],
      ["none", () => other.delete("k"), undefined],
    ];
    for (const [name, read] of reads) {
      for (const [kind, change, expected] of changes) {
        cache.set("k", old);
        let found: unknown;
        beforeChunk(1, change, () => {
          found = read();
        });
        expect(isDeepStrictEqual(found, expected), `${name}, then ${kind}`).toBe(true);
      }
    }
  });
});

describe("ERR_TOO_LARGE", () => {
  const LIMIT = MIB / 8;

  test("a value: tells the limit and, where it is known, the size of the value; the old value is kept", () => {
    const cache = create();
    cache.set("a", "old", { tags: ["t"] });
    const { version } = cache.getEntry("a") ?? {};
    for (const value of ["x".repeat(LIMIT + 1), new Uint8Array(LIMIT + 1), "→".repeat(LIMIT), [["x".repeat(LIMIT)]]]) {
      for (const store of [
        () => cache.set("a", value),
        () => cache.replace("a", value),
        () => cache.compareAndSet("a", version as number, value),
        () => cache.update("a", () => value),
        () => cache.setMany([["a", value]]),
      ]) {
        const size = typeof value === "string" && value.startsWith("x") ? [`has ${value.length} bytes`] : [];
        failure(store, "ERR_TOO_LARGE", `limit is ${LIMIT}`, ...size, "old value was kept", "maxEntrySize");
      }
      failure(() => cache.add("b", value), "ERR_TOO_LARGE", "bytes");
    }
    expect(cache.getEntry("a")).toMatchObject({ value: "old", version, tags: ["t"] });
    expect(cache.has("b")).toBe(false);
    expect(cache.set("a", "x".repeat(LIMIT)).get("a")).toHaveLength(LIMIT);
  });

  test("a key: tells its size, the limit and the way out, and a key of 4096 bytes is stored", () => {
    const cache = create();
    const longest = ["k".repeat(4096), "é".repeat(2048), new Uint8Array(4096), `\ud800${"x".repeat(2047)}`];
    for (const [i, key] of longest.entries()) expect(cache.set(key, i).get(key)).toBe(i);
    const tooLong: [string | Uint8Array, string][] = [
      ["k".repeat(4097), "4097 bytes of UTF-8"],
      ["é".repeat(2049), "4098 bytes of UTF-8"],
      [new Uint8Array(4097), "4097 bytes"],
      [`\ud800${"x".repeat(2048)}`, "4098 bytes of UTF-16"],
    ];
    for (const [key, size] of tooLong) {
      for (const use of [
        () => cache.set(key, 1),
        () => cache.increment(key),
        () => cache.rateLimit(key, { limit: 1, window: 1 }),
      ]) {
        failure(use, "ERR_TOO_LARGE", `has ${size}`, "limit is 4096", "shorter key");
      }
      // Reads and removals do not find such a key: outside.test.ts tests them.
      expect([cache.get(key), cache.delete(key)]).toEqual([undefined, false]);
    }
    expect(cache.size).toBe(4);
  });

  test("in a cache of 1 MiB the longest key leaves no room for a value beside all tags of the greatest length, and the old value is kept", () => {
    const cache = create();
    const key = "k".repeat(4096);
    const tags = Array.from({ length: 16 }, (_, i) => `${i}`.padStart(256, "t"));
    cache.set(key, "old");
    failure(() => cache.set(key, new Uint8Array(1), { tags }), "ERR_TOO_LARGE", "has 1 bytes", "key and tags");
    expect(cache.get(key)).toBe("old");
    // With only one of them, the largest value is stored.
    const value = new Uint8Array(LIMIT);
    expect(cache.set(key, value).get(key)).toEqual(value);
    expect(cache.set("k", value, { tags }).getEntry("k")).toMatchObject({ value, tags });
  });
});

/** All memory of a cache of this process: that of its participants, then what they share. */
function memoryOf(cache: Cache): Buffer {
  return Buffer.from((cache.handle as CacheHandle & { memory: WebAssembly.Memory }).memory.buffer);
}

describe("a damaged record", () => {
  test("with any word changed: reads find a value, find none, or fail with ERR_DATA", () => {
    const cache = create();
    const memory = memoryOf(cache);
    const { base } = cache.handle as CacheHandle & { base: number };
    let found = 0;
    let serial = 0;
    // {header of 32 bytes | key | tags and their counters | value}
    for (let back = 72; back > 0; back -= 4) {
      for (const word of [0xffffffff, 0x7fffffff, 0x00ffffff, 0x80000000]) {
        const value = `value ${serial++} of many`;
        cache.set("k", value, { tags: ["t", "u"] });
        const at = memory.indexOf(value, base) - back;
        expect(at).toBeGreaterThan(base);
        const whole = memory.readUInt32LE(at);
        memory.writeUInt32LE(word, at);
        // A value in the near cache is compared with what the record said.
        for (const read of [() => cache.get("k"), () => cache.get("k"), () => cache.getEntry("k")]) {
          try {
            if (read() !== undefined) found++;
          } catch (error) {
            expect(error, `word ${word} at ${-back}`).toMatchObject({ name: "CacheError", code: "ERR_DATA" });
          }
        }
        memory.writeUInt32LE(whole, at);
        cache.clear();
      }
    }
    // The damage was neither so small that no read noticed it, nor so large that no read found a value.
    expect(found).toBeGreaterThan(serial);
    expect(found).toBeLessThan(3 * serial);
  });
});

test("tags that are damaged are kept by no store: ERR_DATA, and the entry can get other tags", () => {
  const cache = create();
  const memory = memoryOf(cache);
  const { base } = cache.handle as CacheHandle & { base: number };
  cache.set("k", "value", { tags: ["t".repeat(200), "u".repeat(200)] });
  // {length of the first tag: 2 bytes | its bytes | length of the second …}
  const at = memory.indexOf("t".repeat(200), base) - 2;
  expect(memory.readUInt16LE(at)).toBe(200);
  memory.writeUInt16LE(300, at);
  for (const store of [
    () => cache.set("k", "new", { keepTags: true }),
    () => cache.replace("k", "new", { keepTags: true }),
    () => cache.update("k", () => "new"),
    () => cache.update("k", () => "new", { ttl: 5 }),
  ]) {
    failure(store, "ERR_DATA", "damaged", "other tags");
    expect(cache.get("k")).toBe("value");
  }
  cache.update("k", () => "new", { tags: ["x"] });
  expect(cache.getEntry("k")).toMatchObject({ value: "new", tags: ["x"] });
});

describe("ERR_CLOSED", () => {
  const uses: [string, (cache: Cache) => unknown][] = [
    ["get", (cache) => cache.get("a")],
    ["set", (cache) => cache.set("a", 1)],
    ["trySet", (cache) => cache.trySet("a", 1)],
    ["add", (cache) => cache.add("a", 1)],
    ["replace", (cache) => cache.replace("a", 1)],
    ["getOrInsert", (cache) => cache.getOrInsert("a", 1)],
    ["getOrInsertComputed", (cache) => cache.getOrInsertComputed("a", () => 1)],
    ["has", (cache) => cache.has("a")],
    ["delete", (cache) => cache.delete("a")],
    ["take", (cache) => cache.take("a")],
    ["compareAndDelete", (cache) => cache.compareAndDelete("a", 1)],
    ["deleteMany", (cache) => cache.deleteMany(["a"])],
    ["set that keeps", (cache) => cache.set("a", 1, { keepTtl: true, keepTags: true })],
    ["getEntry", (cache) => cache.getEntry("a")],
    ["compareAndSet", (cache) => cache.compareAndSet("a", 0, 1)],
    ["update", (cache) => cache.update("a", () => 1)],
    ["getMany", (cache) => cache.getMany(["a"])],
    ["getManyEntries", (cache) => cache.getManyEntries(["a"])],
    ["hasMany", (cache) => cache.hasMany(["a"])],
    ["setMany", (cache) => cache.setMany([["a", 1]])],
    ["increment", (cache) => cache.increment("a")],
    ["decrement", (cache) => cache.decrement("a")],
    ["incrementEntry", (cache) => cache.incrementEntry("a")],
    ["rateLimit", (cache) => cache.rateLimit("a", { limit: 1, window: 1 })],
    ["touch", (cache) => cache.touch("a", 1)],
    ["ttl", (cache) => cache.ttl("a")],
    ["invalidateTag", (cache) => cache.invalidateTag("t")],
    ["getStale", (cache) => cache.getStale("a")],
    ["expire", (cache) => cache.expire("a")],
    ["expireTag", (cache) => cache.expireTag("t")],
    ["tagInvalidatedAt", (cache) => cache.tagInvalidatedAt("t")],
    ["namespace", (cache) => cache.namespace("n")],
    ["clear", (cache) => cache.clear()],
    ["size", (cache) => cache.size],
    ["keys", (cache) => [...cache.keys()]],
    ["values", (cache) => [...cache.values()]],
    ["entries", (cache) => [...cache.entries()]],
    ["iteration", (cache) => [...cache]],
    ["forEach", (cache) => cache.forEach(() => {})],
    ["stats", (cache) => cache.stats()],
    ["census", (cache) => cache.census()],
    ["inspect", (cache) => cache.inspect()],
    ["watch", (cache) => cache.watch("a", () => {})],
    ["watchTag", (cache) => cache.watchTag("a", () => {})],
    ["locks", (cache) => cache.locks.query()],
    ["encode", (cache) => cache.encode(1)],
    ["decode", (cache) => cache.decode(Uint8Array.of(1, 5))],
    ["leased", (cache) => cache.leased({ until: Infinity })],
  ];
  /** Members that answer by a promise, and so reject it. */
  const promises: [string, (cache: Cache) => Promise<unknown>][] = [
    ["waitFor", (cache) => cache.waitFor("a")],
    ["getOrSet", (cache) => cache.getOrSet("a", () => 1)],
    ["getOrSetMany", (cache) => cache.getOrSetMany(["a"], () => [1])],
    ["memoize", (cache) => cache.memoize((a: string) => a, { key: (a) => a })("a")],
    ["locks.request", (cache) => cache.locks.request("a", () => 1)],
  ];

  test("the tests of ERR_CLOSED use every member of Cache", () => {
    const members = Object.getOwnPropertyNames(Object.getPrototypeOf(create()));
    const harmless = ["constructor", "close", "reach", "name", "destroyed", "handle", "toJSON", "validate", "helped"];
    const covered = new Set([...uses.map(([name]) => name), ...promises.map(([name]) => name), ...harmless]);
    expect(members.filter((name) => !covered.has(name))).toEqual([]);
  });

  test.each(promises)("%s after close, also of a namespace: its promise is rejected", async (_, use) => {
    for (const cache of [create(), open()]) {
      const view = cache.namespace("part");
      cache.close();
      for (const closed of [cache, view]) {
        await expect(use(closed)).rejects.toMatchObject({ name: "CacheError", code: "ERR_CLOSED" });
      }
    }
  });

  test.each(uses)("%s after close, also of a namespace: says to open it again", (_, use) => {
    for (const cache of [create(), open()]) {
      const view = cache.namespace("part");
      cache.set("a", 1);
      view.set("a", 1);
      const iteration = cache.keys();
      iteration.next();
      cache.close();
      for (const closed of [cache, view]) failure(() => use(closed), "ERR_CLOSED", "closed", "open it again");
      failure(() => iteration.next(), "ERR_CLOSED");
    }
  });

  test("a closed cache still tells its reach and name, and its handle still works", () => {
    const cache = open();
    cache.close();
    expect([cache.reach, cache.name]).toEqual(["processes", "app"]);
    expect(() => cache.close()).not.toThrow();
    expect(keep(attachCache(cache.handle)).get("a")).toBeUndefined();
  });

  test("a call whose own value, option, loop or update function closes the cache fails with ERR_CLOSED", () => {
    for (const make of [create, open]) {
      let cache = make();
      const closing = {
        get a() {
          cache.close();
          return 1;
        },
      };
      failure(() => cache.set("a", closing), "ERR_CLOSED");
      cache = make();
      const options = {
        get ttl() {
          cache.close();
          return 5;
        },
      };
      failure(() => cache.set("a", 1, options), "ERR_CLOSED");
      cache = make();
      cache.set("a", 1).set("b", 1);
      failure(() => {
        for (const _ of cache) cache.close();
      }, "ERR_CLOSED");
      cache = make();
      failure(
        () =>
          cache.update("a", () => {
            cache.close();
            return 1;
          }),
        "ERR_CLOSED",
      );
    }
  });

  test("a closed cache changes no byte of the memory, because its seat may belong to another participant by now", () => {
    const cache = create();
    const closed = attachCache(cache.handle);
    const view = closed.namespace("part");
    closed.close();
    const joined = keep(attachCache(cache.handle));
    joined.set("a", "text");
    const memory = memoryOf(cache);
    const before = Buffer.from(memory);
    const storing = [1.5, "MARKER", { text: "MARKER" }, Buffer.from("MARKER"), Buffer.alloc(100_000, "MARKER"), 5n];
    for (const each of [closed, view]) {
      for (const [name, use] of uses) {
        failure(() => use(each), "ERR_CLOSED");
        expect(memory.equals(before), name).toBe(true);
      }
      for (const value of storing) {
        failure(() => each.set("a", value, { tags: ["t"] }), "ERR_CLOSED");
        failure(() => each.update("a", () => value), "ERR_CLOSED");
        expect(memory.equals(before), `set ${String(value).slice(0, 20)}`).toBe(true);
      }
    }
  });

  test("a cache that a getter of the stored value closes changes nothing of a participant that joins then, and gives back its seat", () => {
    const cache = create();
    for (const nested of [false, true]) {
      const closing = attachCache(cache.handle);
      const { participants } = cache.stats();
      const memory = memoryOf(cache);
      let at = -1;
      const value = {
        get a() {
          const inner = {
            get b() {
              closing.close();
              return 1;
            },
          };
          if (nested) failure(() => closing.set("nested", inner), "ERR_CLOSED");
          else closing.close();
          const joined = keep(attachCache(cache.handle));
          joined.set("probe", `a text that nobody else has ${nested}`);
          at = memory.indexOf(`a text that nobody else has ${nested}`);
          return "MARKER".repeat(100);
        },
        get b() {
          return "MARKER".repeat(100);
        },
      };
      failure(() => closing.set("k", value), "ERR_CLOSED", "closed");
      expect(memory.toString("latin1", at, at + 27)).toBe("a text that nobody else has");
      expect([cache.stats().participants, cache.has("k")]).toEqual([participants, false]);
    }
  });

  test("a handle of a cache that was destroyed: says to open it by its name", () => {
    const cache = open();
    const { handle } = cache;
    expect(destroyCache("app", { path: directory })).toBe(true);
    expect(destroyCache("app", { path: directory })).toBe(false);
    failure(() => attachCache(handle), "ERR_CLOSED", "destroyed", "by its name");
    // A participant that has it open goes on with it, apart from the new cache of that name.
    cache.set("a", "old");
    expect([open().get("a"), cache.get("a")]).toEqual([undefined, "old"]);
  });
});

describe("wrong arguments", () => {
  const any = (value: unknown): never => value as never;
  type WrongOption = [string, ErrorConstructor, unknown];
  /** Adds the name of the error's class, for the title. */
  const titled = ([name, kind, value]: WrongOption) => [name, kind.name, value, kind] as const;
  const options: WrongOption[] = [
    ["size", TypeError, "much"],
    ["size", TypeError, "-1mb"],
    ["size", TypeError, {}],
    ["size", TypeError, null],
    ["size", TypeError, true],
    ["size", RangeError, 0],
    ["size", RangeError, -1],
    ["size", RangeError, Number.NaN],
    ["size", RangeError, "512kb"],
    ["size", RangeError, "4gb"],
    ["size", RangeError, "100gb"],
    ["size", RangeError, Number.POSITIVE_INFINITY],
    ["maxEntrySize", TypeError, true],
    ["maxEntrySize", TypeError, null],
    ["maxEntrySize", RangeError, 0],
    ["maxEntrySize", RangeError, -5],
    ["maxEntrySize", RangeError, Number.NaN],
    ["ttl", TypeError, "1s"],
    ["ttl", TypeError, null],
    ["ttl", TypeError, 5n],
    ["ttl", RangeError, 0],
    ["ttl", RangeError, -1],
    ["ttl", RangeError, Number.NaN],
    ["now", TypeError, 5],
    ["now", TypeError, null],
    ["codec", TypeError, {}],
    ["codec", TypeError, null],
    ["codec", TypeError, "json"],
    ["codec", TypeError, { encode() {} }],
    ["nearCache", TypeError, "10"],
    ["nearCache", TypeError, null],
    ["nearCache", RangeError, -1],
    ["nearCache", RangeError, 1.5],
    ["nearCache", RangeError, Number.NaN],
    ["nearCache", RangeError, Number.POSITIVE_INFINITY],
    ["nearCacheSize", TypeError, null],
    ["nearCacheSize", TypeError, {}],
    ["nearCacheSize", TypeError, "much"],
    ["nearCacheSize", RangeError, 0],
    ["nearCacheSize", RangeError, 65_535],
    ["nearCacheSize", RangeError, "8gb"],
    ["frozenObjects", TypeError, 1],
    ["frozenObjects", TypeError, null],
  ];

  test.each(options.map(titled))(
    "createCache, openCache and attachCache refuse the option %s with a %s: %o",
    (name, _, value, kind) => {
      const given = any({ [name]: value });
      failure(() => createCache(given), kind, `${name}`);
      failure(() => openCache("app", any({ path: directory, [name]: value })), kind, `${name}`);
      if (name !== "size") failure(() => attachCache(create().handle, given), kind, `${name}`);
      expect(fs.readdirSync(directory)).toEqual([]);
    },
  );

  const ofFiles: WrongOption[] = [
    ["path", TypeError, 5],
    ["path", RangeError, ""],
    ["path", RangeError, "a\0b"],
    ["mode", TypeError, 0o600],
    ["mode", TypeError, 0o660],
    ["mode", TypeError, "0600"],
    ["mode", TypeError, null],
  ];
  test.each(ofFiles.map(titled))(
    "openCache and destroyCache refuse the option %s with a %s: %o",
    (name, _, value, kind) => {
      failure(() => openCache("app", any({ [name]: value })), kind, name);
      failure(() => destroyCache("app", any({ [name]: value })), kind, name);
    },
  );

  test("a name that is not a string, is empty, too long or ill-formed is a TypeError or a RangeError, and other names can be used", () => {
    for (const use of [(name: never) => openCache(name), (name: never) => destroyCache(name)]) {
      for (const name of [undefined, null, 5, {}, Symbol("s")]) failure(() => use(any(name)), TypeError, "name");
      for (const name of ["", "x".repeat(215), "x".repeat(1e7), "é".repeat(40), "日".repeat(28), "\ud800"])
        failure(() => use(any(name)), RangeError, "name");
    }
    for (const [i, name] of ["../up", "a/b", ".", "..", "with space", "é".repeat(28), "x".repeat(170)].entries()) {
      const cache = keep(openCache(name, { path: directory, size: "1mb" }));
      expect(cache.name).toBe(name);
      expect(fs.readdirSync(directory)).toHaveLength(i + 1);
    }
  });

  test("options that are no object are a TypeError", () => {
    for (const bad of [null, 5, "text", true]) {
      failure(() => createCache(any(bad)), TypeError, "options", "object");
      failure(() => openCache("app", any(bad)), TypeError, "options", "object");
      failure(() => destroyCache("app", any(bad)), TypeError, "options", "object");
      failure(() => attachCache(create().handle, any(bad)), TypeError, "options", "object");
      const cache = create();
      failure(() => cache.set("a", 1, any(bad)), TypeError, "options", "object");
      failure(() => cache.add("a", 1, any(bad)), TypeError, "options", "object");
      failure(() => cache.increment("a", 1, any(bad)), TypeError, "options", "object");
      expect(cache.size).toBe(0);
    }
  });

  test("a wrong argument of a member is an error that names it, and nothing is changed", () => {
    const cache = create();
    cache.set("a", "old").increment("n");
    const wrong: [ErrorConstructor, string, () => unknown][] = [
      [TypeError, "ttl", () => cache.set("a", 1, { ttl: any("5") })],
      [TypeError, "ttl", () => cache.set("a", 1, { ttl: any(null) })],
      [RangeError, "ttl", () => cache.set("a", 1, { ttl: 0 })],
      [RangeError, "ttl", () => cache.add("b", 1, { ttl: -5 })],
      [RangeError, "ttl", () => cache.replace("a", 1, { ttl: Number.NaN })],
      [TypeError, "ttl", () => cache.touch("a", any(undefined))],
      [TypeError, "ttl", () => cache.touch("a", any("5"))],
      [RangeError, "ttl", () => cache.touch("a", 0)],
      [RangeError, "ttl", () => cache.increment("n", 1, { ttl: -1 })],
      [TypeError, "tags", () => cache.set("a", 1, { tags: any("t") })],
      [TypeError, "tags", () => cache.set("a", 1, { tags: any([1]) })],
      [TypeError, "tags", () => cache.set("a", 1, { tags: any([null]) })],
      [RangeError, "tags", () => cache.set("a", 1, { tags: [""] })],
      [RangeError, "tags", () => cache.set("a", 1, { tags: ["\ud800"] })],
      [RangeError, "tags", () => cache.set("a", 1, { tags: Array.from({ length: 129 }, String) })],
      [TypeError, "grace", () => cache.set("a", 1, { grace: any("5") })],
      [RangeError, "grace", () => cache.add("b", 1, { grace: -1 })],
      [RangeError, "grace", () => cache.replace("a", 1, { grace: Number.NaN })],
      [TypeError, "tags", () => cache.invalidateTag(any(5))],
      [RangeError, "tags", () => cache.invalidateTag("")],
      [TypeError, "tags", () => cache.expireTag(any(null))],
      [RangeError, "tags", () => cache.tagInvalidatedAt("\ud800")],
      [TypeError, "by", () => cache.increment("n", any("1"))],
      [TypeError, "by", () => cache.increment("n", any(1n))],
      [TypeError, "by", () => cache.increment("n", Number.NaN)],
      [TypeError, "by", () => cache.decrement("n", any("1"))],
      [TypeError, "by", () => cache.decrement("n", Number.POSITIVE_INFINITY)],
      [TypeError, "initial", () => cache.increment("m", 1, { initial: any("1") })],
      [TypeError, "initial", () => cache.increment("m", 1, { initial: Number.NaN })],
      [TypeError, "version", () => cache.compareAndSet("a", any("1"), 1)],
      [TypeError, "version", () => cache.compareAndSet("a", any(undefined), 1)],
      [TypeError, "version", () => cache.compareAndSet("a", -1, 1)],
      [TypeError, "version", () => cache.compareAndSet("a", 0.5, 1)],
      [TypeError, "change", () => cache.update("a", any("value"))],
      [TypeError, "callback", () => cache.forEach(any(undefined))],
      [TypeError, "keys", () => cache.getMany(any(5))],
      [TypeError, "keys", () => cache.getMany(any(undefined))],
      [TypeError, "entries", () => cache.setMany(any({ a: 1 }))],
      [TypeError, "entries", () => cache.setMany(any(null))],
      [TypeError, "name", () => cache.namespace(any(undefined))],
      [TypeError, "name", () => cache.namespace(any(5))],
      [RangeError, "name", () => cache.namespace("")],
      [RangeError, "name", () => cache.namespace("x".repeat(300))],
      [RangeError, "name", () => cache.namespace("\ud800")],
      [RangeError, "name", () => Array.from({ length: 20 }).reduce((view: Cache) => view.namespace("n"), cache)],
    ];
    for (const [kind, name, use] of wrong) failure(use, kind, name);
    expect(new Map(cache)).toEqual(
      new Map<string, unknown>([
        ["a", "old"],
        ["n", 1],
      ]),
    );
  });

  test("options may be frozen: they are not written to", () => {
    const options = Object.freeze({ ttl: 1000, tags: Object.freeze(["t"]) as string[] });
    const cache = keep(createCache(Object.freeze({ size: "1mb", ttl: 5000 })));
    expect(cache.set("a", 1, options).getEntry("a")?.tags).toEqual(["t"]);
  });

  test("a value that is no handle is a TypeError that says what a handle is and how it gets to a worker", () => {
    const { handle } = create();
    const notHandles = [
      undefined,
      null,
      5,
      "app",
      {},
      create(),
      JSON.parse(JSON.stringify(handle)),
      { ...handle, reach: "x" },
    ];
    for (const bad of notHandles)
      failure(() => attachCache(any(bad)), TypeError, "handle", "workerData", "postMessage");
    failure(() => attachCache(any({ ...handle, memory: new ArrayBuffer(8) })), TypeError, "handle");
  });
});
