/** A task of the pool: finds the smallest factor of a number, in the cache if a thread has computed it before. */

import { threadId } from "node:worker_threads";
import { attachCache } from "cache-machine";
import { workerData } from "piscina";

const cache = attachCache(workerData.cache);

export default function smallestFactor(number) {
  const known = cache.get(`factor:${number}`);
  if (known !== undefined) return { ...known, by: known.thread === threadId ? "this thread" : "another thread" };
  const answer = { factor: search(number), thread: threadId };
  cache.set(`factor:${number}`, answer);
  return { ...answer, by: "computed" };
}

function search(number) {
  for (let factor = 3; factor * factor <= number; factor += 2) if (number % factor === 0) return factor;
  return number;
}
