/**
 * Everything that the package exports is the same for Node.js and for browsers, documented in docs/api.md, and used by the test of
 * the types (test/unit/types.test-d.ts). The names are read from package.json and from the types in dist/, so that an export or a
 * member of `Cache` that is new, or gone, is noticed without a list in this file.
 */

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";
import { root } from "./projects.ts";

const read = (file: string): string => fs.readFileSync(path.join(root, file), "utf8");
const manifest = JSON.parse(read("package.json"));

/** Exports of the Node.js build only: they need the application's own cache, which processes share. */
const NODE_ONLY = ["exportCache", "get", "importCache", "set"];

/** The names that a declaration file exports: those of values and those of types. */
function exportsOf(file: string): { values: string[]; types: string[] } {
  const text = read(file).replace(/\/\*[\s\S]*?\*\//g, "");
  const found = { values: new Set<string>(), types: new Set<string>() };
  for (const [statement, rest = ""] of text.matchAll(/^export (.*(?:\n(?! *export\b).*)*)/gm)) {
    const declared = /^(?:declare )?(function|const|class|type|interface) (\w+)/.exec(rest);
    const listed = /^(type )?\{([^}]*)\}/.exec(rest);
    if (listed !== null) {
      for (const each of (listed[2] as string).replace(/,\s*$/, "").split(",")) {
        const [, type, name] = /^\s*(type )?(\w+)\s*$/.exec(each) as unknown as [string, string?, string?];
        found[(listed[1] ?? type) === undefined ? "values" : "types"].add(name as string);
      }
    } else if (declared !== null) {
      found[["type", "interface"].includes(declared[1] as string) ? "types" : "values"].add(declared[2] as string);
    } else throw new Error(`${file}: this test does not understand: ${statement.slice(0, 100)}`);
  }
  return { values: [...found.values].sort(), types: [...found.types].sort() };
}

/** The public members of the class `Cache`, whichever file declares it. */
function membersOfCache(): string[] {
  const files = fs.readdirSync(path.join(root, "dist"), { recursive: true, encoding: "utf8" });
  const bodies = files
    .filter((file) => file.endsWith(".d.ts"))
    .flatMap((file) => [...read(`dist/${file}`).matchAll(/^export declare class Cache<[^{]*\{\n([\s\S]*?)^\}/gm)]);
  expect(bodies).toHaveLength(1);
  const [[, body = ""] = []] = bodies;
  const code = body.replace(/\/\*[\s\S]*?\*\//g, "");
  const names = [...code.matchAll(/^ {4}(?:get |readonly )?(\w+)[(<:]/gm)].map(([, name]) => name as string);
  return [...new Set(names)].filter((name) => name !== "constructor");
}

const node = exportsOf("dist/types/index.d.ts");
const browser = exportsOf("dist/types/browser.d.ts");
const all = [...node.values, ...node.types];

test("the names of exports and members are found in the types", () => {
  expect(node.values).toEqual(expect.arrayContaining(["CacheError", "createCache", "get", "openCache", "set"]));
  // A class that is exported as a type cannot be constructed.
  expect(node.types).toEqual(expect.arrayContaining(["Cache", "CacheErrorCode", "Stats"]));
  expect(membersOfCache()).toEqual(expect.arrayContaining(["get", "set", "handle", "forEach", "namespace", "stats"]));
});

describe("`exports` of package.json", () => {
  const { "./package.json": ownManifest, ...modules } = manifest.exports;
  const subpaths = Object.keys(modules);

  test("has the manifest too", () => {
    expect(ownManifest).toBe("./package.json");
    expect(subpaths).toEqual(expect.arrayContaining([".", "./keyv", "./testing"]));
  });

  test.each(subpaths)(
    "%s leads ES modules, CommonJS and bundlers to one module of each kind, and to its types",
    (subpath) => {
      const { browser, ...conditions } = modules[subpath];
      const base = conditions.default.default.replace(/\.js$/, "");
      const esm = { types: `${base}.d.ts`, default: `${base}.js` };
      // Node.js takes `module-sync` for `import` and `require`, so that both have the same instance of the package.
      expect(Object.entries(conditions)).toEqual([
        ["module-sync", esm],
        ["require", { types: `${base}.d.cts`, default: `${base}.cjs` }],
        ["default", esm],
      ]);
      // Everybody else finds the files of the package itself by these fields, and the types of a subpath by `typesVersions`.
      if (subpath === ".") {
        expect(browser).toEqual({ types: esm.types, default: "./dist/browser.js" });
        expect([manifest.main, manifest.types]).toEqual([`${base}.cjs`, `${base}.d.cts`]);
      } else expect(manifest.typesVersions["*"][subpath.slice(2)]).toEqual([`${base}.d.cts`]);
      for (const file of [`${base}.js`, `${base}.cjs`, `${base}.d.ts`, `${base}.d.cts`]) {
        expect(fs.statSync(path.join(root, file)).size).toBeGreaterThan(0);
      }
    },
  );
});

describe("each export", () => {
  test.each([
    ["Node.js", "dist/index.js", node],
    ["browsers", "dist/browser.js", browser],
  ])("is a value of the build for %s exactly if its types say so", async (_, file, { values }) => {
    const module = await import(pathToFileURL(path.join(root, file)).href);
    expect(Object.keys(module).sort()).toEqual(values);
  });

  test("is in the build for browsers too, except what needs processes or files", () => {
    expect(browser.values).toEqual(node.values.filter((name) => !NODE_ONLY.includes(name)));
    expect(browser.types).toEqual(node.types);
  });

  test("has a section in docs/api.md", () => {
    const headings = [...read("docs/api.md").matchAll(/^#{2,4} (\w+)$/gm)].map(([, name]) => name);
    expect(all.filter((name) => !headings.includes(name))).toEqual([]);
  });

  test("is imported by the test of the types", () => {
    const text = read("test/unit/types.test-d.ts");
    const [, names = ""] = /^import \{([^}]*)\} from "cache-machine";$/m.exec(text) ?? [];
    const imported = names.split(",").map((name) => name.replace(/\btype\b/, "").trim());
    expect(imported.filter((name) => name !== "").sort()).toEqual(all.toSorted());
  });
});

test("the test of the types uses each member of `Cache`", () => {
  const text = read("test/unit/types.test-d.ts");
  expect(membersOfCache().filter((name) => !new RegExp(`\\.${name}\\b`).test(text))).toEqual([]);
});
