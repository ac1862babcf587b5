/**
 * Runs the kit of checks (cache-machine/testing) in Jest as docs/testing.md shows it, in a project into which the packed package is
 * installed: the store and the test of that page, as CommonJS modules, and a store over a cache in four processes.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { sections } from "../package/blocks.ts";
import { execute, type Output, Projects, root } from "../package/projects.ts";

const MODULES = path.join(root, "test/ecosystem/node_modules");
const projects = new Projects("kit");
afterAll(() => projects.remove());

const blocks = sections("testing.md", fs.readFileSync(path.join(root, "docs/testing.md"), "utf8")).flatMap(
  (section) => section.blocks,
);

function block(isIt: (block: { file: string | undefined; code: string }) => boolean): string {
  const found = blocks.filter(isIt);
  expect(found).toHaveLength(1);
  return (found[0] as { code: string }).code;
}

test("the checks of docs/testing.md pass in Jest, with a CommonJS test", async () => {
  const project = await projects.installed("jest");
  fs.symlinkSync(path.join(MODULES, "jest"), path.join(project, "node_modules/jest"));
  const write = (file: string, text: string): void => fs.writeFileSync(path.join(project, file), text);
  const store = block(({ file }) => file === "map-store.mjs");
  write("map-store.cjs", `${store.replace("export class", "class")}\nmodule.exports = { MapStore };`);
  write(
    "map-store.test.cjs",
    block(({ code }) => code.includes('require("./map-store.cjs")')),
  );
  const shared = block(({ file }) => file === "shared-store.mjs");
  write("shared-store.mjs", projects.apart(shared, "jest"));
  const name = /openCache\("([^"]+)"/.exec(projects.apart(shared, "jest"))?.[1] as string;
  write(
    "shared-store.test.cjs",
    `const { destroyCache } = require("cache-machine");
     const { acrossProcesses } = require("cache-machine/testing");
     const path = require("node:path");
     for (const { name, run } of acrossProcesses(path.join(__dirname, "shared-store.mjs"))) test(name, run, 60_000);
     afterAll(() => destroyCache(${JSON.stringify(name)}));`,
  );

  const bin = path.join(project, "node_modules/jest/bin/jest.js");
  const args = [bin, "--ci", "--colors=false", "--testMatch=**/*.test.cjs", "--testEnvironment=node"];
  const { status, stdout, stderr }: Output = await execute(process.execPath, args, {
    cwd: project,
    timeoutMs: 120_000,
  });
  const said = `${stdout}${stderr}`;
  expect(status, said).toBe(0);
  expect(said).toMatch(/Tests: +\d{2} passed, \d{2} total/);
  expect(said).not.toMatch(/did not exit|failed to exit|Warning/);
});
