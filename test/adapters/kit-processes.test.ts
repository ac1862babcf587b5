/**
 * Tests the checks that several processes make together (`acrossProcesses` of cache-machine/testing): a cache passes, whichever kind of
 * module opens it; each fault is caught by the check that names it; and no process stays behind, whatever happens.
 */

import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { destroyCache } from "cache-machine";
import { acrossProcesses, type Check, type ProcessesOptions } from "cache-machine/testing";
import { afterAll, describe, expect, test } from "vitest";
import { nodeBinary, versions } from "../package/nodes.ts";
import { execute, root } from "../package/projects.ts";

const PATIENCE_MS = 20_000;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-kit-"));
fs.mkdirSync(path.join(folder, "node_modules"));
fs.symlinkSync(root, path.join(folder, "node_modules/cache-machine"));
const NAME = `t-${process.pid}-kit`;
afterAll(() => {
  destroyCache(NAME);
  fs.rmSync(folder, { recursive: true, force: true });
});

const file = (name: string, text: string): string => {
  fs.writeFileSync(path.join(folder, name), text);
  return path.join(folder, name);
};

/** A store over a cache that keeps all promises. `FAULT` has methods that stand in place of its own. */
const GOOD = `
  const over = (cache) => ({
    get: (key) => cache.get(key),
    set: (key, value, options) => cache.trySet(key, value, options),
    delete: (key) => { cache.delete(key); },
    clear: () => { cache.clear(); },
    keys: () => cache.keys(),
    invalidateTag: (tag) => { cache.invalidateTag(tag); },
    getOrSet: (key, load, options) => cache.getOrSet(key, load, options),
    hit: (key, limit, window) => cache.rateLimit(key, { limit, window }).allowed,
    close: () => cache.close(),
    ...new Function("cache", "local", "number", "return {" + (process.env.FAULT ?? "") + "}")(cache, new Map(), process.argv[3]),
  });`;
const OPEN = `openCache(process.env.NAME, { size: "4mb" })`;
const STORE = file(
  "store.mjs",
  `import { openCache } from "cache-machine"; ${GOOD} export default () => over(${OPEN});`,
);
const MEMBERS = ["delete", "clear", "keys", "invalidateTag", "getOrSet", "hit", "close"] as const;

/** The checks over a cache with these methods in place of its own. */
function checksOf(fault: string, options: ProcessesOptions = {}): Check[] {
  const env = { NAME, FAULT: fault };
  return acrossProcesses(STORE, { env, absent: undefined, members: MEMBERS, timeout: PATIENCE_MS, ...options });
}

/** The check whose name contains the text. */
function one(checks: Check[], text: string): Check {
  const found = checks.filter(({ name }) => name.includes(text));
  expect(found).toHaveLength(1);
  return found[0] as Check;
}

/** The error of a check that fails. */
async function failure({ run }: Check): Promise<Error> {
  try {
    await run();
  } catch (error) {
    return error as Error;
  }
  return expect.unreachable("the check does not fail");
}

/** The processes of the kit that run now for this test, as lines of their arguments. */
function running(): string[] {
  return fs
    .readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .map((pid) => {
      try {
        return fs.readFileSync(`/proc/${pid}/cmdline`, "utf8");
      } catch {
        return "";
      }
    })
    .filter((line) => line.includes("testing/participant.js") && line.includes(folder));
}

describe("four processes with a cache", () => {
  for (const { name, run } of checksOf("")) test(name, run);

  test("leave no process behind", () => expect(running()).toEqual([]));
});

describe("a store of several processes is caught that", () => {
  const faults: [string, string, string][] = [
    [
      "keeps its values in its own process",
      "get: (k) => local.get(k), set: (k, v) => { local.set(k, v); }",
      "what one stores, all read",
    ],
    [
      "reads old near copies",
      "get(k) { if (!local.has(k) && cache.has(k)) local.set(k, cache.get(k)); return local.get(k); }, set(k, v, o) { local.set(k, v); cache.set(k, v, o); }",
      "what one stores again, all read",
    ],
    [
      "lets each process read its own value",
      "get(k) { return local.get(k) ?? cache.get(k); }, set(k, v, o) { local.set(k, v); cache.set(k, v, o); }",
      "after all have stored a value",
    ],
    [
      "takes its values with it",
      "set(k, v, o) { number == 1 ? local.set(k, v) : cache.set(k, v, o); }",
      "stays when it is killed",
    ],
    ["forgets the time to live", "set(k, v, { tags } = {}) { cache.set(k, v, { tags }); }", "a value expires in all"],
    [
      "gives half of the time to live",
      "set(k, v, { ttl = Infinity } = {}) { cache.set(k, v, { ttl: ttl / 2 }); }",
      "a value expires in all",
    ],
    [
      "deletes only what it has stored itself",
      "set(k, v, o) { local.set(k); cache.set(k, v, o); }, delete(k) { if (local.has(k)) cache.delete(k); }",
      "what one deletes",
    ],
    ["clears in the first process only", "clear() { if (number == 0) cache.clear(); }", "what one clears"],
    [
      "invalidates a tag in its own process only",
      "set(k, v, o) { local.set(k, o?.tags); cache.set(k, v); }, invalidateTag(tag) { for (const [k, tags] of local) if (tags?.includes(tag)) cache.delete(k); }",
      "a tag that one invalidates",
    ],
    ["invalidates more than the tag", "invalidateTag() { cache.clear(); }", "a tag that one invalidates"],
    [
      "lists its own keys only",
      "set(k, v, o) { local.set(k); cache.set(k, v, o); }, keys: () => local.keys()",
      "keys lists",
    ],
    [
      "lets one more through than the limit",
      "hit: (k, limit, window) => cache.rateLimit(k, { limit: limit + 1, window }).allowed",
      "a limit of n",
    ],
    [
      "lets one less through than the limit",
      "hit: (k, limit, window) => cache.rateLimit(k + (number == 0), { limit: limit - 1, window }).allowed",
      "a limit of n",
    ],
    [
      "counts in each process",
      "hit: (k, limit, window) => cache.rateLimit(k + number, { limit, window }).allowed",
      "a limit of n",
    ],
    [
      "loads once in each process",
      "getOrSet(k, load, o) { if (!local.has(k)) local.set(k, load().then((v) => (cache.set(k, v, o), v))); return local.get(k); }",
      "80 calls of getOrSet load once",
    ],
    [
      "stores nothing that it loads",
      "getOrSet: (k, load) => cache.getOrSet(k, load, { ttl: 1 })",
      "80 calls of getOrSet load once",
    ],
  ];
  test.each(faults)("%s", async (_, fault, name) => {
    const error = await failure(one(checksOf(fault, { processes: 2 }), name));
    expect(error.message).not.toMatch(/not done within|has ended|the store has no/);
    expect(running()).toEqual([]);
  });
});

describe("errors of a process", () => {
  const first = "what one stores, all read";

  test("have the message and the stack that they have there", async () => {
    const fault = "set(k, v) { throw new RangeError('no room for ' + k); }";
    const error = await failure(one(checksOf(fault, { processes: 2 }), first));
    expect(error).toMatchObject({
      name: "RangeError",
      message: expect.stringMatching(/^process 0: no room for check-/),
    });
    expect(error.stack).toMatch(/^RangeError: process 0: RangeError: no room for .*\n +at .*participant\.js/s);
  });

  const broken: [string, string, RegExp][] = [
    ["a module that throws", "throw new Error('no disk')", /^process \d: no disk$/],
    [
      "a module without a default export",
      "export const open = () => {}",
      /^process \d: .*broken-1\.mjs: its default export must be a function that opens the store$/,
    ],
    ["a function that throws", "export default () => { throw 'a text' }", /^process \d: a text$/],
    ["a module that does not exist", "", /^process \d: Cannot find module/],
    [
      "a process that ends",
      "console.error('out of order'); process.exit(3); export default 1",
      /^process \d has ended \(code 3\)\nout of order\n$/,
    ],
    [
      "a process that is killed",
      "process.kill(process.pid, 'SIGKILL'); export default 1",
      /^process \d has ended \(SIGKILL\)$/,
    ],
  ];
  test.each(broken.map((each, i) => [...each, i] as const))("%s", async (_, text, message, i) => {
    const module = text === "" ? path.join(folder, "nothing.mjs") : file(`broken-${i}.mjs`, text);
    await expect(one(acrossProcesses(module, { processes: 2 }), first).run()).rejects.toThrow(message);
    expect(running()).toEqual([]);
  });

  test.each([
    ["answers never", "get: () => new Promise(() => {})"],
    ["never returns to its event loop", "get() { for (;;); }"],
    ["dies while it answers", "get() { process.kill(process.pid, 'SIGKILL'); }"],
    ["does not come to an end with close", "close: () => new Promise(() => {}), get() { throw new Error('failed'); }"],
  ])("a store that %s", async (_, fault) => {
    const message =
      /^(not done within 1000 ms: what one stores, all read|process \d has ended \(SIGKILL\)|process \d: failed)$/;
    await expect(one(checksOf(fault, { processes: 2, timeout: 1_000 }), first).run()).rejects.toThrow(message);
    expect(running()).toEqual([]);
  });

  test("a member that is missing is skipped, and fails when the options say that it is there", async () => {
    const fault = "hit: undefined";
    const reasons: string[] = [];
    const options = { absent: undefined, processes: 2, env: { NAME, FAULT: fault } };
    await one(acrossProcesses(STORE, options), "a limit of n").run({ skip: (why: string) => reasons.push(why) });
    expect(reasons).toEqual(["the store has no hit"]);
    await expect(one(checksOf(fault, { processes: 2 }), "a limit of n").run()).rejects.toThrow(
      /^the store has no hit$/,
    );
  });

  test("wrong arguments say what is wrong", () => {
    expect(() => acrossProcesses("store.mjs")).toThrow(/^module: must be an absolute path or a URL/);
    for (const processes of [1, 65, 2.5]) {
      expect(() => acrossProcesses(STORE, { processes })).toThrow(/^processes: must be a whole number from 2 to 64/);
    }
  });
});

test("when the process of the checks is killed, its processes end by themselves", async () => {
  const program = file(
    "killed.mjs",
    `import { acrossProcesses } from "cache-machine/testing";
     const [check] = acrossProcesses(${JSON.stringify(STORE)}, { env: { NAME: ${JSON.stringify(NAME)}, FAULT: "get: () => new Promise(() => {})" } });
     await check.run();`,
  );
  const child = spawn(process.execPath, [program], { stdio: "ignore" });
  const reach = async (count: number): Promise<void> => {
    for (const since = Date.now(); running().length !== count; ) {
      if (Date.now() - since > PATIENCE_MS) throw new Error(`${running().length} processes, not ${count}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  await reach(4);
  child.kill("SIGKILL");
  await reach(0);
});

describe("the module may be", () => {
  const opener = `${GOOD} const open = () => over(${OPEN});`;
  const modules: [string, string, string][] = [
    ["a CommonJS module", "cjs", `const { openCache } = require("cache-machine"); ${opener} module.exports = open;`],
    [
      "a CommonJS module with a default export of a compiler",
      "cjs",
      `const { openCache } = require("cache-machine"); ${opener} exports.__esModule = true; exports.default = open;`,
    ],
    [
      "a module that opens the store later",
      "mjs",
      `import { openCache } from "cache-machine"; ${GOOD} export default async (number) => { await 0; if (typeof number !== "number") throw number; return over(${OPEN}); }`,
    ],
  ];
  test.each(modules)("%s", async (_, extension, text) => {
    const module = file(`module-${modules.findIndex((each) => each[2] === text)}.${extension}`, text);
    const options = { env: { NAME }, processes: 2 };
    for (const place of [module, pathToFileURL(module), pathToFileURL(module).href]) {
      await one(acrossProcesses(place, options), "what one stores, all read").run();
    }
  });

  test.runIf(versions.length > 0)("a TypeScript module, with a Node.js that strips types", async () => {
    const module = file(
      "module.mts",
      `import { openCache, type Cache } from "cache-machine"; ${GOOD} export default (_: number): unknown => over(${OPEN} as Cache);`,
    );
    for (const version of versions.filter((each) => !/\b(20|22\.1[0-7])\b/.test(each))) {
      const execPath = await nodeBinary(version);
      await one(acrossProcesses(module, { env: { NAME }, processes: 2, execPath }), "what one stores, all read").run();
    }
  });

  test("checked from a CommonJS module", async () => {
    const program = file(
      "main.cjs",
      `const { acrossProcesses, storeChecks, conformance } = require("cache-machine/testing");
       if (storeChecks({ open() {} }).length < 20 || typeof conformance !== "function") throw new Error("exports");
       acrossProcesses(${JSON.stringify(STORE)}, { env: { NAME: ${JSON.stringify(NAME)} } })[0].run().then(() => console.log("passed"));`,
    );
    expect(await execute(process.execPath, [program], { cwd: folder })).toMatchObject({
      status: 0,
      stdout: "passed\n",
      stderr: "",
    });
  });
});
