/**
 * A participant of a crash test, as a process or a thread. A writer works until it is killed. A survivor works until it is told to
 * stop, and then sends its report.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { attachCache, openCache } from "cache-machine";
import { Actor, explain } from "./actor.mjs";
import { Journal, mapJournal } from "./journal.mjs";

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const { name, handle, journal, survivor, batch = 200, pauseMs = 0 } = setup;
const port = isMainThread ? process : parentPort;
const send = (message) => (isMainThread ? process.send(message) : port.postMessage(message));

const options = { now: Actor.clock.now };
const cache = handle ? attachCache(handle, options) : openCache(name, options);
const memory = typeof journal === "string" ? mapJournal(journal) : journal;
const actor = new Actor(cache, new Journal(memory), setup);

if (isMainThread) {
  // Ctrl-C is for the parent process, which ends its participants itself.
  process.on("SIGINT", () => {});
  // The kernel kills this process when its parent dies, but not if the parent had died before that was set.
  if (process.ppid !== setup.parent) process.exit(1);
}

let stopped = false;
if (survivor) port.on("message", () => (stopped = true));

function work() {
  try {
    if (stopped) {
      cache.close();
      send({ report: actor.report, stalls: actor.stalls.report, busyStep: actor.busyStep });
      if (isMainThread) process.disconnect();
      else parentPort.close();
      return;
    }
    actor.steps(batch);
    if (pauseMs > 0) setTimeout(work, pauseMs);
    else setImmediate(work);
  } catch (error) {
    console.error(explain(error));
    process.exit(1);
  }
}

try {
  actor.inherit();
  if (survivor) send({ ready: true });
  work();
} catch (error) {
  console.error(explain(error));
  process.exit(1);
}
