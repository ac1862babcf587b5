/**
 * What `doctor` judges: pure functions from what was seen (facts.ts) to findings. Each names what is wrong, with the process or the
 * file, and what to do.
 */

import { MIN_SIZE } from "../../engine/contract.ts";
import type { CacheFacts, Look, MachineFacts } from "../../inspect/facts.ts";
import type { CacheFile } from "../../inspect/files.ts";
import type { GroupMemory } from "../../inspect/groups.ts";
import type { Hold, SeatReport } from "../../inspect/reports.ts";
import { DEFAULT_DIRECTORY } from "../../memory/place.ts";
import { bytes, count, percent, quoted, visible } from "../render.ts";

/** `unknown`: it could not be seen from here. */
export type Verdict = "ok" | "warning" | "problem" | "unknown";

/** One finding. */
export interface Check {
  /** Stable, for scripts. */
  readonly id: string;
  /** What was looked at, in a few words. */
  readonly title: string;
  readonly state: Verdict;
  /** What was seen. */
  readonly detail: string;
  /** What to do; empty when nothing is wrong. */
  readonly remedy: string;
}

/** Node.js since which the package runs. */
const OLDEST_NODE = [20, 19] as const;
/** Descriptors below which a server runs out of them early. A cache takes one for each thread, and up to 32 for bells. */
const FEW_DESCRIPTORS = 256;
/** Address space that one open cache and Node.js can need. */
const ADDRESS_SPACE = 11 * 2 ** 30;
/** Fewer reads in a look say nothing about a ratio. */
const MIN_READS = 100;
/** With fewer hits than this part of the reads, while entries are evicted, a cache is too small for its keys. */
const POOR = 0.5;
const MEDIOCRE = 0.8;
/** Reads of one participant in a look below which its near cache is not judged. */
const MIN_NEAR_READS = 1000;
/** A near cache pays from about a fifth of the hits on: see `src/near/cooldown.ts`. */
const NEAR_POOR = 0.05;
/** With less room than this part, a directory is nearly full. */
const NEARLY_FULL = 0.05;
/** With less than this part of the memory of a control group, the next process to start may be too much. */
const NEARLY_USED = 0.1;
/** Files that cannot be seen are worth a word from this part of a directory on. */
const HIDDEN = 0.05;
/** Clocks that differ by less are the same: a participant may be descheduled between its question and its note. */
const CLOCK_SLACK_MS = 1000;

const ok = (id: string, title: string, detail: string): Check => ({ id, title, state: "ok", detail, remedy: "" });
const bad = (id: string, title: string, state: Verdict, detail: string, remedy: string): Check => {
  return { id, title, state, detail, remedy };
};

/** The checks of this machine and of the directory. */
export function checkMachine(facts: MachineFacts): Check[] {
  return [
    checkNative(facts),
    checkNode(facts),
    checkWasm(facts),
    checkProcfs(facts),
    checkDescriptors(facts),
    checkAddressSpace(facts),
    checkDirectory(facts),
    checkSpace(facts),
    checkMemory(facts),
    checkStale(facts),
    checkBoots(facts),
    checkForeign(facts),
    checkBells(facts),
  ];
}

/** The checks of one cache. */
export function checkCache(facts: CacheFacts): Check[] {
  const { error, looks } = facts;
  const [first, second] = looks;
  if (error !== undefined || first === undefined) {
    return [
      bad(
        "open",
        "can be looked at",
        "unknown",
        error ?? "it was not looked at",
        "Run doctor as the user of the cache.",
      ),
    ];
  }
  const last = second ?? first;
  return [
    checkReplaced(facts),
    checkFrozen(last),
    checkDead(last),
    checkSeats(last),
    checkEvictions(first, second),
    checkNear(first, second),
    checkClocks(facts),
    ...checkGroups(facts),
  ];
}

function checkNative({ nativeError, platform, arch, libc }: MachineFacts): Check {
  const title = "native part";
  if (nativeError === undefined) return ok("native", title, `loads on ${platform} ${arch} (${libc})`);
  return bad("native", title, "problem", nativeError.detail, nativeError.remedy);
}

function checkNode({ node, permission }: MachineFacts): Check {
  const [major = 0, minor = 0] = node.split(".").map(Number);
  const isOld = major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1]);
  if (isOld)
    return bad("node", "Node.js", "problem", `is ${node}`, `Install Node.js ${OLDEST_NODE.join(".")} or newer.`);
  return ok("node", "Node.js", `${node}${permission ? ", with the permission model" : ""}`);
}

function checkWasm({ wasm }: MachineFacts): Check {
  if (wasm === undefined) return ok("wasm", "WebAssembly", "has SIMD and shared memory");
  return bad(
    "wasm",
    "WebAssembly",
    "problem",
    wasm,
    "Start Node.js without --jitless, and on a processor with SSE4.1 or NEON.",
  );
}

function checkProcfs({ procfs }: MachineFacts): Check {
  if (procfs) return ok("procfs", "procfs", "shows processes: threads that are stopped or gone can be seen");
  return bad(
    "procfs",
    "procfs",
    "warning",
    "/proc does not show this process: caches cannot be created, and stopped threads cannot be seen",
    "Mount /proc in the container, without hidepid for this user.",
  );
}

function checkDescriptors({ descriptors }: MachineFacts): Check {
  const title = "open files";
  if (descriptors === undefined) return bad("descriptors", title, "unknown", "the limit cannot be read", "");
  const detail = `${Number.isFinite(descriptors) ? count(descriptors) : "any number"} may be open (ulimit -n, as here)`;
  if (descriptors >= FEW_DESCRIPTORS) return ok("descriptors", title, detail);
  return bad(
    "descriptors",
    title,
    "warning",
    detail,
    "Raise the limit: ulimit -n 4096, or LimitNOFILE= of the service.",
  );
}

function checkAddressSpace({ addressSpace }: MachineFacts): Check {
  const title = "address space";
  if (addressSpace === undefined) return bad("address-space", title, "unknown", "the limit cannot be read", "");
  if (addressSpace >= ADDRESS_SPACE) {
    return ok("address-space", title, Number.isFinite(addressSpace) ? bytes(addressSpace) : "not limited");
  }
  const detail = `limited to ${bytes(addressSpace)} (ulimit -v, as here); an open cache can need 10 GiB of it, Node.js 1 GiB`;
  return bad(
    "address-space",
    title,
    "problem",
    detail,
    "Raise or remove the limit: ulimit -v unlimited, LimitAS=infinity.",
  );
}

function checkDirectory({ directory, directoryError }: MachineFacts): Check {
  if (directoryError === undefined) return ok("directory", "directory", `${visible(directory)} can be used`);
  return bad("directory", "directory", "problem", directoryError.detail, directoryError.remedy);
}

function checkSpace({ directory, space, largest }: MachineFacts): Check {
  const title = "room for caches";
  if (space === undefined) return bad("space", title, "unknown", `${visible(directory)} does not tell`, "");
  const { size, free, caches, inodes, hidden, isMemory } = space;
  const room = `${bytes(free)} of ${bytes(size)} are free in ${visible(directory)}, caches take ${bytes(caches)}`;
  const needless = largest.map(
    (file) => `${visible(file.name)} ${bytes(file.size)}${file.isCache ? ", a cache that nobody has open" : ""}`,
  );
  if (isMemory && hidden > HIDDEN * size)
    needless.push(`${bytes(hidden)} in folders, or in files that were removed while open (lsof +L1)`);
  const list = needless.length === 0 ? "" : `: ${needless.join("; ")}`;
  const remedy = `Remove what is not needed${list}. Or give the container more (docker run --shm-size), or use another --path.`;
  if (inodes === 0)
    return bad("space", title, "problem", `${visible(directory)} has no room for another file name`, remedy);
  if (free < MIN_SIZE) return bad("space", title, "problem", `${visible(directory)} is full: ${room}`, remedy);
  if (isMemory && free < NEARLY_FULL * size)
    return bad("space", title, "warning", `${visible(directory)} is nearly full: ${room}`, remedy);
  return ok("space", title, room);
}

function checkMemory({ memory, space }: MachineFacts): Check {
  const title = "memory of the container";
  if (memory === undefined) return ok("memory", title, "no control group sets a limit");
  const { limit, used } = memory;
  const caches = space?.caches ?? 0;
  const usage = used === undefined ? "" : `, ${bytes(used)} are used`;
  const detail = `${bytes(limit)} are allowed${usage}, caches take up to ${bytes(caches)}`;
  if (space?.isMemory && caches > limit) return bad("memory", title, "problem", detail, MORE_MEMORY);
  if (isNearlyUsed(memory)) return bad("memory", title, "warning", `${detail}: ${KERNEL_ENDS}`, MORE_MEMORY);
  return ok("memory", title, detail);
}

const MORE_MEMORY = "Raise the limit (docker run --memory, MemoryMax=), or make the caches smaller.";
const KERNEL_ENDS = "with a little more, the kernel ends a process";
const isNearlyUsed = ({ limit, used = 0 }: GroupMemory): boolean => limit - used < NEARLY_USED * limit;

/** The limits under which participants run. Those without any are no news. */
function checkGroups({ groups }: CacheFacts): Check[] {
  const title = "memory of the participants";
  if (groups.length === 0) return [];
  const details = (some: CacheFacts["groups"]): string =>
    some
      .map(({ limit, used, pids }) => {
        return `${processes(pids)}: ${used === undefined ? "" : `${bytes(used)} are used of `}${bytes(limit)} that are allowed`;
      })
      .join("; ");
  const full = groups.filter(isNearlyUsed);
  if (full.length === 0) return [ok("participants-memory", title, details(groups))];
  return [bad("participants-memory", title, "warning", `${details(full)}: ${KERNEL_ENDS}`, MORE_MEMORY)];
}

/** A command that removes something from the directory. */
const removal = (what: string, directory: string): string => {
  return `npx cache-machine rm ${what}${directory === DEFAULT_DIRECTORY ? "" : ` --path ${quoted(directory)}`}`;
};
const total = (files: readonly CacheFile[]): string => bytes(files.reduce((sum, { size }) => sum + size, 0));
const paths = (files: readonly CacheFile[]): string => files.map(({ path }) => visible(path)).join(", ");

function checkStale({ directory, files, users }: MachineFacts): Check {
  const title = "files of other layouts";
  const stale = files.filter(({ state, ours }) => state === "stale layout" && ours);
  if (stale.length === 0) return ok("stale", title, "there are none");
  const used = stale.filter((file) => (file.users ?? 0) > 0);
  const unused = stale.filter((file) => !used.includes(file));
  const pids = used.flatMap(({ path }) => users.get(path) ?? []);
  const by = pids.length === 0 ? "" : ` by ${processes(pids)}`;
  const inUse = `${paths(used)}: in use${by}, which ${pids.length === 1 ? "runs" : "run"} another version of the package`;
  const restart = "Restart those processes with this version: until then both share nothing.";
  if (unused.length === 0) return bad("stale", title, "warning", inUse, restart);
  const nobody = unused.some((file) => file.users === undefined) ? "nobody is known to have" : "nobody has";
  const details = [
    `${paths(unused)}: ${nobody} ${unused.length === 1 ? "it" : "them"} open, ${total(unused)} are wasted`,
  ];
  const remedies = [`Remove them: ${removal("--all-stale", directory)}`];
  if (used.length > 0) {
    details.push(inUse);
    remedies.push(restart);
  }
  return bad("stale", title, "problem", details.join("; "), remedies.join(". "));
}

function checkBoots({ directory, files }: MachineFacts): Check {
  const title = "files of earlier boots";
  const old = files.filter(({ state, ours }) => state === "other boot" && ours);
  if (old.length === 0) return ok("boots", title, "there are none");
  return bad(
    "boots",
    title,
    "problem",
    `${paths(old)}: ${total(old)} are wasted`,
    `Remove them: ${removal("--all-stale", directory)}`,
  );
}

function checkForeign({ directory, files }: MachineFacts): Check {
  const title = "files that participants refuse";
  const refused = files.filter(({ ours, reason, state }) => ours && reason !== undefined && state !== "stale layout");
  if (refused.length === 0) return ok("foreign", title, "there are none");
  const detail = refused.map(({ path, reason }) => `${visible(path)}: ${reason}`).join("; ");
  return bad(
    "foreign",
    title,
    "problem",
    detail,
    `Follow what is said, or remove them: ${removal("<name>", directory)}`,
  );
}

function checkBells({ files }: MachineFacts): Check {
  const title = "bells without a cache";
  const orphans = files.flatMap(({ orphans, ours }) => (ours ? orphans : []));
  if (orphans.length === 0) return ok("bells", title, "there are none");
  // They take no memory and the next opening removes them, so they are no reason to be called.
  return ok("bells", title, `${count(orphans.length)}, which the next opening of their cache removes`);
}

function checkReplaced({ isNamed, file }: CacheFacts): Check {
  if (isNamed) return ok("open", "can be looked at", `${visible(file.path)}, ${bytes(file.size)}`);
  return bad(
    "open",
    "can be looked at",
    "problem",
    `${visible(file.path)} was removed or replaced during the look`,
    "Processes that had it open share nothing with later ones: restart them.",
  );
}

const processes = (pids: readonly number[]): string => {
  const all = [...new Set(pids)];
  return `${all.length === 1 ? "process" : "processes"} ${all.join(", ")}`;
};

const who = ({ pid, threadId }: { pid: number; threadId: number }): string => {
  return threadId === 0 ? `process ${pid}` : `process ${pid} (worker ${threadId})`;
};

function checkFrozen({ holds, participants }: Look): Check {
  const title = "stopped participants";
  const frozen = participants.filter(({ state }) => state === "frozen");
  if (frozen.length === 0) {
    const unseen = participants.filter(({ state }) => state === "unknown");
    if (unseen.length === 0) return ok("frozen", title, "there are none");
    const many = unseen.length === 1 ? "1 participant runs" : `${count(unseen.length)} participants run`;
    const detail = `${many} where its process cannot be seen, as in another container`;
    return bad("frozen", title, "unknown", detail, "Run doctor where they run.");
  }
  const details = frozen.map((seat) => {
    const held = holdsOf(seat, holds);
    const by = seat.freezer === null ? "" : " by the freezer of its control group";
    return `${who(seat)} is stopped${by}${held.length === 0 ? "" : ` and holds ${held.join(", ")}`}`;
  });
  const holder = frozen.some((seat) => holdsOf(seat, holds).length > 0);
  return bad("frozen", title, holder ? "problem" : "warning", details.join("; "), goOn(frozen));
}

/** How those who are stopped can go on, and what else helps the others. */
function goOn(frozen: readonly SeatReport[]): string {
  const signalled = [...new Set(frozen.flatMap(({ pid, freezer }) => (freezer === null ? [pid] : [])))].join(" ");
  const freezers = [...new Set(frozen.flatMap(({ freezer }) => freezer ?? []))];
  const thaw = freezers.map((file) => `echo ${file.endsWith("freezer.state") ? "THAWED" : "0"} > ${quoted(file)}`);
  const remedies: string[] = [];
  if (signalled !== "")
    remedies.push(
      `Let it go on (kill -CONT ${signalled}) or end it (kill -KILL ${signalled}): then others take over at once.`,
    );
  if (thaw.length > 0)
    remedies.push(`Thaw the group (docker unpause, systemctl thaw, or ${thaw.join("; ")}): kill -CONT does not help.`);
  return remedies.join(" ");
}

/** What a participant holds, in words. A request for a lock is nothing that is held. */
function holdsOf({ seat, writing, hazard }: SeatReport, holds: readonly Hold[]): string[] {
  const held = holds
    .filter((hold) => hold.seat === seat && hold.pending !== true)
    .map(({ kind, name, number, hash }) => {
      const waits = holds.filter((other) => kind === "lock" && other.hash === hash && other.pending === true).length;
      const waiting =
        waits === 0 ? "" : `, for which ${waits === 1 ? "another one waits" : `${count(waits)} others wait`}`;
      if (kind === "lock") return `the lock "${visible(name ?? hash ?? "?")}"${waiting}`;
      if (kind === "load") return `the load of a key (hash ${hash ?? "?"})`;
      return kind === "bucket" ? `bucket ${number} of the index` : `segment ${number} of the memory`;
    });
  if (writing) held.push("a large value that is half written");
  if (hazard !== null && !held.some((each) => each === `segment ${hazard} of the memory`)) {
    held.push(`segment ${hazard} of the memory`);
  }
  return held;
}

function checkDead({ participants }: Look): Check {
  const dead = participants.filter(({ state }) => state === "dead");
  if (dead.length === 0) return ok("dead", "dead participants", "there are none");
  const detail = `${count(dead.length)} (${dead.map(who).join(", ")}): the next participant that meets a seat tidies it up`;
  return ok("dead", "dead participants", detail);
}

function checkSeats({ participants, stats }: Look): Check {
  const taken = participants.filter(({ state }) => state !== "dead").length;
  const detail = `${count(taken)} of ${count(stats.seats)} are taken`;
  const remedy = "Close the cache in threads that do not need it, or create a larger one: 64 MiB have 1,024 seats.";
  if (taken >= stats.seats) {
    return bad(
      "seats",
      "seats",
      "problem",
      `${detail}: nobody else can open the cache (${most(participants)})`,
      remedy,
    );
  }
  if (taken >= 0.9 * stats.seats) return bad("seats", "seats", "warning", `${detail} (${most(participants)})`, remedy);
  return ok("seats", "seats", detail);
}

/** The process with the most seats, in words. */
function most(participants: readonly SeatReport[]): string {
  const seats = new Map<number, number>();
  for (const { pid } of participants) seats.set(pid, (seats.get(pid) ?? 0) + 1);
  const [top] = [...seats].sort(([, a], [, b]) => b - a);
  return top === undefined ? "" : `process ${top[0]} has ${top[1]}`;
}

function checkEvictions(first: Look, second: Look | undefined): Check {
  const title = "size of the cache";
  if (second === undefined)
    return bad("evictions", title, "unknown", "needs two looks", "Run doctor with an --interval.");
  const seconds = (second.at - first.at) / 1000;
  const evictions = second.stats.evictions - first.stats.evictions;
  const hits = second.stats.hits - first.stats.hits;
  const reads = hits + second.stats.misses - first.stats.misses;
  const ratio = reads === 0 ? 1 : hits / reads;
  const read = reads === 0 ? "nothing was read" : `${percent(ratio)} of ${count(reads)} reads were hits`;
  const rate = count(Math.round(evictions / seconds));
  const seen = `${rate} evictions a second, ${read}`;
  const remedy =
    "Create it larger (openCache(name, { size }), which needs another name or destroyCache first), or store less: shorter " +
    "`ttl`, smaller values. Hits that stay away in a larger cache too mean keys that nobody reads twice.";
  if (evictions > 0 && reads >= MIN_READS && ratio < MEDIOCRE) {
    return bad(
      "evictions",
      title,
      ratio < POOR ? "problem" : "warning",
      `${seen}: it is too small for its keys`,
      remedy,
    );
  }
  return ok("evictions", title, seen);
}

function checkNear(first: Look, second: Look | undefined): Check {
  const title = "near caches";
  if (second === undefined) return bad("near", title, "unknown", "needs two looks", "Run doctor with an --interval.");
  const thrashing: string[] = [];
  const paused: string[] = [];
  let judged = 0;
  for (const now of second.participants) {
    const before = first.participants.find(({ seat, pid, threadId }) => {
      return seat === now.seat && pid === now.pid && threadId === now.threadId;
    });
    if (before === undefined) continue;
    const hits = now.hits - before.hits;
    const near = now.nearHits - before.nearHits;
    if (hits < MIN_NEAR_READS || now.nearHits === 0) continue;
    judged++;
    const part = (a: number, b: number): string => `${who(now)}: ${percent(a / b)} of ${count(b)} hits`;
    if (near > 0 && near / hits < NEAR_POOR) thrashing.push(part(near, hits));
    // It is off or in its cooldown. The counters of a seat go on from those of its last owner, so this is no proof.
    else if (near === 0 && now.nearHits / now.hits < NEAR_POOR) paused.push(part(now.nearHits, now.hits));
  }
  const remedy =
    "Raise `nearCache` (entries) above the number of keys that are read often, and `nearCacheSize` (bytes) with it, or switch it " +
    "off there with `nearCache: 0`.";
  if (thrashing.length > 0) {
    const sets = second.stats.sets - first.stats.sets;
    const detail = `hardly anything is found in the near cache of ${thrashing.join("; ")}, while ${count(sets)} values were stored`;
    return bad("near", title, "problem", detail, remedy);
  }
  if (paused.length > 0) {
    const detail = `not asked during this look, and hardly anything was found before in the near cache of ${paused.join("; ")}`;
    return bad("near", title, "warning", detail, `Look again with a longer --interval. ${remedy}`);
  }
  const many = `${count(judged)} ${judged === 1 ? "participant" : "participants"}`;
  return ok("near", title, judged === 0 ? "none was used enough to be judged" : `those of ${many} answer enough reads`);
}

function checkClocks({ looks, clocks }: CacheFacts): Check {
  const title = "clocks";
  const [first, second] = looks;
  const found: string[] = [];
  for (const { pid, library, time } of clocks) {
    if (library !== undefined)
      found.push(
        `process ${pid} runs with ${visible(library)}${time === undefined ? "" : ` (FAKETIME=${visible(time)})`}`,
      );
    else found.push(`process ${pid} is in another time namespace, in which leases do not end when they should`);
  }
  let judged = 0;
  if (first !== undefined && second !== undefined) {
    for (const now of second.participants) {
      const before = first.participants.find(({ seat, pid }) => seat === now.seat && pid === now.pid)?.clock;
      const shift = clockShift(before, now.clock, first.at, second.at);
      if (shift === undefined) continue;
      judged++;
      if (shift !== 0) found.push(`the clock of ${who(now)} is ${ahead(shift)}`);
    }
  }
  if (found.length > 0) {
    return bad(
      "clock",
      title,
      "problem",
      `${found.join("; ")}: what it stores expires for others at another time`,
      "Give all participants one clock: the same option `now`, no libfaketime, no time namespace. Then store again what it stored.",
    );
  }
  if (second === undefined) return bad("clock", title, "unknown", "needs two looks", "Run doctor with an --interval.");
  if (judged === 0)
    return ok("clock", title, "no participant has asked its clock meanwhile, none is known to be another");
  return ok(
    "clock",
    title,
    `those of ${count(judged)} ${judged === 1 ? "participant" : "participants"} agree with this one`,
  );
}

/**
 * By how many milliseconds a clock is ahead of ours, 0 for hardly. `undefined` when it was not asked between two looks: then it says
 * only what it was at some time.
 *
 * @param before what the participant has noted until the first look, which was later than `from`
 * @param clock what it has noted until the second look, which was earlier than `to`
 */
export function clockShift(before: number | undefined, clock: number, from: number, to: number): number | undefined {
  if (clock === 0 || clock === before) return undefined;
  return clock > to + CLOCK_SLACK_MS || clock < from - CLOCK_SLACK_MS ? clock - to : 0;
}

/** In words, by how much a clock is ahead or behind. */
export function ahead(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1000);
  return `${count(seconds)} s ${ms > 0 ? "ahead" : "behind"}`;
}
