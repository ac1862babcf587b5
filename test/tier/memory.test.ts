/** Tests the memory of a host (src/tier/memory.ts) in virtual time, over a cache of the built package. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

vi.hoisted(() => {
  vi.useFakeTimers({
    toFake: [
      "setTimeout",
      "clearTimeout",
      "setInterval",
      "clearInterval",
      "setImmediate",
      "performance",
      "hrtime",
      "Date",
    ],
  });
});
vi.mock("../../src/index.ts", () => import("cache-machine"));

import { type Cache, CacheError, createCache } from "cache-machine";
import { machineTime } from "../../src/coordinate/clock.ts";
import { ABSENT, Memory, type Place } from "../../src/tier/memory.ts";
import { Names } from "../../src/tier/names.ts";
import { seeded } from "../contract/seeded.ts";
import { Deferred, pass, settle } from "./virtual.ts";

const LEASE = 1000;
const names = new Names("app:");
let caches = 0;
let cache: Cache<any, any>;
let memory: Memory;
let place: Place;

beforeEach(() => {
  // With a random seed, two namespaces share a counter in 1 to 2 % of the runs, and are emptied together.
  cache = seeded(++caches, () => createCache({ size: "8MiB" }));
  memory = new Memory(cache, "app:", LEASE, names);
  place = memory.at([]);
});
afterEach(() => cache.close());

/** Another participant of the host. */
const another = (lease = LEASE, serves = false): Memory => new Memory(cache, "app:", lease, names, serves);

const busy = (): never => {
  throw new CacheError("ERR_BUSY", "in the way");
};

/** A flight of a loader that began while the server was away has stored its value. */
function keepIn(space: Cache<any, any>, place: Place, key: string, value: unknown, tags: string[] = []): void {
  space.set(key, value, { ttl: place.keep(space), tags });
}

/** As {@link keepIn}, for a flight that began just now. */
function keep(place: Place, key: string, value: unknown, tags?: string[]): void {
  keepIn(place.loading(true), place, key, value, tags);
}

describe("the lease", () => {
  test("without one the values are not read", () => {
    place.main.set("k", 1);
    expect(memory.isGood).toBe(false);
    expect(memory.leaseLeft).toBe(0);
    expect(place.peek("k")).toBe(undefined);
    expect(place.entry("k")).toBe(undefined);
  });

  test("lasts from the time at which the beat was sent", async () => {
    place.main.set("k", 1);
    const sent = machineTime();
    await pass(300);
    memory.renew(sent, 0);
    expect(memory.leaseLeft).toBeCloseTo(700);
    expect(place.peek("k")).toBe(1);
    await pass(699);
    expect(place.peek("k")).toBe(1);
    await pass(1);
    expect(place.peek("k")).toBe(undefined);
    expect(memory.isGood).toBe(false);
  });

  test("is that of all participants, who look again when theirs is over", async () => {
    const other = another();
    memory.renew(machineTime(), 0);
    expect(other.isGood).toBe(true);
    await pass(900);
    memory.renew(machineTime(), 0);
    await pass(100);
    // The first one is over, the second one is not.
    expect(other.leaseLeft).toBeCloseTo(900);
    expect(other.at([]).peek("k")).toBe(undefined);
  });

  test("each participant counts its own length of a lease", async () => {
    const short = another(100);
    memory.renew(machineTime(), 0);
    await pass(99);
    expect(short.isGood).toBe(true);
    await pass(1);
    expect([short.isGood, memory.isGood]).toEqual([false, true]);
  });

  test("one that is over is looked at every few milliseconds only", async () => {
    const get = vi.spyOn(memory.control, "get");
    for (let i = 0; i < 1000; i++) place.peek("k");
    expect(get).toHaveBeenCalledTimes(1);
    memory.control.set("lease", "");
    await pass(4);
    place.peek("k");
    expect(get).toHaveBeenCalledTimes(1);
    await pass(1);
    place.peek("k");
    expect(get).toHaveBeenCalledTimes(2);
    another().renew(machineTime(), 0);
    await pass(5);
    expect(memory.isGood).toBe(true);
    get.mockClear();
    for (let i = 0; i < 1000; i++) place.peek("k");
    expect(get).not.toHaveBeenCalled();
  });

  test("what an owner that was frozen publishes late is over, and shortens nothing", async () => {
    const sent = machineTime();
    await pass(5000);
    another().renew(machineTime(), 7);
    memory.renew(sent, 0);
    expect(memory.leaseLeft).toBeCloseTo(1000);
    await pass(2000);
    expect(memory.isGood).toBe(false);
    memory.renew(sent, 0);
    await pass(10);
    expect(memory.isGood).toBe(false);
  });

  test("damaged, foreign and impossible ones are none", async () => {
    const now = machineTime();
    const good = `${now} 0|${now} 0`;
    const bad = [
      "",
      "0",
      `${now} 0`,
      `${now} 0|${now} 0|`,
      `${now} 0|${now + 1} 0`,
      `${now + 500} 0|${now + 500} 0`,
      `${Infinity} 0|${Infinity} 0`,
      `${now} x|${now} x`,
      `${now} 0 0|${now} 0 0`,
      `${now}|${now}`,
      now + 1e6,
      { sent: now },
      null,
      [now, now],
    ];
    for (const value of bad) {
      memory.control.set("lease", value);
      const fresh = another();
      expect(fresh.isGood, JSON.stringify(value)).toBe(false);
      // An owner replaces it.
      fresh.renew(now, 0);
      expect(fresh.isGood).toBe(true);
      expect(fresh.control.get("lease")).toBe(good);
    }
  });

  test("any byte that changes makes it none, or leaves it as it was", () => {
    memory.renew(machineTime() - 10, 5);
    const text = memory.control.get("lease") as string;
    const { published } = memory;
    for (let at = 0; at < text.length; at++) {
      for (const character of "0159 .|-e") {
        memory.control.set("lease", text.slice(0, at) + character + text.slice(at + 1));
        expect([undefined, published]).toContain(another().published);
      }
    }
  });

  test("an evicted one ends no lease that is known, and the next one is found", async () => {
    memory.renew(machineTime(), 0);
    expect(memory.isGood).toBe(true);
    memory.control.delete("lease");
    expect(memory.isGood).toBe(true);
    expect(another().isGood).toBe(false);
    await pass(LEASE);
    expect(memory.isGood).toBe(false);
    another().renew(machineTime(), 0);
    await pass(5);
    expect(memory.isGood).toBe(true);
  });

  test("the server's time goes on after it", async () => {
    expect(memory.serverNow()).toBe(undefined);
    memory.renew(machineTime(), 12_345.5);
    await pass(5);
    expect(memory.serverNow()).toBe(machineTime() + 12_345.5);
    await pass(3 * LEASE);
    expect(memory.serverNow()).toBe(machineTime() + 12_345.5);
    another().renew(machineTime(), -7);
    await pass(5);
    expect(memory.serverNow()).toBe(machineTime() - 7);
  });

  test("after close none is good", () => {
    memory.renew(machineTime(), 0);
    place.main.set("k", 1);
    expect(place.peek("k")).toBe(1);
    memory.close();
    expect([memory.isGood, memory.leaseLeft, place.peek("k")]).toEqual([false, 0, undefined]);
    expect(another().isGood).toBe(true);
  });

  test("a closed cache says so", () => {
    cache.close();
    expect(() => place.peek("k")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    expect(() => memory.apply(["app:v:{:k}"])).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    expect(() => memory.apply(null)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    expect(() => memory.raise()).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    expect(() => memory.renew(1, 1)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    expect(() => place.drop("k")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
  });
});

describe("the cache underneath", () => {
  test("may have a codec, frozen objects and a default ttl of its own", async () => {
    const codec = { encode: () => new Uint8Array(1), decode: () => "decoded" };
    const own = createCache<any, any>({ size: "4MiB", codec, frozenObjects: true, ttl: 10 });
    const ownMemory = new Memory(own, "app:", LEASE, names);
    const ownPlace = ownMemory.at(["a"]);
    ownMemory.renew(machineTime(), 3);
    ownPlace.main.set("k", ABSENT);
    ownPlace.times.set("t", 1);
    keep(ownPlace, "kept", 1);
    await pass(20);
    const fresh = new Memory(own, "app:", LEASE, names);
    expect([fresh.isGood, fresh.serverNow(), fresh.at(["a"]).peek("k")]).toEqual([true, machineTime() + 3, ABSENT]);
    expect([ownPlace.times.get("t"), ownPlace.peek("kept")]).toEqual([1, 1]);
    own.close();
  });

  test("must have room for a lease and a report", () => {
    const small = createCache({ size: "1MiB", maxEntrySize: 200 });
    expect(() => new Memory(small, "app:", LEASE, names)).toThrow(/^cache: has too small a maxEntrySize.*1000 bytes/);
    small.close();
    expect(() => new Memory(small, "app:", LEASE, names)).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
  });
});

describe("names", () => {
  test("every prefix has a memory of its own, however long it is", () => {
    const long = "p".repeat(255);
    for (const [prefix, sibling] of [
      ["a:", "a: "],
      [long, `${long.slice(1)}q`],
      ["é".repeat(24), "é".repeat(25)],
    ] as const) {
      const one = new Memory(cache, prefix, LEASE, new Names(prefix));
      const two = new Memory(cache, sibling, LEASE, new Names(sibling));
      one.renew(machineTime(), 0);
      one.at([]).main.set("k", 1);
      expect(two.isGood).toBe(false);
      two.renew(machineTime(), 0);
      expect(two.at([]).peek("k")).toBe(undefined);
      two.raise();
      expect(one.at([]).peek("k")).toBe(1);
      keep(two.at([]), "b", 1);
      expect(one.at([]).current().get("b")).toBe(undefined);
    }
  });

  test("14 namespaces within one another are possible, and more are refused", () => {
    const deep = Array.from({ length: 14 }, (_, i) => `${i}`);
    const inner = memory.at(deep);
    inner.times.set("t", 1);
    inner.main.set("k", 1);
    memory.renew(machineTime(), 0);
    expect(inner.peek("k")).toBe(1);
    expect(inner.isBackingOff("k")).toBe(false);
    expect(() => memory.at([...deep, "x", "y"])).toThrow(RangeError);
  });

  test("values, tags' times and failures of a namespace are apart from namespaces with any name", () => {
    memory.renew(machineTime(), 0);
    for (const name of ["t", "f", "n", "nt"]) {
      const inner = memory.at([name]);
      inner.main.set("k", name);
      expect(place.times.get("k")).toBe(undefined);
      expect(place.isBackingOff("k")).toBe(false);
    }
  });
});

describe("changes that the owner hears of", () => {
  beforeEach(() => memory.renew(machineTime(), 0));

  test("remove the key, in its namespace only", () => {
    const inner = memory.at(["a", "b"]);
    const bytes = Uint8Array.of(1, 2);
    for (const each of [place, inner]) for (const key of ["k", "other", bytes]) each.main.set(key, 1);
    expect(memory.apply([names.value(["a", "b"], "k"), names.value([], bytes)])).toBe(true);
    expect(["k", "other", bytes].map((key) => inner.peek(key))).toEqual([undefined, 1, 1]);
    expect(["k", "other", bytes].map((key) => place.peek(key))).toEqual([1, 1, undefined]);
  });

  test("remove what is known to be absent", () => {
    place.main.set("k", ABSENT);
    expect([place.peek("k"), place.entry("k")]).toEqual([ABSENT, ABSENT]);
    memory.apply([names.value([], "k")]);
    expect([place.peek("k"), place.entry("k")]).toEqual([undefined, undefined]);
  });

  test("invalidate a tag, in its namespace only, and forget its time first", () => {
    const inner = memory.at(["a"]);
    for (const each of [place, inner]) {
      each.main.set("k", 1, { tags: ["t"] });
      each.main.set("other", 1, { tags: ["u"] });
      each.times.set("t", 5);
      each.times.set("u", 5);
    }
    let atTheTime: unknown;
    const invalidate = vi.spyOn(inner.main, "invalidateTag").mockImplementation((...tags) => {
      atTheTime = [inner.times.get("t"), inner.times.get("u")];
      invalidate.mockRestore();
      inner.main.invalidateTag(...tags);
    });
    // The place that the owner makes from the path is another object.
    inner.forgetTag("t");
    expect(atTheTime).toEqual([undefined, 5]);
    expect([inner.peek("k"), inner.peek("other"), place.peek("k")]).toEqual([undefined, 1, 1]);
    memory.apply([names.tag([], "t")]);
    expect([place.peek("k"), place.peek("other"), place.times.get("t"), place.times.get("u")]).toEqual([
      undefined,
      1,
      undefined,
      5,
    ]);
  });

  test("null removes everything of the tier, and nothing else", () => {
    const inner = memory.at(["a"]);
    cache.set("k", "the user's");
    for (const each of [place, inner]) each.main.set("k", 1);
    inner.times.set("t", 1);
    memory.apply(null);
    expect([place.peek("k"), inner.peek("k"), inner.times.get("t"), cache.get("k")]).toEqual([
      undefined,
      undefined,
      undefined,
      "the user's",
    ]);
    expect(memory.isGood).toBe(true);
  });

  test("names of others change nothing", () => {
    place.main.set("k", 1);
    const deep = Array.from({ length: 40 }, () => "x");
    const strange = [
      "",
      "k",
      "app:",
      "app:v:",
      "app:v:{}",
      "app:v:{k}",
      "app:v:{:k",
      "app:t:{t}",
      "app:x:{:k}",
      `app:v:{:${"k".repeat(100_000)}}`,
      "\ud800",
    ];
    expect(memory.apply(strange)).toBe(true);
    expect(place.peek("k")).toBe(1);
    // A name that no tier can have made. Whatever it means, nothing outdated stays.
    memory.apply([names.value(deep, "k"), names.value([], "k")]);
    expect(place.peek("k")).toBe(undefined);
  });

  test("overtake reads and loads that are under way", async () => {
    const inner = memory.at(["a"]);
    const changes: [name: string, change: () => void][] = [
      ["a push", () => memory.apply([names.value(["a"], "k")])],
      ["a tag", () => memory.apply([names.tag(["a"], "t")])],
      ["null", () => memory.apply(null)],
      ["an epoch", () => memory.raise()],
      ["a change of this host", () => inner.drop("k")],
      ["an invalidation of this host", () => inner.dropTags(["t"])],
      ["a clear of this host", () => place.clear()],
    ];
    for (const [name, change] of changes) {
      const reply = new Deferred<number>();
      const read = inner.main.getOrSet("k", () => reply.promise, { tags: ["t"] });
      const loaded = new Deferred<number>();
      const load = inner.loads.getOrSet("k", () => loaded.promise, { tags: ["t"] });
      await settle();
      change();
      reply.resolve(1);
      loaded.resolve(1);
      expect(await read).toBe(1);
      expect(await load).toBe(1);
      expect(inner.main.get("k"), name).toBe(undefined);
      expect(inner.loads.get("k"), name).toBe(undefined);
      inner.clear();
    }
  });

  test("a participant that is in the way of one change costs all values, and no exception", () => {
    const inner = memory.at(["a"]);
    const all = [place, inner];
    const fill = (): void => {
      for (const each of all) for (const key of ["k", "other"]) each.main.set(key, 1);
      keep(all[1] as Place, "other", 1);
    };
    const left = (): unknown[] => all.flatMap((each) => [each.main.get("k"), each.main.get("other")]);
    fill();
    const place0 = vi.spyOn(place.main, "delete").mockImplementation(busy);
    expect(memory.apply([names.value(["a"], "k"), names.value([], "k"), names.value([], "x")])).toBe(false);
    expect(left()).toEqual([undefined, undefined, undefined, undefined]);
    fill();
    place.drop("k");
    expect(left()).toEqual([undefined, undefined, undefined, undefined]);
    expect(inner.peek("other")).toBe(undefined);
    place0.mockRestore();
    fill();
    vi.spyOn(place.times, "delete").mockImplementation(busy);
    place.dropTags(["t"]);
    expect(left()).toEqual([undefined, undefined, undefined, undefined]);
  });

  test("pushes for ever new namespaces take a bounded amount of memory", () => {
    const made = vi.spyOn(memory, "at");
    for (let i = 0; i < 1000; i++) memory.apply([names.value([`${i % 10}`], "k")]);
    expect(made).toHaveBeenCalledTimes(10);
    for (let i = 0; i < 1500; i++) memory.apply([names.value([`n${i}`], "k")]);
    expect(made).toHaveBeenCalledTimes(1510);
    // Those of before are forgotten.
    memory.apply([names.value(["0"], "k")]);
    expect(made).toHaveBeenCalledTimes(1511);
  });
});

describe("an epoch", () => {
  test("removes all values and times, and leaves the lock, the reports and the lease", async () => {
    memory.renew(machineTime(), 0);
    const inner = memory.at(["a"]);
    inner.main.set("k", 1);
    inner.times.set("t", 1);
    memory.control.set("owner", "report");
    const holding = new Deferred<void>();
    let lost = false;
    const lock = memory.control.locks.request("owner", async ({ signal }) => {
      await holding.promise;
      lost = signal.aborted;
    });
    await settle();
    memory.raise();
    expect([inner.peek("k"), inner.times.get("t")]).toEqual([undefined, undefined]);
    expect([memory.isGood, another().isGood, memory.control.get("owner")]).toEqual([true, true, "report"]);
    holding.resolve();
    await lock;
    expect(lost).toBe(false);
  });
});

describe("without a lease", () => {
  test("reads go to the namespace of the present half of a lease, and are found for at most one lease", async () => {
    // The beginning of a half, and a moment in its middle.
    for (const shift of [0, 200, 499]) {
      await pass(500 - (machineTime() % 500) + shift);
      const began = machineTime();
      const value = await place.current().getOrSet("k", async () => {
        await Promise.resolve();
        return shift;
      });
      expect(value).toBe(shift);
      let seen = 0;
      let last = began;
      for (let i = 0; i < 1500; i++, await pass(1)) {
        if (another().at([]).peek("k") === undefined) continue;
        seen++;
        last = machineTime();
        // One read of the server for each key and half of a lease: nobody loads again meanwhile.
        expect(place.peek("k")).toBe(shift);
      }
      expect(last - began).toBeLessThan(LEASE);
      expect(seen).toBeGreaterThan(500);
    }
  });

  test("a value that was loaded slowly is kept where its load began", async () => {
    await pass(500 - (machineTime() % 500));
    const space = place.loading(true);
    await pass(400);
    keepIn(space, place, "quick", 1);
    await pass(400);
    keepIn(space, place, "slow", 2);
    expect([place.peek("quick"), place.peek("slow")]).toEqual([1, 2]);
    await pass(199);
    expect([place.peek("quick"), place.peek("slow")]).toEqual([1, 2]);
    await pass(1);
    expect([place.peek("quick"), place.peek("slow")]).toEqual([undefined, undefined]);
    keepIn(space, place, "late", 3);
    expect(place.peek("late")).toBe(undefined);
  });

  test("what this participant keeps is found under a lease too, for one lease", async () => {
    await pass(500 - (machineTime() % 500));
    memory.renew(machineTime(), 0);
    keep(place, "k", 1, ["t"]);
    expect([place.peek("k"), place.entry("k")]).toEqual([1, expect.objectContaining({ value: 1, tags: ["t"] })]);
    await pass(LEASE - 1);
    expect(place.peek("k")).toBe(1);
    await pass(1);
    memory.renew(machineTime(), 0);
    expect(place.peek("k")).toBe(undefined);
  });

  test("changes of this host reach it, also loads in it", async () => {
    const inner = memory.at(["a"]);
    await pass(500 - (machineTime() % 500));
    const reply = new Deferred<number>();
    const reading = inner.current().getOrSet("slow", () => reply.promise);
    keep(inner, "k", 1, ["t"]);
    keep(inner, "tagged", 1, ["t"]);
    await pass(500);
    keep(inner, "k", 2);
    const other = another().at(["a"]);
    expect([other.peek("k"), other.peek("tagged")]).toEqual([2, 1]);
    other.drop("k");
    other.drop("slow");
    reply.resolve(1);
    expect(await reading).toBe(1);
    expect([inner.peek("k"), inner.peek("slow"), inner.peek("tagged")]).toEqual([undefined, undefined, 1]);
    other.dropTags(["t"]);
    expect(inner.peek("tagged")).toBe(undefined);
    keep(inner, "k", 1);
    keep(place, "k", 1);
    another().at(["a"]).clear();
    expect([inner.peek("k"), place.peek("k")]).toEqual([undefined, 1]);
    place.clear();
    expect(place.peek("k")).toBe(undefined);
  });

  test("nobody joins a load that began longer than half a lease ago", async () => {
    const inner = memory.at(["a"]);
    await pass(500 - (machineTime() % 500));
    let loads = 0;
    const load = (): Promise<number> => {
      const answer = new Deferred<number>();
      const number = ++loads;
      setTimeout(() => answer.resolve(number), 2000);
      return answer.promise;
    };
    const first = inner.loading(false).getOrSet("k", load, { ttl: 0 });
    await pass(499);
    const second = another().at(["a"]).loading(false).getOrSet("k", load, { ttl: 0 });
    await pass(1);
    const third = inner.loading(false).getOrSet("k", load, { ttl: 0 });
    await settle();
    expect(loads).toBe(2);
    // A change of this host overtakes it in both halves.
    another().at(["a"]).drop("k");
    const fourth = inner.loading(false).getOrSet("k", load, { ttl: 0 });
    await settle();
    expect(loads).toBe(3);
    another().at([]).clear();
    const fifth = inner.loading(false).getOrSet("k", load, { ttl: 0 });
    await pass(2000);
    // After a clear of a namespace a call waits for the load that was overtaken, and then loads.
    expect(loads).toBe(4);
    await pass(2000);
    expect(await Promise.all([first, second, third, fourth, fifth])).toEqual([1, 1, 2, 3, 4]);
    expect(inner.loading(false).get("k")).toBe(undefined);
    memory.renew(machineTime(), 0);
    await pass(5);
    expect(inner.loading(false)).toBe(inner.loads);
  });

  test("`serves`: values are used after the lease", async () => {
    const serving = another(LEASE, true).at([]);
    place.main.set("k", 1, { tags: ["t"] });
    place.main.set("absent", ABSENT);
    expect([serving.peek("k"), serving.peek("absent"), serving.peek("other")]).toEqual([1, ABSENT, undefined]);
    expect(serving.entry("k")).toMatchObject({ value: 1, tags: ["t"] });
    expect([place.peek("k"), place.entry("k")]).toEqual([undefined, undefined]);
    expect([serving.current() === serving.main, serving.loading(false) === serving.loads]).toEqual([true, true]);
    memory.apply([names.value([], "k")]);
    expect(serving.peek("k")).toBe(undefined);
  });

  test("participants with other leases have other halves", () => {
    const other = another(600);
    keep(place, "k", 1);
    keep(other.at([]), "k", 2);
    expect([place.peek("k"), other.at([]).peek("k")]).toEqual([1, 2]);
  });
});

test("with a lease reads go to the values, also those of a load that outlives it", async () => {
  memory.renew(machineTime(), 0);
  expect(place.current()).toBe(place.main);
  const reply = new Deferred<number>();
  const read = place.current().getOrSet("k", () => reply.promise);
  await pass(LEASE);
  expect(place.current()).not.toBe(place.main);
  reply.resolve(1);
  await read;
  expect(place.peek("k")).toBe(undefined);
  memory.renew(machineTime(), 0);
  await pass(5);
  expect(place.peek("k")).toBe(1);
});

test("a load that has failed is not tried again by anybody for some time", async () => {
  expect(place.isBackingOff("k")).toBe(false);
  place.backOff("k", 100);
  place.backOff("none", 0);
  const other = another().at([]);
  expect([other.isBackingOff("k"), other.isBackingOff("none"), other.isBackingOff("x")]).toEqual([true, false, false]);
  await pass(100);
  expect(other.isBackingOff("k")).toBe(false);
});
