/**
 * Options from the outside world: misspelt ones, those of other libraries, objects of other realms, without prototype, with
 * getters, of a class, and Proxies. An option that does not exist is refused, each other one is read once, and what is
 * refused changes nothing.
 */

import { runInNewContext } from "node:vm";
import { attachCache, type Cache, createCache, type SetOptions } from "cache-machine";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkOptions } from "../../src/option-names.ts";
import { destroyCache, openCache } from "../host/apart.mjs";

let cache: Cache;
beforeEach(() => {
  cache = createCache({ size: "1mb", now: () => 1000 });
});
afterEach(() => cache.close());

/** Stores with these options. Returns the ttl and the tags that the entry has. */
function stored(options: unknown): unknown {
  cache.set("k", 1, options as SetOptions);
  return [cache.ttl("k"), cache.getEntry("k")?.tags];
}

/** Checks that a store with these options is refused with this text, and changes nothing. */
function refused(options: unknown, ...texts: string[]): void {
  cache.set("k", "old", { ttl: 7 });
  for (const store of [
    () => cache.set("k", 1, options as SetOptions),
    () => cache.add("k", 1, options as SetOptions),
    () => cache.replace("k", 1, options as SetOptions),
    () => cache.setMany([["k", 1, options as SetOptions]]),
    () => cache.setMany([["k", 1]], options as SetOptions),
    () => cache.update("k", () => 1, options as SetOptions),
    () =>
      cache.update(
        "k",
        () => 1,
        () => options as SetOptions,
      ),
  ]) {
    expect(store).toThrow(TypeError);
    for (const text of texts) expect(store).toThrow(text);
  }
  expect([cache.get("k"), cache.ttl("k")]).toEqual(["old", 7]);
}

describe("the option that was probably meant", () => {
  const storing = ["ttl", "expiresAt", "tags", "keepTtl", "keepTags"] as const;
  const opening = [
    "size",
    "ttl",
    "now",
    "codec",
    "nearCache",
    "nearCacheSize",
    "frozenObjects",
    "maxEntrySize",
    "path",
    "fallback",
  ];
  const names: [readonly string[], string, string][] = [
    // Other libraries.
    [storing, "maxAge", "ttl"],
    [storing, "max-age", "ttl"],
    [storing, "s_max_age", "ttl"],
    [storing, "maxage", "ttl"],
    [storing, "EX", "ttl"],
    [storing, "PX", "ttl"],
    [storing, "expire", "ttl"],
    [storing, "expires", "ttl"],
    [storing, "expiresIn", "ttl"],
    [storing, "timeout", "ttl"],
    [storing, "TTL", "ttl"],
    [storing, "EXAT", "expiresAt"],
    [storing, "expireAt", "expiresAt"],
    [storing, "KEEPTTL", "keepTtl"],
    [storing, "groups", "tags"],
    [opening, "max", "size"],
    [opening, "maxSize", "size"],
    [opening, "stdTTL", "ttl"],
    [opening, "serialize", "codec"],
    [opening, "directory", "path"],
    [opening, "useClones", "frozenObjects"],
    [["limit", "window", "burst"], "points", "limit"],
    [["limit", "window", "burst"], "max", "limit"],
    [["initial", "min", "max"], "start", "initial"],
    [["ttl", "grace"], "swr", "grace"],
    [["timeout", "signal"], "abortSignal", "signal"],
    // Slips of the finger.
    [storing, "tll", "ttl"],
    [storing, "tlt", "ttl"],
    [storing, "ttll", "ttl"],
    [storing, "tag", "tags"],
    [storing, "keepTag", "keepTags"],
    [storing, "exipresAt", "expiresAt"],
    [opening, "nearcache", "nearCache"],
    [opening, "nearCacheSzie", "nearCacheSize"],
    [opening, "codecs", "codec"],
    [opening, "fallBack", "fallback"],
  ];
  test.each(names)("of %j, `%s` is `%s`", (known, name, meant) => {
    expect(() => checkOptions({ [name]: 1 }, known as never[])).toThrow(
      `options.${name}: there is no such option. Use \`${meant}\``,
    );
  });

  test.each([
    "colour",
    "x",
    "",
    "0",
    "constructor",
    "toString",
    "__proto__",
    "hasOwnProperty",
    "callback",
    "ttlEverything",
  ])("`%s` is none of them, so all are named", (name) => {
    const options = Object.defineProperty({}, name, { value: 1, enumerable: true });
    expect(() => checkOptions(options, storing as never)).toThrow(
      `options.${name}: there is no such option. The options are \`ttl\`, \`expiresAt\`, \`tags\`, \`keepTtl\`, \`keepTags\`.`,
    );
  });

  test("a long name is cut in the message, and compared in time that does not grow with it", () => {
    const name = "maxage".repeat(1e6);
    const call = (): unknown => checkOptions({ [name]: 1 }, storing as never);
    expect(call).toThrow(`options.${name.slice(0, 30)}: there is no such option. The options are`);
  });

  test("the error names the argument, if it has another name", () => {
    expect(() => checkOptions({ max: 1 } as never, ["limit"] as never[], "limits")).toThrow("limits.max");
    expect(() => checkOptions(5 as never, ["limit"] as never[], "limits")).toThrow(
      "limits: must be an object, not a number",
    );
  });

  test("every function of the package refuses options that it does not have, before it does anything", () => {
    const name = `t-${process.pid}-outside-options`;
    const calls: [() => unknown, string][] = [
      [() => createCache({ maxAge: 5 } as never), "`ttl`"],
      [() => createCache({ path: "/tmp" } as never), "options.path"],
      [() => openCache(name, { max: 5 } as never), "`size`"],
      [() => openCache(name, { mode: 0o600 } as never), "mode: is not an option"],
      [() => openCache(name, { mode: undefined } as never), "options.mode"],
      [() => attachCache(cache.handle, { size: 5 } as never), "options.size"],
      [() => destroyCache(name, { dir: "/tmp" } as never), "`path`"],
      [() => destroyCache(name, { size: 5 } as never), "options.size"],
      [() => cache.namespace("n", { maxAge: 5 } as never), "`ttl`"],
      [() => cache.increment("n", 1, { initail: 5 } as never), "`initial`"],
    ];
    for (const [call, text] of calls) {
      expect(call, text).toThrow(TypeError);
      expect(call).toThrow(text);
    }
    expect([destroyCache(name), cache.size]).toEqual([false, 0]);
  });
});

describe("objects with options", () => {
  test("an object of another realm, without prototype, frozen, or of a class is read like any other", () => {
    class Options {
      tags = ["own"];
      get ttl(): number {
        return 50;
      }
    }
    for (const options of [
      runInNewContext('({ ttl: 50, tags: ["own"] })'),
      Object.assign(Object.create(null), { ttl: 50, tags: ["own"] }),
      Object.freeze({ ttl: 50, tags: Object.freeze(["own"]) }),
      new Options(),
      Object.create({ ttl: 50, tags: ["own"] }),
      Object.create(Object.create(null, { ttl: { value: 50 } }), { tags: { value: ["own"] } }),
      new Proxy({ ttl: 50, tags: ["own"] }, {}),
    ]) {
      expect(stored(options)).toEqual([50, ["own"]]);
    }
  });

  test("an option that does not exist is refused wherever it stands: own, inherited, of another realm, of a Proxy", () => {
    for (const options of [
      { maxAge: 5 },
      { ttl: 50, maxAge: undefined },
      runInNewContext("({ maxAge: 5 })"),
      Object.assign(Object.create(null), { maxAge: 5 }),
      Object.create({ maxAge: 5 }),
      Object.create(Object.create(null, { maxAge: { value: 5, enumerable: true } }) as object, {}),
      Object.create(Object.assign(Object.create({ a: 1 }), { maxAge: 5 })),
      new Proxy({ maxAge: 5 }, {}),
    ]) {
      refused(options, "options.maxAge", "`ttl`");
    }
  });

  test("what is no option is no mistake: symbols, what is not enumerable, and what Object.prototype has", () => {
    const options = Object.defineProperties({ ttl: 50, [Symbol("maxAge")]: 5 }, { maxAge: { value: 5 } });
    expect(stored(options)).toEqual([50, []]);
    const prototypes = [Object.prototype, runInNewContext("Object.prototype")] as Record<string, unknown>[];
    for (const prototype of prototypes) {
      prototype.polluted = 1;
      try {
        expect(stored(Object.assign(Object.create(prototype), { ttl: 60 }))).toEqual([60, []]);
        refused(Object.assign(Object.create(prototype), { polluted: 2 }), "options.polluted");
        expect(cache.namespace("n", Object.create(prototype)).set("k", 1).get("k")).toBe(1);
        expect(cache.increment("n", 1, Object.create(prototype))).toBeGreaterThan(0);
      } finally {
        delete prototype.polluted;
      }
    }
  });

  test("each option is read once, and options of an update before its function runs", () => {
    const read: string[] = [];
    const options = new Proxy({ ttl: 50, tags: ["a"], keepTtl: false } as SetOptions, {
      get(target, name: keyof SetOptions) {
        read.push(String(name));
        return target[name];
      },
    });
    const once = ["ttl", "expiresAt", "grace", "tags", "keepTtl", "keepTags"];
    for (const store of [
      () => cache.set("k", 1, options),
      () =>
        cache.setMany(
          [
            ["k", 1],
            ["l", 2],
          ],
          options,
        ),
      () => cache.setMany([["k", 1, options]]),
      () => cache.replace("k", 1, options),
      () => cache.update("k", () => read.push("change"), options),
    ]) {
      read.length = 0;
      store();
      expect(read.filter((name) => name !== "change").sort()).toEqual(once.toSorted());
      if (read.includes("change")) expect(read.at(-1)).toBe("change");
    }
  });

  test("an error of a getter, or of a trap of a Proxy, is passed on, and nothing is stored", () => {
    const error = new Error("mine");
    const fail = (): never => {
      throw error;
    };
    for (const options of [
      Object.defineProperty({}, "ttl", { get: fail, enumerable: true }),
      Object.defineProperty({ ttl: 5 }, "keepTags", { get: fail, enumerable: true }),
      new Proxy({}, { get: fail }),
      new Proxy({ ttl: 5 }, { ownKeys: fail }),
      new Proxy({ maxAge: 5 }, { getPrototypeOf: fail }),
    ]) {
      expect(() => cache.set("k", 1, options as SetOptions)).toThrow(error);
    }
    const { proxy, revoke } = Proxy.revocable<SetOptions>({ ttl: 5 }, {});
    revoke();
    expect(() => cache.set("k", 1, proxy)).toThrow(TypeError);
    expect(cache.size).toBe(0);
  });

  test("what is no object is refused, and so are lists", () => {
    for (const [options, text] of [
      [5, "not a number"],
      [60_000n, "not a bigint"],
      ["1h", "not a string"],
      [true, "not a boolean"],
      [null, "not null"],
      [() => ({ ttl: 5 }), "not a function"],
      [["tag"], "options.0"],
      [Uint8Array.of(1), "options.0"],
    ] as [unknown, string][]) {
      expect(() => cache.set("k", 1, options as never), text).toThrow(text);
      expect(() => cache.set("k", 1, options as never), text).toThrow(TypeError);
    }
    expect(stored([])).toEqual([Number.POSITIVE_INFINITY, []]);
    expect(cache.set("k", 1, undefined).get("k")).toBe(1);
  });

  test("a getter of an option may use the cache, also for an entry that keeps what is there", () => {
    cache.set("k", "old", { ttl: 9, tags: ["t"] });
    const options = {
      get keepTtl(): boolean {
        cache.set("k", "from the getter", { ttl: 8, tags: ["getter"] }).set("other", 1);
        return true;
      },
      keepTags: true,
    };
    expect(stored(options)).toEqual([8, ["getter"]]);
    expect(cache.get("k")).toBe(1);
  });
});
