/**
 * Proof of death on Linux: the kernel is asked whether a thread still exists. It answers at once, also about nested workers.
 * Without Node.js, or where procfs cannot be read, there is no such proof.
 *
 *     token = thread id 22 bits | start time in clock ticks since boot 40 bits
 *
 * The start time tells a thread from a later one that got the same id.
 */

import { noDescriptor } from "../errors.ts";
import type { ThreadIdentity } from "./identity.ts";

const START_TIME_BITS = 40n;

/**
 * The identity of the calling thread, by its id and its start time; `undefined` where procfs cannot be read.
 *
 * @throws {CacheError} `ERR_NO_SPACE` when no file descriptor is left to read it.
 */
export function nativeThread(): ThreadIdentity | undefined {
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (fs === undefined) return undefined;

  /** The token of a thread of this process. Throws when the thread does not exist, and when procfs cannot be read. */
  const tokenOf = (tid: bigint): bigint => {
    const stat = fs.readFileSync(`/proc/self/task/${tid}/stat`, "latin1");
    // `tid (name) state …`: the name may hold anything, so the fields are counted from the last parenthesis.
    // Field 22 is the start time, the name is field 2.
    const startTime = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[22 - 3];
    return (tid << START_TIME_BITS) | BigInt.asUintN(Number(START_TIME_BITS), BigInt(startTime as string));
  };

  let self: bigint;
  let token: bigint;
  try {
    // "<pid>/task/<tid>" of the calling thread.
    self = BigInt(fs.readlinkSync("/proc/thread-self").split("/")[2] as string);
    token = tokenOf(self);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Without a descriptor nothing is known about procfs. Another kind of token must not be used then: other threads, which can
    // read procfs, could never prove the death of this thread.
    if (code === "EMFILE" || code === "ENFILE") throw noDescriptor(code, error);
    return undefined;
  }

  return {
    token,
    provesDead(other) {
      if (other < 0n || other === token) return false;
      try {
        // With another start time, that thread is gone and a new thread has its id.
        return tokenOf(other >> START_TIME_BITS) !== other;
      } catch (error) {
        if (!isNoSuchThread(error)) return false;
      }
      // An unmounted or hidden procfs answers "not there" about the living as well. So it must still show this thread.
      try {
        return tokenOf(self) === token;
      } catch {
        return false;
      }
    },
  };
}

function isNoSuchThread(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  // ESRCH: the thread ended between the opening and the reading of its file.
  return code === "ENOENT" || code === "ESRCH";
}
