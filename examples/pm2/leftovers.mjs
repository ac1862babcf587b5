/**
 * What a run may leave behind, and how to remove it: the processes of its pm2, pm2's home, and the cache. The driver
 * asks at the end whether there is anything; the janitor removes it when the driver cannot.
 */

import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { destroyCache } from "cache-machine";

/** All that is left, as text for people; empty when it is clean. */
export function findLeftovers(home, cacheName) {
  const left = findProcesses(home).map((pid) => `process ${pid}`);
  if (existsSync(home)) left.push(home);
  return [...left, ...sharedMemory().filter((file) => file.includes(cacheName))];
}

/** Ends and removes all of it, gently or not. */
export function removeLeftovers(home, cacheName) {
  // The daemon is among them, and would start again whom it sees die: so until nobody is left, but not for ever.
  for (let tries = 0; tries < 100; tries++) {
    const pids = findProcesses(home);
    if (pids.length === 0) break;
    for (const pid of pids) kill(pid);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
  rmSync(home, { recursive: true, force: true });
  destroyCache(cacheName);
}

/** Processes that were started with this pm2 home: the daemon, the service, a client. Without /proc none are found. */
function findProcesses(home) {
  return list("/proc").filter((pid) => /^\d+$/.test(pid) && environmentOf(pid).includes(`PM2_HOME=${home}`));
}

function environmentOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
  } catch {
    // Another user's, or gone by now.
    return [];
  }
}

function sharedMemory() {
  return list("/dev/shm").map((file) => `/dev/shm/${file}`);
}

function list(directory) {
  return existsSync(directory) ? readdirSync(directory) : [];
}

function kill(pid) {
  try {
    process.kill(Number(pid), "SIGKILL");
  } catch {
    // Gone by now.
  }
}
