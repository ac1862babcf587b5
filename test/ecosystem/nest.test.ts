/**
 * A NestJS application whose `CacheModule` stands on a cache, in a project into which the packed package is installed: compiled to
 * CommonJS with `module: node16`, served by several processes, and tested by Jest as Nest does it.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { destroyCache, openCache } from "../../dist/index.js";
import { address, execute, Projects, Running, root } from "../package/projects.ts";

const MODULES = path.join(root, "node_modules");
const JEST = path.join(root, "test/ecosystem/node_modules/jest");
const PROCESSES = 4;

const SOURCES: Record<string, string> = {
  "app.module.ts": `
import { CACHE_MANAGER, type Cache, CacheInterceptor, CacheModule, CacheTTL } from "@nestjs/cache-manager";
import { Controller, Get, Inject, Module, Param, Post, UseInterceptors } from "@nestjs/common";
import { openCache } from "cache-machine";
import { createKeyv } from "cache-machine/keyv";

export const cache = openCache(process.env.CACHE as string, { size: "4mb" });
const part = cache.namespace("nest");

@Controller("reports")
export class ReportsController {
  constructor(@Inject(CACHE_MANAGER) private readonly manager: Cache) {}

  @Get("cached/:name")
  @UseInterceptors(CacheInterceptor)
  @CacheTTL(60_000)
  cached(@Param("name") name: string): object {
    return { name, by: process.pid, count: cache.increment("handled") };
  }

  @Get("loaded/:name")
  loaded(@Param("name") name: string): Promise<object> {
    return part.getOrSet("loaded " + name, async () => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      return { name, by: process.pid, count: cache.increment("loaded") };
    });
  }

  @Get("wrapped/:name")
  wrapped(@Param("name") name: string): Promise<object> {
    const key = "wrapped " + name;
    return this.manager.wrap(key, () =>
      part.getOrSet(key, async () => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        return { name, by: process.pid, count: cache.increment("wrapped") };
      }),
    );
  }

  @Get("remaining/:key")
  async remaining(@Param("key") key: string): Promise<object> {
    return { ttl: part.ttl(key) ?? null, manager: (await this.manager.get(key)) ?? null };
  }

  @Post("clear")
  async clear(): Promise<boolean> {
    return this.manager.clear();
  }
}

@Module({
  imports: [CacheModule.register({ ttl: 30_000, stores: [createKeyv(cache, { namespace: "nest" })] })],
  controllers: [ReportsController],
})
export class AppModule {}
`,
  "main.ts": `
import "reflect-metadata";
import { NestFactory } from "@nestjs/core";
import { AppModule } from "./app.module";

async function main(): Promise<void> {
  const app = await NestFactory.create(AppModule, { logger: ["error", "warn"] });
  await app.listen(0, "127.0.0.1");
  process.once("SIGTERM", () => app.close());
  console.log((await app.getUrl()) + " ");
}
main();
`,
  "app.spec.ts": `
import "reflect-metadata";
import { CACHE_MANAGER, type Cache } from "@nestjs/cache-manager";
import type { INestApplication } from "@nestjs/common";
import { Test } from "@nestjs/testing";
import { destroyCache } from "cache-machine";
import { AppModule, cache } from "./app.module";

declare const beforeAll: any, afterAll: any, test: any, expect: any;
let app: INestApplication;

beforeAll(async () => {
  const testing = await Test.createTestingModule({ imports: [AppModule] }).compile();
  app = testing.createNestApplication();
  await app.listen(0, "127.0.0.1");
});
afterAll(async () => {
  await app.close();
  cache.close();
  destroyCache(process.env.CACHE as string);
});

const ask = async (where: string): Promise<any> => (await fetch((await app.getUrl()) + "/reports/" + where)).json();

test("a response is cached, and the cache has it", async () => {
  const first = await ask("cached/a");
  expect(await ask("cached/a")).toEqual(first);
  expect(cache.namespace("nest").get("/reports/cached/a")).toEqual(first);
  expect(cache.namespace("nest").ttl("/reports/cached/a")).toBeGreaterThan(50_000);
});

test("CACHE_MANAGER stores values as they are", async () => {
  const manager = app.get<Cache>(CACHE_MANAGER);
  await manager.set("k", { at: new Date(5) });
  expect(await manager.get("k")).toEqual({ at: new Date(5) });
  expect(cache.namespace("nest").ttl("k")).toBeLessThanOrEqual(30_000);
  await manager.del("k");
  expect(await manager.get("k")).toBe(undefined);
});
`,
};

const projects = new Projects("nest");
const cache = `${projects.mark}-app`;
const servers: Running[] = [];
let project: string;

beforeAll(async () => {
  project = await projects.installed("app", { type: "commonjs" });
  const modules = path.join(project, "node_modules");
  for (const entry of fs.readdirSync(MODULES)) {
    if (!fs.existsSync(path.join(modules, entry))) fs.symlinkSync(path.join(MODULES, entry), path.join(modules, entry));
  }
  fs.symlinkSync(JEST, path.join(modules, "jest"));
  fs.mkdirSync(path.join(project, "src"));
  for (const [file, source] of Object.entries(SOURCES)) fs.writeFileSync(path.join(project, "src", file), source);
  const options = {
    strict: true,
    module: "node16",
    target: "es2022",
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    skipLibCheck: true,
    types: ["node"],
    rootDir: "src",
    outDir: "dist",
  };
  fs.writeFileSync(path.join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: options, include: ["src"] }));
  const tsc = path.join(MODULES, "typescript/bin/tsc");
  execFileSync(process.execPath, [tsc, "-p", "."], { cwd: project, stdio: "inherit", timeout: 60_000 });
}, 120_000);

afterAll(async () => {
  for (const server of servers) server.kill();
  await Promise.all(servers.map(({ ended }) => ended));
  projects.remove();
});

async function ask(url: string, where: string, init?: RequestInit): Promise<any> {
  const response = await fetch(`${url}/reports/${where}`, { signal: AbortSignal.timeout(20_000), ...init });
  expect(response.ok, await response.clone().text()).toBe(true);
  return response.json();
}

test("what one process has cached is a hit in all, and 80 requests load once", async () => {
  for (let i = 0; i < PROCESSES; i++) {
    servers.push(new Running(process.execPath, ["dist/main.js"], { cwd: project, env: { CACHE: cache } }));
  }
  const urls = await Promise.all(servers.map(address));
  const pids = servers.map(({ child }) => child.pid);
  const [one = "", other = ""] = urls;

  const first = await ask(one, "cached/sales");
  expect(first).toEqual({ name: "sales", by: pids[0], count: 1 });
  for (const url of urls) expect(await ask(url, "cached/sales")).toEqual(first);

  for (const path of ["loaded/stock", "wrapped/stock"]) {
    const answers = await Promise.all(Array.from({ length: 80 }, (_, i) => ask(urls[i % PROCESSES] as string, path)));
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(answers[0]).toMatchObject({ name: "stock", count: 1 });
  }
  // `wrap` stores with the `ttl` of the module, `getOrSet` alone without one.
  const { ttl, manager } = await ask(other, `remaining/${encodeURIComponent("wrapped stock")}`);
  expect(ttl).toBeGreaterThan(0);
  expect(ttl).toBeLessThanOrEqual(30_000);
  expect(manager).toMatchObject({ name: "stock", count: 1 });

  await ask(other, "clear", { method: "POST" });
  const again = await ask(one, "cached/sales");
  expect(again.count).toBe(2);
  for (const url of urls) expect(await ask(url, "cached/sales")).toEqual(again);
  // What is not in the namespace of Nest stays.
  const reader = openCache(cache);
  expect(reader.get("handled")).toBe(2);
  reader.close();

  for (const { child, ended } of servers) {
    child.kill("SIGTERM");
    const { status, stderr } = await ended;
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  }
  expect(destroyCache(cache)).toBe(true);
});

test("the same application passes its tests in Jest", async () => {
  const bin = path.join(project, "node_modules/jest/bin/jest.js");
  const args = [bin, "--ci", "--colors=false", "--rootDir", "dist"];
  const env = { CACHE: `${cache}-jest` };
  const { status, stdout, stderr } = await execute(process.execPath, args, { cwd: project, env, timeoutMs: 90_000 });
  const said = `${stdout}${stderr}`;
  expect(status, said).toBe(0);
  expect(said).toContain("2 passed, 2 total");
  expect(said).not.toMatch(/did not exit|failed to exit|Warning/);
  expect(projects.left()).toEqual([]);
});
