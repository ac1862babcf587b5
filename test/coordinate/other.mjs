/** A participant, as a process or a thread, that runs the functions which a test sends it: see others.ts. */
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { attachCache, openCache } from "cache-machine";

const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const send = (message) => (isMainThread ? process.send(message) : parentPort.postMessage(message));
// The kernel kills this process when its parent dies, but not if the parent had died before that was set.
if (isMainThread && process.ppid !== setup.parent) process.exit(1);

/** Stops at the call of the clock whose number is in the gate, until the gate is opened: see `startThread`. */
function now() {
  const [CALLS, STOPPED, OPEN] = [0, 1, 2];
  if (setup.gate && Atomics.sub(setup.gate, CALLS, 1) === 0) {
    Atomics.store(setup.gate, STOPPED, 1);
    Atomics.wait(setup.gate, OPEN, 0);
  }
  return Date.now();
}

const cache = setup.handle ? attachCache(setup.handle, { now }) : openCache(setup.name);
const plain = (error) => ({ name: error?.name, code: error?.code, message: String(error?.message ?? error) });

async function answer({ number, code, args }) {
  try {
    // biome-ignore lint/security/noGlobalEval: the code comes from the test.
    const result = await globalThis.eval(`(${code})`)(cache, ...args);
    send({ number, result });
  } catch (error) {
    send({ number, error: plain(error) });
  }
}

if (isMainThread) process.on("message", answer);
else parentPort.on("message", answer);
send({ ready: true });
