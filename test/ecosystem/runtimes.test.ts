/**
 * The package in other runtimes than Node.js: Bun and Deno, alone and beside Node.js processes on one cache, and Cloudflare's
 * workerd, which has to refuse with a clear error. docs/platforms.md says what is expected here.
 */

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { execute, Projects } from "../package/projects.ts";

const MODULES = fileURLToPath(new URL("node_modules", import.meta.url));
const BUN = path.join(MODULES, "@oven/bun-linux-x64/bin/bun");
const DENO = path.join(MODULES, "@deno/linux-x64-glibc/deno");
const WORKERD = path.join(MODULES, "@cloudflare/workerd-linux-64/bin/workerd");

const projects = new Projects("runtimes");
let project = "";

beforeAll(async () => {
  project = await projects.installed("app", { type: "module" });
  fs.copyFileSync(fileURLToPath(new URL("runtime.mjs", import.meta.url)), path.join(project, "runtime.mjs"));
});

afterAll(() => projects.remove());

type Command = [string, ...string[]];
const NODE: Command = [process.execPath];
const RUNTIMES: [string, Command][] = [
  ["Node.js", NODE],
  ["Bun", [BUN]],
  ["Deno", [DENO, "run", "-A"]],
];

describe.each(RUNTIMES)("%s", (runtime, command) => {
  const isHere = fs.existsSync(command[0]);
  test.skipIf(!isHere).each([
    ["alone", [command]],
    ["together with processes of Node.js", [command, NODE]],
  ])("threads, processes, loads, waits, locks of the dead, and the fallback: %s", async (title, others) => {
    const name = `${projects.mark}-${runtime}-${title.length}`;
    const [program, ...options] = command;
    const { status, stdout, stderr } = await execute(program, [...options, "runtime.mjs", "main", name], {
      cwd: project,
      env: { OTHERS: JSON.stringify(others), DENO_DIR: path.join(projects.folder, "deno"), DENO_NO_UPDATE_CHECK: "1" },
      timeoutMs: 120_000,
    });
    expect([status, stderr.replace(/^.*(?:CACHE_MACHINE_FALLBACK|does not exist|--trace-warnings).*\n/gm, "")]).toEqual(
      [0, ""],
    );
    expect(JSON.parse(stdout)).toEqual({
      threads: [1500, true],
      reach: "processes",
      processes: ["0,0,0,0", 2000, 1, 60],
      // The value, as one process has loaded it, in all four; and everything else.
      same: 2,
      woken: [42, 0, 42, 0],
      locks: [1, "mine", 1, "mine"],
      // In Bun a thread that ends without `close` may leave its descriptors open, and so keep its seat.
      seats: [1, runtime === "Bun" ? expect.any(Number) : 1],
      destroyed: [true, false],
      fallback: ["threads", 1500, "CACHE_MACHINE_FALLBACK"],
      error: [true, "ERR_UNSUPPORTED"],
    });
    expect(projects.left()).toEqual([]);
  });
});

test.skipIf(!fs.existsSync(DENO))(
  "Deno without permissions: threads share, and the errors of processes are ours",
  async () => {
    fs.writeFileSync(
      path.join(project, "alone.mjs"),
      `import { CacheError, createCache, openCache } from "cache-machine";
     const told = (run) => {
       try { return run(); } catch (error) { return [error instanceof CacheError, error.code]; }
     };
     console.log(JSON.stringify([createCache({ size: "1mb" }).set("a", 1).get("a"), told(() => openCache("app")),
       openCache("app", { size: "1mb", fallback: "threads" }).reach]));`,
    );
    const { status, stdout, stderr } = await execute(DENO, ["run", "--no-prompt", "alone.mjs"], {
      cwd: project,
      env: { DENO_DIR: path.join(projects.folder, "deno"), DENO_NO_UPDATE_CHECK: "1" },
    });
    expect([status, stdout], stderr).toEqual([0, '[1,[true,"ERR_UNSUPPORTED"],"threads"]\n']);
  },
);

describe("Cloudflare workerd", () => {
  const SCRIPT = `
    import { CacheError, createCache, openCache } from "cache-machine";
    const told = (run) => {
      try { return run(); } catch (error) { return [error instanceof CacheError, error.code, error.message]; }
    };
    export default {
      test() { console.log(JSON.stringify([told(() => createCache()), told(() => openCache("app"))])); },
    };`;
  test.skipIf(!fs.existsSync(WORKERD))(
    "the package is imported, and its errors say what the runtime lacks",
    async () => {
      const folder = path.join(project, "workerd");
      fs.mkdirSync(folder);
      await build({
        stdin: { contents: SCRIPT, resolveDir: project },
        bundle: true,
        format: "esm",
        conditions: ["workerd", "worker", "browser"],
        outfile: path.join(folder, "main.mjs"),
        logLevel: "error",
      });
      fs.writeFileSync(
        path.join(folder, "config.capnp"),
        `using Workerd = import "/workerd/workerd.capnp";
       const config :Workerd.Config = (services = [(name = "main", worker = (
         modules = [(name = "main", esModule = embed "main.mjs")], compatibilityDate = "2026-04-01"))]);`,
      );
      const { status, stdout, stderr } = await execute(WORKERD, ["test", "config.capnp"], { cwd: folder });
      expect([status, stderr]).toEqual([0, expect.stringContaining("PASS")]);
      const [line] = /^\[\[.*$/m.exec(stdout) ?? [];
      expect(JSON.parse(line ?? stdout)).toEqual([
        [true, "ERR_UNSUPPORTED", expect.stringContaining("Cloudflare Workers")],
        [true, "ERR_UNSUPPORTED", expect.stringContaining("edge runtime")],
      ]);
    },
  );
});
