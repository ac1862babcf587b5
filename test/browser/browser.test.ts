/**
 * Tests the package in a page and its Web Workers, in a real Chromium (chromium.ts): the bundle, the conformance suite on the main
 * thread and in workers, and terminated workers. Also tests `inspect`, whose results the demo draws.
 */

import { gzipSync } from "node:zlib";
import { createCache } from "cache-machine";
import { build } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { chromiumPath, host, launch, open } from "./chromium.ts";
import type { Tests } from "./page.ts";

const root = new URL("../..", import.meta.url).pathname;
const SEED = Number(process.env.SEED ?? 20_240_517);
/** Maximum size of the bundle, compressed with gzip; the compiled engine is part of it. */
const MAX_BUNDLE_BYTES = 75_000;

const skipped = chromiumPath === undefined && !process.env.CI;
if (skipped) console.warn("browser: skipped, no Chromium: install Debian's package `chromium`, or set CHROMIUM=/path");
console.log(`browser: SEED=${SEED}`);

describe("the bundle for a page", () => {
  const bundle = (contents: string) =>
    build({
      stdin: { contents, resolveDir: root },
      absWorkingDir: root,
      bundle: true,
      minify: true,
      format: "esm",
      platform: "browser",
      write: false,
      metafile: true,
      logLevel: "silent",
    });

  test("the bundle for a page contains nothing of Node.js and no native part, and is small", async () => {
    const result = await bundle('export { createCache, attachCache } from "cache-machine";');
    expect(result.warnings).toEqual([]);
    const inputs = Object.keys(result.metafile.inputs).filter((input) => input !== "<stdin>");
    expect(inputs.filter((input) => !/^dist\/browser\.js$|(^|\/)node_modules\/devalue\//.test(input))).toEqual([]);
    expect(inputs).toContain("dist/browser.js");
    const imports = Object.values(result.metafile.outputs).flatMap((output) => output.imports);
    expect(imports).toEqual([]);
    const [{ contents, text }] = result.outputFiles as [{ contents: Uint8Array; text: string }];
    expect(text).not.toMatch(/dlopen|cache_machine-linux|["'`]node:(?!fs|worker_threads)/);
    // A page's content security policy may forbid these.
    expect(text).not.toMatch(/\beval\b|\bFunction\(/);
    const bytes = gzipSync(contents, { level: 9 }).length;
    console.log(`browser: the bundle has ${contents.length} bytes, ${bytes} compressed`);
    expect(bytes).toBeLessThan(MAX_BUNDLE_BYTES);
  });
});

describe("inspect", () => {
  const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);

  test("inspect returns numbers of each segment and of the index that add up to those of stats", () => {
    const cache = createCache({ size: "2mb" });
    const empty = cache.inspect();
    expect(new Set(empty.segments.map(({ state, used, live }) => `${state} ${used} ${live}`))).toEqual(
      new Set(["free 0 0"]),
    );
    expect(empty.segments.length * empty.segmentBytes).toBe(cache.stats().capacity);
    expect(empty.index).toEqual(Array.from({ length: 256 }, () => ({ live: 0, ghosts: 0 })));

    for (let i = 0; i < 2000; i++) cache.set(`key ${i}`, `value ${i}`.repeat(10));
    const filled = cache.inspect();
    const { entries, bytes } = cache.census();
    expect(sum(filled.index.map(({ live }) => live))).toBe(entries);
    expect(Math.max(...filled.index.map(({ live }) => live))).toBeLessThanOrEqual(filled.indexPartEntries);
    expect(sum(filled.segments.map(({ live }) => live))).toBe(bytes);
    expect(filled.segments.filter(({ state }) => state !== "free").length * filled.segmentBytes).toBe(
      cache.stats().used,
    );
    expect(filled.segments.filter(({ state }) => state === "open")).toHaveLength(1);

    // The old records of replaced entries are dead bytes in their segments.
    for (let i = 0; i < 2000; i += 2) cache.set(`key ${i}`, i);
    const { segments } = cache.inspect();
    expect(sum(segments.map(({ live }) => live))).toBe(cache.census().bytes);
    expect(sum(segments.map(({ used }) => used))).toBeGreaterThan(cache.census().bytes * 1.3);

    // Stores more than fits, and reads a hundred keys again and again.
    for (let i = 0; i < 100_000; i++) {
      cache.set(`more ${i}`, "x".repeat(100));
      if (i % 10 === 0) for (let hot = 1; hot < 200; hot += 2) cache.get(`key ${hot}`);
    }
    const full = cache.inspect();
    expect(new Set(full.segments.map(({ class: is }) => is))).toEqual(new Set(["small", "main"]));
    expect(full.segments.some(({ generation }) => generation > 1)).toBe(true);
    expect(sum(full.index.map(({ ghosts }) => ghosts))).toBeGreaterThan(100);
    expect(sum(full.index.map(({ live }) => live))).toBe(cache.census().entries);
    expect(cache.validate()).toBe(0);
    cache.close();
    expect(() => cache.inspect()).toThrow("closed");
  });
});

describe.skipIf(skipped)("in Chromium", () => {
  let server: Awaited<ReturnType<typeof host>>;
  let browser: Browser;
  let page: Page;
  let complaints: string[];

  beforeAll(async () => {
    browser = await launch();
    server = await host(["test/browser/page.ts", "test/browser/worker.ts"]);
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });
  afterEach(async () => {
    await page?.close();
    expect(complaints).toEqual([]);
  });

  /** Runs one of the functions of page.ts in a new page. */
  async function run<K extends keyof Tests>(
    name: K,
    args: Parameters<Tests[K]>,
    prepare?: () => void,
  ): Promise<Awaited<ReturnType<Tests[K]>>> {
    ({ page, complaints } = await open(browser, server.address, prepare));
    await page.waitForFunction(() => "tests" in globalThis);
    const call = ({ name, args }: { name: string; args: unknown[] }): unknown =>
      (globalThis as unknown as { tests: Record<string, (...args: unknown[]) => unknown> }).tests[name]?.(...args);
    return (await page.evaluate(call, { name, args })) as Awaited<ReturnType<Tests[K]>>;
  }

  test.each([
    ["on the main thread", "conformance", {}],
    ["on the main thread, without a near cache", "conformance", { nearCache: 0 }],
    ["in a worker", "conformanceInWorker", {}],
  ] as const)("the conformance suite passes in a page: %s", async (_, name, options) => {
    const { checks, failures } = await run(name, [SEED, options]);
    expect(failures).toEqual([]);
    expect(checks).toBeGreaterThan(30);
  });

  test("the conformance suite passes in three workers at once, and the concurrent checks pass in them and the page", async () => {
    const reports = await run("together", [SEED, 3]);
    expect(reports.flatMap(({ failures }) => failures)).toEqual([]);
    expect(reports.map(({ checks }) => checks).slice(3)).toEqual([1, 1, 1, 1]);
    expect(reports).toHaveLength(7);
  });

  test("the seats of terminated workers are free again, also after more workers than there are seats", async () => {
    const { watchedMs, freeMs, broken } = await run("comeAndGo", [70]);
    console.log(
      `browser: workers were watched after ${watchedMs.toFixed(1)} ms, and their seats free after ${freeMs.toFixed(1)} ms`,
    );
    expect(broken).toBe(0);
  });

  test("workers that are terminated while they store leave the cache sound, and the page can use all of it", async () => {
    const { stored, wrong, broken } = await run("terminateWriters", [3]);
    expect(wrong).toEqual([]);
    expect(broken).toBe(0);
    expect(stored).toBeGreaterThan(10_000);
  });

  test("a worker that never returns to its event loop learns that another worker was terminated", async () => {
    const { seen } = await run("tellTheBusy", []);
    expect(seen).toBe(2);
  });

  test("every living worker is counted as a participant while the page and all workers are busy", async () => {
    const { fewest, lost } = await run("crowd", [12]);
    expect([fewest, lost]).toEqual([13, 0]);
  });

  test("a worker whose Web Lock is granted late counts as alive before that, and as gone after its termination", async () => {
    const { fewest, tookMs } = await run("late", [600]);
    expect(fewest).toBe(2);
    expect(tookMs).toBeGreaterThan(500);
  });

  test("without Web Locks a cache works, and a terminated worker still counts as alive", async () => {
    const { locks, value, participants } = await run("withoutLocks", [], () => {
      Object.defineProperty(Navigator.prototype, "locks", { value: undefined });
    });
    expect([locks, value, participants]).toEqual(["undefined", true, 2]);
  });
});
