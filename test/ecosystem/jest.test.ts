/**
 * Tests the package in Jest, in projects into which the packed package is installed. Jest gives each test file a realm and a copy of
 * the package of its own, takes the CommonJS build for it, and runs many files in one process.
 */

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeBinary, versions } from "../package/nodes.ts";
import { execute, type Output, Projects, root } from "../package/projects.ts";

const MODULES = path.join(root, "test/ecosystem/node_modules");
const COPIES = pathToFileURL(path.join(root, "test/package/copies.mjs")).href;
const LIMIT_MS = 90_000;

const projects = new Projects("jest");
const { mark } = projects;

/** The binaries of Node.js to test with: the one that runs, and those of `NODES`. */
const binaries: [string, () => Promise<string>][] = [
  [`Node.js ${process.version}`, async () => process.execPath],
  ...versions.map((version): [string, () => Promise<string>] => [version, () => nodeBinary(version)]),
];

/** A project with the packed package, and with Jest as it is installed for these tests. */
async function jestProject(name: string, manifest: object = {}): Promise<string> {
  const project = await projects.installed(name, manifest);
  for (const tool of ["jest", "jest-environment-jsdom", "@swc", "@types"]) {
    fs.symlinkSync(path.join(MODULES, tool), path.join(project, "node_modules", tool));
  }
  return project;
}

/** Runs Jest on some test files of a project. */
async function jest(cwd: string, files: string[], args: string[], node = process.execPath): Promise<Output> {
  const bin = path.join(cwd, "node_modules/jest/bin/jest.js");
  const flags = args.filter((arg) => arg.startsWith("--experimental"));
  const options = [...args.filter((arg) => !flags.includes(arg)), "--ci", "--colors=false", "--verbose"];
  const patterns = files.map((file) => `/${file}$`);
  return execute(node, [...flags, bin, ...options, ...patterns], { cwd, timeoutMs: LIMIT_MS });
}

/** What must be true of a run of Jest in which all tests pass, and which ends by itself. */
function passed({ status, stdout, stderr }: Output, tests: number): void {
  const said = `${stdout}${stderr}`;
  expect(status, said).toBe(0);
  expect(said).toContain(`${tests} passed, ${tests} total`);
  expect(said).not.toMatch(/did not exit|failed to exit|Warning/);
}

/**
 * Tests of values, errors, fake timers and the application's own cache, with a cache that stays open. Nothing in it is a promise that
 * is true in one realm only: literals and `new Map` come from the realm of the test file, `Uint8Array` and `URL` from that of Jest.
 */
const TESTS = `
const cache = openCache(name, { size: "1mb", nearCache: 10 });
class Point { constructor(x) { this.x = x; } }

test("values come back as they were, with classes of this realm", () => {
  const value = {
    map: new Map([["a", new Set([1])]]), date: new Date(5), text: /a/g, big: 1n, array: [null, NaN, undefined, { deep: [1] }],
    error: new RangeError("r"), bytes: new Uint8Array([1, 2]), buffer: Buffer.from("x"), view: new Float64Array([1.5]),
    block: new Uint8Array([7]).buffer, url: new URL("http://a/b"),
  };
  // The third time a value comes from the near cache.
  for (let i = 0; i < 3; i++) {
    cache.set("value", value);
    const got = cache.get("value");
    expect(got).toEqual(value);
    expect(got.map).toBeInstanceOf(Map);
    expect(got.map.get("a")).toBeInstanceOf(Set);
    expect(got.date).toBeInstanceOf(Date);
    expect(got.text).toBeInstanceOf(RegExp);
    expect(got.array).toBeInstanceOf(Array);
    expect(got.array[3].deep).toBeInstanceOf(Array);
    expect(Object.getPrototypeOf(got.array[3])).toBe(Object.prototype);
    expect(got.error).toBeInstanceOf(RangeError);
    expect(got.error.message).toBe("r");
    expect(got.bytes).toBeInstanceOf(Uint8Array);
    expect(got.view).toBeInstanceOf(Float64Array);
    expect(Buffer.isBuffer(got.buffer)).toBe(true);
    expect(got.url).toBeInstanceOf(URL);
  }
  expect(cache.set("point", new Point(1)).get("point")).toEqual({ x: 1 });
  expect(cache.get("point")).not.toBeInstanceOf(Point);
  cache.set(Buffer.from("kk"), 1).set(new Uint8Array([1]), 2);
  expect([cache.get(new Uint8Array([107, 107])), cache.get(Buffer.from([1]))]).toEqual([1, 2]);
});

test("errors have the classes of this realm", async () => {
  expect(() => cache.set("large", "x".repeat(1e6))).toThrow(CacheError);
  expect(() => cache.set("large", "x".repeat(1e6))).toThrow(/limit/);
  for (const wrong of [() => {}, undefined, Promise.resolve(1), new WeakMap()]) {
    expect(() => cache.set("wrong", wrong)).toThrow(TypeError);
  }
  expect(() => cache.get(5)).toThrow(TypeError);
  expect(() => openCache(name, { size: "2mb" })).toThrow(expect.objectContaining({ code: "ERR_SIZE_MISMATCH" }));
  expect(() => openCache(name, { size: "2mb" })).toThrow(CacheError);
  await expect(cache.waitFor("never", { timeout: 5 })).rejects.toBeInstanceOf(CacheError);
  await expect(cache.getOrSet("failing" + file, () => { throw new RangeError("away"); })).rejects.toBeInstanceOf(RangeError);
});

test("fake timers decide on expiry, and do not stop waits", async () => {
  jest.useFakeTimers();
  try {
    cache.set("short" + file, 1, { ttl: 1000 });
    jest.advanceTimersByTime(999);
    expect(cache.get("short" + file)).toBe(1);
    jest.advanceTimersByTime(1);
    expect(cache.get("short" + file)).toBeUndefined();
    expect(await cache.getOrSet("loaded" + file, async () => 5, { ttl: 100 })).toBe(5);
    jest.advanceTimersByTime(100);
    expect(await cache.getOrSet("loaded" + file, async () => 6, { ttl: 100 })).toBe(6);
    const slow = cache.getOrSet("slow" + file, () => new Promise((resolve) => setTimeout(resolve, 5000, "slow")));
    const joined = cache.getOrSet("slow" + file, () => "not called");
    await jest.advanceTimersByTimeAsync(5000);
    expect([await slow, await joined]).toEqual(["slow", "slow"]);
    const waited = cache.waitFor("waited" + file);
    cache.set("waited" + file, 1);
    expect(await waited).toBe(1);
    await cache.locks.request("lock" + file, async () => {});
    await expect(cache.waitFor("never", { timeout: 20 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    const own = openCache(name, { now: () => 1000 });
    expect(own.set("mine" + file, 1, { ttl: 10 }).get("mine" + file)).toBe(1);
  } finally {
    jest.useRealTimers();
  }
});

test("all files of a thread share one seat, and the application's own cache is the project's", () => {
  cache.increment("files");
  expect(cache.stats().participants).toBeLessThanOrEqual(threads);
  set("file" + file, openCache().name);
  expect(get("file" + file)).toMatch(new RegExp("^" + project));
});

test("a cache of threads works, also by its handle", () => {
  const threads = createCache({ size: "1mb" });
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(threads.handle);
  const joined = attachCache(receiveMessageOnPort(port2).message);
  port1.close();
  joined.set("a", new Map([[1, 2]]));
  expect(threads.get("a")).toEqual(new Map([[1, 2]]));
});
`;
const COUNT = 5;
const NAMES = "attachCache, CacheError, createCache, get, openCache, set";

interface Setting {
  project: string;
  file: number;
  /** The cache that the files share. */
  name: string;
  threads: number;
}

/** A test file of CommonJS. */
function commonjs({ project, file, name, threads }: Setting): string {
  return `const { ${NAMES} } = require("cache-machine");
const { MessageChannel, receiveMessageOnPort } = require("node:worker_threads");
const [name, file, threads, project] = ${JSON.stringify([name, file, threads, `${mark}-${path.basename(project)}`])};
${TESTS}`;
}

function write(project: string, files: Record<string, string>): string[] {
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(project, name), text);
  return Object.keys(files);
}

/** How often test files have added to a cache: a script outside of Jest reads it. */
async function filesIn(project: string, name: string): Promise<string> {
  const code = `const { openCache, destroyCache } = require("cache-machine"); console.log(openCache(${JSON.stringify(name)}).get("files")); destroyCache(${JSON.stringify(name)});`;
  const { stdout, stderr } = await execute(process.execPath, ["-e", code], { cwd: project });
  return (stdout + stderr).trim();
}

afterAll(() => projects.remove());

describe.each(binaries)("Jest in its default configuration, with %s", (node, binary) => {
  let project: string;
  const id = node.replaceAll(/\W+/g, "");

  beforeAll(async () => {
    project = await jestProject(id);
  });

  test.each([
    ["in one process", ["--runInBand"], 1],
    ["in two worker processes", ["--maxWorkers=2"], 2],
    ["in two worker threads", ["--maxWorkers=2", "--workerThreads"], 2],
    [
      "in one process that removes the globals of each file",
      ["--runInBand", '--testEnvironmentOptions={"globalsCleanup":"on"}'],
      1,
    ],
  ])("%s: four files share a cache by name; it stays open and Jest ends", async (what, args, threads) => {
    const name = `${mark}-${id}-${what.replaceAll(" ", "-")}`;
    const texts = [0, 1, 2, 3].map((file) => [`${file}.test.js`, commonjs({ project, file, name, threads })]);
    const files = write(project, Object.fromEntries(texts));
    passed(await jest(project, files, args, await binary()), 4 * COUNT);
    expect(await filesIn(project, name)).toBe("4");
  });

  test("every subpath loads, with the instance of the package that the test file has", async () => {
    const { exports } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
    const subpaths = Object.keys(exports).filter((subpath) => !subpath.endsWith(".json"));
    const name = `${mark}-${id}-subpaths`;
    const files = write(project, {
      "subpaths.test.js": `const { CacheError, openCache } = require("cache-machine");
        test.each(${JSON.stringify(subpaths)})("%s", (subpath) => {
          expect(Object.keys(require(subpath.replace(".", "cache-machine"))).length).toBeGreaterThan(0);
        });
        test("an adapter", async () => {
          const { KeyvCacheMachine } = require("cache-machine/keyv");
          const cache = openCache("${name}", { size: "1mb" });
          const store = new KeyvCacheMachine(cache);
          await store.set("a", "text");
          expect(await store.get("a")).toBe("text");
          expect(cache.census().entries).toBe(1);
          cache.close();
          await expect((async () => store.get("a"))()).rejects.toThrow(CacheError);
        });`,
    });
    passed(await jest(project, files, ["--runInBand"], await binary()), subpaths.length + 1);
  });

  test("TypeScript that swc compiles to CommonJS works, with mocks of the package", async () => {
    const name = `${mark}-${id}-ts`;
    const files = write(project, {
      "service.ts": `import { type Cache, openCache } from "cache-machine";
        export const cache: Cache<{ n: number }> = openCache("${name}", { size: "1mb" });
        export const load = (key: string): Promise<{ n: number }> => cache.getOrSet(key, async () => ({ n: 1 }));`,
      "typed.test.ts": `import { CacheError } from "cache-machine";
        import * as whole from "cache-machine";
        import { cache, load } from "./service";
        it("loads", async () => { expect(await load("a")).toEqual({ n: 1 }); expect(cache.get("a")).toEqual({ n: 1 }); });
        it("throws", () => { expect(() => cache.set("b", "x".repeat(1e6) as never)).toThrow(CacheError); });
        it("has all exports", () => { expect(typeof whole.createCache).toBe("function"); });`,
      "mocked.test.ts": `import { openCache } from "cache-machine";
        import { load } from "./service";
        jest.mock("cache-machine", () => ({ ...jest.requireActual("cache-machine"), openCache: jest.fn(() => new Map()) }));
        it("is a mock", () => { expect(openCache).toHaveBeenCalledTimes(1); expect(() => load("a")).toThrow(/getOrSet/); });`,
    });
    const transform = '--transform={"\\\\.ts$":["@swc/jest",{"jsc":{"parser":{"syntax":"typescript"}}}]}';
    const tests = files.filter((file) => file.endsWith(".test.ts"));
    passed(await jest(project, tests, ["--runInBand", transform], await binary()), 4);
  });

  test("jest-environment-jsdom takes the version for browsers, and with `customExportConditions` the one for Node.js", async () => {
    const name = `${mark}-${id}-jsdom`;
    const files = write(project, { "jsdom.test.js": commonjs({ project, file: 0, name, threads: 1 }) });
    const wrong = await jest(project, files, ["--env=jsdom"], await binary());
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toMatch(/Must use import to load ES Module: .*browser\.js/);
    const environment = '--testEnvironmentOptions={"customExportConditions":["node"]}';
    passed(await jest(project, files, ["--env=jsdom", environment], await binary()), COUNT);
  });

  test("test files that are ES modules work, also with a copy of CommonJS beside them", async () => {
    const modules = await jestProject(`${id}-esm`, { type: "module", jest: { transform: {} } });
    const name = `${mark}-${id}-esm`;
    const files = write(modules, {
      "esm.test.js": `import { jest } from "@jest/globals";
        import { createRequire } from "node:module";
        import { MessageChannel, receiveMessageOnPort } from "node:worker_threads";
        import * as one from "cache-machine";
        import { ${NAMES} } from "cache-machine";
        const [name, file, threads, project] = ${JSON.stringify([name, 0, 1, `${mark}-${id}-esm`])};
        ${TESTS}
        test("a copy by require", async () => {
          const { apart, together } = await import(${JSON.stringify(COPIES)});
          const other = createRequire(import.meta.url)("cache-machine");
          // Since Node.js 24.9 Jest gives one instance to both.
          if (other.openCache === openCache) return;
          const caches = await together(one, other, name + "-copies");
          apart(caches);
          expect(caches.participants).toBe(1);
          one.destroyCache(name + "-copies");
        });`,
    });
    fs.symlinkSync(path.join(MODULES, "@jest"), path.join(modules, "node_modules/@jest"));
    const output = await jest(modules, files, ["--experimental-vm-modules", "--runInBand"], await binary());
    passed(
      { ...output, stderr: output.stderr.replace(/^.*ExperimentalWarning.*\n.*--trace-warnings.*\n/m, "") },
      COUNT + 1,
    );
  });
});
