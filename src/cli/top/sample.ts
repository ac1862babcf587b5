/**
 * From looks at a cache to frames of numbers. A look holds counters that only grow; a frame says what they did in the time between two
 * looks, who takes part, what each participant holds, and what seems to be wrong. Nothing here reads a clock or a file.
 */

import { ahead, clockShift } from "../doctor/checks.ts";

/** The counters of a cache, for all participants together. They only grow. */
export interface Counters {
  /** Reads that found a value, those in near caches included. */
  readonly hits: number;
  readonly misses: number;
  readonly sets: number;
  readonly deletes: number;
  readonly evictions: number;
  readonly expirations: number;
  readonly reclaims: number;
  /** Reads that were answered by near caches. */
  readonly nearHits: number;
  /** Bytes of the segments in use. */
  readonly used: number;
  /** Bytes of all segments. */
  readonly capacity: number;
  /** Bytes of shared memory. */
  readonly size: number;
}

/** A seat that somebody has taken. */
export interface SeatLook {
  readonly seat: number;
  /** 0 when it is not known. */
  readonly pid: number;
  readonly threadId: number;
  readonly state: State;
  /** Hits, those of the near cache included. */
  readonly hits: number;
  readonly misses: number;
  readonly sets: number;
  readonly deletes: number;
  readonly nearHits: number;
  /** The time by its own clock when it last asked it, in milliseconds; 0 when it has not. */
  readonly clock: number;
  /** The file of the control group that has stopped it; `null` for none. */
  readonly freezer: string | null;
}

/** `"frozen"` is a process that was stopped, `"unknown"` one that cannot be seen from here. */
export type State = "alive" | "frozen" | "dead" | "unknown";

/** What a participant holds, or waits for. */
export interface HoldLook {
  readonly seat: number;
  /** In words, such as `lock "report"`. Two looks at the same thing have the same words. */
  readonly what: string;
  /** Whether the participant still waits for it. */
  readonly waits: boolean;
  /**
   * Whether it is held for microseconds only, as a bucket and a segment are. The same one in two looks is then another hold, unless the
   * participant has done nothing in between.
   */
  readonly brief: boolean;
}

/** What one look at a cache has seen. */
export interface Look {
  /** Milliseconds of a clock that never goes back. */
  readonly at: number;
  /** The wall clock before the look and after it, in milliseconds. */
  readonly wall: readonly [before: number, after: number];
  readonly counters: Counters;
  readonly seats: readonly SeatLook[];
  /** How many seats there are. */
  readonly allSeats: number;
  readonly holds: readonly HoldLook[];
  /** Entries and their bytes. Counting them walks the index, so this may be the result of an earlier count. */
  readonly census: { readonly entries: number; readonly bytes: number } | undefined;
  /** Bytes of the file system on which the cache lies; `undefined` when it does not tell. */
  readonly disk: { readonly free: number; readonly total: number } | undefined;
}

/** What happened in each second, on average. */
export interface Rates {
  /** Reads, sets and deletes. */
  operations: number;
  reads: number;
  sets: number;
  deletes: number;
}

/** A participant in a frame. Rates and shares are null while there is nothing to compute them from. */
export interface Participant {
  seat: number;
  pid: number;
  threadId: number;
  state: State;
  freezer: string | null;
  rates: Rates | null;
  /** The share of the reads that its near cache has answered, from 0 to 1. */
  nearShare: number | null;
  holds: Holding[];
  waitsFor: Holding[];
}

/** Something that is held or waited for, and how long it has been seen, in milliseconds. */
export interface Holding {
  what: string;
  since: number;
  brief: boolean;
}

/** Something that seems to be wrong, and its remedy. */
export interface Warning {
  /** Stable, for scripts. */
  code:
    | "frozen-holder"
    | "frozen"
    | "dead"
    | "long-hold"
    | "too-small"
    | "near-thrashing"
    | "clock"
    | "seats"
    | "disk-full";
  text: string;
}

/** The numbers of one moment. */
export interface Frame {
  /** Milliseconds that the rates are an average of; 0 in the first frame. */
  elapsed: number;
  rates: Rates | null;
  /** The share of the reads that found a value in that time, or in the whole life of the cache when there were no two looks yet. */
  hitRatio: number | null;
  /** The share of the reads that near caches answered. */
  nearShare: number | null;
  evictions: number | null;
  expirations: number | null;
  reclaims: number | null;
  entries: number | null;
  /** Bytes of these entries. */
  bytes: number | null;
  used: number;
  capacity: number;
  size: number;
  participants: Participant[];
  warnings: Warning[];
}

/** A point of the curves on the screen. */
export interface Point {
  at: number;
  operations: number;
  hitRatio: number | null;
}

/** Warnings about rates compare with a look this long ago, in milliseconds, so that one odd interval is no reason for one. */
const STEADY = 10_000;
/** A brief hold that lasts this long is a reason for a warning, in milliseconds. Locks and loads may last. */
const LONG_HOLD = 2_000;
/** How many things that somebody holds are named in a warning. */
const MOST_NAMED = 3;
/** The longest curve, in milliseconds. */
const HISTORY = 600_000;

/** Makes frames of looks. It remembers the former looks of one cache. */
export class Sampler {
  /** The looks of the last {@link STEADY} ms and one before, the oldest first. */
  #looks: Look[] = [];
  /** When each thing that is held now was first seen. */
  #firstSeen = new Map<string, number>();
  /** The past of the curves, the oldest first. */
  readonly history: Point[] = [];

  /** The frame of a new look. */
  frame(look: Look): Frame {
    const before = this.#looks.at(-1);
    this.#looks.push(look);
    while (this.#looks.length > 2 && look.at - (this.#looks[1] as Look).at >= STEADY) this.#looks.shift();
    const { counters } = look;
    const elapsed = before === undefined ? 0 : look.at - before.at;
    const delta = differences(before?.counters, counters);
    const perSecond = (count: number | undefined) =>
      count === undefined || elapsed <= 0 ? null : (count * 1000) / elapsed;
    const rates = ratesOf(delta, elapsed);
    const reads = delta ?? counters;
    const hitRatio = share(reads.hits, reads.hits + reads.misses);
    if (rates !== null) this.#remember({ at: look.at, operations: rates.operations, hitRatio });
    const participants = this.#participants(look, before, elapsed);
    return {
      elapsed,
      rates,
      hitRatio,
      nearShare: share(reads.nearHits, reads.hits + reads.misses),
      evictions: perSecond(delta?.evictions),
      expirations: perSecond(delta?.expirations),
      reclaims: perSecond(delta?.reclaims),
      entries: look.census?.entries ?? null,
      bytes: look.census?.bytes ?? null,
      used: counters.used,
      capacity: counters.capacity,
      size: counters.size,
      participants,
      warnings: [...warningsOfSeats(participants), ...warningsOfLooks(this.#looks)],
    };
  }

  #remember(point: Point): void {
    this.history.push(point);
    while (point.at - (this.history[0] as Point).at > HISTORY) this.history.shift();
  }

  #participants(look: Look, before: Look | undefined, elapsed: number): Participant[] {
    const former = new Map(before?.seats.map((seat) => [identity(seat), seat]));
    const seen = new Map<string, number>();
    const holdings = new Map<number, { holds: Holding[]; waitsFor: Holding[] }>();
    const idle = new Set(look.seats.filter((seat) => isIdle(former.get(identity(seat)), seat)).map(({ seat }) => seat));
    for (const { seat, what, waits, brief } of look.holds) {
      const id = `${seat} ${waits} ${what}`;
      const first = (!brief || idle.has(seat) ? this.#firstSeen.get(id) : undefined) ?? look.at;
      seen.set(id, first);
      const of = holdings.get(seat) ?? { holds: [], waitsFor: [] };
      holdings.set(seat, of);
      (waits ? of.waitsFor : of.holds).push({ what, since: look.at - first, brief });
    }
    this.#firstSeen = seen;
    return look.seats.map((seat) => {
      const delta = differences(former.get(identity(seat)), seat);
      const reads = delta ?? seat;
      return {
        seat: seat.seat,
        pid: seat.pid,
        threadId: seat.threadId,
        state: seat.state,
        freezer: seat.freezer,
        rates: ratesOf(delta, elapsed),
        nearShare: share(reads.nearHits, reads.hits + reads.misses),
        ...(holdings.get(seat.seat) ?? { holds: [], waitsFor: [] }),
      };
    });
  }
}

/** Whether a participant has done nothing that is counted since the former look. */
function isIdle(before: SeatLook | undefined, now: SeatLook): boolean {
  return before !== undefined && [...GROWS].every((name) => Reflect.get(before, name) === Reflect.get(now, name));
}

/** A seat that another thread has taken in the meantime is another participant. */
function identity({ seat, pid, threadId }: SeatLook): string {
  return `${seat} ${pid} ${threadId}`;
}

/**
 * What was added to each number. `undefined` when one of the counters went back, because then they belong to another cache or to another
 * participant.
 */
function differences<T extends object>(before: T | undefined, after: T): T | undefined {
  if (before === undefined) return undefined;
  const delta = Object.entries(after).map(([name, value]) => {
    const former = (before as Record<string, unknown>)[name];
    return [name, typeof value === "number" && typeof former === "number" ? value - former : value] as const;
  });
  const wentBack = delta.some(([name, value]) => GROWS.has(name) && (value as number) < 0);
  return wentBack ? undefined : (Object.fromEntries(delta) as T);
}

const GROWS = new Set(["hits", "misses", "sets", "deletes", "evictions", "expirations", "reclaims"]);

function ratesOf(
  delta: Pick<Counters, "hits" | "misses" | "sets" | "deletes"> | undefined,
  elapsed: number,
): Rates | null {
  if (delta === undefined || elapsed <= 0) return null;
  const perSecond = (count: number) => (count * 1000) / elapsed;
  const [reads, sets, deletes] = [
    perSecond(delta.hits + delta.misses),
    perSecond(delta.sets),
    perSecond(delta.deletes),
  ];
  return { operations: reads + sets + deletes, reads, sets, deletes };
}

/** A share from 0 to 1. The two counters are not read at the same instant, so the part may be a little larger than the whole. */
function share(part: number, whole: number): number | null {
  return whole > 0 ? Math.min(1, Math.max(0, part / whole)) : null;
}

function warningsOfSeats(participants: readonly Participant[]): Warning[] {
  const warnings: Warning[] = [];
  for (const { pid, threadId, state, holds, freezer } of participants) {
    const who = `process ${pid}${threadId === 0 ? "" : `, thread ${threadId},`}`;
    const longest = [...holds].sort((a, b) => b.since - a.since);
    const [held] = longest;
    const names = longest.slice(0, MOST_NAMED).map(({ what }) => what);
    const more = longest.length > MOST_NAMED ? ", …" : "";
    const seconds = Math.floor((held?.since ?? 0) / 1000);
    const thing = held && `${names.join(", ")}${more}${seconds > 0 ? ` for ${seconds} s` : ""}`;
    if (state === "frozen" && thing !== undefined) {
      const text =
        freezer === null
          ? `${who} is stopped and holds ${thing}: kill -CONT ${pid}, or end it with kill -9 ${pid}.`
          : `${who} is stopped by the freezer of its control group and holds ${thing}: ${thaw(freezer)}`;
      warnings.push({ code: "frozen-holder", text });
    } else if (state === "dead" && thing !== undefined) {
      const text = `${who} has died and held ${thing}: the next participant that needs it takes it over.`;
      warnings.push({ code: "dead", text });
    } else if (held?.brief && held.since >= LONG_HOLD) {
      const text = `${who} holds ${thing}, which takes microseconds else: does it get processor time?`;
      warnings.push({ code: "long-hold", text });
    }
  }
  const without = (state: State) => participants.filter((each) => each.state === state && each.holds.length === 0);
  const frozen = without("frozen");
  const dead = without("dead");
  if (frozen.length > 0) {
    const freezer = frozen.find((each) => each.freezer !== null)?.freezer ?? null;
    const remedy = freezer === null ? "Continue with kill -CONT." : `A freezer has stopped it: ${thaw(freezer)}`;
    const text = `${count(frozen.length, "participant is", "participants are")} stopped: ${pids(frozen)}. ${remedy}`;
    warnings.push({ code: "frozen", text });
  }
  if (dead.length > 0) {
    const text = `${count(dead.length, "participant has", "participants have")} died: ${pids(dead)}. The next to join takes the seat.`;
    warnings.push({ code: "dead", text });
  }
  const order: Warning["code"][] = ["frozen-holder", "long-hold", "frozen", "dead"];
  return warnings.sort((a, b) => order.indexOf(a.code) - order.indexOf(b.code));
}

/** How a group is thawed. */
function thaw(freezer: string): string {
  return `docker unpause, systemctl thaw, or write ${freezer.endsWith("freezer.state") ? "THAWED" : "0"} into ${freezer}.`;
}

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}

function pids(participants: readonly Participant[]): string {
  const all = [...new Set(participants.map(({ pid }) => pid))];
  return `pid ${all.slice(0, 3).join(", ")}${all.length > 3 ? " …" : ""}`;
}

/** Warnings about rates and room, from the oldest of the looks to the latest. */
function warningsOfLooks(looks: readonly Look[]): Warning[] {
  const [first, last] = [looks[0] as Look, looks.at(-1) as Look];
  const elapsed = last.at - first.at;
  const delta = looks.length > 1 && elapsed > 0 ? differences(first.counters, last.counters) : undefined;
  return [
    tooSmall(delta, elapsed, last),
    ...thrashing(first, last, elapsed),
    clocks(first, last),
    seatsOf(last),
    full(last),
  ].filter((each) => each !== undefined);
}

/** The cache is full, most of what is stored pushes something out, and half of the reads or more find nothing. */
function tooSmall(delta: Counters | undefined, elapsed: number, { counters }: Look): Warning | undefined {
  if (delta === undefined || elapsed <= 0) return undefined;
  const { hits, misses, sets, evictions } = delta;
  const perSecond = (evictions * 1000) / elapsed;
  const ratio = share(hits, hits + misses);
  if (perSecond < 1 || evictions < sets / 2 || ratio === null || ratio > 0.5) return undefined;
  if (counters.used < 0.8 * counters.capacity) return undefined;
  const text =
    `the cache is too small: ${Math.round(perSecond)} entries/s have to make room and only ${Math.round(100 * ratio)} % of the reads ` +
    "find a value. Open it with a larger size.";
  return { code: "too-small", text };
}

/**
 * A near cache that is asked often and seldom has the answer costs time and memory. One that never has an answer is probably turned off,
 * so it is no reason for a warning.
 */
function thrashing(first: Look, last: Look, elapsed: number): Warning[] {
  if (elapsed < STEADY / 2) return [];
  const former = new Map(first.seats.map((seat) => [identity(seat), seat]));
  const low = last.seats.flatMap((seat) => {
    const delta = differences(former.get(identity(seat)), seat);
    if (delta === undefined || delta.nearHits <= 0) return [];
    const reads = delta.hits + delta.misses;
    return (reads * 1000) / elapsed >= 1_000 && delta.hits >= reads / 2 && delta.nearHits < reads / 5
      ? [{ seat, percent: Math.round((100 * delta.nearHits) / reads) }]
      : [];
  });
  const [{ seat, percent } = { seat: undefined, percent: 0 }] = low.sort((a, b) => a.percent - b.percent);
  if (seat === undefined) return [];
  const others = low.length > 1 ? ` and ${low.length - 1} more` : "";
  const text =
    `the near cache of process ${seat.pid}${others} answers only ${percent} % of its reads: raise nearCache or nearCacheSize, or turn ` +
    "it off with nearCache: 0.";
  return [{ code: "near-thrashing", text }];
}

/** A participant whose clock is another one stores what expires for others too early or too late. */
function clocks(first: Look, last: Look): Warning | undefined {
  const former = new Map(first.seats.map((seat) => [identity(seat), seat]));
  const shifted = last.seats.flatMap((seat) => {
    const shift = clockShift(former.get(identity(seat))?.clock, seat.clock, first.wall[0], last.wall[1]);
    return shift ? [{ pid: seat.pid, shift }] : [];
  });
  const [one] = shifted;
  if (first === last || one === undefined) return undefined;
  const others = shifted.length > 1 ? `, and that of ${shifted.length - 1} more differs` : "";
  const text =
    `the clock of process ${one.pid} is ${ahead(one.shift)}${others}: what it stores expires for others at another time. Give all ` +
    "of them one clock.";
  return { code: "clock", text };
}

/** Nobody else can open the cache. A dead participant's seat is free for the next. */
function seatsOf({ seats, allSeats }: Look): Warning | undefined {
  if (seats.filter(({ state }) => state !== "dead").length < allSeats) return undefined;
  const text =
    `all ${allSeats} seats are taken, so nobody else can open the cache: close it in threads that do not need it, or create a larger ` +
    "one.";
  return { code: "seats", text };
}

/** No other cache can be created in a full directory. One that exists has taken all of its memory. */
function full({ disk }: Look): Warning | undefined {
  if (disk === undefined || disk.total <= 0 || disk.free >= disk.total / 20) return undefined;
  const text =
    `the file system of the cache is nearly full: ${Math.floor(disk.free / 2 ** 20)} MiB of ${Math.floor(disk.total / 2 ** 20)} MiB are ` +
    "free. cache-machine doctor says what takes the room.";
  return { code: "disk-full", text };
}
