/**
 * Checks that no file of the repository is left out in silence: vitest runs every file of tests, every helper in test/ is used, and
 * every path that a script, test or document names exists, and so does every test of the engine that a script names.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
/** Folders that are not part of the repository, or are generated. */
const OTHERS = ["node_modules", "dist", ".git", ".tools", "target", "results"];

/** All files below a folder, as paths from the root. */
function files(folder: string): string[] {
  return fs.readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) return OTHERS.includes(entry.name) ? [] : files(file);
    return [file];
  });
}

const read = (file: string): string => fs.readFileSync(path.join(root, file), "utf8");
const all = files(".");
const tests = all.filter((file) => file.startsWith("test/"));
/** Files whose text may name other files of the repository. */
const texts = all.filter((file) => /\.(md|[cm]?[jt]s|rs|c|sh|html)$|^(\.ci\/|package\.json|biome\.json)/.test(file));

describe("files of tests", () => {
  test("programs that tests start get no variables that make them print colours", () => {
    expect(Object.keys(process.env).filter((name) => /^(FORCE_COLOR|NO_COLOR|COLORTERM|CLICOLOR)/.test(name))).toEqual(
      [],
    );
  });

  test("every file of tests runs, and no more than once in `npm test`", () => {
    const listedBy = (config: string): string[] => {
      const args = [
        path.join(root, "node_modules/vitest/vitest.mjs"),
        "list",
        "--filesOnly",
        "--json",
        "--config",
        config,
      ];
      const files = JSON.parse(execFileSync(process.execPath, args, { cwd: root, encoding: "utf8" }));
      return files.map(({ file }: { file: string }) => path.relative(root, file));
    };
    const usual = listedBy("vitest.config.ts");
    expect(new Set(usual).size).toBe(usual.length);
    const others = ["ecosystem", "tier"].flatMap((folder) => listedBy(`test/${folder}/vitest.config.ts`));
    const named = all.filter((file) => /\.(test|spec)\.\w+$/.test(file));
    expect(named.length).toBeGreaterThan(20);
    expect([...new Set([...usual, ...others])].sort()).toEqual(named.sort());
  });

  test("every folder of test/ has a file of tests", () => {
    const folders = new Set(tests.map((file) => file.split("/")[1]));
    expect(folders.size).toBeGreaterThan(8);
    for (const file of tests) if (file.endsWith(".test.ts")) folders.delete(file.split("/")[1]);
    expect([...folders]).toEqual([]);
  });

  test("every helper in test/ is named by another file", () => {
    // The lists of mutants are read by folder, see test/mutants/index.mjs.
    const helpers = tests.filter(
      (file) => !file.endsWith(".test.ts") && !/^test\/mutants\/(engine|package)\/|-lock\.json$/.test(file),
    );
    /** What names a helper: its own name, or that of the folder of the application that it belongs to. */
    const nameOf = (file: string) =>
      file
        .split("/")
        .slice(2)
        .at(file.startsWith("test/ecosystem/") ? 0 : -1) as string;
    expect(helpers.length).toBeGreaterThan(40);
    const code = texts.filter((file) => /^(test|scripts|bench|examples)\//.test(file));
    const contents = new Map(code.map((file) => [file, read(file)]));
    const unused = helpers.filter(
      (helper) => ![...contents].some(([file, text]) => file !== helper && text.includes(nameOf(helper))),
    );
    expect(unused).toEqual([]);
  });
});

describe("names in strings", () => {
  const PATHS =
    /(?<=["'`\s(=:,]|\.\.\/|\$root\/|\$\{ROOT\}\/)(?:src|wasm|native|test|scripts|bench|docs|examples|\.ci)\/[\w./-]*\w/g;
  /** Paths that are made by builds and runs, or are not paths of this repository. */
  const MADE =
    /^(wasm\/target|bench\/(results|node_modules)|test\/ecosystem\/node_modules|native\/cache_machine-linux)|\bgone\b/;

  test("every path of the repository in a script, test, source, document or configuration exists", () => {
    let count = 0;
    const gone = texts.flatMap((file) => {
      const found = [...read(file).matchAll(PATHS)].map(([name]) => name).filter((name) => !MADE.test(name));
      count += found.length;
      // A link in a document is relative to the document.
      return found
        .filter(
          (name) => ![root, path.dirname(path.join(root, file))].some((from) => fs.existsSync(path.join(from, name))),
        )
        .map((name) => `${file}: ${name}`);
    });
    expect(count).toBeGreaterThan(300);
    expect(gone).toEqual([]);
  });

  test("every module and function of the engine's tests in scripts/sanitize.sh and scripts/arm64.sh exists", () => {
    const engine = files("wasm/tests/engine").map((file) => [path.basename(file, ".rs"), read(file)] as const);
    for (const script of ["scripts/sanitize.sh", "scripts/arm64.sh"]) {
      const commands = read(script).replace(/<<'(\w+)'[\s\S]*?\n\1\n/g, "");
      const modules = [...commands.matchAll(/\b([a-z]+)::/g)].map(([, name]) => name as string);
      expect(modules.filter((name) => !engine.some(([module]) => module === name))).toEqual([]);
      // A filter of cargo's is any part of a name; names of three words or more are no words of the shell.
      const functions = [...commands.matchAll(/(?<![\w$-])[a-z]+(?:_[a-z]+){2,}(?![\w=])/g)].map(([name]) => name);
      expect(functions.filter((name) => !engine.some(([, text]) => text.includes(`fn ${name}`)))).toEqual([]);
      if (script.includes("sanitize")) expect([modules.length > 3, functions.length > 3]).toEqual([true, true]);
    }
  });
});
