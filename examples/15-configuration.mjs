/**
 * Configuration for all processes: when one of them writes it, every process reloads it at once, without polling, messages or a
 * restart.
 *
 *     node examples/15-configuration.mjs
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { destroyCache, openCache } from "cache-machine";

const DEFAULTS = { theme: "light", items: 20 };

if (process.argv[2] === undefined) {
  const children = Array.from({ length: 3 }, () => fork(new URL(import.meta.url), ["child"]));
  const messages = () => Promise.all(children.map((child) => once(child, "message")));
  await messages();

  const reloaded = messages();
  children[0].send({ theme: "dark" });
  await reloaded;
  for (const child of children) child.disconnect();
  await Promise.all(children.map((child) => once(child, "exit")));
  destroyCache("example-configuration");
} else {
  const cache = openCache("example-configuration", { size: "1mb" });
  let configuration;
  const load = () => {
    // Without an entry, for example after an eviction, the defaults are what counts.
    configuration = { ...DEFAULTS, ...cache.get("configuration") };
    console.log(`process ${process.pid}: theme ${configuration.theme}, ${configuration.items} items`);
    process.send("loaded");
  };

  // The listener runs after each change; of changes that follow each other quickly it sees the last one. First watch, then load.
  cache.watch("configuration", load);
  load();

  process.on("message", (change) => {
    console.log(`process ${process.pid} writes ${JSON.stringify(change)}`);
    cache.update("configuration", (was) => ({ ...was, ...change }));
  });
}
