/**
 * Tests how often the package is in a process, and that it does not matter. In Node.js `require` and `import` give the same
 * instance. Tools can load it twice: from two folders, or once as an ES module and once as CommonJS, which are the same build; or
 * in two versions. Copies of one build share a seat and do everything together. Copies of two builds with the same layout are
 * two participants. Two layouts have two files.
 *
 * `NODES` lists more versions of Node.js (nodes.ts).
 */

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LAYOUT_VERSION } from "../../src/engine/contract.ts";
import { nodeBinary, versions } from "./nodes.ts";
import { execute, Projects, root } from "./projects.ts";

const projects = new Projects("copies");
const { mark } = projects;
const manifest = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
const subpaths = Object.keys(manifest.exports).filter((subpath) => !subpath.endsWith(".json"));
const FIXTURE = pathToFileURL(path.join(root, "test/package/copies.mjs")).href;

/** A project with the package, and a dependency in it that has a copy of its own. */
let project: string;
/** The modules of the copies, as paths. */
const esm = (): string => path.join(project, "node_modules/cache-machine/dist/index.js");
const commonjs = (): string => path.join(project, "node_modules/cache-machine/dist/index.cjs");

beforeAll(async () => {
  project = await projects.installed("project");
  const dependency = path.join(project, "node_modules/dependency");
  fs.mkdirSync(path.join(dependency, "node_modules"), { recursive: true });
  fs.writeFileSync(path.join(dependency, "package.json"), '{ "name": "dependency", "version": "1.0.0" }');
  fs.writeFileSync(path.join(dependency, "index.js"), 'module.exports = require("cache-machine");');
  for (const name of ["cache-machine", "devalue"]) {
    fs.cpSync(path.join(project, "node_modules", name), path.join(dependency, "node_modules", name), {
      recursive: true,
    });
  }
});

afterAll(() => projects.remove());

/** The output of a script in the project. It must end with 0, and without a word on stderr. */
async function run(file: string, body: string, args: string[] = [], node: string = process.execPath): Promise<string> {
  fs.writeFileSync(path.join(project, file), body);
  const { status, stdout, stderr } = await execute(node, [...args, file], { cwd: project });
  expect(stderr).toBe("");
  expect(status, stdout).toBe(0);
  return stdout.trim();
}

/** The binaries of Node.js to test with: the one that runs, and those of `NODES`. */
const binaries: [string, () => Promise<string>][] = [
  [`Node.js ${process.version}`, async () => process.execPath],
  ...versions.map((version): [string, () => Promise<string>] => [version, () => nodeBinary(version)]),
];

describe("a plain installation", () => {
  test("has the package and devalue, and nothing else", () => {
    expect(Object.keys(manifest.dependencies)).toEqual(["devalue"]);
    const installed = fs.readdirSync(path.join(project, "node_modules")).filter((name) => !name.startsWith("."));
    expect(installed.sort()).toEqual(["cache-machine", "dependency", "devalue"]);
  });

  test.each([
    ["an ES module", "index.js", "mjs", 'import { openCache, destroyCache } from "cache-machine";', true],
    [
      "CommonJS",
      "index.cjs",
      "cjs",
      'const { openCache, destroyCache } = require("./node_modules/cache-machine/dist/index.cjs");',
      false,
    ],
  ])(
    "loads nothing but one file as %s: the main entry works without all other modules of the package",
    async (_, kept, ending, head, withDevalue) => {
      const bare = projects.create(`bare-${ending}`);
      fs.cpSync(path.join(project, "node_modules"), path.join(bare, "node_modules"), { recursive: true });
      const dist = path.join(bare, "node_modules/cache-machine/dist");
      for (const file of fs.readdirSync(dist)) if (file !== kept) fs.rmSync(path.join(dist, file), { recursive: true });
      if (!withDevalue) fs.rmSync(path.join(bare, "node_modules/devalue"), { recursive: true });
      expect(fs.readdirSync(dist)).toEqual([kept]);
      const file = path.join(bare, `main.${ending}`);
      const name = JSON.stringify(`${mark}-bare-${ending}`);
      fs.writeFileSync(
        file,
        `${head} const cache = openCache(${name}, { size: "1mb" });
         console.log(cache.set("a", [new Date(5)]).get("a")[0].getTime(), cache.reach); cache.close(); destroyCache(${name});`,
      );
      expect(await execute(process.execPath, [file], { cwd: bare })).toEqual({
        status: 0,
        stdout: "5 processes\n",
        stderr: "",
      });
    },
  );
});

describe.each(binaries)("one instance in %s", (_, binary) => {
  test.each(subpaths)("`require` and `import` of %s give the same, whichever comes first", async (subpath) => {
    const name = JSON.stringify(subpath.replace(".", manifest.name));
    const compare = `
      const names = Object.keys(imported).filter((name) => name !== "module.exports");
      console.log(names.length > 0, names.filter((name) => imported[name] !== required[name]), Object.keys(required).filter((name) => !(name in imported) && name !== "__esModule"));`;
    const node = await binary();
    const sameWay = "true [] []";
    expect(
      await run(
        "a.cjs",
        `const required = require(${name}); import(${name}).then((imported) => { ${compare} });`,
        [],
        node,
      ),
    ).toBe(sameWay);
    expect(
      await run(
        "b.mjs",
        `import * as imported from ${name}; import { createRequire } from "node:module"; const required = createRequire(import.meta.url)(${name}); ${compare}`,
        [],
        node,
      ),
    ).toBe(sameWay);
  });

  test("an error of the package is one for all subpaths", async () => {
    const all = subpaths.map((subpath) => JSON.stringify(subpath.replace(".", manifest.name)));
    const body = `
      const { CacheError, createCache } = require("cache-machine");
      Promise.all([${all}].map((name) => import(name))).then(() => {
        const copies = Object.keys(require.cache).filter((file) => /cache-machine.dist.index/.test(file));
        const cache = createCache({ size: "1mb" });
        try { cache.set("a", "x".repeat(1e6)); } catch (error) { console.log(error.constructor === CacheError, copies.length <= 1); }
      });`;
    expect(await run("c.cjs", body, [], await binary())).toBe("true true");
  });
});

/** Code that names two copies of the package `one` and `other`, and the options of Node.js that it needs. */
const copies: [string, () => string, string[]][] = [
  [
    "an ES module and CommonJS, by their paths",
    () =>
      `import * as one from ${JSON.stringify(pathToFileURL(esm()).href)}; const other = require(${JSON.stringify(commonjs())});`,
    [],
  ],
  [
    "an ES module and CommonJS, where `require` of ES modules is switched off",
    () => 'import * as one from "cache-machine"; const other = require("cache-machine");',
    ["--no-experimental-require-module"],
  ],
  ["two installations", () => 'import * as one from "cache-machine"; import other from "dependency";', []],
  [
    "two queries",
    () =>
      'import * as one from "cache-machine"; const other = await import(import.meta.resolve("cache-machine") + "?again");',
    [],
  ],
];

describe.each(binaries)("two copies of one build in one thread of %s", (_, binary) => {
  test.each(copies)("%s: share a seat, loads, waits, locks and near caches", async (what, load, args) => {
    const name = JSON.stringify(`${mark}-${what.replaceAll(/\W+/g, "-")}`);
    const body = `
      import { createRequire } from "node:module";
      import { apart, together } from ${JSON.stringify(FIXTURE)};
      const require = createRequire(import.meta.url);
      ${load()}
      const caches = await together(one, other, ${name});
      apart(caches);
      console.log(caches.participants, other.destroyCache(${name}), one.destroyCache(${name}));`;
    expect(await run("copies.mjs", body, args, await binary())).toBe("1 true false");
  });
});

test("a worker with CommonJS joins the handle of an ES module, and the other way round", async () => {
  const file = (module: string) => JSON.stringify(module);
  const body = `
    import { Worker } from "node:worker_threads";
    import { createRequire } from "node:module";
    const modules = [${file(esm())}, ${file(commonjs())}];
    for (const [mine, theirs] of [modules, modules.toReversed()]) {
      const { createCache } = createRequire(import.meta.url)(mine);
      const cache = createCache({ size: "1mb" });
      const code = 'import(' + JSON.stringify("file://" + theirs) + ').then(({ attachCache }) => attachCache(require("node:worker_threads").workerData).set("by", "the worker"))';
      await new Promise((resolve) => new Worker(code, { eval: true, workerData: cache.handle }).once("exit", resolve));
      console.log(cache.get("by"));
    }`;
  expect(await run("worker.mjs", body)).toBe("the worker\nthe worker");
});

/**
 * Writes another version of the package beside the built one: with other sources and another engine, and if `layout` is given with
 * another layout of the memory. Returns its path.
 */
function anotherVersion(file: string, layout?: number): string {
  let text = fs.readFileSync(commonjs(), "utf8");
  const replace = (from: string | RegExp, to: string): void => {
    expect(text.split(from).length, String(from)).toBe(2);
    text = text.replace(from, to);
  };
  const engine = fs.readFileSync(path.join(root, "wasm/cache_machine.wasm"));
  const { sha256 } = JSON.parse(fs.readFileSync(path.join(root, "wasm/cache_machine.wasm.json"), "utf8"));
  replace(sha256, "another engine");
  replace(/(?<=cache-machine seat \$\{BUILD\} )[0-9a-f]{64}/, "other sources");
  if (layout !== undefined) {
    // The engine writes the version of its layout into a new cache: `i64.const 6`. Nothing else of the engine knows the number.
    const constant = Buffer.from([0x42, LAYOUT_VERSION]);
    const at = engine.indexOf(constant);
    expect([at > 0, engine.indexOf(constant, at + 1)]).toEqual([true, -1]);
    const changed = Buffer.from(engine);
    changed[at + 1] = layout;
    replace(base64(engine), base64(changed));
    replace(`\n  version: ${LAYOUT_VERSION},\n`, `\n  version: ${layout},\n`);
    replace(` !== BigInt(${LAYOUT_VERSION})`, ` !== BigInt(${layout})`);
  }
  const written = path.join(path.dirname(commonjs()), file);
  fs.writeFileSync(written, text);
  return written;
}

/** As esbuild writes bytes. */
const base64 = (bytes: Buffer): string => bytes.toString("base64").replace(/=+$/, "");

describe("two versions of the package", () => {
  const names = (version: string) =>
    `import * as one from "cache-machine"; const other = require(${JSON.stringify(version)});`;
  const head = `
    import { createRequire } from "node:module";
    import { apart, together } from ${JSON.stringify(FIXTURE)};
    const require = createRequire(import.meta.url);`;

  test("with the same layout, in one thread: work together as two participants", async () => {
    const name = JSON.stringify(`${mark}-build`);
    const body = `${head} ${names(anotherVersion("build.cjs"))}
      const caches = await together(one, other, ${name});
      for (const [from, to] of [[caches.a, other], [caches.b, one]]) {
        try { to.attachCache(from.handle); } catch (error) { console.log(error.code, error instanceof one.CacheError, error.message); }
      }
      apart(caches);
      console.log(caches.participants, one.destroyCache(${name}));`;
    const refusal =
      "ERR_LAYOUT true handle: comes from another version of cache-machine. All threads of a process must load the same one.";
    expect(await run("build.mjs", body)).toBe(`${refusal}\n${refusal}\n2 true`);
  });

  test("with the same layout, a handle of one thread in another: is refused before the memory is touched", async () => {
    const version = JSON.stringify(anotherVersion("thread.cjs"));
    const body = `
      const { Worker } = require("node:worker_threads");
      const { createCache } = require("cache-machine");
      const cache = createCache({ size: "1mb" });
      cache.set("a", 1);
      const code = 'const { workerData, parentPort } = require("node:worker_threads"); try { require(' + ${JSON.stringify(version)} + ').attachCache(workerData); } catch (error) { parentPort.postMessage(error.code); }';
      new Worker(code, { eval: true, workerData: cache.handle }).once("message", (code) => console.log(code, cache.get("a"), cache.stats().participants));`;
    expect(await run("thread.js.cjs", body)).toBe("ERR_LAYOUT 1 1");
  });

  test("with two layouts, in one thread: each has a cache of its own under the same name, and destroys only that", async () => {
    const name = JSON.stringify(`${mark}-layout`);
    const body = `${head} ${names(anotherVersion("layout.cjs", LAYOUT_VERSION + 1))}
      import fs from "node:fs";
      const caches = [one, other].map(({ openCache }, i) => openCache(${name}, { size: "1mb" }).set("a", { i }));
      console.log(caches.map((cache) => cache.get("a").i + " " + cache.census().entries + " " + cache.stats().participants).join());
      let calls = 0;
      console.log((await Promise.all(caches.map((cache) => cache.getOrSet("b", async () => ++calls)))).join());
      for (const [cache, { attachCache }] of [[caches[0], other], [caches[1], one]]) {
        try { attachCache(cache.handle); } catch (error) { console.log(error.code); }
      }
      console.log(other.destroyCache(${name}), other.destroyCache(${name}), caches[1].get("a").i, one.openCache(${name}).get("a").i);
      console.log(one.destroyCache(${name}));`;
    expect(await run("layout.mjs", body)).toBe("0 1 1,1 1 1\n1,2\nERR_LAYOUT\nERR_LAYOUT\ntrue false 1 0\ntrue");
  });

  test("a file with the name of one layout and the bytes of the other: is refused, and stays as it is", async () => {
    const name = JSON.stringify(`${mark}-moved`);
    const body = `${head} ${names(anotherVersion("moved.cjs", LAYOUT_VERSION + 1))}
      import fs from "node:fs";
      const theirs = other.openCache(${name}, { size: "1mb" }).set("a", 1);
      const file = theirs.handle.path;
      const before = fs.readFileSync(file);
      const moved = file.replace(/\\.v\\d+$/, ".v${LAYOUT_VERSION}");
      fs.renameSync(file, moved);
      try { one.openCache(${name}); } catch (error) { console.log(error.code, /layout version/.test(error.message)); }
      console.log(before.equals(fs.readFileSync(moved)), theirs.get("a"), one.destroyCache(${name}), other.destroyCache(${name}));`;
    expect(await run("moved.mjs", body)).toBe("ERR_LAYOUT true\ntrue 1 true false");
  });

  test.each([
    ["the same layout", undefined],
    ["two layouts", LAYOUT_VERSION + 1],
  ])("with %s, in two processes at once: no entry of one is damaged by the other", async (what, layout) => {
    const version = anotherVersion(`processes-${layout}.cjs`, layout);
    const name = `${mark}-processes-${layout}`;
    const body = `
      const [version, mine, theirs] = process.argv.slice(2);
      const { openCache } = require(version);
      const cache = openCache(${JSON.stringify(name)}, { size: "1mb" });
      const check = (value) => { if (value !== undefined && value.sum !== value.text.length) throw new Error("damaged"); return value; };
      let loads = 0;
      (async () => {
        for (let i = 0; i < 5000; i++) {
          const text = "x".repeat((i * 7919) % 3000);
          cache.set(mine + (i % 50), { text, sum: text.length }, i % 3 === 0 ? { tags: ["t" + (i % 5)] } : undefined);
          check(cache.get(theirs + (i % 50)));
          if (i % 97 === 0) cache.invalidateTag("t" + (i % 5));
          if (i % 100 === 0) {
            check(await cache.getOrSet("loaded" + i, async () => { loads++; return { text: "abc", sum: 3 }; }));
            cache.increment("counted");
          }
        }
        cache.increment("done");
        while (cache.get("done") < Number(process.argv[5])) await new Promise((resolve) => setTimeout(resolve, 5));
        console.log(cache.get("counted"));
      })();`;
    fs.writeFileSync(path.join(project, "processes.cjs"), body);
    const together = layout === undefined;
    const both = await Promise.all(
      [
        [commonjs(), "a", "b"],
        [version, "b", "a"],
      ].map((args) =>
        execute(process.execPath, ["processes.cjs", ...(args as string[]), together ? "2" : "1"], { cwd: project }),
      ),
    );
    const expected = { status: 0, stdout: together ? "100\n" : "50\n", stderr: "" };
    expect(both, what).toEqual([expected, expected]);
    const caches = fs.readdirSync("/dev/shm").filter((file) => file.includes(`${name}.v`) && !file.includes(".bell."));
    expect(caches).toHaveLength(together ? 1 : 2);
  });
});
