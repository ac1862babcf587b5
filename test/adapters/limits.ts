/** What the tests of the three adapters for rate limits have in common. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type Cache, destroyCache, openCache } from "cache-machine";
import { acrossProcesses, type Check } from "cache-machine/testing";
import { expect } from "vitest";
import { inTime } from "../coordinate/others.ts";

const SERVER = fileURLToPath(new URL("limit-server.mjs", import.meta.url));

/** Keys that clients may send, among them pairs that a careless adapter takes for one. */
export const KEYS: readonly string[] = [
  "",
  " ",
  "__proto__",
  "constructor",
  "\0",
  "a\0b",
  "a",
  "\ud800",
  "\udc00",
  "😀",
  "x".repeat(10_000),
  `${"x".repeat(9_999)}y`,
  `${"x".repeat(9_999)}\ud800`,
  `${"x".repeat(9_999)}\udc00`,
  "é".repeat(4_000),
  "😀".repeat(512),
];

/** Servers that share one cache, each in a process of its own. */
export class LimitServers {
  readonly cache: Cache;
  readonly #name: string;
  readonly #processes: ChildProcess[] = [];
  /** The addresses of the servers. */
  readonly urls: string[] = [];

  constructor(adapter: string) {
    this.#name = `t-${process.pid}-limits-${adapter}`;
    this.cache = openCache(this.#name, { size: "4mb" });
  }

  async start(adapter: string, count: number, limit: number, window = 600_000): Promise<void> {
    const setting = JSON.stringify({ adapter, name: this.#name, limit, window });
    const started = Array.from({ length: count }, () => fork(SERVER, [setting], { execArgv: [] }));
    this.#processes.push(...started);
    for (const child of started) {
      const [{ port }] = await inTime(once(child, "message"), "the start of a server");
      this.urls.push(`http://127.0.0.1:${port}`);
    }
  }

  /** Asks a server; its response, whose body was read. */
  async ask(index: number, method = "GET", where = "/"): Promise<Response> {
    const response = await fetch(this.urls[index] + where, { method, signal: AbortSignal.timeout(30_000) });
    await response.text();
    return response;
  }

  /** Sends each server so many requests at once; how many were answered with which status. */
  async flood(each: number): Promise<Record<number, number>> {
    const asked = this.urls.flatMap((_, index) => Array.from({ length: each }, () => this.ask(index)));
    const statuses: Record<number, number> = {};
    for (const { status } of await Promise.all(asked)) statuses[status] = (statuses[status] ?? 0) + 1;
    return statuses;
  }

  /** Lets all processes count hits of one key at once and as fast as they can; how many had which answer. */
  async hammer(key: string, hits: number): Promise<{ allowed: number; counted: number }> {
    const answers = this.#processes.map((child) => once(child, "message"));
    for (const child of this.#processes) child.send({ key, hits });
    const result = { allowed: 0, counted: 0 };
    for (const [{ allowed, refused, busy }] of await inTime(Promise.all(answers), "hits of all processes")) {
      expect(allowed + refused + busy).toBe(hits);
      result.allowed += allowed;
      result.counted += allowed + refused;
    }
    // Whatever the machine does, most hits are counted.
    expect(result.counted).toBeGreaterThan(0.9 * hits * answers.length);
    return result;
  }

  /** Kills a server with SIGKILL. */
  async kill(index: number): Promise<void> {
    const [child] = this.#processes.splice(index, 1);
    this.urls.splice(index, 1);
    if (child === undefined) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await inTime(ended, "the end of a server");
  }

  async stop(): Promise<void> {
    while (this.#processes.length > 0) await this.kill(0);
    this.cache.close();
    destroyCache(this.#name);
  }
}

/** The check of `cache-machine/testing` that a limit is exact in four processes. */
export function limitChecks(adapter: string): Check[] {
  const NAME = `t-${process.pid}-limits-${adapter}-check`;
  const module = new URL("limit-store.mjs", import.meta.url);
  const checks = acrossProcesses(module, { members: ["hit"], env: { NAME, ADAPTER: adapter } });
  // The other checks are of values.
  return checks
    .filter(({ name }) => name.includes("limit"))
    .map(({ name, run }) => ({
      name,
      async run() {
        openCache(NAME, { size: "1mb" }).close();
        try {
          await run();
        } finally {
          destroyCache(NAME);
        }
      },
    }));
}
