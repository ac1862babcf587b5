/**
 * Living with a cache under pm2, as docs/operations.md describes it: another size, another version of the application, a cache that is
 * destroyed while processes use it. Pages are asked for all the time, and no request fails.
 */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Application, Host } from "./living-pm2.ts";

vi.setConfig({ testTimeout: 240_000, hookTimeout: 90_000 });

const PAGES = 20;
const WAIT = { timeout: 60_000, interval: 50 };

let host: Host;

beforeEach(() => {
  host = new Host();
});

afterEach(() => host.end());

/** Starts the application, and asks for pages until each of them was loaded once. */
async function started(application: Application, listenTimeout?: number): Promise<ReturnType<Host["visit"]>> {
  await host.start(application, listenTimeout);
  const end = host.visit(PAGES);
  await vi.waitFor(() => expect(host.loads()).toHaveLength(PAGES), WAIT);
  return end;
}

/** Reloads the application; when all its processes are others, asks for each page once. */
async function reload(): Promise<void> {
  const before = (await host.processes()).map(({ pid }) => pid);
  await host.pm2("reload", "pages");
  const after = await host.processes();
  expect(after.map(({ status }) => status)).toEqual(["online", "online"]);
  expect(after.filter(({ pid }) => before.includes(pid))).toEqual([]);
  for (let i = 0; i < PAGES; i++) await host.ask(`page-${i}`);
}

/** The lines that occur more than once. */
const repeated = (lines: string[]): string[] => lines.filter((line, index) => lines.indexOf(line) !== index);

const MIB = 1 << 20;

test("a reload with another size, where the name has the size: old and new processes answer, and each size loads a page once", async () => {
  const end = await started({ name: "app-1mb", size: "1mb" });
  host.deploy({ name: "app-2mb", size: "2mb" });
  await reload();
  const { answers, failed } = await end();

  expect(failed).toEqual([]);
  expect([...new Set(answers.map(({ size }) => size))].sort()).toEqual([MIB, 2 * MIB]);
  expect(answers.filter(({ destroyed }) => destroyed)).toEqual([]);
  expect(host.loads()).toHaveLength(2 * PAGES);
  expect(repeated(host.loads())).toEqual([]);
  // The old cache is not used any more, and takes room until it is removed.
  expect(host.caches()).toEqual(["app-1mb", "app-2mb"]);
  expect(host.look("app-1mb", (cache) => cache.stats().participants)).toBe(1);
  expect(host.destroy("app-1mb")).toBe(true);
  expect(host.caches()).toEqual(["app-2mb"]);
});

test("a reload with another size, where the cache is destroyed before: old processes go on with the old one", async () => {
  const end = await started({ name: "app", size: "1mb" });
  host.deploy({ name: "app", size: "2mb" });
  expect(host.destroy("app")).toBe(true);
  const before = await host.processes();
  for (const { pid } of before)
    await vi.waitFor(async () => expect(await host.ask("page-0")).toMatchObject({ pid }), WAIT);
  await reload();
  const { answers, failed } = await end();

  expect(failed).toEqual([]);
  // The processes that were started before learn that their cache is destroyed, and answer from it all the same.
  const late = answers.filter(({ destroyed }) => destroyed);
  expect(new Set(late.map(({ size }) => size))).toEqual(new Set([MIB]));
  expect(new Set(late.map(({ pid }) => pid))).toEqual(new Set(before.map(({ pid }) => pid)));
  expect(host.loads()).toHaveLength(2 * PAGES);
  expect(repeated(host.loads())).toEqual([]);
  expect(host.caches()).toEqual(["app"]);
});

test("a reload with another size and nothing else done: the new processes cannot start, and pm2 ends the old ones", async () => {
  const end = await started({ name: "app", size: "1mb" }, 3000);
  host.deploy({ name: "app", size: "2mb" });
  // pm2 keeps some of the connections that it can give to nobody.
  host.patience = 5000;
  await host.pm2("reload", "pages");
  await vi.waitFor(() => expect(host.ask("page-0")).rejects.toThrow("fetch failed"), WAIT);
  const { failed } = await end();

  expect(failed.length).toBeGreaterThan(0);
  expect(host.errors()).toContain("size: the cache exists with 1 MiB");
});

test("a new version of the application with its own namespace: versions do not mix, and the old one finds its entries again", async () => {
  const end = await started({ name: "app", size: "1mb", version: "v1" });
  host.deploy({ name: "app", size: "1mb", version: "v2" });
  await reload();
  const both = [...Array(PAGES).keys()].flatMap((page) => [`${MIB} v1 page-${page}`, `${MIB} v2 page-${page}`]).sort();
  expect(host.loads().sort()).toEqual(both);
  host.deploy({ name: "app", size: "1mb", version: "v1" });
  await reload();
  const { answers, failed } = await end();

  expect(failed).toEqual([]);
  expect(answers.filter(({ version, value }) => value.version !== version)).toEqual([]);
  expect(new Set(answers.map(({ version }) => version))).toEqual(new Set(["v1", "v2"]));
  // Nothing was loaded when the old version came back.
  expect(host.loads().sort()).toEqual(both);
  host.look("app", (cache) => {
    cache.namespace("v2").clear();
    expect([cache.namespace("v1").size, cache.namespace("v2").size]).toEqual([PAGES, 0]);
  });
});

test("a cache that is destroyed while processes use it: they look, open it again, and share the new one", async () => {
  const end = await started({ name: "app", size: "1mb", watch: true });
  const before = await host.processes();
  expect(host.destroy("app")).toBe(true);
  await vi.waitFor(() => expect(host.caches()).toEqual(["app"]), WAIT);
  await vi.waitFor(() => expect(host.look("app", (cache) => cache.stats().participants)).toBe(3), WAIT);
  for (let i = 0; i < PAGES; i++) expect(await host.ask(`page-${i}`)).toMatchObject({ destroyed: false });
  const { failed } = await end();

  expect(failed).toEqual([]);
  expect(await host.processes()).toEqual(before);
  // Each page once in the old cache, and once in the new one, whichever process was asked.
  const pages = [...Array(PAGES).keys()].map((page) => `${MIB} - page-${page}`);
  expect(host.loads().sort()).toEqual([...pages, ...pages].sort());
});
