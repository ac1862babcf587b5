/**
 * The recipes of docs/recipes.md for servers, as they stand there, with the packages that they are for: each of them in four
 * processes. That the blocks of the page run is tested by test/package/docs.test.ts.
 */

import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import fs from "node:fs";
import { type IncomingMessage, request } from "node:http";
import path from "node:path";
import { text } from "node:stream/consumers";
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
    // With many counters no two of these tags share one by chance.
    const responses = responseCache(createCache({ size: "64mb" }));
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
    responses.set("r", { data: "x".repeat(9 << 20) }, [], 60_000);
    expect(responses.get("r") ?? null).toBe(null);
  });
});

describe("p-memoize and DataLoader", () => {
  /** Calls a function twenty times in each of four processes, and returns the results. */
  async function eightyCalls(code: (cache: any, load: any) => Promise<unknown[]>): Promise<unknown[]> {
    const four = [1, 2, 3, 4].map(() => startProcess(NAME));
    const run = async (cache: unknown, code: string): Promise<unknown[]> => {
      // biome-ignore lint/security/noGlobalEval: vitest would replace an `import` in this file by its own.
      const evaluate = globalThis.eval;
      return evaluate(`(${code})`)(cache, (name: string) => evaluate(`import(${JSON.stringify(name)})`));
    };
    return (await Promise.all(four.map((each) => each.run(run, code.toString())))).flat();
  }

  test("p-memoize calls once in each process, and all processes have what one has stored", async () => {
    const results = await eightyCalls(async (cache, load) => {
      const { default: pMemoize } = await load("p-memoize");
      const users = cache.namespace("users", { ttl: 60_000 });
      const loadUser = async (id: number) => {
        cache.increment("calls");
        // Waits until each process has called: if one waited for another, this would not end in time.
        const end = Date.now() + 30_000;
        while (cache.get("calls") < 4 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 1));
        return { id };
      };
      const getUser = pMemoize(loadUser, { cache: users, cacheKey: ([id]: [number]) => String(id) });
      const answers = await Promise.all(Array.from({ length: 20 }, () => getUser(1)));
      await getUser(1);
      return answers;
    });
    expect(results).toEqual(Array.from({ length: 80 }, () => ({ id: 1 })));
    const cache = openCache(NAME);
    expect(cache.get("calls")).toBe(4);
    expect(cache.namespace("users").get("1")).toEqual({ id: 1 });
    cache.close();
  });

  test("memoize calls once in all processes", async () => {
    const results = await eightyCalls(async (cache) => {
      const loadUser = async (id: number) => {
        cache.increment("calls");
        await new Promise((resolve) => setTimeout(resolve, 50));
        return { id };
      };
      const getUser = cache.memoize(loadUser, { key: (id: number) => `user:${id}`, ttl: 60_000, tags: ["users"] });
      return Promise.all(Array.from({ length: 20 }, () => getUser(1)));
    });
    expect(results).toEqual(Array.from({ length: 80 }, () => ({ id: 1 })));
    const cache = openCache(NAME);
    expect(cache.get("calls")).toBe(1);
    cache.close();
  });

  test("with getOrSetMany in the batch function each key is selected once in all processes", async () => {
    const results = await eightyCalls(async (cache, load) => {
      const { default: DataLoader } = await load("dataloader");
      const users = cache.namespace("users", { ttl: 60_000 });
      const selectUsers = async (ids: string[]) => {
        for (const id of ids) cache.increment(`selected ${id}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
        return ids.map((id) => (id === "13" ? null : { id }));
      };
      // A new one for each request. Each request wants 3 of 20 users.
      const request = (i: number) => {
        const loader = new DataLoader((ids: number[]) => users.getOrSetMany(ids.map(String), selectUsers));
        return Promise.all([0, 5, 11].map((step) => loader.load((i + step) % 20)));
      };
      return Promise.all(Array.from({ length: 20 }, (_, i) => request(i)));
    });
    const user = (id: number) => (id === 13 ? null : { id: String(id) });
    expect(results).toEqual(
      Array.from({ length: 80 }, (_, i) => [0, 5, 11].map((step) => user(((i % 20) + step) % 20))),
    );
    const cache = openCache(NAME);
    const selected = Array.from({ length: 20 }, (_, id) => cache.get(`selected ${id}`));
    expect(selected).toEqual(Array.from({ length: 20 }, () => 1));
    cache.close();
  });
});

describe("sessions", () => {
  const file = recipe("Sessions of Express and Fastify", "listen.mjs");
  const cookie = (maxAge = 60_000) => ({ originalMaxAge: maxAge, expires: new Date(Date.now() + maxAge), path: "/" });

  /** Calls a method of a store; what it calls back with. */
  function call(store: any, method: string, ...args: unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      store[method](...args, (error: unknown, result: unknown) => (error ? reject(error) : resolve(result)));
    });
  }

  test("the store does what the memory store of express-session does", async () => {
    const { sessionStore } = await load(file("session-store.mjs"));
    const memory = new session.MemoryStore();
    const store = sessionStore(session.Store, createCache({ size: "4mb" }));
    expect(store).toBeInstanceOf(session.Store);
    const steps: [string, ...unknown[]][] = [
      ["get", "a"],
      ["set", "a", { cookie: cookie(), user: "Ada", list: [1, undefined, () => 1], since: new Date(0) }],
      ["get", "a"],
      ["length"],
      ["touch", "a", { cookie: cookie(120_000), user: "not stored by touch" }],
      ["get", "a"],
      ["touch", "gone", { cookie: cookie() }],
      ["get", "gone"],
      ["set", "b", { cookie: { originalMaxAge: null, expires: null } }],
      ["set", "expired", { cookie: cookie(-1000) }],
      ["get", "expired"],
      ["length"],
      ["destroy", "a"],
      ["destroy", "a"],
      ["get", "a"],
      ["get", "b"],
      ["clear"],
      ["length"],
      ["get", "b"],
      ...ODD.flatMap(([, id]): [string, ...unknown[]][] =>
        typeof id !== "string"
          ? []
          : [
              ["set", id, { cookie: cookie(), id: id.length }],
              ["get", id],
              ["destroy", id],
              ["get", id],
            ],
      ),
    ];
    for (const [method, ...args] of steps) {
      const [mine, theirs] = await Promise.all([call(store, method, ...args), call(memory, method, ...args)]);
      expect(mine ?? undefined, `${method} ${JSON.stringify(args)}`).toEqual(theirs ?? undefined);
    }
    // express-session's text wants a list here, its memory store has an object.
    await call(store, "set", "a", { cookie: cookie(), user: "Ada" });
    expect(await call(store, "all")).toMatchObject([{ user: "Ada" }]);
  });

  test("it calls back once and at once, also with errors and when the callback throws", async () => {
    const { sessionStore } = await load(file("session-store.mjs"));
    const cache = createCache({ size: "1mb" });
    const store = sessionStore(EventEmitter, cache);
    const kept = { cookie: cookie() };
    const calls: [string, ...unknown[]][] = [
      ["set", "a", kept],
      ["get", "a"],
      ["touch", "a", kept],
      ["all"],
      ["length"],
      ["destroy", "a"],
      ["clear"],
    ];
    const tryAll = (expected: unknown): void => {
      for (const [method, ...args] of calls) {
        const answers: unknown[] = [];
        store[method](...args, (error: { code?: string } | null) => answers.push(error?.code ?? error));
        expect(answers, method).toEqual([expected]);
        let times = 0;
        const throwing = (): never => {
          times++;
          throw new Error("of the callback");
        };
        expect(() => store[method](...args, throwing), method).toThrow("of the callback");
        expect(times).toBe(1);
      }
    };
    tryAll(null);
    for (const [method, ...args] of calls) if (method !== "get") store[method](...args);
    // A session that cannot be stored is an error: it would be gone with the next request.
    await expect(call(store, "set", "a", { ...kept, x: "x".repeat(1 << 20) })).rejects.toThrow("the limit is");
    cache.close();
    tryAll("ERR_CLOSED");
  });

  test("express-session: touch moves the expiry of the session and of the cookie in it", async () => {
    const { sessionStore } = await load(file("session-store.mjs"));
    const { default: express } = await import("express");
    const cache = createCache({ size: "1mb" });
    const app = express();
    const store = sessionStore(session.Store, cache);
    const options = { secret: "x", resave: false, saveUninitialized: false, cookie: { maxAge: 60_000 } };
    app.use(session({ ...options, store }));
    app.get("/login", (request, response) => {
      (request.session as any).user = "Ada";
      response.end();
    });
    app.get("/", (request, response) => void response.json((request.session as any).user ?? null));
    const server = app.listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
    try {
      expect(await (await fetch(url)).json()).toBe(null);
      expect(cache.size).toBe(0);
      const [cookie = ""] = (await fetch(`${url}/login`)).headers.getSetCookie();
      const [id = ""] = [...cache.keys()];
      const times = () => [cache.getEntry(id)?.expiresAt, Date.parse(JSON.parse(cache.get(id)).cookie.expires)];
      const before = times();
      expect(before[0]).toBe(before[1]);
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(await (await fetch(url, { headers: { cookie } })).json()).toBe("Ada");
      const after = times();
      expect(after[0]).toBe(after[1]);
      expect(after[0]).toBeGreaterThan(before[0] as number);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });

  test.each(["express-server", "fastify-server"])(
    "%s: who logs in at one process is known to all, and who logs out at one to none",
    async (app) => {
      const urls = await fourServers(file, app);
      const ask = async (which: number, target: string, cookie?: string) => {
        const response = await fetch(urls[which] + target, cookie === undefined ? {} : { headers: { cookie } });
        expect(response.status).toBe(200);
        return { ...((await response.json()) as { visits: number }), cookie: response.headers.getSetCookie()[0] };
      };
      const { visits, cookie } = await ask(0, "/visit");
      expect(visits).toBe(1);
      for (let i = 0; i < 4; i++) expect((await ask(i, "/visit", cookie)).visits).toBe(i + 2);
      expect((await ask(1, "/visit")).visits).toBe(1);
      await ask(2, "/logout", cookie);
      for (let i = 0; i < 4; i++) expect((await ask(i, "/visit", cookie)).visits).toBe(1);
    },
  );
});

/** Asks as a browser does. `fetch` would send `cache-control: no-cache` with `if-none-match`, to which Express answers in full. */
async function ask(url: string, headers: Record<string, string> = {}, method = "GET") {
  const asked = request(url, { headers, method, signal: AbortSignal.timeout(20_000) }).end();
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  const { etag = null, "content-type": type = null } = response.headers;
  return { status: response.statusCode, type, etag, body: await text(response) };
}

describe("responses", () => {
  const RENDER = `import { openCache } from "cache-machine";
    const cache = openCache(process.env.NAME);
    export async function render(name) {
      if (!name.startsWith("known")) return undefined;
      const count = cache.increment(name);
      await new Promise((resolve) => setTimeout(resolve, 50));
      return "<h1>" + name + " " + count + "</h1>";
    }`;

  test.each(["express-server", "fastify-server"])(
    "%s: 80 requests to four processes render once, browsers get 304, and a change is seen by all at once",
    async (app) => {
      const file = recipe("Responses of Express and Fastify", "listen.mjs");
      fs.writeFileSync(file("render.mjs"), RENDER.replace("process.env.NAME", JSON.stringify(NAME)));
      const urls = await fourServers(file, app);
      const all = (name: string) =>
        Promise.all(Array.from({ length: 80 }, (_, i) => ask(`${urls[i % 4]}/pages/${name}`)));

      const answers = await all("known");
      expect(answers[0]).toMatchObject({ status: 200, body: "<h1>known 1</h1>" });
      expect(answers[0]?.type).toMatch(/^text\/html; charset=utf-8$/);
      expect(answers[0]?.etag).toMatch(/^"[\w-]{43}"$/);
      for (const answer of answers) expect(answer).toEqual(answers[0]);

      const etag = answers[0]?.etag as string;
      for (const url of urls) {
        for (const known of [etag, `W/${etag}`, `"other", ${etag}`]) {
          const answer = await ask(`${url}/pages/known`, { "if-none-match": known });
          expect(answer).toMatchObject({ status: 304, etag, body: "" });
        }
        const answer = await ask(`${url}/pages/known`, { "if-none-match": '"other"' });
        expect(answer).toEqual(answers[0]);
      }

      expect((await ask(`${urls[3]}/publish`, {}, "POST")).status).toBe(204);
      const after = await all("known");
      for (const answer of after) expect(answer.body).toBe("<h1>known 2</h1>");
      expect((await ask(`${urls[0]}/pages/known`, { "if-none-match": etag })).status).toBe(200);

      // Fastify refuses long parameters by itself.
      const refused = app === "express-server" ? 404 : 414;
      const long = "x".repeat(5000);
      const names: [string, number][] = [
        ["gone", 404],
        ["__proto__", 404],
        [long, refused],
        [`known${long}`, refused],
        ["%F0%9F%98%80".repeat(600), refused],
        [`known${"%F0%9F%98%80".repeat(400)}`, app === "express-server" ? 200 : 414],
      ];
      for (const [name, status] of names) {
        expect((await ask(`${urls[1]}/pages/${name}`)).status, name.slice(0, 20)).toBe(status);
      }
    },
  );
});
