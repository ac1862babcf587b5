/** The part of the conformance suite about entries: storing, changing, counting, expiring, tags and namespaces. */

import type { IncrementOptions, Key } from "../index.ts";
import { ok, same, throws } from "./assert.ts";
import type { Define } from "./check.ts";
import { text } from "./samples.ts";

export function asMap(check: Define): void {
  check("get, set, has and delete work as those of a Map", ({ cache }) => {
    same(cache.get("a"), undefined);
    same(cache.has("a"), false);
    same(cache.delete("a"), false);
    ok(cache.set("a", 1) === cache, "set returns the cache");
    same(cache.get("a"), 1);
    same(cache.has("a"), true);
    cache.set("a", "two").set("b", 2);
    same(cache.get("a"), "two");
    same(cache.delete("a"), true);
    same(cache.delete("a"), false);
    same(cache.get("a"), undefined);
    same(cache.get("b"), 2);
  });

  check("size, keys, values, entries and forEach see each entry once, and clear removes all entries", ({ cache }) => {
    const expected = new Map(Array.from({ length: 300 }, (_, i) => [`key ${i}`, { i }]));
    for (const [key, value] of expected) cache.set(key, "old").set(key, value);
    cache.set("gone", 1).delete("gone");
    const sorted = (entries: Iterable<[unknown, unknown]>): Map<unknown, unknown> =>
      new Map([...entries].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)));
    same(cache.size, 300);
    same([...cache.keys()].length, 300);
    same(sorted(cache.entries()), sorted(expected));
    same(sorted(cache), sorted(expected));
    same([...cache.keys()].sort(), [...expected.keys()].sort());
    same(new Set([...cache.values()].map((value) => (value as { i: number }).i)).size, 300);
    const seen: [unknown, unknown][] = [];
    const self = {};
    cache.forEach(function (this: unknown, value, key, of) {
      ok(this === self && of === cache, "forEach passes thisArg and the cache");
      seen.push([key, value]);
    }, self);
    same(sorted(seen), sorted(expected));
    cache.clear();
    same(cache.size, 0);
    same([...cache], []);
    same(cache.get("key 1"), undefined);
    cache.set("key 1", 1);
    same([...cache], [["key 1", 1]]);
  });

  check("iteration visits each entry that stays exactly once, while other entries come and go", ({ cache }) => {
    for (let i = 0; i < 200; i++) cache.set(`${i % 2 ? "stays" : "goes"} ${i}`, i);
    const seen: unknown[] = [];
    for (const [key] of cache) {
      seen.push(key);
      for (let i = 0; i < 200; i += 2) cache.delete(`goes ${i}`);
      cache.set(`new ${seen.length % 50}`, 1);
      cache.get("stays 1");
    }
    const stays = seen.filter((key) => String(key).startsWith("stays")).sort();
    same(stays, Array.from({ length: 100 }, (_, i) => `stays ${i * 2 + 1}`).sort());
    const goes = seen.filter((key) => String(key).startsWith("goes"));
    ok(goes.length <= 1, `deleted entries were seen: ${goes}`);
  });

  check("an iteration can end early, and two iterations can run at once", ({ cache }) => {
    cache.set("a", 1).set("b", 2);
    const [first] = cache.keys();
    const pairs: string[] = [];
    for (const one of cache.keys()) for (const two of cache.keys()) pairs.push(`${one}${two}`);
    same(pairs.sort(), ["aa", "ab", "ba", "bb"]);
    ok(first === "a" || first === "b", "a key");
  });

  check("getMany, getManyEntries and hasMany read hundreds of keys of all sorts in one pass", ({ cache, another }) => {
    const other = another();
    const part = other.namespace("part");
    for (const view of [cache, part]) {
      const keys: Key[] = [];
      const expected: unknown[] = [];
      for (let i = 0; i < 250; i++) {
        const all: Key[] = [
          `key ${i}`,
          "x".repeat(i * 3),
          Uint8Array.of(i, 1),
          `\ud800 ${i}`,
          `é ${i}`,
          "k".repeat(4097),
        ];
        const key = all[i % all.length] as Key;
        const value = [i, `value ${i}`, { i }, text(i === 77 ? 100_000 : i, i)][i % 4];
        const isStored = i % 7 !== 0 && i % all.length !== 5;
        if (isStored) view.set(key, value, { tags: [`${i % 3}`], ttl: 1000 + i });
        keys.push(key);
        expected.push(isStored ? value : undefined);
      }
      for (const reader of [view, view === cache ? other : cache.namespace("part")]) {
        for (let round = 0; round < 3; round++) {
          same(reader.getMany(keys), expected);
          same(
            reader.hasMany(keys),
            expected.map((value) => value !== undefined),
          );
          same(
            reader.getManyEntries(keys),
            keys.map((key) => reader.getEntry(key)),
          );
        }
      }
      view.clear();
      same(new Set(other.getMany(keys)), new Set([undefined]));
    }
  });

  check("a wrong key among many is a TypeError that names its place", ({ cache }) => {
    cache.set("a", 1);
    for (const call of [cache.getMany, cache.getManyEntries, cache.hasMany]) {
      throws(() => call.call(cache, ["a", "a", 5 as never]), "TypeError", "keys[2]:");
      throws(() => call.call(cache, [undefined as never]), "TypeError", "keys[0]:");
    }
  });

  check("keys and entries with a prefix find the keys that begin with it, and no others", ({ cache }) => {
    const part = cache.namespace("part");
    const keys: Key[] = [
      "user:1",
      "user:22",
      "users",
      "use",
      "",
      "\ud83d\ude00",
      "\ud83d",
      "\ud83dx",
      "é",
      "\ud800user:",
    ];
    keys.push(Uint8Array.of(1, 2), Uint8Array.of(1), new Uint8Array(0), new TextEncoder().encode("user:1"));
    for (const view of [cache, part]) for (const [i, key] of keys.entries()) view.set(key, i);
    part.namespace("deeper").set("user:1", "deeper");
    const found = (prefix: Key): unknown[] => {
      const listed = [...part.keys({ prefix })].map((key) => part.get(key) as number);
      const pairs = [...cache.entries({ prefix })].map(([, value]) => value as number);
      same(
        pairs.sort((a, b) => a - b),
        listed.sort((a, b) => a - b),
      );
      return listed;
    };
    same(found("user:"), [0, 1]);
    same(found("user"), [0, 1, 2]);
    same(found(""), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    same(found("\ud83d"), [5, 6, 7]);
    same(found("\ud83d\ude00"), [5]);
    same(found("\ud800"), [9]);
    same(found("\ud800u"), [9]);
    same(found("\ude00"), []);
    same(found("user:1".padEnd(5000)), []);
    same(found(Uint8Array.of(1)), [10, 11]);
    same(found(new Uint8Array(0)), [10, 11, 12, 13]);
    same(found(new TextEncoder().encode("us")), [13]);
    same([...cache.keys({ prefix: undefined })].length, keys.length);
    same([cache.size, part.size], [keys.length, keys.length]);
    throws(() => cache.keys({ prefix: 5 as never }), "TypeError", "prefix:");
    throws(() => cache.entries({ prefix: null as never }), "TypeError", "prefix:");
    throws(() => cache.keys({ match: "user" } as never), "TypeError", "prefix");
  });

  check("getMany and setMany take any iterable and keep the order", ({ cache }) => {
    ok(
      cache.setMany(
        new Map<string, unknown>([
          ["a", 1],
          ["b", null],
        ]),
      ) === cache,
      "setMany returns the cache",
    );
    cache.setMany([["c", "three"]] as [string, unknown][]);
    same(cache.getMany(["c", "missing", "b", "a", "a"]), ["three", undefined, null, 1, 1]);
    same(cache.getMany(new Set(["a"])), [1]);
    same(cache.getMany([]), []);
    same(cache.setMany([]).size, 3);
  });

  check("each entry of setMany can have options of its own, which stand in place of those of all", (given) => {
    const { cache, clock } = given;
    cache.set("kept", 0, { ttl: 7, tags: ["old"] });
    cache.setMany(
      [
        ["a", 1],
        ["b", 2, { ttl: 50 }],
        ["c", 3, { expiresAt: clock.now + 9 }],
        ["d", 4, { tags: ["own"] }],
        ["e", 5, { ttl: undefined, tags: undefined }],
        ["kept", 6, { keepTtl: true }],
      ],
      { ttl: 1000, tags: ["all"] },
    );
    const how = (key: string): unknown => [cache.ttl(key), cache.getEntry(key)?.tags];
    same(["a", "b", "c", "d", "e", "kept"].map(how), [
      [1000, ["all"]],
      [50, ["all"]],
      [9, ["all"]],
      [1000, ["own"]],
      [1000, ["all"]],
      [7, ["all"]],
    ]);
    cache.setMany(new Map([["kept", 7]]), { keepTtl: true, keepTags: true });
    same([cache.get("kept"), how("kept")], [7, [7, ["all"]]]);
    cache.setMany([["kept", 8, { tags: [] }]], { keepTtl: true, keepTags: true });
    same([cache.get("kept"), how("kept")], [8, [7, []]]);
  });

  check("setMany stores the entries before a wrong one, and none when the options of all are wrong", ({ cache }) => {
    const wrong: [string, unknown][] = [
      ["TypeError", ["b", undefined]],
      ["TypeError", ["b", 2, { maxAge: 5 }]],
      ["TypeError", ["b", 2, { ttl: 5, expiresAt: 5 }]],
      ["RangeError", ["b", 2, { ttl: 0 }]],
      ["TypeError", [5, 2]],
      ["TypeError", "b2"],
      ["TypeError", null],
      ["ERR_TOO_LARGE", ["k".repeat(5000), 2]],
    ];
    for (const [error, entry] of wrong) {
      cache.clear();
      throws(() => cache.setMany([["a", 1], entry as [string, number], ["c", 3]]), error);
      same([...cache], [["a", 1]]);
      throws(() => cache.setMany([["a", 2]], { ttl: -1 }), "RangeError", "ttl");
      same([...cache], [["a", 1]]);
    }
    const failing = function* (): Generator<[string, number]> {
      yield ["d", 4];
      throw new RangeError("mine");
    };
    throws(() => cache.setMany(failing()), "RangeError", "mine");
    same(cache.get("d"), 4);
  });

  check("deleteMany removes each key of any iterable once, and returns how many there were", ({ cache }) => {
    const fill = (): void => void cache.setMany(Array.from({ length: 10 }, (_, i): [string, number] => [`${i}`, i]));
    fill();
    same(cache.deleteMany([]), 0);
    same(cache.deleteMany(["1", "missing", "1", "2", "k".repeat(5000)]), 2);
    same(cache.deleteMany(new Set(["3"])), 1);
    same([...cache.keys()].sort(), ["0", "4", "5", "6", "7", "8", "9"]);
    same(cache.deleteMany(cache.keys()), 7);
    same(cache.size, 0);
    fill();
    throws(() => cache.deleteMany(["1", 5 as never, "2"]), "TypeError", "key");
    throws(() => cache.deleteMany(5 as never), "TypeError", "keys");
    same([cache.has("1"), cache.has("2")], [false, true]);
  });
}

export function changes(check: Define): void {
  check("add stores only if the key is absent, replace only if it is present", ({ cache }) => {
    same(cache.replace("a", 1), false);
    same(cache.has("a"), false);
    same(cache.add("a", 2), true);
    same(cache.add("a", 3), false);
    same(cache.get("a"), 2);
    same(cache.replace("a", 4), true);
    same(cache.get("a"), 4);
    cache.delete("a");
    same(cache.add("a", 5), true);
  });

  check(
    "getEntry returns value, version, expiry and tags, and the version changes with each change",
    ({ cache, clock }) => {
      same(cache.getEntry("a"), undefined);
      cache.set("a", { n: 1 }, { ttl: 500, tags: ["x", "ÿ→🦀"] });
      const first = cache.getEntry("a");
      ok(first !== undefined && Number.isSafeInteger(first.version) && first.version > 0, "a version");
      same(first, { value: { n: 1 }, version: first.version, expiresAt: clock.now + 500, tags: ["x", "ÿ→🦀"] });
      same(cache.getEntry("a")?.version, first.version);
      cache.set("a", { n: 1 });
      const second = cache.getEntry("a");
      ok(second !== undefined && second.version !== first.version, "another version");
      same([second.expiresAt, second.tags], [Number.POSITIVE_INFINITY, []]);
      cache.delete("a");
      cache.set("a", { n: 1 });
      const versions = [first.version, second.version, cache.getEntry("a")?.version];
      cache.set("n", 1);
      for (let i = 0; i < 3; i++) {
        versions.push(cache.getEntry("n")?.version);
        cache.increment("n");
      }
      same(new Set(versions).size, versions.length);
    },
  );

  check("compareAndSet stores only if the entry has the given version", ({ cache, another }) => {
    const other = another();
    same(cache.compareAndSet("a", 0, 1), true);
    same(cache.compareAndSet("a", 0, 2), false);
    const version = other.getEntry("a")?.version as number;
    cache.set("a", 1);
    same(other.compareAndSet("a", version, "late"), false);
    const next = other.getEntry("a")?.version as number;
    same(other.compareAndSet("a", next, "in time", { tags: ["t"] }), true);
    same(cache.getEntry("a")?.tags, ["t"]);
    same(other.compareAndSet("a", next, "twice"), false);
    same(cache.get("a"), "in time");
    cache.delete("a");
    same(cache.compareAndSet("a", next, "gone"), false);
    cache.increment("n");
    const counted = cache.getEntry("n")?.version as number;
    other.increment("n");
    same(cache.compareAndSet("n", counted, 0), false);
    same(cache.get("n"), 2);
    same(cache.compareAndSet("n", cache.getEntry("n")?.version as number, 0), true);
  });

  check(
    "update passes the current value to its function, and tries again if another participant was faster",
    (given) => {
      const { cache, another } = given;
      const other = another();
      same(
        cache.update("a", (value) => [...(value ?? []), 1], { tags: ["t"] }),
        [1],
      );
      let runs = 0;
      const result = cache.update("a", (value) => {
        if (runs++ < 3) other.update("a", (theirs) => [...theirs, runs]);
        return [...value, "mine"];
      });
      same(result, [1, 1, 2, 3, "mine"]);
      same(runs, 4);
      same(other.get("a"), result);
      const error = new Error("mine");
      try {
        cache.update("a", () => {
          throw error;
        });
        ok(false, "the error of the function comes through");
      } catch (caught) {
        ok(caught === error, "the function's own error");
      }
      same(other.get("a"), result);
    },
  );

  check("update keeps the expiry and the tags of the entry, unless its options say otherwise", ({ clock, another }) => {
    const cache = another({ ttl: 5000 });
    const how = (): unknown => {
      const entry = cache.getEntry("a");
      return entry && [entry.value, entry.expiresAt - clock.now, entry.tags];
    };
    same([cache.update("a", () => 1), how()], [1, [1, 5000, []]]);
    cache.set("a", 1, { ttl: 100, tags: ["x", "y"] });
    clock.now += 40;
    same([cache.update("a", (n) => n + 1), how()], [2, [2, 60, ["x", "y"]]]);
    same([cache.update("a", (n) => n + 1, {}), how()], [3, [3, 60, ["x", "y"]]]);
    cache.update("a", (n) => n + 1, { tags: ["z"] });
    same(how(), [4, 60, ["z"]]);
    cache.update("a", (n) => n + 1, { ttl: 70 });
    same(how(), [5, 70, ["z"]]);
    cache.update("a", (n) => n + 1, { expiresAt: clock.now + 80 });
    same(how(), [6, 80, ["z"]]);
    cache.update("a", (n) => n + 1, { keepTtl: false });
    same(how(), [7, 5000, ["z"]]);
    cache.update("a", (n) => n + 1, { keepTags: false, keepTtl: true });
    same(how(), [8, 5000, []]);
    cache.touch("a", Number.POSITIVE_INFINITY);
    cache.update("a", () => text(300_000, 4));
    same(how(), [text(300_000, 4), Infinity, []]);
    // An entry that expires while it is updated has nothing to keep.
    cache.set("a", 1, { ttl: 100, tags: ["x"] });
    let runs = 0;
    cache.update("a", (n) => {
      if (runs++ === 0) clock.now += 100;
      return [n];
    });
    same([runs, how()], [2, [[undefined], 5000, []]]);
    // The same when its tag is invalidated meanwhile.
    cache.set("a", 1, { ttl: 100, tags: ["x"] });
    runs = 0;
    cache.update("a", (n) => {
      if (runs++ === 0) cache.invalidateTag("x");
      return [n];
    });
    same([runs, how()], [2, [[undefined], 5000, []]]);
  });

  check("update passes the entry to its function, which may decline by returning undefined", ({ cache, clock }) => {
    same(
      cache.update("a", (value, entry) => {
        same([value, entry], [undefined, undefined]);
        return undefined;
      }),
      undefined,
    );
    same(cache.has("a"), false);
    cache.set("a", { n: 1 }, { ttl: 100, tags: ["x"] });
    const before = cache.getEntry("a");
    const declined = cache.update(
      "a",
      (value, entry) => {
        same([value, entry], [{ n: 1 }, before]);
        return undefined;
      },
      { ttl: 5, tags: [] },
    );
    same([declined, cache.getEntry("a")], [{ n: 1 }, before]);
    // The entry is the function's own.
    cache.update("a", (_, entry) => {
      ok(entry !== undefined, "an entry");
      entry.tags.push("y");
      entry.expiresAt = 0;
      entry.version = 0;
      return null;
    });
    same(cache.getEntry("a")?.tags, ["x"]);
    same([cache.get("a"), cache.ttl("a")], [null, 100]);
    clock.now += 100;
    same(cache.has("a"), false);
  });

  check("the options of update may be a function of the new value", ({ cache }) => {
    const options = (value: { score: number }): { ttl: number; tags: string[] } | undefined =>
      value.score < 0 ? undefined : { ttl: value.score * 10, tags: [`score ${value.score}`] };
    cache.update("a", () => ({ score: 3 }), options);
    same([cache.ttl("a"), cache.getEntry("a")?.tags], [30, ["score 3"]]);
    cache.update("a", ({ score }) => ({ score: score + 1 }), options);
    same([cache.ttl("a"), cache.getEntry("a")?.tags], [40, ["score 4"]]);
    cache.update("a", () => ({ score: -1 }), options);
    same([cache.get("a"), cache.ttl("a"), cache.getEntry("a")?.tags], [{ score: -1 }, 40, ["score 4"]]);
    throws(() => cache.update("a", () => ({ score: 0 }), options), "RangeError", "ttl");
    throws(() => cache.update("a", () => 1, (() => 5) as never), "TypeError", "options");
    same(cache.get("a"), { score: -1 });
    // It is not asked when there is no new value.
    cache.update(
      "a",
      () => undefined,
      () => {
        throw new Error("asked");
      },
    );
    // Wrong options are an error before the function runs.
    let runs = 0;
    throws(() => cache.update("a", () => ++runs, { ttl: Number.NaN }), "RangeError", "ttl");
    same(runs, 0);
  });

  check(
    "trySet stores as set does; where set refuses a key or a value, it returns false, and the old value is gone",
    ({ cache, clock, another }) => {
      const other = another();
      same(cache.trySet("a", { n: 1 }, { ttl: 100, tags: ["t"] }), true);
      same([other.getEntry("a")?.value, other.ttl("a"), other.getEntry("a")?.tags], [{ n: 1 }, 100, ["t"]]);
      same(another({ maxEntrySize: 100 }).trySet("a", "x".repeat(101)), false);
      same([cache.has("a"), other.get("a")], [false, undefined]);
      same(cache.trySet("k".repeat(5000), 1), false);
      same(cache.trySet("a", 1, { expiresAt: clock.now }), true);
      same(cache.set("a", "there").get("a"), "there");
      throws(() => cache.trySet("a", undefined), "TypeError", "undefined");
      throws(() => cache.trySet("a", 1, { maxAge: 5 } as never), "TypeError", "maxAge");
      throws(() => cache.trySet("a", { f() {} }), "ERR_DATA");
      same(other.get("a"), "there");
    },
  );

  check(
    "getOrInsert and getOrInsertComputed return what is there, or store what is absent",
    ({ cache, clock, another }) => {
      const other = another();
      same(cache.getOrInsert("a", { n: 1 }, { ttl: 100, tags: ["t"] }), { n: 1 });
      same([other.get("a"), other.ttl("a"), other.getEntry("a")?.tags], [{ n: 1 }, 100, ["t"]]);
      same(other.getOrInsert("a", { n: 2 }, { ttl: 5 }), { n: 1 });
      const computing = (): never => {
        throw new RangeError("computed");
      };
      same(other.getOrInsertComputed("a", computing), { n: 1 });
      same(cache.ttl("a"), 100);
      clock.now += 100;
      throws(() => other.getOrInsertComputed("a", computing), "RangeError", "computed");
      same(
        other.getOrInsertComputed("a", (key) => `of ${key}`),
        "of a",
      );
      same(cache.get("a"), "of a");
      // Another participant is faster while the value is computed: its value counts.
      let runs = 0;
      const slow = (): string => {
        runs++;
        other.set("b", "theirs");
        return "mine";
      };
      same([cache.getOrInsertComputed("b", slow), runs, cache.get("b")], ["theirs", 1, "theirs"]);
      for (const value of [null, 0, "", false]) {
        cache.set("c", value);
        same(cache.getOrInsert("c", "other"), value);
      }
      throws(() => cache.getOrInsert("d", undefined), "TypeError", "undefined");
      throws(() => cache.getOrInsert("c", 1, { maxAge: 5 } as never), "TypeError", "maxAge");
      same(cache.has("d"), false);
    },
  );

  check("compareAndDelete removes only the entry that still has the given version", ({ cache, another }) => {
    const other = another();
    same([cache.compareAndDelete("a", 0), cache.compareAndDelete("a", 5)], [false, false]);
    for (const value of ["text", { o: 1 }, text(300_000, 1)]) {
      cache.set("a", value);
      const version = other.getEntry("a")?.version as number;
      same(other.compareAndDelete("a", 0), false);
      cache.set("a", value);
      same([other.compareAndDelete("a", version), cache.get("a")], [false, value]);
      const next = other.getEntry("a")?.version as number;
      same([other.compareAndDelete("a", next), cache.has("a")], [true, false]);
      same(other.compareAndDelete("a", next), false);
    }
    cache.increment("n");
    const counted = cache.getEntry("n")?.version as number;
    other.increment("n");
    same([cache.compareAndDelete("n", counted), cache.get("n")], [false, 2]);
    same(cache.compareAndDelete("n", cache.getEntry("n")?.version as number), true);
    throws(() => cache.compareAndDelete("a", -1), "TypeError", "version");
    throws(() => cache.compareAndDelete("a", undefined as never), "TypeError", "version");
  });

  check("take returns the value and removes the entry, for values of any type", ({ cache, another }) => {
    const other = another();
    same(cache.take("a"), undefined);
    for (const value of ["text", 1, { o: 1 }, text(300_000, 1), null]) {
      other.set("a", value);
      same(cache.take("a"), value);
      same(other.has("a"), false);
      same(cache.take("a"), undefined);
    }
    cache.increment("n", 5);
    same(other.take("n"), 5);
    same(cache.has("n"), false);
  });
}

export function limits(check: Define): void {
  const algorithms = ["gcra", "fixed", "sliding"] as const;

  check("a rate limit lets exactly `limit` requests through, and tells the next one when to come", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    for (const algorithm of algorithms) {
      const options = { limit: 3, window: 1000, algorithm };
      const began = clock.now;
      for (const [i, by] of [cache, other, cache].entries()) {
        const result = by.rateLimit(algorithm, options);
        same([result.allowed, result.limit, result.window, result.burst], [true, 3, 1000, 3]);
        same([result.remaining, result.retryAfter], [2 - i, 0]);
        same(result.resetAt, clock.now + result.resetAfter);
      }
      const before = cache.getEntry(algorithm);
      const refused = other.rateLimit(algorithm, options);
      same([refused.allowed, refused.remaining], [false, 0]);
      same(refused.retryAfter, { gcra: 334, fixed: 1000, sliding: 1334 }[algorithm]);
      same(refused.resetAfter, { gcra: 1000, fixed: 1000, sliding: 2000 }[algorithm]);
      same(cache.getEntry(algorithm), before, "a refused request changes nothing");
      clock.now = began + refused.retryAfter - 1;
      same(other.rateLimit(algorithm, options).allowed, false);
      clock.now++;
      same(cache.rateLimit(algorithm, { ...options, peek: true }).allowed, true);
      same(other.rateLimit(algorithm, options).allowed, true);
    }
  });

  check(
    "Windows that let twice the limit through (rate-limiter-flexible #242): no burst at a border with gcra and sliding",
    ({ cache, clock }) => {
      const limit = 10;
      const window = 1000;
      for (const algorithm of ["gcra", "sliding"] as const) {
        const ask = (): boolean => cache.rateLimit(`border ${algorithm}`, { limit, window, algorithm }).allowed;
        // The first request begins the window, and the others come at its end.
        ask();
        clock.now += window - 1;
        let last = 0;
        for (let i = 0; i < 2 * limit; i++) if (ask()) last++;
        let next = 0;
        for (let time = 0; time < 10; time++) {
          clock.now++;
          for (let i = 0; i < 2 * limit; i++) if (ask()) next++;
        }
        ok(last <= limit, `${algorithm}: ${last} at the end of a window`);
        ok(last + next <= limit + 1, `${algorithm}: ${last + next} around the border`);
      }
    },
  );

  check("cost, burst and peek of a rate limit", ({ cache }) => {
    const bucket = { limit: 10, window: 1000, burst: 4 };
    same(cache.rateLimit("a", { ...bucket, peek: true }).remaining, 4);
    same([...cache.keys()], [], "a look stores nothing");
    same(cache.rateLimit("a", { ...bucket, cost: 3 }).remaining, 1);
    const refused = cache.rateLimit("a", { ...bucket, cost: 2 });
    same([refused.allowed, refused.remaining, refused.retryAfter, refused.resetAfter], [false, 1, 100, 300]);
    same(cache.rateLimit("a", { ...bucket, peek: true }).remaining, 1);
    same(cache.rateLimit("a", bucket).remaining, 0);
    throws(() => cache.rateLimit("a", { ...bucket, cost: 5 }), "RangeError", "cost:");
    throws(() => cache.rateLimit("b", { limit: 2, window: 1, cost: 3 }), "RangeError", "cost:");
  });

  check("a rate limit is an entry: it can be read, listed, deleted and cleared, and ends by itself", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    for (const algorithm of algorithms) {
      const options = { limit: 5, window: 1000, algorithm };
      cache.rateLimit("a", options);
      const result = cache.rateLimit("a", options);
      const described = other.get("a");
      const { startedAt } = described;
      same(described, { algorithm, startedAt, count: 2, previous: 0 });
      same(startedAt, clock.now);
      const entry = other.getEntry("a");
      same([entry?.value, entry?.tags], [described, []]);
      ok((entry?.expiresAt as number) >= result.resetAt, "it is there as long as it says something");
      same([other.has("a"), [...other.entries()]], [true, [["a", described]]]);
      same(other.delete("a"), true);
      same(cache.rateLimit("a", options).remaining, 4);
      const part = other.namespace("n");
      same(part.rateLimit("a", { ...options, limit: 1 }).remaining, 0);
      same(part.rateLimit("a", { ...options, limit: 1 }).allowed, false);
      part.clear();
      same(part.rateLimit("a", { ...options, limit: 1 }).allowed, true);
      same(cache.rateLimit("a", options).remaining, 3);
      clock.now += 2000;
      same([cache.get("a"), other.has("a"), part.size], [undefined, false, 0]);
      same(other.rateLimit("a", options).remaining, 4);
      cache.clear();
    }
  });

  check(
    "rateLimit of a key with another value, and other operations on a rate limit, are refused or replace it",
    (given) => {
      const { cache } = given;
      const options = { limit: 5, window: 1000 };
      for (const value of [1, "text", { algorithm: "gcra", startedAt: 0, count: 0, previous: 0 }, text(300_000, 1)]) {
        cache.set("a", value);
        throws(() => cache.rateLimit("a", options), "TypeError", "not a rate limit");
        throws(() => cache.rateLimit("a", { ...options, peek: true }), "TypeError", "not a rate limit");
        same(cache.get("a"), value);
      }
      cache.delete("a");
      cache.increment("a");
      throws(() => cache.rateLimit("a", options), "TypeError", "not a rate limit");
      cache.delete("a");
      cache.rateLimit("a", options);
      throws(() => cache.increment("a"), "TypeError", "not a number");
      const version = cache.getEntry("a")?.version as number;
      cache.rateLimit("a", options);
      same(cache.compareAndSet("a", version, "late"), false);
      same(cache.take("a")?.count, 2);
      same(cache.rateLimit("a", options).remaining, 4);
      same(cache.set("a", 1).increment("a"), 2);
    },
  );

  check("another limit of the same key keeps its count, another algorithm begins anew", ({ cache, clock }) => {
    for (const algorithm of algorithms) {
      const options = { limit: 4, window: 1000, algorithm };
      for (let i = 0; i < 4; i++) cache.rateLimit("a", options);
      same(cache.rateLimit("a", options).allowed, false);
      same(cache.rateLimit("a", { ...options, limit: 2 }).allowed, false);
      same(cache.rateLimit("a", { ...options, limit: 2 }).remaining, 0);
      const other = { ...options, algorithm: algorithm === "gcra" ? ("fixed" as const) : ("gcra" as const) };
      same(cache.rateLimit("a", other).remaining, 3);
      clock.now += 5000;
    }
  });

  check("a clock that throws, or returns no number, leaves a rate limit as it is", ({ another }) => {
    let clock = (): number => 1e6;
    const cache = another({ now: () => clock() });
    for (const algorithm of algorithms) {
      const options = { limit: 4, window: 1000, algorithm };
      cache.rateLimit(algorithm, options);
      const before = cache.getEntry(algorithm);
      for (const key of [algorithm, "new"]) {
        clock = () => {
          throw new RangeError("no time");
        };
        throws(() => cache.rateLimit(key, options), "RangeError", "no time");
        clock = () => Number.NaN;
        throws(() => cache.rateLimit(key, options), "TypeError", "now:");
        clock = () => 1e6;
      }
      same([cache.getEntry(algorithm), cache.has("new")], [before, false]);
    }
  });

  check("a clock that steps back neither frees a rate limit nor blocks it for long", ({ cache, clock, another }) => {
    const other = another();
    for (const algorithm of algorithms) {
      const options = { limit: 4, window: 1000, algorithm };
      for (let i = 0; i < 4; i++) cache.rateLimit(algorithm, options);
      for (const back of [1, 500, 1e6]) {
        clock.now -= back;
        const result = other.rateLimit(algorithm, options);
        same([result.allowed, result.remaining], [false, 0]);
        ok(result.retryAfter > 0 && result.retryAfter <= 2000, `retry after ${result.retryAfter}`);
        ok(result.resetAfter <= 2000 && result.resetAt === clock.now + result.resetAfter, "reset");
      }
      clock.now += 2000;
      same(cache.rateLimit(algorithm, options).allowed, true);
    }
  });
}

export function numbers(check: Define): void {
  check("increment and decrement count from initial, in integers and fractions", ({ cache, another }) => {
    const other = another();
    same(cache.increment("a"), 1);
    same(other.increment("a"), 2);
    same(cache.increment("a", 40), 42);
    same(other.decrement("a"), 41);
    same(cache.decrement("a", 1.5), 39.5);
    same(other.get("a"), 39.5);
    same(cache.increment("b", 1, { initial: 100 }), 101);
    same(cache.increment("b", 1, { initial: 100 }), 102);
    same(cache.decrement("c", 3, { initial: 1 }), -2);
    same(cache.increment("d", 0), 0);
    same(cache.has("d"), true);
    same(cache.increment("e", 2 ** 53 - 2), 2 ** 53 - 2);
    same(cache.increment("e"), Number.MAX_SAFE_INTEGER);
    same([...cache.keys()].sort(), ["a", "b", "c", "d", "e"]);
  });

  check(
    "increment counts on from a number that was set, and keeps its expiry and tags",
    ({ cache, clock, another }) => {
      const other = another();
      cache.set("a", 10, { ttl: 1000, tags: ["t"] });
      clock.now += 300;
      same(other.increment("a", 5, { ttl: 9_999_999, initial: 77 }), 15);
      same(other.increment("a", 5), 20);
      const entry = cache.getEntry("a");
      same([entry?.value, entry?.expiresAt, entry?.tags], [20, clock.now + 700, ["t"]]);
      cache.invalidateTag("t");
      same(cache.get("a"), undefined);
      same(other.increment("a"), 1);
      same(cache.getEntry("a")?.tags, []);
      cache.set("b", -0.5);
      same(cache.increment("b"), 0.5);
      // A counter can be replaced like any other value.
      cache.set("b", "text");
      same(other.get("b"), "text");
    },
  );

  check("a counter's ttl is set when it is created, and then kept", ({ cache, clock, another }) => {
    const other = another();
    same(cache.increment("a", 1, { ttl: 1000 }), 1);
    clock.now += 600;
    same(other.increment("a", 1, { ttl: 1000 }), 2);
    same(cache.ttl("a"), 400);
    clock.now += 400;
    same(cache.get("a"), undefined);
    same(other.increment("a", 1, { ttl: 1000, initial: 5 }), 6);
    same(cache.ttl("a"), 1000);
    same(cache.touch("a", 5000), true);
    same(other.increment("a"), 7);
    same(cache.ttl("a"), 5000);
  });

  check(
    "an increment beyond its bounds is a RangeError that names `by`, and nothing is changed",
    ({ cache, another }) => {
      const other = another();
      const refused = (by: number, options?: IncrementOptions): void => {
        const before = cache.getEntry("a");
        throws(() => other.increment("a", by, options), "RangeError", "by:");
        throws(() => other.incrementEntry("a", by, options), "RangeError", "by:");
        throws(() => other.decrement("a", -by, options), "RangeError", "by:");
        same(cache.getEntry("a"), before);
      };
      refused(6, { max: 5 });
      refused(1, { initial: 5, max: 5 });
      refused(-1, { min: 0 });
      refused(2 ** 53);
      same([...cache.keys()], []);
      same(cache.increment("a", 5, { max: 5 }), 5);
      refused(1, { max: 5 });
      refused(-6, { min: 0 });
      same(other.decrement("a", 5, { min: 0 }), 0);
      same(cache.increment("a", Number.MAX_SAFE_INTEGER), Number.MAX_SAFE_INTEGER);
      refused(1);
      refused(1, { max: Number.POSITIVE_INFINITY });
      cache.set("a", Number.MIN_SAFE_INTEGER);
      refused(-1);
      refused(-1, { min: Number.NEGATIVE_INFINITY });
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
        cache.set("a", value);
        refused(1);
      }
    },
  );

  check(
    "tags and ttl of an increment count when it creates the number, and incrementEntry tells the entry",
    (given) => {
      const { cache, clock, another } = given;
      const other = another();
      const first = cache.incrementEntry("a", 2, { ttl: 100, tags: ["t", "u"] });
      const entry = other.getEntry("a");
      same([first.value, first.expiresAt, first.version], [2, clock.now + 100, entry?.version]);
      same(entry?.tags, ["t", "u"]);
      const second = other.incrementEntry("a", 2, { ttl: 900, tags: ["v"] });
      same([second.value, second.expiresAt, second.version], [4, clock.now + 100, cache.getEntry("a")?.version]);
      ok(second.version !== first.version, "another version");
      same(cache.getEntry("a")?.tags, ["t", "u"]);
      same(cache.compareAndSet("a", second.version, 7, { tags: ["u"] }), true);
      other.invalidateTag("u");
      same(cache.incrementEntry("a").value, 1);
      same(cache.incrementEntry("a").expiresAt, Number.POSITIVE_INFINITY);
    },
  );

  check("increment of a value that is no number is a TypeError, and the value stays", ({ cache }) => {
    for (const value of ["1", 1n, null, true, { n: 1 }, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), text(300_000, 1)]) {
      cache.set("a", value);
      throws(() => cache.increment("a"), "TypeError", "not a number");
      throws(() => cache.decrement("a"), "TypeError", "not a number");
      same(cache.get("a"), value);
    }
  });
}

export function time(check: Define): void {
  check("an entry expires when its ttl has passed, for every participant and every operation", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    const store = (): void => {
      cache.set("a", "value", { ttl: 100 });
      cache.set("o", { v: 1 }, { ttl: 100, tags: ["t"] });
      same([cache.get("a"), other.get("a"), cache.get("o"), other.ttl("a")], ["value", "value", { v: 1 }, 100]);
      clock.now += 99;
      same([cache.get("a"), other.get("a"), cache.has("o"), cache.ttl("a")], ["value", "value", true, 1]);
      clock.now += 1;
    };
    store();
    same([cache.get("a"), other.get("a"), cache.get("o")], [undefined, undefined, undefined]);
    same(
      [cache.has("a"), cache.ttl("a"), cache.getEntry("o"), cache.take("a")],
      [false, undefined, undefined, undefined],
    );
    same([cache.touch("a", 1000), cache.replace("a", 1), cache.delete("a")], [false, false, false]);
    same([cache.size, [...cache], cache.getMany(["a", "o"])], [0, [], [undefined, undefined]]);
    store();
    same([other.add("a", "new"), cache.get("a"), cache.ttl("a")], [true, "new", Number.POSITIVE_INFINITY]);
    store();
    same([other.compareAndSet("a", 0, "newer"), cache.update("o", (value) => String(value))], [true, "undefined"]);
  });

  check(
    "take of an expired entry returns undefined and removes it within its grace, as delete does",
    ({ cache, clock }) => {
      for (const remove of [() => cache.take("a"), () => void cache.delete("a")]) {
        cache.set("a", 1, { ttl: 100, grace: 50 });
        clock.now += 100;
        same([remove(), cache.getStale("a")], [undefined, undefined]);
      }
    },
  );

  check("getStale finds an expired entry for its grace, which is added to the ttl, and no other read does", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    for (const value of ["value", { v: 1 }, 5, text(300_000, 1)]) {
      cache.set("a", value, { ttl: 100, grace: 50, tags: ["t"] });
      const expiresAt = clock.now + 100;
      for (let reads = 0; reads < 6; reads++) same(other.get("a"), value);
      const version = cache.getEntry("a")?.version as number;
      same(other.getStale("a"), { value, version, expiresAt, tags: ["t"], stale: false });
      clock.now += 100;
      same([other.get("a"), cache.has("a"), cache.size, [...cache]], [undefined, false, 0, []]);
      same([cache.getEntry("a"), cache.getMany(["a"])], [undefined, [undefined]]);
      same(other.getStale("a"), { value, version, expiresAt, tags: ["t"], stale: true });
      clock.now += 49;
      same(other.getStale("a")?.stale, true);
      clock.now += 1;
      same(other.getStale("a"), undefined);
    }
    cache.set("a", 1, { ttl: 10, grace: 100 });
    clock.now += 10;
    same([cache.increment("a", 5), cache.getStale("a")?.stale], [5, false]);
    cache.set("a", 1, { ttl: 10, grace: Number.POSITIVE_INFINITY });
    clock.now += 1e9;
    same([cache.getStale("a")?.value, cache.delete("a"), cache.getStale("a")], [1, false, undefined]);
  });

  check("touch and increment keep the grace of an entry", ({ cache, clock }) => {
    for (const [i, ttl] of [10, Number.POSITIVE_INFINITY].entries()) {
      cache.set("a", 1, { ttl, grace: 100, tags: ["t"] });
      same(cache.increment("a"), 2);
      same([cache.touch("a", Number.POSITIVE_INFINITY), cache.touch("a", 20)], [true, true]);
      same(cache.increment("a"), 3);
      clock.now += 119;
      same([cache.get("a"), cache.getStale("a")?.value, cache.getStale("a")?.tags], [undefined, 3, ["t"]]);
      clock.now += 1;
      same(cache.getStale("a"), undefined, `round ${i}`);
    }
  });

  check("expire lets an entry expire at once: it is stale for its grace, or gone without one", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    same(cache.expire("a"), false);
    for (const value of ["value", { v: 1 }, text(300_000, 1)]) {
      for (const ttl of [1_000, Number.POSITIVE_INFINITY]) {
        cache.set("a", value, { ttl, grace: 50 });
        for (let reads = 0; reads < 6; reads++) same(other.get("a"), value);
        const version = cache.getEntry("a")?.version as number;
        same([cache.expire("a"), cache.expire("a"), other.get("a"), cache.has("a")], [true, false, undefined, false]);
        same(other.getStale("a"), { value, version, expiresAt: clock.now, tags: [], stale: true });
        clock.now += 50;
        same(other.getStale("a"), undefined);
        cache.set("a", value, { ttl });
        same([other.expire("a"), cache.get("a"), cache.getStale("a")], [true, undefined, undefined]);
      }
    }
  });

  check(
    "the default ttl applies to every operation that stores, unless the call has a ttl of its own",
    ({ clock, another }) => {
      const cache = another({ ttl: 1000 });
      cache.set("a", 1).set("b", 1, { ttl: 50 }).set("c", 1, { ttl: Number.POSITIVE_INFINITY });
      cache.setMany([["d", 1]]).add("e", 1);
      cache.increment("f");
      cache.increment("g", 1, { ttl: 50 });
      same(
        ["a", "b", "c", "d", "e", "f", "g"].map((key) => cache.ttl(key)),
        [1000, 50, Infinity, 1000, 1000, 1000, 50],
      );
      clock.now += 1000;
      same([...cache.keys()], ["c"]);
    },
  );

  check("expiresAt is a time of the cache's clock at which the entry expires", ({ clock, another }) => {
    const cache = another({ ttl: 1000 });
    const other = another();
    const at = clock.now + 100;
    cache.set("a", "value", { expiresAt: at }).set("b", 2, { expiresAt: Number.POSITIVE_INFINITY });
    cache.add("c", 3, { expiresAt: at + 0.5 });
    same(
      ["a", "b", "c"].map((key) => other.getEntry(key)?.expiresAt),
      [at, Infinity, at + 0.5],
    );
    cache.replace("a", "newer", { expiresAt: at + 1 });
    cache.compareAndSet("b", cache.getEntry("b")?.version as number, 4, { expiresAt: at });
    clock.now = at;
    same([cache.get("a"), other.get("b"), cache.ttl("c")], ["newer", undefined, 0.5]);
    clock.now += 1;
    same([...other.keys()], []);
  });

  check(
    "an entry that has expired does not come back with the clock when it was replaced by one that had expired already",
    ({ cache, clock }) => {
      for (const replace of [
        () => cache.add("a", "new", { expiresAt: clock.now }),
        () => cache.compareAndSet("a", 0, "new", { expiresAt: clock.now }),
        () => cache.set("a", "new", { expiresAt: clock.now }),
      ]) {
        cache.set("a", "old", { ttl: 10 });
        clock.now += 10;
        replace();
        clock.now -= 10;
        same(cache.get("a"), undefined);
      }
    },
  );

  check("an expiresAt that has come already removes the entry, as if it had expired at once", ({ cache, clock }) => {
    for (const expiresAt of [clock.now, clock.now - 1, 0, -5, Number.NEGATIVE_INFINITY]) {
      for (const old of ["old", text(300_000, 1)]) {
        ok(cache.set("a", "new", { expiresAt }) === cache && !cache.has("a"), "set of what was absent");
        cache.set("a", old);
        ok(cache.set("a", "new", { expiresAt }) === cache && !cache.has("a"), "set");
        same([cache.add("a", "new", { expiresAt }), cache.has("a")], [true, false]);
        same(cache.replace("a", "new", { expiresAt }), false);
        same(cache.compareAndSet("a", 0, "new", { expiresAt }), true);
        cache.set("a", old);
        same([cache.add("a", "new", { expiresAt }), cache.get("a")], [false, old]);
        same([cache.compareAndSet("a", 0, "new", { expiresAt }), cache.get("a")], [false, old]);
        const version = cache.getEntry("a")?.version as number;
        same([cache.compareAndSet("a", version - 1, "new", { expiresAt }), cache.get("a")], [false, old]);
        same([cache.compareAndSet("a", version, "new", { expiresAt }), cache.has("a")], [true, false]);
        cache.set("a", old);
        same([cache.replace("a", "new", { expiresAt }), cache.has("a")], [true, false]);
        cache.set("a", old);
        same([cache.update("a", () => "new", { expiresAt }), cache.has("a")], ["new", false]);
        same([cache.update("a", () => "new", { expiresAt }), cache.has("a")], ["new", false]);
        cache.set("a", old).setMany([
          ["a", "new", { expiresAt }],
          ["b", 1],
        ]);
        same([cache.has("a"), cache.take("b")], [false, 1]);
      }
      // A value that cannot be stored is refused at any time.
      cache.set("a", "old");
      throws(() => cache.set("a", undefined, { expiresAt }), "TypeError");
      throws(() => cache.set("a", 1, { expiresAt, tags: [""] }), "RangeError");
      throws(() => cache.set("k".repeat(5000), 1, { expiresAt }), "ERR_TOO_LARGE");
      same(cache.take("a"), "old");
    }
  });

  check(
    "a store that keeps the expiry keeps the one of a touch that came between its reading and its storing",
    ({ cache, clock }) => {
      let touched = 0;
      const touch = (): void => {
        if (touched++ === 0) cache.touch("a", 900);
      };
      cache.set("a", 1, { ttl: 100 });
      same(
        cache.update("a", (n) => {
          touch();
          return n + 1;
        }),
        2,
      );
      same([cache.getEntry("a")?.expiresAt, touched], [clock.now + 900, 2]);
      // A value whose encoding touches the entry.
      for (const store of ["set", "replace", "compareAndSet"] as const) {
        cache.set("a", 1, { ttl: 100 });
        touched = 0;
        const value = {
          toJSON() {
            touch();
            return "stored";
          },
        };
        if (store === "compareAndSet") {
          same(cache.compareAndSet("a", cache.getEntry("a")?.version as number, value, { keepTtl: true }), true);
        } else cache[store]("a", value, { keepTtl: true });
        same([cache.get("a"), cache.getEntry("a")?.expiresAt], ["stored", clock.now + 900]);
      }
    },
  );

  check("keepTtl and keepTags keep what the entry that is replaced has", ({ clock, another }) => {
    const cache = another({ ttl: 5000 });
    const how = (): unknown => {
      const entry = cache.getEntry("a");
      return entry && [entry.value, entry.expiresAt - clock.now, entry.tags];
    };
    cache.set("a", 1, { keepTtl: true, keepTags: true });
    same(how(), [1, 5000, []]);
    for (const [old, next] of [
      [1, 2],
      ["text", text(300_000, 2)],
      [text(300_000, 3), "text"],
      [{ o: 1 }, { p: text(300_000, 3) }],
    ]) {
      cache.set("a", old, { ttl: 100, tags: ["x", "→"] });
      clock.now += 30;
      cache.set("a", next, { keepTtl: true });
      same(how(), [next, 70, []]);
      cache.set("a", old, { ttl: 100, tags: ["x", "→"] });
      cache.set("a", next, { keepTags: true });
      same(how(), [next, 5000, ["x", "→"]]);
      cache.set("a", old, { keepTags: true, expiresAt: clock.now + 60 });
      same(how(), [old, 60, ["x", "→"]]);
      same([cache.replace("a", next, { keepTtl: true, tags: ["z"] }), how()], [true, [next, 60, ["z"]]]);
      const version = cache.getEntry("a")?.version as number;
      same(cache.compareAndSet("a", version - 1, old, { keepTtl: true, keepTags: true }), false);
      same(cache.compareAndSet("a", 0, old, { keepTtl: true, keepTags: true }), false);
      same(cache.add("a", old, { keepTtl: true, keepTags: true }), false);
      same(how(), [next, 60, ["z"]]);
      same(cache.compareAndSet("a", version, old, { keepTtl: true, keepTags: true }), true);
      same(how(), [old, 60, ["z"]]);
      cache.delete("a");
      same(cache.replace("a", next, { keepTtl: true }), false);
      same(cache.compareAndSet("a", version, next, { keepTtl: true }), false);
      same([cache.add("a", next, { keepTtl: true }), how()], [true, [next, 5000, []]]);
      cache.delete("a");
      same([cache.compareAndSet("a", 0, next, { keepTags: true }), how()], [true, [next, 5000, []]]);
      cache.set("a", next, { ttl: Number.POSITIVE_INFINITY }).set("a", old, { keepTtl: true });
      same(how(), [old, Infinity, []]);
      // Kept tags still work.
      cache.set("a", old, { tags: ["x"] }).set("a", next, { keepTags: true });
      cache.invalidateTag("x");
      same(how(), undefined);
    }
    cache.set("a", 1).set("a", 2, { keepTtl: false, keepTags: false, tags: ["x"], ttl: 5 });
    same(how(), [2, 5, ["x"]]);
    clock.now += 5;
    cache.set("a", 3, { keepTtl: true, keepTags: true });
    same(how(), [3, 5000, []]);
    throws(() => cache.replace("b", undefined, { keepTtl: true }), "TypeError");
    throws(() => cache.replace("b", 1, { keepTtl: true, tags: [""] }), "RangeError");
  });

  check("keepTtl and keepTags keep what another participant has stored while the value is encoded", (given) => {
    const { cache, another } = given;
    const other = another();
    cache.set("a", "old", { ttl: 100, tags: ["x"] });
    let runs = 0;
    const value = {
      get v(): number {
        if (runs++ < 3) other.set("a", `theirs ${runs}`, { ttl: 100 * runs, tags: [`t${runs}`] });
        return runs;
      },
    };
    cache.set("a", value, { keepTtl: true, keepTags: true });
    same([runs, other.get("a"), other.ttl("a"), other.getEntry("a")?.tags], [4, { v: 4 }, 300, ["t3"]]);
    runs = 0;
    const removing = {
      get v(): number {
        if (runs++ === 0) other.delete("a");
        return runs;
      },
    };
    cache.set("a", removing, { keepTtl: true, keepTags: true });
    same([runs, cache.ttl("a"), other.getEntry("a")?.tags], [2, Infinity, []]);
  });

  check("keepTtl and keepTags do not read the value that is replaced", ({ cache, another }) => {
    const unreadable = another({
      codec: {
        encode: () => Uint8Array.of(1),
        decode() {
          throw new Error("must not be read");
        },
      },
    });
    unreadable.set("a", { o: 1 }, { ttl: 100, tags: ["x"] });
    unreadable.set("a", "text", { keepTtl: true, keepTags: true });
    same([cache.get("a"), cache.ttl("a"), cache.getEntry("a")?.tags], ["text", 100, ["x"]]);
  });

  check("options of a store that exclude each other are a TypeError that names both", ({ cache, clock }) => {
    const at = clock.now + 5;
    cache.set("a", "old");
    throws(() => cache.set("a", 1, { ttl: 5, expiresAt: at }), "TypeError", "ttl", "expiresAt");
    throws(() => cache.set("a", 1, { ttl: 5, keepTtl: true }), "TypeError", "ttl", "keepTtl");
    throws(() => cache.set("a", 1, { expiresAt: at, keepTtl: true }), "TypeError", "expiresAt", "keepTtl");
    throws(() => cache.set("a", 1, { tags: [], keepTags: true }), "TypeError", "tags", "keepTags");
    throws(() => cache.set("a", 1, { keepTtl: 1 as never }), "TypeError", "keepTtl", "boolean");
    throws(() => cache.set("a", 1, { keepTags: "t" as never }), "TypeError", "keepTags", "boolean");
    for (const bad of [new Date(at), "tomorrow", Number.NaN, null, 5n]) {
      throws(() => cache.set("a", 1, { expiresAt: bad as never }), "TypeError", "expiresAt", "date.getTime()");
    }
    same(cache.get("a"), "old");
    // What is undefined was not said.
    cache.set("a", 1, { ttl: 5, expiresAt: undefined, tags: ["t"], keepTtl: undefined, keepTags: undefined });
    same([cache.ttl("a"), cache.getEntry("a")?.tags], [5, ["t"]]);
    cache.set("a", 2, { ttl: undefined, keepTtl: true, tags: undefined, keepTags: true });
    same([cache.ttl("a"), cache.getEntry("a")?.tags], [5, ["t"]]);
  });

  check("touch changes the ttl and nothing else", ({ cache, clock, another }) => {
    const other = another();
    same(cache.touch("a", 100), false);
    for (const value of ["text", { o: [1] }, 5, text(300_000, 2)]) {
      cache.set("a", value, { tags: ["t"] });
      other.get("a");
      const version = cache.getEntry("a")?.version as number;
      same(cache.touch("a", 100), true);
      same([cache.ttl("a"), other.ttl("a")], [100, 100]);
      same([cache.getEntry("a")?.tags, cache.getEntry("a")?.version], [["t"], version]);
      clock.now += 60;
      same(other.touch("a", 100), true);
      clock.now += 60;
      same([cache.get("a"), other.get("a")], [value, value]);
      same(cache.touch("a", Number.POSITIVE_INFINITY), true);
      same([cache.ttl("a"), cache.getEntry("a")?.expiresAt], [Infinity, Infinity]);
      clock.now += 1e12;
      same(other.get("a"), value);
      cache.touch("a", 5);
      clock.now += 5;
      same([cache.get("a"), other.get("a")], [undefined, undefined]);
    }
  });

  check("a ttl can be a fraction, very small or very large", ({ cache, clock }) => {
    cache.set("a", 1, { ttl: 0.5 }).set("b", 1, { ttl: Number.MAX_VALUE }).set("c", 1, { ttl: Number.MIN_VALUE });
    same([cache.get("a"), cache.ttl("a"), cache.get("b"), cache.get("c")], [1, 0.5, 1, undefined]);
    clock.now += 0.5;
    same([cache.get("a"), cache.get("b"), cache.ttl("b")], [undefined, 1, Number.MAX_VALUE]);
  });
}

export function tagsAndNamespaces(check: Define): void {
  check("invalidateTag makes every entry with the tag a miss, and no other entry", ({ cache, another }) => {
    const other = another();
    const fill = (): void => {
      cache.set("a", "text", { tags: ["one"] }).set("b", { b: 1 }, { tags: ["one", "two"] });
      cache
        .set("c", 3, { tags: ["two"] })
        .set("d", text(300_000, 3), { tags: ["three", "one"] })
        .set("e", 5);
      for (const key of ["a", "b", "c", "d", "e"]) ok(other.get(key) !== undefined, `${key} is there`);
    };
    const there = (): string => ["a", "b", "c", "d", "e"].filter((key) => other.get(key) !== undefined).join("");
    fill();
    cache.invalidateTag("none");
    cache.invalidateTag();
    same(there(), "abcde");
    cache.invalidateTag("one");
    same(there(), "ce");
    same([cache.has("a"), cache.size, cache.getEntry("b"), cache.delete("d")], [false, 2, undefined, false]);
    fill();
    other.invalidateTag("two", "three");
    same(there(), "ae");
    // The entry was stored again without the tag.
    cache.set("a", "again");
    cache.invalidateTag("one");
    same(there(), "ae");
    same(cache.add("b", "new", { tags: ["one"] }), true);
    same(cache.replace("b", "newer"), true);
    cache.invalidateTag("one");
    same(there(), "abe");
  });

  check("an entry can have 128 tags, 16 of them long ones, which getEntry returns in order", ({ cache }) => {
    const tags = Array.from({ length: 128 }, (_, i) => `${i} ${"é".repeat(i < 16 ? i * 6 : 0)}`);
    cache.set("a", "value", { tags });
    same(cache.getEntry("a")?.tags, tags);
    cache.invalidateTag(tags[127] as string);
    same(cache.has("a"), false);
    throws(() => cache.set("a", 1, { tags: [...tags, "one more"] }), "RangeError", "tags", "128");
    throws(() => cache.set("a", 1, { tags: ["x".repeat(257)] }), "RangeError", "tags", "bytes of UTF-8");
    same(cache.has("a"), false);
  });

  check("expireTag makes every entry with the tag stale for its grace, and a miss without one", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    // A new tag each time: a tag keeps the time of its latest expiry, and the clock of a check begins anew.
    const tag = `expired ${Math.random()}`;
    const stale = (key: string): unknown[] => {
      const entry = cache.getStale(key);
      return [entry?.value, entry?.stale];
    };
    const fill = (): void => {
      cache.set("none", "text", { tags: [tag] });
      cache.set("short", { a: 1 }, { tags: ["another", tag], grace: 100 });
      cache.set("long", text(300_000, 3), { tags: [tag], ttl: 1_000, grace: Number.POSITIVE_INFINITY });
      cache.set("untagged", 1, { grace: 100 });
      for (const key of ["none", "short", "long", "untagged"]) {
        for (let reads = 0; reads < 6; reads++) ok(other.get(key) !== undefined, `${key} is there`);
      }
    };
    fill();
    cache.expireTag();
    cache.expireTag(`never ${tag}`);
    same([other.get("none"), stale("short")], ["text", [{ a: 1 }, false]]);
    clock.now += 10;
    cache.expireTag(tag);
    same([other.get("none"), other.get("short"), other.get("long"), other.size], [undefined, undefined, undefined, 1]);
    same([...cache.keys()], ["untagged"]);
    same([cache.has("short"), cache.getEntry("short"), cache.ttl("long")], [false, undefined, undefined]);
    same(
      [stale("none"), stale("short"), stale("untagged")],
      [
        [undefined, undefined],
        [{ a: 1 }, true],
        [1, false],
      ],
    );
    same(cache.getStale("short")?.tags, ["another", tag]);
    clock.now += 99;
    same(stale("short"), [{ a: 1 }, true]);
    clock.now += 1;
    same(
      [stale("short"), stale("long")],
      [
        [undefined, undefined],
        [text(300_000, 3), true],
      ],
    );
    // Stale entries are absent for those who change them.
    same([cache.touch("long", 5), cache.replace("long", 1), cache.expire("long")], [false, false, false]);
    same([cache.add("long", "new"), other.get("long"), stale("long")], [true, "new", ["new", false]]);
    fill();
    cache.expireTag(tag);
    cache.invalidateTag("another");
    same(stale("short"), [undefined, undefined]);
    same([cache.delete("long"), stale("long")], [false, [undefined, undefined]]);
  });

  check("tagInvalidatedAt returns the time of the latest invalidation of the tags, and 0 before the first", (given) => {
    const { cache, clock, another } = given;
    const other = another();
    const [a, b] = [`a ${Math.random()}`, `b ${Math.random()}`];
    // Tags share counters, so few of them have the time of another tag.
    const never = Array.from({ length: 10 }, (_, i) => cache.tagInvalidatedAt(`${a} ${i}`));
    ok(never.includes(0), `the times of new tags are ${never}`);
    same(cache.tagInvalidatedAt(), 0);
    const start = clock.now;
    cache.invalidateTag(a);
    clock.now += 5;
    other.invalidateTag(b);
    ok(cache.tagInvalidatedAt(a) >= start && other.tagInvalidatedAt(b) >= start + 5, "the times are too early");
    same(other.tagInvalidatedAt(a, b), Math.max(other.tagInvalidatedAt(a), other.tagInvalidatedAt(b)));
    clock.now += 5;
    other.invalidateTag(a);
    ok(cache.tagInvalidatedAt(a) >= start + 10, "the time of the first invalidation");
  });

  check("the same key is another entry in each namespace, also in nested ones", ({ cache }) => {
    const names = ["a", "b", "a\0", "1:a", "a:b", "", "日本", "\0"].filter((name) => name !== "");
    const views = [cache, ...names.map((name) => cache.namespace(name))];
    views.push(cache.namespace("a").namespace("b"), cache.namespace("b").namespace("a"));
    views.push(cache.namespace("ab"), cache.namespace("a").namespace("b").namespace("a"));
    for (const key of ["key", "", "日本", Uint8Array.of(107, 101, 121), "\ud800"]) {
      for (const [i, view] of views.entries()) {
        same(view.get(key), undefined, `view ${i}`);
        view.set(key, { view: i });
      }
      for (const [i, view] of views.entries()) same(view.get(key), { view: i });
      for (const [i, view] of views.entries()) {
        same(view.delete(key), true);
        same(view.has(key), false, `view ${i}`);
      }
    }
    // The same names lead to the same namespace.
    cache.namespace("a").namespace("b").set("key", 1);
    same(cache.namespace("a").namespace("b").get("key"), 1);
    throws(() => cache.namespace("a").namespace("\ud800").get("key"), "RangeError", "name");
  });

  check("a namespace has the whole interface", ({ cache, another, clock }) => {
    const view = cache.namespace("part");
    const same2 = another().namespace("part");
    view
      .set("a", 1, { ttl: 100 })
      .set("b", { b: 2 }, { tags: ["t"] })
      .set("c", text(300_000, 4));
    view.increment("n", 2);
    cache.set("outside", 1);
    same([...same2.keys()].sort(), ["a", "b", "c", "n"]);
    same([view.size, cache.size, same2.getMany(["a", "c", "n"])], [4, 1, [1, text(300_000, 4), 2]]);
    same([same2.ttl("a"), same2.touch("a", 50), same2.add("a", 2), same2.replace("n", 3)], [100, true, false, true]);
    same([same2.take("n"), view.has("n"), view.getEntry("b")?.tags], [3, false, ["t"]]);
    same(
      [view.compareAndSet("b", view.getEntry("b")?.version as number, 3), same2.update("b", (b) => b + 1)],
      [true, 4],
    );
    clock.now += 50;
    same([...view.keys()].sort(), ["b", "c"]);
    same(view.reach, cache.reach);
    ok(view.stats().capacity === cache.stats().capacity, "stats are those of the whole cache");
    ok(view.census().entries > view.size, "the census is of the whole cache");
  });

  check("a namespace can have a default ttl of its own, which the namespaces within it inherit", ({ another }) => {
    const cache = another({ ttl: 5000 });
    const part = cache.namespace("a", { ttl: 100 });
    const left = (view: typeof cache): unknown => {
      view.set("set", 1).setMany([["many", 1]]);
      view.set("own", 1, { ttl: 7 }).delete("n");
      view.increment("n");
      view.delete("u");
      view.update("u", () => 1);
      return ["set", "many", "own", "n", "u"].map((key) => view.ttl(key));
    };
    same(left(cache), [5000, 5000, 7, 5000, 5000]);
    same(left(part), [100, 100, 7, 100, 100]);
    same(left(part.namespace("b")), [100, 100, 7, 100, 100]);
    same(left(part.namespace("b").namespace("c", { ttl: 30 })), [30, 30, 7, 30, 30]);
    const never = part.namespace("c", { ttl: Number.POSITIVE_INFINITY });
    same(left(never), [Infinity, Infinity, 7, Infinity, Infinity]);
    // It is a default of that object, and not of the namespace.
    same(left(cache.namespace("a")), [5000, 5000, 7, 5000, 5000]);
    same(left(cache.namespace("a", { ttl: undefined })), [5000, 5000, 7, 5000, 5000]);
    throws(() => cache.namespace("a", { ttl: 0 }), "RangeError", "ttl");
    throws(() => cache.namespace("a", { ttl: "5" as never }), "TypeError", "ttl");
    throws(() => cache.namespace("a", 5 as never), "TypeError", "options");
  });

  check("clear of a namespace clears it and the namespaces in it, and nothing else", ({ cache, another }) => {
    const [a, b] = [cache.namespace("a"), cache.namespace("b")];
    const nested = a.namespace("n").namespace("m");
    const theirs = another().namespace("a");
    const fill = (): void => {
      for (const view of [cache, a, b, nested]) view.set("key", "value", { tags: ["t"] });
      same(theirs.get("key"), "value");
    };
    const there = (): boolean[] => [cache, a, b, nested, theirs].map((view) => view.get("key") === "value");
    fill();
    a.clear();
    same(there(), [true, false, true, false, false]);
    same([a.size, nested.size, b.size, [...theirs]], [0, 0, 1, []]);
    fill();
    nested.clear();
    same(there(), [true, true, true, false, true]);
    cache.clear();
    same(there(), [false, false, false, false, false]);
  });

  check("invalidateTag of a namespace affects only the entries of that namespace", ({ cache }) => {
    const [a, b] = [cache.namespace("a"), cache.namespace("b")];
    const nested = a.namespace("n");
    const views = [cache, a, b, nested];
    const fill = (): void => {
      for (const view of views) view.set("tagged", 1, { tags: ["t"] }).set("plain", 1);
    };
    const there = (): string => views.map((view) => `${+view.has("tagged")}${+view.has("plain")}`).join(" ");
    fill();
    same(
      views.map((view) => view.getEntry("tagged")?.tags),
      [["t"], ["t"], ["t"], ["t"]],
    );
    a.invalidateTag("t");
    same(there(), "11 01 11 11");
    fill();
    cache.invalidateTag("t");
    same(there(), "01 11 11 11");
    fill();
    nested.invalidateTag("t", "u");
    same(there(), "11 11 11 01");
    // A tag that looks like the path of a namespace does not affect that namespace.
    for (const tag of ["a", "1:a", "1:a1:n", "\0a"]) cache.invalidateTag(tag);
    same(there(), "11 11 11 01");
  });
}
