/**
 * Runs each file in examples/adapters/ like its reader: it says how to run it and what it prints, prints exactly that, ends by
 * itself without a warning, and leaves nothing in shared memory. The examples are copied into projects, and their caches get other
 * names.
 *
 * What an example prints stands in its first comment, indented after "It prints:". A number of three or more digits stands for any
 * number.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { execute, Projects, root } from "./projects.ts";

const FOLDER = path.join(root, "examples/adapters");
/** The files; a folder beside them, which is a whole application, has a test of its own. */
const examples = fs
  .readdirSync(FOLDER)
  .filter((name) => name.endsWith(".mjs"))
  .sort();
const projects = new Projects("adapter-examples");
afterAll(() => projects.remove());

/** The lines that an example says it prints. */
function promised(source: string): string[] {
  const [comment = ""] = source.split("*/");
  const [, lines = ""] = comment.split(/^ \* It prints:\n \*\n/m);
  return [...lines.matchAll(/^ \* {5}(.+)$/gm)].map(([, line]) => line as string);
}

/** A text, with `…` in the place of each number of three or more digits. */
const withoutNumbers = (text: string): string => text.replace(/\d{3,}/g, "…");

test("the list of examples names each of them with the command that runs it, and no other", () => {
  const list = fs.readFileSync(path.join(root, "examples/README.md"), "utf8");
  const rows = [...list.matchAll(/^\| \[([\w-]+)\]\((adapters\/[^)]+)\) .*`node examples\/([^`]+)`/gm)];
  expect(rows.map(([, name, link, command]) => [`${name}.mjs`, link, command])).toEqual(
    examples.map((name) => [name, `adapters/${name}`, `adapters/${name}`]),
  );
});

test.each(examples)("%s prints what it promises, ends, and leaves nothing", async (name) => {
  const source = fs.readFileSync(path.join(FOLDER, name), "utf8");
  expect(source).toContain(` *     node examples/adapters/${name}\n`);
  const expected = promised(source);
  expect(expected.length).toBeGreaterThan(0);
  const project = projects.linked(path.basename(name, ".mjs"));
  fs.writeFileSync(path.join(project, name), projects.apart(source, "copy"));
  const { status, stdout, stderr } = await execute(process.execPath, [name], { cwd: project });
  const left = projects.left();
  for (const file of left) fs.unlinkSync(path.join("/dev/shm", file));
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: "" });
  expect(withoutNumbers(stdout.trimEnd()).split("\n")).toEqual(expected.map(withoutNumbers));
  expect(left).toEqual([]);
});
