/** The part of the conformance suite about values, keys, participants, options, and code of the user that the cache calls. */

import { ok, same, throws } from "./assert.ts";
import type { Define, Given, Subject } from "./check.ts";
import { bytes, keys, lengths, text, values } from "./samples.ts";

export function valuesAndKeys(check: Define, largest: number): void {
  check("a value of every type comes back equal", ({ cache, another }) => {
    const other = another();
    for (const [name, value] of values()) {
      cache.set(name, value);
      for (const reader of [cache, cache, other, other]) same(reader.get(name), value, name);
      same(other.getEntry(name)?.value, value, name);
    }
    same(new Map(cache.entries()).size, values().length);
    const [cycle, shared] = other.getMany(["cycle", "shared part"]);
    ok(
      cycle.self === cycle && cycle.list[2] === cycle.list && shared.one === shared.two,
      "the same object stays the same",
    );
    for (const [name, value] of values()) {
      same(other.take(name), value, name);
      same(cache.get(name), undefined);
    }
  });

  check("the error for a value that cannot be stored says why and where, and the old value stays", ({ cache }) => {
    cache.set("a", "old");
    const bad: [string, unknown, ...string[]][] = [
      ["TypeError", undefined, "undefined"],
      ["TypeError", () => 1, "function"],
      ["TypeError", Symbol("s"), "symbol"],
      ["TypeError", new WeakMap()],
      ["TypeError", Promise.resolve(), "Await it"],
      ["ERR_DATA", { deep: [1, { f() {} }] }, "function", "deep"],
      ["ERR_DATA", new Map([["k", Symbol("s")]]), "symbol"],
      ["ERR_DATA", [Promise.resolve()], "Await it"],
      ["ERR_DATA", JSON.parse('{"a":{"__proto__":1}}'), "value.a", "__proto__"],
      ["ERR_DATA", JSON.parse(`${"[".repeat(2000)}${"]".repeat(2000)}`), "512 levels"],
    ];
    for (const [code, value, ...texts] of bad) {
      throws(() => cache.set("a", value), code, ...texts);
      throws(() => cache.replace("a", value), code);
      throws(() => cache.add("b", value), code);
    }
    same([cache.get("a"), cache.has("b")], ["old", false]);
  });

  check("text and bytes of every length come back whole, up to the largest value", ({ cache, another }) => {
    const other = another({ nearCache: 0 });
    for (const length of lengths(largest)) {
      for (const value of [text(length, 5), `${text(length >> 1, 6)}`.replaceAll(":", "→").slice(0, length >> 1)]) {
        cache.set("text", value);
        same(other.get("text"), value, `text of ${length}`);
        same(cache.get("text"), value, `text of ${length}`);
      }
      const value = bytes(length, 7);
      cache.set("bytes", value);
      for (const reader of [cache, other]) same(reader.get("bytes"), value, `bytes, ${length}`);
      same(other.getEntry("bytes")?.value, value, `entry of ${length} bytes`);
    }
    same(other.take("bytes"), bytes(largest, 7));
    cache.delete("text");
  });

  check("get returns copies: changing one changes no other copy", ({ cache, another }) => {
    const other = another();
    for (const size of [10, 300_000]) {
      const list = [1, 2, 3];
      const value = { list, bytes: new Uint8Array(size), date: new Date(0), map: new Map([["k", { v: 1 }]]) };
      const plain = bytes(size, 9);
      cache.set("o", value).set("b", plain);
      list.push(4);
      value.bytes.fill(1);
      plain.fill(1);
      for (const reader of [cache, other, cache, other]) {
        const got = reader.get("o");
        same(got.list, [1, 2, 3]);
        same(got.bytes, new Uint8Array(size));
        same([got.date.getTime(), got.map.get("k")], [0, { v: 1 }]);
        got.list.length = 0;
        got.bytes.fill(7);
        got.date.setTime(9);
        got.map.get("k").v = 9;
        const gotBytes = reader.get("b");
        same(gotBytes, bytes(size, 9));
        gotBytes.fill(7);
        ok(reader.get("o") !== got && reader.get("b") !== gotBytes, "a fresh copy each time");
      }
    }
  });

  check("keys of every kind are told apart, and iteration returns them", ({ cache, another }) => {
    const other = another();
    const all = keys();
    for (const [i, key] of all.entries()) {
      same(cache.has(key), false, `key ${i}`);
      cache.set(key, i);
    }
    for (const [i, key] of all.entries()) same([other.get(key), cache.get(key)], [i, i], `key ${i}`);
    same(other.size, all.length);
    for (const [key, value] of other) {
      const original = all[value] as string | Uint8Array;
      if (typeof original === "string") same(key, original);
      else same(Array.from(key as Uint8Array), Array.from(original));
    }
    for (const key of all) same(other.delete(key), true);
    same(cache.size, 0);
  });

  check("changing the bytes of a key after a call does not change the entry's key", ({ cache }) => {
    const key = Uint8Array.of(1, 2, 3);
    cache.set(key, "value");
    key[0] = 9;
    same(cache.get(key), undefined);
    same(cache.get(Uint8Array.of(1, 2, 3)), "value");
    const [back] = cache.keys();
    (back as Uint8Array).fill(0);
    same(cache.get(Uint8Array.of(1, 2, 3)), "value");
  });

  check("a key that is neither a string nor bytes is a TypeError, in every operation", ({ cache }) => {
    for (const bad of [undefined, null, 1, 1n, true, {}, ["a"], Symbol("s"), new Uint16Array(1), new ArrayBuffer(1)]) {
      const key = bad as unknown as string;
      const operations: (() => unknown)[] = [
        () => cache.get(key),
        () => cache.set(key, 1),
        () => cache.has(key),
        () => cache.delete(key),
        () => cache.add(key, 1),
        () => cache.replace(key, 1),
        () => cache.getEntry(key),
        () => cache.compareAndSet(key, 0, 1),
        () => cache.update(key, () => 1),
        () => cache.increment(key),
        () => cache.take(key),
        () => cache.touch(key, 1),
        () => cache.ttl(key),
        () => cache.getMany([key]),
        () => cache.setMany([[key, 1]]),
        () => cache.deleteMany([key]),
        () => cache.compareAndDelete(key, 1),
        () => cache.set(key, 1, { keepTtl: true }),
        () => cache.set(key, 1, { expiresAt: 1 }),
      ];
      for (const operation of operations) throws(operation, "TypeError", "key");
    }
    same(cache.size, 0);
  });
}

const COUNTED = ["hits", "misses", "sets", "deletes", "evictions", "expirations", "reclaims", "compactions"] as const;

export function participants(check: Define, subject: Subject): void {
  check("reach and handle name the reach of the cache, and stats count what is done", ({ cache }) => {
    same(cache.reach, subject.reach);
    same(cache.handle.reach, subject.reach);
    const before = cache.stats();
    for (const name of COUNTED) ok(Number.isSafeInteger(before[name]) && before[name] >= 0, `${name} is counted`);
    for (const name of ["capacity", "used", "size", "participants"] as const) {
      ok(Number.isSafeInteger(before[name]), `${name} is told`);
    }
    ok(before.participants >= 1 && before.size > before.capacity && before.capacity > 0, "sizes make sense");
    cache.set("a", "x".repeat(1000));
    cache.get("a");
    cache.get("missing");
    const after = cache.stats();
    ok(
      after.sets > before.sets && after.hits > before.hits && after.misses > before.misses,
      "reads and sets are counted",
    );
    const { entries, bytes } = cache.census();
    ok(entries >= 1 && bytes >= 1000 && after.used >= 1000, "entries and bytes are counted");
    cache.delete("a");
    ok(cache.stats().deletes > after.deletes, "deletes are counted");
  });

  check(
    "a change by one participant is seen by another at once, with and without a near cache",
    ({ cache, clock, another }) => {
      const other = another();
      for (const first of ["text", 1, "日本語", true, 5n, null]) {
        // Reads so often that the value, or its absence, is near and proved.
        const now = (value: unknown, after: string): void =>
          same(
            Array.from({ length: 8 }, () => cache.get("k")),
            Array(8).fill(value),
            after,
          );
        const set = (options?: { ttl?: number; tags?: string[] }): void => {
          other.set("k", first, options);
          now(first, "set");
        };
        set();
        other.set("k", "second");
        now("second", "set");
        other.replace("k", "third");
        now("third", "replace");
        other.compareAndSet("k", other.getEntry("k")?.version as number, "fourth");
        now("fourth", "compareAndSet");
        other.update("k", (value) => `${value}!`);
        now("fourth!", "update");
        other.delete("k");
        now(undefined, "delete");
        set();
        other.compareAndDelete("k", other.getEntry("k")?.version as number);
        now(undefined, "compareAndDelete");
        set({ ttl: 100, tags: ["t"] });
        other.set("k", "kept", { keepTtl: true, keepTags: true });
        now("kept", "set that keeps");
        other.set("k", "gone", { expiresAt: clock.now });
        now(undefined, "set of what has expired");
        set();
        other.deleteMany(["k"]);
        now(undefined, "deleteMany");
        set();
        other.clear();
        now(undefined, "clear");
        set({ tags: ["t"] });
        other.invalidateTag("t");
        now(undefined, "invalidateTag");
        set();
        other.take("k");
        now(undefined, "take");
        set({ ttl: 1000 });
        other.touch("k", 100);
        now(first, "touch");
        clock.now += 100;
        now(undefined, "expiry after touch");
        set({ ttl: 100 });
        other.touch("k", 1000);
        clock.now += 500;
        now(first, "longer life");
        clock.now += 500;
        now(undefined, "expiry");
        other.add("k", 10);
        now(10, "add");
        for (let sum = 11; sum < 15; sum++) {
          other.increment("k");
          now(sum, "increment");
        }
        other.delete("k");
        now(undefined, "delete of a counter");
      }
    },
  );

  check("a change or clear of a namespace by one participant is seen by another at once", ({ cache, another }) => {
    const [mine, theirs] = [cache.namespace("part"), another().namespace("part")];
    for (let i = 0; i < 20; i++) {
      theirs.set("k", `value ${i}`);
      cache.set("k", "outside");
      same([mine.get("k"), mine.get("k"), cache.get("k")], [`value ${i}`, `value ${i}`, "outside"]);
      theirs.clear();
      same([mine.get("k"), cache.get("k")], [undefined, "outside"]);
    }
  });

  check(
    "close does not affect other participants; dispose does the same, and both may be called twice",
    ({ cache, another }) => {
      const other = another();
      const view = other.namespace("part");
      other.set("a", "stays");
      same(other.get("a"), "stays");
      other.close();
      throws(() => other.get("a"), "ERR_CLOSED", "open it again");
      throws(() => view.get("a"), "ERR_CLOSED");
      other.close();
      other[Symbol.dispose]();
      const disposed = another();
      disposed[Symbol.dispose]();
      throws(() => disposed.set("a", 1), "ERR_CLOSED");
      same(cache.get("a"), "stays");
    },
  );
}

/** Calls with options that do not exist: the call, the option, and the one that was probably meant. */
const MISTAKEN: [call: (cache: Given["cache"]) => unknown, wrong: string, meant: string][] = [
  [(c) => c.set("k", 1, { maxAge: 5 } as never), "maxAge", "`ttl`, in milliseconds"],
  [(c) => c.set("k", 1, { EX: 5 } as never), "EX", "`ttl`, in milliseconds"],
  [(c) => c.add("k", 1, { expires: 5 } as never), "expires", "`ttl`"],
  [(c) => c.replace("k", 1, { TTL: 5 } as never), "TTL", "`ttl`"],
  [(c) => c.compareAndSet("k", 0, 1, { tll: 5 } as never), "tll", "`ttl`"],
  [(c) => c.update("k", () => 1, { expireAt: 5 } as never), "expireAt", "`expiresAt`"],
  [(c) => c.setMany([["k", 1]], { tag: "t" } as never), "tag", "`tags`"],
  [(c) => c.setMany([["k", 1, { keepttl: true } as never]]), "keepttl", "`keepTtl`"],
  [(c) => c.set("k", 1, { somethingElse: 5 } as never), "somethingElse", "`ttl`, `expiresAt`, `grace`, `tags`"],
  [(c) => c.set("k", 1, { ttl: 5, timeout: undefined } as never), "timeout", "`ttl`"],
  [(c) => c.increment("k", 1, { initail: 5 } as never), "initail", "`initial`"],
  [(c) => c.namespace("n", { maxAge: 5 } as never), "maxAge", "`ttl`"],
];

export function configuration(check: Define): void {
  check("an option that does not exist is a TypeError that names the one that was meant", ({ cache, another }) => {
    for (const [call, wrong, meant] of MISTAKEN) {
      throws(() => call(cache), "TypeError", `options.${wrong}: there is no such option`, meant);
    }
    throws(() => another({ maxAge: 5 } as never), "TypeError", "options.maxAge", "`ttl`");
    throws(() => another({ nearcache: 5 } as never), "TypeError", "options.nearcache", "`nearCache`");
    same(cache.size, 0);
  });

  check(
    "a value larger than the participant's maxEntrySize is refused, and the old value stays",
    ({ cache, another }) => {
      const small = another({ maxEntrySize: 100 });
      small.set("a", "x".repeat(100));
      for (const store of [
        () => small.set("a", "x".repeat(101)),
        () => small.replace("a", new Uint8Array(101)),
        () => small.add("b", { text: "x".repeat(101) }),
        () => small.set("a", "x".repeat(100_000)),
      ]) {
        throws(store, "ERR_TOO_LARGE", "100", "old value");
      }
      same([small.get("a"), small.has("b")], ["x".repeat(100), false]);
      // The option limits what this participant stores, not what it reads.
      cache.set("a", "y".repeat(500));
      same(small.get("a"), "y".repeat(500));
    },
  );

  check("the results are the same with a near cache of any size, and with none", ({ cache, another }) => {
    const readers = [cache, ...[0, 1, 20, 1000].map((nearCache) => another({ nearCache }))];
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 100; i++) cache.set(`key ${i}`, round === 1 ? i : `${i} in round ${round}`);
      for (const reader of [...readers, ...readers]) {
        for (let i = 0; i < 100; i++) same(reader.get(`key ${i}`), round === 1 ? i : `${i} in round ${round}`);
      }
      for (let i = 0; i < 100; i += 3) cache.delete(`key ${i}`);
      for (const reader of readers) for (let i = 0; i < 100; i += 3) same(reader.get(`key ${i}`), undefined);
    }
  });

  check(
    "with frozenObjects, get returns the same deeply frozen object, and a new one after each change",
    ({ cache, another }) => {
      const frozen = another({ frozenObjects: true, nearCache: 100 });
      cache.set("o", { list: [1, { a: 1 }], map: new Map([["k", { v: 1 }]]), date: new Date(5) });
      const first = frozen.get("o");
      // Another participant that invalidates a tag meanwhile makes this one decode the object again.
      const pairs = Array.from({ length: 100 }, () => [frozen.get("o"), frozen.get("o")]);
      ok(
        pairs.some(([one, two]) => one === two),
        "the same object again",
      );
      ok(
        Object.isFrozen(first) && Object.isFrozen(first.list) && Object.isFrozen(first.list[1]),
        "frozen all the way down",
      );
      throws(() => first.map.set("k", 1), "TypeError");
      throws(() => first.date.setTime(1), "TypeError");
      ok(Object.isFrozen(first.map.get("k")), "frozen within a Map");
      same(cache.get("o").list, [1, { a: 1 }]);
      ok(!Object.isFrozen(cache.get("o")), "only for those who asked for it");
      cache.set("o", { list: [2] });
      same(frozen.get("o").list, [2]);
      same(first.list, [1, { a: 1 }]);
      cache.delete("o");
      same(frozen.get("o"), undefined);
      // Bytes cannot be frozen, so each read gets a copy.
      cache.set("b", { bytes: Uint8Array.of(1) });
      frozen.get("b").bytes[0] = 9;
      same(frozen.get("b").bytes[0], 1);
    },
  );

  check("a codec encodes and decodes objects, and no other values", ({ cache, another }) => {
    let encoded = 0;
    const codec = {
      encode(value: unknown): Uint8Array {
        encoded++;
        return new TextEncoder().encode(`!${JSON.stringify(value)}`);
      },
      decode(encodedBytes: Uint8Array): unknown {
        const json = new TextDecoder().decode(encodedBytes);
        ok(json.startsWith("!"), "the codec's own bytes");
        return { decoded: JSON.parse(json.slice(1)) as unknown };
      },
    };
    const coded = another({ codec });
    coded.set("o", { a: 1 }).set("s", "text").set("n", 1).set("b", Uint8Array.of(1)).set("l", null);
    const large = { text: text(200_000, 8) };
    coded.set("large", large);
    same(encoded, 2);
    same(coded.getMany(["o", "s", "n", "b", "l"]), [{ decoded: { a: 1 } }, "text", 1, Uint8Array.of(1), null]);
    same(coded.get("large"), { decoded: large });
    same(coded.getEntry("o")?.value, { decoded: { a: 1 } });
    same(cache.getMany(["s", "n"]), ["text", 1]);
    throws(() => cache.get("o"), "ERR_DATA", "codec");
    cache.set("plain", { p: 1 });
    same(coded.get("plain"), { p: 1 });
    const error = new Error("mine");
    const failing = another({
      codec: {
        encode() {
          throw error;
        },
        decode: () => undefined,
      },
    });
    try {
      failing.set("o", {});
      ok(false, "the error of the codec comes through");
    } catch (caught) {
      ok(caught === error, "the error of the codec comes through");
    }
    same(coded.get("o"), { decoded: { a: 1 } });
    for (const bad of ["text", [1], undefined, new Uint16Array(1)]) {
      const wrong = another({ codec: { encode: () => bad as never, decode: () => 1 } });
      throws(() => wrong.set("o", {}), "TypeError", "codec");
      wrong.close();
    }
  });
}

export function reentrancy(check: Define): void {
  check("a value may use the cache while it is stored", ({ cache, another }) => {
    cache.set("inner", "old inner").set("counted", 1);
    const value = {
      before: "x".repeat(30),
      get inner(): unknown {
        cache.set("inner", { stored: ["by", "a", "getter"] });
        cache.increment("counted", 1);
        cache.get("a rather long key of another entry");
        cache.set("large", text(200_000, 9));
        cache.get("large");
        return cache.get("inner");
      },
      toBeKept: [1, 2, 3],
    };
    cache.set("outer key", value, { tags: ["t"] });
    const expected = { before: "x".repeat(30), inner: { stored: ["by", "a", "getter"] }, toBeKept: [1, 2, 3] };
    for (const reader of [cache, another()]) {
      same(reader.get("outer key"), expected);
      same([reader.get("counted"), reader.get("large")], [2, text(200_000, 9)]);
    }
    const recursive = {
      toJSON(): unknown {
        cache.set("same key", "inside");
        return { json: cache.get("same key") };
      },
    };
    cache.set("same key", recursive);
    same(cache.get("same key"), { json: "inside" });
  });

  check("getters of options and iterables of keys may use the cache", ({ cache }) => {
    const options = {
      get ttl(): number {
        cache.set("from ttl", 1);
        return Number.POSITIVE_INFINITY;
      },
      get tags(): string[] {
        cache.set("from tags", 1, { tags: ["x"] });
        return ["t"];
      },
    };
    cache.set("k", "value", options);
    same(cache.getEntry("k")?.tags, ["t"]);
    const keysOf = function* (): Generator<string> {
      cache.set("from keys", 7);
      yield "k";
      cache.set("k", "set while iterating");
      yield "k";
    };
    // All keys are there before the first one is read.
    same(cache.getMany(keysOf()), ["set while iterating", "set while iterating"]);
    same(cache.getMany(["from ttl", "from tags", "from keys"]), [1, 1, 7]);
  });

  check("a codec may use the cache while it encodes and decodes", ({ another }) => {
    const codec = {
      encode(value: unknown): Uint8Array {
        coded.set("side", "stored while encoding");
        return new TextEncoder().encode(JSON.stringify(value));
      },
      decode(encoded: Uint8Array): unknown {
        coded.get("side");
        // Begins a group of its own while a value of another group is decoded.
        coded.hasMany(["a", "side", "b"]);
        coded.increment("decoded");
        return JSON.parse(new TextDecoder().decode(encoded)) as unknown;
      },
    };
    const coded = another({ codec, frozenObjects: true });
    coded.set("a", { a: 1 }).set("b", { b: text(100_000, 1) });
    for (let i = 0; i < 5; i++) {
      same(
        [coded.get("a"), coded.get("b"), coded.get("side")],
        [{ a: 1 }, { b: text(100_000, 1) }, "stored while encoding"],
      );
    }
    const many = ["a", "side", "b", "none", "a"];
    const values = [{ a: 1 }, "stored while encoding", { b: text(100_000, 1) }, undefined, { a: 1 }];
    same(coded.getMany(many), values);
    same(
      coded.getManyEntries(many).map((entry) => entry?.value),
      values,
    );
    same(coded.hasMany(many), [true, true, true, false, true]);
    coded.set("a", { a: 2 });
    same([coded.get("a"), coded.getEntry("b")?.value], [{ a: 2 }, { b: text(100_000, 1) }]);
  });

  check(
    "a value that is replaced while it is decoded is returned, and the next read returns the new one",
    ({ another }) => {
      let meanwhile: (() => void) | undefined;
      const codec = {
        encode: (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value)),
        decode(encoded: Uint8Array): unknown {
          const run = meanwhile;
          meanwhile = undefined;
          run?.();
          return JSON.parse(new TextDecoder().decode(encoded)) as unknown;
        },
      };
      const coded = another({ codec, frozenObjects: true });
      for (const [i, read] of [() => coded.get("a"), () => coded.getEntry("a"), () => coded.has("a")].entries()) {
        coded.set("a", { old: i }, { tags: ["t"] });
        meanwhile = () => {
          coded.set("a", { new: i });
          read();
        };
        same(coded.get("a"), { old: i });
        ok(meanwhile === undefined, "it was replaced while it was decoded");
        for (let reads = 0; reads < 3; reads++) same(coded.get("a"), { new: i });
      }
      const other = another({ codec });
      meanwhile = () => other.set("a", { newer: 1 });
      same([coded.take("a"), other.has("a")], [{ newer: 1 }, false]);
      coded.set("a", { taken: "once" });
      meanwhile = () => same(other.take("a"), { taken: "once" });
      same([coded.take("a"), other.has("a")], [undefined, false]);
    },
  );

  check("an error that the clock throws reaches the caller, and does no harm", ({ cache, another }) => {
    let mood: unknown = 1000;
    const moody = another({
      now() {
        if (mood instanceof Error) throw mood;
        return mood as number;
      },
    });
    moody.set("a", "value", { ttl: 100 }).set("b", "stays");
    const operations: (() => unknown)[] = [
      () => moody.get("a"),
      () => moody.has("a"),
      () => moody.ttl("a"),
      () => moody.getEntry("a"),
      () => moody.set("c", 1, { ttl: 1 }),
      () => moody.touch("a", 5),
      () => [...moody.keys()],
      () => moody.size,
    ];
    moody.get("a");
    for (const bad of [new Error("no time"), Number.NaN, "now", undefined]) {
      mood = bad;
      for (const operation of operations) {
        if (bad instanceof Error) {
          try {
            operation();
            ok(false, "the clock's error comes through");
          } catch (error) {
            ok(error === bad, `the clock's own error, not ${error}`);
          }
        } else throws(operation, "TypeError", "now");
      }
      // Operations on entries that never expire do not ask the clock.
      same(moody.get("b"), "stays");
      moody.set("b", "stays");
      mood = 1000;
      same([moody.get("a"), moody.get("b"), moody.has("c"), moody.ttl("a")], ["value", "stays", false, 100]);
    }
    same(cache.get("b"), "stays");
  });
}
