/**
 * A call that is cut off by the end of the JavaScript stack gives up what it held of the engine. It must not give up what the thread
 * holds as a user: its locks, its loads and its waits.
 */

import { createCache } from "cache-machine";
import { expect, test } from "vitest";

/** Calls `act` with less and less of the stack left, until it fails, and then again with more and more. */
function atTheEndOfTheStack(act: () => void): { failed: number } {
  const counts = { failed: 0 };
  const dive = (): void => {
    try {
      dive();
    } catch {
      // The stack has ended.
    }
    try {
      act();
    } catch {
      counts.failed++;
    }
  };
  dive();
  return counts;
}

test("a lock, a load and a wait of a thread survive calls of the same thread that the end of the stack cuts off", async () => {
  const cache = createCache({ size: "1mb" });
  try {
    const waits = cache.waitFor("waited for", { timeout: 30_000 });
    let loads = 0;
    let finish = (_: string): void => {};
    const loading = cache.getOrSet("loaded", () => {
      loads++;
      return new Promise<string>((resolve) => {
        finish = resolve;
      });
    });
    await cache.locks.request("lock", async () => {
      // Many values, so that calls of all lengths are cut off in the engine.
      const large = "x".repeat(30_000);
      const { failed } = atTheEndOfTheStack(() => {
        cache.set("large", large);
        cache.set("small", 1);
        cache.increment("number");
        cache.delete("small");
      });
      expect(failed).toBeGreaterThan(10);
      const { held } = await cache.locks.query();
      expect(held.map(({ name }) => name)).toEqual(["lock"]);
      expect(await cache.locks.request("lock", { ifAvailable: true }, (lock) => lock)).toBe(null);
    });
    expect(await cache.locks.request("lock", { ifAvailable: true }, (lock) => lock !== null)).toBe(true);
    finish("value");
    expect(await loading).toBe("value");
    expect([cache.get("loaded"), loads]).toEqual(["value", 1]);
    cache.set("waited for", "there");
    expect(await waits).toBe("there");
  } finally {
    cache.close();
  }
});
