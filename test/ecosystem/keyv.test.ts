/**
 * The test suite that Keyv has for stores of version 5, `@keyv/test-suite`, over a cache: once with Keyv's serialization and once
 * without it.
 */

import keyvTestSuite, { keyvIteratorTests } from "@keyv/test-suite";
import { Keyv } from "keyv";
import * as vitest from "vitest";
import { KeyvCacheMachine } from "../../dist/adapters/keyv.js";
import { destroyCache, openCache } from "../../dist/index.js";

const NAME = `t-${process.pid}-keyv-suite`;
const cache = openCache(NAME, { size: "8mb" });

vitest.afterAll(() => {
  cache.close();
  destroyCache(NAME);
});

vitest.describe("Keyv 5 with its serialization", () => {
  const store = () => new KeyvCacheMachine(cache);
  keyvTestSuite(vitest, Keyv, store);
  keyvIteratorTests(vitest, Keyv, store);
});

vitest.describe("Keyv 5 without serialization", () => {
  /** The suite chooses the options of a Keyv itself, so they are added here. A serializer that it asks for is left out too. */
  class PlainKeyv extends Keyv {
    constructor(options: any) {
      super({ ...options, serialize: undefined, deserialize: undefined });
    }
  }
  const store = () => new KeyvCacheMachine(cache, { serialization: false });
  keyvTestSuite(vitest, PlainKeyv as typeof Keyv, store);
  keyvIteratorTests(vitest, PlainKeyv as typeof Keyv, store);
});
