/**
 * Tests what happens to loads when participants die, freeze, block or leave, in both reaches, and that of many calls at once only
 * one loads. What `getOrSet` promises while nobody dies is part of the conformance suite: test/contract/load-checks.ts.
 */

import { fork } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import type { Cache, LoadContext } from "cache-machine";
import { afterEach, describe, expect, test } from "vitest";
import { destroyCache, openCache } from "../host/apart.mjs";
import { type Failure, inTime, type Peer, Stage } from "./peers.ts";

const REACHES = ["threads", "processes"] as const;
let stages = 0;
let stage: Stage | undefined;

async function on(reach: "threads" | "processes", peers: number): Promise<[Cache, ...Peer[]]> {
  stage = new Stage(reach, `t-${process.pid}-flights-${stages++}`);
  return [stage.cache, ...(await stage.peers(peers))];
}

afterEach(async () => {
  await stage?.end();
  stage = undefined;
});

/** A loader that must not run. */
const never = (): never => {
  throw new Error("this loader must not run");
};

/** Waits until something is so. */
async function until(reached: () => boolean, what: string): Promise<void> {
  for (const since = Date.now(); !reached(); ) {
    if (Date.now() - since > 20_000) throw new Error(`timeout: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

describe.each(REACHES)("in reach %s", (reach) => {
  test("a call waits for the load of another participant, and gets its value without loading", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    const third = cache.getOrSet("key", never);
    await guest.arrived();
    await owner.finish(first, { n: 1 });
    expect(await Promise.all([first.value, second.value, inTime(third, "the third")])).toEqual([
      { n: 1 },
      { n: 1 },
      { n: 1 },
    ]);
    expect(second.hasLoaded).toBe(false);
  });

  test("a call elsewhere gets ERR_LOAD_FAILED with the name and the message of the loader's error, and loads nothing", async () => {
    const [, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    await owner.finish(first, undefined, "away");
    expect(((await first.value.catch((error) => error)) as Failure).message).toBe("away");
    const failure = (await second.value.catch((error) => error)) as Failure;
    expect(failure).toMatchObject({ code: "ERR_LOAD_FAILED", cause: { name: "TestError", message: "away" } });
    expect(second.hasLoaded).toBe(false);
  });

  test("Key stuck when the leader dies (golang/groupcache #139): after a kill in the loader the next one who waits loads", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key", { lease: 1e9 });
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    let loads = 0;
    const third = cache.getOrSet("key", () => {
      loads++;
      return "by the third";
    });
    await owner.kill();
    // One of the two who wait loads.
    await Promise.race([second.loading, inTime(third, "the third")]);
    if (second.hasLoaded) await guest.finish(second, "by the second");
    const values = await Promise.all([second.value, inTime(third, "the third")]);
    expect(values[0]).toBe(values[1]);
    expect(loads + Number(second.hasLoaded)).toBe(1);
  });

  test("a call that comes after the death of an owner for whom nobody waited loads at once", async () => {
    const [cache, owner] = await on(reach, 1);
    await owner.getOrSet("key", { lease: 1e9 }).loading;
    await owner.kill();
    expect(
      await inTime(
        cache.getOrSet("key", () => "mine"),
        "the load",
      ),
    ).toBe("mine");
  });

  test("after the owner has closed the cache or left during its load, one who waits loads", async () => {
    const [cache, owner] = await on(reach, 1);
    await owner.getOrSet("key", { lease: 1e9 }).loading;
    const waiting = cache.getOrSet("key", () => "mine");
    await owner.leave();
    expect(await inTime(waiting, "the load")).toBe("mine");
  });

  test("Leases of 30 s (lua-resty-lock, Redisson): a load that takes many leases is not replaced", async () => {
    const [cache, owner] = await on(reach, 1);
    const first = owner.getOrSet("key", { lease: 60 });
    await first.loading;
    const waiting = cache.getOrSet("key", never, { lease: 60 });
    await new Promise((resolve) => setTimeout(resolve, 400));
    await owner.finish(first, "slow");
    expect(await inTime(waiting, "the slow value")).toBe("slow");
  });

  test("an owner whose event loop is blocked for longer than its lease is replaced, and its late result is refused", async () => {
    const [cache, owner] = await on(reach, 1);
    const first = owner.getOrSet("key", { lease: 50 });
    await first.loading;
    const blocked = owner.block(1000);
    expect(
      await inTime(
        cache.getOrSet("key", () => "replaced"),
        "the replacement",
      ),
    ).toBe("replaced");
    await blocked;
    await owner.finish(first, "late");
    // Who called the loader that was replaced gets what it has loaded.
    expect(await first.value).toBe("late");
    expect(cache.get("key")).toBe("replaced");
  });

  test("a change by any participant overtakes the load of any other: those who waited get the value, and it is not stored", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    cache.delete("key");
    const later = cache.getOrSet("key", () => "new");
    expect(await inTime(later, "a load of its own")).toBe("new");
    await owner.finish(first, "overtaken");
    expect(await Promise.all([first.value, second.value])).toEqual(["overtaken", "overtaken"]);
    expect(await guest.call("get", "key")).toBe("new");
  });

  test("those who wait for an overtaken load go on when its owner dies", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key", { lease: 1e9 });
    await first.loading;
    const second = guest.getOrSet("key");
    await guest.arrived();
    cache.set("key", "set");
    await owner.kill();
    expect(await second.value).toBe("set");
    expect(second.hasLoaded).toBe(false);
  });

  test("many calls of one key by four participants run the loader once, and all get its value", async () => {
    const [cache, ...peers] = await on(reach, 4);
    const results = await Promise.all(peers.map((peer) => peer.crowd("key", 500, 50)));
    expect(new Set(results.flat()).size).toBe(1);
    expect(cache.get("loads")).toBe(1);
  });

  test("a participant that dies while it waits leaves nothing in the way of others", async () => {
    const [cache, owner, guest] = await on(reach, 2);
    const first = owner.getOrSet("key");
    await first.loading;
    guest.getOrSet("key");
    await guest.arrived();
    await guest.kill();
    await owner.finish(first, "value");
    expect(await first.value).toBe("value");
    expect(cache.get("key")).toBe("value");
    expect(
      await inTime(
        cache.getOrSet("other", () => 1),
        "another key",
      ),
    ).toBe(1);
  });
});
