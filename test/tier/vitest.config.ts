import { defineConfig } from "vitest/config";
import base from "../../vitest.config.ts";

const { projects: _, ...test } = base.test ?? {};

/** All tests of the tier, with all libraries on all servers, also those that take too long for `npm test`: `npm run test:tier`. */
export default defineConfig({
  ...base,
  test: {
    ...test,
    include: ["test/{tier/*,adapters/tier}.test.ts"],
    testTimeout: 300_000,
    env: { ALL_SERVERS: "1" },
    maxWorkers: 2,
  },
});
