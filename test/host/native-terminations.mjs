/**
 * Terminates threads while they open their first cache. Runs as a process of its own, because its own end is checked too.
 * `node native-terminations.mjs '{"name": …}'` prints, as JSON, how many threads were terminated in each state.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { destroyCache, openCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";

const GUEST = fileURLToPath(new URL("native-guest.cjs", import.meta.url));
const [STATE, GO, SLOWEST_MS] = [0, 1, 6];

/** `exits`: this process ends in the middle of the first round, with the other threads at work. */
const { name, seed, times, width = 3, exits = false } = JSON.parse(process.argv[2]);
// Ctrl-C is meant for the process that started this one.
process.on("SIGINT", () => {});
const random = generator(seed);
const cache = openCache(name, { size: "1mb" });
const states = Array.from({ length: 7 }, () => 0);
let failed;

function start(i) {
  const words = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(GUEST, { workerData: { words, names: [name, `${name}-${i}`] }, stderr: true });
  worker.once("error", (error) => (failed ??= error));
  return { words, worker };
}

function spin(ms) {
  for (const until = performance.now() + ms; performance.now() < until; );
}

for (let done = 0; done < times && failed === undefined; done += width) {
  const guests = Array.from({ length: width }, (_, i) => start(i));
  for (const { words } of guests) {
    if (Atomics.wait(words, STATE, 0, 30_000) === "timed-out") throw new Error("a guest does not start");
  }
  const ends = guests.map(({ words, worker }) => {
    Atomics.store(words, GO, 1);
    Atomics.notify(words, GO);
    Atomics.wait(words, STATE, 1);
    // Short times more often: most of what can be interrupted happens early.
    spin(random.random() ** 2 * SLOWEST_MS);
    if (exits && random.below(width) === 0) process.exit(7);
    states[Atomics.load(words, STATE)]++;
    return worker.terminate();
  });
  await Promise.all(ends);
}
if (failed !== undefined) throw failed;
if (exits) process.exit(7);
for (let i = 0; i < width; i++) destroyCache(`${name}-${i}`);
const { participants } = cache.stats();
const broken = cache.validate();
cache.close();
destroyCache(name);
console.log(JSON.stringify({ states, participants, broken }));
