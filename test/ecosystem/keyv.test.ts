/**
 * The test suite that Keyv has for stores of version 5, `@keyv/test-suite`, over a cache and over a tier: once with Keyv's serialization
 * and once without it.
 */

import keyvTestSuite, { keyvIteratorTests } from "@keyv/test-suite";
import { Keyv } from "keyv";
import { createClient } from "redis";
import * as vitest from "vitest";
import { KeyvCacheMachine } from "../../dist/adapters/keyv.js";
import { destroyCache, openCache } from "../../dist/index.js";
import { openTier, type Tier } from "../../dist/tier/index.js";
import { endServers, NO_SERVER, startServer } from "../tier/servers.ts";

const NAME = `t-${process.pid}-keyv-suite`;
const cache = openCache(NAME, { size: "8mb" });

vitest.afterAll(() => {
  cache.close();
  destroyCache(NAME);
});

/** The suite chooses the options of a Keyv itself, so they are added here. A serializer that it asks for is left out too. */
class PlainKeyv extends Keyv {
  constructor(options: any) {
    super({ ...options, serialize: undefined, deserialize: undefined });
  }
}

vitest.describe("Keyv 5 with its serialization", () => {
  const store = () => new KeyvCacheMachine(cache);
  keyvTestSuite(vitest, Keyv, store);
  keyvIteratorTests(vitest, Keyv, store);
});

vitest.describe("Keyv 5 without serialization", () => {
  const store = () => new KeyvCacheMachine(cache, { serialization: false });
  keyvTestSuite(vitest, PlainKeyv as typeof Keyv, store);
  keyvIteratorTests(vitest, PlainKeyv as typeof Keyv, store);
});

vitest.describe.skipIf(NO_SERVER)("over a tier", () => {
  let client: ReturnType<typeof createClient>;
  let tier: Tier<any>;
  vitest.beforeAll(async () => {
    const server = await startServer({});
    client = createClient({ socket: { path: server.path } });
    await client.connect();
    tier = openTier(cache, { client });
  });
  vitest.afterAll(async () => {
    await tier.close();
    client.destroy();
    await endServers();
  });

  vitest.describe("Keyv 5 with its serialization", () => {
    const store = () => new KeyvCacheMachine(tier);
    keyvTestSuite(vitest, Keyv, store);
    keyvIteratorTests(vitest, Keyv, store);
  });

  vitest.describe("Keyv 5 without serialization", () => {
    const store = () => new KeyvCacheMachine(tier, { serialization: false });
    // This test steps the clock of the process, and the server has one of its own. With serialization Keyv itself looks at the time.
    const STEPS_CLOCK = ".set(key, value, ttl) sets a value that expires";
    const it = (name: string, run: () => void): void => vitest.it.skipIf(name === STEPS_CLOCK)(name, run);
    keyvTestSuite({ ...vitest, it } as unknown as typeof vitest, PlainKeyv as typeof Keyv, store);
    keyvIteratorTests(vitest, PlainKeyv as typeof Keyv, store);
  });
});
