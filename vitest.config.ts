import { defineConfig } from "vitest/config";
import { constants } from "./scripts/constants.mjs";

// Tests compare the output of programs that they start. These variables would make Node.js and other programs print colours.
for (const name of ["FORCE_COLOR", "NO_COLOR", "COLORTERM", "CLICOLOR", "CLICOLOR_FORCE"]) delete process.env[name];

export default defineConfig({
  define: constants(),
  test: {
    include: ["test/**/*.test.ts"],
    // `npm run test:ecosystem` has a configuration and dependencies of its own.
    exclude: ["test/ecosystem/**", "**/node_modules/**"],
    // The tests start real processes, on machines that may be busy: the limits are generous, but there are limits.
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // One file at a time, because the crash tests need all processors.
    fileParallelism: false,
    pool: "forks",
  },
});
