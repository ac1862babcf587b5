/**
 * The checks of the conformance suite for `getOrSet`, `getOrSetMany` and `memoize`: what a loader is told, who gets its value, and
 * what is stored. `another()` is a second participant where the suite runs with participants of their own, and a second opening of
 * the same participant where it does not: both must see the same. What happens when participants die or freeze is tested in
 * test/coordinate/.
 */

import type { Cache, LoadContext, LoadOptions } from "../index.ts";
import { ok, same } from "./assert.ts";
import type { Define, Given } from "./check.ts";
import { inTime, rejects, until } from "./patience.ts";

/** One run of a loader, which the check ends. */
interface Run {
  readonly context: LoadContext;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** A loader whose runs wait until the check ends them. */
function controlled(): { load(context: LoadContext): Promise<any>; runs: Run[]; last(): Run } {
  const runs: Run[] = [];
  return {
    runs,
    load: (context) => new Promise((resolve, reject) => runs.push({ context, resolve, reject })),
    last: () => runs.at(-1) as Run,
  };
}

/** A loader that must not run. */
const never = (): never => {
  throw new Error("this loader must not run");
};
const nothing = (): void => {};

/** Calls `getOrSet` so that a rejection which nobody awaits yet is no unhandled one. */
function ask(cache: Cache, key: string, load: (context: LoadContext) => unknown, options?: LoadOptions): Promise<any> {
  const promise = cache.getOrSet(key, load, options);
  promise.catch(nothing);
  return promise;
}

export function loading(check: Define): void {
  oneLoad(check);
  notStored(check);
  failures(check);
  overtaken(check);
  oldValues(check);
  freshValues(check);
  endsOfCalls(check);
  nesting(check);
  manyKeys(check);
  memoized(check);
  wrongArguments(check);
}

// ---- one load for all

function oneLoad(check: Define): void {
  check("getOrSet of an absent key calls the loader once, stores its value and returns it", async ({ cache }) => {
    const seen: unknown[] = [];
    const value = await cache.getOrSet("key", ({ key, background, stale, ttl, tags, signal }) => {
      seen.push({ key, background, stale, ttl, tags, aborted: signal.aborted });
      return { n: 1 };
    });
    same(value, { n: 1 });
    same(seen, [{ key: "key", background: false, stale: undefined, ttl: undefined, tags: undefined, aborted: false }]);
    same(cache.get("key"), { n: 1 });
    same(cache.ttl("key"), Infinity);
  });

  check("getOrSet of a key that is present returns its value and calls no loader", async ({ cache, another }) => {
    cache.set("key", { n: 1 });
    same(await cache.getOrSet("key", never), { n: 1 });
    same(await another().getOrSet("key", never), { n: 1 });
    cache.set("empty", null);
    same(await cache.getOrSet("empty", never), null);
  });

  check("a loader may return a value, a promise, or throw at once", async ({ cache }) => {
    same(await cache.getOrSet("value", () => 1), 1);
    same(await cache.getOrSet("promise", async () => 2), 2);
    const error = await rejects(
      cache.getOrSet("throws", () => {
        throw new RangeError("at once");
      }),
      "RangeError",
      "at once",
    );
    ok(error instanceof RangeError, "it is the loader's own error");
    same(cache.getMany(["value", "promise", "throws"]), [1, 2, undefined]);
  });

  check(
    "calls for the same key while it is being loaded get the value of that load, here and elsewhere",
    async (given) => {
      const { cache, another } = given;
      const there = another();
      const { load, runs, last } = controlled();
      const calls = [
        ask(cache, "key", load),
        ask(cache, "key", never),
        ask(there, "key", never),
        ask(there, "key", never),
      ];
      same(runs.length, 1);
      ok(!cache.has("key"), "nothing is stored before the loader has ended");
      last().resolve({ list: [1, 2, 3] });
      for (const value of await inTime(Promise.all(calls))) same(value, { list: [1, 2, 3] });
      same(cache.get("key"), { list: [1, 2, 3] });
      same(there.get("key"), { list: [1, 2, 3] });
    },
  );

  check(
    "each call that waits gets a copy of its own, and the one whose loader has run gets the loader's value",
    async (given) => {
      const { cache, another } = given;
      const { load, last } = controlled();
      const calls = [
        ask(cache, "key", load),
        ask(cache, "key", never),
        ask(cache, "key", never),
        ask(another(), "key", never),
      ];
      const loaded = { list: [1] };
      last().resolve(loaded);
      const values = await inTime(Promise.all(calls));
      ok(values[0] === loaded, "the loader's own object");
      same(new Set(values).size, values.length, "different objects");
      for (const value of values) {
        same(value, { list: [1] });
        value.list.push(2);
      }
      same(cache.get("key"), { list: [1] });
    },
  );

  check("with frozenObjects the calls that wait share one frozen object", async ({ another }) => {
    const cache = another({ frozenObjects: true });
    const { load, last } = controlled();
    const calls = [ask(cache, "key", load), ask(cache, "key", never), ask(cache, "key", never)];
    const loaded = { list: [1] };
    last().resolve(loaded);
    const values = await inTime(Promise.all(calls));
    same(new Set(values).size, 1);
    ok(Object.isFrozen(values[0]) && Object.isFrozen(values[0].list), "the object is frozen");
    ok(!Object.isFrozen(loaded), "the loader's own object is not");
  });

  check("keys of namespaces, of bytes and of text are loaded on their own", async ({ cache }) => {
    const parts = [cache, cache.namespace("a"), cache.namespace("a").namespace("b"), cache.namespace("b")];
    const loads = parts.map((part) => {
      const { load, last } = controlled();
      return { call: ask(part, "key", load), last };
    });
    const bytes = controlled();
    const ofBytes = (cache as Cache<any, any>).getOrSet(new Uint8Array([107, 101, 121]), bytes.load);
    for (const [i, { last }] of loads.entries()) last().resolve(i);
    bytes.last().resolve("bytes");
    same(await inTime(Promise.all(loads.map(({ call }) => call))), [0, 1, 2, 3]);
    same(await inTime(ofBytes), "bytes");
    same(
      parts.map((part) => part.get("key")),
      [0, 1, 2, 3],
    );
  });

  check("the bytes of a key may be changed while its value is loaded", async ({ another }) => {
    const cache = another() as Cache<any, any>;
    const key = new Uint8Array([1, 2, 3]);
    const { load, last } = controlled();
    const call = cache.getOrSet(key, load);
    key.fill(9);
    same(last().context.key, new Uint8Array([1, 2, 3]));
    last().resolve("value");
    await inTime(call);
    same(cache.get(new Uint8Array([1, 2, 3])), "value");
    same(cache.get(key), undefined);
  });

  check("the value of a load lives as long as ttl says, and has the tags", async ({ cache, clock }) => {
    const entryOf = async (key: string, options: LoadOptions, load: (context: LoadContext) => unknown = () => 7) => {
      await cache.getOrSet(key, load, options);
      const entry = cache.getEntry(key);
      return [entry && entry.expiresAt - clock.now, entry?.tags];
    };
    same(await entryOf("plain", { ttl: 1000, tags: ["a", "b"] }), [1000, ["a", "b"]]);
    same(await entryOf("functions", { ttl: (n, key) => n * key.length, tags: (n, key) => [`${n}`, key] }), [
      63,
      ["7", "functions"],
    ]);
    same(await entryOf("undefined", { ttl: () => undefined, tags: () => undefined }), [Infinity, []]);
    const says = (context: LoadContext): number => {
      context.ttl = 50;
      context.tags = ["said"];
      return 7;
    };
    same(await entryOf("context", { ttl: 1000, tags: ["a"] }, says), [50, ["said"]]);
    same(await entryOf("jitter", { ttl: 1000, jitter: 0 }), [1000, []]);
    for (let i = 0; i < 50; i++) {
      const [left] = (await entryOf(`jitter ${i}`, { ttl: 1000, jitter: 0.2 })) as [number];
      ok(left >= 800 && left <= 1000, `between 800 and 1000: ${left}`);
    }
    const spread = new Set(Array.from({ length: 50 }, (_, i) => cache.ttl(`jitter ${i}`)));
    ok(spread.size > 25, "the expiries are different");
    const timed = cache.namespace("timed", { ttl: 300 });
    await timed.getOrSet("key", () => 1);
    same(timed.ttl("key"), 300);
  });

  check(
    "onOutcome tells whether a value was there, was loaded by this call, or by another",
    async ({ cache, another, clock }) => {
      const seen: unknown[] = [];
      const told = (name: string): LoadOptions => ({
        ttl: 100,
        tags: ["t"],
        onOutcome: (outcome, { value, expiresAt, tags, version }, key) => {
          seen.push([name, outcome, key, value, expiresAt - clock.now, tags, version > 0]);
        },
      });
      const { load, last } = controlled();
      const calls = [
        ask(cache, "key", load, told("first")),
        ask(cache, "key", never, told("second")),
        ask(another(), "key", never, told("third")),
      ];
      last().resolve("value");
      await inTime(Promise.all(calls));
      await cache.getOrSet("key", never, told("fourth"));
      const version = cache.getEntry("key")?.version;
      await cache.getOrSet("key", never, { onOutcome: (_, entry) => same(entry.version, version) });
      await cache.getOrSet("other", () => 5, {
        ttl: 0,
        onOutcome: (outcome, entry) => seen.push([outcome, entry.version]),
      });
      same(seen, [
        ["first", "loaded", "key", "value", 100, ["t"], true],
        ["second", "joined", "key", "value", 100, ["t"], true],
        ["third", "joined", "key", "value", 100, ["t"], true],
        ["fourth", "hit", "key", "value", 100, ["t"], true],
        ["loaded", 0],
      ]);
      const error = new Error("of onOutcome");
      const thrown = cache.getOrSet("key", never, {
        onOutcome: () => {
          throw error;
        },
      });
      ok((await rejects(thrown, "Error")) === error, "the promise is rejected with its error");
    },
  );

  check("a value that cannot be read here is loaded again and replaced", async ({ cache, another }) => {
    const codec = { encode: () => new Uint8Array([1]), decode: (): unknown => ({ decoded: true }) };
    another({ codec }).set("key", { a: 1 });
    same(await cache.getOrSet("key", () => ({ b: 2 })), { b: 2 });
    same(cache.get("key"), { b: 2 });
  });
}

// ---- values that are not stored

function notStored(check: Define): void {
  check(
    "null is stored, and undefined is not: all who wait get it, and the next call loads again",
    async ({ cache, another }) => {
      same(await cache.getOrSet("null", () => null), null);
      ok(cache.has("null"), "null is stored");
      same(await cache.getOrSet("null", never), null);
      const { load, last } = controlled();
      const calls = [ask(cache, "key", load), ask(cache, "key", never), ask(another(), "key", never)];
      last().resolve(undefined);
      same(await inTime(Promise.all(calls)), [undefined, undefined, undefined]);
      ok(!cache.has("key"), "undefined is not stored");
      same(await cache.getOrSet("key", () => "now"), "now");
    },
  );

  check("a value with a ttl of 0 or less goes to all who wait, and is not stored", async ({ cache, another }) => {
    const sources: LoadOptions[] = [{ ttl: 0 }, { ttl: -5 }, { ttl: (value) => value.ttl }];
    for (const options of sources) {
      const { load, last } = controlled();
      const calls = [ask(cache, "key", load, options), ask(cache, "key", never), ask(another(), "key", never)];
      const loaded = { text: "for you", ttl: 0 };
      last().resolve(loaded);
      const values = await inTime(Promise.all(calls));
      for (const value of values) same(value, { text: "for you", ttl: 0 });
      same(new Set(values).size, 3, "different objects");
      ok(!cache.has("key"), "it is not stored");
    }
    const inContext = await cache.getOrSet("key", (context) => {
      context.ttl = 0;
      return 1;
    });
    same([inContext, cache.has("key")], [1, false]);
  });

  check("a value that is too large is returned and not stored", async ({ another }) => {
    const cache = another({ maxEntrySize: 100 });
    const { load, last } = controlled();
    const calls = [ask(cache, "key", load), ask(cache, "key", never)];
    const text = "x".repeat(1000);
    last().resolve({ text });
    for (const value of await inTime(Promise.all(calls))) same(value, { text });
    ok(!cache.has("key"), "it is not stored");
    same(await cache.getOrSet("key", () => "small"), "small");
    same(cache.get("key"), "small");
  });

  check("a value that is no data is an error for all who wait, as with set", async ({ cache, another }) => {
    const { load, last } = controlled();
    const calls = [ask(cache, "key", load), ask(cache, "key", never), ask(another(), "key", never)];
    last().resolve({ f: nothing });
    await rejects(calls[0] as Promise<unknown>, "ERR_DATA", "value.f");
    await rejects(calls[1] as Promise<unknown>, "ERR_DATA", "value.f");
    ok((await inTime(Promise.allSettled([calls[2]])))[0]?.status === "rejected", "elsewhere, too");
    await rejects(
      cache.getOrSet("key", () => nothing),
      "TypeError",
      "value",
    );
    ok(!cache.has("key"), "nothing is stored");
  });

  check("getOrSet of a key that is too long is an error, and calls no loader", async ({ cache }) => {
    await rejects(cache.getOrSet("k".repeat(5000), never), "ERR_TOO_LARGE", "key");
    same(await rejects(cache.getOrSetMany(["k".repeat(5000)], never), "ERR_TOO_LARGE").then(() => cache.size), 0);
  });
}

// ---- failures

function failures(check: Define): void {
  check(
    "a loader that throws rejects all who wait: with its error in its own thread, elsewhere with ERR_LOAD_FAILED",
    async (given) => {
      const { cache, another } = given;
      const there = another();
      const { load, last, runs } = controlled();
      const here = [ask(cache, "key", load), ask(cache, "key", never)];
      const elsewhere = [ask(there, "key", never), ask(there, "key", never)];
      const error = new RangeError("the source is away");
      last().reject(error);
      for (const call of here) ok((await rejects(call, "RangeError")) === error, "its own error");
      for (const call of elsewhere) {
        const failed = await rejects(call, "ERR_LOAD_FAILED", "RangeError", "the source is away");
        const { name, message } = failed.cause as Error;
        same([name, message], ["RangeError", "the source is away"]);
      }
      same(runs.length, 1);
      ok(!cache.has("key"), "nothing is stored");
      same(await there.getOrSet("key", () => "next"), "next");
    },
  );

  check(
    "Convoy, each waiter loads after a failure (mlcache #49): a hundred who wait for a load that fails load nothing",
    async (given) => {
      const { cache, another } = given;
      const there = another();
      const { load, last, runs } = controlled();
      const counted = (): Promise<unknown> => {
        throw new Error("a second load");
      };
      const calls = [ask(cache, "key", load)];
      for (let i = 0; i < 50; i++) calls.push(ask(cache, "key", counted), ask(there, "key", counted));
      last().reject(new Error("no"));
      const results = await inTime(Promise.allSettled(calls));
      for (const result of results) {
        ok(
          result.status === "rejected" && !String(result.reason.message).includes("a second load"),
          "it failed with the first load",
        );
      }
      same(runs.length, 1);
    },
  );

  check("whatever a loader throws reaches those who wait", async ({ cache, another }) => {
    const strange = Object.create(null);
    for (const thrown of ["text", 42, undefined, null, strange, { name: "Own", message: "its own" }]) {
      const { load, last } = controlled();
      const here = ask(cache, "key", load);
      const there = ask(another(), "key", never);
      last().reject(thrown);
      const [first, second] = await inTime(Promise.allSettled([here, there]));
      ok(first?.status === "rejected" && first.reason === thrown, "the same thing in its own thread");
      ok(second?.status === "rejected" && second.reason.code === "ERR_LOAD_FAILED", "ERR_LOAD_FAILED elsewhere");
    }
  });

  check("an error of the functions ttl and tags is an error of the load", async ({ cache }) => {
    const throws = (): never => {
      throw new Error("of the option");
    };
    await rejects(
      cache.getOrSet("key", () => 1, { ttl: throws }),
      "Error",
      "of the option",
    );
    await rejects(
      cache.getOrSet("key", () => 1, { tags: throws }),
      "Error",
      "of the option",
    );
    await rejects(
      cache.getOrSet("key", () => 1, { ttl: () => Number.NaN }),
      "TypeError",
      "ttl",
    );
    await rejects(
      cache.getOrSet("key", () => 1, { tags: () => "text" as never }),
      "TypeError",
      "tags",
    );
    await rejects(
      cache.getOrSet("key", () => 1, { tags: () => [""] }),
      "RangeError",
      "tags",
    );
    const context = (context: LoadContext): number => {
      context.ttl = "1" as never;
      return 1;
    };
    await rejects(cache.getOrSet("key", context), "TypeError", "ttl");
    ok(!cache.has("key"), "nothing is stored");
    same(await cache.getOrSet("key", () => 1), 1);
  });
}

// ---- loads that are overtaken

function overtaken(check: Define): void {
  const changes: [string, (cache: Cache) => void, unknown][] = [
    ["set", (cache) => cache.set("key", "set"), "set"],
    ["add", (cache) => cache.add("key", "added"), "added"],
    ["delete of the absent key", (cache) => cache.delete("key"), undefined],
    ["take of the absent key", (cache) => cache.take("key"), undefined],
    ["update", (cache) => cache.update("key", () => "updated"), "updated"],
    ["increment", (cache) => cache.increment("key"), 1],
    ["set and delete", (cache) => cache.set("key", 1).delete("key"), undefined],
    ["clear", (cache) => cache.clear(), undefined],
    ["invalidateTag", (cache) => cache.invalidateTag("late"), undefined],
    ["expireTag", (cache) => cache.expireTag("late"), undefined],
  ];
  for (const [name, change, present] of changes) {
    check(
      `Invalidated while loading, then stored (FusionCache #535, #613, #625, #628; HybridCache; lettuce #3481): ${name} wins`,
      async ({ cache, another }) => {
        const there = another();
        const third = another();
        const { load, last } = controlled();
        // The tags are known only after loading.
        const isTagged = name.endsWith("Tag");
        const before = [ask(cache, "key", load, isTagged ? { tags: () => ["late"] } : {})];
        // Who joins after any invalidation, also one of others who run this suite at the same time, does not get a value that a `clear`
        // or a tag has overtaken since: it loads anew. So only changes of the key may have joiners here.
        if (!isTagged && name !== "clear") before.push(ask(cache, "key", never), ask(there, "key", never));
        const first = last();
        change(third);
        same(cache.get("key"), present);
        // Who comes later does not get the value of the load that was overtaken.
        const second = controlled();
        const later = [cache, there, third].map((one) => ask(one, "key", second.load));
        first.resolve("overtaken");
        for (const value of await inTime(Promise.all(before))) same(value, "overtaken");
        if (present === undefined) {
          await until(() => second.runs.length > 0, "the second load begins");
          same(second.runs.length, 1);
          ok(!cache.has("key"), "the overtaken value is not stored");
          second.last().resolve("new");
        }
        for (const value of await inTime(Promise.all(later))) same(value, present ?? "new");
        same(there.get("key"), present ?? "new");
        same(second.runs.length, present === undefined ? 1 : 0);
      },
    );
  }

  check(
    "clear of a namespace during a load in it wins, and one of another namespace does not matter",
    async ({ cache }) => {
      for (const [cleared, stored] of [
        ["ours", false],
        ["theirs", true],
      ] as const) {
        const part = cache.namespace("ours");
        part.delete("key");
        const { load, last } = controlled();
        const call = ask(part, "key", load);
        cache.namespace(cleared).clear();
        last().resolve("value");
        same(await inTime(call), "value");
        same(part.has("key"), stored, cleared);
      }
    },
  );

  check(
    "a change of another key, and the invalidation of another tag, do not overtake a load",
    async ({ cache, another }) => {
      const { load, last } = controlled();
      const calls = [ask(cache, "key", load, { tags: ["mine"] })];
      another().set("other", 1).delete("other");
      another().invalidateTag("unrelated");
      calls.push(ask(cache, "key", never), ask(another(), "key", never));
      last().resolve("value");
      same(await inTime(Promise.all(calls)), ["value", "value", "value"]);
      same(cache.get("key"), "value");
    },
  );

  check("a change that is refused does not overtake a load", async ({ cache, another }) => {
    const { load, last } = controlled();
    const call = ask(cache, "key", load);
    same(another().replace("key", 1), false);
    same(another().compareAndSet("key", 12, 1), false);
    same(another().touch("key", 1), false);
    last().resolve("value");
    same(await inTime(call), "value");
    same(cache.get("key"), "value");
  });

  check("an overtaken load that fails rejects only those who came before the change", async ({ cache, another }) => {
    const { load, last } = controlled();
    const before = [ask(cache, "key", load), ask(another(), "key", never)];
    another().delete("key");
    const later = ask(cache, "key", () => "new");
    same(await inTime(later), "new");
    last().reject(new Error("no"));
    await rejects(before[0] as Promise<unknown>, "Error", "no");
    await rejects(before[1] as Promise<unknown>, "ERR_LOAD_FAILED", "no");
    same(cache.get("key"), "new");
  });
}

// ---- old values

function oldValues(check: Define): void {
  const options: LoadOptions = { ttl: 100, grace: 1000 };
  /** Lets an old value expire. */
  const stale = async ({ cache, clock }: Given, value: unknown = "old"): Promise<void> => {
    await cache.getOrSet("key", () => value, options);
    clock.now += 100;
  };

  check(
    "within its grace an old value is returned at once, and loaded again in the background, once for all",
    async (given) => {
      const { cache, clock, another } = given;
      await stale(given);
      same(cache.get("key"), undefined);
      const { load, last, runs } = controlled();
      const outcomes: string[] = [];
      const told = { ...options, onOutcome: (outcome: string) => outcomes.push(outcome) };
      for (const one of [cache, another(), cache]) same(await inTime(one.getOrSet("key", load, told)), "old");
      same(outcomes, ["stale", "stale", "stale"]);
      await until(() => runs.length > 0, "the load in the background");
      same(runs.length, 1);
      const { context } = last();
      same([context.background, context.stale?.value, context.stale?.stale], [true, "old", true]);
      last().resolve("new");
      await until(() => cache.get("key") === "new", "the new value");
      same(cache.ttl("key"), 100);
      same(await cache.getOrSet("key", never, told), "new");
      clock.now += 100 + 1000;
      same(await cache.getOrSet("key", () => "newest", told), "newest");
      same(outcomes.slice(3), ["hit", "loaded"]);
    },
  );

  check(
    "Grace in place of ttl (bentocache #110): a value with a grace expires after its ttl",
    async ({ cache, clock }) => {
      await cache.getOrSet("key", () => "old", { ttl: 100, grace: 1000 });
      same(cache.ttl("key"), 100);
      clock.now += 99;
      same(await cache.getOrSet("key", never), "old");
      clock.now += 1;
      same([cache.get("key"), cache.has("key"), cache.getStale("key")?.value], [undefined, false, "old"]);
      clock.now += 999;
      same(cache.getStale("key")?.value, "old");
      clock.now += 1;
      same(cache.getStale("key"), undefined);
    },
  );

  check(
    "Gate before read, so that stale reads wait (stale-while-revalidate-cache #48): an old value is read while it is loaded",
    async (given) => {
      const { cache, another } = given;
      await stale(given);
      const { load, last, runs } = controlled();
      await inTime(cache.getOrSet("key", load, options));
      for (let i = 0; i < 10; i++) {
        same(await inTime(cache.getOrSet("key", never, options)), "old");
        same(await inTime(another().getOrSet("key", never, options)), "old");
      }
      await until(() => runs.length > 0, "the load in the background");
      last().resolve("new");
      await until(() => cache.get("key") === "new", "the new value");
    },
  );

  check(
    "graceWait waits for the new value, and takes the old one when it does not come in time or fails",
    async (given) => {
      const { cache } = given;
      await stale(given);
      const first = controlled();
      const outcomes: string[] = [];
      const told = (graceWait: number): LoadOptions => ({
        ...options,
        graceWait,
        onOutcome: (outcome) => outcomes.push(outcome),
      });
      const quick = ask(cache, "key", first.load, told(5));
      const slow = ask(cache, "key", never, told(Infinity));
      same(await inTime(quick), "old");
      first.last().resolve("new");
      same(await inTime(slow), "new");
      same(outcomes, ["stale", "joined"]);
      given.clock.now += 100;
      const second = controlled();
      const failing = ask(cache, "key", second.load, told(Infinity));
      second.last().reject(new Error("no"));
      same(await inTime(failing), "new");
      same(outcomes, ["stale", "joined", "stale"]);
    },
  );

  check("after a failed refresh nobody tries again for graceBackoff, here and elsewhere", async (given) => {
    const { cache, clock, another } = given;
    const there = another();
    await stale(given);
    let loads = 0;
    const failing = (): never => {
      loads++;
      throw new Error("away");
    };
    const patient = { ...options, graceBackoff: 50 };
    for (let i = 0; i < 5; i++) {
      same(await inTime(cache.getOrSet("key", failing, patient)), "old");
      same(await inTime(there.getOrSet("key", failing, patient)), "old");
      same(await inTime(there.getOrSet("key", failing, { ...patient, graceWait: Infinity })), "old");
      await until(() => loads > 0, "the load in the background");
    }
    same(loads, 1);
    clock.now += 50;
    same(await inTime(there.getOrSet("key", () => "back", { ...patient, graceWait: Infinity })), "back");
    clock.now += 100;
    const none = { ...options, graceBackoff: 0 };
    for (let i = 2; i < 5; i++) {
      same(await inTime(cache.getOrSet("key", failing, none)), "back");
      await until(() => loads === i, "a load for each call");
    }
    // An old value does not help a call that wants a fresh one.
    await rejects(cache.getOrSet("key", failing, { ...none, fresh: true }), "Error", "away");
  });

  check(
    "Stale value resurrected over a newer set: a refresh that says unchanged loses against a set",
    async (given) => {
      const { cache, another } = given;
      await stale(given);
      let finish = nothing;
      const waits = new Promise<void>((resolve) => (finish = resolve));
      let ended = false;
      await inTime(
        cache.getOrSet(
          "key",
          async (context) => {
            await waits;
            ended = true;
            return context.unchanged();
          },
          options,
        ),
      );
      another().set("key", "newer");
      finish();
      await until(() => ended, "the refresh has ended");
      await new Promise((resolve) => setTimeout(resolve));
      same([cache.get("key"), cache.ttl("key")], ["newer", Infinity]);
    },
  );

  check(
    "an old value that was removed while its refresh ran does not come back when the refresh fails",
    async (given) => {
      const { cache, another } = given;
      await stale(given);
      const { load, last } = controlled();
      const call = ask(cache, "key", load, { ...options, graceWait: Infinity });
      another().delete("key");
      last().reject(new Error("no"));
      await rejects(call, "Error", "no");
      same(cache.getStale("key"), undefined);
    },
  );

  check(
    "unchanged stores the old value with a new ttl and its tags, and is an error without an old value",
    async ({ cache, clock }) => {
      await cache.getOrSet("key", () => ({ n: 1 }), { ...options, tags: ["a"] });
      clock.now += 100;
      const load = (context: LoadContext): unknown => context.unchanged();
      same(await inTime(cache.getOrSet("key", load, { ...options, graceWait: Infinity })), { n: 1 });
      const entry = cache.getEntry("key");
      same([entry?.value, entry && entry.expiresAt - clock.now, entry?.tags], [{ n: 1 }, 100, ["a"]]);
      await rejects(cache.getOrSet("absent", load), "TypeError", "unchanged");
    },
  );

  check("expire and expireTag leave an old value, which getOrSet returns and refreshes", async ({ cache }) => {
    const endless: LoadOptions = { grace: Infinity, tags: ["t"] };
    for (const expire of [() => cache.expire("key"), () => cache.expireTag("t")]) {
      await cache.getOrSet("key", () => "old", endless);
      expire();
      same(await inTime(cache.getOrSet("key", () => "new", endless)), "old");
      await until(() => cache.get("key") === "new", "the new value");
      cache.delete("key");
    }
  });

  check("refreshAhead loads a value in the background when little of its ttl is left, once for all", async (given) => {
    const { cache, clock, another } = given;
    const ahead = { ttl: 100, refreshAhead: 0.2 };
    await cache.getOrSet("key", () => "old", ahead);
    clock.now += 79;
    same(await cache.getOrSet("key", never, ahead), "old");
    clock.now += 1;
    const { load, last, runs } = controlled();
    for (const one of [cache, another(), cache]) same(await inTime(one.getOrSet("key", load, ahead)), "old");
    await until(() => runs.length > 0, "the load in the background");
    same(runs.length, 1);
    same([last().context.background, last().context.stale?.value], [true, "old"]);
    last().resolve("new");
    await until(() => cache.get("key") === "new", "the new value");
    same(cache.ttl("key"), 100);
    same(await cache.getOrSet("key", never, ahead), "new");
  });
}

// ---- fresh values

function freshValues(check: Define): void {
  check(
    "with fresh the value comes from a load that begins after the call, and such calls share one",
    async ({ cache, another }) => {
      const there = another();
      cache.set("key", "there");
      const { load, last, runs } = controlled();
      const calls = [ask(cache, "key", load, { fresh: true })];
      same([runs.length, last().context.stale?.value, last().context.background], [1, "there", false]);
      // The first load began before these calls.
      const second = controlled();
      const later = [cache, cache, there].map((one) => ask(one, "key", second.load, { fresh: true }));
      same(await inTime(cache.getOrSet("key", never)), "there");
      same(second.runs.length, 0);
      last().resolve("first");
      same(await inTime(Promise.all(calls)), ["first"]);
      await until(() => second.runs.length > 0, "the second load");
      same(await inTime(cache.getOrSet("key", never)), "first");
      second.last().resolve("second");
      same(await inTime(Promise.all(later)), ["second", "second", "second"]);
      same([runs.length, second.runs.length, there.get("key")], [1, 1, "second"]);
    },
  );

  check("a call without fresh joins a fresh load", async ({ cache, another }) => {
    const { load, last } = controlled();
    const calls = [ask(cache, "key", load, { fresh: true }), ask(cache, "key", never), ask(another(), "key", never)];
    last().resolve("value");
    same(await inTime(Promise.all(calls)), ["value", "value", "value"]);
  });
}

// ---- timeout, signal, close

function endsOfCalls(check: Define): void {
  check(
    "One caller's abort fails all (lru-cache #320, #388; bucketeer #2552): it rejects that call alone",
    async (given) => {
      const { cache, another } = given;
      const { load, last } = controlled();
      const owner = new AbortController();
      const guest = new AbortController();
      const calls = [
        ask(cache, "key", load, { signal: owner.signal }),
        ask(cache, "key", never, { signal: guest.signal }),
        ask(cache, "key", never),
        ask(another(), "key", never),
      ];
      const reason = new Error("has gone");
      owner.abort(reason);
      guest.abort(reason);
      ok((await rejects(calls[0] as Promise<unknown>, "Error")) === reason, "the reason of the signal");
      ok((await rejects(calls[1] as Promise<unknown>, "Error")) === reason, "the reason of the signal");
      ok(!last().context.signal.aborted, "the load goes on");
      last().resolve("value");
      same(await inTime(Promise.all(calls.slice(2))), ["value", "value"]);
      same(cache.get("key"), "value");
    },
  );

  check(
    "when the last call that waits has given up by its signal, the loader's signal is aborted",
    async ({ cache }) => {
      const { load, last, runs } = controlled();
      const controllers = [new AbortController(), new AbortController()];
      const calls = controllers.map(({ signal }) => ask(cache, "key", load, { signal }));
      const { signal } = last().context;
      controllers[0]?.abort(new Error("one"));
      ok(!signal.aborted, "somebody still waits");
      const reason = new Error("two");
      controllers[1]?.abort(reason);
      ok(signal.aborted && signal.reason === reason, "nobody waits");
      await inTime(Promise.allSettled(calls));
      // The loader has not ended yet, so a call that comes now waits for it. Its failure is none of this call's.
      const next = ask(cache, "key", () => "again");
      last().reject(reason);
      same(await inTime(next), "again");
      same(runs.length, 1);
    },
  );

  check(
    "a loader whose last caller has gone is not aborted while somebody waits elsewhere",
    async ({ cache, another }) => {
      const { load, last } = controlled();
      const controller = new AbortController();
      const call = ask(cache, "key", load, { signal: controller.signal });
      const there = ask(another(), "key", never);
      controller.abort();
      await rejects(call, "AbortError");
      ok(!last().context.signal.aborted, "the load goes on");
      last().resolve("value");
      same(await inTime(there), "value");
    },
  );

  check("a signal that is aborted already rejects the call, also when the value is there", async ({ cache }) => {
    cache.set("key", 1);
    const signal = AbortSignal.abort(new Error("before"));
    await rejects(cache.getOrSet("key", never, { signal }), "Error", "before");
    await rejects(cache.getOrSet("absent", never, { signal }), "Error", "before");
    same(await cache.getOrSet("key", never, { signal: new AbortController().signal }), 1);
  });

  check(
    "after its timeout a call is rejected with ERR_TIMEOUT, and the load goes on and is stored",
    async ({ cache, another }) => {
      const { load, last } = controlled();
      const calls = [ask(cache, "key", load, { timeout: 5 }), ask(another(), "key", never, { timeout: 5 })];
      for (const call of calls) await rejects(call, "ERR_TIMEOUT", "5 ms");
      ok(!last().context.signal.aborted, "the load goes on");
      const alone = controlled();
      await rejects(ask(cache, "alone", alone.load, { timeout: 5 }), "ERR_TIMEOUT");
      ok(!alone.last().context.signal.aborted, "the load goes on");
      alone.last().resolve(1);
      await until(() => cache.get("alone") === 1, "the value that nobody waits for");
      const joined = ask(cache, "key", never);
      last().resolve("value");
      same(await inTime(joined), "value");
      same(cache.get("key"), "value");
    },
  );

  check("after its timeout a call gets the old value, if there is one within its grace", async ({ cache, clock }) => {
    await cache.getOrSet("key", () => "old", { ttl: 10, grace: 100 });
    clock.now += 10;
    const { load, last } = controlled();
    same(await inTime(cache.getOrSet("key", load, { timeout: 5, graceWait: 10_000 })), "old");
    last().resolve("new");
    await until(() => cache.get("key") === "new", "the new value");
  });

  check(
    "close during a load rejects its callers with ERR_CLOSED, and another participant loads at once",
    async ({ another }) => {
      const leaving = another();
      const staying = another();
      const { load, last } = controlled();
      const calls = [ask(leaving, "key", load), ask(leaving, "key", never)];
      const there = ask(staying, "key", () => "by the other");
      const { signal } = last().context;
      leaving.close();
      for (const call of calls) await rejects(call, "ERR_CLOSED");
      ok(signal.aborted, "the loader is told");
      same(await inTime(there), "by the other");
      last().resolve("late");
      await new Promise((resolve) => setTimeout(resolve));
      same(staying.get("key"), "by the other");
      await rejects(leaving.getOrSet("key", never), "ERR_CLOSED");
      await rejects(leaving.getOrSetMany(["key"], never), "ERR_CLOSED");
    },
  );

  check("close while another participant loads rejects the calls that wait", async ({ cache, another }) => {
    const leaving = another();
    const { load, last } = controlled();
    const owner = ask(cache, "key", load);
    const waits = ask(leaving, "key", never);
    leaving.close();
    await rejects(waits, "ERR_CLOSED");
    last().resolve(1);
    same(await inTime(owner), 1);
  });

  check("a loader may close the cache", async ({ another }) => {
    const cache = another();
    await rejects(
      cache.getOrSet("key", () => {
        cache.close();
        return 1;
      }),
      "ERR_CLOSED",
    );
    const second = another();
    await rejects(
      second.getOrSet("key", () => ({
        get value() {
          second.close();
          return 1;
        },
      })),
      "ERR_CLOSED",
    );
    same(another().get("key"), undefined);
  });
}

// ---- loaders that call loaders

function nesting(check: Define): void {
  check("getOrSet of the same key within its own loader is an error, and no deadlock", async ({ cache, another }) => {
    const inner = cache.getOrSet("key", () => cache.getOrSet("key", () => 1));
    await rejects(inner, "Error", "key", "itself");
    const there = another();
    await rejects(
      cache.getOrSet("key", () => cache.getOrSet("other", () => cache.getOrSet("key", () => 1))),
      "Error",
      "itself",
    );
    // The loader may handle the error.
    const handled = cache.getOrSet("key", () => cache.getOrSet("key", () => 1).catch(() => "handled"));
    same(await inTime(handled), "handled");
    same(there.get("key"), "handled");
  });

  check("a loader may load other keys, and the same key of another namespace", async ({ cache }) => {
    const part = cache.namespace("part");
    const value = await inTime(
      cache.getOrSet("key", async () => {
        const other = await cache.getOrSet("other", () => 2);
        const same = await part.getOrSet("key", () => 3);
        return other + same;
      }),
    );
    same(value, 5);
  });

  check("the loader of a key may read the key when it is there", async ({ cache }) => {
    cache.set("key", 1);
    const value = await inTime(
      cache.getOrSet("key", async () => 1 + (await cache.getOrSet("key", never)), { fresh: true }),
    );
    same([value, cache.get("key")], [2, 2]);
  });
}

// ---- many keys

function manyKeys(check: Define): void {
  check(
    "getOrSetMany loads the absent keys with one call, and returns the values in the order of the keys",
    async (given) => {
      const { cache, another } = given;
      cache.set("a", "there");
      const asked: string[][] = [];
      const load = async (keys: string[]): Promise<string[]> => {
        asked.push(keys);
        return keys.map((key) => `loaded ${key}`);
      };
      const keys = ["c", "a", "b", "c", "a"];
      same(await inTime(cache.getOrSetMany(keys, load)), ["loaded c", "there", "loaded b", "loaded c", "there"]);
      same(asked, [["c", "b"]]);
      same(another().getMany(["a", "b", "c"]), ["there", "loaded b", "loaded c"]);
      same(await cache.getOrSetMany(keys, never), ["loaded c", "there", "loaded b", "loaded c", "there"]);
      same(await cache.getOrSetMany([], never), []);
      same(await inTime(cache.getOrSetMany(new Set(["d"]), () => ["now"])), ["now"]);
    },
  );

  check("the loader of getOrSetMany may return a Map, and undefined for a key without a value", async ({ cache }) => {
    const values = await inTime(cache.getOrSetMany(["a", "b"], () => new Map([["b", 2]])));
    same(values, [undefined, 2]);
    same(await inTime(cache.getOrSetMany(["a", "c"], () => [undefined, null])), [undefined, null]);
    same([...cache.keys()].sort(), ["b", "c"]);
  });

  check("getOrSetMany rejects when its loader returns another number of values, or no list", async ({ cache }) => {
    for (const wrong of [[1], [1, 2, 3], "ab", { a: 1, b: 2 }, undefined, null]) {
      await rejects(
        cache.getOrSetMany(["a", "b"], () => wrong as never),
        "TypeError",
        "load",
      );
    }
    same(cache.size, 0);
    const error = new Error("of the loader");
    const throws = (): never => {
      throw error;
    };
    ok((await rejects(cache.getOrSetMany(["a", "b"], throws), "Error")) === error, "its own error");
  });

  check(
    "getOrSetMany waits for keys that are being loaded, and others wait for its keys",
    async ({ cache, another }) => {
      const there = another();
      const single = controlled();
      const first = ask(there, "b", single.load);
      let resolveMany: (values: string[]) => void = nothing;
      const asked: string[][] = [];
      const many = cache.getOrSetMany(["a", "b", "c"], (keys) => {
        asked.push(keys);
        return new Promise<string[]>((resolve) => (resolveMany = resolve));
      });
      const joined = [ask(there, "a", never), ask(cache, "c", never), there.getOrSetMany(["c", "a"], never as never)];
      same(asked, [["a", "c"]]);
      resolveMany(["A", "C"]);
      same(await inTime(Promise.all(joined)), ["A", "C", ["C", "A"]]);
      single.last().resolve("B");
      same(await inTime(many), ["A", "B", "C"]);
      same([await inTime(first), asked.length], ["B", 1]);
    },
  );

  check(
    "each value of getOrSetMany has the ttl and the tags that the options or the context say",
    async ({ cache, clock }) => {
      const seen: unknown[] = [];
      await inTime(
        cache.getOrSetMany(["a", "bb"], (keys) => keys.map((key) => key.length), {
          ttl: (value) => 100 * value,
          tags: (_, key) => [key],
          onOutcome: (outcome, entry, key) => seen.push([outcome, key, entry.value]),
        }),
      );
      const entries = ["a", "bb"].map((key) => cache.getEntry(key));
      same(
        entries.map((entry) => [entry && entry.expiresAt - clock.now, entry?.tags]),
        [
          [100, ["a"]],
          [200, ["bb"]],
        ],
      );
      same(seen, [
        ["loaded", "a", 1],
        ["loaded", "bb", 2],
      ]);
      await inTime(
        cache.getOrSetMany(["c"], (_, context) => {
          context.ttl = 5;
          context.tags = ["said"];
          return [1];
        }),
      );
      same([cache.ttl("c"), cache.getEntry("c")?.tags], [5, ["said"]]);
    },
  );

  check(
    "getOrSetMany returns old values at once, and refreshes them with one call in the background",
    async ({ cache, clock }) => {
      const options = { ttl: 10, grace: 100 };
      await cache.getOrSetMany(["a", "b"], () => ["old a", "old b"], options);
      clock.now += 10;
      const asked: unknown[] = [];
      const load = (keys: string[], { background }: { background: boolean }): string[] => {
        asked.push([background, keys]);
        return keys.map((key) => `new ${key}`);
      };
      same(await inTime(cache.getOrSetMany(["a", "b", "c"], load, options)), ["old a", "old b", "new c"]);
      await until(() => cache.get("b") === "new b", "the new values");
      same(asked, [
        [false, ["c"]],
        [true, ["a", "b"]],
      ]);
    },
  );

  check("the signal of getOrSetMany's loader is aborted when nobody waits for any of its keys", async ({ cache }) => {
    const controller = new AbortController();
    let signal: AbortSignal | undefined;
    const load = (_: string[], context: { signal: AbortSignal }): Promise<never> => {
      signal = context.signal;
      return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal?.reason)));
    };
    const isAborted = (): boolean => signal?.aborted === true;
    const guest = new AbortController();
    const many = cache.getOrSetMany(["a", "b"], load, { signal: controller.signal });
    const one = ask(cache, "a", never, { signal: guest.signal });
    controller.abort();
    await rejects(many, "AbortError");
    ok(!isAborted(), "somebody waits for one of them");
    guest.abort();
    await rejects(one, "AbortError");
    ok(isAborted(), "nobody waits");
  });

  check("the loader of getOrSetMany that asks for one of its keys is refused", async ({ cache }) => {
    await rejects(
      cache.getOrSetMany(["a", "b"], () => Promise.all([cache.getOrSet("b", () => 1), 2])),
      "Error",
      "itself",
    );
  });
}

// ---- memoize

function memoized(check: Define): void {
  check("memoize loads once for each key, and passes arguments and this on", async ({ cache, another }) => {
    const calls: unknown[] = [];
    const options = { key: (id: number, name: string) => `user ${id} ${name}`, ttl: 50 };
    const service = {
      base: 100,
      find: cache.memoize(async function (this: { base: number }, id: number, name: string) {
        calls.push([id, name]);
        return { id: this.base + id, name };
      }, options),
    };
    same(await inTime(Promise.all([service.find(1, "a"), service.find(1, "a"), service.find(2, "a")])), [
      { id: 101, name: "a" },
      { id: 101, name: "a" },
      { id: 102, name: "a" },
    ]);
    same(calls, [
      [1, "a"],
      [2, "a"],
    ]);
    same([cache.get("user 1 a"), cache.ttl("user 1 a")], [{ id: 101, name: "a" }, 50]);
    const elsewhere = another().memoize((_id: number, _name: string) => never(), options);
    same(await inTime(elsewhere(2, "a")), { id: 102, name: "a" });
  });

  check(
    "a memoized function rejects with the error of its key function and with that of its loader",
    async ({ cache }) => {
      const failing = cache.memoize(
        (id: number) => {
          if (id > 1) throw new RangeError("of the loader");
          return id;
        },
        {
          key: (id: number) => {
            if (id < 0) throw new RangeError("of the key");
            return `${id}`;
          },
        },
      );
      await rejects(failing(-1), "RangeError", "of the key");
      await rejects(failing(2), "RangeError", "of the loader");
      same(await failing(1), 1);
    },
  );

  check("memoize without a key function, or with a wrong option, is a TypeError at once", ({ cache }) => {
    const wrong: [unknown, unknown][] = [
      ["load", {}],
      [never, undefined],
      [never, {}],
      [never, { key: "key" }],
      [never, { key: String, maxAge: 1 }],
      [never, { key: String, ttl: "1" }],
    ];
    for (const [load, options] of wrong) {
      let thrown: unknown;
      try {
        cache.memoize(load as never, options as never);
      } catch (error) {
        thrown = error;
      }
      ok(thrown instanceof Error && thrown.name === "TypeError", `a TypeError for ${JSON.stringify(options)}`);
    }
  });
}

// ---- wrong arguments

function wrongArguments(check: Define): void {
  check(
    "a wrong argument of getOrSet rejects and names it, also when the value is there, and nothing is thrown",
    async ({ cache }) => {
      const wrong: [option: string, kind: string, values: unknown[]][] = [
        ["ttl", "TypeError", ["1", null, {}]],
        ["ttl", "RangeError", [Number.NaN]],
        ["tags", "TypeError", ["a", [1], null, {}]],
        ["grace", "TypeError", ["1"]],
        ["grace", "RangeError", [-1, Number.NaN]],
        ["graceWait", "TypeError", [true]],
        ["graceWait", "RangeError", [-1]],
        ["graceBackoff", "TypeError", ["1"]],
        ["graceBackoff", "RangeError", [-0.5]],
        ["timeout", "TypeError", ["1"]],
        ["timeout", "RangeError", [-1, Number.NaN]],
        ["lease", "TypeError", [null]],
        ["lease", "RangeError", [0, -1]],
        ["refreshAhead", "TypeError", ["0.5"]],
        ["refreshAhead", "RangeError", [-0.1, 1.1]],
        ["jitter", "TypeError", [true]],
        ["jitter", "RangeError", [-0.1, 2]],
        ["fresh", "TypeError", [1, "yes", null]],
        ["signal", "TypeError", [{}, null, "signal"]],
        ["onOutcome", "TypeError", [1, {}]],
      ];
      cache.set("there", 1);
      for (const key of ["there", "absent"]) {
        for (const [option, kind, values] of wrong) {
          for (const value of values) {
            await rejects(cache.getOrSet(key, never, { [option]: value }), kind, option);
            await rejects(cache.getOrSetMany([key], never, { [option]: value }), kind, option);
          }
        }
        await rejects(cache.getOrSet(key, never, { maxAge: 5 } as never), "TypeError", "maxAge", "ttl");
        await rejects(cache.getOrSet(key, never, null as never), "TypeError", "options");
        await rejects(cache.getOrSet(key, never, 5 as never), "TypeError", "options");
        for (const load of [undefined, null, 5, {}]) {
          await rejects(cache.getOrSet(key, load as never), "TypeError", "load");
          await rejects(cache.getOrSetMany([key], load as never), "TypeError", "load");
        }
      }
      for (const key of [undefined, null, 5, {}]) {
        await rejects(cache.getOrSet(key as never, never), "TypeError", "key");
        await rejects(cache.getOrSetMany([key] as never, never), "TypeError", "key");
      }
      for (const keys of [undefined, null, 5, {}]) {
        await rejects(cache.getOrSetMany(keys as never, never), "TypeError", "keys");
      }
      const undefinedOptions = Object.fromEntries(wrong.map(([option]) => [option, undefined]));
      same(await cache.getOrSet("there", never, undefinedOptions), 1);
    },
  );
}
