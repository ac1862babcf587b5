/** The lists of mutants fit the sources as they are: what has moved or was reworded is found here, not in the next long run. */

import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { ENGINE, PACKAGE } from "./index.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const read = (file: string): string => readFileSync(path.join(root, file), "utf8");

test("each mutant has a name of its own", () => {
  const names = [...ENGINE, ...PACKAGE].map(({ name }) => name);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  expect(ENGINE.length).toBeGreaterThan(100);
  expect(PACKAGE.length).toBeGreaterThan(100);
});

test.each([
  ["engine", ENGINE, "wasm/src/"],
  ["package", PACKAGE, ""],
] as const)("what each mutant of the %s replaces is in its file exactly once", (_, mutants, folder) => {
  const wrong: string[] = [];
  for (const { name, file, find, replace, also = [] } of mutants) {
    if (!file.startsWith(folder) || !existsSync(path.join(root, file))) wrong.push(`${name}: there is no ${file}`);
    else {
      for (const [from, to] of [[find, replace], ...also]) {
        const count = read(file).split(from as string).length - 1;
        if (count !== 1) wrong.push(`${name}: in ${file} ${count} times: ${from}`);
        if (from === to) wrong.push(`${name}: replaces ${from} by itself`);
      }
    }
  }
  expect(wrong).toEqual([]);
});

test("the tests that a mutant names exist", () => {
  const named = new Set(PACKAGE.flatMap(({ first = [] }) => first));
  expect([...named].filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
});
