/**
 * One process of a host: does what run.mjs asks it to do, through the contender that it was started with.
 *
 *     node participant.mjs <JSON: { contender, options }>
 *
 * Messages: `{ id, task, args }`, see `TASKS`; the answer is `{ id, result }` or `{ id, error }`.
 */

import { readFileSync } from "node:fs";
import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { random } from "../random.mjs";
import { CONTENDERS } from "./contenders.mjs";
import { keyAt, LAGS, machineTime } from "./staleness.mjs";
import { keyOf, VALUES } from "./values.mjs";

const { contender, options } = JSON.parse(process.argv[2]);
const cache = await CONTENDERS[contender].open(options);

/** Requests that a process serves at the same time. */
const CONCURRENCY = 8;
/** Values that a request reads one after another. Then the event loop turns, as it does between requests. */
const BATCH = 10;
/** Reads of a watcher that may be unanswered at the same time. */
const MAX_UNANSWERED = 256;

/** Writes the values of the numbers from `from` to before `to`. */
async function fill({ from, to, kind }) {
  for (let i = from; i < to; i += 100) {
    const numbers = Array.from({ length: Math.min(100, to - i) }, (_, j) => i + j);
    await Promise.all(numbers.map((number) => cache.write(keyOf(number), VALUES[kind].make(number))));
  }
}

/** The operations of this process: the same sequence for the same arguments, whoever executes it. */
function sequence({ orderFile, place, writes, kind }) {
  const file = readFileSync(orderFile);
  const order = new Uint32Array(file.buffer, file.byteOffset, file.byteLength / 4);
  const mask = order.length - 1;
  const next = random(1000 + place);
  const values = Array.from({ length: 256 }, (_, i) => VALUES[kind].make(i * 31 + place));
  let at = Math.floor((order.length / 16) * place);
  const counts = { reads: 0, writes: 0, missing: 0, failed: 0 };
  const operate = async () => {
    const key = keyOf(order[at++ & mask]);
    try {
      if (next() < writes) {
        counts.writes++;
        await cache.write(key, values[at & 255]);
      } else {
        counts.reads++;
        if ((await cache.read(key)) === undefined) counts.missing++;
      }
    } catch (error) {
      counts.failed++;
      counts.error ??= String(error);
    }
  };
  return { operate, counts };
}

/** Operates as fast as it can, for `seconds` or that many `operations`. */
async function run({ seconds = 3600, operations = Number.POSITIVE_INFINITY, ...rest }) {
  const { operate, counts } = sequence(rest);
  let left = operations;
  let isOver = false;
  const timer = setTimeout(() => (isOver = true), seconds * 1000);
  const since = performance.now();
  const cpu = process.cpuUsage();
  const serve = async () => {
    while (!isOver && left > 0) {
      for (let i = 0; i < BATCH && left > 0; i++) {
        left--;
        await operate();
      }
      await turn();
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, serve));
  clearTimeout(timer);
  const { user, system } = process.cpuUsage(cpu);
  return { ...counts, ms: performance.now() - since, cpu: user + system };
}

/** Operates at a fixed pace, whether or not what was begun is answered. */
async function pace({ operations, perSecond, ...rest }) {
  const { operate, counts } = sequence(rest);
  const running = new Set();
  const since = performance.now();
  for (let begun = 0; begun < operations; ) {
    const due = Math.min(operations, Math.floor(((performance.now() - since) / 1000) * perSecond));
    for (; begun < due; begun++) {
      const one = operate().finally(() => running.delete(one));
      running.add(one);
    }
    await sleep(2);
  }
  await Promise.all(running);
  return { ...counts, ms: performance.now() - since };
}

/** Writes the numbers from `from` to before `to`, number n under the key of n at `since + n * period`: `[n, begun, acknowledged]` each. */
async function write({ since, period, from, to }) {
  const records = [];
  const running = new Set();
  for (let n = from; n < to; n++) {
    await sleep(Math.max(0, since + n * period - machineTime()));
    const record = [n, machineTime(), Number.NaN];
    records.push(record);
    const acknowledged = () => (record[2] = machineTime());
    const one = cache.write(keyAt(n), { n }).then(acknowledged, () => {});
    running.add(one);
    one.finally(() => running.delete(one));
  }
  await Promise.race([Promise.all(running), sleep(5000)]);
  return records;
}

/** Reads the keys of {@link write} until `until`, soon after they are written and later: what it saw when, as columns. */
async function watch({ since, period, until }) {
  const seen = [];
  const result = { failed: 0, missing: 0, longest: 0, skipped: 0, unanswered: 0 };
  let unanswered = 0;
  const read = async (n) => {
    if (unanswered >= MAX_UNANSWERED) {
      result.skipped++;
      return;
    }
    unanswered++;
    const begun = machineTime();
    try {
      const value = await cache.read(keyAt(n));
      if (value === undefined) result.missing++;
      else seen.push(n, value.n, begun, machineTime());
    } catch {
      result.failed++;
    }
    unanswered--;
    result.longest = Math.max(result.longest, machineTime() - begun);
  };
  for (let i = 0; machineTime() < until; i++) {
    const current = Math.floor((machineTime() - since) / period);
    read(current);
    read(current - LAGS[i % LAGS.length]);
    await sleep(1);
  }
  await sleep(20);
  return { ...result, unanswered, seen: Float64Array.from(seen) };
}

/** Reads all keys of {@link write} once: the numbers, NaN where the answer is not there within a second. */
async function sweep({ from, to }) {
  const one = async (n) => {
    const late = sleep(1000);
    const value = await Promise.race([cache.read(keyAt(n)).catch(() => undefined), late]);
    return value?.n ?? Number.NaN;
  };
  return Promise.all(Array.from({ length: to - from }, (_, i) => one(from + i)));
}

/** Waits until the contender works as it does in peace. */
async function settle() {
  for (let i = 0; i < 200 && cache.isReady !== undefined && !cache.isReady(); i++) await sleep(50);
  if (cache.isReady !== undefined && !cache.isReady()) throw new Error(`${contender} is not ready after 10 s`);
}

const TASKS = { fill, run, pace, write, watch, sweep, settle, owner: () => cache.owner?.() };

process.on("message", async ({ id, task, args }) => {
  try {
    process.send({ id, result: await TASKS[task](args) });
  } catch (error) {
    process.send({ id, error: String(error?.stack ?? error) });
  }
});
process.on("disconnect", () => process.exit());
process.send({ ready: true });
