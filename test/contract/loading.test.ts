/**
 * Runs the checks of loads alone, in seconds: for those who change src/coordinate/, and for mutants. They are part of the conformance
 * suite too, which runs them in all reaches and runtimes.
 */

import type { Cache, CacheOptions } from "cache-machine";
import { afterAll, test } from "vitest";
import { conformance } from "../../src/testing/conformance.ts";
import { attachCache, createCache } from "../host/apart.mjs";

const cache: Cache = createCache({ size: "4mb" });
afterAll(() => cache.close());

const subject = {
  reach: "threads" as const,
  largest: 1 << 19,
  open: (options?: CacheOptions): Cache => attachCache(cache.handle, options),
};
for (const { name, run } of conformance(subject, { only: ["loading"] })) test(name, run);
