/**
 * Tests that locks and waits survive whatever happens to a participant at a random moment: it is killed, frozen, terminated, closes
 * the cache, or its lock is stolen. `RANDOM_SEED=7 npx vitest run test/coordinate/random.test.ts` replays the random choices.
 */

import { type Cache, destroyCache, openCache } from "cache-machine";
import { afterEach, expect, test } from "vitest";
import { generator } from "../crash/checked-values.mjs";
import { endOthers, inTime, type Other, sleep, startProcess, startThread, until } from "./others.ts";

const seed = Number(process.env.RANDOM_SEED ?? Math.floor(Math.random() * 1e9));
const NAME = `t-${process.pid}-random`;
let cache: Cache | undefined;

afterEach(async () => {
  await endOthers();
  cache?.close();
  destroyCache(NAME);
});

/** Takes and gives back locks, waits for and stores values, for ever. Never two in one section of the lock with the same fence. */
function work(cache: Cache, id: number): void {
  const state = globalThis as { sections?: number; problem?: string };
  state.sections = 0;
  const section = async ({ fence, signal }: { fence: number; signal: AbortSignal }): Promise<void> => {
    // A holder that was robbed may begin late, and write late: a theft came after its fence.
    const isRobbed = (fence: number): boolean => ((cache.get("latest theft") as number | undefined) ?? 0) > fence;
    const inside = cache.get("inside") as { fence: number; id: number } | undefined;
    if (inside !== undefined && inside.fence >= fence && !isRobbed(fence)) {
      state.problem = `${fence} came after ${inside.fence}`;
    }
    cache.set("inside", { fence, id });
    if (Math.random() < 0.2) await new Promise((resolve) => setTimeout(resolve, 1));
    // Who was not robbed is still the one.
    const now = cache.get("inside") as { fence: number; id: number };
    if (now.fence > fence || (now.fence < fence && !isRobbed(now.fence))) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (!signal.aborted) state.problem = `${now.id} was inside with ${now.fence}, and ${id} with ${fence}`;
    }
    cache.set(`value ${fence}`, fence);
    cache.set("latest", fence);
    state.sections = (state.sections as number) + 1;
  };
  let closed = false;
  const ignore = (error: Error & { code?: string }): void => {
    if (error.code === "ERR_CLOSED") closed = true;
    if (error.name !== "AbortError" && error.code !== "ERR_CLOSED" && error.code !== "ERR_TIMEOUT") {
      state.problem = `${error.stack}`;
    }
  };
  void (async () => {
    while (!closed) {
      const options = Math.random() < 0.1 ? { timeout: 3 } : {};
      await cache.locks.request("a", options, section).catch(ignore);
      if (Math.random() < 0.1) await new Promise(setImmediate);
    }
  })().catch(ignore);
  void (async () => {
    for (let version = 0; !closed; ) {
      await cache.waitFor("latest", { version }).catch(ignore);
      if (!closed) version = cache.getEntry("latest")?.version ?? 0;
    }
  })().catch(ignore);
}

test("after 60 random ends and freezes and thefts the lock still goes round, its fences grow, and nobody waits for ever", {
  timeout: 180_000,
}, async () => {
  console.log(`RANDOM_SEED=${seed}`);
  const random = generator(seed);
  cache = openCache(NAME, { size: "4mb" });
  const here = cache;
  /** Steals the lock, and leaves the fence of the theft. */
  const steal = (): Promise<number> =>
    here.locks.request("a", { steal: true }, ({ fence }) => {
      here.set("latest theft", fence);
      return fence;
    });
  const start = (): Other => {
    const other = random.below(2) === 0 ? startProcess(NAME) : startThread(here.handle);
    void other.run(work, random.below(1000)).catch(() => {});
    return other;
  };
  const others = Array.from({ length: 4 }, start);
  const frozen = new Set<Other>();
  /**
   * Waits for the lock. Who was frozen in the middle of a change of the lock's bucket keeps all from it, also a thief, until it is
   * thawed: see frozen.test.ts.
   */
  const patiently = <T>(got: Promise<T>, what: string): Promise<T> => {
    const thawing = setTimeout(() => {
      for (const each of frozen) each.thaw();
      frozen.clear();
    }, 5_000);
    return inTime(got, what).finally(() => clearTimeout(thawing));
  };
  const done: Record<string, number> = {};
  for (let round = 0; round < 60; round++) {
    await sleep(random.below(40));
    const at = random.below(others.length);
    const other = others[at] as Other;
    const isProcess = "pid" in other.side;
    const what = (["end", "end", "close", "freeze", "steal"] as const)[random.below(5)] as string;
    done[what] = (done[what] ?? 0) + 1;
    if (what === "steal") {
      const fence = await patiently(steal(), "the theft");
      expect(fence).toBeGreaterThan(0);
    } else if (what === "freeze" && isProcess && frozen.size < 2) {
      await other.freeze();
      frozen.add(other);
    } else {
      if (frozen.delete(other)) other.thaw();
      if (what === "close")
        await inTime(
          other.run((cache) => cache.close()),
          "it closes",
        ).catch(() => {});
      await other.kill();
      others[at] = start();
    }
    for (const each of frozen) {
      if (random.below(3) !== 0) continue;
      each.thaw();
      frozen.delete(each);
    }
    // A frozen holder keeps the lock; a theft gets it back.
    await patiently(
      frozen.size > 0 ? steal() : here.locks.request("a", () => {}),
      `the lock in round ${round} (${what})`,
    );
  }
  for (const each of frozen) each.thaw();
  console.log(JSON.stringify(done));
  // All who live work on.
  for (const other of others) {
    const sections = (): Promise<[number, string]> =>
      inTime(
        other.run(() => {
          const { sections, problem } = globalThis as { sections?: number; problem?: string };
          return [sections ?? 0, problem ?? "none"] as [number, string];
        }),
        "it answers",
      );
    const [before] = await sections();
    await inTime(
      (async () => {
        while ((await sections())[0] < before + 3) await sleep(5);
      })(),
      "it goes on",
    );
    expect((await sections())[1]).toBe("none");
  }
  await endOthers();
  await until(() => here.locks.query().held.length + here.locks.query().pending.length === 0, "nothing is left");
});
