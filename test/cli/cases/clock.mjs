/** One process has a clock that is an hour behind. What it stores is expired for the others at once. */

import { open, ready, repeat, role, start } from "./case.mjs";

const HOUR = 3_600_000;
const cache = open(role === "behind" ? { now: () => Date.now() - HOUR } : {});
repeat(() => {
  cache.set(role === "behind" ? "session" : "page", "value", { ttl: 60_000 });
  cache.get("session");
});
const other = role === undefined ? await start("behind") : undefined;
ready({ pid: other?.pid });
