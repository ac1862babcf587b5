/** A process is stopped in the middle of a large value. It is let go and stopped again until it is met there. */

import { readFileSync } from "node:fs";
import { open, ready, repeat, role, start } from "./case.mjs";

const cache = open({ size: "32 MiB" });
if (role === "writer") {
  ready();
  for (const value = new Uint8Array(3_000_000); ; ) cache.set("large", value);
} else {
  const { Spectator, listCaches } = await import("../../../dist/inspect.js");
  const { directory, NAME } = await import("./case.mjs");
  const writer = await start("writer");
  cache.set("small", 1);
  const { path } = listCaches(directory).find(({ name }) => name === NAME);
  const spectator = Spectator.open(path);
  const isStopped = () => /^State:\s+T/m.test(readFileSync(`/proc/${writer.pid}/status`, "latin1"));
  for (;;) {
    writer.kill("SIGSTOP");
    while (!isStopped()) await new Promise(setImmediate);
    if (spectator.participants().some(({ pid, writing }) => pid === writer.pid && writing)) break;
    writer.kill("SIGCONT");
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
  }
  repeat(() => cache.get("small"));
  ready({ pid: writer.pid });
}
