/**
 * What `doctor` looks at: this machine, the directory of the caches, and each cache twice. Nothing is judged here: see
 * `src/cli/doctor/checks.ts`. A look takes no seat and writes nothing. What cannot be seen is `undefined`, and never ends the look.
 *
 * Linux only, as caches of processes are.
 */

import { accessSync, constants, lstatSync, readdirSync, readFileSync, readlinkSync, statfsSync } from "node:fs";
import { basename, join } from "node:path";
import { DEFAULT_DIRECTORY, findDirectory, isMemory, requireOurs } from "../memory/place.ts";
import { identityIn } from "../memory/private-file.ts";
import { ask } from "../system/access.ts";
import { Native } from "../system/native.ts";
import { type CacheFile, listCaches } from "./files.ts";
import { type GroupMemory, memoryOf } from "./groups.ts";
import { processesWith } from "./processes.ts";
import type { Hold, SeatReport, SpectatorStats } from "./reports.ts";
import { Spectator } from "./spectator.ts";

/** The text of an error, cut into what is wrong and what to do. */
export interface Complaint {
  readonly detail: string;
  readonly remedy: string;
}

/** This machine, as seen by this process, and the directory of the caches. Sizes are in bytes. */
export interface MachineFacts {
  readonly platform: string;
  readonly arch: string;
  readonly libc: "musl" | "glibc";
  /** The version of Node.js, without `v`. */
  readonly node: string;
  /** Whether Node.js runs with the permission model. */
  readonly permission: boolean;
  /** Why the native part cannot be loaded; `undefined` when it can. */
  readonly nativeError: Complaint | undefined;
  /** What WebAssembly lacks; `undefined` when it lacks nothing. */
  readonly wasm: string | undefined;
  /** Whether procfs shows this process. */
  readonly procfs: boolean;
  /** How many files this process may open, and its address space; `Infinity` without a limit. */
  readonly descriptors: number | undefined;
  readonly addressSpace: number | undefined;
  /** The memory that its control groups allow; `undefined` without a limit. */
  readonly memory: GroupMemory | undefined;
  readonly directory: string;
  /** Why caches cannot be created in the directory; `undefined` when they can. */
  readonly directoryError: Complaint | undefined;
  /** The file system of the directory. */
  readonly space: Space | undefined;
  /** The largest files in the directory, without caches that are in use, the largest first. */
  readonly largest: readonly { name: string; size: number; isCache: boolean }[];
  readonly files: readonly CacheFile[];
  /** The processes that have a file of another layout open, by its path. */
  readonly users: ReadonlyMap<string, readonly number[]>;
}

/** A file system. */
export interface Space {
  readonly size: number;
  readonly free: number;
  /** Files that can still be created; `undefined` where there is no such limit. */
  readonly inodes: number | undefined;
  /** Bytes of all caches in the directory. */
  readonly caches: number;
  /** Bytes that no file in the directory takes, but folders, or files that were removed while they were open. */
  readonly hidden: number;
  /** Whether it is a tmpfs. */
  readonly isMemory: boolean;
}

/** A cache at one time. */
export interface Look {
  /** The time by this process's wall clock: before the first look, after the second one. */
  readonly at: number;
  readonly stats: SpectatorStats;
  readonly participants: readonly SeatReport[];
  readonly holds: readonly Hold[];
}

/** A process that is known to have another clock. */
export interface ClockFact {
  readonly pid: number;
  /** The library that gives it another clock; `undefined` for a time namespace. */
  readonly library: string | undefined;
  /** What the library was told, as in `FAKETIME`. */
  readonly time: string | undefined;
}

/** One cache. */
export interface CacheFacts {
  readonly file: CacheFile;
  /** Why it could not be looked at. */
  readonly error: string | undefined;
  /** One or two looks. */
  readonly looks: readonly Look[];
  /** Whether the file still has its name after the last look. */
  readonly isNamed: boolean;
  readonly clocks: readonly ClockFact[];
  /** Control groups with a limit of memory in which participants run, and not this process. */
  readonly groups: readonly (GroupMemory & { readonly pids: readonly number[] })[];
}

/** How many of the largest files are named. */
const LARGEST = 3;
/** Each open cache takes address space, so only so many are looked at together. */
const TOGETHER = 4;

/** A module with one SIMD instruction. */
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);

/**
 * Looks at the machine and at the directory.
 *
 * @param path the directory; /dev/shm by default
 */
export function lookAtMachine(path: string = DEFAULT_DIRECTORY): MachineFacts {
  const found = attempt(() => findDirectory(path));
  const directory = found ?? path;
  const files = attempt(() => listCaches(directory)) ?? [];
  const limits = attempt(() => readFileSync("/proc/self/limits", "latin1"));
  const stale = files.filter(({ state, users }) => state === "stale layout" && (users ?? 0) > 0);
  return {
    platform: process.platform,
    arch: process.arch,
    libc: attempt(() => readFileSync("/proc/self/maps", "latin1").includes("/ld-musl")) ? "musl" : "glibc",
    node: process.versions.node,
    permission: "permission" in process,
    nativeError: complaintOf(() => Native.load()),
    wasm: lackOfWasm(),
    procfs: attempt(() => readlinkSync("/proc/self") === String(process.pid)) ?? false,
    descriptors: limitOf(limits, "Max open files"),
    addressSpace: limitOf(limits, "Max address space"),
    memory: memoryOf("self"),
    directory,
    directoryError: complaintOf(() => requireUsable(path)),
    space: attempt(() => spaceOf(directory, files)),
    largest: attempt(() => largestIn(directory, files)) ?? [],
    files,
    users: new Map(stale.map(({ path, identity = "" }) => [path, attempt(() => processesWith(identity)) ?? []])),
  };
}

/**
 * Looks at caches, twice with `ms` in between. Without `ms`, once.
 *
 * @param pause waits for so many milliseconds
 */
export async function lookAtCaches(
  files: readonly CacheFile[],
  ms: number,
  pause: (ms: number) => Promise<unknown>,
): Promise<CacheFacts[]> {
  const facts: CacheFacts[] = [];
  for (let i = 0; i < files.length; i += TOGETHER)
    facts.push(...(await lookTogether(files.slice(i, i + TOGETHER), ms, pause)));
  return facts;
}

async function lookTogether(
  files: readonly CacheFile[],
  ms: number,
  pause: (ms: number) => Promise<unknown>,
): Promise<CacheFacts[]> {
  const open = files.map((file) => {
    const looks: Look[] = [];
    try {
      return { file, looks, spectator: Spectator.open(file.path), error: undefined };
    } catch (error) {
      return { file, looks, spectator: undefined, error: (error as Error).message };
    }
  });
  try {
    // The time of the first look is the time before it, so that a clock that is asked during the look is not earlier.
    const start = Date.now();
    for (const { spectator, looks } of open) if (spectator !== undefined) looks.push({ ...look(spectator), at: start });
    if (ms > 0) {
      await pause(ms);
      for (const { spectator, looks } of open) if (spectator !== undefined) looks.push(look(spectator));
    }
    return open.map(({ file, looks, error }) => {
      const pids = new Set(looks.flatMap(({ participants }) => participants.filter(isSeen).map(({ pid }) => pid)));
      const clocks = [...pids].flatMap((pid) => clockOf(pid) ?? []);
      return { file, error, looks, isNamed: isNamed(file), clocks, groups: groupsOf([...pids]) };
    });
  } finally {
    for (const { spectator } of open) spectator?.close();
  }
}

function look(spectator: Spectator): Look {
  const seen = { stats: spectator.stats(), participants: spectator.participants(), holds: spectator.holds() };
  return { ...seen, at: Date.now() };
}

function groupsOf(pids: readonly number[]): CacheFacts["groups"] {
  const own = memoryOf("self")?.group;
  const groups = new Map<string, GroupMemory & { pids: number[] }>();
  for (const pid of pids) {
    const memory = memoryOf(pid);
    if (memory === undefined || memory.group === own) continue;
    const known = groups.get(memory.group);
    if (known === undefined) groups.set(memory.group, { ...memory, pids: [pid] });
    else known.pids.push(pid);
  }
  return [...groups.values()];
}

const isSeen = ({ state }: SeatReport): boolean => state === "alive" || state === "frozen";

function isNamed({ path, identity }: CacheFile): boolean {
  const stat = attempt(() => lstatSync(path, { bigint: true, throwIfNoEntry: false }));
  return stat !== undefined && identityIn(stat) === identity;
}

/** What procfs tells of the clock of a process; `undefined` when nothing makes it another one. */
function clockOf(pid: number): ClockFact | undefined {
  const library = attempt(() => /\S*libfaketime\S*/.exec(readFileSync(`/proc/${pid}/maps`, "latin1"))?.[0]);
  if (library !== undefined) {
    const time = attempt(() => /(?:^|\0)FAKETIME=([^\0]*)/.exec(readFileSync(`/proc/${pid}/environ`, "latin1"))?.[1]);
    return { pid, library, time };
  }
  const [own, its] = ["self", pid].map((process) => attempt(() => readlinkSync(`/proc/${process}/ns/time`)));
  if (own === undefined || its === undefined || own === its) return undefined;
  return { pid, library: undefined, time: undefined };
}

function requireUsable(path: string): void {
  const directory = findDirectory(path);
  requireOurs(directory);
  ask(directory, () => accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK));
}

function spaceOf(directory: string, files: readonly CacheFile[]): Space {
  const { bsize, blocks, bfree, bavail, files: inodes, ffree } = statfsSync(directory);
  const caches = files.reduce((sum, { size }) => sum + size, 0);
  const taken = takenIn(directory).reduce((sum, { size }) => sum + size, 0);
  return {
    size: blocks * bsize,
    free: bavail * bsize,
    inodes: inodes > 0 ? ffree : undefined,
    caches,
    hidden: Math.max(0, (blocks - bfree) * bsize - taken),
    isMemory: isMemory(directory),
  };
}

/** The files in a directory with the bytes that they take. */
function takenIn(directory: string): { name: string; size: number }[] {
  return readdirSync(directory).flatMap((name) => {
    const stat = attempt(() => lstatSync(join(directory, name)));
    // A file with holes takes less than it is long.
    return stat?.isFile() ? [{ name, size: stat.blocks * 512 }] : [];
  });
}

function largestIn(directory: string, caches: readonly CacheFile[]): MachineFacts["largest"] {
  const users = new Map(caches.map((file) => [basename(file.path), file.state === "other boot" ? 0 : file.users]));
  return takenIn(directory)
    .map((file) => ({ ...file, isCache: users.has(file.name) }))
    .filter(({ name, isCache }) => !isCache || users.get(name) === 0)
    .sort((a, b) => b.size - a.size)
    .slice(0, LARGEST);
}

/** A limit of this process by its name in /proc/self/limits. */
function limitOf(limits: string | undefined, name: string): number | undefined {
  const line = limits?.split("\n").find((each) => each.startsWith(name));
  const soft = line?.slice(name.length).trim().split(/\s+/)[0];
  return soft === undefined ? undefined : soft === "unlimited" ? Infinity : Number(soft);
}

function lackOfWasm(): string | undefined {
  if (typeof WebAssembly !== "object") return "is missing";
  if (!WebAssembly.validate(SIMD)) return "has no SIMD instructions";
  return attempt(() => new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }))
    ? undefined
    : "has no shared memory";
}

/** What the error of a call says; `undefined` when there is none. */
function complaintOf(call: () => unknown): Complaint | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    const { message } = error as Error;
    const end = /\. (?=[A-Z])/.exec(message)?.index ?? message.length;
    return { detail: message.slice(0, end), remedy: message.slice(end + 2) };
  }
}

function attempt<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}
