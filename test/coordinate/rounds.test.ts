/**
 * Under fire: several participants call `getOrSet` for the same key at once, and at a random instant one of them is killed, frozen,
 * terminated or leaves. Never do two living loaders of the key run at the same time, but for a frozen one that was replaced; every
 * call of a participant that is left gets a value; and each value is one that a loader has returned.
 *
 * `ROUNDS` says how many rounds, 12 for each reach by default; `SEED` replays the choices.
 */

import { describe, expect, test } from "vitest";
import { generator } from "../crash/checked-values.mjs";
import { inTime, type LoadEvent, type Peer, Stage } from "./peers.ts";

const ROUNDS = Number(process.env.ROUNDS ?? 12);
const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
console.log(`rounds: SEED=${SEED} ROUNDS=${ROUNDS}`);
/** Longer than a busy machine lets a process wait for a processor, because then a loader that lives is rightly replaced. */
const LEASE_MS = 600;
/** Clocks of two processes are read at different instants of the same call. */
const SLACK_MS = 0.5;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const machineTime = (): number => Number(process.hrtime.bigint()) / 1e6;

describe.each(["threads", "processes"] as const)("in reach %s", (reach) => {
  const fates = reach === "threads" ? ["kill", "leave", "nothing"] : ["kill", "freeze", "leave", "nothing"];

  test("whatever happens to a participant at a random instant, one living loader runs at a time and every call gets its value", {
    timeout: 60_000 + ROUNDS * 5_000,
  }, async () => {
    const { random } = generator(SEED);
    const stage = new Stage(reach, `t-${process.pid}-rounds`);
    try {
      let peers = await stage.peers(3);
      for (let round = 0; round < ROUNDS; round++) {
        const key = `round ${round}`;
        const loads = new Map<string, LoadEvent & { peer: Peer }>();
        for (const peer of peers) {
          peer.onLoad = (load) => loads.set(load.id, { peer, ...loads.get(load.id), ...load });
        }
        const calls = peers.map((peer) => {
          const values = peer.race(key, 3, random() * 20, LEASE_MS);
          values.catch(() => {});
          return { peer, values };
        });
        await sleep(random() * 15);
        const fate = fates[Math.floor(random() * fates.length)];
        const victim = peers[Math.floor(random() * peers.length)] as Peer;
        const context = `SEED=${SEED}, round ${round}: ${fate}`;
        /** From when on a load of the victim is no living load any more. */
        let gone = Infinity;
        if (fate === "kill") {
          gone = machineTime();
          await victim.kill();
        } else if (fate === "leave") {
          gone = machineTime();
          await victim.leave();
        } else if (fate === "freeze") {
          victim.signal("SIGSTOP");
          gone = machineTime() + LEASE_MS / 2;
          await sleep(2 * LEASE_MS);
        }
        const isLost = fate === "kill" || fate === "leave";
        const others = calls.filter(({ peer }) => peer !== victim);
        const values = (await inTime(Promise.all(others.map(({ values }) => values)), context)).flat();
        if (fate === "freeze") victim.signal("SIGCONT");
        if (!isLost) values.push(...(await (calls.find(({ peer }) => peer === victim) as (typeof calls)[0]).values));
        for (const { id, text } of values) {
          expect(text, context).toBe(id.repeat(50));
          expect(loads.get(id), context).toBeDefined();
        }
        const present = (await peers.find((peer) => peer !== victim)?.call("get", key)) as { id: string };
        expect(present, context).toBeDefined();
        const intervals = [...loads.values()].map(({ id, peer, began, ended = Infinity }) => ({
          id,
          began: began as number,
          ended: peer === victim ? Math.min(ended, gone) : ended,
        }));
        intervals.sort((a, b) => a.began - b.began);
        for (const [i, { began, id }] of intervals.entries()) {
          const before = intervals[i - 1];
          if (before !== undefined)
            expect(began + SLACK_MS, `${context}: ${id} after ${before.id}`).toBeGreaterThan(before.ended);
        }
        if (isLost) peers = [...peers.filter((peer) => peer !== victim), ...(await stage.peers(1))];
      }
    } finally {
      await stage.end();
    }
  });
});
