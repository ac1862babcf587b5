/**
 * Compares a cache with a model, a plain Map, over random sequences of operations. They contain every operation of the
 * interface with all its options. Several participants, which opened the cache with different options, take turns. The clock
 * moves only when an operation moves it. A sequence that fails is shrunk to a few operations, and the error says how to
 * repeat it.
 *
 * `MODEL_SEED` chooses other sequences, `MODEL_RUNS` how many. `MODEL_PATH`, with the title of the test in `-t`, goes straight
 * to a failure.
 */

import { deserialize, serialize } from "node:v8";
import type { Codec } from "cache-machine";
import * as everything from "cache-machine";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkRead, FILL, OPERATIONS, type Step, steps, type Turn } from "./operations.ts";
import { NAMESPACES } from "./values.ts";
import { type Configuration, PARTICIPANTS, World } from "./world.ts";

const SEED = Number(process.env.MODEL_SEED ?? 20_261_122);
const RUNS = process.env.MODEL_RUNS === undefined ? undefined : Number(process.env.MODEL_RUNS);
const PATH = process.env.MODEL_PATH;
/** The time limit of a test, shrinking included. A test that reaches it fails. */
const WATCHDOG_MS = 90_000 + (RUNS ?? 0) * 200;
console.log(`model: MODEL_SEED=${SEED}`);

// The hashes of keys and tags depend on a random seed of the cache. With a fixed seed, each run has the same collisions.
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

/**
 * Replays a sequence on a new cache. Throws at the first wrong answer, and names the operation.
 * @param attentive - whether all participants read the keys of each operation after it.
 * @param used - takes the names of the members of `Cache` that are used.
 */
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
        run(world, step, serial, attentive);
      } catch (error) {
        throw new Error(`operation ${serial}, ${step.op}: ${(error as Error).message}`, { cause: error });
      }
    }
    for (const path of [[], ...NAMESPACES]) {
      for (let participant = 0; participant < PARTICIPANTS; participant++) {
        for (const { key } of world.model.live(path)) checkKey(world, participant, path, key);
        run(world, { op: "walk", participant, path, walk: "entries" } as Step, all.length, false);
      }
    }
    expect(world.participants[0]?.cache.validate(), "validate").toBe(0);
    return world;
  } finally {
    world.close();
  }
}

/** Runs one operation of a sequence. */
function run(world: World, step: Step, serial: number, attentive: boolean): void {
  const operation = step.op === "fill" ? FILL : OPERATIONS[step.op];
  const turn = turnOf(world, step.participant, step.path, serial);
  const { key, keys = [], path } = step;
  operation?.run(turn, step);
  if (!attentive) return;
  for (const each of key === undefined ? keys : [key]) {
    for (let participant = 0; participant < PARTICIPANTS; participant++) checkKey(world, participant, path, each);
  }
}

function turnOf(world: World, number: number, path: readonly string[], serial: number): Turn {
  const participant = world.participants[number] as Turn["participant"];
  return { world, model: world.model, participant, path, cache: world.view(participant, path), serial };
}

function checkKey(world: World, participant: number, path: readonly string[], key: everything.Key): void {
  const turn = turnOf(world, participant, path, 0);
  checkRead(turn, key, turn.cache.get(key), `get by participant ${participant} after it`);
}

/**
 * Draws sequences and replays them. Throws for a sequence that fails, after shrinking it.
 * @returns how many entries were missed although they had not expired.
 */
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
    const what = `${all.length} operations${attentive ? ", each followed by reads of its keys" : ""}; repeat with: ${again}`;
    const listed = all.map((step) => `  ${fc.stringify(step)}`).join("\n");
    throw new Error(`${message}\n${what}\n${listed}`, { cause: report.errorInstance });
  }
  if (report.failed) throw new Error(`the test reached its time limit after ${report.numRuns} runs`);
  return forgotten;
}

/** A codec of the user: the serializer of `node:v8`. */
const codec: Codec = {
  encode: (value) => serialize([value]),
  decode: (bytes) => deserialize(bytes)[0],
};

const MIB = 1 << 20;
const TIMEOUT = WATCHDOG_MS + 30_000;

describe.each(["threads", "processes"] as const)("a cache of reach %s", (reach) => {
  test("a cache that holds all entries answers like the model", { timeout: TIMEOUT }, () => {
    check({ reach, size: 4 * MIB, lossy: false }, 130, 80);
  });

  test("a cache whose participants share one seat answers like the model", { timeout: TIMEOUT }, () => {
    check({ reach, size: 4 * MIB, lossy: false, together: true }, 100, 80);
  });

  test("a cache that evicts entries answers like the model or misses, and some entries are missed", {
    timeout: TIMEOUT,
  }, () => {
    const forgotten = check({ reach, size: MIB, lossy: true }, 60, 60);
    if (PATH === undefined) expect(forgotten).toBeGreaterThan(RUNS ?? 60);
  });
});

test("a cache with a codec of the user answers like the model", { timeout: TIMEOUT }, () => {
  check({ reach: "threads", size: 4 * MIB, lossy: false, codec }, 60, 80);
});

/**
 * Members that answer later, by a promise or by calling a listener: src/testing/load-checks.ts and src/testing/coordination-checks.ts have their promises. And
 * `helped`, which only tests use.
 */
const LATER = ["getOrSet", "getOrSetMany", "memoize", "waitFor", "watch", "watchTag", "locks", "helped"];

test("every member of Cache that answers at once is used by an operation of the model", () => {
  const used = new Set<PropertyKey>();
  const [all = []] = fc.sample(
    steps(OPERATIONS, 3000).filter((each) => each.length > 1500),
    { seed: 1, numRuns: 1 },
  );
  expect(new Set(all.map(({ op }) => op))).toEqual(new Set(Object.keys(OPERATIONS)));
  replay({ reach: "threads", size: 16 * MIB, lossy: false }, all, false, used);
  const cache = everything.createCache({ size: MIB });
  const members = Reflect.ownKeys(Object.getPrototypeOf(cache)).filter((name) => name !== "constructor");
  cache.close();
  expect(members.filter((name) => !used.has(name) && !LATER.includes(String(name)))).toEqual([]);
  // Other tests cover `get` and `set` of the application's own cache, and `CacheError`.
  expect(Object.keys(everything).sort()).toEqual(
    [
      ...["CacheError", "attachCache", "createCache", "destroyCache", "exportCache", "get", "importCache", "openCache"],
      ...["rateLimitHeaders", "set"],
    ].sort(),
  );
});
