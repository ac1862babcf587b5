/**
 * The example for Next.js over a tier: two processes that stand for two hosts, because each has a cache of its own, and one real server
 * behind both. The handlers are modules of the application, as docs/adapters/next.md has them.
 */

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { destroyCache } from "../../dist/index.js";
import { Projects, root } from "../package/projects.ts";
import { endServers, NO_SERVER, startServer } from "../tier/servers.ts";
import { another, application, BUILD_MS, build, Serving } from "./next-applications.ts";

const projects = new Projects("next-tier");

const TIER = `import { openCache } from "cache-machine";
  import { openTier } from "cache-machine/tier";
  import { createClient } from "redis";
  let tier;
  export function open() {
    if (tier === undefined) {
      const client = createClient({ socket: { path: process.env.SERVER, reconnectStrategy: 50 } });
      client.on("error", () => {});
      client.connect().catch(() => {});
      tier = openTier(openCache(process.env.HOST, { size: "8mb" }), { client });
    }
    return tier;
  }`;
const HANDLER = `import { createCacheHandler } from "cache-machine/next";
  import { open } from "./tier.mjs";
  export default createCacheHandler({ cache: open });`;
const INCREMENTAL = `import { createIncrementalCacheHandler } from "cache-machine/next/incremental";
  import { open } from "./tier.mjs";
  export default createIncrementalCacheHandler({ cache: open });`;
const CONFIG = `export default {
    cacheComponents: true,
    partialPrefetching: true,
    cacheHandlers: {
      default: import.meta.resolve("./cache-handler.mjs"),
      remote: import.meta.resolve("./cache-handler.mjs"),
    },
    cacheHandler: import.meta.resolve("./incremental-cache-handler.mjs"),
  };`;

describe.skipIf(NO_SERVER)("an application on two hosts", () => {
  let server: Awaited<ReturnType<typeof startServer>>;
  let folder: string;
  let output: string;
  let one: Serving;
  let two: Serving;
  const hosts = ["one", "two"].map((name) => `${projects.mark}-${name}`);

  beforeAll(async () => {
    server = await startServer({});
    projects.tarballs();
    folder = await application(projects, "tiered", path.join(root, "examples/adapters/next"));
    for (const name of ["redis", "@redis"]) {
      const target = path.join(folder, "node_modules", name);
      if (!fs.existsSync(target)) execFileSync("cp", ["-a", path.join(root, "node_modules", name), target]);
    }
    const files = {
      "tier.mjs": TIER,
      "cache-handler.mjs": HANDLER,
      "incremental-cache-handler.mjs": INCREMENTAL,
      "next.config.mjs": CONFIG,
    };
    fs.rmSync(path.join(folder, "next.config.js"));
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), text);
    // A build that opened the tier would open a cache without a name.
    output = await build(folder, [], { SERVER: "/nowhere/server.sock" });
    const serve = (HOST: string): Promise<Serving> => Serving.start(folder, { SERVER: server.path, HOST });
    [one, two] = (await Promise.all(hosts.map(serve))) as [Serving, Serving];
  }, BUILD_MS + 100_000);

  afterAll(async () => {
    await Promise.all([one?.stop(), two?.stop()]);
    for (const host of hosts) destroyCache(host);
    await endServers();
    projects.remove();
  });

  test("the build opens neither the cache nor a connection", () => {
    expect(output).not.toMatch(/CacheMachineWarning|cache-machine|ECONN|ENOENT/);
  });

  const quote = (author: string) => (host: Serving) => host.json(`/quote/${author}`);
  const number = (author: string) => async (host: Serving) => (await host.json(`/quote/${author}`)).number;
  const page = (host: Serving): Promise<string> => host.page("/");

  /**
   * What both hosts answer once they agree, and it is not `before`. Next.js answers before it has stored: until then the other host may
   * make a value of its own, and the last one stored stays.
   */
  const agreed = <T>(ask: (host: Serving) => Promise<T>, before?: T): Promise<T> =>
    another(undefined, async () => {
      const answer = await ask(one);
      const others = [await ask(two), await ask(one)];
      return answer !== before && others.every((other) => other === answer) ? answer : undefined;
    }) as Promise<T>;

  test("what one host has computed or rendered, the other one answers with", async () => {
    // The first requests come before the connection to the server: they are answered, and nothing is stored.
    await agreed(number("first"));
    await agreed(number("ada"));
    const [a, b] = [await quote("ada")(one), await quote("ada")(two)];
    expect(b).toEqual({ ...a, answeredBy: b.answeredBy });
    expect(b.answeredBy).not.toBe(a.answeredBy);
    expect([a.answeredBy, b.answeredBy]).toContain(a.by);
    expect(await agreed(page)).toMatch(/ said 0/);
  });

  test("revalidateTag and revalidatePath on one host reach the other, with and without a profile", async () => {
    const before = await agreed(number("grace"));
    const other = await agreed(number("alan"));
    await two.json("/revalidate?tag=quote%20grace", "POST");
    expect(await number("grace")(two)).not.toBe(before);
    const second = await agreed(number("grace"), before);
    expect(await number("alan")(one)).toBe(other);

    await two.json("/revalidate?tag=quotes&life=max", "POST");
    await agreed(number("grace"), second);

    const first = await agreed(page);
    await two.json("/revalidate?path=/", "POST");
    await agreed(page, first);
  });

  test("while the server is away pages are made, and afterwards both hosts have the same again", async () => {
    await server.crash();
    await another(await number("barbara")(one), () => number("barbara")(one));
    expect(await page(two)).toMatch(/^nobody said 0/);
    await server.restart();
    await agreed(number("barbara"));
  });
});
