/**
 * What procfs tells about the process of a seat: whether it can be seen from here, and whether it is stopped. Linux only.
 *
 * A process id in a seat may be that of another container, or of a process that ended long ago. So a process counts as the one that is
 * meant only if it has the cache's file open, where its descriptors may be read.
 */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { identityIn } from "../memory/private-file.ts";
import { freezerOf } from "./groups.ts";

/** What is known of a process. */
export interface ProcessState {
  readonly state: "running" | "stopped" | "unseen";
  /** The file of the control group that has stopped it, as {@link freezerOf} returns it. */
  readonly freezer: string | null;
}

const UNSEEN: ProcessState = { state: "unseen", freezer: null };

/**
 * Tells whether a process that has the file `identity` open runs or is stopped.
 *
 * @param identity device and inode of the file, as `<dev>:<ino>`
 * @param threadId as Node.js numbers threads: 0 is the main thread
 */
export function processState(pid: number, threadId: number, identity: string): ProcessState {
  if (!(pid > 0) || hasOpen(pid, identity) === false) return UNSEEN;
  // Its threads look as if they waited for something.
  const freezer = freezerOf(pid);
  if (freezer !== null) return { state: "stopped", freezer };
  try {
    // The kernel's id of the main thread is that of its process. Those of workers are not known, so all threads have to be stopped.
    const threads = threadId === 0 ? [String(pid)] : readdirSync(`/proc/${pid}/task`);
    const isAtRest = threads.length > 0 && threads.every((thread) => isStopped(pid, thread));
    return { state: isAtRest ? "stopped" : "running", freezer };
  } catch {
    return UNSEEN;
  }
}

/** The processes that have the file `identity` open, as far as this user may see. */
export function processesWith(identity: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => hasOpen(pid, identity) === true);
}

/** Whether a thread is stopped by a signal (`T`) or by a debugger (`t`). */
function isStopped(pid: number, thread: string): boolean {
  const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1");
  // `tid (name) state …`: the name may hold anything, so the state is looked for behind the last parenthesis.
  const state = stat[stat.lastIndexOf(")") + 2];
  return state === "T" || state === "t";
}

/** Whether the process has the file open; `undefined` when it exists, and its descriptors may not be read. */
function hasOpen(pid: number, identity: string): boolean | undefined {
  let descriptors: string[];
  try {
    descriptors = readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES" ? undefined : false;
  }
  return descriptors.some((fd) => {
    try {
      return identityIn(statSync(`/proc/${pid}/fd/${fd}`, { bigint: true })) === identity;
    } catch {
      // Closed meanwhile.
      return false;
    }
  });
}
