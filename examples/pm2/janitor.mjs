/**
 * Cleans up when the driver is gone, however it went: killed with -9 too. It is a process of its own, out of reach of
 * Ctrl-C, and knows that the driver has ended by the end of its input. A driver that takes far too long it ends itself.
 *
 * Arguments: the home of pm2, the name of the cache, and how many seconds the driver may take.
 */

import { removeLeftovers } from "./leftovers.mjs";

const [home, cacheName, seconds] = process.argv.slice(2);
const driver = process.ppid;

setTimeout(() => process.kill(driver, "SIGKILL"), Number(seconds) * 1000).unref();
process.stdin.resume().on("end", () => removeLeftovers(home, cacheName));
