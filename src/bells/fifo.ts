/**
 * Bells between processes: one FIFO for each thread that waits, beside the file of the cache.
 *
 *     <cache file>.bell.<inode of the cache file>.<seat>        both numbers to the base 36
 *
 * The thread makes it at its first wait and reads it through libuv, like a pipe. To ring is to write one byte. That takes about
 * 10 µs from one process to another, and the kernel ends it with its thread: a FIFO without a reader refuses to be opened for
 * writing (`ENXIO`). Only the name of a dead thread's FIFO stays. It is removed by whoever reaps the seat, by the next owner of
 * the seat, and by `destroyCache`. The inode in the name keeps a cache apart from an older one with the same name, which was
 * destroyed and is still in use.
 *
 * The FIFO is opened for reading *and* writing: with `O_RDONLY` it would end when the first writer closes it. Node.js only.
 */

import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, unlinkSync, writeSync } from "node:fs";
import type { Socket, SocketConstructorOpts } from "node:net";
import { basename, dirname, join } from "node:path";
import { codeOf, ourUid } from "../system/access.ts";
import type { Native } from "../system/native.ts";
import { keepAlive, setTimeout } from "../system/timers.ts";
import type { Bell } from "./bell.ts";

/** Most descriptors that a thread keeps open for ringing, in one cache. */
const MAX_KEPT = 32;
/** Without a free descriptor a ring is tried again: so often, and with so many milliseconds in between. */
const MAX_RETRIES = 50;
const RETRY_MS = 20;

/** To ring: the link of an attacker is not followed, and a FIFO that nobody reads is not waited for. */
const RINGING = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
const BYTE = Uint8Array.of(1);

/** Whether this is Bun: there a `net.Socket` takes the descriptor of a FIFO and never reads it. Tried with Bun 1.4.5. */
const READS_NO_FIFO = process.versions.bun !== undefined;

/** Arguments of a call that takes 64 KiB of the stack. To make a socket takes less than half of that. */
const STACK_ROOM: readonly number[] = new Array(8192).fill(0);

/** What the name of a bell may add to the name of its cache file, in bytes: the inode has 64 bits, and a seat has 16. */
export const MAX_ENDING: number =
  ".bell..".length + (2n ** 64n - 1n).toString(36).length + (0xffff).toString(36).length;

/** The FIFO that this thread hears, and its reader. */
interface Own {
  readonly path: string;
  readonly inode: bigint;
  readonly socket: Socket;
}

/** The bells of a cache file. */
export class FifoBell implements Bell {
  readonly #native: Native;
  readonly #file: string;
  readonly #inode: bigint;
  /** The path of a bell without the seat at its end. */
  readonly #prefix: string;
  #own: Own | undefined;
  /** Descriptors for ringing, by seat. The one that was used least recently comes first. */
  readonly #kept = new Map<number, number>();
  #closed = false;

  /**
   * @param path of the cache file
   * @param inode of the cache file
   */
  constructor(native: Native, path: string, inode: bigint) {
    this.#native = native;
    this.#file = path;
    this.#inode = inode;
    this.#prefix = `${path}.bell.${inode.toString(36)}.`;
  }

  open(seat: number, _at: number, heard: () => void): boolean {
    if (this.#closed || READS_NO_FIFO) return false;
    const path = this.#pathOf(seat);
    try {
      const own = this.#own;
      if (own !== undefined && inodeOf(path) === own.inode) return true;
      // The cache was destroyed, and its bells with it. Nobody would remove another one.
      if (inodeOf(this.#file) !== this.#inode) return false;
      remove(path);
      this.#own = this.#make(path, heard);
      own?.socket.destroy();
      setHearing(path, true);
      return true;
    } catch {
      // No room for a file or a descriptor, a file system without FIFOs, a directory that is read-only. It may pass.
      remove(path);
      return false;
    }
  }

  #make(path: string, heard: () => void): Own {
    // Throws a RangeError without that room. If the stack ended while the socket takes the descriptor, nobody would close it.
    Math.max(...STACK_ROOM);
    // Loaded only now, because few programs wait and `node:net` is large.
    const { Socket } = process.getBuiltinModule("node:net");
    const onread = {
      buffer: new Uint8Array(64),
      callback(): boolean {
        heard();
        return true;
      },
    };
    this.#native.makeFifo(path);
    const own = this.#native.openFifo(path, (fd) => {
      const { ino: inode } = fstatSync(fd, { bigint: true });
      const options: SocketConstructorOpts = { fd, readable: true, writable: false };
      // `onread` is documented for `connect` only, but the constructor is what takes it.
      return { path, inode, socket: new Socket(Object.assign(options, { onread })) };
    });
    own.socket.unref();
    own.socket.on("error", () => {
      if (this.#own === own) this.#deafen();
    });
    return own;
  }

  ring(seat: number): boolean {
    return this.#ring(seat, 0);
  }

  #ring(seat: number, retries: number): boolean {
    // The descriptor of an earlier ring may belong to a FIFO that was replaced since. It has no reader any more.
    for (const isKept of [true, false]) {
      try {
        const fd = isKept ? this.#kept.get(seat) : this.#openForRinging(seat);
        if (fd === undefined) continue;
        this.#keep(seat, fd);
        writeSync(fd, BYTE);
        return true;
      } catch (error) {
        const code = codeOf(error);
        // The pipe is full: its reader has been stopped, and finds the bytes that are there.
        if (code === "EAGAIN") return true;
        this.#drop(seat);
        if (code === "EMFILE" || code === "ENFILE") return this.#ringLater(seat, retries);
      }
    }
    return false;
  }

  /** Opens the FIFO of a seat for writing. Throws when nobody reads it, and when it is not a FIFO of this user. */
  #openForRinging(seat: number): number {
    const fd = openSync(this.#pathOf(seat), RINGING);
    const stat = fstatSync(fd);
    if (stat.isFIFO() && stat.uid === ourUid()) return fd;
    closeSync(fd);
    throw new Error("not the FIFO of a bell");
  }

  /** Keeps a descriptor as the one that was used last. */
  #keep(seat: number, fd: number): void {
    this.#kept.delete(seat);
    this.#kept.set(seat, fd);
    if (this.#kept.size > MAX_KEPT) this.#drop(this.#kept.keys().next().value as number);
  }

  #drop(seat: number): void {
    const fd = this.#kept.get(seat);
    if (fd === undefined) return;
    this.#kept.delete(seat);
    closeSync(fd);
  }

  /** Rings when a descriptor may be free again. Until then the thread counts as one that hears. */
  #ringLater(seat: number, retries: number): boolean {
    const again = (): unknown => this.#closed || this.#ring(seat, retries + 1);
    if (retries < MAX_RETRIES) keepAlive(setTimeout(again, RETRY_MS), false);
    return true;
  }

  bury(seat: number): void {
    this.#drop(seat);
    remove(this.#pathOf(seat));
  }

  close(): void {
    this.#closed = true;
    this.#deafen();
    for (const seat of this.#kept.keys()) this.#drop(seat);
  }

  /** Closes and removes the own FIFO. */
  #deafen(): void {
    const own = this.#own;
    if (own === undefined) return;
    this.#own = undefined;
    own.socket.destroy();
    remove(own.path);
    setHearing(own.path, false);
  }

  #pathOf(seat: number): string {
    return this.#prefix + seat.toString(36);
  }
}

/** What the name of a bell says: the name of its cache file, and the inode that this file had. */
export function parseBellName(name: string): { file: string; inode: bigint } | undefined {
  const match = /^(.*)\.bell\.([0-9a-z]{1,13})\.[0-9a-z]{1,4}$/.exec(name);
  if (match === null) return undefined;
  const [, file = "", digits = ""] = match;
  return { file, inode: Array.from(digits).reduce((sum, digit) => sum * 36n + BigInt(Number.parseInt(digit, 36)), 0n) };
}

/** Removes a file, if it is there and as far as possible: what stays is a name without a reader. */
function remove(path: string): void {
  try {
    // Asked first, because an error that is not needed takes longer than the question.
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) unlinkSync(path);
  } catch {
    // Another process was faster, or the directory is read-only.
  }
}

/** The FIFOs that this copy of the package has made in this thread. They are removed when the thread ends by itself. */
const hearing = new Set<string>();
const removeAll = (): void => hearing.forEach(remove);

/** The inode of a file; `undefined` when there is none. */
function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

/** Adds a FIFO to {@link hearing}, or removes it from there. Listens to the end of the thread while there is one. */
function setHearing(path: string, hears: boolean): void {
  // The `process` of a test runner may be one of its own, which does not hear of the end. This one is the same for all realms,
  // except in Jest. There the FIFO stays until the cache is next opened or destroyed.
  const host = process.getBuiltinModule("node:process");
  host.off("exit", removeAll);
  if (hears) hearing.add(path);
  else hearing.delete(path);
  if (hearing.size > 0) host.on("exit", removeAll);
}

/**
 * Removes the bells beside the path of a cache file that nobody reads any more, and all bells of the file with the inode
 * `destroyed`. Who still uses that file finds changes by slow looks. If a living thread kept its bell, the name of the bell would
 * stay for ever when a signal ends its process later.
 */
export function removeBells(path: string, destroyed?: bigint | number): void {
  const start = `${basename(path)}.bell.`;
  const gone = destroyed === undefined ? undefined : `${start}${destroyed.toString(36)}.`;
  try {
    for (const name of readdirSync(dirname(path))) {
      if (gone !== undefined && name.startsWith(gone)) remove(join(dirname(path), name));
      else if (name.startsWith(start)) removeIfDead(join(dirname(path), name));
    }
  } catch {
    // The directory can be searched but not read.
  }
}

function removeIfDead(path: string): void {
  try {
    closeSync(openSync(path, RINGING));
  } catch (error) {
    // A thread that has just made its FIFO and has not opened it yet makes another one with its next slow look.
    if (codeOf(error) === "ENXIO") remove(path);
  }
}
