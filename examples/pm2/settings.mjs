/**
 * Sizes and times, from the environment or as they are here. The driver, the service and its threads all read this
 * file, so that they agree; the processes that the driver starts inherit its environment.
 */

import { randomBytes } from "node:crypto";

/** Processes that pm2 runs. */
export const processes = whole("PROCESSES", 4);
/** Worker threads in each of them. */
export const threads = whole("THREADS", 2);
/** Connections that ask at the same time. */
export const connections = whole("CONNECTIONS", 16);
/** Seconds of load; the story takes the time it needs, so a very small number does not end it earlier. */
export const duration = whole("DURATION", 15);
/** Shared memory of the cache; all of it is reserved at once. */
export const cacheSize = process.env.CACHE_SIZE ?? "16mb";

/** What makes the names of this run its own, so that two runs on one machine do not meet. */
const run = (process.env.EXAMPLE_RUN ??= `${process.pid}-${randomBytes(3).toString("hex")}`);
export const cacheName = `pm2-example-${run}`;

/** What pm2 calls this process among its equals. */
export const processName = `docs-${process.env.NODE_APP_INSTANCE}`;

function whole(name, fallback) {
  const text = process.env[name] ?? String(fallback);
  if (!/^[1-9]\d{0,3}$/.test(text)) {
    throw new RangeError(`${name}: must be a whole number from 1 to 9999, not "${text}"`);
  }
  return Number(text);
}
