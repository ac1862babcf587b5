/**
 * A thread that does what the others do, values made, copied and checked, but never touches a cache: what it is kept
 * waiting for is the machine's doing, or the process's, and the measure for what the others are kept waiting for.
 */
import { parentPort, workerData } from "node:worker_threads";
import { checkValue, generator, makeValue } from "../crash/checked-values.mjs";
import { Stalls } from "./stalls.mjs";

const { gate, batch, pauseMs, large } = workerData;
const stalls = new Stalls();
const random = generator(large);

parentPort.postMessage({ ready: true });
while (Atomics.load(gate, 0) === 0) {
  for (let i = 0; i < batch; i++) {
    const isLarge = random.below(6) === 0;
    const size = random.below(isLarge ? large : 1_000);
    const from = stalls.begin();
    const value = makeValue(0, "control", 0, i, size);
    const copy = Buffer.allocUnsafeSlow(value.length);
    value.copy(copy);
    checkValue("control", copy, 0);
    stalls.end(from, isLarge ? "control, large" : "control");
  }
  Atomics.wait(gate, 0, 0, pauseMs);
}
parentPort.postMessage({ report: stalls.report });
