/**
 * Tests the owner (src/tier/owner.ts) in virtual time, with a client whose connections the test controls, over a cache of the built
 * package. What threads and processes that die or freeze do is in owners.test.ts.
 */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

/** How far the machine's clock has gone on without any timer: while everything was frozen. */
const frozen = vi.hoisted(() => {
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
  return { ms: 0 };
});
vi.mock("../../src/coordinate/clock.ts", async (original) => {
  const { machineTime } = await original<typeof import("../../src/coordinate/clock.ts")>();
  return { machineTime: () => machineTime() + frozen.ms };
});
vi.mock("../../src/index.ts", () => import("cache-machine"));

import { type Cache, CacheError, createCache } from "cache-machine";
import { machineTime } from "../../src/coordinate/clock.ts";
import { Memory, type Place } from "../../src/tier/memory.ts";
import { Names } from "../../src/tier/names.ts";
import { Owner, type OwnerOptions } from "../../src/tier/owner.ts";
import { seeded } from "../contract/seeded.ts";
import { FakeClient } from "./fake-client.ts";
import { Deferred, pass, settle } from "./virtual.ts";

const LEASE = 1000;
const TIMEOUT = 800;
/** The longest time until a free lock is taken. */
const STAND = 81;
const names = new Names("app:");
const name = (key: string): string => names.value([], key);

let cache: Cache<any, any>;
let memory: Memory;
let place: Place;
let client: FakeClient;
let owners: Owner[];

beforeEach(() => {
  cache = seeded(1, () => createCache({ size: "8MiB" }));
  memory = new Memory(cache, "app:", LEASE, names);
  place = memory.at([]);
  client = new FakeClient();
  owners = [];
});
afterEach(async () => {
  const closing = Promise.all(owners.map((owner) => owner.close()));
  for (const { opened, isOpen } of client.listeners) if (!isOpen) opened.reject(new Error("the test is over"));
  await pass(2 * (TIMEOUT + 500));
  await closing;
  expect(client.open).toBe(0);
  cache.close();
  expect(vi.getTimerCount()).toBe(0);
});

/** A participant of the host that stands for election. */
function participant(options: Partial<OwnerOptions> = {}, of: FakeClient = client, lease = LEASE): Owner {
  const own = new Memory(cache, "app:", lease, names);
  const owner = new Owner(own, of, names, { lease, timeout: TIMEOUT, ...options });
  owners.push(owner);
  owner.start();
  return owner;
}

/** An owner that follows, with its first beat answered. */
async function following(options?: Partial<OwnerOptions>): Promise<Owner> {
  const owner = participant(options);
  await settle();
  client.last.accept();
  await settle();
  client.last.answer();
  await settle();
  return owner;
}

/** Whether the memory is good, also when it was not until now. */
async function isGood(): Promise<boolean> {
  await pass(5);
  return memory.isGood;
}

describe("following", () => {
  test("in this order: the subscription, the epoch, a beat, the lease", async () => {
    place.main.set("old", 1);
    memory.renew(machineTime(), 0);
    const reply = new Deferred<number>();
    const read = place.main.getOrSet("read", () => reply.promise);
    participant();
    await settle();
    expect(client.listeners).toHaveLength(1);
    expect(client.last.events.prefixes).toEqual(names.tracked);
    await pass(50);
    // The lease of the owner before is as good as ever.
    expect(place.peek("old")).toBe(1);
    client.last.accept();
    await settle();
    // A read that was under way during the subscription, and values of before it, are of the epoch before.
    reply.resolve(1);
    await read;
    expect([place.peek("old"), place.peek("read")]).toEqual([undefined, undefined]);
    expect(client.last.beats).toHaveLength(1);
    const sent = machineTime();
    const before = memory.published;
    await pass(100);
    expect(memory.published).toBe(before);
    client.last.answer();
    await settle();
    expect(memory.published).toBe(sent);
  });

  test("beats four times in a lease, one at a time, each from the moment it is sent", async () => {
    await following();
    const { last } = client;
    expect([last.sent, await isGood()]).toEqual([1, true]);
    await pass(LEASE / 4 - 6);
    expect(last.sent).toBe(1);
    await pass(1);
    expect(last.sent).toBe(2);
    // One that is answered late renews from its sending, and the next one follows at once.
    const sent = machineTime();
    await pass(700);
    expect(last.sent).toBe(2);
    expect(last.beats).toHaveLength(1);
    last.answer();
    await settle();
    expect(memory.published).toBe(sent);
    expect(last.sent).toBe(3);
    expect(await isGood()).toBe(true);
    expect(memory.leaseLeft).toBeCloseTo(LEASE - 705);
  });

  test("with a long lease it beats all the same, and a silent owner is replaced", async () => {
    const hour = 3_600_000;
    client.isPrompt = true;
    const owner = participant({}, client, hour);
    await pass(60_000);
    expect(client.last.sent).toBe(13);
    expect(owner.report()?.age).toBeLessThanOrEqual(5000);
    await owner.close();
    const hold = new Deferred<void>();
    const silent = memory.control.locks.request("owner", () => hold.promise).catch(() => {});
    await settle();
    const other = participant({}, client, hour);
    await pass(41_000);
    expect(other.owns).toBe(true);
    hold.resolve();
    await silent;
  });

  test("changes are applied, and counted", async () => {
    const owner = await following();
    for (const key of ["a", "b", "c"]) place.main.set(key, 1);
    await isGood();
    client.last.push(name("a"), name("b"));
    expect([place.peek("a"), place.peek("b"), place.peek("c")]).toEqual([undefined, undefined, 1]);
    client.last.pushNull();
    expect(place.peek("c")).toBe(undefined);
    expect(await isGood()).toBe(true);
    await pass(LEASE / 4);
    expect(owner.report()).toMatchObject({ epochs: 1, invalidations: 3 });
  });

  test("a lease waits for all that was pushed before the answer of its beat", async () => {
    await following();
    await pass(LEASE / 4);
    const before = memory.published;
    const keys = Array.from({ length: 50_000 }, (_, i) => `k${i}`);
    for (const key of keys) place.main.set(key, 1);
    client.last.push(...keys.map(name));
    client.last.answer();
    // Everything that follows from the answer, but no other task.
    for (let i = 0; i < 100; i++) await Promise.resolve();
    expect(memory.published).toBe(before);
    expect(place.main.get(keys.at(-1) as string)).toBe(1);
    await settle();
    expect(memory.published).toBeGreaterThan(before as number);
    expect(keys.filter((key) => place.main.has(key))).toEqual([]);
  });

  test("more than 100,000 keys that wait cost all values, at once", async () => {
    await following();
    await isGood();
    place.main.set("k", 1);
    place.main.set("other", 1);
    client.last.push(...Array.from({ length: 99_999 }, (_, i) => name(`x${i}`)), name("k"));
    expect(place.peek("other")).toBe(1);
    client.last.push(name("y"));
    expect([place.peek("k"), place.peek("other")]).toEqual([undefined, undefined]);
    await pass(LEASE / 4);
    client.last.answer();
    await settle();
    expect(await isGood()).toBe(true);
  });

  test("the server's time is never ahead of the server", async () => {
    const skew = 3_600_000;
    await following();
    const { last } = client;
    let worst = 0;
    let best = Infinity;
    for (const [there, back, step] of [
      [1, 1, 0],
      [1, 40, 0],
      [50, 1, 0],
      [0, 100, 0],
      [30, 30, -5000],
      [5, 80, 0],
      [200, 10, 9000],
      [90, 100, 0],
    ] as const) {
      // The server's clock is set.
      vi.setSystemTime(Date.now() + step);
      while (last.beats.length === 0) await pass(1);
      await pass(there);
      const time = Date.now() + skew;
      await pass(back);
      last.answer(time);
      await settle();
      await pass(5);
      const reader = new Memory(cache, "app:", LEASE, names);
      const behind = Date.now() + skew - (reader.serverNow() as number);
      expect(behind).toBeGreaterThanOrEqual(0);
      expect(behind).toBeLessThanOrEqual(there + back + 1);
      if (step === 0) [worst, best] = [Math.max(worst, behind), Math.min(best, behind)];
    }
    // A slow answer does not spoil what a quick one has shown.
    expect(best).toBeLessThan(2);
    expect(worst).toBeLessThan(101);
  });
});

describe("a listener that ends", () => {
  const ends: [why: string, end: () => void | Promise<void>][] = [
    ["the connection is lost", () => client.last.lose()],
    ["a beat fails", () => client.last.beats.shift()?.reject(new Error("no master any more"))],
    ["a beat is never answered", () => pass(TIMEOUT + 500)],
  ];
  for (const [why, end] of ends) {
    test(`${why}: it is closed, and the next one begins with an epoch`, async () => {
      const owner = await following();
      await pass(LEASE / 4);
      await isGood();
      place.main.set("k", 1);
      const { last } = client;
      const events = { ...last.events };
      expect(last.beats).toHaveLength(1);
      await end();
      await settle();
      expect(last.isClosed).toBe(true);
      expect(client.listeners).toHaveLength(2);
      expect(owner.report()).toMatchObject({ state: "connecting", epochs: 1, error: expect.any(String) });
      // What the old one still says is not heard.
      place.main.set("late", 1);
      events.onChanged([name("late")]);
      events.onEnd(new Error("again"));
      expect(place.main.get("late")).toBe(1);
      client.last.accept();
      await settle();
      expect([place.main.get("k"), place.main.get("late")]).toEqual([undefined, undefined]);
      const sent = machineTime();
      client.last.answer();
      await settle();
      expect(memory.published).toBe(sent);
      expect(owner.report()).toMatchObject({ state: "following", epochs: 2 });
      expect(owner.report()).not.toHaveProperty("error");
      expect(client.open).toBe(1);
    });
  }

  test("after its end nothing renews the lease, also not an answer that was on its way", async () => {
    await following();
    await pass(LEASE / 4);
    const before = memory.published;
    const [beat] = client.last.beats.splice(0);
    beat?.resolve(Date.now());
    client.last.lose();
    await settle();
    expect(memory.published).toBe(before);
  });

  test("between two beats it is noticed at once", async () => {
    await following();
    await pass(10);
    client.last.lose();
    await settle();
    expect(client.listeners).toHaveLength(2);
  });

  test("the server is away: it is asked at once, then ever more rarely", async () => {
    const owner = await following();
    client.last.lose();
    const times: number[] = [];
    const end = machineTime() + 30_000;
    await settle();
    for (let known = 1; machineTime() < end; await pass(1)) {
      if (client.listeners.length === known) continue;
      known++;
      times.push(machineTime());
      client.last.refuse();
    }
    const waits = times.slice(1).map((time, i) => time - (times[i] as number));
    const wanted = [50, 100, 200, 400, 800, 1600, ...Array.from({ length: waits.length }, () => 2000)];
    for (const [i, wait] of waits.entries()) {
      expect(wait).toBeGreaterThanOrEqual((wanted[i] as number) / 2);
      expect(wait).toBeLessThanOrEqual((wanted[i] as number) + 3);
    }
    expect(times.length).toBeGreaterThan(18);
    expect(times.length).toBeLessThan(40);
    // It is not silent meanwhile.
    expect(owner.report()?.age).toBeLessThanOrEqual(LEASE / 4);
    expect(owner.report()).toMatchObject({ state: "connecting", error: "refused" });
  });

  test("one that comes and goes is not opened all the time", async () => {
    await following();
    const end = machineTime() + 20_000;
    while (machineTime() < end) {
      if (!client.last.isClosed && !client.last.isOpen) {
        client.last.accept();
        await settle();
        client.last.answer();
        await settle();
        client.last.lose();
      }
      await pass(1);
    }
    expect(client.listeners.length).toBeLessThan(30);
    // One that lasts makes up for that.
    while (client.last.isClosed) await pass(1);
    client.last.accept();
    for (let i = 0; i < 30; i++) {
      await pass(LEASE / 4);
      if (client.last.beats.length > 0) client.last.answer();
    }
    const { length } = client.listeners;
    client.last.lose();
    await settle();
    expect(client.listeners).toHaveLength(length + 1);
  });

  test("a client that never answers `listen` is asked again, and what it opens later is closed", async () => {
    participant();
    await settle();
    const [first] = client.listeners;
    await pass(TIMEOUT + 499);
    expect(client.listeners).toHaveLength(1);
    await pass(1);
    expect(client.listeners).toHaveLength(2);
    first?.accept();
    await settle();
    expect(first?.isClosed).toBe(true);
    expect(client.last.isClosed).toBe(false);
  });

  test("a listener that cannot be closed keeps nobody waiting for long", async () => {
    await following();
    client.last.closing = new Promise(() => {});
    client.last.lose();
    await pass(TIMEOUT + 500);
    expect(client.listeners).toHaveLength(2);
  });

  test("it ends before it is open", async () => {
    participant();
    await settle();
    const [first] = client.listeners;
    first?.events.onEnd(new Error("gone"));
    await settle();
    expect(client.listeners).toHaveLength(2);
    first?.accept();
    await settle();
    expect(first?.isClosed).toBe(true);
  });
});

describe("participants that are in the way", () => {
  test("of a lease: the next beat renews it", async () => {
    const owner = participant();
    await settle();
    client.last.accept();
    await settle();
    const set = vi.spyOn(Object.getPrototypeOf(cache), "set").mockImplementation(() => {
      throw new CacheError("ERR_BUSY", "in the way");
    });
    client.last.answer();
    await settle();
    expect(memory.published).toBe(undefined);
    await pass(LEASE / 4);
    set.mockRestore();
    const sent = machineTime();
    client.last.answer();
    await settle();
    expect(memory.published).toBe(sent);
    await pass(LEASE / 4);
    expect(owner.report()?.beats).toBe(2);
  });
});

describe("election", () => {
  test("one of many owns, and the next one follows when it is closed", async () => {
    client.isPrompt = true;
    const all = Array.from({ length: 5 }, () => participant());
    for (let left = 5; left > 0; left--) {
      await pass(STAND);
      const owning = all.filter(({ owns }) => owns);
      expect(owning).toHaveLength(1);
      expect(client.open).toBe(1);
      expect(await isGood()).toBe(true);
      expect(owning[0]?.report()).toMatchObject({
        state: "following",
        epochs: 6 - left,
        pid: process.pid,
        threadId: 0,
      });
      await owning[0]?.close();
      expect([owning[0]?.owns, client.open]).toEqual([false, 0]);
      // The lease of an owner that has gone stands.
      expect(memory.isGood).toBe(true);
    }
    await pass(LEASE);
    expect(memory.isGood).toBe(false);
  });

  test("the lock belongs to the prefix", async () => {
    client.isPrompt = true;
    const one = participant();
    const others = new Names("other:");
    const two = new Owner(new Memory(cache, "other:", LEASE, others), client, others, {
      lease: LEASE,
      timeout: TIMEOUT,
    });
    owners.push(two);
    two.start();
    await settle();
    expect([one.owns, two.owns]).toEqual([true, true]);
  });

  test("an owner that cannot reach the server is not silent, and keeps the lock", async () => {
    const owner = participant();
    const other = participant();
    await settle();
    for (let i = 0; i < 100; i++) {
      if (!client.last.opened.isSettled) client.last.refuse();
      await pass(100);
      expect([owner.owns, other.owns]).toEqual([true, false]);
    }
  });

  test("an owner that is silent for more than two leases loses the lock to one of the others", async () => {
    client.isPrompt = true;
    // It holds the lock and says nothing, as one whose thread is frozen.
    const hold = new Deferred<void>();
    const frozenOwner = memory.control.locks.request("owner", () => hold.promise).catch((error) => error.name);
    await settle();
    const states: string[] = [];
    const others = Array.from({ length: 4 }, () => participant({ onState: (state) => states.push(state) }));
    await pass(2 * LEASE);
    expect(client.listeners).toHaveLength(0);
    await pass(2 * STAND);
    expect(await frozenOwner).toBe("AbortError");
    expect(others.filter(({ owns }) => owns)).toHaveLength(1);
    await pass(10 * LEASE);
    // Nobody has stolen it from the thief.
    expect(states).toEqual(["connecting", "following"]);
    expect(client.listeners).toHaveLength(1);
    hold.resolve();
  });

  test("one that wakes after a theft gives way as soon as it would report, and whatever a damaged report says, it owns again", async () => {
    client.isPrompt = true;
    const owner = participant();
    await pass(LEASE);
    const [first] = client.listeners;
    const report = JSON.parse(memory.control.get("owner"));
    memory.control.set("owner", JSON.stringify({ ...report, threadId: 77, fence: 1e15 }));
    await pass(LEASE / 4 + 1);
    expect(first?.isClosed).toBe(true);
    // Its report has not replaced the other one until it has won the lock anew.
    await pass(STAND);
    expect([owner.owns, owner.report()?.threadId]).toEqual([true, 0]);
    await pass(10 * LEASE);
    expect(client.listeners).toHaveLength(2);
    expect(owner.report()).not.toHaveProperty("fence");
  });

  test("with a short lease an owner may be silent for a second", async () => {
    client.isPrompt = true;
    const hold = new Deferred<void>();
    const theft = memory.control.locks.request("owner", () => hold.promise).catch(() => {});
    await settle();
    const other = participant({}, client, 50);
    await pass(1000);
    expect(other.owns).toBe(false);
    await pass(2 * STAND);
    expect(other.owns).toBe(true);
    hold.resolve();
    await theft;
  });

  test("a participant with a shorter lease waits as long as the owner's lease demands", async () => {
    client.isPrompt = true;
    const slow = participant({}, client, 10_000);
    await settle();
    const quick = participant({}, client, 100);
    await pass(60_000);
    expect([slow.owns, quick.owns, client.listeners.length]).toEqual([true, false, 1]);
  });

  test("a stolen lock ends the reign at once, also while it connects, beats or waits", async () => {
    for (const stage of ["listen", "beat", "pause", "retry"]) {
      const owner = participant();
      await settle();
      if (stage !== "listen") client.last.accept();
      await settle();
      if (stage === "pause" || stage === "retry") client.last.answer();
      await settle();
      if (stage === "retry") {
        client.last.lose();
        await settle();
        client.last.refuse();
        await settle();
      }
      const mine = client.last;
      const hold = new Deferred<void>();
      const theft = memory.control.locks.request("owner", { steal: true }, () => hold.promise);
      await pass(5);
      if (stage === "listen") {
        mine.accept();
        await settle();
      }
      expect([stage, owner.owns, mine.isOpen]).toEqual([stage, false, false]);
      const before = memory.published;
      for (const beat of mine.beats) beat.resolve(Date.now());
      await settle();
      expect(memory.published).toBe(before);
      hold.resolve();
      await theft;
      await owner.close();
    }
  });

  test("a participant that was frozen itself does not take the time for silence of the owner", async () => {
    client.isPrompt = true;
    const owner = participant();
    await settle();
    const other = participant();
    await pass(STAND);
    for (let i = 0; i < 10; i++) {
      // The machine's clock goes on, and no timer fires.
      frozen.ms += 10 * LEASE;
      await pass(2 * STAND);
      expect([owner.owns, other.owns]).toEqual([true, false]);
    }
    expect(client.listeners).toHaveLength(1);
  });
});

describe("closing", () => {
  test("ends everything at each stage, and may be called twice", async () => {
    for (const stage of ["new", "standing", "listen", "beat", "pause", "retry"]) {
      let before: Owner | undefined;
      if (stage === "standing") before = await following();
      const owner = participant();
      if (stage !== "new") await settle();
      const { length } = client.listeners;
      if (stage === "beat" || stage === "pause" || stage === "retry") {
        client.last.accept();
        await settle();
      }
      if (stage === "pause") client.last.answer();
      if (stage === "retry") {
        client.last.lose();
        await settle();
        client.last.refuse();
      }
      if (stage !== "new") await settle();
      const mine = client.listeners[length - 1];
      let isClosed = false;
      const closing = Promise.all([owner.close(), owner.close()]).then(() => (isClosed = true));
      await settle();
      if (stage === "listen") {
        // What is being opened cannot be taken back, so it waits, and closes it.
        expect(isClosed).toBe(false);
        mine?.accept();
        await settle();
      }
      expect([stage, isClosed]).toEqual([stage, true]);
      await closing;
      if (stage !== "standing") expect([stage, client.open]).toEqual([stage, 0]);
      await owner.close();
      await before?.close();
    }
  });

  test("of a client that never opens anything takes no longer than its timeout", async () => {
    const owner = participant();
    await settle();
    let isClosed = false;
    void owner.close().then(() => (isClosed = true));
    await pass(TIMEOUT + 500);
    expect(isClosed).toBe(true);
  });

  test("of the cache underneath ends it quietly at each stage", async () => {
    for (const stage of ["standing", "listen", "beat", "pause", "push"]) {
      const own = seeded(2, () => createCache({ size: "1MiB" }));
      const ownMemory = new Memory(own, "app:", LEASE, names);
      const owner = new Owner(ownMemory, client, names, { lease: LEASE, timeout: TIMEOUT });
      const hold = new Deferred<void>();
      const lock = stage === "standing" ? ownMemory.control.locks.request("owner", () => hold.promise) : undefined;
      lock?.catch(() => {});
      owner.start();
      await settle();
      const mine = stage === "standing" ? undefined : client.last;
      if (stage !== "standing" && stage !== "listen") mine?.accept();
      await settle();
      if (stage === "pause" || stage === "push") mine?.answer();
      await settle();
      own.close();
      if (stage === "push") mine?.push(name("k"));
      if (stage === "listen") mine?.accept();
      await pass(STAND);
      expect([stage, owner.owns, client.open]).toEqual([stage, false, 0]);
      await owner.close();
      expect(() => owner.report()).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    }
  });

  test("before it stands, and after the cache", async () => {
    const idle = new Owner(memory, client, names, { lease: LEASE, timeout: TIMEOUT });
    await idle.close();
    idle.start();
    await pass(STAND);
    expect([idle.owns, client.listeners.length]).toEqual([false, 0]);
  });
});

describe("the report", () => {
  test("goes on from the counts of the owner before", async () => {
    client.isPrompt = true;
    const first = participant();
    await pass(LEASE);
    client.last.push(name("a"), name("b"));
    await pass(LEASE / 4);
    const before = first.report();
    expect(before).toMatchObject({ epochs: 1, invalidations: 2 });
    expect(before?.beats).toBeGreaterThanOrEqual(4);
    await first.close();
    expect(first.report()).toMatchObject({ state: "following" });
    const second = participant();
    await pass(LEASE);
    expect(second.report()).toMatchObject({ epochs: 2, invalidations: 2, roundTrip: 0 });
    expect(second.report()?.beats).toBeGreaterThan(before?.beats as number);
    expect(first.report()).toEqual(second.report());
  });

  test("is none when there is none, or when it is damaged", async () => {
    const owner = participant();
    expect(owner.report()).toBe(undefined);
    await settle();
    expect(owner.report()).toMatchObject({ state: "connecting", age: 0 });
    const good = JSON.parse(memory.control.get("owner"));
    for (const value of [
      1,
      null,
      "",
      "{",
      "null",
      "[]",
      JSON.stringify({ ...good, state: "king" }),
      JSON.stringify({ ...good, at: "x" }),
      JSON.stringify({ ...good, lease: null }),
      JSON.stringify({ ...good, error: {} }),
    ]) {
      memory.control.set("owner", value);
      expect(owner.report(), JSON.stringify(value)).toBe(undefined);
    }
    await pass(LEASE / 4);
    expect(owner.report()).toMatchObject({ state: "connecting" });
  });
});
