/**
 * The metrics of a host with several processes, with the real prom-client: they are those of the host, and not that many times as many
 * as it has processes, and they never go back when a process dies.
 */

import { type ChildProcess, execFile, fork } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { type Cache, destroyCache, openCache } from "cache-machine";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parse } from "./exposition.ts";

const file = (name: string): string => path.join(import.meta.dirname, name);
const run = promisify(execFile);
const LIMIT = { timeout: 60_000 };
const PM2 = path.resolve(import.meta.dirname, "../../node_modules/pm2/bin/pm2");

let name: string;
let cache: Cache;
let count = 0;
let cleanups: (() => unknown)[];

beforeEach(() => {
  name = `t-${process.pid}-hosts-${++count}`;
  cleanups = [() => destroyCache(name)];
  cache = openCache(name, { size: "4mb" });
  cleanups.push(() => cache.close());
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** What the whole host has counted. */
function hostNumbers() {
  const { hits, misses, sets, participants, size } = cache.stats();
  return { hits, misses, sets, participants, size, entries: cache.census().entries };
}

/** The same numbers in the text of a scrape. */
function scraped(text: string): ReturnType<typeof hostNumbers> {
  const { values } = parse(text);
  const of = (metric: string, labels = "") => values[`cache_machine_${metric}{cache="${name}"${labels}}`] as number;
  return {
    hits: of("requests_total", ',result="hit"'),
    misses: of("requests_total", ',result="miss"'),
    sets: of("sets_total"),
    participants: of("participants"),
    size: of("memory_size_bytes"),
    entries: of("entries"),
  };
}

test("four workers of node:cluster with an AggregatorRegistry: the totals are the host's, also after one was killed", async () => {
  const { stdout } = await run(process.execPath, [file("primary.mjs")], {
    ...LIMIT,
    env: { ...process.env, CACHE: name },
  });
  const { before, killed, replaced } = JSON.parse(stdout);
  const [size, participants] = [4 << 20, 5];
  expect(scraped(before)).toEqual({ hits: 1000, misses: 1000, sets: 1000, participants, size, entries: 1000 });
  expect(scraped(killed)).toEqual({ hits: 1000, misses: 1000, sets: 1000, participants: 4, size, entries: 1000 });
  const { entries, ...counted } = scraped(replaced);
  expect(counted).toEqual({ hits: 1050, misses: 1050, sets: 1050, participants, size });
  // A census may be told again while its process rests from it.
  expect([1000, 1050]).toContain(entries);
  expect(hostNumbers()).toMatchObject({ hits: 1050, misses: 1050, sets: 1050, entries: 1050 });
  // The near caches are those of the processes, so they add up.
  const near = Object.entries(parse(before).values).find(([metric]) => metric.startsWith("cache_machine_near_entries"));
  expect(near?.[1]).toBeGreaterThanOrEqual(0);
});

interface Peer {
  child: ChildProcess;
  port: number;
}

async function startPeer(): Promise<Peer> {
  const child = fork(file("worker.mjs"), { env: { ...process.env, CACHE: name } });
  cleanups.push(() => child.kill("SIGKILL"));
  const [{ port }] = await once(child, "message");
  return { child, port };
}

const ask = async (port: number, what: string) =>
  (await fetch(`http://127.0.0.1:${port}${what}`, { signal: AbortSignal.timeout(30_000) })).text();

test("no counter goes back, however many processes are killed while they work, and none is counted twice", async () => {
  const observer = await startPeer();
  let least = { hits: 0, misses: 0, sets: 0 };
  for (let round = 1; round <= 6; round++) {
    const { child, port } = await startPeer();
    await ask(port, "/work?n=200");
    // Dies somewhere in a work that would take seconds.
    const dying = ask(port, "/work?n=2000000").catch(() => {});
    const { sets } = cache.stats();
    await vi.waitFor(() => expect(cache.stats().sets).toBeGreaterThan(sets + 500), { timeout: 30_000, interval: 1 });
    child.kill("SIGKILL");
    await once(child, "exit");
    await dying;
    const { hits, misses, sets: stored, participants } = scraped(await ask(observer.port, "/metrics"));
    expect(stored).toBeGreaterThan(least.sets + 700);
    expect(hits).toBeGreaterThanOrEqual(least.hits + 200);
    expect(misses).toBeGreaterThanOrEqual(least.misses + 200);
    expect(participants).toBe(2);
    // Nobody works now: what the dead have counted stays as it is.
    expect({ hits, misses, sets: stored }).toEqual(
      (({ hits, misses, sets }) => ({ hits, misses, sets }))(cache.stats()),
    );
    least = { hits, misses, sets: stored };
  }
});

test("under pm2 the metrics of each process are those of the host", async () => {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "metrics-pm2-"));
  cleanups.push(() => fs.rmSync(home, { recursive: true, force: true }));
  const portsName = `${name}-ports`;
  const ports = openCache<number>(portsName, { size: "1mb" });
  cleanups.push(() => destroyCache(portsName));
  cleanups.push(() => ports.close());
  const env = { ...process.env, PM2_HOME: home, CACHE: name, PORTS: portsName, PM2_DISCRETE_MODE: "true" };
  const pm2 = (...args: string[]) => run(process.execPath, [PM2, ...args], { ...LIMIT, env });
  // Ends the daemon with its processes.
  cleanups.push(() => pm2("kill"));
  const names = ["one", "two", "three"];
  for (const each of names) await pm2("start", file("worker.mjs"), "--name", each);
  await vi.waitFor(() => expect([...ports.keys()]).toHaveLength(names.length), { timeout: 30_000, interval: 50 });
  const all = [...ports.values()];
  await Promise.all(all.map((port, i) => ask(port, `/work?n=${100 * (i + 1)}`)));
  const expected = hostNumbers();
  expect(expected).toMatchObject({ hits: 600, misses: 600, sets: 600, participants: 4, entries: 600 });
  for (const port of all) expect(scraped(await ask(port, "/metrics"))).toEqual(expected);
});
