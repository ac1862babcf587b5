/**
 * Reads under a lease: which clock they ask, how often, and when a value has expired by it. The clocks are functions of the test,
 * which are in place before the package is loaded, because the package keeps `performance.now` as it finds it.
 */
import { afterEach, expect, test, vi } from "vitest";

const clocks = vi.hoisted(() => {
  const real = performance.now.bind(performance);
  const clocks = {
    monotonic: 1000,
    wall: 1_700_000_000_000,
    asked: { monotonic: 0, wall: 0 },
    restore: (): void => {},
  };
  performance.now = () => {
    clocks.asked.monotonic++;
    return clocks.monotonic;
  };
  clocks.restore = () => {
    performance.now = real;
  };
  return clocks;
});
const { createCache } = await import("cache-machine");
type Cache = ReturnType<typeof createCache>;
clocks.restore();

/** So many reads that the near cache has the value, and its proof. */
const READS = 12;
const opened: Cache[] = [];
afterEach(() => {
  for (const cache of opened.splice(0)) cache.close();
});

function create(options: Parameters<typeof createCache>[0] = {}): Cache {
  const now = (): number => {
    clocks.asked.wall++;
    return clocks.wall;
  };
  const cache = createCache({ size: "4mb", now, ...options });
  opened.push(cache);
  return cache;
}

/** Lets time pass by both clocks. */
function pass(ms: number): void {
  clocks.monotonic += ms;
  clocks.wall += ms;
}

/** How often each clock is asked. */
function asked(run: () => void): { monotonic: number; wall: number } {
  Object.assign(clocks.asked, { monotonic: 0, wall: 0 });
  run();
  return { ...clocks.asked };
}

const scopes: [string, (cache: Cache) => Cache][] = [
  ["the cache", (cache) => cache],
  ["a namespace", (cache) => cache.namespace("a").namespace("b")],
];

test.each(scopes)("in %s a read of a near value asks the monotonic clock once, and no other", (_, of) => {
  const part = of(create());
  const reader = part.leased({ until: Number.POSITIVE_INFINITY });
  const values: [string, object | string, object][] = [
    ["plain", "value", {}],
    ["ttl", "value", { ttl: 1000 }],
    ["tags", { list: [1] }, { ttl: 1000, tags: ["t", "u"] }],
  ];
  for (const [key, value, options] of values) {
    part.set(key, value, options);
    for (let reads = 0; reads < READS; reads++) expect(reader.get(key)).toEqual(value);
    const run = (): void => {
      for (let reads = 0; reads < 10; reads++) expect(reader.get(key)).toEqual(value);
    };
    expect(asked(run), key).toEqual({ monotonic: 10, wall: 0 });
  }
});

test.each(scopes)("in %s the lease ends exactly at its time", (_, of) => {
  const part = of(create());
  const lease = { until: clocks.monotonic + 100 };
  const reader = part.leased(lease);
  part.set("k", "value");
  for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toBe("value");
  pass(99.999);
  expect(reader.get("k")).toBe("value");
  clocks.monotonic = lease.until;
  expect(reader.get("k")).toBeUndefined();
  lease.until = clocks.monotonic + 0.001;
  expect(reader.get("k")).toBe("value");
  lease.until = Number.NaN;
  expect(reader.get("k")).toBeUndefined();
});

test.each(scopes)("in %s a near value expires when its time has passed by the monotonic clock", (_, of) => {
  const part = of(create());
  const reader = part.leased({ until: Number.POSITIVE_INFINITY });
  for (const [i, options] of [{ ttl: 100 }, { ttl: 100, tags: ["t"] }].entries()) {
    part.set(`k${i}`, "value", options);
    // The first leased reads come some time after the value was stored, and after other reads.
    for (let reads = 0; reads < READS; reads++) expect(part.get(`k${i}`)).toBe("value");
    pass(40);
    for (let reads = 0; reads < READS; reads++) expect(reader.get(`k${i}`)).toBe("value");
    pass(59);
    expect(reader.get(`k${i}`)).toBe("value");
    pass(1);
    expect(reader.get(`k${i}`)).toBeUndefined();
    expect(part.get(`k${i}`)).toBeUndefined();
  }
});

test("steps of the wall clock do not count for near values; the cache's clock decides when the near cache has no value any more", () => {
  const cache = create();
  const reader = cache.leased({ until: Number.POSITIVE_INFINITY });
  cache.set("k", "value", { ttl: 100 });
  for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toBe("value");
  clocks.wall += 1e6;
  expect(reader.get("k")).toBe("value");
  expect(cache.get("k")).toBeUndefined();
  expect(reader.get("k")).toBeUndefined();
  // Set back: by the cache's clock the entry lives, and the near value has expired by the other.
  clocks.wall -= 1e6;
  cache.set("k", "new", { ttl: 100 });
  for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toBe("new");
  clocks.monotonic += 100;
  for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toBe("new");
  pass(100);
  expect(reader.get("k")).toBeUndefined();
});

test("another ttl counts from when it is set, for near values as well", () => {
  const cache = create();
  const reader = cache.leased({ until: Number.POSITIVE_INFINITY });
  cache.set("k", "value", { ttl: 100 });
  for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toBe("value");
  cache.touch("k", 1000);
  pass(999);
  for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toBe("value");
  cache.touch("k", 5);
  expect(reader.get("k")).toBe("value");
  pass(5);
  expect(reader.get("k")).toBeUndefined();
});

test("an expired near value leaves the near cache, and its read is a miss", () => {
  const cache = create();
  const part = cache.namespace("a");
  const reader = part.leased({ until: Number.POSITIVE_INFINITY });
  for (const read of [() => reader.get("k"), () => part.get("k"), () => part.getMany(["k"])[0]]) {
    part.set("k", "value", { ttl: 100 });
    for (let reads = 0; reads < READS; reads++) expect(read()).toBe("value");
    expect(cache.stats().near.entries).toBe(1);
    const before = cache.stats();
    pass(100);
    expect(read()).toBeUndefined();
    const { hits, misses, near } = cache.stats();
    expect([hits - before.hits, misses - before.misses, near.entries]).toEqual([0, 1, 0]);
  }
});

test("a read whose lease has ended counts neither as a hit nor as a miss", () => {
  const cache = create();
  const lease = { until: Number.POSITIVE_INFINITY };
  for (const part of [cache, cache.namespace("a")]) {
    const reader = part.leased(lease);
    part.set("k", 1, { ttl: 1000 });
    lease.until = Number.POSITIVE_INFINITY;
    const before = cache.stats();
    for (let reads = 0; reads < READS; reads++) reader.get("k");
    reader.get("absent");
    lease.until = 0;
    for (let reads = 0; reads < READS; reads++) reader.get("k");
    const { hits, misses } = cache.stats();
    expect([hits - before.hits, misses - before.misses]).toEqual([READS, 1]);
  }
});

test("encoding and decoding count nothing", () => {
  const cache = create();
  const { near: _, ...before } = cache.stats();
  for (const value of [1, "text", { a: 1 }]) cache.decode(cache.encode(value));
  expect(cache.stats()).toMatchObject(before);
});

test("a clock that uses the cache while a near value asks for the time does no harm", () => {
  const acts: ((cache: Cache) => void)[] = [
    (cache) => cache.clear(),
    (cache) => cache.close(),
    (cache) => void cache.delete("k"),
    (cache) => void cache.namespace("a").delete("k"),
    (cache) => void cache.namespace("a").set("k", "other", { expiresAt: Number.POSITIVE_INFINITY }),
    (cache) => void Array.from({ length: 5000 }, (_, i) => cache.get(`filler ${i}`)),
  ];
  for (const act of acts) {
    for (const leased of [false, true]) {
      let acting = false;
      const cache = create({
        nearCache: 2000,
        now() {
          if (acting) {
            acting = false;
            act(cache);
          }
          return clocks.wall;
        },
      });
      const part = cache.namespace("a");
      for (let i = 0; i < 5000; i++) cache.set(`filler ${i}`, i);
      part.set("k", { value: 1 }, { ttl: 100 });
      for (let reads = 0; reads < READS; reads++) expect(part.get("k")).toEqual({ value: 1 });
      const reader = leased ? part.leased({ until: Number.POSITIVE_INFINITY }) : part;
      acting = true;
      // The first leased read asks the cache's clock how long the value lives.
      expect(reader.get("k")).toEqual({ value: 1 });
      expect(acting).toBe(false);
      if (act === acts[1])
        expect(() => reader.get("k")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }) as Error);
      else {
        expect(cache.validate()).toBe(0);
        for (let reads = 0; reads < READS; reads++) expect(reader.get("k")).toEqual(part.getEntry("k")?.value);
      }
    }
  }
});

test("a clock that uses the cache while an expired near value asks for the time does no harm", () => {
  let acting = false;
  const cache: Cache = create({
    now() {
      if (acting) {
        acting = false;
        cache.set("k", "new", { expiresAt: Number.POSITIVE_INFINITY });
        for (let reads = 0; reads < READS; reads++) cache.get("k");
      }
      return clocks.wall;
    },
  });
  for (const read of [() => cache.get("k"), () => cache.leased({ until: Number.POSITIVE_INFINITY }).get("k")]) {
    cache.set("k", "old", { ttl: 100 });
    for (let reads = 0; reads < READS; reads++) expect(cache.get("k")).toBe("old");
    pass(100);
    acting = true;
    expect(read()).toBe("new");
    for (let reads = 0; reads < READS; reads++) expect(read()).toBe("new");
  }
});
