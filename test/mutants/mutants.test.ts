/**
 * Checks that the lists of mutants fit the sources and the tests as they are now. Code that was moved or reworded, and tests that
 * were renamed, are found here, in seconds, and not in the next long run of `npm run mutants`.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { ENGINE, PACKAGE } from "./index.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const read = (file: string): string => readFileSync(path.join(root, file), "utf8");

test("every mutant has a name of its own", () => {
  const names = [...ENGINE, ...PACKAGE].map(({ name }) => name);
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  expect(ENGINE.length).toBeGreaterThan(100);
  expect(PACKAGE.length).toBeGreaterThan(100);
});

test.each(["engine", "package"])("no list of mutants in the folder %s is empty", async (folder) => {
  for (const file of readdirSync(new URL(`${folder}/`, import.meta.url))) {
    const list = await import(new URL(`${folder}/${file}`, import.meta.url).href);
    expect(list.default.length, `${folder}/${file}`).toBeGreaterThan(0);
  }
});

test.each([
  ["engine", ENGINE, "wasm/src/"],
  ["package", PACKAGE, ""],
] as const)("the text that a mutant of the %s replaces is in its file exactly once", (_, mutants, folder) => {
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

describe("tests that mutants name", () => {
  test("every file of tests that a mutant of the package names exists", () => {
    const named = PACKAGE.flatMap(({ first = [] }) => first);
    expect(named.length).toBeGreaterThan(100);
    expect([...new Set(named)].filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
  });

  test("the `filter` of a mutant matches a test in every file that the mutant names", () => {
    const filtered = PACKAGE.filter(({ filter }) => filter !== undefined);
    expect(filtered.length).toBeGreaterThan(20);
    const wrong: string[] = [];
    for (const { name, filter = "", first = [] } of filtered) {
      // Vitest takes it for a regular expression.
      if (/[\\^$.*+?()[\]{}|]/.test(filter)) wrong.push(`${name}: "${filter}" is not plain text`);
      for (const file of first)
        if (!mayMatch(filter, file)) wrong.push(`${name}: no test of ${file} matches "${filter}"`);
    }
    expect(wrong).toEqual([]);
  });

  test("a `filter` that is only in a comment, or in no title, matches no test", () => {
    expect(mayMatch("every file of tests that a mutant", "test/mutants/mutants.test.ts")).toBe(true);
    expect(mayMatch("the folder engine is empty", "test/mutants/mutants.test.ts")).toBe(true);
    // In two pieces, so that this file does not have them as strings.
    expect(mayMatch(`the folder ${"no"}where is empty`, "test/mutants/mutants.test.ts")).toBe(false);
    expect(mayMatch(`Vitest ${"takes"} it for`, "test/mutants/mutants.test.ts")).toBe(false);
  });

  test("every filter for the engine's tests is part of a test's name", () => {
    const tests = { engine: rustTests("engine"), loom: rustTests("loom") };
    expect(Math.min(tests.engine.length / 10, tests.loom.length)).toBeGreaterThan(5);
    const wrong = ENGINE.flatMap(({ name, first = [], loom = false }) =>
      first
        .filter((filter) => !tests[loom ? "loom" : "engine"].some((test) => test.includes(filter)))
        .map((filter) => `${name}: no test of ${loom ? "loom" : "the engine"} has ${filter} in its name`),
    );
    expect(wrong).toEqual([]);
  });
});

/** `module::function` of every test in a folder of wasm/tests. */
function rustTests(folder: string): string[] {
  const files = readdirSync(path.join(root, "wasm/tests", folder)).filter((file) => file !== "main.rs");
  return files.flatMap((file) =>
    [...read(`wasm/tests/${folder}/${file}`).matchAll(/#\[test\]\n(?:\s*(?:#\[|\/\/).*\n)*\s*fn (\w+)\(/g)].map(
      ([, name]) => `${path.basename(file, ".rs")}::${name}`,
    ),
  );
}

/**
 * Whether a test in this file may have the filter in its title, as far as the text tells: the titles in the file, and the titles
 * that it takes from the helpers which it imports. `%s` and `${…}` in a title stand for any text that is a string in the file.
 */
function mayMatch(filter: string, file: string): boolean {
  const text = read(file);
  /** The folders of helpers: that of the test, and that of the checks which tests run. */
  const homes = [path.dirname(file), "src/testing"];
  const helpers = new Set<string>();
  const follow = (from: string): void => {
    for (const [, name = ""] of read(from).matchAll(/ from "(\.{1,2}\/[\w./-]+\.ts)"/g)) {
      const helper = path.join(path.dirname(from), name);
      if (helpers.has(helper) || !homes.includes(path.dirname(helper))) continue;
      helpers.add(helper);
      follow(helper);
    }
  };
  follow(file);
  // In helpers any string may be a title.
  const strings = [...helpers].flatMap((helper) => stringsOf(read(helper)));
  const titles = [...text.matchAll(/\b(?:test|it|describe)\b[^"'`;]*/g)].map(({ index, 0: head }) =>
    stringAt(text, index + head.length),
  );
  // Behind the table of `test.each`.
  titles.push(
    ...[...text.matchAll(/\]\s*(?:as const)?\s*,?\s*\)\(\s*/g)].map(({ index, 0: head }) =>
      stringAt(text, index + head.length),
    ),
  );
  const own = stringsOf(text);
  return strings.some((string) => string.includes(filter)) || titles.some((title) => covers(title, filter, own));
}

/** The string literal that begins at this position, or nothing. */
function stringAt(text: string, at: number): string {
  return /^(["'`])((?:\\.|(?!\1)[^\\])*)\1/s.exec(text.slice(at, at + 500))?.[2] ?? "";
}

function stringsOf(text: string): string[] {
  const code = text.replace(/^\s*(\/\/|\/?\*).*$/gm, "");
  return [...code.matchAll(/(["'`])((?:\\.|(?!\1)[^\\\n])*)\1/g)].map(([, , string = ""]) => string);
}

/** Whether a title may contain the filter, when the gaps in the title stand for any of the strings. */
function covers(title: string, filter: string, strings: string[]): boolean {
  const [first = "", ...rest] = title.split(/%[sdifjo]|\$\{[^}]*\}|\$\w+/);
  if (rest.length === 0) return first.includes(filter);
  return strings.some((string) => [first, ...rest].join(string).includes(filter));
}
