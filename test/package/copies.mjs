/**
 * Two copies of the package in one thread, or one copy in each of two processes: what they have to do together in the cache `name`.
 * Fails with an AssertionError that says what they did not do.
 */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

/** What a promise gives, or an error when it takes too long. */
function soon(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not at an end after 10 s`)), 10_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A function that is called by loaders, and counts its calls. */
function source(answer) {
  const load = async () => {
    load.calls++;
    // The other copy asks in this time.
    await sleep(30);
    return answer();
  };
  load.calls = 0;
  return load;
}

/**
 * Uses a cache through two copies of the package in this thread. Both stay open.
 *
 * @param {typeof import("cache-machine")} one
 * @param {typeof import("cache-machine")} other
 * @param {string} name of the cache
 */
export async function together(one, other, name) {
  assert.notEqual(one.openCache, other.openCache, "they are one copy");
  const options = { size: "1mb", nearCache: 100 };
  const [a, b] = [one.openCache(name, options), other.openCache(name, options)];

  for (const load of [source(() => ({ x: 1 }))]) {
    const all = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? a : b).getOrSet("loaded", load));
    assert.deepEqual(await soon(Promise.all(all), "loads"), new Array(20).fill({ x: 1 }));
    assert.equal(load.calls, 1, "both copies ran their loaders");
  }
  const undone = source(() => undefined);
  assert.deepEqual(
    await soon(Promise.all([a.getOrSet("undone", undone), b.getOrSet("undone", undone)]), "loads of nothing"),
    [undefined, undefined],
  );
  assert.equal(undone.calls, 1, "both copies ran their loaders, which found nothing");

  const failing = source(() => {
    throw new RangeError("the source is away");
  });
  const [first, second] = await soon(
    Promise.allSettled([a.getOrSet("failing", failing), b.getOrSet("failing", failing)]),
    "loads that fail",
  );
  assert.equal(failing.calls, 1);
  assert.equal(first.reason.message, "the source is away");
  assert.equal(second.reason.code, "ERR_LOAD_FAILED");
  for (const { CacheError } of [one, other]) assert.ok(second.reason instanceof CacheError);

  // What does not reach the shared memory, the other copy does not see.
  const large = source(() => "x".repeat(1e6));
  await soon(Promise.all([a.getOrSet("large", large), b.getOrSet("large", large)]), "loads that are too large");
  assert.equal(large.calls, 2);
  const circle = a.getOrSet("circle", () => b.getOrSet("circle", () => 1, { timeout: 30 }));
  await assert.rejects(soon(circle, "a load that waits for itself"), { code: "ERR_TIMEOUT" });

  for (const [waiting, writing] of [
    [a, b],
    [b, a],
  ]) {
    const waited = waiting.waitFor("waited");
    await sleep(1);
    writing.set("waited", 1);
    assert.equal(await soon(waited, "waitFor"), 1);
    writing.delete("waited");
  }

  const order = [];
  const inside = (mark) => async () => {
    order.push(mark);
    await sleep(5);
    order.push(mark);
  };
  const requests = [a, b, a, b].map((cache, i) => cache.locks.request("lock", inside(i)));
  await soon(Promise.all(requests), "locks");
  for (let i = 0; i < order.length; i += 2) assert.equal(order[i], order[i + 1], `two had the lock at once: ${order}`);
  await a.locks.request("lock", async () => {
    assert.equal(await b.locks.request("lock", { ifAvailable: true }, (lock) => lock), null);
    assert.deepEqual(
      b.locks.query().held.map((held) => held.name),
      ["lock"],
    );
  });

  // Both read through near caches, and each change of one is seen by the other at once.
  for (let i = 0; i < 2000; i++) {
    (i % 2 === 0 ? a : b).set("near", { i }, { tags: ["tag"] });
    assert.deepEqual([a.get("near"), b.get("near")], [{ i }, { i }]);
  }
  b.invalidateTag("tag");
  assert.deepEqual([a.get("near"), b.get("near")], [undefined, undefined]);
  for (let i = 0; i < 1000; i++) (i % 2 === 0 ? a : b).increment("counted");
  assert.equal(a.get("counted"), 1000);

  // Any value, also one that only one of them has decoded before.
  const value = { date: new Date(5), map: new Map([["a", Buffer.from("b")]]), error: new TypeError("t"), big: 1n };
  a.set("value", value);
  assert.deepEqual(b.get("value"), value);

  for (const [cache, { CacheError }] of [
    [a, other],
    [b, one],
  ]) {
    assert.throws(
      () => cache.set("large", "x".repeat(1e6)),
      (error) => {
        return error instanceof CacheError && error.code === "ERR_TOO_LARGE";
      },
    );
  }
  return { a, b, participants: a.stats().participants };
}

/** What is left when one of two copies in a thread has closed its cache. */
export function apart({ a, b }) {
  a.close();
  assert.throws(() => a.get("k"), { code: "ERR_CLOSED" });
  assert.equal(b.set("k", { still: 1 }).get("k").still, 1);
  b.close();
}
