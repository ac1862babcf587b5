/**
 * A rate limit for all processes together: 100 requests a minute, whichever process gets them.
 *
 * Its limits: it counts in fixed windows, so it may allow twice as many requests around the border of two windows. It counts only
 * on this machine. If the cache is too small, a counter can be evicted, and then more requests are allowed, never fewer.
 *
 *     node examples/09-rate-limit.mjs
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { destroyCache, openCache } from "cache-machine";

const LIMIT = 100;
const WINDOW_MS = 60_000;

if (process.argv[2] === undefined) {
  const children = Array.from({ length: 3 }, () => fork(new URL(import.meta.url), ["child"]));
  const answers = await Promise.all(children.map((child) => once(child, "message")));
  for (const [{ pid, asked, allowed }] of answers) console.log(`process ${pid}: ${allowed} of ${asked} allowed`);
  console.log(`together: ${answers.reduce((sum, [{ allowed }]) => sum + allowed, 0)} allowed, the limit is ${LIMIT}`);
  destroyCache("example-rate-limit");
} else {
  const cache = openCache("example-rate-limit", { size: "1mb" });

  // The first request of a window creates the counter with its ttl; later requests do not extend it.
  const allow = (client) => cache.increment(`requests:${client}`, 1, { ttl: WINDOW_MS }) <= LIMIT;

  const asked = 60;
  let allowed = 0;
  for (let i = 0; i < asked; i++) if (allow("198.51.100.7")) allowed++;
  process.send({ pid: process.pid, asked, allowed });
  process.disconnect();
}
