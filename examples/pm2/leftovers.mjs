/**
 * Finds and removes what a run may leave behind: the processes of its pm2, pm2's home, and the cache. The driver checks at its end
 * that nothing is left. The janitor removes what is left if the driver cannot.
 */

import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { destroyCache } from "cache-machine";

/** Number of checks whether a process has ended, and the pause between two of them. */
const TRIES = 100;
const PAUSE_MS = 20;

/** Everything that is left, as readable text; empty if nothing is. */
export async function findLeftovers(home, cacheName) {
  let pids = findProcesses(home);
  for (let tries = 0; tries < TRIES && pids.length > 0; tries++) {
    await sleep(PAUSE_MS);
    pids = findProcesses(home);
  }
  const files = [home, ...findMemory(cacheName)];
  return [...pids.map((pid) => `process ${pid}`), ...files.filter((file) => existsSync(resolve("/dev/shm", file)))];
}

/** Ends all processes, and removes all files and the cache. */
export async function removeLeftovers(home, cacheName) {
  // pm2's daemon, which is among them, restarts processes until it is dead itself.
  for (let tries = 0; tries < TRIES; tries++) {
    const pids = findProcesses(home);
    if (pids.length === 0) break;
    for (const pid of pids) kill(pid);
    await sleep(PAUSE_MS);
  }
  rmSync(home, { recursive: true, force: true });
  await removeMemory(cacheName);
}

/**
 * Destroys the cache. A process that is just ending may still have its bell open, the FIFO by which others wake it. Then the name of
 * that bell stays, and is removed when the cache is destroyed again.
 */
export async function removeMemory(cacheName) {
  for (let tries = 0; tries < TRIES; tries++) {
    destroyCache(cacheName);
    if (findMemory(cacheName).length === 0) break;
    await sleep(PAUSE_MS);
  }
}

/** The files of the cache in shared memory. */
function findMemory(cacheName) {
  return list("/dev/shm").filter((file) => file.includes(cacheName));
}

/** Processes that were started with this pm2 home: the daemon, the service, a client. Without /proc none are found. */
function findProcesses(home) {
  return list("/proc").filter((pid) => /^\d+$/.test(pid) && environmentOf(pid).includes(`PM2_HOME=${home}`));
}

function environmentOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0");
  } catch {
    // The process belongs to another user, or has ended.
    return [];
  }
}

function list(directory) {
  return existsSync(directory) ? readdirSync(directory) : [];
}

function kill(pid) {
  try {
    process.kill(Number(pid), "SIGKILL");
  } catch {
    // The process has ended.
  }
}
