/**
 * Processes that start together take turns at creating a cache. So the file system needs room for one file only, not for one
 * file of each process: all processes but the first find the file.
 *
 * A turn is the lock of the directory (`flock`), because that leaves nothing behind. Turns only save room: creating is correct
 * without them. In a directory for all users anybody can hold the lock. So a creator waits for another process of this user
 * until that has created its file, but hardly at all for a process of another user. Node.js only.
 */

import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { ask, ourUid } from "../system/access.ts";
import type { Native } from "../system/native.ts";

/** Who has the turn: a process of this user, or a process of which that is not known. */
type Holder = "ours" | "others";

/** How long a creator waits in all for each kind of holder. A process of this user needs that long only when it is stopped. */
const PATIENCE_MS: Readonly<Record<Holder, number>> = { ours: 10_000, others: 50 };
const POLL_MS = 2;

/** The patience of one creator. It counts polls and reads no clock, because a clock may stand still in tests. */
export class Patience {
  readonly #waited: Record<Holder, number> = { ours: 0, others: 0 };

  /** Waits a moment for the holder of the turn. Returns false, without waiting, when the patience for it is used up. */
  wait(holder: Holder): boolean {
    if (this.#waited[holder] >= PATIENCE_MS[holder]) return false;
    sleep(POLL_MS);
    this.#waited[holder] += POLL_MS;
    return true;
  }
}

/**
 * Takes the turn of creating in a directory.
 *
 * @returns a descriptor that holds the turn until it is closed, or who has the turn
 */
export function takeTurn(native: Native, directory: string): number | Holder {
  const fd = ask(directory, () => openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY));
  // The descriptor is closed after every error: if it stayed open, it could hold the turn until the end of the thread.
  let isTaken = false;
  try {
    isTaken = native.tryLockDirectory(fd);
    if (isTaken) return fd;
    return isLockedByUs(fd) ? "ours" : "others";
  } finally {
    if (!isTaken) closeSync(fd);
  }
}

/** Whether a process of this user holds the lock of a directory; false where the kernel does not tell. */
function isLockedByUs(fd: number): boolean {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  const inode = [major, minor]
    .map((number) => number.toString(16).padStart(2, "0"))
    .concat(String(ino))
    .join(":");
  try {
    for (const line of readFileSync("/proc/locks", "latin1").split("\n")) {
      // `1: FLOCK  ADVISORY  WRITE 4711 00:1b:1 0 EOF`
      const [, type, , , pid, place] = line.split(/\s+/);
      if (type !== "FLOCK" || place !== inode) continue;
      const [, uid] = /^Uid:\t\d+\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1")) ?? [];
      if (Number(uid) === ourUid()) return true;
    }
  } catch {
    // The lists are hidden from this process, or the process has ended in the meantime.
  }
  return false;
}

/** Blocks the thread. Node.js lets its main thread wait like this too, and opening a cache is synchronous. */
function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
