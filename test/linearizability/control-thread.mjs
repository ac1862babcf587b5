/**
 * A control: a thread that makes, copies and checks values like the participants, but never uses a cache. Its delays are caused by
 * the machine or by the process, and the delays of the participants are compared with them.
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
