/**
 * What the prepared cases share. Each case is a program: `node test/cli/cases/<case>.mjs <directory>`. It prints one line of JSON
 * with what doctor has to name, as soon as the case stands, and lasts until SIGTERM or Ctrl-C. Its other processes end with it.
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { openCache } from "cache-machine";

/** The name of the cache of each case. */
export const NAME = "app";
const [, script, directory = "/dev/shm/cache-machine-case", role] = process.argv;

export { directory, role };

mkdirSync(directory, { recursive: true, mode: 0o700 });

const children = [];
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
// A stopped process only hears SIGKILL.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});
process.on("disconnect", () => process.exit(0));

export const open = (options) => openCache(NAME, { path: directory, size: "4 MiB", ...options });

/** Starts another process of the case, and waits until it says that it is ready. */
export async function start(as) {
  const child = fork(script, [directory, as]);
  children.push(child);
  await once(child, "message");
  return child;
}

/** Says that this process is ready: to the process that started it, or to whoever looks. */
export function ready(found) {
  if (process.send) process.send("ready");
  else console.log(JSON.stringify(found));
}

/** Repeats some work for as long as the process lives, without taking all of a processor. */
export function repeat(work) {
  setInterval(work, 5);
}
