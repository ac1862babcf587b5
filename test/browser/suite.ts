/** Runs the conformance suite and the concurrent checks in a page or a Web Worker, and reports the failures. */

import { attachCache, type CacheHandle, type CacheOptions } from "cache-machine";
import type { Subject } from "../../src/testing/check.ts";
import { meet } from "../../src/testing/concurrent-checks.ts";
import { conformance } from "../../src/testing/conformance.ts";

/** The number of checks, and the failures. */
export interface Report {
  checks: number;
  failures: string[];
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
  for (const { name, run } of conformance(subject, { ...(options && { options }) })) {
    await attempt(report, name, run);
    // Lets other tasks of this thread run.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return report;
}

/** Runs the concurrent checks together with the other participants. */
export async function meetAs(job: {
  handle: CacheHandle;
  number: number;
  count: number;
  largest: number;
}): Promise<Report> {
  const report: Report = { checks: 0, failures: [] };
  const cache = attachCache(job.handle);
  await attempt(report, "concurrent checks", () => meet({ cache, ...job }));
  cache.close();
  return report;
}
