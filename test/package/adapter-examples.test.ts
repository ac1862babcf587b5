/**
 * Runs each example in examples/adapters/ like its reader: it says how to run it, prints what it promises, ends by itself without a
 * warning, and leaves nothing in shared memory. The examples are copied into a project, and their caches get other names.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { execute, Projects, root } from "./projects.ts";

const FOLDER = path.join(root, "examples/adapters");
/** Lines that an example prints; a number of three or more digits stands for any number. */
const PRINTS: Record<string, string[]> = {
  "bentocache.mjs": [
    "process 4711: 20 answers, CHF 0.94",
    "80 callers in 4 processes: loaded 1 time",
    "after deleteByTag: undefined",
  ],
};
const projects = new Projects("adapter-examples");
afterAll(() => projects.remove());

const examples = fs.readdirSync(FOLDER).filter((name) => name.endsWith(".mjs"));

test("every example in the table exists", () => {
  expect(examples).toEqual(expect.arrayContaining(Object.keys(PRINTS)));
});

test.each(examples)("%s prints what it promises, ends, and leaves nothing", async (name) => {
  const source = fs.readFileSync(path.join(FOLDER, name), "utf8");
  expect(source).toContain(`node examples/adapters/${name}`);
  const project = projects.linked(path.basename(name, ".mjs"));
  fs.writeFileSync(path.join(project, name), projects.apart(source, "copy"));
  const { status, stdout, stderr } = await execute(process.execPath, [name], { cwd: project });
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: "" });
  const printed = stdout
    .replace(/\d{3,}/g, "4711")
    .trimEnd()
    .split("\n");
  expect(printed.join("")).not.toBe("");
  for (const line of PRINTS[name] ?? []) expect(printed).toContain(line.replace(/\d{3,}/g, "4711"));
  expect(projects.left()).toEqual([]);
});
