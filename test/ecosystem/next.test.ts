/**
 * Runs two real applications of Next.js with the packed package, each served by two processes on one cache: the example with
 * "use cache" (built by Turbopack, also as a folder that runs alone), and one with ISR, the fetch cache and the Pages Router (built
 * by webpack).
 */

import fs from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { compile } from "../adapters/compile.ts";
import { Projects, root } from "../package/projects.ts";
import { another, application, BUILD_MS, build, ECOSYSTEM, Serving } from "./next-applications.ts";

const projects = new Projects("next");

/** A server that the applications fetch from: it answers with how often it was asked for the path. */
let source: Server;
const calls = new Map<string, number>();
let modern: string;
let classic: string;
/** What the cache of an application is called, for the environment. */
const named = (name: string): Record<string, string> => ({
  CACHE_MACHINE_NAME: `${projects.mark}-${name}`,
  // Tags share times, the less often the larger a cache is: here one of 32,768 times.
  CACHE_MACHINE_SIZE: "64mb",
  SOURCE: `http://127.0.0.1:${(source.address() as AddressInfo).port}`,
});
/** The names of the cache files after the builds. */
let afterBuilds: string[];
let outputs: string[];

beforeAll(async () => {
  source = createServer((request, response) => {
    const count = (calls.get(request.url as string) ?? 0) + 1;
    calls.set(request.url as string, count);
    response.end(String(count));
  });
  await new Promise<void>((resolve) => source.listen(0, "127.0.0.1", resolve));
  projects.tarballs();
  [modern, classic] = await Promise.all([
    application(projects, "modern", path.join(root, "examples/adapters/next")),
    application(projects, "classic", path.join(ECOSYSTEM, "next-isr")),
  ]);
  fs.mkdirSync(path.join(modern, "app/many"));
  fs.writeFileSync(path.join(modern, "app/many/route.js"), MANY_TAGS);
  fs.mkdirSync(path.join(modern, "app/once/[number]"), { recursive: true });
  fs.writeFileSync(path.join(modern, "app/once/[number]/route.js"), ONE_LOAD);
  fs.mkdirSync(path.join(modern, "app/own"));
  fs.writeFileSync(path.join(modern, "app/own/route.js"), OWN_CACHE);
  outputs = await Promise.all([
    build(modern, [], { ...named("modern"), OUTPUT: "standalone" }),
    build(classic, ["--webpack"], named("classic")),
  ]);
  afterBuilds = projects.left();
}, BUILD_MS + 100_000);

afterAll(async () => {
  source.close();
  projects.remove();
});

/** An entry with as many tags as Next.js allows, of the greatest length that it allows. */
const MANY_TAGS = `import { cacheLife, cacheTag } from "next/cache";
  async function compute() {
    "use cache: remote";
    cacheLife("days");
    cacheTag(...Array.from({ length: 128 }, (_, i) => String(i).padEnd(256, "-")));
    return { number: Math.random() };
  }
  export async function GET(request) {
    return Response.json({ ...(await compute()), host: request.headers.get("host") });
  }`;

/** A source that is asked through the cache, as docs/adapters/next.md has it. Entries of "use cache" differ by the argument. */
const ONE_LOAD = `import { openCache } from "cache-machine";
  import { cacheLife, cacheTag } from "next/cache";
  let cache;
  async function ask(number) {
    "use cache";
    cacheLife("days");
    cacheTag("rates");
    cache ??= openCache(process.env.CACHE_MACHINE_NAME).namespace("next");
    return cache.getOrSet("rates", async () => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      return { load: cache.increment("loads") };
    }, { ttl: 60_000, tags: ["rates"] });
  }
  export async function GET(request, { params }) {
    return Response.json(await ask((await params).number));
  }`;

/** A cache of the application's own, opened where the module is loaded: in the build too. */
const OWN_CACHE = `import { openCache } from "cache-machine";
  const cache = openCache(process.env.CACHE_MACHINE_NAME + "-own", { size: "1mb" });
  export async function GET(request) {
    return Response.json({ count: cache.increment("requests"), host: request.headers.get("host") });
  }`;

test("the handlers fit the types of Next.js without a cast", () => {
  const file = path.join(modern, "next.types.ts");
  fs.copyFileSync(path.join(ECOSYSTEM, "next.types.ts"), file);
  compile(file);
});

describe("next build", () => {
  test("the build warns of nothing and leaves no cache, but for one that a module of the application has opened itself", () => {
    expect(outputs.join("\n")).not.toMatch(/CacheMachineWarning|cache-machine/);
    const own = afterBuilds.filter((file) => file.includes("-modern-own"));
    expect(own).toHaveLength(1);
    expect(afterBuilds).toEqual(own);
  });

  test("a standalone build contains the native parts and both handlers", () => {
    const alone = path.join(modern, ".next/standalone/node_modules");
    for (const file of [
      "cache-machine/native/cache_machine-linux-x64.node",
      "cache-machine/native/cache_machine-linux-arm64.node",
      "cache-machine/dist/index.js",
      "cache-machine/dist/adapters/next.js",
      "cache-machine/dist/adapters/next-incremental.js",
    ]) {
      expect(fs.existsSync(path.join(alone, file)), file).toBe(true);
    }
  });
});

describe('"use cache", in two processes', () => {
  let one: Serving;
  let two: Serving;
  beforeAll(async () => {
    [one, two] = await Promise.all([Serving.start(modern, named("modern")), Serving.start(modern, named("modern"))]);
  });
  afterAll(() => Promise.all([one.stop(), two.stop()]));

  const quotes = async (author: string): Promise<any[]> => [
    await one.json(`/quote/${author}`),
    await two.json(`/quote/${author}`),
  ];

  test("what one process has computed, the other one answers with", async () => {
    const [a, b] = await quotes("ada");
    expect(b).toEqual({ ...a, answeredBy: b.answeredBy });
    expect(a.by).toBe(a.answeredBy);
    expect(b.answeredBy).not.toBe(b.by);
    const page = await two.page("/");
    expect(await one.page("/")).toBe(page);
    expect(page).toMatch(/^nobody said 0\.\d+, computed by process \d+$/);
  });

  test("revalidateTag and revalidatePath in one process reach both at once", async () => {
    const [before] = await quotes("grace");
    const [other] = await quotes("alan");
    await two.json("/revalidate?tag=quote%20grace", "POST");
    const [a, b] = await quotes("grace");
    expect(a.number).not.toBe(before.number);
    expect(b.number).toBe(a.number);
    expect((await quotes("alan")).map(({ number }) => number)).toEqual([other.number, other.number]);

    const page = await one.page("/");
    await two.json("/revalidate?path=/", "POST");
    const again = await one.page("/");
    expect(again).not.toBe(page);
    expect(await two.page("/")).toBe(again);
  });

  test("with a profile the entry is answered with once more, and made anew for both", async () => {
    const [before] = await quotes("edsger");
    await two.json("/revalidate?tag=quotes&life=max", "POST");
    const once = await one.json("/quote/edsger");
    expect(once.number).toBe(before.number);
    const { number } = await another(once, () => one.json("/quote/edsger"));
    expect(number).not.toBe(before.number);
    expect((await two.json("/quote/edsger")).number).toBe(number);
  });

  test("an entry with 128 tags of 256 characters is found by each of them", async () => {
    let { number } = await one.json("/many");
    expect((await two.json("/many")).number).toBe(number);
    for (const i of [0, 64, 127]) {
      await one.json(`/revalidate?tag=${String(i).padEnd(256, "-")}`, "POST");
      const now = (await two.json("/many")).number;
      expect(now, `tag ${i}`).not.toBe(number);
      expect((await one.json("/many")).number).toBe(now);
      number = now;
    }
  });

  test("a module that opens a cache itself shares it with the other process", async () => {
    const { count } = await one.json("/own");
    expect((await two.json("/own")).count).toBe(count + 1);
  });

  test("a source that is asked through the cache is asked once by all requests in both processes, and again after an invalidation", async () => {
    const ask = (): Promise<any[]> =>
      Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? one : two).json(`/once/${i}`)));
    expect(await ask()).toEqual(Array(20).fill({ load: 1 }));
    await two.json("/revalidate?tag=rates", "POST");
    expect(await ask()).toEqual(Array(20).fill({ load: 2 }));
  });

  test("a process that was killed with SIGKILL answers with the same entries after a restart", async () => {
    const [before] = await quotes("barbara");
    await one.stop();
    one = await Serving.start(modern, named("modern"));
    expect((await one.json("/quote/barbara")).number).toBe(before.number);
    await one.json("/revalidate?tag=quotes", "POST");
    const [a, b] = await quotes("barbara");
    expect(a.number).not.toBe(before.number);
    expect(b.number).toBe(a.number);
  });

  test("a standalone folder that was moved answers with the same entries", async () => {
    const moved = path.join(projects.folder, "moved");
    fs.renameSync(path.join(modern, ".next/standalone"), moved);
    const alone = await Serving.start(moved, named("modern"));
    try {
      const [before] = await quotes("donald");
      expect((await alone.json("/quote/donald")).number).toBe(before.number);
      expect(await alone.page("/")).toBe(await one.page("/"));
      await alone.json("/revalidate?tag=quotes", "POST");
      const [a, b] = await quotes("donald");
      expect(a.number).not.toBe(before.number);
      expect(b.number).toBe(a.number);
    } finally {
      await alone.stop();
    }
  });

  test("no process has warned of anything", () => {
    for (const { running } of [one, two]) expect(running.stderr).toBe("");
  });
});

describe("ISR, the fetch cache and the Pages Router, in two processes", () => {
  let one: Serving;
  let two: Serving;
  beforeAll(async () => {
    [one, two] = await Promise.all([
      Serving.start(classic, named("classic")),
      Serving.start(classic, named("classic")),
    ]);
  });
  afterAll(() => Promise.all([one.stop(), two.stop()]));

  test("a page that one process has rendered, the other one serves", async () => {
    const page = await one.page("/item/1");
    expect(page).toMatch(/^item 1, call 1, rendered by \d+ as/);
    expect(await two.page("/item/1")).toBe(page);
    expect(calls.get("/item/1")).toBe(1);
    const missing = await fetch(`${one.url}/item/none`);
    expect(missing.status).toBe(404);
    expect((await fetch(`${two.url}/item/none`)).headers.get("x-nextjs-cache")).toBe("HIT");
  });

  test("revalidateTag renders the page anew, revalidatePath too, for both", async () => {
    const page = await one.page("/item/2");
    const other = await one.page("/item/3");
    await two.json("/revalidate?tag=item%202", "POST");
    const second = await one.page("/item/2");
    expect(second).toMatch(/^item 2, call 2/);
    expect(second).not.toBe(page);
    expect(await two.page("/item/2")).toBe(second);
    expect(await two.page("/item/3")).toBe(other);
    await one.json("/revalidate?path=/item/2", "POST");
    const third = await two.page("/item/2");
    expect(third).not.toBe(second);
    expect(await one.page("/item/2")).toBe(third);
  });

  test("with a profile a page is served once more, and rendered anew for both", async () => {
    const before = await one.page("/item/4");
    await two.json("/revalidate?tag=items&life=max", "POST");
    expect(await one.page("/item/4")).toBe(before);
    // The new page has a new answer of fetch, not one that was used once more.
    const after = await another(before, () => one.page("/item/4"));
    expect(after).toMatch(/call 2/);
    expect(await two.page("/item/4")).toBe(after);
  });

  test("answers of fetch with 128 tags and of unstable_cache are the same in both, and are invalidated for both", async () => {
    const before = await one.json("/tags");
    expect(before.calls).toBe(1);
    const same = await two.json("/tags");
    expect([same.calls, same.number]).toEqual([1, before.number]);
    expect(same.by).not.toBe(before.by);
    await two.json(`/revalidate?tag=${encodeURIComponent(`127 of many tags ${"x".repeat(100)}`)}`, "POST");
    expect([(await one.json("/tags")).calls, (await two.json("/tags")).calls]).toEqual([2, 2]);
    await one.json("/revalidate?tag=computed", "POST");
    const { number } = await two.json("/tags");
    expect(number).not.toBe(before.number);
    expect((await one.json("/tags")).number).toBe(number);
  });

  test("the answer of a static route handler is the same in both, and is made anew for both", async () => {
    const before = await one.json("/answer");
    expect(await two.json("/answer")).toEqual(before);
    await two.json("/revalidate?path=/answer", "POST");
    const after = await one.json("/answer");
    expect(after.number).not.toBe(before.number);
    expect(await two.json("/answer")).toEqual(after);
  });

  test("a page of the Pages Router is the same in both, also after revalidate, and so is a redirect", async () => {
    const before = await one.page("/old");
    expect(await two.page("/old")).toBe(before);
    await two.json("/api/old");
    const after = await one.page("/old");
    expect(after).not.toBe(before);
    expect(await two.page("/old")).toBe(after);
    const places = [];
    for (const { url } of [one, two]) {
      places.push((await fetch(`${url}/moved/7`, { redirect: "manual" })).headers.get("location"));
    }
    expect(places[0]).toMatch(/^\/old\?from=7&by=\d+$/);
    expect(places[1]).toBe(places[0]);
  });

  test("another build of the application does not get these pages", async () => {
    const page = await one.page("/item/5");
    const id = path.join(classic, ".next/BUILD_ID");
    const before = fs.readFileSync(id, "utf8");
    fs.writeFileSync(id, "another-build");
    const other = await Serving.start(classic, named("classic"));
    try {
      expect(await other.page("/item/5")).not.toBe(page);
      expect(await two.page("/item/5")).toBe(page);
    } finally {
      fs.writeFileSync(id, before);
      await other.stop();
    }
  });

  test("no process has warned of anything", () => {
    for (const { running } of [one, two]) expect(running.stderr).toBe("");
  });
});
