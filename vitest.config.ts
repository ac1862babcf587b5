import { readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";
import { constants } from "./scripts/constants.mjs";

// Tests compare the output of programs that they start. These variables would make Node.js and other programs print colours.
for (const name of ["FORCE_COLOR", "NO_COLOR", "COLORTERM", "CLICOLOR", "CLICOLOR_FORCE"]) delete process.env[name];

/** Files that may run beside each other: they measure nothing, and wait for nothing but what they have started. */
const TOGETHER = ["test/{adapters,contract,model,package,tier}/*.test.ts"];
/** All others. `npm run test:ecosystem` has a configuration and dependencies of its own. */
const ALONE = ["test/!(adapters|contract|model|package|tier|ecosystem)/*.test.ts"];
/**
 * What takes long: the tier with all client libraries on all servers, all orders of its races, its adapters, the simulated hosts, the
 * benchmark. `npm run test:tier` runs these.
 */
const SLOW = [
  "test/tier/{clients,libraries,store,server,server-races,owners,fire,bench}.test.ts",
  "test/adapters/tier.test.ts",
];
/** Files of the folders above that put a whole machine under load. */
const HEAVY = ["test/package/example-pm2.test.ts"];

/** Gives the sources the bytes of the engine, as esbuild does in dist/. */
const engineAsBytes = {
  name: "engine-as-bytes",
  enforce: "pre" as const,
  load(id: string) {
    if (!id.endsWith(".wasm")) return undefined;
    return `export default Buffer.from("${readFileSync(id, "base64")}", "base64");`;
  },
};

export default defineConfig({
  define: constants(),
  plugins: [engineAsBytes],
  test: {
    // The tests start real processes, on machines that may be busy: the limits are generous, but there are limits.
    testTimeout: 120_000,
    hookTimeout: 60_000,
    pool: "forks",
    projects: [
      {
        extends: true,
        test: {
          name: "together",
          include: TOGETHER,
          exclude: [...HEAVY, ...SLOW],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: "alone",
          include: [...ALONE, ...HEAVY],
          // One file at a time, because the crash tests need all processors.
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
