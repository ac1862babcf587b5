/**
 * The checks of `cache-machine/testing` over a tier and a real server: as a store of one participant, of four processes of one host, and
 * of four processes of two simulated hosts, where each write answers when the bound of staleness has passed.
 */

import { type Cache, createCache, destroyCache } from "cache-machine";
import { acrossProcesses, type StoreMember, storeChecks } from "cache-machine/testing";
import { openTier } from "cache-machine/tier";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
// @ts-expect-error The processes of the checks run this module, so it is JavaScript.
import { connected, tierStore } from "../adapters/tier-store.mjs";
import { seeded } from "../contract/seeded.ts";
import { endServers, NO_SERVER, SERVERS, startServer } from "./servers.ts";

const MEMBERS: StoreMember[] = [
  "delete",
  "has",
  "clear",
  "getMany",
  "setMany",
  "deleteMany",
  "keys",
  "invalidateTag",
  "getOrSet",
  "hit",
];
/** A short bound, so that waiting for it takes no time. */
const LEASE = 100;
/**
 * For the check of loads, which waits for no bound. A host without a lease, such as one whose first owner has just begun, joins no load
 * that began more than half a lease ago: it might be older than the bound.
 */
const LONG_LEASE = 10_000;

describe.skipIf(NO_SERVER).each(SERVERS)("$name $version", (program) => {
  let server: Awaited<ReturnType<typeof startServer>>;
  beforeAll(async () => void (server = await startServer({ server: program })));
  afterAll(endServers);

  describe("one participant", () => {
    let cache: Cache;
    let client: any;
    beforeAll(async () => {
      cache = seeded(1, () => createCache({ size: "8mb" }));
      client = await connected(server.path);
    });
    afterAll(() => {
      client.destroy();
      cache.close();
    });

    const checks = storeChecks({
      open: ({ namespace } = {}) => tierStore(openTier(cache, { client }), namespace),
      absent: undefined,
      values: "structured",
      namespaces: true,
      members: [...MEMBERS, "close"],
      // A longer key is an error of a tier, as of a cache.
      validKey: (key) => Buffer.byteLength(key) <= 4096,
      // A value expires by the clock of the server, which is known as exactly as an answer takes to come.
      minTtl: 20,
    });
    test("are there", () => expect(checks.length).toBeGreaterThan(60));
    for (const { name, run } of checks) test(name, run);
  });

  // What processes promise each other has to do with this package, and not with which of the servers it is.
  describe.skipIf(program !== SERVERS[0]).each([
    ["one host", ["a"]],
    ["two hosts", ["a", "b"]],
  ])("four processes of %s", (_, names) => {
    const hosts = names.map((name) => `t-${process.pid}-tier-${program.name}-${name}-${names.length}`);
    afterAll(() => {
      for (const host of hosts) destroyCache(host);
    });
    // The path of the socket is known when the server runs, and read when a check starts its processes.
    const envOf = (lease: number) => ({ HOSTS: hosts.join(" "), KIND: "tier", LEASE: `${lease}`, SERVER: "" });
    const [short, long] = [envOf(LEASE), envOf(LONG_LEASE)];
    beforeAll(() => {
      for (const env of [short, long]) env.SERVER = server.path;
    });
    const module = new URL("../adapters/tier-store.mjs", import.meta.url);
    const checksOf = (env: Record<string, string>) =>
      acrossProcesses(module, { members: MEMBERS, absent: undefined, env, timeout: 60_000 });
    const isLoad = ({ name }: { name: string }): boolean => name.includes("getOrSet");
    const checks = [...checksOf(short).filter((check) => !isLoad(check)), ...checksOf(long).filter(isLoad)];
    test("are there", () => expect(checks.length).toBeGreaterThanOrEqual(11));
    for (const { name, run } of checks) test(name, run);
  });
});
