/**
 * A call that does not return: the JavaScript stack ends within it and its caller catches the error, or `node:vm`
 * terminates the script. At whatever depth that happens, no participant reads a wrong value, nothing stays held, and the
 * thread can go on. overflow-main.mjs tells what is checked.
 *
 * `OVERFLOW_SEED=7 npx vitest run test/host/overflow.test.ts` replays. `OVERFLOW_SHIFTS` is the number of depths, in words,
 * at which each operation is tried within one frame.
 */

import { fileURLToPath } from "node:url";
import { createCache } from "cache-machine";
import { afterAll, describe, expect, test } from "vitest";
import { AREA_BYTES, AREAS_AT, STACK_BYTES } from "../../src/engine/contract.ts";
import { nodeBinary, versions } from "../package/nodes.ts";
import { execute, Projects, root } from "../package/projects.ts";
import { KEYS, operationsOn } from "./overflow-uses.mjs";

const seed = Number(process.env.OVERFLOW_SEED ?? Math.floor(Math.random() * 1e9));
const shifts = Number(process.env.OVERFLOW_SHIFTS ?? 8);
console.log(`OVERFLOW_SEED=${seed} OVERFLOW_SHIFTS=${shifts}`);

const MAIN = fileURLToPath(new URL("overflow-main.mjs", import.meta.url));
const projects = new Projects("overflow");
afterAll(() => projects.remove());

/** Number of operations that are tried. Their functions are not called here, so they need no cache. */
const OPERATIONS = Object.keys(operationsOn({ namespace: () => ({}) })).length;

interface Result {
  overflows: number;
  count: number;
  operations: number;
  checks: number;
  participants: number;
}

async function sweep(binary: string, flags: readonly string[], plan: Record<string, unknown>): Promise<Result> {
  const name = `${projects.mark}-${plan.reach}`;
  const text = JSON.stringify({ name, seed, shifts, stackSizeMb: 0.5, ...plan });
  const { status, stdout, stderr } = await execute(binary, [...flags, MAIN, text], {
    cwd: root,
    timeoutMs: 240_000,
  });
  expect(status, stderr + stdout).toBe(0);
  const result = JSON.parse(stdout.trim().split("\n").at(-1) as string) as Result;
  console.log(flags.join(" "), plan.reach, plan.how ?? "", JSON.stringify(result));
  return result;
}

/** Compilers of V8: each gives the frames of a function another size. */
const TIERS: readonly (readonly [string, readonly string[]])[] = [
  ["V8 with its usual compilers", []],
  [
    "JavaScript interpreted, WebAssembly compiled by Liftoff",
    ["--no-opt", "--no-sparkplug", "--no-maglev", "--liftoff-only"],
  ],
  ["WebAssembly compiled by TurboFan at once", ["--always-sparkplug", "--no-liftoff"]],
];

describe.each(["threads", "processes"])("calls that do not return, reach %s", (reach) => {
  test.each(TIERS)(
    "operations that meet the end of the stack at any depth leave nothing held: %s",
    { timeout: 300_000 },
    async (_, flags) => {
      const { overflows, count, checks, operations, participants } = await sweep(process.execPath, flags, { reach });
      // Each descent meets the end of the stack at least in its last frame.
      expect(overflows).toBeGreaterThan(count);
      expect(checks).toBe(count * KEYS.length);
      expect(operations).toBeGreaterThan(0);
      expect(participants).toBe(1);
    },
  );

  test("a script that node:vm terminates in the middle of an operation leaves nothing held", {
    timeout: 300_000,
  }, async () => {
    const { count, checks } = await sweep(process.execPath, [], { reach, how: "terminate" });
    expect(count).toBe(shifts * OPERATIONS);
    expect(checks).toBe(count * KEYS.length);
  });
});

describe.runIf(versions.length > 0)("calls that do not return, in other versions of Node.js", () => {
  test.each(versions)(
    "operations that meet the end of the stack at any depth leave nothing held in Node.js %s",
    { timeout: 300_000 },
    async (version) => {
      const binary = await nodeBinary(version);
      for (const reach of ["threads", "processes"]) {
        const { overflows, count } = await sweep(binary, [], { reach });
        expect(overflows).toBeGreaterThan(count);
      }
    },
  );
});

test("the deepest call leaves most of the engine's own stack unused", () => {
  const cache = createCache({ size: "1mb" });
  try {
    const operations = Object.values(operationsOn(cache)) as ((n: number) => unknown)[];
    for (let n = 0; n < 200; n++) for (const operation of operations) operation(n);
    expect(cache.stats().reclaims).toBeGreaterThan(0);
    expect(cache.validate()).toBe(0);
    // `wasm/src/abi/area.rs`: the module's data, then an area for each thread with its stack at the end, which grows down.
    const { memory } = cache.handle as unknown as { memory: WebAssembly.Memory };
    const stack = new Uint8Array(memory.buffer, AREAS_AT + AREA_BYTES - STACK_BYTES, STACK_BYTES);
    const unused = stack.findIndex((byte) => byte !== 0);
    console.log(`of ${STACK_BYTES} bytes of stack ${stack.length - unused} were used`);
    expect(unused).toBeGreaterThan(STACK_BYTES / 2);
    expect(unused).toBeLessThan(stack.length);
  } finally {
    cache.close();
  }
});
