/**
 * Runs bentocache's published suite for drivers over the driver that the argument names, and prints how many tests there were. It has
 * to be a program, because the suite is written for the runner japa.
 */
import { assert } from "@japa/assert";
import { configure, processCLIArgs, run, test } from "@japa/runner";
import { registerCacheDriverTestSuite } from "bentocache/test_suite";
import * as adapter from "../../dist/adapters/bentocache.js";
import { destroyCache } from "../../dist/index.js";

const [layer, name] = process.argv.slice(2);
const makeDriver = layer === "l1" ? adapter.cacheMachineDriver : adapter.cacheMachineL2Driver;

let passed = 0;
let failed = 0;
processCLIArgs([]);
configure({
  // japa takes tests only from a file that it imports itself.
  files: () => [new URL(import.meta.url)],
  importer: defineTests,
  plugins: [assert(), ({ emitter }) => emitter.on("test:end", ({ hasError }) => (hasError ? failed++ : passed++))],
});

function defineTests() {
  test.group(layer, (group) => {
    registerCacheDriverTestSuite({
      test,
      group,
      // Each driver opens the cache by its name, as in a program that uses bentocache.
      createDriver: ({ prefix = "suite" } = {}) => {
        const { options, factory } = makeDriver({ name, size: "1mb" });
        return factory({ ...options, prefix });
      },
      supportsMilliseconds: true,
    });
  });
}

process.on("exit", () => {
  destroyCache(name);
  console.log(`${layer}: ${passed} passed, ${failed} failed`);
});
await run();
