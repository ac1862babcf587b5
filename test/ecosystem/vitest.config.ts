import { defineConfig, mergeConfig } from "vitest/config";
import base from "../../vitest.config.ts";

/** Other people's suites over the adapters, and applications of other frameworks: `npm run test:ecosystem`. */
const config = mergeConfig(base, { test: { testTimeout: 300_000 } });
config.test.include = ["test/ecosystem/*.test.ts"];
config.test.exclude = ["**/node_modules/**"];
export default defineConfig(config);
