/**
 * rate-limiter-flexible in four processes: somebody tries passwords in all of them at once. Five wrong ones are allowed, then the
 * name is blocked for an hour, in every process.
 *
 *     node examples/adapters/rate-limiter-flexible.mjs
 *
 * It prints:
 *
 *     4 processes, 100 passwords: 5 were looked at, 95 were refused
 *     a fifth process: blocked for 60 minutes
 *     unblocked: true
 *     a fifth process: 4 more
 */

import cluster from "node:cluster";
import { once } from "node:events";
import { destroyCache, openCache } from "cache-machine";
import { createRateLimiter } from "cache-machine/rate-limiter-flexible";
import { RateLimiterMemcache } from "rate-limiter-flexible";

const RateLimiterCacheMachine = createRateLimiter(RateLimiterMemcache);
const limiter = new RateLimiterCacheMachine({
  storeClient: openCache("example-rate-limiter-flexible", { size: "1mb" }),
  keyPrefix: "login",
  points: 5,
  duration: 60,
  blockDuration: 3600,
});
const TRIES = 25;

if (cluster.isPrimary) {
  const workers = Array.from({ length: 4 }, () => cluster.fork());
  const ended = Promise.all(workers.map((worker) => once(worker, "exit")));
  const results = await Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
  const lookedAt = results.reduce((sum, each) => sum + each, 0);
  const all = 4 * TRIES;
  console.log(`4 processes, ${all} passwords: ${lookedAt} were looked at, ${all - lookedAt} were refused`);

  const tell = async () => {
    try {
      console.log(`a fifth process: ${(await limiter.consume("ada")).remainingPoints} more`);
    } catch (refused) {
      if (refused instanceof Error) throw refused;
      console.log(`a fifth process: blocked for ${Math.ceil(refused.msBeforeNext / 60_000)} minutes`);
    }
  };
  await tell();
  console.log(`unblocked: ${await limiter.delete("ada")}`);
  await tell();
  await ended;
  destroyCache("example-rate-limiter-flexible");
} else {
  let lookedAt = 0;
  for (let i = 0; i < TRIES; i++) {
    try {
      await limiter.consume("ada");
      lookedAt++;
    } catch (refused) {
      if (refused instanceof Error) throw refused;
    }
  }
  process.send(lookedAt, () => process.disconnect());
}
