/**
 * Tests the package as a newcomer meets it: packed, and installed into empty projects of many kinds (projects.ts), in which it has
 * to work. Error messages say how to go on.
 *
 * `NODES` lists more versions of Node.js to test, each as the path of a binary or as a version that npm installs (nodes.ts):
 *
 *     NODES=22,24,26 npx vitest run newcomer
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runSection, sections } from "./blocks.ts";
import { nodeBinary, versions } from "./nodes.ts";
import { type Execution, execute, type Output, Projects, root } from "./projects.ts";

const BIN = path.join(root, "node_modules/.bin");
const projects = new Projects("newcomer");
const { mark } = projects;

afterAll(() => projects.remove());

/** The output of a program that must end with 0, and without a warning unless `warns` is set. */
function ran({ status, stdout, stderr }: Output, warns = false): string {
  if (!warns) expect(stderr).toBe("");
  expect(status, stdout + stderr).toBe(0);
  return stdout;
}

async function node(project: string, file: string, execution?: Partial<Execution>): Promise<string> {
  return ran(await execute(process.execPath, [file], { cwd: project, ...execution }));
}

function write(project: string, file: string, text: string): void {
  fs.mkdirSync(path.dirname(path.join(project, file)), { recursive: true });
  fs.writeFileSync(path.join(project, file), text);
}

/** A program that uses both reaches, a child process, workers, and an error. */
const JOB = `
const name = "${mark}-job-" + process.pid;
const processes = openCache(name, { size: "1mb" });
const threads = createCache({ size: "1mb" });
processes.set("object", { date: new Date(5), nested: [1n, new Map([["a", Buffer.from("b")]])] });

const work = "import('cache-machine').then(({ attachCache }) => { attachCache(require('node:worker_threads').workerData).increment('n', 41); })";
const child = "const { openCache } = require('cache-machine'); openCache('" + name + "').increment('n', 20)";
const ended = (emitter) => new Promise((resolve) => emitter.once("exit", resolve));
(async () => {
  await ended(new Worker(work, { eval: true, workerData: threads.handle }));
  await ended(new Worker(work, { eval: true, workerData: processes.handle }));
  execFileSync(process.execPath, ["-e", child], { cwd: folder, stdio: "inherit" });
  const { date, nested } = processes.get("object");
  console.log(date.getTime(), nested[0], nested[1].get("a").toString(), threads.get("n"), processes.get("n"));
  processes.close();
  console.log(destroyCache(name), destroyCache(name));
  try { processes.get("n"); } catch (error) { console.log(error instanceof CacheError, error.code); }
})();
`;
const DONE = "5 1n b 41 61\ntrue false\ntrue ERR_CLOSED\n";
const NAMES = "attachCache, CacheError, createCache, destroyCache, openCache";
const ESM = `
import { execFileSync } from "node:child_process";
import { Worker } from "node:worker_threads";
import { ${NAMES.replace("attachCache, ", "")} } from "cache-machine";
const folder = process.cwd();
${JOB}`;
const CJS = `
const { execFileSync } = require("node:child_process");
const { Worker } = require("node:worker_threads");
const { ${NAMES} } = require("cache-machine");
const folder = process.cwd();
${JOB}`;

/** A project with the package; each test has its own folder in it. */
let project: string;

beforeAll(async () => {
  project = await projects.installed("project");
}, 60_000);

describe("the package", () => {
  test("publint finds nothing wrong with the package", async () => {
    const { publint } = await import("publint");
    const { formatMessage } = await import("publint/utils");
    const tarball = fs.readFileSync(projects.pack().file);
    const { messages, pkg } = await publint({ pack: { tarball: new Uint8Array(tarball).buffer }, strict: true });
    expect(messages.map((message) => formatMessage(message, pkg as Record<string, unknown>))).toEqual([]);
  });

  test("arethetypeswrong finds nothing wrong with the types of any subpath, also as TypeScript's old `node10` finds them", async () => {
    const attw = path.join(BIN, "attw");
    // To a file: attw ends before a busy reader of a pipe has everything.
    const command = `"$1" "$2" --format json > attw.json`;
    ran(await execute("sh", ["-c", command, "sh", attw, projects.pack().file], { cwd: projects.folder }));
    const { analysis, problems } = JSON.parse(fs.readFileSync(path.join(projects.folder, "attw.json"), "utf8"));
    expect(analysis.types).toEqual({ kind: "included" });
    const { exports } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
    expect(Object.keys(analysis.entrypoints).sort()).toEqual(Object.keys(exports).sort());
    for (const { resolutions } of Object.values<{ resolutions: object }>(analysis.entrypoints)) {
      expect(Object.keys(resolutions).sort()).toEqual(["bundler", "node10", "node16-cjs", "node16-esm"]);
    }
    expect(problems).toEqual({});
  });
});

describe("in a project with the packed package", () => {
  test("the package works in a project of ES modules", async () => {
    write(project, "esm/main.mjs", ESM);
    expect(await node(project, "esm/main.mjs")).toBe(DONE);
  });

  test("the package works in a project of CommonJS modules", async () => {
    write(project, "cjs/main.cjs", CJS);
    expect(await node(project, "cjs/main.cjs")).toBe(DONE);
  });

  test("the package works in a project of TypeScript, compiled to ES modules and to CommonJS, with the options of `tsc --init`", async () => {
    const folder = path.join(project, "ts");
    fs.mkdirSync(folder);
    const tsc = path.join(BIN, "tsc");
    ran(await execute(tsc, ["--init"], { cwd: folder }));
    write(
      project,
      "ts/main.ts",
      `import { type Cache, createCache, openCache } from "cache-machine";
       interface Point { x: number }
       const points: Cache<Point> = createCache<Point>({ size: "1mb" });
       points.set("a", { x: 1 });
       const point: Point | undefined = points.get("a");
       (globalThis as any).console.log(point?.x, typeof openCache);`,
    );
    // Checks the types of the package too, in a project that has no types of Node.js, and with an older target.
    const strict = ["--skipLibCheck", "false"];
    for (const [type, ...options] of [
      ["module"],
      ["module", "--target", "es2022"],
      // With this option, CommonJS would have to be written as `import x = require()`.
      ["commonjs", "--verbatimModuleSyntax", "false"],
    ]) {
      write(project, "ts/package.json", JSON.stringify({ type }));
      const { stdout, status } = await execute(tsc, ["-p", ".", ...strict, ...options], { cwd: folder });
      expect(stdout).toBe("");
      expect(status).toBe(0);
      expect(await node(project, "ts/main.js")).toBe("1 function\n");
    }
  });

  test.each([
    ["an ES module", "esm", ESM],
    ["CommonJS", "cjs", CJS],
    ["CommonJS, from ES modules", "cjs", ESM],
  ])("a bundle of esbuild works on Node.js, built as %s", async (_, format, text) => {
    const name = `esbuild-${format}-${text === ESM ? "esm" : "cjs"}`;
    write(project, `${name}/main.${text === ESM ? "mjs" : "cjs"}`, text);
    const out = `${name}/out.${format === "esm" ? "mjs" : "cjs"}`;
    const args = [`${name}/main.${text === ESM ? "mjs" : "cjs"}`, "--bundle", "--platform=node", `--format=${format}`];
    ran(
      await execute(path.join(BIN, "esbuild"), [...args, `--outfile=${out}`, "--log-level=error"], {
        cwd: project,
      }),
    );
    expect(await node(project, out)).toBe(DONE);
  });

  test.each([
    ["an ES module", "mjs", 'import { destroyCache, openCache } from "cache-machine";'],
    ["CommonJS", "cjs", 'const { destroyCache, openCache } = require("cache-machine");'],
  ])(
    "a bundle of esbuild as %s, moved away from the package, works with the native part beside it",
    async (_, extension, head) => {
      const away = path.join(projects.folder, `away-${extension}`);
      write(
        project,
        `away/main.${extension}`,
        `${head} const name = "${mark}-away"; const cache = openCache(name, { size: "1mb" }).set("a", 1);
       console.log(cache.get("a")); cache.close(); destroyCache(name);`,
      );
      const format = extension === "mjs" ? "esm" : "cjs";
      const args = [`away/main.${extension}`, "--bundle", "--platform=node", `--format=${format}`, "--log-level=error"];
      const out = `out.${extension}`;
      ran(await execute(path.join(BIN, "esbuild"), [...args, `--outfile=${path.join(away, out)}`], { cwd: project }));
      const binary = `cache_machine-linux-${process.arch}.node`;
      const { stderr } = await execute(process.execPath, [out], { cwd: away });
      expect(stderr).toMatch(/ERR_UNSUPPORTED/);
      expect(stderr).toContain(path.join(away, binary));
      fs.copyFileSync(path.join(project, "node_modules/cache-machine/native", binary), path.join(away, binary));
      expect(await node(away, out)).toBe("1\n");
    },
  );

  test("a bundle of Vite for a server works", async () => {
    write(project, "vite-ssr/main.mjs", ESM);
    for (const config of ["{}", "{ ssr: { noExternal: true } }"]) {
      write(project, "vite-ssr/vite.config.mjs", `export default ${config};`);
      const args = ["build", "vite-ssr", "--ssr", "main.mjs", "--logLevel", "warn"];
      ran(await execute(path.join(BIN, "vite"), args, { cwd: project }));
      const [out = ""] = fs.readdirSync(path.join(project, "vite-ssr/dist"));
      expect(await node(project, `vite-ssr/dist/${out}`)).toBe(DONE);
    }
  });

  test("bundles of Vite and of esbuild for browsers contain nothing of Node.js", async () => {
    write(project, "page/index.html", '<script type="module" src="main.js"></script>');
    // Without Vite's own code for old browsers, which needs a page.
    write(project, "page/vite.config.mjs", "export default { build: { modulePreload: { polyfill: false } } };");
    write(project, "page/main.js", 'import { createCache } from "cache-machine"; globalThis.cache = createCache();');
    ran(await execute(path.join(BIN, "vite"), ["build", "page", "--logLevel", "warn"], { cwd: project }));
    const [asset = ""] = fs.readdirSync(path.join(project, "page/dist/assets"));
    const args = ["page/main.js", "--bundle", "--format=esm", "--outfile=page/esbuild.js", "--log-level=warning"];
    ran(await execute(path.join(BIN, "esbuild"), args, { cwd: project }));
    for (const file of [`page/dist/assets/${asset}`, "page/esbuild.js"]) {
      const text = fs.readFileSync(path.join(project, file), "utf8");
      expect(text).not.toMatch(/dlopen|cache_machine-linux|from ?["']node:|require\(["']node:/);
      expect(text).toContain("cross-origin isolated");
      // The bundle works wherever there are WebAssembly and shared memory.
      write(project, "page/loaded.mjs", `${text}\nconsole.log(globalThis.cache.set("a", 1).get("a"));`);
      expect(await node(project, "page/loaded.mjs")).toBe("1\n");
    }
  });

  test("the section about pm2 in the guide works in a new project", async () => {
    const guide = sections("docs/guides.md", fs.readFileSync(path.join(root, "docs/guides.md"), "utf8"));
    const section = guide.find(({ heading }) => heading === "pm2");
    const folder = await projects.installed("typed");
    // pm2 is the one of the checkout, because npm would download it.
    fs.mkdirSync(path.join(folder, "node_modules/.bin"), { recursive: true });
    fs.symlinkSync(path.join(BIN, "pm2"), path.join(folder, "node_modules/.bin/pm2"));
    fs.symlinkSync(path.join(root, "node_modules/pm2"), path.join(folder, "node_modules/pm2"));
    expect(await runSection(section as never, folder, projects)).toEqual([]);
  });

  test("processes of pm2 in cluster mode and in fork mode share a cache by name, and the application's own cache", async () => {
    const job = `
      set("by " + process.pid, process.env.name);
      openCache("${mark}-pm2", { size: "1mb" }).increment("posted");
      setInterval(() => {}, 1000);`;
    write(project, "pm2/app.mjs", `import { openCache, set } from "cache-machine"; ${job}`);
    write(project, "pm2/app.cjs", `const { openCache, set } = require("cache-machine"); ${job}`);
    write(
      project,
      "pm2/wait.mjs",
      `import { get, openCache } from "cache-machine";
       const cache = openCache("${mark}-pm2", { size: "1mb" });
       const poll = setInterval(() => {
         if (!(cache.get("posted") >= 4)) return;
         clearInterval(poll);
         console.log(cache.get("posted"), Object.values(get()).sort().join(" "));
       }, 20);`,
    );
    const env = { PM2_HOME: path.join(project, "pm2/home"), PM2_DISABLE_VERSION_CHECK: "true" };
    const pm2 = async (...args: string[]): Promise<string> =>
      ran(await execute(path.join(BIN, "pm2"), args, { cwd: project, env }), true);
    try {
      await pm2("start", "pm2/app.mjs", "--name", "cluster", "-i", "2");
      await pm2("start", "pm2/app.cjs", "--name", "fork");
      await pm2("start", "pm2/app.mjs", "--name", "module", "-f");
      expect(await node(project, "pm2/wait.mjs", { timeoutMs: 20_000 })).toBe("4 cluster cluster fork module\n");
    } finally {
      await pm2("kill");
    }
  });
});

/** Options of unshare(1) for a mount namespace with a /dev/shm of its own; undefined where that is forbidden. */
const unshare = ["--mount --fork", "--mount --fork --user --map-root-user"]
  .map((options) => options.split(" "))
  .find((options) => {
    try {
      execFileSync("unshare", [...options, "mount", "-t", "tmpfs", "none", "/mnt"], { stdio: "ignore" });
      return true;
    } catch {
      return false;
    }
  });

describe("in a container", () => {
  const inside = (command: string): Promise<Output> => {
    const script = `mount -t tmpfs -o size=64m none /dev/shm; ${command}`;
    return execute("unshare", [...(unshare as string[]), "sh", "-euc", script], { cwd: project });
  };

  test("with 64 MB of /dev/shm, caches that fit work, and the error for a larger one says how to go on", async ({
    skip,
  }) => {
    skip(unshare === undefined, "this user may not mount anything, not even for itself");
    write(project, "container/main.mjs", ESM);
    write(
      project,
      "container/sizes.mjs",
      `import fs from "node:fs";
       import { createCache, openCache } from "cache-machine";
       const cache = openCache("${mark}-default");
       for (let i = 0; i < 200; i++) cache.set("key" + i, Buffer.alloc(1e6, i));
       console.log(cache.stats().size, cache.get("key199")[5]);
       try { openCache("${mark}-large", { size: "40mb" }); } catch (error) { console.log(error.code, error.message); }
       console.log(fs.readdirSync("/dev/shm").length, createCache({ size: "96mb" }).set("a", 1).get("a"));`,
    );
    expect(ran(await inside(`${process.execPath} container/main.mjs`))).toBe(DONE);
    const [first, second, third] = ran(await inside(`${process.execPath} container/sizes.mjs`)).split("\n");
    expect(first).toBe(`${32 << 20} 199`);
    expect(second).toMatch(/^ERR_NO_SPACE .*--shm-size/);
    expect(third).toBe("1 1");
  });

  test("two containers with the same /dev/shm and process ids of their own share a cache", async ({ skip }) => {
    skip(unshare === undefined, "this user may not mount anything, not even for itself");
    // Both processes have a small process id. Code that identified them by process id would confuse them.
    write(
      project,
      "container/ids.mjs",
      `import { openCache } from "cache-machine";
       const [mine, others] = process.argv.slice(2);
       const cache = openCache("${mark}-ids", { size: "1mb" });
       cache.set(mine, process.pid);
       const poll = setInterval(() => {
         if (!cache.has(others)) return;
         cache.set(mine + " has seen " + others, true);
         if (!cache.has(others + " has seen " + mine)) return;
         clearInterval(poll);
         console.log(process.pid < 10, cache.get(others) < 10);
       }, 5);`,
    );
    const run = (...names: string[]): string =>
      `unshare --pid --fork --mount-proc ${process.execPath} container/ids.mjs ${names.join(" ")}`;
    const both = ran(await inside(`${run("left", "right")} & left=$!; ${run("right", "left")}; wait $left`));
    expect(both).toBe("true true\ntrue true\n");
  });

  test("another user gets a cache of its own under the same name, and has no access to the first user's", async ({
    skip,
  }) => {
    skip(process.getuid?.() !== 0, "only root can be another user");
    write(
      project,
      "container/user.mjs",
      `import { openCache } from "cache-machine";
       const cache = openCache("${mark}-user", { size: "1mb" });
       console.log(cache.get("by"));
       cache.set("by", process.getuid());`,
    );
    expect(await node(project, "container/user.mjs")).toBe("undefined\n");
    expect(await node(project, "container/user.mjs", { uid: 65_534 })).toBe("undefined\n");
    expect(await node(project, "container/user.mjs")).toBe("0\n");
  });
});

describe("error messages", () => {
  test.each([
    [
      "another size than the existing cache has",
      'openCache(n, { size: "1mb" }); openCache(n, { size: "2mb" })',
      /leave `size` out/,
    ],
    [
      "a size that is misspelt",
      'openCache(n, { size: "64 megs" })',
      /size: must be a number of bytes, or a text such as/,
    ],
    ["a name that is undefined", "openCache(undefined)", /name: must be a string/],
    ["a cache as a handle", "attachCache(createCache())", /handle: is a Cache: use its `handle`/],
    [
      "a cache instead of its handle in a message",
      "attachCache(JSON.parse('{}'))",
      /handle: is an empty object.*`cache.handle`/,
    ],
    ["a directory that does not exist", 'openCache(n, { path: "/nowhere" })', /nowhere does not exist.*option `path`/],
    [
      "seconds instead of milliseconds",
      'openCache(n, { size: "1mb" }).set("a", 1, { ttl: "5s" })',
      /ttl: must be a number of milliseconds/,
    ],
    ["a number as a key", 'openCache(n, { size: "1mb" }).get(5)', /key: must be a string or a Uint8Array/],
    [
      "a promise as a value",
      'openCache(n, { size: "1mb" }).set("a", Promise.resolve(1))',
      /value: a Promise .*Await it/,
    ],
    ["undefined as a value", 'openCache(n, { size: "1mb" }).set("a", undefined)', /store null,? or delete the key/i],
    [
      "a handle that was sent as JSON",
      "attachCache(JSON.parse(JSON.stringify(createCache().handle)))",
      /handle: must be the `handle` of a cache/,
    ],
    ["a name as a handle", 'attachCache("app")', /handle: must be the `handle` of a cache/],
    ["a value that is too large", 'openCache(n, { size: "1mb" }).set("a", "x".repeat(1e6))', /an eighth of the cache/],
  ])("the message says what is wrong or what to do after this mistake: %s", async (what, code, message) => {
    const name = JSON.stringify(`${mark}-${what.replaceAll(" ", "-")}`);
    const text = `const { attachCache, createCache, openCache } = require("cache-machine"); const n = ${name}; ${code};`;
    const { status, stderr } = await execute(process.execPath, ["-e", text], { cwd: project });
    expect(status).toBe(1);
    expect(stderr).toMatch(message);
  });
});

describe.runIf(versions.length > 0)("with more versions of Node.js", () => {
  test.each(versions)("the package works in ES modules and in CommonJS on Node.js %s", async (version) => {
    const binary = await nodeBinary(version);
    const use = (file: string): Promise<Output> =>
      execute(binary, [file], { cwd: project, env: { PATH: `${path.dirname(binary)}:${process.env.PATH}` } });
    write(project, "nodes/main.mjs", ESM);
    write(project, "nodes/main.cjs", CJS);
    expect(ran(await use("nodes/main.mjs"))).toBe(DONE);
    expect(ran(await use("nodes/main.cjs"))).toBe(DONE);
  });
});
