/**
 * Proof of death in a browser: each thread holds a Web Lock, named by its token, from its first board on and for as long as
 * it lives. The browser takes the lock from a worker that was terminated and from a page that is gone. The thread that gets the
 * lock then clears the token from the boards. That is proof for all threads, also for a thread whose event loop is busy.
 *
 * A free lock alone proves nothing, because a new thread gets its lock later than its seat. A thread is proved dead only if it
 * was seen with its lock and then without it. So each thread announces its arrival, and all threads watch it from then on.
 *
 * A terminated worker is therefore noticed a moment later, by every thread that has the cache open and whose event loop is
 * free. A lock is granted between two tasks. So a worker that is terminated in the task in which it opened its first cache, or
 * a few milliseconds after it, counts as alive. So does every thread where there are no Web Locks.
 *
 *     token = a random negative number
 */

import { clearFromBoards, openBoards, type ThreadIdentity } from "./identity.ts";

/** Milliseconds between two polls of a thread that was not seen with its lock yet: the first wait, and the longest. */
const FIRST_POLL_MS = 4;
const LAST_POLL_MS = 1000;

/** The identity of the calling thread. It can prove no death where the page may not use locks. */
export function browserThread(): ThreadIdentity {
  const random = crypto.getRandomValues(new BigInt64Array(1))[0] as bigint;
  const token = random < 0n ? random : -1n - random;
  const locks = globalThis.navigator?.locks;
  if (locks === undefined) return { token, provesDead: () => false };

  const nameOf = (other: bigint): string => `cache-machine thread ${-other}`;
  const watched = new Set<bigint>();
  const dead = new Set<bigint>();

  /** Whether that thread has its lock or waits for it: no other thread ever requests that lock in exclusive mode. */
  const isHeld = (other: bigint): Promise<boolean> =>
    locks.request(nameOf(other), { mode: "shared", ifAvailable: true }, (lock) => lock === null);

  const watch = async (other: bigint): Promise<void> => {
    if (other >= 0n || other === token || watched.has(other)) return;
    watched.add(other);
    try {
      for (let wait = FIRST_POLL_MS; !(await isHeld(other)); wait = Math.min(2 * wait, LAST_POLL_MS)) {
        await new Promise((resolve) => setTimeout(resolve, wait));
        if (![...openBoards].some((tokens) => tokens.includes(other))) {
          watched.delete(other);
          return;
        }
      }
      await locks.request(nameOf(other), { mode: "shared" }, () => {});
      dead.add(other);
      clearFromBoards(other);
    } catch {
      // This page may not use locks, so no death can be proved.
    }
  };

  let arrivals: BroadcastChannel;
  try {
    arrivals = new BroadcastChannel("cache-machine arrivals");
  } catch {
    // A page that may not use this channel may not use locks either.
    return { token, provesDead: () => false };
  }
  arrivals.onmessage = () => {
    for (const tokens of openBoards) for (const other of tokens) void watch(other);
  };
  // Held until this thread ends: the promise never settles.
  locks.request(nameOf(token), () => new Promise(() => {})).catch(() => {});
  return {
    token,
    announce: () => arrivals.postMessage(null),
    provesDead(other) {
      void watch(other);
      return dead.has(other);
    },
  };
}
