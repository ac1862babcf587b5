import { defineConfig } from "vitest/config";
import base from "../../vitest.config.ts";

const { projects: _, ...test } = base.test ?? {};

/** Other people's suites over the adapters, and applications of other frameworks: `npm run test:ecosystem`. */
export default defineConfig({
  ...base,
  test: { ...test, include: ["test/ecosystem/*.test.ts"], testTimeout: 300_000, fileParallelism: false },
});
