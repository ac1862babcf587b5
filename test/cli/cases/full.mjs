/**
 * The directory is full: somebody else's file takes all the room that the cache has left. To try it by hand, in a shell of its own:
 *
 *     unshare -m sh -c 'mount -t tmpfs -o size=8m none /mnt && node test/cli/cases/full.mjs /mnt & sleep 1; npx cache-machine doctor --path /mnt'
 */

import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { directory, open, ready, repeat } from "./case.mjs";

const cache = open();
cache.set("key", "value");
const fd = openSync(join(directory, "core.dump"), "w");
try {
  for (const block = new Uint8Array(65_536); ; ) writeSync(fd, block);
} catch (error) {
  if (error.code !== "ENOSPC") throw error;
}
closeSync(fd);
repeat(() => cache.get("key"));
ready({ file: "core.dump" });
