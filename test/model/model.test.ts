/**
 * Sequences of operations against a plain map: every operation of the interface with all its options, by participants
 * that differ in how they opened the cache, with a clock that moves by hand. A failure is shrunk to a few operations and
 * says how to repeat it.
 *
 * `MODEL_SEED` and `MODEL_RUNS` choose other sequences and how many; `MODEL_PATH`, with the name of the test in `-t`,
 * goes straight to a failure.
 */

import { deserialize, serialize } from "node:v8";
import type { Codec } from "cache-machine";
import * as everything from "cache-machine";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkRead, FILL, OPERATIONS, type Step, steps, type Turn } from "./operations.ts";
import { type Configuration, SIDES, World } from "./world.ts";

const SEED = Number(process.env.MODEL_SEED ?? 20_261_122);
const RUNS = process.env.MODEL_RUNS === undefined ? undefined : Number(process.env.MODEL_RUNS);
const PATH = process.env.MODEL_PATH;
/** Also bounds what shrinking takes; a run that it cuts off fails. */
const WATCHDOG_MS = 90_000 + (RUNS ?? 0) * 200;
console.log(`model: MODEL_SEED=${SEED}`);

// Where keys and tags meet in the index depends on a seed; with a fixed one each run is the same.
const original = crypto.getRandomValues;
beforeAll(() => {
  crypto.getRandomValues = (array) => {
    if (array instanceof Uint32Array) array.fill(SEED);
    return array;
  };
});
afterAll(() => {
  crypto.getRandomValues = original;
});

/** Replays operations on a new cache; what is wrong throws and names the operation. */
function replay(
  configuration: Configuration,
  all: readonly Step[],
  attentive: boolean,
  used?: Set<PropertyKey>,
): World {
  const world = new World(configuration, used);
  try {
    for (const [serial, step] of all.entries()) {
      try {
        take(world, step, serial, attentive);
      } catch (error) {
        throw new Error(`operation ${serial}, ${step.op}: ${(error as Error).message}`, { cause: error });
      }
    }
    for (const path of [[], ["n"], ["n", "m"], ["nm"], ["m"]]) {
      for (let side = 0; side < SIDES; side++) {
        for (const { key } of world.model.live(path)) checkKey(world, side, path, key);
        take(world, { op: "walk", side, path, walk: "entries" } as Step, all.length, false);
      }
    }
    expect(world.sides[0]?.cache.validate(), "validate").toBe(0);
    return world;
  } finally {
    world.close();
  }
}

function take(world: World, step: Step, serial: number, attentive: boolean): void {
  const operation = step.op === "fill" ? FILL : OPERATIONS[step.op];
  const turn = turnOf(world, step.side, step.path, serial);
  const { key, keys = [], path } = step;
  operation?.run(turn, step);
  if (!attentive) return;
  for (const each of key === undefined ? keys : [key]) {
    for (let side = 0; side < SIDES; side++) checkKey(world, side, path, each);
  }
}

function turnOf(world: World, number: number, path: readonly string[], serial: number): Turn {
  const side = world.sides[number] as Turn["side"];
  return { world, model: world.model, side, path, cache: world.view(side, path), serial };
}

function checkKey(world: World, side: number, path: readonly string[], key: everything.Key): void {
  const turn = turnOf(world, side, path, 0);
  checkRead(turn, key, turn.cache.get(key), `get by participant ${side} after it`);
}

/** Draws sequences and replays them. */
function check(configuration: Configuration, runs: number, maxLength: number): number {
  const operations = configuration.lossy ? { ...OPERATIONS, fill: FILL } : OPERATIONS;
  let forgotten = 0;
  const property = fc.property(steps(operations, maxLength), fc.boolean(), (all, attentive) => {
    forgotten += replay(configuration, all, attentive).model.forgotten;
  });
  const report = fc.check(property, {
    seed: SEED,
    numRuns: RUNS ?? runs,
    ...(PATH !== undefined && { path: PATH, endOnFailure: true }),
    interruptAfterTimeLimit: WATCHDOG_MS,
    markInterruptAsFailure: true,
  });
  if (report.counterexample !== null) {
    const [all, attentive] = report.counterexample;
    const { message } = report.errorInstance as Error;
    const again = `MODEL_SEED=${SEED} MODEL_PATH=${report.counterexamplePath}`;
    const what = `${all.length} operations${attentive ? ", each followed by a look at its keys" : ""}; again: ${again}`;
    const listed = all.map((step) => `  ${fc.stringify(step)}`).join("\n");
    throw new Error(`${message}\n${what}\n${listed}`, { cause: report.errorInstance });
  }
  if (report.failed) throw new Error(`the time limit cut the test off after ${report.numRuns} runs`);
  return forgotten;
}

/** Keeps what `node:v8` keeps, as a codec of the user's own. */
const codec: Codec = {
  encode: (value) => serialize([value]),
  decode: (bytes) => deserialize(bytes)[0],
};

const MIB = 1 << 20;
const TIMEOUT = WATCHDOG_MS + 30_000;

describe.each(["threads", "processes"] as const)("operations by participants of reach %s", (reach) => {
  test("find everything in a cache that holds all of it", { timeout: TIMEOUT }, () => {
    check({ reach, size: 4 * MIB, lossy: false }, 130, 80);
  });

  test("find everything where the participants have one seat", { timeout: TIMEOUT }, () => {
    check({ reach, size: 4 * MIB, lossy: false, together: true }, 100, 80);
  });

  test("find nothing wrong in a cache that holds some of it, and some is forgotten", { timeout: TIMEOUT }, () => {
    const forgotten = check({ reach, size: MIB, lossy: true }, 60, 60);
    if (PATH === undefined) expect(forgotten).toBeGreaterThan(RUNS ?? 60);
  });
});

test("operations find everything as a codec of the user's own keeps it", { timeout: TIMEOUT }, () => {
  check({ reach: "threads", size: 4 * MIB, lossy: false, codec }, 60, 80);
});

test("every member of the interface has an operation", () => {
  const used = new Set<PropertyKey>();
  const [all = []] = fc.sample(
    steps(OPERATIONS, 3000).filter((each) => each.length > 1500),
    { seed: 1, numRuns: 1 },
  );
  expect(new Set(all.map(({ op }) => op))).toEqual(new Set(Object.keys(OPERATIONS)));
  replay({ reach: "threads", size: 8 * MIB, lossy: false }, all, false, used);
  const cache = everything.createCache({ size: MIB });
  const members = Reflect.ownKeys(Object.getPrototypeOf(cache)).filter((name) => name !== "constructor");
  cache.close();
  expect(members.filter((name) => !used.has(name))).toEqual([]);
  // `get` and `set` of the application's own cache, and errors, are looked at elsewhere.
  expect(Object.keys(everything).sort()).toEqual(
    ["CacheError", "attachCache", "createCache", "destroyCache", "get", "openCache", "set"].sort(),
  );
});
