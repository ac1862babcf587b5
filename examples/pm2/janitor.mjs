/**
 * Cleans up after the driver has ended, also if the driver was killed with -9. The janitor is a process of its own, which Ctrl-C does
 * not reach. It learns of the driver's end from the end of its input. It kills a driver that takes far too long.
 *
 * Arguments: the home of pm2, the name of the cache, and the time limit of the driver in seconds.
 */

import { removeLeftovers } from "./leftovers.mjs";

const [home, cacheName, seconds] = process.argv.slice(2);
const driver = process.ppid;

setTimeout(() => process.kill(driver, "SIGKILL"), Number(seconds) * 1000).unref();
process.stdin.resume().on("end", () => removeLeftovers(home, cacheName));
