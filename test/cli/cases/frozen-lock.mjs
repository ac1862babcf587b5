/** A process is stopped while it holds a lock, and another one waits for that lock. */

import { open, ready, role, start } from "./case.mjs";

const cache = open();
if (role === "holder") {
  cache.locks.request("report", () => {
    ready();
    return new Promise(() => {});
  });
  setInterval(() => {}, 1000);
} else {
  const holder = await start("holder");
  cache.locks.request("report", () => {});
  holder.kill("SIGSTOP");
  ready({ pid: holder.pid, lock: "report" });
}
