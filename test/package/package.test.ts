/**
 * Tests the packed package: its files, and its use in empty projects into which it is installed without a network (projects.ts).
 * More kinds of projects are in newcomer.test.ts.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { execute, Projects, root } from "./projects.ts";

const WATCHDOG_MS = 60_000;
const projects = new Projects("package");
const { mark } = projects;
const { version } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));

afterAll(() => projects.remove());

/** The output of a script in a project; the script must end with 0 and without a warning. */
async function run(project: string, file: string, body?: string): Promise<string> {
  if (body !== undefined) fs.writeFileSync(path.join(project, file), body);
  const { status, stdout, stderr } = await execute(process.execPath, [file], { cwd: project });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout;
}

let packed: { file: string; files: string[] };
/** Projects: one of ES modules, two of CommonJS, and one without the native part. */
let esm: string;
let first: string;
let second: string;
let bare: string;

beforeAll(async () => {
  packed = projects.pack();
  [esm, first, second, bare] = await Promise.all([
    projects.installed("esm", { type: "module" }),
    projects.installed("first"),
    projects.installed("second"),
    projects.installed("bare", { type: "module" }),
  ]);
  fs.rmSync(path.join(bare, "node_modules/cache-machine/native"), { recursive: true });
}, WATCHDOG_MS);

describe("the package", () => {
  test("the package contains the files that it needs, and no others", () => {
    const expected = [
      /^(package\.json|LICENSE|(README|ARCHITECTURE|CHANGELOG|CONTRIBUTING|PROOF)\.md)$/,
      /^dist\/browser\.js$/,
      /^dist\/(cli\/)?THIRD-PARTY\.txt$/,
      /^dist\/cli\/index\.js$/,
      /^dist\/((adapters|metrics|testing|tier)\/)?[a-z-]+(\.js|\.cjs|\.d\.ts|\.d\.cts)$/,
      /^dist\/types\/(([a-z]+\/){0,2}[a-z-]+\.d\.ts|package\.json)$/,
      /^native\/cache_machine-linux-(x64|arm64)\.node$/,
      /^docs\/((adapters\/)?[a-z-]+\.md|images\/[a-z-]+\.svg)$/,
      /^examples\/(README\.md|adapters\/[a-z-]+\.mjs|\d\d-[a-z0-9-]+(\/[a-z]+)?\.(mjs|ts))$/,
      /^examples\/18-metrics\/dashboard\.json$/,
      /^bench\/results\/((report|app|tier|growth)\.md|(speed|growth)\.svg)$/,
    ];
    const surprises = packed.files.filter((file) => !expected.some((pattern) => pattern.test(file)));
    expect(surprises).toEqual([]);
    for (const file of [
      "README.md",
      "LICENSE",
      "CHANGELOG.md",
      "dist/index.js",
      "dist/index.d.ts",
      "dist/browser.js",
      "native/cache_machine-linux-x64.node",
      "native/cache_machine-linux-arm64.node",
    ]) {
      expect(packed.files).toContain(file);
    }
    // An installation is one download of this size.
    expect(fs.statSync(packed.file).size).toBeLessThan(1_000_000);
  });

  test("the documents of the package link only to files of the package, except to the two large examples", () => {
    const documents = packed.files.filter((file) => file.endsWith(".md"));
    expect(documents).toContain("docs/guides.md");
    const dead = documents.flatMap((file) => {
      const text = fs.readFileSync(path.join(root, file), "utf8").replace(/```[\s\S]*?```/g, "");
      return [...text.matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)]
        .map(([, link = ""]) => link)
        .filter((link) => !/^https?:/.test(link))
        .map((link) => path.join(path.dirname(file), link))
        .filter((place) => !packed.files.includes(place) && !packed.files.some((each) => each.startsWith(`${place}/`)))
        .map((place) => `${file}: ${place}`);
    });
    expect(dead).toEqual(["pm2", "browser"].map((large) => `examples/README.md: examples/${large}/README.md`));
  });

  test("the bundles name no source map, because the package has none", () => {
    for (const file of ["dist/index.js", "dist/index.cjs", "dist/browser.js"]) {
      expect(fs.readFileSync(path.join(root, file), "utf8")).not.toContain("sourceMappingURL");
    }
  });

  test("no file of the package contains a path of the machine that built it", () => {
    const folder = fs.mkdtempSync(path.join(projects.folder, "unpacked-"));
    execFileSync("tar", ["-xzf", packed.file, "-C", folder]);
    for (const file of packed.files) {
      const content = fs.readFileSync(path.join(folder, "package", file), "latin1");
      for (const place of [root, os.homedir()].filter((place) => place.length > 1)) {
        expect(content.includes(place), `${file} has ${place}`).toBe(false);
      }
    }
  });
});

const USE = `
  const name = ${JSON.stringify(mark)} + "-" + process.pid;
  const cache = openCache(name, { size: "1mb" });
  cache.set("a", { b: [1n, new Date(5)] });
  const threads = createCache({ size: "1mb" });
  const same = attachCache(threads.handle);
  same.increment("n", 41);
  console.log(cache.reach, cache.get("a").b[0] === 1n, threads.increment("n"));
  cache.close(); destroyCache(name);
  try { cache.get("a"); } catch (error) { console.log(error instanceof CacheError, error.code); }`;
const USED = "processes true 42\ntrue ERR_CLOSED\n";

describe("installed into an empty project", () => {
  test("the package works with import, and exports its package.json", async () => {
    const names = "attachCache, CacheError, createCache, destroyCache, openCache";
    expect(await run(esm, "main.js", `import { ${names} } from "cache-machine"; ${USE}`)).toBe(USED);
    const manifest = 'import data from "cache-machine/package.json" with { type: "json" }; console.log(data.version);';
    const { stdout } = await execute(process.execPath, ["--input-type=module", "-e", manifest], { cwd: esm });
    expect(stdout.trim()).toBe(version);
  });

  test("the package works with require, without a warning, and is the same module as with import", async () => {
    const names = "attachCache, CacheError, createCache, destroyCache, get, openCache, set";
    const body = `const { ${names} } = require("cache-machine"); ${USE}
      import("cache-machine").then((module) => console.log(module.openCache === openCache, typeof get, typeof set));`;
    expect(await run(first, "main.js", body)).toBe(`${USED}true function function\n`);
  });

  test("the types compile for every module system, and the type tests pass", async () => {
    fs.mkdirSync(path.join(esm, "node_modules/@types"), { recursive: true });
    for (const name of ["node", "undici-types"]) {
      const from = path.join(root, "node_modules", name === "node" ? "@types/node" : name);
      fs.symlinkSync(from, path.join(esm, "node_modules", name === "node" ? "@types/node" : name));
    }
    fs.copyFileSync(path.join(root, "test/unit/types.test-d.ts"), path.join(esm, "esm.mts"));
    fs.copyFileSync(path.join(root, "test/unit/types.test-d.ts"), path.join(esm, "cjs.cts"));
    const tsc = path.join(root, "node_modules/typescript/bin/tsc");
    const strict = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2023"];
    const libraries = ["--lib", "es2023,esnext.disposable", "--types", "node"];
    for (const module of [
      ["--module", "nodenext", "esm.mts", "cjs.cts"],
      ["--module", "esnext", "--moduleResolution", "bundler", "esm.mts"],
    ]) {
      const args = [tsc, ...strict, ...libraries, ...module];
      const { stdout, status } = await execute(process.execPath, args, { cwd: esm });
      expect(stdout).toBe("");
      expect(status).toBe(0);
    }
  });

  test("without the native part threads work, and the error of openCache says where it looked for the file", async () => {
    const lost = path.join(
      fs.realpathSync(bare),
      `node_modules/cache-machine/native/cache_machine-linux-${process.arch}`,
    );
    const body = `
      import { Worker } from "node:worker_threads";
      import { createCache, openCache } from "cache-machine";
      const cache = createCache({ size: "1mb" });
      try { openCache("${mark}"); } catch (error) { console.log(error.code, error.message.includes(${JSON.stringify(lost)})); }
      new Worker(new URL("worker.js", import.meta.url), { workerData: cache.handle })
        .on("exit", () => console.log(cache.get("from the worker")));`;
    fs.writeFileSync(
      path.join(bare, "worker.js"),
      `import { workerData } from "node:worker_threads";
       import { attachCache } from "cache-machine";
       attachCache(workerData).set("from the worker", "hello");`,
    );
    expect(await run(bare, "main.js", body)).toBe("ERR_UNSUPPORTED true\nhello\n");
  });
});

describe("the application's own cache, without configuration", () => {
  const GET = 'const { get } = require("cache-machine");\nconsole.log(JSON.stringify([get("key"), get()]));';

  test("entries that one process of an application sets are read by its other processes, one by one or all together", async () => {
    const body = `const { set, get } = require("cache-machine");
      console.log(JSON.stringify([get("key"), get()]));
      set("key", "value"); set("object", { a: [1] }); set("short", 1, { ttl: 1e-9 }); set(Buffer.from("bytes"), 1);
      console.log(set("key", "value"), get("short"), JSON.stringify(get()));`;
    const all = { key: "value", object: { a: [1] } };
    const [before, after] = (await run(first, "set.js", body)).split("\n") as [string, string];
    expect(before).toBe("[null,{}]");
    expect(after).toMatch(/^undefined undefined \{/);
    expect(JSON.parse(after.replaceAll("undefined ", ""))).toEqual(all);
    for (const file of ["get.js", "folder/get.js", "get.mjs"]) {
      fs.mkdirSync(path.join(first, "folder"), { recursive: true });
      const text = file.endsWith("mjs") ? GET.replace(/const (.*) = require\((.*)\)/, "import $1 from $2") : GET;
      const [value, everything] = JSON.parse(await run(first, file, text)) as [string, object];
      expect(value).toBe("value");
      expect(everything).toEqual(all);
    }
  });

  test("another application does not see the entries", async () => {
    expect(await run(second, "get.js", GET)).toBe("[null,{}]\n");
  });

  test("worker threads have the cache of their application, also those of a pool in node_modules, from any working directory", async () => {
    const pool = path.join(first, "node_modules/pool");
    fs.mkdirSync(pool);
    fs.writeFileSync(path.join(pool, "package.json"), '{ "name": "pool" }');
    fs.writeFileSync(
      path.join(pool, "worker.js"),
      'require("node:worker_threads").parentPort.postMessage(require("../../task.js")());',
    );
    fs.writeFileSync(path.join(first, "task.js"), 'module.exports = () => require("cache-machine").get("key");');
    for (const load of ['require("cache-machine");', ""]) {
      const body = `${load} process.chdir("/");
        const { Worker } = require("node:worker_threads");
        const show = (value) => console.log(value);
        new Worker(require.resolve("pool/worker.js")).once("message", show).once("exit", () => {
          ${load} const code = 'require("node:worker_threads").parentPort.postMessage(require(' + ${JSON.stringify(JSON.stringify(path.join(first, "task.js")))} + ')())';
          ${load === "" ? "" : 'new Worker(code, { eval: true }).once("message", show);'}
        });`;
      expect(await run(first, "pool.js", body)).toBe(load === "" ? "value\n" : "value\nvalue\n");
    }
  });

  test("get(undefined) is a TypeError, and __proto__ is a key like any other", async () => {
    const body = `const { set, get } = require("cache-machine");
      try { get(undefined); } catch (error) { console.log(error.name); }
      set("__proto__", { polluted: true }); set("constructor", 1);
      const all = get();
      console.log({}.polluted, Object.keys(all).sort().join(), all.constructor);`;
    expect(await run(second, "keys.js", body)).toBe("TypeError\nundefined __proto__,constructor 1\n");
  });
});
