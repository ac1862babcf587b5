/**
 * The recipes of docs/recipes.md for servers, as they stand there, with the packages that they are for: each of them in four
 * processes. That the blocks of the page run is tested by test/package/docs.test.ts.
 */

import { createHash } from "node:crypto";
import { EventEmitter } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { createCache, openCache } from "cache-machine";
import { acrossProcesses, storeChecks } from "cache-machine/testing";
import session from "express-session";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { endOthers, type Other, startProcess } from "../coordinate/others.ts";
import { ODD } from "../hostile/outside-keys.ts";
import { sections } from "../package/blocks.ts";
import { address, execute, Projects, Running, root } from "../package/projects.ts";

const projects = new Projects("web-recipes");
const page = sections("docs/recipes.md", fs.readFileSync(path.join(root, "docs/recipes.md"), "utf8"));
const servers: Running[] = [];
let caches = 0;
let NAME: string;

beforeEach(() => {
  NAME = `${projects.mark}-${caches++}`;
  openCache(NAME, { size: "16mb" }).close();
});
afterEach(async () => {
  await endOthers();
  for (const server of servers.splice(0)) {
    server.kill();
    await server.ended;
  }
});
afterAll(() => projects.remove());

/** Writes the files of a section of the page, and those of this test, into a project; a function that names them by URL. */
function recipe(heading: string, ...files: string[]): (file: string) => string {
  const section = page.find((each) => each.heading === heading);
  const named = section?.blocks.filter(({ file }) => file !== undefined) ?? [];
  expect(named.length, `files in the section ${heading}`).toBeGreaterThan(0);
  const slug = heading.toLowerCase().replace(/\W+/g, "-");
  const folder = projects.linked(`${slug}-${caches++}`, { type: "module" });
  for (const { file, code } of named) {
    fs.writeFileSync(path.join(folder, file as string), projects.apart(code, path.basename(folder)));
  }
  for (const file of files) {
    fs.copyFileSync(path.join(import.meta.dirname, "recipes", file), path.join(folder, file));
  }
  return (file) => path.join(folder, file);
}

const load = (file: string): Promise<any> => import(/* @vite-ignore */ pathToFileURL(file).href);

/** Four processes that have imported a module; `module` in the functions that they run is that. */
async function fourWith(file: string): Promise<Other[]> {
  const four = [1, 2, 3, 4].map(() => startProcess(NAME));
  const importIt = async (_: unknown, url: string): Promise<void> => {
    // biome-ignore lint/security/noGlobalEval: vitest would replace an `import` in this file by its own.
    (globalThis as any).module = await globalThis.eval(`import(${JSON.stringify(url)})`);
  };
  await Promise.all(four.map((each) => each.run(importIt, pathToFileURL(file).href)));
  return four;
}
declare const module: any;

/** Starts four servers of an app; their addresses. */
async function fourServers(file: (name: string) => string, app: string): Promise<string[]> {
  const cwd = path.dirname(file(app));
  const four = [1, 2, 3, 4].map(() => new Running(process.execPath, ["listen.mjs", app], { cwd }));
  servers.push(...four);
  return Promise.all(four.map(address));
}

describe("Apollo Server", () => {
  const file = recipe("Apollo Server", "apollo-process.mjs", "apollo-store.mjs");

  test("a persisted query that one process has registered is known to another", async () => {
    const query = "{ hello }";
    const sha256Hash = createHash("sha256").update(query).digest("hex");
    const extensions = { persistedQuery: { version: 1, sha256Hash } };
    const ask = async (request: object) => {
      const args = [file("apollo-process.mjs"), NAME, JSON.stringify(request)];
      const { stdout, stderr, status } = await execute(process.execPath, args, { cwd: root });
      expect([status, stderr]).toEqual([0, ""]);
      return JSON.parse(stdout);
    };
    expect((await ask({ extensions })).errors[0].extensions.code).toBe("PERSISTED_QUERY_NOT_FOUND");
    expect(await ask({ query, extensions })).toEqual({ data: { hello: "Hello" } });
    expect(await ask({ extensions })).toEqual({ data: { hello: "Hello" } });
  });

  test("times to live are seconds, and without one a value does not expire", async () => {
    const { keyValueCache } = await load(file("apollo-cache.mjs"));
    const cache = createCache({ size: "1mb" });
    const apollo = keyValueCache(cache);
    for (const options of [undefined, {}, { ttl: null }, { ttl: undefined }]) {
      await apollo.set("a", "1", options);
      expect(cache.ttl("a")).toBe(Number.POSITIVE_INFINITY);
    }
    await apollo.set("a", "2", { ttl: 5 });
    expect(cache.ttl("a")).toBeGreaterThan(4000);
    expect(cache.ttl("a")).toBeLessThanOrEqual(5000);
    // A key that is too long is not stored, as a value that is too large.
    await apollo.set("x".repeat(5000), "1");
    expect(await apollo.get("x".repeat(5000))).toBe(undefined);
    cache.close();
    await expect(apollo.set("a", "1")).rejects.toThrow("closed");
  });

  const has = { values: "text", members: ["delete"] } as const;
  const validKey = (key: string): boolean => key.length < 1300;
  const open = async () => (await load(file("apollo-store.mjs"))).storeOf(createCache({ size: "4mb" }));
  for (const { name, run } of storeChecks({ ...has, open, validKey, tooLarge: 1 << 20 })) test(name, run);

  const env: Record<string, string | undefined> = {
    get NAME() {
      return NAME;
    },
  };
  for (const { name, run } of acrossProcesses(file("apollo-store.mjs"), { ...has, env })) test(name, run);
});

describe("GraphQL Yoga", () => {
  const USER = "query ($id: ID!) { user(id: $id) { id name } }";
  const USERS = "query ($count: Int!) { users(count: $count) { id name } }";
  const RENAME = "mutation ($id: ID!, $name: String) { rename(id: $id, name: $name) { id } }";

  test("four processes answer with what one has computed, and none after a mutation in any of them", async () => {
    const file = recipe("GraphQL Yoga", "yoga-process.mjs");
    const four = await fourWith(file("yoga-process.mjs"));
    const start = (_: unknown, name: string): void => {
      (globalThis as any).ask = module.start(name);
    };
    await Promise.all(four.map((each) => each.run(start, NAME)));
    const cache = openCache(NAME);
    const ask = (which: number, query: string, variables: object): Promise<any> =>
      (four[which] as Other).run((_, query, variables) => (globalThis as any).ask(query, variables), query, variables);
    const executed = (): number => cache.get("executed") ?? 0;

    for (let i = 0; i < 4; i++) expect(await ask(i, USER, { id: "1" })).toEqual({ user: { id: "1", name: "user 1" } });
    for (let i = 0; i < 4; i++) await ask(i, USER, { id: "2" });
    expect(executed()).toBe(2);
    await ask(2, RENAME, { id: "1", name: "Ada" });
    for (let i = 0; i < 4; i++) expect(await ask(i, USER, { id: "1" })).toEqual({ user: { id: "1", name: "Ada" } });
    for (let i = 0; i < 4; i++) await ask(i, USER, { id: "2" });
    expect(executed()).toBe(3);

    // More users than an entry has tags.
    for (let i = 0; i < 4; i++) expect((await ask(i, USERS, { count: 300 })).users).toHaveLength(300);
    expect(executed()).toBe(4);
    await ask(3, RENAME, { id: "299", name: "Grace" });
    for (let i = 0; i < 4; i++) expect((await ask(i, USERS, { count: 300 })).users[299].name).toBe("Grace");
    expect(executed()).toBe(5);
    await ask(0, USER, { id: "2" });
    expect(executed()).toBe(5);

    // Too large to be stored: an answer all the same, computed each time.
    for (let i = 0; i < 2; i++) expect((await ask(i, "{ blob(size: 3000000) }", {})).blob).toHaveLength(3_000_000);
    expect(executed()).toBe(7);
    cache.close();
  });

  test("odd and long ids are invalidated, and types as a whole", async () => {
    const { responseCache } = await load(recipe("GraphQL Yoga")("yoga-cache.mjs"));
    const responses = responseCache(createCache({ size: "1mb" }));
    const ids = ["", "a", "\ud800", "é".repeat(500), `${"é".repeat(500)}a`, 7, 0, "x".repeat(5000)];
    for (const id of ids) {
      responses.set("r", { data: Object.create(null) }, [{ typename: "User", id }], 60_000);
      expect(responses.get("r")).toEqual({ data: {} });
      responses.invalidate([{ typename: "Other", id }]);
      expect(responses.get("r")).toEqual({ data: {} });
      responses.invalidate([{ typename: "User", id }]);
      expect(responses.get("r") ?? null, String(id)).toBe(null);
    }
    responses.set("r", { data: null }, [{ typename: "User", id: 1 }, { typename: "Post" }], Number.POSITIVE_INFINITY);
    responses.invalidate([]);
    expect(responses.get("r")).toEqual({ data: null });
    responses.invalidate([{ typename: "Post" }]);
    expect(responses.get("r") ?? null).toBe(null);
    responses.set("r", { data: 1 }, new Set([{ typename: "User", id: 1 }]).values(), 60_000);
    responses.set("r", { data: "x".repeat(1 << 20) }, [], 60_000);
    expect(responses.get("r") ?? null).toBe(null);
  });
});
