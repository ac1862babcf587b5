import { defineConfig } from "vitest/config";
import { constants } from "./scripts/constants.mjs";

export default defineConfig({
  define: constants(),
  test: {
    include: ["test/**/*.test.ts"],
    // The tests start real processes, on machines that may be busy: the limits are generous, but there are limits.
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // One file at a time, because the crash tests need all processors.
    fileParallelism: false,
    pool: "forks",
  },
});
