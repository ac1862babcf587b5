/**
 * For tests in virtual time. A test file calls `virtualTime()` within `vi.hoisted`, before the modules under test are loaded, since they
 * keep the timers and clocks that are there when they are loaded. From then on time passes only by {@link pass}.
 */

import { vi } from "vitest";

/** Lets milliseconds of virtual time pass, with everything that happens in them. */
export async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

/** Lets everything happen that needs no time. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await vi.advanceTimersByTimeAsync(0);
}

/** A promise that the test settles. */
export class Deferred<T> {
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;
  isSettled = false;
  readonly promise: Promise<T> = new Promise((resolve, reject) => {
    this.resolve = (value) => {
      this.isSettled = true;
      resolve(value);
    };
    this.reject = (error) => {
      this.isSettled = true;
      reject(error);
    };
  });
}

/** Numbers in [0, 1) that follow from the seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
