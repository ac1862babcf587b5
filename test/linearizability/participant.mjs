/**
 * A participant of a test of linearizability, as a process or a thread. It works until the log says stop, or until it is killed.
 */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { attachCache, openCache } from "cache-machine";
import { Violation } from "../crash/checked-values.mjs";
import { mapJournal } from "../crash/journal.mjs";
import { RecordingActor } from "./actor.mjs";
import { Log, pagesOf } from "./recorder.mjs";

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const { name, handle, survivor, batch, pauseMs, capacity, near } = setup;
const send = (message) => (isMainThread ? process.send(message) : parentPort.postMessage(message));

if (isMainThread) {
  // Ctrl-C is for the parent process, which ends its participants itself.
  process.on("SIGINT", () => {});
  // The kernel kills this process when its parent dies, but not if the parent had died before that was set.
  if (process.ppid !== setup.parent) process.exit(1);
}

try {
  const options = near ? undefined : { nearCache: 0 };
  const cache = handle ? attachCache(handle, options) : openCache(name, options);
  const memory = typeof setup.log === "string" ? mapJournal(setup.log, pagesOf(capacity)) : setup.log;
  const log = new Log(memory, capacity);
  const actor = new RecordingActor(cache, log, setup);
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  if (survivor) send({ ready: true });
  while (!log.stopped) {
    actor.steps(batch);
    Atomics.wait(sleeper, 0, 0, pauseMs);
  }
  cache.close();
  if (survivor) send({ report: { ...actor.report, ...actor.stalls.report } });
  if (isMainThread) process.disconnect?.();
} catch (error) {
  console.error(error instanceof Violation ? `violation: ${error.message}` : `${error?.stack ?? error}`);
  process.exit(1);
}
