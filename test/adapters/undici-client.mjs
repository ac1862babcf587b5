/** A process that sends requests through undici's cache interceptor, with a store over the cache of a name: see undici.test.ts. */

import { openCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/undici";

const { name, peer, parent } = JSON.parse(process.argv[2]);
// The kernel kills this process when its parent dies, but not if the parent had died before that was set.
if (process.ppid !== parent) process.exit(1);

const { Agent, interceptors, request } = await import(peer);
const store = new CacheMachineStore(openCache(name));
const dispatcher = new Agent().compose(interceptors.cache({ store }));

async function answer({ url, method = "GET", headers = {} }) {
  const response = await request(url, { method, headers, dispatcher });
  const body = await response.body.text();
  return { status: response.statusCode, age: response.headers.age, warning: response.headers.warning, body };
}

process.on("message", async ({ number, jobs }) => {
  // All jobs at once.
  const settled = await Promise.allSettled(jobs.map(answer));
  const results = settled.map(({ value, reason }) => value ?? { error: reason.code ?? String(reason) });
  process.send({ number, results });
});
process.send({ ready: true });
