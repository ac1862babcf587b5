/**
 * The application's own cache: it is the cache of the project whose code runs, in whichever way that code is started, in
 * whichever process or thread it runs, and whoever asks first. Also its name, and how it ends.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Execution, execute, Projects, root } from "../package/projects.ts";

const WATCHDOG_MS = 60_000;
const projects = new Projects("application");
const { mark, folder: place } = projects;

afterAll(() => projects.remove());

function write(file: string, text: string): string {
  const full = path.resolve(place, file);
  fs.mkdirSync(path.dirname(full), { recursive: true });
  fs.writeFileSync(full, text);
  return full;
}

function link(target: string, file: string): string {
  const full = path.resolve(place, file);
  fs.mkdirSync(path.dirname(full), { recursive: true });
  fs.symlinkSync(target, full);
  return full;
}

/** Runs Node.js; answers the lines that it prints. Errors and warnings are a failure. */
async function run(args: string[], { cwd = place, env }: Partial<Execution> = {}): Promise<string[]> {
  const { status, stdout, stderr } = await execute(process.execPath, args, {
    cwd,
    env: { NODE_NO_WARNINGS: "1", ...env },
  });
  expect([stderr, status], args.join(" ")).toEqual(["", 0]);
  return stdout.trim().split("\n");
}

/** A tool: it runs the file that it is given. */
const TOOL = "#!/usr/bin/env node\nimport(require('node:url').pathToFileURL(process.argv[2]).href);";
const ASK = 'require("cache-machine").openCache().name';

/** Makes a project with the package in its `node_modules`, and with a name that its cache will have. */
function project(folder: string, manifest: object = { name: `${mark}-${path.basename(folder)}` }): string {
  const full = path.join(place, folder);
  write(`${folder}/package.json`, JSON.stringify({ main: "app.js", ...manifest }));
  link(root, `${folder}/node_modules/cache-machine`);
  write(`${folder}/app.js`, `console.log(${ASK});`);
  write(`${folder}/where.js`, `module.exports = () => ${ASK};`);
  write(`${folder}/app.mjs`, 'import { openCache } from "cache-machine"; console.log(openCache().name);');
  write(`${folder}/sub/deep.js`, 'require("../app.js");');
  write(`${folder}/app.test.js`, 'require("node:test")("names", () => require("./app.js"));');
  // A dependency that calls the package itself, and one that runs files in threads or processes of its own.
  write(`${folder}/node_modules/timer/package.json`, '{ "name": "timer" }');
  write(
    `${folder}/node_modules/timer/index.js`,
    `setImmediate(() => console.log(${ASK.replace('"cache-machine"', JSON.stringify(root))}));`,
  );
  write(`${folder}/node_modules/pool/package.json`, '{ "name": "pool" }');
  write(
    `${folder}/node_modules/pool/thread.js`,
    'const { parentPort } = require("node:worker_threads"); parentPort.on("message", (file) => { parentPort.postMessage(require(file)()); parentPort.close(); });',
  );
  write(
    `${folder}/node_modules/pool/process.js`,
    'process.on("message", (file) => process.send(require(file)(), () => process.disconnect()));',
  );
  write(`${folder}/node_modules/tool/package.json`, '{ "name": "tool" }');
  const bin = write(`${folder}/node_modules/tool/bin.js`, TOOL);
  link(path.relative(path.join(full, "node_modules/.bin"), bin), `${folder}/node_modules/.bin/tool`);
  for (const load of ["", 'require("cache-machine");']) {
    const name = load === "" ? "unloaded" : "loaded";
    write(
      `${folder}/${name}.js`,
      `${load} const { Worker } = require("node:worker_threads"); const { fork } = require("node:child_process");
       const where = require.resolve("./where.js");
       const started = [new Worker(require.resolve("pool/thread.js")), fork(require.resolve("pool/process.js")),
         new Worker("require('node:worker_threads').parentPort.postMessage(require(" + JSON.stringify(where) + ")())", { eval: true })];
       for (const each of started) {
         each.on("message", (name) => console.log(name));
         (each.send ?? each.postMessage).call(each, where);
       }`,
    );
  }
  write(
    `${folder}/odd.js`,
    'Error.stackTraceLimit = 0; Error.prepareStackTrace = () => "replaced"; require("./app.js");\n' +
      'if (Error.stackTraceLimit !== 0 || new Error().stack !== "replaced") console.log("not put back");',
  );
  write(`${folder}/frozen.js`, 'Object.freeze(Error); require("./app.js");');
  write(`${folder}/query.mjs`, 'await import("./app.mjs?1"); await import("./app.mjs?2#3");');
  return full;
}

const globalTool = path.join(place, "prefix/lib/node_modules/tool/bin.js");
const globalBin = path.join(place, "prefix/bin/tool");
const linkedBin = path.join(place, "prefix/bin/linked");

beforeAll(() => {
  write("prefix/lib/node_modules/tool/package.json", '{ "name": "tool" }');
  write("prefix/lib/node_modules/tool/bin.js", TOOL);
  link("../lib/node_modules/tool/bin.js", "prefix/bin/tool");
  write("checkout/package.json", '{ "name": "linked" }');
  write("checkout/bin.js", TOOL);
  link("../../../checkout", "prefix/lib/node_modules/linked");
  link("../lib/node_modules/linked/bin.js", "prefix/bin/linked");
  write("elsewhere/package.json", JSON.stringify({ name: `${mark}-elsewhere` }));
  project("a");
  project("b");
});

/** How code of a project is started. Each way prints the name of the application's cache, once or more often. */
const WAYS: [string, (folder: string) => Promise<string[]>][] = [
  ["as a script", (folder) => run([path.join(folder, "app.js")])],
  ["as a script, from its folder", (folder) => run(["app.js"], { cwd: folder })],
  ["as a script in a folder of it", (folder) => run(["deep.js"], { cwd: path.join(folder, "sub") })],
  ["as a script without an ending", (folder) => run([path.join(folder, "app")])],
  ["as a folder", (folder) => run(["."], { cwd: folder })],
  ["as a folder, from elsewhere", (folder) => run([folder])],
  ["as a module", (folder) => run(["app.mjs"], { cwd: folder })],
  ["as a module with a query in its URL", (folder) => run([globalTool, path.join(folder, "query.mjs")])],
  ["by a tool that is installed for everybody", (folder) => run([globalTool, path.join(folder, "app.js")])],
  [
    "as a module, by the link of a tool that is installed for everybody",
    (folder) => run([globalBin, path.join(folder, "app.mjs")]),
  ],
  [
    "by a tool that is installed for everybody, in the folder of another project",
    (folder) => run([globalBin, path.join(folder, "sub/deep.js")], { cwd: path.join(place, "elsewhere") }),
  ],
  ["by a tool that is linked to a checkout", (folder) => run([linkedBin, path.join(folder, "app.js")])],
  [
    "by a tool in its own node_modules",
    (folder) => run(["node_modules/.bin/tool", path.join(folder, "app.js")], { cwd: folder }),
  ],
  ["by a dependency, in a timer", (folder) => run([globalTool, path.join(folder, "node_modules/timer/index.js")])],
  [
    "on the command line",
    (folder) => run(["-e", 'require("./app.js")', path.join(place, "elsewhere")], { cwd: folder }),
  ],
  ["on the command line, without a file", (folder) => run(["-p", ASK, globalTool], { cwd: folder })],
  [
    "by node --test",
    async (folder) =>
      (await run(["--test", "--test-reporter=tap", "app.test.js"], { cwd: folder }))
        .filter((line) => line.includes(mark))
        .map((line) => line.replace(/^[\s#]*/, "")),
  ],
  ["in threads and processes of pools", (folder) => run([path.join(folder, "loaded.js")])],
  [
    "in threads and processes of a main thread that does not load the package",
    (folder) => run([path.join(folder, "unloaded.js")]),
  ],
  ["in threads and processes under a tool", (folder) => run([globalTool, path.join(folder, "loaded.js")])],
  [
    "in threads and processes under a tool, of a main thread that does not load the package",
    (folder) => run([globalTool, path.join(folder, "unloaded.js")]),
  ],
  ["where Error.prepareStackTrace is replaced", (folder) => run([globalTool, path.join(folder, "odd.js")])],
  ["where Error is frozen", (folder) => run([globalTool, path.join(folder, "frozen.js")], { cwd: folder })],
  [
    "with --frozen-intrinsics",
    (folder) => run(["--frozen-intrinsics", globalTool, path.join(folder, "app.js")], { cwd: folder }),
  ],
  [
    "by pm2",
    (folder) => {
      write("pm2/node_modules/pm2/lib/ProcessContainerFork.js", "require(process.env.pm_exec_path);");
      const env = { pm_exec_path: path.join(folder, "app.js") };
      return run([path.join(place, "pm2/node_modules/pm2/lib/ProcessContainerFork.js")], { env });
    },
  ],
];

/** The name of each project's cache, as its own script tells. */
const namesOf = new Map<string, string>();

describe("the application is the project whose code runs", () => {
  beforeAll(async () => {
    for (const name of ["a", "b"]) {
      const [told = ""] = await run([path.join(place, name, "app.js")]);
      expect(told).toMatch(new RegExp(`^${mark}-${name}-[0-9a-f]{12}$`));
      namesOf.set(name, told);
    }
  });

  test.each(WAYS)("code finds the cache of its project when it runs %s", { timeout: WATCHDOG_MS }, async (_, start) => {
    for (const [name, expected] of namesOf) {
      expect(new Set(await start(path.join(place, name)))).toEqual(new Set([expected]));
    }
  });

  test("projects that share the package by links (pnpm's global virtual store) have caches of their own", async () => {
    const store = path.join(place, "store/links/@/cache-machine/1/hash/node_modules");
    fs.mkdirSync(path.join(store, "cache-machine"), { recursive: true });
    fs.cpSync(path.join(root, "package.json"), path.join(store, "cache-machine/package.json"));
    for (const part of ["dist", "native"]) {
      fs.cpSync(path.join(root, part), path.join(store, "cache-machine", part), { recursive: true });
    }
    for (const name of fs.readdirSync(path.join(root, "node_modules"))) {
      if (!name.startsWith(".")) link(path.join(root, "node_modules", name), path.join(store, name));
    }
    const tool = write("store/links/@/tool/1/hash/node_modules/tool/bin.js", TOOL);
    const told: string[] = [];
    for (const name of ["stored-1", "stored-2"]) {
      const folder = project(name);
      fs.rmSync(path.join(folder, "node_modules/cache-machine"));
      link(path.join(store, "cache-machine"), path.join(folder, "node_modules/cache-machine"));
      link(tool, path.join(folder, "node_modules/.bin/stored"));
      const [script] = await run([path.join(folder, "app.js")]);
      expect(script).toContain(`${mark}-${name}-`);
      const bin = path.join(folder, "node_modules/.bin/stored");
      expect(await run([bin, path.join(folder, "app.js")])).toEqual([script]);
      expect(await run([bin, path.join(folder, "app.mjs")], { cwd: folder })).toEqual([script]);
      // A dependency in the store that calls the package itself leads to no project. So the working directory decides.
      const timer = write(
        "store/links/@/timer/1/hash/node_modules/timer/index.js",
        `setImmediate(() => console.log(require(${JSON.stringify(path.join(store, "cache-machine/dist/index.js"))}).openCache().name));`,
      );
      expect(await run([bin, timer], { cwd: path.join(folder, "sub") })).toEqual([script]);
      told.push(script as string);
    }
    expect(new Set(told).size).toBe(2);
  });

  test("each package of a repository is a project, by itself and under a tool of the repository", async () => {
    write("many/package.json", '{ "name": "many", "workspaces": ["packages/*"] }');
    link(root, "many/node_modules/cache-machine");
    const tool = write("many/node_modules/tool/bin.js", TOOL);
    for (const name of ["one", "two"]) {
      const folder = path.join(place, "many/packages", name);
      write(`many/packages/${name}/package.json`, JSON.stringify({ name: `${mark}-${name}` }));
      write(`many/packages/${name}/app.js`, `console.log(${ASK});`);
      link(path.join("../packages", name), `many/node_modules/${name}`);
      const app = path.join(folder, "app.js");
      const ways = [[app], [tool, app], [path.join(place, "many/node_modules", name, "app.js")]];
      const told = await Promise.all(ways.map((way) => run(way, { cwd: path.join(place, "many") })));
      expect(told.flat()).toEqual(told.map(() => expect.stringContaining(`${mark}-${name}-`)));
      expect(new Set(told.flat()).size).toBe(1);
    }
  });

  test("code that a build has put beside a package.json with only `type` belongs to the project around it", async () => {
    const folder = path.join(place, "a");
    write("a/dist/cjs/package.json", '{ "type": "commonjs", "sideEffects": false }');
    write("a/dist/cjs/main.js", `console.log(${ASK});`);
    const told = [
      await run(["dist/cjs/main.js"], { cwd: folder }),
      await run([globalTool, `${folder}/dist/cjs/main.js`]),
    ];
    expect(told.flat()).toEqual([namesOf.get("a"), namesOf.get("a")]);
  });

  test("the working directory decides nothing when a script or its code is in a project, also when it is gone", async () => {
    const app = JSON.stringify(path.join(place, "a/app.js"));
    const away = write("elsewhere/away.js", `process.chdir("/"); require(${app});`);
    const gone = write(
      "elsewhere/gone.js",
      `const fs = require("node:fs"); fs.mkdirSync("gone"); process.chdir("gone"); fs.rmdirSync(process.cwd()); require(${app});`,
    );
    const cwd = path.join(place, "elsewhere");
    // The script of another project decides. Under a tool the code that runs decides.
    expect(await run([away], { cwd })).toEqual(await run([gone], { cwd }));
    expect(await run([globalTool, away])).toEqual([namesOf.get("a")]);
    expect(await run([globalTool, gone], { cwd })).toEqual([namesOf.get("a")]);
  });
});

describe("the name of the application's cache", () => {
  /** Names of folders without a package.json, and of projects in their package.json. */
  const NAMES: [string, string][] = [
    ["28 characters of three bytes", "日本語".repeat(9) + "字"],
    ["an emoji at the 64th place", `${"x".repeat(63)}👍🏽`],
    ["nothing but emoji", "👩‍👩‍👧‍👦".repeat(8)],
    ["an Arabic text", "التطبيق الخاص بي ".repeat(4).trim()],
    ["a text with spaces, dots and percent signs", " a%20b..c #?&"],
    ["a dot and letters", ".config"],
    ["200 letters", "n".repeat(200)],
    ["a text with a backslash and a line feed", "a\\b\nc"],
  ];

  test.each(NAMES)(
    "is readable and well-formed for a folder or project whose name is %s",
    { timeout: WATCHDOG_MS },
    async (_, name) => {
      const parent = path.join(place, `names-${mark}`);
      const folder = path.join(parent, name);
      write(
        `${folder}/app.js`,
        `const { openCache, set, get } = require(${JSON.stringify(root)});
      set("k", 1); console.log(JSON.stringify([openCache().name, openCache().name.isWellFormed(), get("k")])); require(${JSON.stringify(root)}).destroyCache();`,
      );
      // The name comes from the folder, then from the package.json.
      for (const manifest of [undefined, JSON.stringify({ name }), JSON.stringify({ name: `\ud800${name}` })]) {
        if (manifest !== undefined) write(`${folder}/package.json`, manifest);
        const [line = ""] = await run([path.join(folder, "app.js")]);
        const [told, isWhole, value] = JSON.parse(line);
        expect([isWhole, value]).toEqual([true, 1]);
        // The readable part is as much of the name as there is room for.
        const readable = (told as string).slice(0, -13).replace("\ufffd", "");
        expect(name.startsWith(readable) && readable.length >= Math.min(name.length, 10)).toBe(true);
        expect(Buffer.byteLength(encodeURIComponent(told))).toBeLessThan(160);
      }
      fs.rmSync(parent, { recursive: true });
    },
  );

  test("differs for two folders whose names begin alike", async () => {
    const told = await Promise.all(
      ["日".repeat(70), `${"日".repeat(70)}本`].map((name) => {
        const app = write(
          `alike/${name}/app.js`,
          `console.log(require(${JSON.stringify(root)}).openCache().name); require(${JSON.stringify(root)}).destroyCache();`,
        );
        return run([app]);
      }),
    );
    expect(new Set(told.flat()).size).toBe(2);
  });
});

describe("the application's cache", () => {
  test("is opened, cleared and destroyed without a name, and set and get go on with a new one", async () => {
    const folder = project("ending");
    const app = write(
      "ending/main.js",
      `const { openCache, destroyCache, set, get } = require("cache-machine");
       const report = (...values) => console.log(JSON.stringify(values));
       set("a", 1);
       const cache = openCache();
       report(cache.get("a"), cache.stats().participants, cache.ttl("a") === Infinity, cache.set("b", 2, { ttl: 1e6 }).ttl("b") <= 1e6, get("b"));
       cache.delete("a");
       report(get("a"), get());
       cache.clear();
       report(get());
       set("a", 3);
       report(destroyCache(), destroyCache(), cache.get("a"), get("a"));
       set("a", 4);
       report(cache.get("a"), get("a"), openCache().get("a"), openCache().name === cache.name, destroyCache());
       for (const [open, args] of [[openCache, [undefined]], [openCache, [null]], [openCache, [{ ttl: 5 }]], [destroyCache, [undefined]], [openCache, [undefined, {}]], [openCache, [""]]])
         try { open(...args); report("no error"); } catch (error) { report(error.name, error.message); }`,
    );
    const lines = (await run([app], { cwd: folder })).map((line) => JSON.parse(line));
    const noName = "name: must be a string, not";
    expect(lines).toEqual([
      [1, 1, true, true, 2],
      [null, { b: 2 }],
      [{}],
      [true, false, 3, null],
      [3, 4, 4, true, true],
      ["TypeError", `${noName} undefined`],
      ["TypeError", `${noName} object`],
      ["TypeError", `${noName} object`],
      ["TypeError", `${noName} undefined`],
      ["TypeError", `${noName} undefined`],
      ["RangeError", "name: must not be empty"],
    ]);
    expect(projects.left().filter((file) => file.includes("ending"))).toEqual([]);
  });
});
