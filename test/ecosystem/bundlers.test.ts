/**
 * Tests bundles of the package that bundlers make for Node.js, from CommonJS and from ES modules, in a project into which the packed
 * package is installed. A bundle finds the native part where it was made. Moved away from there, it works when the bundler has taken
 * the native part along, or says what to copy. Bundles of esbuild and Vite are tested in test/package/newcomer.test.ts.
 */

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { execute, Projects, root } from "../package/projects.ts";

const MODULES = path.join(root, "test/ecosystem/node_modules");
const LIMIT_MS = 90_000;
const NODE_MAJOR = Number.parseInt(process.versions.node, 10);
const require = createRequire(path.join(MODULES, "from.js"));
const BINARY = `cache_machine-linux-${process.arch}.node`;

const projects = new Projects("bundlers");
const { mark } = projects;
let project: string;

/** What the bundles run: a cache of processes, and an error. */
const BODY = `
  const name = "${mark}-" + process.pid;
  const cache = openCache(name, { size: "1mb" }).set("a", new Map([[1, { b: 2n }]]));
  console.log(cache.get("a").get(1).b);
  cache.close();
  try { cache.get("a"); } catch (error) { console.log(error instanceof CacheError, error.code, destroyCache(name)); }`;
const OUTPUT = "2n\ntrue ERR_CLOSED true\n";
const NAMES = "CacheError, destroyCache, openCache";
const ENTRIES = {
  "main.cjs": `const { ${NAMES} } = require("cache-machine");${BODY}`,
  "main.mjs": `import { ${NAMES} } from "cache-machine";${BODY}`,
  "both.mjs": `import { ${NAMES} } from "cache-machine"; import other from "./other.cjs";
    if (typeof other.openCache !== "function") throw new Error("no copy of CommonJS");
    const second = other.openCache("${mark}-both", { size: "1mb" });
    const first = openCache("${mark}-both").set("a", { shared: 1 });
    if (second.get("a").shared !== 1 || first.stats().participants !== 1) throw new Error("not one seat");
    first.close(); second.close(); destroyCache("${mark}-both");${BODY}`,
  "other.cjs": 'module.exports = require("cache-machine");',
};
type Format = "cjs" | "esm";
const endingOf = (format: Format): string => (format === "esm" ? "mjs" : "cjs");

beforeAll(async () => {
  project = await projects.installed("project");
  for (const [file, text] of Object.entries(ENTRIES)) fs.writeFileSync(path.join(project, file), text);
});

afterAll(() => projects.remove());

/** A bundler: makes a bundle of an entry in a folder. */
type Bundler = (entry: string, format: Format, out: string) => Promise<void>;

/** webpack, as a child process: it would change this one's working directory and environment. */
async function webpack(tool: string, settings: (format: Format) => object, entry: string, format: Format, out: string) {
  const config = {
    context: project,
    entry: `./${entry}`,
    mode: "production",
    // Node.js shows the line of an error, which would be the whole bundle.
    optimization: { minimize: false },
    output: { path: out, filename: `main.${endingOf(format)}` },
    ...settings(format),
  };
  const code = `require(${JSON.stringify(require.resolve(tool))})(${JSON.stringify(config)}, (error, stats) => {
    if (error || stats.hasErrors()) { console.error(String(error ?? stats.toString({ colors: false }))); process.exitCode = 1; }
  });`;
  // webpack 4 uses a hash that OpenSSL 3 does not have.
  const args = tool === "webpack4" ? ["--openssl-legacy-provider"] : [];
  const { status, stderr } = await execute(process.execPath, [...args, "-e", code], {
    cwd: project,
    timeoutMs: LIMIT_MS,
  });
  if (status !== 0) throw new Error(stderr);
}

const asModule = { experiments: { outputModule: true } };

const BUNDLERS: Record<string, Bundler> = {
  "webpack 5": (entry, format, out) =>
    webpack(
      "webpack",
      (as) => ({
        target: "node20",
        ...(as === "esm" && {
          ...asModule,
          output: { path: out, filename: "main.mjs", module: true, library: { type: "module" } },
        }),
      }),
      entry,
      format,
      out,
    ),
  // Versions of webpack 5 before 5.97 do not know the condition `module-sync`.
  "webpack 5 without `module-sync`": (entry, format, out) =>
    webpack(
      "webpack",
      (as) => ({
        target: "node20",
        resolve: {
          byDependency: {
            esm: { conditionNames: ["import", "node"] },
            commonjs: { conditionNames: ["require", "node"] },
          },
        },
        ...(as === "esm" && {
          ...asModule,
          output: { path: out, filename: "main.mjs", module: true, library: { type: "module" } },
        }),
      }),
      entry,
      format,
      out,
    ),
  rollup: async (entry, format, out) => {
    const { rollup } = require("rollup");
    const [commonjs, resolve] = [require("@rollup/plugin-commonjs"), require("@rollup/plugin-node-resolve")];
    const bundle = await rollup({
      input: path.join(project, entry),
      external: [/^node:/],
      plugins: [resolve.nodeResolve({ preferBuiltins: true }), (commonjs.default ?? commonjs)()],
      onwarn: ({ message }: { message: string }) => {
        throw new Error(message);
      },
    });
    await bundle.write({
      dir: out,
      format: format === "esm" ? "es" : "cjs",
      entryFileNames: `main.${endingOf(format)}`,
    });
    await bundle.close();
  },
  "@vercel/ncc": async (entry, format, out) => {
    const cli = path.join(MODULES, "@vercel/ncc/dist/ncc/cli.js");
    const { status, stderr } = await execute(process.execPath, [cli, "build", entry, "-o", out, "--no-cache"], {
      cwd: project,
      timeoutMs: LIMIT_MS,
    });
    if (status !== 0) throw new Error(stderr);
    fs.renameSync(path.join(out, `index.${endingOf(format)}`), path.join(out, `main.${endingOf(format)}`));
  },
};

/** Whether a bundle takes the native part along. Others need it beside them. */
const TAKES: Record<string, (entry: string) => boolean> = {
  "webpack 5": () => true,
  "webpack 5 without `module-sync`": (entry) => entry === "main.mjs",
  // ncc looks into files that end with .js and .mjs only.
  "@vercel/ncc": (entry) => entry === "main.mjs",
};

const CASES: [string, string, Format][] = [
  ...["webpack 5", "rollup"].flatMap((name): [string, string, Format][] => [
    [name, "main.cjs", "cjs"],
    [name, "main.cjs", "esm"],
    [name, "main.mjs", "cjs"],
    [name, "main.mjs", "esm"],
    [name, "both.mjs", "esm"],
  ]),
  ["webpack 5 without `module-sync`", "main.cjs", "cjs"],
  ["webpack 5 without `module-sync`", "main.mjs", "esm"],
  ["webpack 5 without `module-sync`", "both.mjs", "cjs"],
  ["@vercel/ncc", "main.cjs", "cjs"],
  ["@vercel/ncc", "main.mjs", "esm"],
];

test.each(CASES)("%s makes a bundle of %s as %s, which works there and elsewhere", async (name, entry, format) => {
  const out = path.join(project, `out-${name.replaceAll(/\W+/g, "-")}-${entry.replace(".", "-")}-${format}`);
  await (BUNDLERS[name] as Bundler)(entry, format, out);
  const file = `main.${endingOf(format)}`;
  expect(await execute(process.execPath, [path.join(out, file)], { cwd: project })).toEqual({
    status: 0,
    stdout: OUTPUT,
    stderr: "",
  });

  const away = path.join(projects.folder, `away-${path.basename(out)}`);
  fs.cpSync(out, away, { recursive: true });
  const run = () => execute(process.execPath, [file], { cwd: away });
  if (TAKES[name]?.(entry) !== true) {
    const { stderr } = await run();
    expect(stderr).toContain("ERR_UNSUPPORTED");
    expect(stderr).toContain(`Copy node_modules/cache-machine/native/${BINARY} next to the bundle`);
    fs.copyFileSync(path.join(project, "node_modules/cache-machine/native", BINARY), path.join(away, BINARY));
  }
  expect(await run()).toEqual({ status: 0, stdout: OUTPUT, stderr: "" });
});

describe("bundlers that do not know the JavaScript of the package", () => {
  test("webpack 4 does not parse it, and works when the package is left out of the bundle", async () => {
    const settings = { target: "node", output: { path: path.join(project, "webpack4"), filename: "main.cjs" } };
    const build = (externals: object) =>
      webpack("webpack4", () => ({ ...settings, ...externals }), "main.cjs", "cjs", "");
    await expect(build({})).rejects.toThrow(/Module parse failed/);
    await build({ externals: { "cache-machine": "commonjs cache-machine" } });
    const { stdout, stderr } = await execute(process.execPath, ["webpack4/main.cjs"], { cwd: project });
    expect(stdout + stderr).toBe(OUTPUT);
  });

  test("browserify does not parse it, and works when the package is left out of the bundle", async () => {
    const browserify = require("browserify");
    const bundle = (external: string[]): Promise<Buffer> =>
      new Promise((resolve, reject) => {
        const made = browserify(path.join(project, "main.cjs"), { node: true });
        for (const name of external) made.external(name);
        made.bundle((error: Error | null, code: Buffer) => (error === null ? resolve(code) : reject(error)));
      });
    await expect(bundle([])).rejects.toThrow(/Unexpected token/);
    fs.writeFileSync(path.join(project, "browserify.cjs"), await bundle(["cache-machine"]));
    const { stdout, stderr } = await execute(process.execPath, ["browserify.cjs"], { cwd: project });
    expect(stdout + stderr).toBe(OUTPUT);
  });
});

describe("@vercel/nft, with which Next.js and Vercel trace files", () => {
  test.each([
    ["main.cjs", []],
    ["main.mjs", []],
    ["main.cjs", ["node", "require"]],
    ["main.cjs", ["node", "module-sync", "require"]],
    ["main.mjs", ["node", "import"]],
  ])("finds the binaries of the native part from %s, with the conditions %j", async (entry, conditions) => {
    const { nodeFileTrace } = require("@vercel/nft");
    const { fileList } = await nodeFileTrace([path.join(project, entry)], {
      base: project,
      ...(conditions.length > 0 && { conditions }),
    });
    const found = [...(fileList as Set<string>)].filter((file) => file.endsWith(".node")).sort();
    expect(found).toEqual(
      ["arm64", "x64"].map((arch) => `node_modules/cache-machine/native/cache_machine-linux-${arch}.node`),
    );
    // In Node.js 20 nft does not know that `require` follows `module-sync` too, unless it is told. Then it misses dist/index.js.
    if (NODE_MAJOR < 22 && entry === "main.cjs" && !conditions.includes("module-sync")) return;
    // What was traced works where nothing else is.
    const standalone = path.join(projects.folder, `traced-${entry}-${conditions.join("-")}`);
    for (const file of fileList) fs.cpSync(path.join(project, file), path.join(standalone, file), { recursive: true });
    expect(await execute(process.execPath, [entry], { cwd: standalone })).toEqual({
      status: 0,
      stdout: OUTPUT,
      stderr: "",
    });
  });
});
