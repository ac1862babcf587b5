/**
 * What every cache promises, wherever it lives: the whole interface but for waiting, checked against a cache that
 * somebody else opens. It uses no test runner and nothing of Node.js, so the same checks run in a test, in a worker
 * thread, in another process and in a page; `conformance-meeting.ts` has what several of them check together.
 *
 * A subject can be a part of a cache that others use at the same time, as long as that part is its own.
 */

import type { Cache, CacheOptions } from "cache-machine";
import { ok, same, throws } from "./fixtures/conformance-assert.ts";
import { bytes, keys, lengths, text, values } from "./fixtures/conformance-values.ts";

/** A cache, or a part of one that only this run uses. */
export interface Subject {
  /** Opens it for one more participant. Each check closes what it opens. */
  open(options?: CacheOptions): Cache;
  /** The longest value to store, in bytes; the cache must take it and not much more than eight of them. */
  readonly largest: number;
  /** What `reach` is to be. */
  readonly reach: "threads" | "processes";
}

/** One promise. */
export interface Check {
  readonly name: string;
  run(): void;
}

/** What a check works with: an empty cache, more participants of it, and a clock that only moves by hand. */
interface Given {
  readonly cache: Cache;
  readonly clock: { now: number };
  another(options?: CacheOptions): Cache;
}

/** All checks, for one kind of participant. */
export function conformance(subject: Subject, options: CacheOptions = {}): Check[] {
  const checks: Check[] = [];
  const check = (name: string, body: (given: Given) => void): void => {
    checks.push({
      name,
      run() {
        const opened: Cache[] = [];
        const clock = { now: 1_700_000_000_000 };
        const another = (more: CacheOptions = {}): Cache => {
          const cache = subject.open({ now: () => clock.now, ...options, ...more });
          opened.push(cache);
          return cache;
        };
        try {
          const cache = another();
          cache.clear();
          body({ cache, clock, another });
        } finally {
          for (const cache of opened) cache.close();
        }
      },
    });
  };
  asMap(check);
  changes(check);
  numbers(check);
  time(check);
  tagsAndNamespaces(check);
  valuesAndKeys(check, subject.largest);
  participants(check, subject);
  configuration(check);
  reentrancy(check);
  return checks;
}

type Define = (name: string, body: (given: Given) => void) => void;

function asMap(check: Define): void {
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

  check("size, keys, values, entries and forEach see each entry once, and clear removes all", ({ cache }) => {
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

  check("iteration sees what stays exactly once while the cache changes", ({ cache }) => {
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

  check("an iteration can be left early, and two can run at once", ({ cache }) => {
    cache.set("a", 1).set("b", 2);
    const [first] = cache.keys();
    const pairs: string[] = [];
    for (const one of cache.keys()) for (const two of cache.keys()) pairs.push(`${one}${two}`);
    same(pairs.sort(), ["aa", "ab", "ba", "bb"]);
    ok(first === "a" || first === "b", "a key");
  });

  check("getMany and setMany take any iterable and keep the order", ({ cache }) => {
    ok(cache.setMany(new Map<string, unknown>([["a", 1], ["b", null]])) === cache, "setMany returns the cache");
    cache.setMany([["c", "three"]] as [string, unknown][]);
    same(cache.getMany(["c", "missing", "b", "a", "a"]), ["three", undefined, null, 1, 1]);
    same(cache.getMany(new Set(["a"])), [1]);
    same(cache.getMany([]), []);
    same(cache.setMany([]).size, 3);
  });
}

function changes(check: Define): void {
  check("add stores only what is absent, replace only what is present", ({ cache }) => {
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

  check("getEntry tells value, version, expiry and tags; the version changes with each change", ({ cache, clock }) => {
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
  });

  check("compareAndSet stores only over the version it was given", ({ cache, another }) => {
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

  check("update makes the new value of the one that is there, and tries again when another was faster", (given) => {
    const { cache, another } = given;
    const other = another();
    same(cache.update("a", (value) => [...(value ?? []), 1], { tags: ["t"] }), [1]);
    let runs = 0;
    const result = cache.update("a", (value) => {
      if (runs++ < 3) other.update("a", (theirs) => [...theirs, runs]);
      return [...value, "mine"];
    });
    same(result, [1, 1, 2, 3, "mine"]);
    same(runs, 4);
    same(other.get("a"), result);
    throws(() => cache.update("a", () => undefined), "TypeError", "undefined");
    const error = new Error("mine");
    try {
      cache.update("a", () => {
        throw error;
      });
    } catch (caught) {
      ok(caught === error, "the function's own error");
    }
    same(other.get("a"), result);
  });

  check("take gets and removes, whatever the value is", ({ cache, another }) => {
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

function numbers(check: Define): void {
  check("increment and decrement count from initial, in whole and other numbers", ({ cache, another }) => {
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

  check("increment goes on from a number that was set, and keeps its expiry and tags", ({ cache, clock, another }) => {
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
    // A number that was counted is a value like any other.
    cache.set("b", "text");
    same(other.get("b"), "text");
  });

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

  check("what is no number cannot be counted, and stays", ({ cache }) => {
    for (const value of ["1", 1n, null, true, { n: 1 }, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0), text(300_000, 1)]) {
      cache.set("a", value);
      throws(() => cache.increment("a"), "TypeError", "not a number");
      throws(() => cache.decrement("a"), "TypeError", "not a number");
      same(cache.get("a"), value);
    }
  });
}

function time(check: Define): void {
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
    same([cache.has("a"), cache.ttl("a"), cache.getEntry("o"), cache.take("a")], [false, undefined, undefined, undefined]);
    same([cache.touch("a", 1000), cache.replace("a", 1), cache.delete("a")], [false, false, false]);
    same([cache.size, [...cache], cache.getMany(["a", "o"])], [0, [], [undefined, undefined]]);
    store();
    same([other.add("a", "new"), cache.get("a"), cache.ttl("a")], [true, "new", Number.POSITIVE_INFINITY]);
    store();
    same([other.compareAndSet("a", 0, "newer"), cache.update("o", (value) => String(value))], [true, "undefined"]);
  });

  check("the default ttl is for everything, unless set says otherwise", ({ clock, another }) => {
    const cache = another({ ttl: 1000 });
    cache.set("a", 1).set("b", 1, { ttl: 50 }).set("c", 1, { ttl: Number.POSITIVE_INFINITY });
    cache.setMany([["d", 1]]).add("e", 1);
    cache.increment("f");
    cache.increment("g", 1, { ttl: 50 });
    same(["a", "b", "c", "d", "e", "f", "g"].map((key) => cache.ttl(key)), [1000, 50, Infinity, 1000, 1000, 1000, 50]);
    clock.now += 1000;
    same([...cache.keys()], ["c"]);
  });

  check("touch gives a new ttl and nothing else", ({ cache, clock, another }) => {
    const other = another();
    same(cache.touch("a", 100), false);
    for (const value of ["text", { o: [1] }, 5, text(300_000, 2)]) {
      cache.set("a", value, { tags: ["t"] });
      other.get("a");
      const version = cache.getEntry("a")?.version as number;
      same(cache.touch("a", 100), true);
      same([cache.ttl("a"), other.ttl("a"), cache.getEntry("a")?.tags], [100, 100, ["t"]]);
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
      ok(version > 0, "a version");
    }
  });

  check("ttls can be fractions, tiny and huge", ({ cache, clock }) => {
    cache.set("a", 1, { ttl: 0.5 }).set("b", 1, { ttl: Number.MAX_VALUE }).set("c", 1, { ttl: Number.MIN_VALUE });
    same([cache.get("a"), cache.ttl("a"), cache.get("b"), cache.get("c")], [1, 0.5, 1, undefined]);
    clock.now += 0.5;
    same([cache.get("a"), cache.get("b"), cache.ttl("b")], [undefined, 1, Number.MAX_VALUE]);
  });
}

function tagsAndNamespaces(check: Define): void {
  check("invalidateTag makes every entry with the tag a miss, and no other", ({ cache, another }) => {
    const other = another();
    const fill = (): void => {
      cache.set("a", "text", { tags: ["one"] }).set("b", { b: 1 }, { tags: ["one", "two"] });
      cache.set("c", 3, { tags: ["two"] }).set("d", text(300_000, 3), { tags: ["three", "one"] }).set("e", 5);
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
    // The entry lost its tag when it was stored without it.
    cache.set("a", "again");
    cache.invalidateTag("one");
    same(there(), "ae");
    same(cache.add("b", "new", { tags: ["one"] }), true);
    same(cache.replace("b", "newer"), true);
    cache.invalidateTag("one");
    same(there(), "abe");
  });

  check("an entry can have 16 long tags, which are told in order", ({ cache }) => {
    const tags = Array.from({ length: 16 }, (_, i) => `${i} ${"é".repeat(i * 6)}`);
    cache.set("a", "value", { tags });
    same(cache.getEntry("a")?.tags, tags);
    cache.invalidateTag(tags[15] as string);
    same(cache.has("a"), false);
    throws(() => cache.set("a", 1, { tags: [...tags, "one more"] }), "RangeError", "tags", "16");
    throws(() => cache.set("a", 1, { tags: ["x".repeat(257)] }), "RangeError", "tags", "bytes of UTF-8");
    same(cache.has("a"), false);
  });

  check("namespaces have keys of their own, however they are nested", ({ cache }) => {
    const names = ["a", "b", "a\0", "1:a", "", "日本", "\0"].filter((name) => name !== "");
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
    // The same name is the same part.
    cache.namespace("a").namespace("b").set("key", 1);
    same(cache.namespace("a").namespace("b").get("key"), 1);
    throws(() => cache.namespace("a").namespace("\ud800").get("key"), "RangeError", "name");
  });

  check("a namespace has the whole interface", ({ cache, another, clock }) => {
    const view = cache.namespace("part");
    const same2 = another().namespace("part");
    view.set("a", 1, { ttl: 100 }).set("b", { b: 2 }, { tags: ["t"] }).set("c", text(300_000, 4));
    view.increment("n", 2);
    cache.set("outside", 1);
    same([...same2.keys()].sort(), ["a", "b", "c", "n"]);
    same([view.size, cache.size, same2.getMany(["a", "c", "n"])], [4, 1, [1, text(300_000, 4), 2]]);
    same([same2.ttl("a"), same2.touch("a", 50), same2.add("a", 2), same2.replace("n", 3)], [100, true, false, true]);
    same([same2.take("n"), view.has("n"), view.getEntry("b")?.tags], [3, false, ["t"]]);
    same([view.compareAndSet("b", view.getEntry("b")?.version as number, 3), same2.update("b", (b) => b + 1)], [true, 4]);
    clock.now += 50;
    same([...view.keys()].sort(), ["b", "c"]);
    same(view.reach, cache.reach);
    ok(view.stats().capacity === cache.stats().capacity, "stats are those of the whole cache");
  });

  check("clear of a namespace clears it and what is nested in it, and nothing else", ({ cache, another }) => {
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

  check("tags of a namespace are its own", ({ cache }) => {
    const [a, b] = [cache.namespace("a"), cache.namespace("b")];
    const nested = a.namespace("n");
    const views = [cache, a, b, nested];
    const fill = (): void => {
      for (const view of views) view.set("tagged", 1, { tags: ["t"] }).set("plain", 1);
    };
    const there = (): string => views.map((view) => `${+view.has("tagged")}${+view.has("plain")}`).join(" ");
    fill();
    same(views.map((view) => view.getEntry("tagged")?.tags), [["t"], ["t"], ["t"], ["t"]]);
    a.invalidateTag("t");
    same(there(), "11 01 11 11");
    fill();
    cache.invalidateTag("t");
    same(there(), "01 11 11 11");
    fill();
    nested.invalidateTag("t", "u");
    same(there(), "11 11 11 01");
    // A tag that is spelt as a namespace's path is no namespace.
    for (const tag of ["a", "1:a", "1:a1:n", "\0a"]) cache.invalidateTag(tag);
    same(there(), "11 11 11 01");
  });
}

function valuesAndKeys(check: Define, largest: number): void {
  check("every value comes back as what it was, exactly", ({ cache, another }) => {
    const other = another();
    for (const [name, value] of values()) {
      cache.set(name, value);
      for (const reader of [cache, cache, other, other]) same(reader.get(name), value, name);
      same(other.getEntry(name)?.value, value, name);
    }
    same(new Map(cache.entries()).size, values().length);
    const [cycle, shared] = other.getMany(["cycle", "shared part"]);
    ok(cycle.self === cycle && cycle.list[2] === cycle.list && shared.one === shared.two, "the same object stays the same");
    for (const [name, value] of values()) {
      same(other.take(name), value, name);
      same(cache.get(name), undefined);
    }
  });

  check("what cannot be stored is a TypeError that says where, and the old value stays", ({ cache }) => {
    cache.set("a", "old");
    const bad: [unknown, ...string[]][] = [
      [undefined, "undefined"],
      [() => 1, "function"],
      [Symbol("s"), "symbol"],
      [{ deep: [1, { f() {} }] }, "function", "deep"],
      [new Map([["k", Symbol("s")]]), "symbol"],
      [new WeakMap()],
      [Promise.resolve()],
    ];
    for (const [value, ...texts] of bad) {
      throws(() => cache.set("a", value), "TypeError", ...texts);
      throws(() => cache.replace("a", value), "TypeError");
      throws(() => cache.add("b", value), "TypeError");
    }
    same([cache.get("a"), cache.has("b")], ["old", false]);
  });

  check("text and bytes of every length come back whole, up to the largest", ({ cache, another }) => {
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

  check("values are copies: changing one changes nobody else's", ({ cache, another }) => {
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
        for (const key of ["o", "b"]) ok(reader.get(key) !== reader.get(key), "a fresh copy each time");
      }
    }
  });

  check("keys of every kind are told apart and come back from iteration", ({ cache, another }) => {
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

  check("a bytes key is read when it is given, and not kept", ({ cache }) => {
    const key = Uint8Array.of(1, 2, 3);
    cache.set(key, "value");
    key[0] = 9;
    same(cache.get(key), undefined);
    same(cache.get(Uint8Array.of(1, 2, 3)), "value");
    const [back] = cache.keys();
    (back as Uint8Array).fill(0);
    same(cache.get(Uint8Array.of(1, 2, 3)), "value");
  });

  check("a key that is neither text nor bytes is a TypeError, whatever the operation", ({ cache }) => {
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
      ];
      for (const operation of operations) throws(operation, "TypeError", "key");
    }
    same(cache.size, 0);
  });
}

function participants(check: Define, subject: Subject): void {
  check("reach, handle and stats tell what this is", ({ cache }) => {
    same(cache.reach, subject.reach);
    same(cache.handle.reach, subject.reach);
    const before = cache.stats();
    for (const name of COUNTED) ok(Number.isSafeInteger(before[name]) && before[name] >= 0, `${name} is counted`);
    for (const name of ["entries", "bytes", "capacity", "used", "size", "participants"] as const) {
      ok(Number.isSafeInteger(before[name]), `${name} is told`);
    }
    ok(before.participants >= 1 && before.size > before.capacity && before.capacity > 0, "sizes make sense");
    cache.set("a", "x".repeat(1000));
    cache.get("a");
    cache.get("missing");
    const after = cache.stats();
    ok(after.sets > before.sets && after.hits > before.hits && after.misses > before.misses, "reads and sets are counted");
    ok(after.entries >= 1 && after.bytes >= 1000 && after.used >= 1000, "bytes are counted");
    cache.delete("a");
    ok(cache.stats().deletes > after.deletes, "deletes are counted");
  });

  check("what one participant changes the other sees at once, near cache or not", ({ cache, clock, another }) => {
    const other = another();
    for (const first of ["text", 1, "日本語", true, 5n, null]) {
      const now = (value: unknown, after: string): void => same([cache.get("k"), cache.get("k")], [value, value], after);
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
  });

  check("the same holds for a namespace and its clear", ({ cache, another }) => {
    const [mine, theirs] = [cache.namespace("part"), another().namespace("part")];
    for (let i = 0; i < 20; i++) {
      theirs.set("k", `value ${i}`);
      cache.set("k", "outside");
      same([mine.get("k"), mine.get("k"), cache.get("k")], [`value ${i}`, `value ${i}`, "outside"]);
      theirs.clear();
      same([mine.get("k"), cache.get("k")], [undefined, "outside"]);
    }
  });

  check("close leaves the cache to the others; dispose is the same, and both may come twice", ({ cache, another }) => {
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
  });
}

const COUNTED = ["hits", "misses", "sets", "deletes", "evictions", "expirations", "reclaims", "compactions"] as const;

function configuration(check: Define): void {
  check("maxEntrySize bounds a participant's values, and the old value stays", ({ cache, another }) => {
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
    // Only what this participant stores; it reads whatever is there.
    cache.set("a", "y".repeat(500));
    same(small.get("a"), "y".repeat(500));
  });

  check("a near cache of any size, or none, answers the same", ({ cache, another }) => {
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

  check("frozenObjects gives one deeply frozen object, and a new one after each change", ({ cache, another }) => {
    const frozen = another({ frozenObjects: true, nearCache: 100 });
    cache.set("o", { list: [1, { a: 1 }], map: new Map([["k", { v: 1 }]]), date: new Date(5) });
    const first = frozen.get("o");
    same(first, first);
    ok(frozen.get("o") === first, "the same object again");
    ok(Object.isFrozen(first) && Object.isFrozen(first.list) && Object.isFrozen(first.list[1]), "frozen all the way down");
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
    // Bytes cannot be frozen, so they are copies all the same.
    cache.set("b", { bytes: Uint8Array.of(1) });
    frozen.get("b").bytes[0] = 9;
    same(frozen.get("b").bytes[0], 1);
  });

  check("a codec takes over for objects, and for nothing else", ({ cache, another }) => {
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
    throws(() => cache.get("o"), "ERR_UNSUPPORTED", "codec");
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

function reentrancy(check: Define): void {
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

  check("options, keys and entries may run code that uses the cache, too", ({ cache }) => {
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
      cache.delete("k");
      yield "k";
    };
    same(cache.getMany(keysOf()), ["value", undefined]);
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
        coded.increment("decoded");
        return JSON.parse(new TextDecoder().decode(encoded)) as unknown;
      },
    };
    const coded = another({ codec, frozenObjects: true });
    coded.set("a", { a: 1 }).set("b", { b: text(100_000, 1) });
    for (let i = 0; i < 5; i++) {
      same([coded.get("a"), coded.get("b"), coded.get("side")], [{ a: 1 }, { b: text(100_000, 1) }, "stored while encoding"]);
    }
    coded.set("a", { a: 2 });
    same([coded.get("a"), coded.getEntry("b")?.value], [{ a: 2 }, { b: text(100_000, 1) }]);
  });

  check("an error of the clock comes through, and does no harm", ({ cache, another }) => {
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
      // What cannot expire needs no clock.
      same(moody.get("b"), "stays");
      moody.set("b", "stays");
      mood = 1000;
      same([moody.get("a"), moody.get("b"), moody.has("c"), moody.ttl("a")], ["value", "stays", false, 100]);
    }
    same(cache.get("b"), "stays");
  });
}
