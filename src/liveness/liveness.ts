/**
 * Who is alive. A cache has a fixed number of slots, one per participant (one thread that has it open), and this module
 * answers the only question that recovery rests on: is the owner of this slot *provably* gone? Never by a timeout and
 * never by a process id. A participant that is alive but frozen is never declared dead; one whose death cannot be
 * proven counts as alive.
 *
 * {@link LockFile} proves it between processes, {@link Board} between the threads of one process. What a slot means and
 * what has to be tidied up after a dead owner is the engine's business. Usable in a browser: no static `node:` imports.
 */

import { CacheError } from "../errors.ts";
import type { Native } from "../system/native.ts";

/**
 * The slots of one cache as seen by one participant.
 *
 * A slot that {@link Membership.claim} or {@link Membership.take} gave out may have had an owner that died: whoever gets
 * one tidies up after it before anything else.
 */
export interface Membership {
  /** How many participants there can be at once. */
  readonly slots: number;

  /**
   * Takes the lowest slot without a living owner, until {@link Membership.release}, `close` or the end of this thread.
   *
   * @throws {CacheError} `ERR_BUSY` when all slots have living owners, `ERR_CLOSED` after {@link Membership.close}.
   */
  claim(): number;

  /**
   * Proof of death: true when the slot's owner is gone, or it had none, and the slot now belongs to this participant
   * and to nobody else. It has to be given back with {@link Membership.release}.
   * Never true for a slot with a living owner, this participant included, nor for one that does not exist.
   *
   * @throws {CacheError} `ERR_CLOSED` after {@link Membership.close}.
   */
  take(slot: number): boolean;

  /** Gives a slot back; nothing happens to one that this participant does not own. */
  release(slot: number): void;

  /** Gives back all slots but one: those that it {@link Membership.take | took}, when it was kept from releasing them. */
  keepOnly(slot: number): void;

  /** Gives all slots back. May be called twice. */
  close(): void;
}

/**
 * Process reach: slot *i* is alive while somebody holds the lock of byte *i* of the cache file.
 *
 * The lock belongs to an open file description, so the kernel frees it the moment a process ends, however it ends, and
 * it is right across containers and reused process ids. Node.js closes the descriptors that a worker opened when that
 * worker ends, after its last instruction, so the same lock proves the death of a thread, provided that `fd` was opened
 * with `node:fs` in the thread that participates, and for this participant alone. Where that closing was switched off
 * (`new Worker(file, { trackUnmanagedFds: false })`) a dead worker counts as alive until its process ends; so does one
 * whose descriptor was inherited by a process that native code forked.
 */
export class LockFile implements Membership {
  readonly slots: number;
  readonly #native: Native;
  readonly #fd: number;
  /** The kernel lets a description lock a byte twice, so what is held has to be remembered. */
  readonly #held = new Set<number>();
  #closed = false;

  /** @param fd the descriptor whose locks stand for this participant; stays open until after `close()` */
  constructor(native: Native, fd: number, slots: number) {
    this.#native = native;
    this.#fd = fd;
    this.slots = slots;
  }

  claim(): number {
    return claimLowest(this);
  }

  take(slot: number): boolean {
    // The number of a closed descriptor may by now be another file's, or another participant's.
    if (this.#closed) throw closed();
    if (!(slot >= 0 && slot < this.slots)) return false;
    if (this.#held.has(slot) || !this.#native.tryLock(this.#fd, slot)) return false;
    this.#held.add(slot);
    return true;
  }

  release(slot: number): void {
    if (!this.#held.has(slot)) return;
    this.#native.unlock(this.#fd, slot);
    this.#held.delete(slot);
  }

  keepOnly(slot: number): void {
    for (const held of this.#held) if (held !== slot) this.release(held);
  }

  close(): void {
    this.#closed = true;
    for (const slot of this.#held) this.release(slot);
  }
}

/**
 * Thread reach: one 64-bit token per slot in shared memory, naming the thread that owns it; 0 is a slot without owner.
 * Every change is one compare-and-swap from the token that was judged, so a thread that ends at any instruction leaves
 * either its own token, whose death can be proven, or none.
 *
 *     token > 0   a native thread of Linux:  thread id 22 bits | start time in clock ticks since boot 40 bits
 *     token < 0   a Node.js worker elsewhere: -1 - threadId; in a browser: random
 *
 * On Linux the kernel is asked whether that thread still exists, so the proof is there at once, for nested workers too.
 * On other platforms Node.js reports the end of a worker to the thread that started it, which then clears its tokens: a
 * moment later, and only for workers started after that thread opened the cache and while it has it open. What dies
 * unreported counts as alive.
 * In browsers threads hold Web Locks, so a terminated worker is noticed a moment later by every thread that is attached
 * and whose event loop is free, and by one of them for all. A lock is granted between two tasks: a worker that is
 * terminated in the very task in which it opened its first cache, or a few milliseconds after it, counts as alive, and so
 * does everybody where there are no Web Locks.
 */
export class Board implements Membership {
  /** Bytes of shared memory that a board of this many slots needs, all zero at the start. */
  static bytes(slots: number): number {
    return slots * BigInt64Array.BYTES_PER_ELEMENT;
  }

  readonly slots: number;
  readonly #tokens: BigInt64Array;
  readonly #thread: ThreadIdentity;
  /** Participants of one thread share a token, so what is this one's has to be remembered. */
  readonly #held = new Set<number>();
  #closed = false;

  /** @param tokens the shared memory of the board: {@link Board.bytes}, zeroed by the one who creates the cache */
  constructor(tokens: SharedArrayBuffer) {
    this.#tokens = new BigInt64Array(tokens);
    this.#thread = identifyThread();
    this.slots = this.#tokens.length;
    openBoards.add(this.#tokens);
  }

  claim(): number {
    const slot = claimLowest(this);
    this.#thread.announce?.();
    return slot;
  }

  take(slot: number): boolean {
    if (this.#closed) throw closed();
    if (!(slot >= 0 && slot < this.slots)) return false;
    const owner = Atomics.load(this.#tokens, slot);
    if (owner !== 0n && !this.#thread.provesDead(owner)) return false;
    if (Atomics.compareExchange(this.#tokens, slot, owner, this.#thread.token) !== owner) return false;
    this.#held.add(slot);
    return true;
  }

  release(slot: number): void {
    if (!this.#held.has(slot)) return;
    Atomics.store(this.#tokens, slot, 0n);
    this.#held.delete(slot);
  }

  keepOnly(slot: number): void {
    for (const held of this.#held) if (held !== slot) this.release(held);
  }

  close(): void {
    this.#closed = true;
    for (const slot of this.#held) this.release(slot);
    openBoards.delete(this.#tokens);
  }
}

function claimLowest(membership: Membership): number {
  for (let slot = 0; slot < membership.slots; slot++) {
    if (membership.take(slot)) return slot;
  }
  throw new CacheError(
    "ERR_BUSY",
    `all ${membership.slots} places of this cache are taken: as many threads have it open, in all processes together. ` +
      "End some of them, close() it where it is not needed any more, or create it larger: 64 MiB have 1,024 places",
  );
}

function closed(): CacheError {
  return new CacheError("ERR_CLOSED", "this cache was closed by this thread: open it again");
}

/** How the calling thread is named on a board, and what it can prove about the others. */
interface ThreadIdentity {
  readonly token: bigint;
  /** Tells the others that the token is on a board, where they have to know to prove anything. */
  announce?(): void;
  provesDead(token: bigint): boolean;
}

/** The boards of this thread on which the tokens of its reported dead are cleared. */
const openBoards = new Set<BigInt64Array>();

let identity: ThreadIdentity | undefined;

function identifyThread(): ThreadIdentity {
  identity ??= nativeThread() ?? nodeWorker() ?? browserThread();
  return identity;
}

const START_TIME_BITS = 40n;

/** A thread that Linux knows by its id and its start time, read from procfs; undefined where that cannot be read. */
function nativeThread(): ThreadIdentity | undefined {
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (fs === undefined) return undefined;

  /** Throws when the thread does not exist, and when procfs cannot be read. */
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
    // That says nothing of procfs, and under the other name this thread could never be proved dead.
    if (code === "EMFILE" || code === "ENFILE") {
      throw new CacheError("ERR_NO_SPACE", `no file descriptor left (${code}): raise the limit (\`ulimit -n\`)`, {
        cause: error,
      });
    }
    return undefined;
  }

  return {
    token,
    provesDead(other) {
      if (other < 0n || other === token) return false;
      try {
        // Another start time: that thread is gone and its id went to a new one.
        return tokenOf(other >> START_TIME_BITS) !== other;
      } catch (error) {
        if (!isNoSuchThread(error)) return false;
      }
      // "Not there" is also what an unmounted or hidden procfs says, about the living as well.
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
  // ESRCH: it ended between the opening and the reading.
  return code === "ENOENT" || code === "ESRCH";
}

/** A thread of Node.js that is known by its `threadId`, which is never used again within a process. */
function nodeWorker(): ThreadIdentity | undefined {
  const threads = globalThis.process?.getBuiltinModule?.("node:worker_threads");
  if (threads === undefined) return undefined;
  const tokenOf = (threadId: number): bigint => -1n - BigInt(threadId);

  process.on("worker", (worker) => {
    // Once the worker has ended it does not tell its id any more.
    const token = tokenOf(worker.threadId);
    worker.once("exit", () => clearFromBoards(token));
  });
  return { token: tokenOf(threads.threadId), provesDead: () => false };
}

/** How often a thread that was not seen with its lock yet is looked at again, in milliseconds. */
const FIRST_LOOK_MS = 4;
const LAST_LOOK_MS = 1000;

/**
 * A thread of a browser. It holds a Web Lock, named by its token, from its first board on and for as long as it lives;
 * the browser takes the lock from a worker that was terminated and from a page that is gone. Who gets it then clears the
 * token from the boards, which is proof for everybody: for a thread whose event loop is busy as well.
 *
 * A lock that can be had proves nothing by itself, because a new thread gets its lock later than its place on the board.
 * So only who was seen with its lock can be seen to have lost it, and all threads watch all others from the moment they
 * come, which they announce.
 */
function browserThread(): ThreadIdentity {
  const random = crypto.getRandomValues(new BigInt64Array(1))[0] as bigint;
  const token = random < 0n ? random : -1n - random;
  const locks = globalThis.navigator?.locks;
  if (locks === undefined) return { token, provesDead: () => false };

  const nameOf = (other: bigint): string => `cache-machine thread ${-other}`;
  const watched = new Set<bigint>();
  const dead = new Set<bigint>();

  /** Whether that thread has its lock or stands in line for it: nobody else ever asks for it alone. */
  const isHeld = (other: bigint): Promise<boolean> =>
    locks.request(nameOf(other), { mode: "shared", ifAvailable: true }, (lock) => lock === null);

  const watch = async (other: bigint): Promise<void> => {
    if (other >= 0n || other === token || watched.has(other)) return;
    watched.add(other);
    try {
      for (let wait = FIRST_LOOK_MS; !(await isHeld(other)); wait = Math.min(2 * wait, LAST_LOOK_MS)) {
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
      // This page may not use locks: nobody's death is proven.
    }
  };

  let arrivals: BroadcastChannel;
  try {
    arrivals = new BroadcastChannel("cache-machine arrivals");
  } catch {
    // A page that may not use it may not use locks either.
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

function clearFromBoards(token: bigint): void {
  for (const tokens of openBoards) {
    for (let slot = 0; slot < tokens.length; slot++) Atomics.compareExchange(tokens, slot, token, 0n);
  }
}
