/** bentocache's published suite for drivers (`bentocache/test_suite`), over both drivers. */

import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { execute } from "../package/projects.ts";

const SUITE = fileURLToPath(new URL("bentocache-suite.mjs", import.meta.url));

test.each(["l1", "l2"])("bentocache's suite for drivers passes over the driver for %s", async (layer) => {
  const args = [SUITE, layer, `t-${process.pid}-bentocache-${layer}`];
  const { stdout, stderr, status } = await execute(process.execPath, args, { cwd: import.meta.dirname });
  expect([status, stderr], stdout).toEqual([0, ""]);
  // As many as bentocache 1.6.1 has.
  expect(stdout).toContain(`${layer}: 21 passed, 0 failed`);
});
