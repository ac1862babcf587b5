/**
 * Builds the Nitro application of docs/recipes.md, with the packed package installed as its user would, and runs two servers of the
 * build: what one has cached, the other answers with.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
// This folder is a package of its own, without the one under test.
import { openCache } from "../../dist/index.js";
import { sections } from "../package/blocks.ts";
import { execute, freePort, Projects, Running, root } from "../package/projects.ts";

const BUILD_MS = 120_000;
const projects = new Projects("nitro");
const name = `${projects.mark}-app`;
const servers: Running[] = [];
let output: string;

beforeAll(async () => {
  const project = await projects.installed("application", { type: "module" });
  fs.symlinkSync(
    path.join(root, "test/ecosystem/node_modules/nitropack"),
    path.join(project, "node_modules/nitropack"),
  );
  const recipe = sections("recipes.md", fs.readFileSync(path.join(root, "docs/recipes.md"), "utf8"));
  const blocks = recipe.find(({ heading }) => heading === "Nitro")?.blocks ?? [];
  expect(blocks.length).toBeGreaterThan(3);
  for (const { file = "", code } of blocks) {
    fs.mkdirSync(path.dirname(path.join(project, file)), { recursive: true });
    fs.writeFileSync(path.join(project, file), code.replaceAll('"app"', JSON.stringify(name)));
  }
  const nitro = path.join(project, "node_modules/nitropack/dist/cli/index.mjs");
  const { status, stderr, stdout } = await execute(process.execPath, [nitro, "build"], {
    cwd: project,
    timeoutMs: BUILD_MS,
  });
  expect(status, stdout + stderr).toBe(0);
  // While the application was built, no cache was opened.
  expect(projects.left()).toEqual([]);
  // The build stands by itself.
  output = path.join(projects.folder, "output");
  fs.renameSync(path.join(project, ".output"), output);
  fs.rmSync(project, { recursive: true });
}, BUILD_MS + 30_000);

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.kill();
    await server.ended;
  }
  for (const file of projects.left()) fs.unlinkSync(path.join("/dev/shm", file));
});

afterAll(() => projects.remove());

/** Starts a server of the build. Returns a function that asks it. */
async function serve(): Promise<(route: string) => Promise<{ json: any; etag: string | null }>> {
  const port = await freePort();
  const server = new Running(process.execPath, ["server/index.mjs"], {
    cwd: output,
    env: { PORT: `${port}`, HOST: "127.0.0.1" },
  });
  servers.push(server);
  const ended = server.ended.then(({ stdout, stderr }) => {
    throw new Error(`the server ended: ${stdout}${stderr}`);
  });
  ended.catch(() => {});
  const listening = new Promise<void>((resolve) => {
    server.child.stdout?.on("data", () => server.stdout.includes("Listening") && resolve());
  });
  await Promise.race([listening, ended]);
  return async (route) => {
    const response = await fetch(`http://127.0.0.1:${port}${route}`, { signal: AbortSignal.timeout(20_000) });
    expect(response.status, server.stderr).toBe(200);
    return { json: await response.json(), etag: response.headers.get("etag") };
  };
}

/** The cache of the application, as a script of its developer opens it. */
function items(): ReturnType<typeof openCache> {
  return openCache(name).namespace("unstorage");
}

test("what a cached handler of one server returns, the other one answers with, also after the first was killed", async () => {
  const [one, two] = [await serve(), await serve()];
  const first = await one("/report");
  expect(first.json).toEqual({ rows: 1000, by: servers[0]?.child.pid });
  expect(await two("/report")).toEqual(first);
  servers[0]?.kill();
  expect(await two("/report")).toEqual(first);
  expect((await (await serve())("/report")).json).toEqual(first.json);
  // What is removed is rendered again.
  const cached = [...items().keys({ prefix: "nitro:handlers:" })];
  expect(cached).toHaveLength(1);
  items().delete(cached[0] as string);
  expect((await two("/report")).json.by).toBe(servers[1]?.child.pid);
});

test("the storage of one server is that of the other, and a ttl is in seconds", async () => {
  const [one, two] = [await serve(), await serve()];
  await one("/visits");
  const { json } = await two("/visits");
  const pids = servers.map(({ child }) => `${child.pid}`);
  expect(json.sort()).toEqual(pids.sort());
  for (const { child } of servers) {
    const left = items().ttl(`visits:${child.pid}`) ?? 0;
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(60_000);
  }
});

test("a loader of getOrSet runs once for the requests of both servers", async () => {
  const [one, two] = [await serve(), await serve()];
  const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? one : two)("/prices")));
  expect(new Set(answers.map(({ json }) => json.by)).size).toBe(1);
  expect(answers[0]?.json).toMatchObject({ EUR: 1, CHF: 0.94 });
  expect(openCache(name).get("loads")).toBe(1);
});
