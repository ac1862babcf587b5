/** Simulated hosts for tests in one process: each is a cache of its own with a tier of its own on a common server. */

import { inspect } from "node:util";
import { type Cache, createCache } from "cache-machine";
import { openTier, type Tier, type TierOptions } from "cache-machine/tier";
import { createClient } from "redis";
import { expect } from "vitest";
import { seeded } from "../contract/seeded.ts";
import type { startServer } from "./servers.ts";

type Client = ReturnType<typeof createClient>;
export type RealServer = Awaited<ReturnType<typeof startServer>>;

const open: { tier: Tier<any, any>; client: Client; cache: Cache<any, any> }[] = [];

/** A host: its tier, the cache in front, and the client of the tier. */
export interface Host {
  readonly tier: Tier<any, any>;
  readonly cache: Cache<any, any>;
  readonly client: Client;
}

/** A connected client of a server. */
export async function connect(server: RealServer, path: string | undefined = server.path): Promise<Client> {
  const client = createClient({ socket: { path: path as string, reconnectStrategy: () => 20 } });
  client.on("error", () => {});
  await client.connect();
  return client as Client;
}

/** Opens a tier on a host of its own, and waits until it hears of changes. */
export async function host(
  server: RealServer,
  options: Partial<TierOptions> = {},
  cache: Cache<any, any> = seeded(1, () => createCache({ size: "8mb" })),
): Promise<Host> {
  const client = await connect(server);
  const tier = openTier<any, any>(cache, { client, ...options });
  open.push({ tier, client, cache });
  await until(() => tier.stats().isGood, "the tier hears of changes");
  return { tier, cache, client };
}

/** Waits for a condition. @throws when it does not hold within 20 seconds. */
export async function until(holds: () => unknown, what: string): Promise<void> {
  const end = performance.now() + 20_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`within 20 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Waits until a host reads this. */
export const sees = (tier: Tier<any, any>, key: any, value: unknown): Promise<void> =>
  until(
    async () => {
      try {
        expect(await tier.get(key)).toEqual(value);
        return true;
      } catch {
        return false;
      }
    },
    `${String(key)} is ${inspect(value)}`,
  );

/** Waits until a host has a key in its memory. */
export const keeps = (tier: Tier<any, any>, key: any): Promise<void> =>
  until(
    async () => {
      await tier.get(key);
      return tier.peek(key) !== undefined;
    },
    `${String(key)} is in memory`,
  );

/** Closes all hosts. */
export async function endHosts(): Promise<void> {
  for (const { tier, client, cache } of open.splice(0)) {
    await tier.close();
    if (client.isOpen) client.destroy();
    cache.close();
  }
}
