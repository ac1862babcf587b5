/**
 * Runs each numbered example like its reader: it prints what it promises, ends by itself or on SIGTERM, and leaves nothing in
 * shared memory. The examples are copied into a project (projects.ts), and their caches get other names.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createCache } from "cache-machine";
import { collectMetrics } from "cache-machine/prom-client";
import client, { Registry } from "prom-client";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { NO_SERVER, SERVERS } from "../tier/servers.ts";
import { address, execute, type Output, Projects, Running, root } from "./projects.ts";

const EXAMPLES = path.join(root, "examples");
/** Folders of examples that have tests of their own. */
const ELSEWHERE = ["pm2", "browser", "adapters"];
const projects = new Projects("examples");
const servers: Running[] = [];
let project: string;

beforeAll(() => {
  project = projects.linked("copies", { type: "module" });
  for (const file of sources(EXAMPLES)) {
    const copy = path.join(project, path.relative(EXAMPLES, file));
    fs.mkdirSync(path.dirname(copy), { recursive: true });
    fs.writeFileSync(copy, projects.apart(fs.readFileSync(file, "utf8"), "copy"));
  }
});

afterEach(async () => {
  const left = projects.left();
  for (const server of servers.splice(0)) {
    server.kill();
    await server.ended;
  }
  for (const file of left) fs.unlinkSync(path.join("/dev/shm", file));
  expect(left).toEqual([]);
});

afterAll(() => projects.remove());

/** The files of the numbered examples. */
function sources(folder: string): string[] {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (folder === EXAMPLES && ELSEWHERE.includes(entry.name)) return [];
    const file = path.join(folder, entry.name);
    return entry.isDirectory() ? sources(file) : /\.[mc]?[jt]s$/.test(entry.name) ? [file] : [];
  });
}

function ran({ status, stdout, stderr }: Output): string[] {
  expect(stderr).toBe("");
  expect(status, stdout).toBe(0);
  return stdout.trimEnd().split("\n");
}

async function run(file: string, env: Record<string, string> = {}): Promise<string[]> {
  return ran(await execute(process.execPath, [file], { cwd: project, env }));
}

/** The numbers in a line of output. */
function numbers(line: string | undefined): number[] {
  return (line?.match(/\d+(\.\d+)?/g) ?? []).map(Number);
}

describe("the list of examples", () => {
  const numbered = fs.readdirSync(EXAMPLES).filter((name) => /^\d\d-/.test(name));

  test("the list of examples names every numbered example with the command that runs it, and no other", () => {
    const list = fs.readFileSync(path.join(EXAMPLES, "README.md"), "utf8");
    const links = [...list.matchAll(/^\| \[(\d\d-[\w-]+)\]\(([^)]+)\) .*`node examples\/([^`]+)`/gm)];
    expect(links.map(([, name]) => name)).toEqual(numbered.map((name) => name.replace(/\.\w+$/, "")));
    for (const [, , link = "", command] of links) {
      expect(command).toBe(link);
      expect(fs.existsSync(path.join(EXAMPLES, link)), link).toBe(true);
    }
  });

  test("every numbered example has a test in this file", () => {
    const tested = fs.readFileSync(import.meta.filename, "utf8").matchAll(/^test\("(\d\d-[\w-]+)/gm);
    expect([...tested].map(([, name]) => name)).toEqual(numbered.map((name) => name.replace(/\.\w+$/, "")));
  });

  test("examples in a checkout can import cache-machine, and each example says how to run it", async () => {
    const where = 'process.stdout.write(import.meta.resolve("cache-machine"))';
    const { stdout } = await execute(process.execPath, ["--input-type=module", "-e", where], { cwd: EXAMPLES });
    expect(stdout).toBe(new URL("../../dist/index.js", import.meta.url).href);
    for (const file of sources(EXAMPLES)) {
      const text = fs.readFileSync(file, "utf8");
      const started = numbered.includes(path.basename(file)) || path.basename(file) === "main.mjs";
      if (started) expect(text).toContain(`node examples/${path.relative(EXAMPLES, file)}`);
    }
  });
});

test("01-threads: in the second round no thread computes anything again", async () => {
  const [first, second, ...more] = await run("01-threads/main.mjs");
  expect(more).toEqual([]);
  expect(first).toMatch(/^first round: 8 computed, 0 from the cache/);
  expect(second).toMatch(/^second round: 0 computed, 8 from the cache/);
});

test("02-pm2: all processes answer with the page that one computed, also the process that replaces a killed one", async () => {
  const home = fs.mkdtempSync(path.join(projects.folder, "home-"));
  const lines = ran(await execute(process.execPath, ["02-pm2/main.mjs"], { cwd: project, env: { TMPDIR: home } }));
  const answers = lines.filter((line) => line.startsWith("/a"));
  expect(answers).toHaveLength(8);
  const computed = new Set(answers.map((line) => numbers(line)[0]));
  const answered = new Set(answers.map((line) => numbers(line)[1]));
  expect(computed.size).toBe(1);
  expect(answered.size).toBe(3);
  expect(fs.readdirSync(home)).toEqual([]);
});

test("03-cluster: one worker loads the settings, and the others read them from the cache", async () => {
  const [first, ...others] = await run("03-cluster.mjs");
  expect(first).toMatch(/loaded the settings$/);
  const pid = numbers(first)[0];
  expect(others).toHaveLength(4);
  expect(others.filter((line) => line.endsWith(`has the settings that ${pid} loaded`))).toHaveLength(3);
  expect(others).toContain(`worker ${pid} is killed`);
});

test("04-two-terminals: two processes increment one counter, and no count is lost or doubled", async () => {
  const both = await Promise.all([0, 1].map(() => run("04-two-terminals.mjs", { PAUSE_MS: "100" })));
  const counts = both.flat().map((line) => numbers(line)[0] as number);
  expect(counts.sort((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  for (const lines of both) expect(lines.join()).toMatch(/process \d+/);
});

/** Starts two processes of an example that is a server; their addresses. */
async function serve(file: string): Promise<{ urls: [string, string]; stop: () => Promise<void> }> {
  const both = [0, 1].map(() => new Running(process.execPath, [file], { cwd: project, env: { PORT: "0" } }));
  servers.push(...both);
  const urls = (await Promise.all(both.map(address))) as [string, string];
  const stop = async (): Promise<void> => {
    for (const { child, ended } of both) {
      child.kill("SIGTERM");
      const { status, stderr } = await ended;
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    }
  };
  return { urls, stop };
}

async function ask(
  url: string,
  init?: RequestInit,
): Promise<{ cache: string | null; type: string | null; body: string }> {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000), ...init });
  expect(response.status).toBe(200);
  return {
    cache: response.headers.get("x-cache"),
    type: response.headers.get("content-type"),
    body: await response.text(),
  };
}

async function reports(file: string): Promise<void> {
  const { urls, stop } = await serve(file);
  const first = await ask(urls[0]);
  expect(first.cache).toBe(null);
  expect(JSON.parse(first.body)).toEqual({ report: "sales", computedBy: servers[0]?.child.pid });
  for (const url of urls) expect(await ask(url)).toEqual({ ...first, cache: "hit" });
  expect((await ask(urls[1].replace("sales", "stock"))).cache).toBe(null);
  await stop();
}

test("05-express: an answer of one process is a cache hit in the other", () => reports("05-express.mjs"));

test("06-fastify: an answer of one process is a cache hit in the other", () => reports("06-fastify.mjs"));

test("07-vite: a page is rendered once for both processes, and again after a change", async () => {
  const { urls, stop } = await serve("07-vite.mjs");
  const first = await ask(urls[0]);
  expect(first).toEqual({
    cache: "miss",
    type: "text/html",
    body: `<h1>/about</h1> rendered by ${servers[0]?.child.pid}`,
  });
  expect(await ask(urls[1])).toEqual({ ...first, cache: "hit" });
  await ask(new URL("/publish", urls[0]).href, { method: "POST" });
  const after = await ask(urls[1]);
  expect(after).toMatchObject({ cache: "miss", body: `<h1>/about</h1> rendered by ${servers[1]?.child.pid}` });
  expect(await ask(urls[0])).toEqual({ ...after, cache: "hit" });
  await stop();
});

test("08-lookup-table: one shared table takes less memory than a copy in each process", async () => {
  const lines = await run("08-lookup-table.mjs", { ROWS: "60000" });
  const [, copies, shared, saved, evicted] = lines.map((line) => numbers(line).at(-1) as number);
  expect(copies).toBeGreaterThan((shared as number) + 20);
  expect(Math.abs((saved as number) - ((copies as number) - (shared as number)))).toBeLessThanOrEqual(1);
  expect(evicted).toBe(0);
});

test("09-rate-limit: four processes together allow exactly as many requests as the limit, and say when to come again", async () => {
  const lines = await run("09-rate-limit.mjs");
  expect(lines.slice(0, 3)).toEqual([
    "4 processes answered 60 requests",
    "20 were allowed, 40 were refused",
    'RateLimit-Policy: "per-client";q=20;w=60',
  ]);
  expect(lines[3]).toMatch(/^RateLimit: "per-client";r=0;t=1[12]\d$/);
  // The first of the requests counts for a minute, and then less and less.
  expect(numbers(lines[4] as string)[0]).toBeGreaterThan(50);
});

test("10-run-once: one process at a time runs the job, and another one goes on as soon as the first is killed", async () => {
  const lines = await run("10-run-once.mjs");
  const jobs = lines.filter((line) => line.includes("runs the job")).map(numbers);
  expect(jobs).toHaveLength(2);
  const [[first = 0, firstFence = 0] = [], [second = 0, secondFence = 0] = []] = jobs;
  expect(second).not.toBe(first);
  expect(secondFence).toBeGreaterThan(firstFence);
  expect(lines.filter((line) => line.endsWith("has the report"))).toHaveLength(3);
  expect(lines.at(-1)).toBe(`the report: made by ${second}`);
});

test("11-typescript: the example compiles, and prints what it promises", async () => {
  const tsc = path.join(root, "node_modules/typescript/bin/tsc");
  const args = ["--strict", "--exactOptionalPropertyTypes", "--target", "es2023", "--module", "nodenext"];
  const types = ["--lib", "es2023,esnext.disposable", "--types", "node", "--rewriteRelativeImportExtensions"];
  const out = path.join(project, "compiled");
  execFileSync(process.execPath, [tsc, ...args, ...types, "--outDir", out, "11-typescript.ts"], {
    cwd: project,
    stdio: "inherit",
    timeout: 60_000,
  });
  fs.writeFileSync(path.join(out, "package.json"), '{ "type": "module" }');
  const expected = ["Ada has the roles author and the tags staff", "2 roles, 1 visit", "ERR_TOO_LARGE"];
  expect(await run("compiled/11-typescript.js")).toEqual(expected);
  // Also without compiling, on versions of Node.js that run TypeScript without a flag and without a warning.
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > 24 || (major === 24 && minor >= 12)) expect(await run("11-typescript.ts")).toEqual(expected);
});

test("12-slow-report: one of four processes computes the report, and all of them answer with it", async () => {
  const [first, ...answers] = await run("12-slow-report.mjs");
  expect(first).toMatch(/^process \d+ computes the report$/);
  const by = numbers(first)[0];
  expect(answers).toHaveLength(4);
  expect(new Set(answers.map((line) => numbers(line)[0])).size).toBe(4);
  for (const line of answers) expect(line).toMatch(new RegExp(`answers twice: 99\\.5 and 99\\.5, computed by ${by}$`));
});

test("13-wait-for-result: requests that wait in every process are answered with what one process receives", async () => {
  const [first, ...lines] = await run("13-wait-for-result.mjs");
  expect(first).toBe("6 requests wait");
  expect(lines.filter((line) => line.endsWith("has received the result"))).toHaveLength(1);
  const answers = lines.filter((line) => line.endsWith("answers 42"));
  expect(answers).toHaveLength(6);
  expect(new Set(answers.map((line) => numbers(line)[0])).size).toBe(3);
});

test("14-stale-while-revalidate: the old answer is given at once, and kept while the source fails", async () => {
  const lines = await run("14-stale-while-revalidate.mjs");
  expect(lines.map((line) => /\d+ °C \(\w+\)/.exec(line)?.[0])).toEqual([
    "17 °C (loaded)",
    "17 °C (hit)",
    "17 °C (stale)",
    "18 °C (hit)",
    "18 °C (stale)",
    "18 °C (stale)",
    "18 °C (stale)",
    "18 °C (stale)",
    "21 °C (hit)",
  ]);
  expect(lines.map((line) => numbers(line).at(-1))).toEqual([1, 1, 2, 2, 3, 3, 4, 5, 5]);
});

test("15-configuration: every process loads the configuration that one of them writes", async () => {
  const lines = await run("15-configuration.mjs");
  const loads = (theme: string): Set<number | undefined> =>
    new Set(lines.filter((line) => line.endsWith(`theme ${theme}, 20 items`)).map((line) => numbers(line)[0]));
  expect(loads("light").size).toBe(3);
  expect(loads("dark")).toEqual(loads("light"));
  expect(lines.filter((line) => line.endsWith('writes {"theme":"dark"}'))).toHaveLength(1);
});

test("16-own-adapter: the adapter passes the checks of a store, alone and in four processes", async () => {
  const [alone, together, ...more] = await run("16-own-adapter.mjs");
  expect(alone).toMatch(/^\d{2,} checks passed in this process$/);
  expect(together).toMatch(/^6 checks passed in four processes$/);
  expect(more).toEqual([]);
});

const TIER = "17-tier/main.mjs";
const environment = {
  TMPDIR: fs.mkdtempSync(path.join(projects.folder, "tier-")),
  REDIS_SERVER: SERVERS[0]?.program ?? "",
};

/** What is left of the example in the temporary folder, such as the socket of its server. */
function leftOfTier(): string[] {
  return fs.readdirSync(environment.TMPDIR).filter((name) => name.startsWith("tier-"));
}

test("17-tier: two hosts keep the bound, while an owner and the server are killed", async ({ skip }) => {
  skip(NO_SERVER !== undefined, NO_SERVER);
  const lines = await run(TIER, environment);
  const line = (pattern: RegExp): string => lines.find((text) => pattern.test(text)) ?? `no ${pattern}`;
  const promises = lines.filter((text) => /^ {2}[✓✗] /u.test(text));
  expect(promises).toHaveLength(5);
  for (const promise of promises) expect(promise).toMatch(/^ {2}✓ /u);
  // Once in the beginning and once in the end.
  const seen = /^ +on host A after [\d.,]+ ms and [\d.,]+ ms, on host B after [\d.,]+ ms and [\d.,]+ ms\.$/;
  expect(lines.filter((text) => seen.test(text))).toHaveLength(2);
  expect(line(/took over/)).toMatch(/\d+ took over after [\d,.]+ ms/);
  const [, writes = 0] = /^ {2}writes +(\d+) confirmed, [1-9]\d* refused/.exec(line(/^ {2}writes/)) ?? [];
  expect(Number(writes)).toBeGreaterThan(20);
  // No terminal, so no escape codes.
  expect(lines.join()).not.toContain("\x1b");
  expect(leftOfTier()).toEqual([]);
});

test.for(["SIGINT", "SIGKILL"] as const)("nothing is left of 17-tier when %s ends it", async (signal, { skip }) => {
  skip(NO_SERVER !== undefined, NO_SERVER);
  const running = new Running(process.execPath, [TIER], { cwd: project, env: environment });
  servers.push(running);
  await vi.waitFor(() => expect(running.stdout).toContain("writes price #1."), { timeout: 50_000 });
  const server = Number(/, process (\d+)/.exec(running.stdout)?.[1]);
  const isAlive = (): boolean => fs.existsSync(`/proc/${server}/exe`);
  try {
    expect(isAlive(), running.stdout + running.stderr).toBe(true);
    expect(projects.left()).not.toEqual([]);
    running.child.kill(signal);
    const { status, stderr } = await running.ended;
    expect({ status, stderr }).toEqual({ status: signal === "SIGINT" ? 130 : -1, stderr: "" });
    await vi.waitFor(() => expect([...leftOfTier(), ...projects.left()]).toEqual([]), { timeout: 10_000 });
    await vi.waitFor(() => expect(isAlive()).toBe(false), { timeout: 10_000 });
  } finally {
    if (isAlive()) process.kill(server, "SIGKILL");
  }
});

test("without a server program 17-tier says what is missing", async () => {
  const nowhere = { PATH: "/nowhere", REDIS_SERVER: "/nowhere/redis-server" };
  const { status, stdout, stderr } = await execute(process.execPath, [TIER], { cwd: project, env: nowhere });
  const expected = "REDIS_SERVER is /nowhere/redis-server, and that is no program.\n";
  expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: "", stderr: expected });
});

test("18-metrics: the metrics of four workers are those of the host, and the dashboard asks for metrics that exist", async () => {
  const [first, second, ...more] = await run("18-metrics/main.mjs");
  expect(more).toEqual([]);
  expect(first).toMatch(/: 300 hits, 100 misses, 100 sets, 4 participants$/);
  expect(second).toMatch(/: 400 hits, 100 misses, 100 sets, 4 participants$/);
  const dashboard = JSON.parse(fs.readFileSync(path.join(EXAMPLES, "18-metrics/dashboard.json"), "utf8"));
  const asked = JSON.stringify(dashboard).match(/cache_machine_\w+/g) ?? [];
  const cache = createCache({ size: "1mb" });
  const register = new Registry();
  collectMetrics({ c: cache }, { client, register, census: true });
  const text = await register.metrics();
  cache.close();
  expect(asked.length).toBeGreaterThan(10);
  for (const name of new Set(asked)) expect(text, name).toMatch(new RegExp(`^${name}\\{`, "m"));
});

test("19-snapshot: entries, their tags and a rate limit are there after the memory was lost", async () => {
  const [first, exported, second, ...rest] = await run("19-snapshot.mjs");
  expect(first).toBe("started without a snapshot");
  expect(exported).toMatch(/^exported 10001 entries in \d\.\d MB$/);
  expect(second).toBe("started with 10001 entries, 0 damaged blocks, complete");
  expect(rest).toEqual(["User 7 10 minutes left", "requests left: 8", "after invalidateTag: undefined"]);
});
