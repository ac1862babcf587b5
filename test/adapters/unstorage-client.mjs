/** A process with a storage over the driver: see unstorage.test.ts. It calls methods of the storage, and answers with the results. */

import driver from "cache-machine/unstorage";
import { createStorage } from "unstorage";

const { name, parent } = JSON.parse(process.argv[2]);
// The kernel kills this process when its parent dies, but not if the parent had died before that was set.
if (process.ppid !== parent) process.exit(1);

const storage = createStorage({ driver: driver({ name, ttl: 600 }) });
process.on("message", async ({ number, method, args }) => {
  try {
    process.send({ number, result: await storage[method](...args) });
  } catch (error) {
    process.send({ number, error: String(error) });
  }
});
process.send({ ready: true });
