/**
 * A cache that survives a reboot: one process fills it and exports it, the memory is lost, and the next process begins with what was
 * there.
 *
 *     node examples/19-snapshot.mjs
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { destroyCache, exportCache, importCache, openCache } from "cache-machine";

const NAME = "example-snapshot";
const folder = mkdtempSync(join(tmpdir(), "example-snapshot-"));
const file = join(folder, "cache.snapshot");

/** What an application does at its start. */
async function start() {
  const cache = openCache(NAME, { size: "16mb" });
  try {
    const { entries, damaged, truncated } = await importCache(cache, file, { maxAge: 3_600_000 });
    console.log(`started with ${entries} entries, ${damaged} damaged blocks, ${truncated ? "cut off" : "complete"}`);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    console.log("started without a snapshot");
  }
  return cache;
}

const before = await start();
for (let i = 0; i < 10_000; i++)
  before.set(`user ${i}`, { id: i, name: `User ${i}` }, { ttl: 600_000, tags: ["users"] });
before.rateLimit("client", { limit: 10, window: 600_000 });
const { entries, bytes } = await exportCache(before, file);
console.log(`exported ${entries} entries in ${(bytes / 1e6).toFixed(1)} MB`);
before.close();
// The reboot.
destroyCache(NAME);

const after = await start();
console.log(after.get("user 7").name, `${Math.round(after.ttl("user 7") / 60_000)} minutes left`);
console.log("requests left:", after.rateLimit("client", { limit: 10, window: 600_000 }).remaining);
after.invalidateTag("users");
console.log("after invalidateTag:", after.get("user 7"));
after.close();
destroyCache(NAME);
rmSync(folder, { recursive: true });
