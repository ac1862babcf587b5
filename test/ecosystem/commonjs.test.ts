/**
 * Tests the package in programs of TypeScript and in CommonJS of many kinds: with the settings of `module` and `moduleResolution`
 * that people have, for the main entry and for every subpath; with the hooks that compile on the fly; and in realms of `node:vm`.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodeBinary, versions } from "../package/nodes.ts";
import { execute, Projects, root } from "../package/projects.ts";

const MODULES = path.join(root, "test/ecosystem/node_modules");
const LIMIT_MS = 90_000;
const COMPILERS: Record<string, string> = {
  "TypeScript 5": path.join(MODULES, "typescript/bin/tsc"),
  "TypeScript 7": path.join(root, "node_modules/typescript/bin/tsc"),
};

const projects = new Projects("commonjs");
const { mark } = projects;
const { exports, name: own } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
const subpaths = Object.keys(exports)
  .filter((subpath) => !subpath.endsWith(".json"))
  .map((subpath) => subpath.replace(".", own));

/** The binaries of Node.js to test with: the one that runs, and those of `NODES`. */
const binaries: [string, () => Promise<string>][] = [
  [`Node.js ${process.version}`, async () => process.execPath],
  ...versions.map((version): [string, () => Promise<string>] => [version, () => nodeBinary(version)]),
];

/** A project with the package, without its optional peers. */
let project: string;

beforeAll(async () => {
  project = await projects.installed("project");
  const link = (name: string, from = MODULES): void => {
    fs.mkdirSync(path.dirname(path.join(project, "node_modules", name)), { recursive: true });
    fs.symlinkSync(path.join(from, name), path.join(project, "node_modules", name));
  };
  for (const name of ["ts-node", "tsx", "typescript", "@swc-node", "@swc"]) link(name);
  for (const name of ["@types/node", "undici-types"]) link(name, path.join(root, "node_modules"));
});

afterAll(() => projects.remove());

/** A program that uses the main entry with types, and every subpath. */
const program = (mode: string): string => `
import { type Cache, CacheError, destroyCache, openCache, type SetOptions } from "${own}";
${subpaths.map((subpath, i) => `import * as m${i} from "${subpath}";`).join("\n")}
const name: string = "${mark}-${mode}-" + process.pid;
interface Point { x: number; tags?: string[] }
const points: Cache<Point> = openCache<Point>(name, { size: "1mb" });
const options: SetOptions = { ttl: 1000 };
points.set("a", { x: 1 }, options);
// @ts-expect-error: the types are checked.
points.set("a", { x: "1" });
const point: Point | undefined = points.get("a");
const loaded: Promise<Point> = points.getOrSet("b", async () => ({ x: 2 }));
let code: string = "";
try { points.get(5 as never); } catch (error) { code = error instanceof CacheError ? error.code : (error as Error).name; }
const modules: object[] = [${subpaths.map((_, i) => `m${i}`).join(", ")}];
loaded.then(({ x }) => {
  console.log(point?.x, x, code, modules.every((each) => Object.keys(each).length > 0), modules.length);
  points.close();
  destroyCache(name);
});
`;
const OUTPUT = `1 2 TypeError true ${subpaths.length}\n`;

const STRICT = {
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: false,
  target: "es2022",
  types: ["node"],
};
/** The kind of modules, the file, the options, the compiled file, and the one compiler for which that is tested. */
const SETTINGS: [string, string, object, string, string?][] = [
  ["CommonJS", "main.cts", { module: "node16" }, "main.cjs"],
  ["ES modules", "main.mts", { module: "node16" }, "main.mjs"],
  ["CommonJS", "main.cts", { module: "nodenext" }, "main.cjs", "TypeScript 7"],
  ["ES modules", "main.mts", { module: "nodenext" }, "main.mjs", "TypeScript 7"],
  [
    "CommonJS",
    "main.ts",
    { module: "commonjs", moduleResolution: "node10", esModuleInterop: true },
    "main.js",
    "TypeScript 5",
  ],
  ["CommonJS", "main.ts", { module: "commonjs", moduleResolution: "node10" }, "main.js", "TypeScript 5"],
  ["CommonJS", "main.ts", { module: "commonjs", moduleResolution: "bundler" }, "main.js", "TypeScript 7"],
  ["ES modules", "main.mts", { module: "preserve", moduleResolution: "bundler" }, "main.mjs"],
  ["ES modules", "main.mts", { module: "esnext", moduleResolution: "bundler" }, "main.mjs", "TypeScript 7"],
];

describe.each(Object.keys(COMPILERS))("%s", (compiler) => {
  const settings = SETTINGS.filter(([, , , , only]) => only === undefined || only === compiler);

  test.each(settings)(
    "compiles %s (%s) with %j, checks the types of the package, and the program runs",
    async (_, file, options, output) => {
      const mode = Object.values(options).join("-").toLowerCase();
      const folder = path.join(project, `${compiler.replace(" ", "")}-${mode}-${output}`);
      fs.mkdirSync(folder, { recursive: true });
      const compilerOptions = { ...STRICT, ...options };
      fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [file] }));
      fs.writeFileSync(path.join(folder, file), program(mode));
      const compiled = await execute(process.execPath, [COMPILERS[compiler] as string, "-p", "."], {
        cwd: folder,
        timeoutMs: LIMIT_MS,
      });
      expect(compiled).toEqual({ status: 0, stdout: "", stderr: "" });
      expect(await execute(process.execPath, [output], { cwd: folder })).toEqual({
        status: 0,
        stdout: OUTPUT,
        stderr: "",
      });
    },
  );

  test("knows that a `Cache` of a CommonJS module is a `Cache` of an ES module", async () => {
    const folder = path.join(project, `${compiler.replace(" ", "")}-mixed`);
    fs.mkdirSync(folder, { recursive: true });
    const files = {
      "cjs.cts": `import { type Cache, createCache } from "${own}"; export const cache: Cache<number> = createCache<number>({ size: "1mb" });`,
      "main.mts": `import { type Cache, CacheError } from "${own}"; import { cache } from "./cjs.cjs";
        const same: Cache<number> = cache;
        try { same.set("a", 1).set("b", "x".repeat(1e6) as never); } catch (error) { console.log(error instanceof CacheError, same.get("a")); }`,
      "tsconfig.json": JSON.stringify({ compilerOptions: { ...STRICT, module: "nodenext" }, files: ["main.mts"] }),
    };
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, file), text);
    const compiled = await execute(process.execPath, [COMPILERS[compiler] as string, "-p", "."], {
      cwd: folder,
      timeoutMs: LIMIT_MS,
    });
    expect(compiled).toEqual({ status: 0, stdout: "", stderr: "" });
    expect((await execute(process.execPath, ["main.mjs"], { cwd: folder })).stdout).toBe("true 1\n");
  });
});

/** Hooks that compile TypeScript on the fly: the kind of modules, and the options of Node.js. */
const HOOKS: [string, "commonjs" | "module", string[]][] = [
  ["tsx", "commonjs", ["--import", "tsx"]],
  ["tsx", "module", ["--import", "tsx"]],
  ["ts-node/register", "commonjs", ["-r", "ts-node/register"]],
  ["@swc-node/register", "commonjs", ["-r", "@swc-node/register"]],
  ["@swc-node/register", "module", ["--import", "@swc-node/register/esm-register"]],
];
/** Newer versions of Node.js warn of functions that the hooks call. */
const DEPRECATION = /^\(node:\d+\) \[DEP\d+\] .*\n.*--trace-deprecation.*\n/m;

describe.each(binaries)("hooks of %s", (node, binary) => {
  test.each(HOOKS)("%s runs a program of kind %s", async (hook, type, args) => {
    const folder = path.join(project, `hook-${hook.replaceAll(/\W/g, "")}-${type}-${node.replaceAll(/\W/g, "")}`);
    fs.mkdirSync(folder, { recursive: true });
    const module = type === "commonjs" ? { module: "commonjs", moduleResolution: "node10" } : { module: "nodenext" };
    const compilerOptions = { ...STRICT, ...module, esModuleInterop: true };
    fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ name: "hook", type }));
    fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions }));
    fs.writeFileSync(path.join(folder, "main.ts"), program(`hook-${type}`));
    const { status, stdout, stderr } = await execute(await binary(), [...args, "main.ts"], {
      cwd: folder,
      timeoutMs: LIMIT_MS,
    });
    expect({ status, stdout, stderr: stderr.replace(DEPRECATION, "") }).toEqual({
      status: 0,
      stdout: OUTPUT,
      stderr: "",
    });
  });

  test("the CommonJS build works in realms of `node:vm`, which share a seat with the ES module of the main realm", async () => {
    const name = JSON.stringify(`${mark}-vm`);
    fs.writeFileSync(
      path.join(project, "vm.mjs"),
      `import fs from "node:fs";
       import { createRequire } from "node:module";
       import vm from "node:vm";
       import * as one from "cache-machine";
       const require = createRequire(import.meta.url);
       const file = new URL("node_modules/cache-machine/dist/index.cjs", import.meta.url).pathname;
       function realm() {
         const copy = Object.create(process, Object.getOwnPropertyDescriptors(process));
         const globals = { process: copy, Buffer, TextEncoder, TextDecoder, performance, URL, URLSearchParams, setTimeout, clearTimeout, setImmediate, queueMicrotask, crypto, AbortController };
         const context = vm.createContext(globals);
         const run = vm.compileFunction(fs.readFileSync(file, "utf8"), ["module", "exports", "require", "__filename", "__dirname"], { filename: file, parsingContext: context });
         const module = { exports: {} };
         run(module, module.exports, createRequire(file), file, file.replace(/\\/[^/]*$/, ""));
         return { exports: module.exports, Map: vm.runInContext("Map", context) };
       }
       const [first, second] = [realm(), realm()];
       const opened = [first, second].map(({ exports }) => exports.openCache(${name}, { size: "1mb" }));
       const cache = one.openCache(${name});
       cache.set("a", new Map([[1, 2]]));
       console.log(opened.map((each) => each.get("a").get(1)).join(), opened[0].get("a") instanceof first.Map, cache.stats().participants);
       opened[0].close();
       console.log(opened[1].set("b", 1).get("b"), cache.get("b"));
       for (const each of [opened[1], cache]) each.close();
       one.destroyCache(${name});
       const [a, b] = [first.exports.openCache(${name}, { size: "1mb" }), second.exports.openCache(${name})];
       let calls = 0;
       const load = async () => { calls++; await new Promise((resolve) => setTimeout(resolve, 20)); return 5; };
       console.log((await Promise.all([a.getOrSet("c", load), b.getOrSet("c", load)])).join(), calls);
       try { a.set("large", "x".repeat(1e6)); } catch (error) { console.log(error instanceof one.CacheError, error instanceof second.exports.CacheError); }
       a.close(); b.close(); one.destroyCache(${name});`,
    );
    const { stdout, stderr } = await execute(await binary(), ["vm.mjs"], { cwd: project });
    expect(stderr).toBe("");
    expect(stdout).toBe("2,2 true 1\n1 1\n5,5 1\ntrue true\n");
  });
});
