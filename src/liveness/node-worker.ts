/**
 * Proof of death in Node.js without procfs: Node.js reports the end of a worker to the thread that started it, and that
 * thread clears the worker's token from its boards. So the proof comes a moment later, and only for workers that a thread
 * started after it opened the cache and while it has the cache open. A worker whose end nobody reports counts as alive.
 *
 *     token = -1 - threadId
 */

import { clearFromBoards, type ThreadIdentity } from "./identity.ts";

/** The identity of the calling thread, by its `threadId`, which a process never uses twice; `undefined` without Node.js. */
export function nodeWorker(): ThreadIdentity | undefined {
  const threads = globalThis.process?.getBuiltinModule?.("node:worker_threads");
  if (threads === undefined) return undefined;
  const tokenOf = (threadId: number): bigint => -1n - BigInt(threadId);

  process.on("worker", (worker) => {
    // Read now: a worker that has ended does not tell its id any more.
    const token = tokenOf(worker.threadId);
    worker.once("exit", () => clearFromBoards(token));
  });
  return { token: tokenOf(threads.threadId), provesDead: () => false };
}
