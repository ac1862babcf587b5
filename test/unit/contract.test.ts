/**
 * The generated numbers of `src/engine/contract.ts`: the committed module does what they say, the limits of TypeScript fit
 * them, and the bundles have them as numbers, not as variables.
 */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { checkAgreement } from "../../scripts/wasm/agreement.mjs";
import * as contract from "../../src/engine/contract.ts";
import { BYTES } from "../../src/near/slots.ts";
import { PAGE } from "../../src/size.ts";
import { KEY_LIMIT } from "../../src/values/key.ts";
import { scopeOf } from "../../src/values/scope.ts";
import { writeTags } from "../../src/values/tags.ts";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url));
const wasm = read("wasm/cache_machine.wasm");

test("the committed module agrees with the contract", () => {
  expect(() => checkAgreement(contract, wasm)).not.toThrow();
});

/**
 * Constants that the check cannot see from outside: sizes of parts that only TypeScript uses, limits, and what only happens under
 * load.
 */
const UNSEEN = new Set([
  "AREA_BYTES",
  "STACK_BYTES",
  "OUT_BYTES",
  "TAGS_BYTES",
  "VALUE_BYTES",
  "MAX_TAG",
  "MAX_TAG_NAME",
  "MAX_TAGS",
  "MAX_VISIBLE_TAGS",
  "MAX_KEY",
  "TAG_HIDDEN",
  "SEAT_BYTES",
  "SEAT_CLOCK",
  "CHUNKED",
  "BUSY",
  "COUNTER_EVICTIONS",
  "COUNTER_EXPIRATIONS",
  "COUNTER_RECLAIMS",
  "COUNTER_COMPACTIONS",
  "CLASS_MAIN",
  "CLASS_SHIFT",
  "PHASE_SEALED",
  "PHASE_RECLAIM",
  "SEGMENT_OWNER",
]);
/** By how much a number is changed; 1 where nothing else is said. A flag becomes another flag. */
const steps: Record<string, number> = { MAX_SIZE: contract.PAGE, CLAIM_WAIT: 2, CLAIM_STEAL: 4 };

test.each(Object.entries(contract).filter(([name]) => !UNSEEN.has(name)))(
  "a contract in which %s is not %d does not agree with the module",
  (name, value) => {
    const other = typeof value === "bigint" ? value + 1n : value + (steps[name] ?? 1);
    expect(() => checkAgreement({ ...contract, [name]: other }, wasm)).toThrow();
  },
);

describe("the limits of TypeScript fit those of the engine", () => {
  // The longest names of namespaces, in as many levels as there can be.
  const names = Array.from({ length: 16 }, (_, level) => "n".repeat(level === 0 ? 206 : 1));
  const scope = scopeOf(names);

  test("a longer name and one more level are refused", () => {
    expect(() => scopeOf([...names, "n"])).toThrow(RangeError);
    expect(() => scopeOf(["n".repeat(207), ...names.slice(1)])).toThrow(RangeError);
  });

  test("the longest key in the namespace with the longest prefix is not longer than MAX_KEY", () => {
    expect(scope.prefix.length + KEY_LIMIT).toBeLessThanOrEqual(contract.MAX_KEY);
  });

  test("the most and longest tags in the deepest namespace are not more than MAX_TAGS, not longer than MAX_TAG, and fit into TAGS_BYTES", () => {
    // Larger than needed, because a write behind the end of a Uint8Array does nothing.
    const area = new Uint8Array(2 * contract.TAGS_BYTES);
    const tags = Array.from({ length: contract.MAX_VISIBLE_TAGS }, (_, i) => `${i}`.padEnd(contract.MAX_TAG_NAME, "t"));
    writeTags(area, tags, scope.tagPrefix, scope.hidden);
    expect(area[0]).toBe(tags.length + scope.hidden.length);
    expect(area.findLastIndex((byte) => byte !== 0)).toBeLessThan(contract.TAGS_BYTES);
    expect(area.findLastIndex((byte) => byte !== 0)).toBeGreaterThan(tags.length * contract.MAX_TAG_NAME);
    expect(area[0]).toBeLessThanOrEqual(contract.MAX_TAGS);
    expect(scope.tagPrefix.length + contract.MAX_TAG_NAME).toBeLessThanOrEqual(contract.MAX_TAG);
    for (const hidden of scope.hidden) expect(hidden.length).toBeLessThanOrEqual(contract.MAX_TAG_NAME);
  });

  test("a slot of the near cache has one cold word for each word of a stamp, before the word that counts bytes", () => {
    expect(BYTES).toBe(contract.STAMP_WORDS);
  });

  test("a page of memory has the same size in TypeScript as in the engine", () => {
    expect(PAGE).toBe(contract.PAGE);
  });
});

test.each(["dist/index.js", "dist/browser.js"])("%s has the numbers in place of their names", (file) => {
  const bundle = read(file).toString();
  const numbers = Object.entries(contract).filter(([, value]) => typeof value === "number");
  expect(numbers.length).toBeGreaterThan(50);
  expect(numbers.map(([name]) => name).filter((name) => new RegExp(`[ ,]${name} = `).test(bundle))).toEqual([]);
});
