/** A cache that is as it should be: two processes read and write what fits, with the near cache on, and wait for each other's lock. */

import { open, ready, repeat, role, start } from "./case.mjs";

const cache = open();
for (let i = 0; i < 500; i++) cache.set(`key ${i}`, { i }, { ttl: 60_000 });
repeat(() => {
  for (let i = 0; i < 500; i++) cache.get(`key ${(i * i) % 500}`);
  cache.set(`key ${Date.now() % 500}`, { now: true }, { ttl: 60_000 });
});
if (role === undefined) await start("other");
ready({});
