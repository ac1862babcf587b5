import { defineConfig } from "vitest/config";
import { constants } from "./scripts/constants.mjs";

export default defineConfig({
  define: constants(),
  test: {
    include: ["test/**/*.test.ts"],
    // Real processes on machines that others use too: generous limits, and never a test that waits for ever.
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // The crash tests need the processors for themselves.
    fileParallelism: false,
    pool: "forks",
  },
});
