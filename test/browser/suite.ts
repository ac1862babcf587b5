/** The conformance suite as pages and Web Workers run it. */

import { attachCache, type CacheHandle, type CacheOptions } from "cache-machine";
import { conformance, type Subject } from "../contract/conformance.ts";
import { meet } from "../contract/meeting.ts";

/** What was checked, and what came of it. */
export interface Report {
  checks: number;
  failures: string[];
}

/** Where keys and tags meet in the index depends on a random number; with a fixed one each run is the same. */
export function seeded<T>(seed: number, make: () => T): T {
  const original = crypto.getRandomValues;
  crypto.getRandomValues = ((array: ArrayBufferView) =>
    array instanceof Uint32Array ? array.fill(seed) : original.call(crypto, array as never)) as typeof original;
  try {
    return make();
  } finally {
    crypto.getRandomValues = original;
  }
}

async function attempt(report: Report, name: string, run: () => unknown): Promise<void> {
  report.checks++;
  try {
    await run();
  } catch (error) {
    report.failures.push(`${name}: ${(error as Error).stack}`);
  }
}

export async function runSuite(subject: Subject, options?: CacheOptions): Promise<Report> {
  const report: Report = { checks: 0, failures: [] };
  for (const { name, run } of conformance(subject, options)) {
    await attempt(report, name, run);
    // Others have their turn as well.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return report;
}

/** Meets the others on all of a cache. */
export async function meetAs(job: {
  handle: CacheHandle;
  number: number;
  count: number;
  largest: number;
}): Promise<Report> {
  const report: Report = { checks: 0, failures: [] };
  const cache = attachCache(job.handle);
  await attempt(report, "meeting", () => meet({ cache, ...job }));
  cache.close();
  return report;
}
