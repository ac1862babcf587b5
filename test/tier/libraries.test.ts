/** What a tier is for, with each library: two hosts, each with a client of its own, on one server and on a cluster. */

import { createCache } from "cache-machine";
import { openTier, type Tier } from "cache-machine/tier";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { seeded } from "../contract/seeded.ts";
import { keeps, sees, until } from "./hosts.ts";
import { CLUSTERS, LIBRARIES, type Opened } from "./libraries.ts";
import { endServers, NO_SERVER, SERVERS, startCluster, startServer } from "./servers.ts";

const toClose: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of toClose.splice(0).reverse()) await close();
});
afterAll(endServers);

type AnyTier = Tier<any, any>;

/** A host: a cache and a tier of its own. */
async function host({ client, close }: Opened, prefix: string): Promise<AnyTier> {
  const cache = seeded(1, () => createCache<any, any>({ size: "4mb" }));
  const tier = openTier<any, any>(cache, { client, prefix });
  toClose.push(
    close,
    () => cache.close(),
    () => tier.close(),
  );
  await until(() => tier.stats().isGood, "the tier hears of changes");
  return tier;
}

let count = 0;

/** Writes of one host, and what the other one sees. */
async function tries(open: () => Promise<Opened>): Promise<void> {
  const prefix = `libraries ${++count}:`;
  const a = await host(await open(), prefix);
  const b = await host(await open(), prefix);

  // Twenty keys, which a cluster spreads over its masters. The memory of the other host follows each change.
  const keys = Array.from({ length: 20 }, (_, i) => `key ${i} é`);
  const value = (i: number): unknown => ({ i, bytes: new Uint8Array([0, 255, i]), at: new Date(i) });
  await a.setMany(keys.map((key, i) => [key, value(i)]));
  expect(await b.getMany(keys)).toEqual(keys.map((_, i) => value(i)));
  for (const key of keys) await keeps(b, key);
  for (const [i, key] of keys.entries()) {
    await a.set(key, `new ${i}`);
    expect(await a.get(key)).toBe(`new ${i}`);
    await sees(b, key, `new ${i}`);
  }
  expect(await a.delete(keys[0] as string)).toBe(true);
  await sees(b, keys[0] as string, undefined);

  // Counting is done by the server.
  const counted = Array.from({ length: 25 }, (_, i) => (i % 2 === 0 ? a : b).increment("count"));
  expect((await Promise.all(counted)).sort((x, y) => x - y)).toEqual(counted.map((_, i) => i + 1));

  // Tags of entries on several masters.
  await a.setMany(
    keys.map((key, i) => [key, i]),
    { tags: ["all", "some"] },
  );
  for (const key of keys) await keeps(b, key);
  await a.invalidateTag("some");
  for (const key of keys) await sees(b, key, undefined);

  // One load, whoever asks; then none.
  let loads = 0;
  const load = async (): Promise<string> => `loaded ${++loads}`;
  await Promise.all([a, a, b, b].map((tier) => tier.getOrSet("loaded", load)));
  expect(loads).toBeLessThanOrEqual(2);
  await until(async () => (await a.get("loaded")) === (await b.get("loaded")), "both hosts have the same value");
  const settled = loads;
  await Promise.all([a, b].map((tier) => tier.getOrSet("loaded", load)));
  expect(loads).toBe(settled);

  // All keys of a namespace, from all masters.
  const names = Array.from({ length: 30 }, (_, i) => `name ${i}`);
  await a.namespace("space").setMany(names.map((name) => [name, 1]));
  const found: unknown[] = [];
  for await (const key of b.namespace("space").keys()) found.push(key);
  expect([...new Set(found)].sort()).toEqual([...names].sort());
  await b.namespace("space").clear();
  await until(async () => !(await a.namespace("space").has("name 7")), "the namespace is empty");
}

describe.skipIf(NO_SERVER).each(SERVERS)("$name $version", (program) => {
  let server: Awaited<ReturnType<typeof startServer>>;
  let cluster: Awaited<ReturnType<typeof startCluster>>;
  beforeAll(async () => {
    server = await startServer({ server: program, tcp: true, password: "secret" });
    cluster = await startCluster(3, 0, { server: program });
  });

  test.each(LIBRARIES)("$name: one server with a password", (library) =>
    tries(() => library.open({ path: server.path, password: "secret" })),
  );

  // The valkey-server that is installed for the tests is built without TLS.
  test.skipIf(program.name === "valkey").each(LIBRARIES)("$name: TLS", async (library) => {
    const secure = await startServer({ server: program, tls: true, password: "secret" });
    const { ca } = secure.certificate as { ca: string };
    await tries(() => library.open({ port: secure.port, tls: { ca }, password: "secret" }));
  });

  test.each(LIBRARIES.filter(({ name }) => CLUSTERS[0].test(name)))("$name: a cluster", (library) =>
    tries(() => library.cluster(cluster)),
  );
});
