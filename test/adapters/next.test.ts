/**
 * The handlers for Next.js without Next.js: what they store and find, how tags become stale and expire, odd keys and tags, which cache
 * they open, and processes that share it. Applications with the real Next.js are in test/ecosystem/next.test.ts.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type Cache, createCache, destroyCache } from "cache-machine";
import { createCacheHandler, type NextCacheEntry } from "cache-machine/next";
import { createIncrementalCacheHandler, type IncrementalHandler } from "cache-machine/next/incremental";
import { acrossProcesses } from "cache-machine/testing";
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { seeded } from "../contract/seeded.ts";
import { execute, root } from "../package/projects.ts";

const NAME = `t-${process.pid}-next`;
const HOUR = 3600;
let cache: Cache;
let temporary: string;

beforeEach(() => {
  cache = seeded(1, () => createCache({ size: "32mb", maxEntrySize: "500kb" }));
  temporary = fs.mkdtempSync(path.join(os.tmpdir(), "cache-machine-next-"));
});
afterEach(() => {
  vi.useRealTimers();
  cache.close();
  fs.rmSync(temporary, { recursive: true });
});
afterAll(() => void destroyCache(NAME));

const clock = (): number => performance.timeOrigin + performance.now();
/** Lets time pass; all clocks stand still otherwise. */
const pass = (seconds: number): void => void vi.advanceTimersByTime(seconds * 1000);
const stopClocks = (): void => void vi.useFakeTimers({ toFake: ["Date", "performance"], now: 1_800_000_000_000 });
const streamOf = (...chunks: string[]): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(Buffer.from(chunk));
      controller.close();
    },
  });
const entryOf = (text: string, more: Partial<NextCacheEntry> = {}): NextCacheEntry => ({
  value: streamOf(text),
  tags: [],
  stale: 30,
  timestamp: clock(),
  expire: 24 * HOUR,
  revalidate: HOUR,
  ...more,
});
const textOf = (entry: NextCacheEntry | undefined): Promise<string> | undefined =>
  entry && new Response(entry.value).text();

describe('the handler for "use cache"', () => {
  const open = () => createCacheHandler({ cache });
  const set = (key: string, text: string, more?: Partial<NextCacheEntry>) =>
    open().set(key, Promise.resolve(entryOf(text, more)));
  const read = async (key: string, softTags: string[] = []) => textOf(await open().get(key, softTags));
  const revalidateOf = async (key: string) => (await open().get(key, []))?.revalidate;

  test("returns what was stored, each time with a new stream, and nothing for another key", async () => {
    stopClocks();
    const stored = entryOf("", { value: streamOf("one ", "", "two"), tags: ["a", "b"] });
    await open().set("key", Promise.resolve(stored));
    for (let i = 0; i < 2; i++) {
      const { value, timestamp, ...rest } = (await open().get("key", [])) as NextCacheEntry;
      expect(await new Response(value).text()).toBe("one two");
      expect(rest).toEqual({ tags: ["a", "b"], stale: 30, expire: 24 * HOUR, revalidate: HOUR });
      expect(Math.abs(timestamp - stored.timestamp)).toBeLessThanOrEqual(1);
    }
    expect(await open().get("other", [])).toBeUndefined();
    await set("empty", "");
    expect(await read("empty")).toBe("");
    await open().refreshTags();
  });

  test("a stream that fails, or a function that fails, stores nothing, and what was there stays", async () => {
    await set("key", "before");
    const failing = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.enqueue(Buffer.from("half"));
        controller.error(new Error("cut off"));
      },
    });
    for (const key of ["key", "new"]) {
      await open().set(key, Promise.resolve(entryOf("", { value: failing })));
      await open().set(key, Promise.reject(new Error("failed")));
    }
    expect([await read("key"), await read("new")]).toEqual(["before", undefined]);
  });

  test("get waits for a set that is under way in this process, also when it fails", async () => {
    const handler = open();
    let resolve: (entry: NextCacheEntry) => void = () => {};
    let reject: (error: Error) => void = () => {};
    const stored = handler.set("key", new Promise((done) => (resolve = done)));
    const got = handler.get("key", []).then(textOf);
    resolve(entryOf("late"));
    expect(await got).toBe("late");
    await stored;
    const failed = handler.set("other", new Promise((_, fail) => (reject = fail)));
    const nothing = handler.get("other", []);
    reject(new Error("failed"));
    expect(await nothing).toBeUndefined();
    await failed;
  });

  test("updateTags lets entries with one of the tags expire, and entries that are asked for with it", async () => {
    stopClocks();
    await set("a", "a", { tags: ["x", "y"] });
    await set("b", "b", { tags: ["z"] });
    pass(1);
    expect(await open().getExpiration(["x", "path"])).toBe(0);
    await open().updateTags(["y", "path"]);
    expect([await read("a"), await read("b"), await read("b", ["path"])]).toEqual([undefined, "b", undefined]);
    expect(Math.abs((await open().getExpiration(["x", "path"])) - clock())).toBeLessThanOrEqual(1);
    pass(1);
    await set("a", "again", { tags: ["x", "y"] });
    expect(await read("a", ["path"])).toBe("again");
  });

  test("an entry whose function was called before an invalidation is not found, though it is stored after it", async () => {
    stopClocks();
    const timestamp = clock();
    pass(1);
    await open().updateTags(["x"]);
    await open().updateTags(["y"], { expire: HOUR });
    pass(1);
    await set("a", "new", { tags: ["x"] });
    await set("d", "old", { tags: ["x"], timestamp });
    // What another process has computed meanwhile stays.
    await set("a", "old", { tags: ["x"], timestamp });
    await set("b", "old", { tags: ["y"], timestamp });
    await set("c", "old", { timestamp });
    expect([await read("a"), await read("d")]).toEqual(["new", undefined]);
    expect([await read("c"), await read("c", ["x"])]).toEqual(["old", undefined]);
    expect(await revalidateOf("b")).toBe(-1);
  });

  test("with durations entries are stale, then they expire; those made since are fresh", async () => {
    stopClocks();
    await set("a", "old", { tags: ["x"] });
    await set("b", "old", { tags: ["x"] });
    pass(1);
    await open().updateTags(["x"], { expire: 60 });
    expect([await read("a"), await revalidateOf("a")]).toEqual(["old", -1]);
    pass(1);
    await set("a", "new", { tags: ["x"] });
    expect([await revalidateOf("a"), await revalidateOf("b")]).toEqual([HOUR, -1]);
    pass(58.9);
    expect([await revalidateOf("a"), await revalidateOf("b")]).toEqual([HOUR, -1]);
    pass(0.1);
    expect([await read("a"), await read("b")]).toEqual(["new", undefined]);
  });

  test("durations without an end leave entries stale, of 0 let them expire at once; the latest counts", async () => {
    stopClocks();
    await set("a", "a", { tags: ["x"] });
    await set("b", "b", { tags: ["y"], expire: 0xfffffffe, revalidate: 0xfffffffe });
    pass(1);
    await open().updateTags(["x"], {});
    await open().updateTags(["y"], { expire: 0xfffffffe });
    pass(20 * HOUR);
    expect([await revalidateOf("a"), await revalidateOf("b")]).toEqual([-1, -1]);
    await open().updateTags(["x"], { expire: 5 });
    pass(4);
    expect(await revalidateOf("a")).toBe(-1);
    pass(1);
    expect(await read("a")).toBeUndefined();
    await open().updateTags(["y"], { expire: 0 });
    expect(await read("b")).toBeUndefined();
  });

  test("when the cache has evicted until when stale entries may be used, they count as expired", async () => {
    stopClocks();
    await set("a", "a", { tags: ["x"] });
    pass(1);
    await open().updateTags(["x"], { expire: 60 });
    expect(await revalidateOf("a")).toBe(-1);
    const before = cache.namespace("next").namespace("entries").get("stale x");
    expect(cache.namespace("next").namespace("entries").delete("stale x")).toBe(true);
    expect(await read("a")).toBeUndefined();
    // The same when the latest time could not be stored, and an older one is there.
    await set("a", "a", { tags: ["x"] });
    pass(1);
    await open().updateTags(["x"], { expire: 1 });
    expect(await revalidateOf("a")).toBe(-1);
    cache.namespace("next").namespace("entries").set("stale x", before);
    expect(await read("a")).toBeUndefined();
  });

  test("hardly any entry goes because its tag shares a time of the cache with other tags", async () => {
    stopClocks();
    for (let i = 0; i < 1000; i++) await set(`key ${i}`, "", { tags: [`own ${i}`] });
    pass(1);
    await open().updateTags(Array.from({ length: 1000 }, (_, i) => `other ${i}`));
    const found = await Promise.all(Array.from({ length: 1000 }, (_, i) => revalidateOf(`key ${i}`)));
    // The cache has 12,288 times for tags. With two of them for each tag it is about 45 entries, with one it would be about 300.
    expect(found.filter((revalidate) => revalidate !== HOUR).length).toBeLessThan(150);
  });

  test("another process invalidates tags by a handler of its own, and who has the cache can remove everything", async () => {
    stopClocks();
    await set("a", "a", { tags: ["x"] });
    await set("b", "b");
    pass(1);
    await createCacheHandler({ cache }).updateTags(["x"]);
    expect([await read("a"), await read("b")]).toEqual([undefined, "b"]);
    cache.clear();
    expect(await read("b")).toBeUndefined();
  });

  test("300 tags, long ones, empty ones and odd ones work", async () => {
    const odd = [
      "",
      "__proto__",
      "\0",
      "x".repeat(257),
      "é".repeat(200),
      "\ud800",
      "sha256:",
      "_N_T_/" + "p".repeat(1024),
    ];
    const tags = [...odd, ...Array.from({ length: 300 }, (_, i) => `tag ${i}`)];
    stopClocks();
    for (const tag of [...odd, "tag 299"]) {
      await set("a", "a", { tags });
      pass(1);
      expect(await read("a", ["\udfff", "x".repeat(258)]), tag).toBe("a");
      await open().updateTags([tag], { expire: 60 });
      expect(await revalidateOf("a"), tag).toBe(-1);
      await open().updateTags([tag]);
      expect(await read("a"), tag).toBeUndefined();
      pass(1);
    }
    await open().updateTags([]);
    expect(await open().getExpiration([])).toBe(0);
  });

  test("odd keys are keys like any other", async () => {
    const keys = [
      "",
      "__proto__",
      "constructor",
      "\0",
      "\ud800",
      "\udfff",
      "x".repeat(10_000),
      `${"x".repeat(10_000)}y`,
      "é".repeat(4000),
    ];
    for (const [i, key] of keys.entries()) await set(key, String(i));
    for (const [i, key] of keys.entries()) expect(await read(key)).toBe(String(i));
  });

  test("an entry is gone when it has expired; one that expires at once is not stored", async () => {
    stopClocks();
    await set("a", "a", { expire: 10 });
    await set("now", "now", { expire: 0 });
    expect(await read("now")).toBeUndefined();
    pass(9.9);
    expect(await read("a")).toBe("a");
    pass(0.2);
    expect(await read("a")).toBeUndefined();
  });

  test("an entry that is too large is not stored, and what was there is gone", async () => {
    await set("a", "small");
    await set("a", "x".repeat(1_000_000));
    expect(await read("a")).toBeUndefined();
  });

  test("the clock of Next.js may differ from that of the machine, which was set meanwhile", async () => {
    for (const ahead of [-7_200_000, 7_200_000]) {
      stopClocks();
      await set("a", "a", { tags: ["x"] });
      // The time since the process began does not follow.
      vi.setSystemTime(Date.now() - ahead);
      await set("b", "b", { tags: ["x"], expire: 10 });
      const { timestamp } = (await open().get("b", [])) as NextCacheEntry;
      expect(Math.abs(timestamp - clock())).toBeLessThanOrEqual(1);
      pass(1);
      await open().updateTags(["x"]);
      expect(await read("b")).toBeUndefined();
      expect(Math.abs((await open().getExpiration(["x"])) - clock())).toBeLessThanOrEqual(1);
      pass(1);
      await set("b", "again", { tags: ["x"], expire: 10 });
      expect(await read("b")).toBe("again");
      cache.clear();
      vi.useRealTimers();
      cache = seeded(2, () => createCache({ size: "32mb", maxEntrySize: "500kb" }));
    }
  });
});

describe("the class for cacheHandler", () => {
  /** The handler of a new request. */
  const request = (serverDistDir = "/app/.next/server", revalidatedTags: string[] = []): IncrementalHandler =>
    new (createIncrementalCacheHandler({ cache }))({ serverDistDir, revalidatedTags });
  const page = (html: string, tags?: string): object => ({
    kind: "APP_PAGE",
    html,
    status: 200,
    ...(tags === undefined ? {} : { headers: { "x-next-cache-tags": tags } }),
  });
  const answer = (body: string, revalidate = HOUR): object => ({
    kind: "FETCH",
    data: { body, headers: {}, url: "u" },
    revalidate,
  });
  const htmlOf = async (key: string, handler = request()) => (await handler.get(key, { kind: "APP_PAGE" }))?.value.html;
  const bodyOf = async (key: string, context: object = {}, handler = request()) =>
    (await handler.get(key, { kind: "FETCH", ...context }))?.value.data.body;

  test("values of every kind come back as they were, buffers as buffers", async () => {
    const values: Record<string, any> = {
      APP_PAGE: {
        kind: "APP_PAGE",
        html: "<p>é\u2028</p>",
        rscData: Buffer.from([0, 255, 1]),
        headers: { "x-next-cache-tags": "a,b", "set-cookie": ["a", "b"] },
        postponed: "state",
        status: 200,
        segmentData: new Map([
          ["/_tree", Buffer.from("tree")],
          ["/__proto__", Buffer.alloc(0)],
        ]),
      },
      PAGES: {
        kind: "PAGES",
        html: "",
        pageData: { deep: [{ buffers: ["x"] }, null, "\0"] },
        status: 404,
        headers: {},
      },
      APP_ROUTE: { kind: "APP_ROUTE", body: Buffer.from([1, 2, 3]), status: 201, headers: { "content-type": "x/y" } },
      REDIRECT: { kind: "REDIRECT", props: { __N_REDIRECT: "/there", __N_REDIRECT_STATUS: 307 } },
      IMAGE: { kind: "IMAGE", etag: "e", upstreamEtag: "u", buffer: Buffer.from([7]), extension: "webp" },
    };
    for (const [kind, value] of Object.entries(values)) {
      await request().set(`/${kind}`, value, { cacheControl: { revalidate: 60, expire: undefined } });
      const entry = await request().get(`/${kind}`, { kind });
      expect(entry?.value).toStrictEqual(value);
      expect(entry?.cacheControl).toStrictEqual({ revalidate: 60, expire: undefined });
      expect(Math.abs((entry?.lastModified as number) - clock())).toBeLessThan(5000);
    }
    expect(Buffer.isBuffer((await request().get("/APP_PAGE", { kind: "APP_PAGE" }))?.value.rscData)).toBe(true);
    await request().set("fetch", answer("text"), { fetchCache: true, tags: ["a"] });
    expect((await request().get("fetch", { kind: "FETCH" }))?.value).toEqual(answer("text"));
    // Next.js wants to be told when a value has no buffer, or no Map.
    await request().set("/bare", { ...page(""), rscData: undefined, segmentData: undefined, postponed: undefined }, {});
    expect((await request().get("/bare", { kind: "APP_PAGE" }))?.value).toEqual(page(""));
    await request().set("/none", null, { cacheControl: { revalidate: false, expire: undefined } });
    expect(await request().get("/none", { kind: "APP_PAGE" })).toMatchObject({
      value: null,
      cacheControl: { revalidate: false },
    });
    expect(await request().get("/absent", { kind: "APP_PAGE" })).toBeNull();
    expect(await request().get("fetch", { kind: "APP_PAGE" })).toBeNull();
  });

  test("revalidateTag lets pages, answers of routes and of fetch expire: by their own tags, and by those they are asked for with", async () => {
    stopClocks();
    await request().set("/a", page("a", "x,_N_T_/a"), {});
    await request().set("/r", { kind: "APP_ROUTE", body: Buffer.from("r"), headers: { "x-next-cache-tags": "x" } }, {});
    await request().set("/b", page("b", "y"), {});
    await request().set("/c", page("c"), {});
    await request().set("f", answer("f"), { fetchCache: true, tags: ["x"] });
    await request().set("g", answer("g"), { fetchCache: true });
    pass(1);
    await request().revalidateTag(["x", "soft"]);
    expect([await htmlOf("/a"), await htmlOf("/b"), await htmlOf("/c")]).toEqual([undefined, "b", "c"]);
    expect(await request().get("/r", { kind: "APP_ROUTE" })).toBeNull();
    expect([await bodyOf("f"), await bodyOf("g")]).toEqual([undefined, "g"]);
    expect(await bodyOf("g", { softTags: ["soft"] })).toBeUndefined();
    expect(await bodyOf("g", { tags: ["x"] })).toBeUndefined();
    await request().revalidateTag("y");
    expect(await htmlOf("/b")).toBeUndefined();
    expect(await bodyOf("g", { tags: ["t"] }, request(undefined, ["t"]))).toBeUndefined();
    expect(await bodyOf("g", { tags: ["t"] })).toBe("g");
    request().resetRequestCache();
  });

  test("what was being rendered when its tag was invalidated is not found afterwards", async () => {
    stopClocks();
    const slow = request();
    expect(await htmlOf("/a", slow)).toBeUndefined();
    pass(1);
    await request().revalidateTag("x");
    await request().revalidateTag("y", { expire: HOUR });
    pass(1);
    await slow.set("/a", page("old", "x"), {});
    expect(await htmlOf("/a")).toBeUndefined();
    await slow.set("/a", page("old", "y"), { cacheControl: { revalidate: HOUR, expire: undefined } });
    expect((await request().get("/a", { kind: "APP_PAGE" }))?.cacheControl?.revalidate).toBe(1);
    const quick = request();
    await htmlOf("/a", quick);
    await quick.set("/a", page("new", "x,y"), {});
    await slow.set("/a", page("old", "x"), {});
    expect(await htmlOf("/a")).toBe("new");
  });

  /** What Next.js 16.4 computes of an entry: whether it is used, stale, or not used. */
  function judged(entry: any, asked: number | undefined = undefined): "fresh" | "stale" | "blocking" {
    const { lastModified, cacheControl, value } = entry;
    if (value.kind === "FETCH")
      return (clock() - lastModified) / 1000 > (asked || value.revalidate) ? "stale" : "fresh";
    if (typeof cacheControl.expire === "number" && cacheControl.expire * 1000 + lastModified < clock())
      return "blocking";
    const { revalidate } = cacheControl;
    return revalidate !== false && revalidate * 1000 + lastModified < clock() ? "stale" : "fresh";
  }

  test("with durations Next.js sees that entries are stale, whatever their times, and they expire later", async () => {
    stopClocks();
    const controls = [
      { revalidate: false, expire: undefined },
      { revalidate: HOUR, expire: 2 * HOUR },
      { revalidate: 1, expire: 31_536_000 },
      { revalidate: 31_536_000, expire: 31_536_000 },
    ] as const;
    const limits = [1, HOUR, 31_536_000, 0xfffffffe];
    for (const [i, cacheControl] of controls.entries()) await request().set(`/${i}`, page("p", "x"), { cacheControl });
    for (const limit of limits)
      await request().set(`f ${limit}`, answer("f", limit), { fetchCache: true, tags: ["x"] });
    const judgements = async () => [
      ...(await Promise.all(controls.map((_, i) => request().get(`/${i}`, { kind: "APP_PAGE" })))).map(
        (e) => e && judged(e),
      ),
      ...(await Promise.all(limits.map((limit) => request().get(`f ${limit}`, { kind: "FETCH" })))).map(
        (e) => e && judged(e),
      ),
      ...[await request().get("f 1", { kind: "FETCH", revalidate: 5 * HOUR })].map((e) => e && judged(e, 5 * HOUR)),
    ];
    pass(0.5);
    expect(new Set(await judgements())).toEqual(new Set(["fresh"]));
    await request().revalidateTag("x", { expire: 60 });
    expect(new Set(await judgements())).toEqual(new Set(["stale"]));
    pass(59);
    expect(new Set(await judgements())).toEqual(new Set(["stale"]));
    pass(1);
    expect(new Set(await judgements())).toEqual(new Set([null]));
  });

  test("an entry goes stale and expires by its own times too", async () => {
    stopClocks();
    await request().set("/a", page("a"), { cacheControl: { revalidate: 5, expire: 10 } });
    pass(6);
    expect(judged(await request().get("/a", { kind: "APP_PAGE" }))).toBe("stale");
    pass(4);
    expect(await htmlOf("/a")).toBeUndefined();
  });

  test("builds do not see each other's entries, and the same build in two folders does", async () => {
    const folders = ["one", "two", "copy", "odd"].map((name) => path.join(temporary, name, "server"));
    const ids = ["first-build", "second-build", "first-build", `../${"é/".repeat(200)}`];
    for (const [i, folder] of folders.entries()) {
      fs.mkdirSync(folder, { recursive: true });
      fs.writeFileSync(path.join(folder, "../BUILD_ID"), ids[i] as string);
    }
    const [one, two, copy, odd] = folders as [string, string, string, string];
    await request(one).set("/a", page("of the first build", "x"), {});
    expect([await htmlOf("/a", request(two)), await htmlOf("/a", request(odd)), await htmlOf("/a")]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(await htmlOf("/a", request(copy))).toBe("of the first build");
    await request(odd).set("/a", page("of the odd build"), {});
    expect([await htmlOf("/a", request(odd)), await htmlOf("/a", request(one))]).toEqual([
      "of the odd build",
      "of the first build",
    ]);
    // An invalidation is about data, which the builds have in common.
    await request(two).revalidateTag("x");
    expect(await htmlOf("/a", request(one))).toBeUndefined();
  });

  test("a page that is too large is not stored, and what was there is gone", async () => {
    await request().set("/a", page("small"), {});
    await request().set("/a", page("x".repeat(1_000_000)), {});
    expect(await htmlOf("/a")).toBeUndefined();
  });
});

describe("which cache the handlers use", () => {
  test("wrong options are errors that name them", () => {
    for (const create of [createCacheHandler, createIncrementalCacheHandler]) {
      expect(() => create({ sise: "1mb" } as object)).toThrow(
        new TypeError("options.sise: there is no such option. The options are `cache`, `name`, `size`, `path`."),
      );
      expect(() => create(null as never)).toThrow(TypeError);
      expect(() => create({ cache: {} as never })).toThrow(/^options\.cache: must be a cache/);
      expect(() => create({ cache, size: "1mb" })).toThrow("options: `cache` and `size` exclude each other");
    }
  });

  /** Runs a module in a folder of its own, with `handler`, `Handler`, `entry` and `read`; what it prints, and its warnings. */
  async function run(body: string, env: Record<string, string> = {}) {
    fs.writeFileSync(path.join(temporary, "package.json"), JSON.stringify({ name: NAME, type: "module" }));
    fs.mkdirSync(path.join(temporary, "node_modules"), { recursive: true });
    const link = path.join(temporary, "node_modules/cache-machine");
    if (!fs.existsSync(link)) fs.symlinkSync(root, link);
    fs.writeFileSync(
      path.join(temporary, "main.js"),
      `import { openCache, destroyCache } from "cache-machine";
       import handler from "cache-machine/next";
       import Handler from "cache-machine/next/incremental";
       const entry = (text) => Promise.resolve({ value: new Response(text).body, tags: [], stale: 0,
         timestamp: performance.timeOrigin + performance.now(), expire: 60, revalidate: 60 });
       const read = async (key) => { const e = await handler.get(key, []); return e && new Response(e.value).text(); };
       ${body}`,
    );
    const { status, stdout, stderr } = await execute(process.execPath, ["main.js"], { cwd: temporary, env });
    expect(status, stderr).toBe(0);
    return {
      stdout: stdout.trim(),
      warnings: stderr.split("\n").filter((line) => line.includes("CacheMachineWarning")),
    };
  }
  const files = (): string[] => fs.readdirSync("/dev/shm").filter((file) => file.includes(NAME));

  const USE = `await handler.set("a", entry("text"));
    await new Handler({ serverDistDir: "/x" }).set("/p", { kind: "PAGES", html: "h" }, {});
    console.log(await read("a"), (await new Handler({ serverDistDir: "/x" }).get("/p", { kind: "PAGES" })).value.html);`;

  test("the environment names the cache, and without it the application does; nothing is opened before it is used", async () => {
    const own = `openCache("next-${NAME}")`;
    const first = await run(
      `${USE} console.log(${own}.namespace("next").namespace("entries").size, ${own}.toJSON().size);
       destroyCache("next-${NAME}");`,
    );
    expect(first).toEqual({ stdout: "text h\n2 33554432", warnings: [] });
    const env = { CACHE_MACHINE_NAME: `${NAME}-env`, CACHE_MACHINE_SIZE: "2mb", CACHE_MACHINE_PATH: temporary };
    const second = await run(
      `${USE} console.log(openCache("${NAME}-env", { path: ${JSON.stringify(temporary)} }).toJSON().size);`,
      env,
    );
    expect(second).toEqual({ stdout: "text h\n2097152", warnings: [] });
    expect(await run("", env)).toEqual({ stdout: "", warnings: [] });
    expect(files()).toEqual([]);
  });

  test("a build has a cache in its own memory and leaves nothing", async () => {
    const env = { NEXT_PHASE: "phase-production-build", CACHE_MACHINE_SIZE: "100gb" };
    expect(await run(USE, env)).toEqual({ stdout: "text h", warnings: [] });
    expect(files()).toEqual([]);
  });

  test("where no cache can be shared both handlers work, and warn once", async () => {
    const { stdout, warnings } = await run(USE, { CACHE_MACHINE_PATH: path.join(temporary, "absent") });
    expect(stdout).toBe("text h");
    expect(warnings).toEqual([expect.stringContaining("Each process of Next.js has a cache of its own now")]);
    expect(files()).toEqual([]);
  });

  test("a cache with another size is used as it is, with a warning", async () => {
    const create = `openCache("${NAME}-size", { size: "1mb" });`;
    const env = { CACHE_MACHINE_NAME: `${NAME}-size`, CACHE_MACHINE_SIZE: "2mb" };
    const { stdout, warnings } = await run(`${create} ${USE} destroyCache("${NAME}-size");`, env);
    expect(stdout).toBe("text h");
    expect(warnings).toEqual([expect.stringContaining("is used with the size that it has")]);
  });

  test("a wrong size in the environment is an error that says so", async () => {
    const body = `await handler.get("a", []).catch((error) => console.log(error.name, error.message));`;
    expect((await run(body, { CACHE_MACHINE_SIZE: "much" })).stdout).toMatch(/^(Type|Range)Error size: /);
    expect(files()).toEqual([]);
  });

  test("import and require lead to what Next.js takes: the handler and the class", () => {
    const code = `(async () => {
      // As Next.js does it.
      const take = async (name) => {
        const module = await import(require("node:url").pathToFileURL(require.resolve(name)));
        const value = module.default || module;
        return value.default || value;
      };
      const handler = await take("cache-machine/next");
      const Handler = await take("cache-machine/next/incremental");
      console.log(Object.keys(handler).join(), typeof Handler, "getExpiration" in handler);
      console.log(require("cache-machine/next").default === handler, require("cache-machine/next/incremental").default === Handler);
    })()`;
    const stdout = execFileSync(process.execPath, ["--input-type=commonjs", "-e", code], {
      cwd: root,
      encoding: "utf8",
    });
    expect(stdout).toBe("get,set,refreshTags,getExpiration,updateTags function true\ntrue true\n");
  });
});

describe.each(["use cache", "incremental"])("%s in processes", (handler) => {
  for (const processes of [2, 4]) {
    const env = { NAME, HANDLER: handler };
    const options = { processes, env, members: ["get", "set", "invalidateTag"] as const };
    for (const { name, run } of acrossProcesses(new URL("next-store.mjs", import.meta.url), options)) test(name, run);
  }
});
