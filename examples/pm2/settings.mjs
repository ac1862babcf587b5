/**
 * Sizes and times, from the environment or with the defaults in this file. The driver, the service and its threads all read this
 * file, so that they use the same settings: processes inherit the environment of the driver.
 */

import { randomBytes } from "node:crypto";

/** Processes that pm2 runs. */
export const processes = whole("PROCESSES", 4);
/** Worker threads in each of them. */
export const threads = whole("THREADS", 2);
/** Connections that send requests at the same time. */
export const connections = whole("CONNECTIONS", 16);
/** Duration of the load in seconds. The story always runs to its end, so a very small number does not end it earlier. */
export const duration = whole("DURATION", 15);
/** Shared memory of the cache; all of it is reserved at once. */
export const cacheSize = process.env.CACHE_SIZE ?? "64mb";

/** Part of the names in this run, so that two runs on one machine do not affect each other. */
const run = (process.env.EXAMPLE_RUN ??= `${process.pid}-${randomBytes(3).toString("hex")}`);
export const cacheName = `pm2-example-${run}`;

/** The name of this process of the service. */
export const processName = `docs-${process.env.NODE_APP_INSTANCE}`;

function whole(name, fallback) {
  const text = process.env[name] ?? String(fallback);
  if (!/^[1-9]\d{0,3}$/.test(text)) {
    throw new RangeError(`${name}: must be a whole number from 1 to 9999, not "${text}"`);
  }
  return Number(text);
}
