/**
 * The memory of a host in front of a server: namespaces of the cache that all its threads and processes share.
 *
 * One participant of the host, the *owner*, hears of every change on the server (owner.ts). It removes here what has changed, and
 * publishes a *lease*: a statement that every change which was acknowledged before a time `sent` has been applied here. So who reads
 * at `t` finds nothing that was overwritten before `sent`, and with `t < sent + lease` nothing that was overwritten more than
 * `lease` milliseconds before. The statement needs nobody to stay alive: an owner may die right after it.
 *
 * ```text
 *   cache ─┬─ values    what was read from the server, and the times of tags. The owner empties it before its first lease
 *          ├─ loads     flights of loaders. No value is ever stored here
 *          ├─ brief     one for each half of a lease: what was read while there was no lease, and flights of loaders
 *          └─ control   the lock of the owner, its lease, its report
 * ```
 *
 * Without a lease nobody says whether a value is outdated. But a value is as new as the beginning of its load, so for one `lease` after
 * that it is within the bound. It is kept in the *brief* namespace of the half of a lease in which its load began, and readers look
 * in the present one and in the one before. Loads begin there too: nobody would hear that one was overtaken, so nobody joins it who
 * comes later than that.
 *
 * A reader compares the lease with a clock that nobody sets and that all processes of the machine share. The clock stands still while
 * the machine is suspended, or a virtual machine is paused: this time does not count. After it, values may be outdated by all of
 * the pause until the lease ends, at most `lease` later, or until the owner has applied what the server has sent meanwhile.
 */

import { createHash } from "node:crypto";
import { machineTime } from "../coordinate/clock.ts";
import type { Cache, Entry, Key, Leased } from "../index.ts";
import { hasCode } from "./errors.ts";
import type { Names } from "./names.ts";

/** Stands in the memory for a key that is known to be absent on the server. A text that nobody stores as a value. */
export const ABSENT: "\u{0}cache-machine: absent on the server\u{0}" = "\u{0}cache-machine: absent on the server\u{0}";

/** Milliseconds between two looks at a lease that is over. */
const LOOK_MS = 5;
/** The most places that are kept for paths of which only the server speaks. */
const MOST_PLACES = 1000;

/** Bytes of the longest prefix that namespaces are named by as it is. */
const LONGEST_ID = 48;

/** Bytes of the longest lease or report. */
const LONGEST_ENTRY = 1000;

/** The key of the lease in `control`. */
const LEASE = "lease";

/** The clock of `Cache.leased`: it is the machine's clock with another beginning. */
const monotonic: () => number = performance.now.bind(performance);

/** A lease as it is published. */
interface Published {
  /** The machine's time before which every acknowledged change has been applied. */
  readonly sent: number;
  /** Milliseconds from the machine's time to the server's time. */
  readonly offset: number;
}

/** Whether a change was refused because another participant is in the way. */
function isBusy(error: unknown): boolean {
  return hasCode(error, "ERR_BUSY");
}

/** What stands for a prefix in the names of namespaces. All names of a path together have 255 bytes: a long prefix leaves room for them. */
function idOf(prefix: string): string {
  if (Buffer.byteLength(prefix) <= LONGEST_ID) return `:${prefix}`;
  return `#${createHash("sha256").update(prefix).digest("base64url")}`;
}

/**
 * Checks that the leases and reports of an owner can be stored. Without them the memory would never be good, and nothing would say why.
 *
 * @throws {RangeError} when the entries of the cache are too small for that.
 */
function checkRoom(control: Cache<any, string>): void {
  try {
    control.set("room", "x".repeat(LONGEST_ENTRY));
    control.delete("room");
  } catch (error) {
    if (isBusy(error)) return;
    if (!hasCode(error, "ERR_TOO_LARGE")) throw error;
    throw new RangeError(
      `cache: has too small a maxEntrySize for a tier, which needs entries of ${LONGEST_ENTRY} bytes. Open it with a larger one.`,
      { cause: error },
    );
  }
}

/** The memory of a host, as one participant uses it. */
export class Memory {
  /** Milliseconds for which a statement of the owner is good. */
  readonly lease: number;
  /** For the lock and the reports of owners. Raising the epoch leaves it alone. */
  readonly control: Cache<any, string>;
  /** The lease that `Cache.leased` reads: until when, in time of `performance.now()`. */
  readonly until: { until: number } = { until: -Infinity };
  /** Whether values are used after the lease, too. */
  readonly serves: boolean;
  readonly names: Names;

  readonly #cache: Cache<any, any>;
  readonly #id: string;
  readonly #half: number;
  readonly #root: Place;
  readonly #places = new Map<string, Place>();
  /** The brief namespaces: the present half of a lease and the one before. */
  #brief: { readonly number: number; readonly space: Cache<any, any> }[] = [];
  #offset: number | undefined;
  #nextLook = -Infinity;
  #closed = false;

  /**
   * @param prefix of the keys on the server; each has a memory of its own
   * @param lease milliseconds
   * @param serves whether values are used after the lease, too: `onDisconnect: "serve"`
   * @throws {RangeError} when the cache has too small a `maxEntrySize`.
   * @throws {CacheError} `ERR_CLOSED`.
   */
  constructor(cache: Cache<any, any>, prefix: string, lease: number, names: Names, serves = false) {
    this.#cache = cache;
    this.#id = idOf(prefix);
    this.lease = lease;
    this.names = names;
    this.serves = serves;
    this.#half = lease / 2;
    // Whoever stores something in them says how long it lives. The cache's default may be shorter than a lease.
    const forever = { ttl: Infinity };
    this.control = cache.namespace(`tier control ${this.#id}`, forever);
    const values = cache.namespace<any, any>(`tier values ${this.#id}`, forever);
    this.#root = new Place(this, [], values, cache.namespace(`tier loads ${this.#id}`, forever));
    checkRoom(this.control);
  }

  // ---- places

  /**
   * The memory of a namespace of the tier.
   *
   * @throws {RangeError} when namespaces are nested too deep, or their names are too long.
   */
  at(path: readonly string[]): Place {
    return path.reduce((place, name) => place.within(name), this.#root);
  }

  /** As {@link at}, for a path that came from the server. Few of these are kept. */
  #of(path: readonly string[]): Place {
    if (path.length === 0) return this.#root;
    const id = path.map((name) => `${name.length}:${name}`).join("");
    let place = this.#places.get(id);
    if (place === undefined) {
      place = this.at(path);
      if (this.#places.size >= MOST_PLACES) this.#places.clear();
      this.#places.set(id, place);
    }
    return place;
  }

  // ---- the lease

  /** Whether every read that begins now may use the values. */
  get isGood(): boolean {
    return monotonic() < this.until.until || this.#look();
  }

  /** Milliseconds until the lease ends that was published last; 0 when there is none. */
  get leaseLeft(): number {
    const sent = this.#closed ? undefined : this.published;
    return sent === undefined ? 0 : Math.max(0, sent + this.lease - machineTime());
  }

  /**
   * The server's time in milliseconds, as the latest beat has measured it: never ahead of the server, and behind it by no more than a
   * round trip took. `undefined` until an owner has published one.
   */
  serverNow(): number | undefined {
    if (this.#offset === undefined || monotonic() >= this.until.until) this.#look();
    return this.#offset === undefined ? undefined : machineTime() + this.#offset;
  }

  /** Reads the published lease, but not again within {@link LOOK_MS}. Returns whether it is good. */
  #look(): boolean {
    const now = monotonic();
    if (now < this.#nextLook || this.#closed) return false;
    this.#nextLook = now + LOOK_MS;
    const published = this.#published();
    if (published === undefined) return false;
    this.#offset = published.offset;
    // `now` was read before the machine's time, so the lease ends too early rather than too late.
    this.until.until = now + (published.sent + this.lease - machineTime());
    return now < this.until.until;
  }

  /**
   * The lease that the last owner has published; `undefined` when there is none. It may be evicted, which ends it too early, until the
   * next beat. Both times are written twice, so that damaged bytes are no lease. A time in the future is none either.
   */
  #published(): Published | undefined {
    let text: unknown;
    try {
      text = this.control.get(LEASE);
    } catch (error) {
      if (hasCode(error, "ERR_DATA")) return undefined;
      throw error;
    }
    if (typeof text !== "string") return undefined;
    const [first, second, ...more] = text.split("|");
    if (first === undefined || first !== second || more.length > 0) return undefined;
    const [sent, offset, ...rest] = first.split(" ").map(Number);
    const isValid = Number.isFinite(sent) && Number.isFinite(offset) && rest.length === 0;
    return isValid && (sent as number) <= machineTime()
      ? { sent: sent as number, offset: offset as number }
      : undefined;
  }

  /** The machine's time that the published lease begins with; `undefined` when there is none. */
  get published(): number | undefined {
    return this.#published()?.sent;
  }

  /**
   * For the owner: publishes a lease.
   *
   * A lease of another owner that says more is left. That owner is right too: see owner.ts.
   *
   * @param sent the machine's time before which every acknowledged change has been applied: that at which a beat was *sent*
   * @param offset milliseconds from the machine's time to the server's
   * @throws {CacheError} `ERR_BUSY`, `ERR_CLOSED`. Then the lease before stands.
   */
  renew(sent: number, offset: number): void {
    if ((this.#published()?.sent ?? -Infinity) > sent) return;
    const text = `${sent} ${offset}`;
    this.control.set(LEASE, `${text}|${text}`);
    this.#nextLook = -Infinity;
  }

  // ---- changes

  /**
   * For the owner: removes what has changed on the server, and overtakes loads of it. `null`: anything may have changed.
   *
   * When another participant is in the way of one removal, all values are removed in one step, which nobody can be in the way of.
   *
   * @returns false when all values were removed
   * @throws {CacheError} `ERR_CLOSED`.
   */
  apply(keys: readonly string[] | null): boolean {
    try {
      if (keys !== null) {
        for (const name of keys) this.#applyOne(name);
        return true;
      }
    } catch (error) {
      if (hasCode(error, "ERR_CLOSED")) throw error;
    }
    this.#empty();
    return false;
  }

  #applyOne(name: string): void {
    const changed = this.names.parse(name);
    // No entry of a tier has this name.
    if (changed === undefined) return;
    const { kind, path } = changed;
    const place = this.#of(path);
    if (kind === "value") place.forget(changed.key);
    else place.forgetTag(changed.tag);
  }

  /** Nothing that was read or is being loaded before this is used after it. */
  #empty(): void {
    this.#root.main.clear();
    this.#root.loads.clear();
  }

  /**
   * For the owner: raises the epoch. Every value that was read from the server, or is being read, belongs to the epoch before and is not
   * used any more. Loads too: one that is under way may have been overtaken by a change that nobody here has heard of, so nobody
   * may join it. Its own callers get its value.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  raise(): void {
    this.#empty();
  }

  /** After a change of this host that another participant was in the way of: removes everything. */
  emptyAll(): void {
    this.#empty();
    for (const { space } of this.briefs()) space.clear();
  }

  // ---- without a lease

  /** The number of the present half of a lease. */
  bucket(): number {
    return Math.floor(machineTime() / this.#half);
  }

  /** The namespaces of the present half of a lease and of the one before, the present one first. */
  briefs(): readonly { readonly number: number; readonly space: Cache<any, any> }[] {
    const number = this.bucket();
    if (this.#brief[0]?.number !== number) {
      const known = this.#brief;
      this.#brief = [number, number - 1].map(
        (each) => known.find((old) => old.number === each) ?? { number: each, space: this.#briefOf(each) },
      );
    }
    return this.#brief;
  }

  /** Who has another lease counts other halves, so the name says how long they are. */
  #briefOf(number: number): Cache<any, any> {
    return this.#cache.namespace(`tier brief ${this.#half} ${number} ${this.#id}`, { ttl: this.lease });
  }

  /** From now on no lease is good here. The cache is the user's and stays open. */
  close(): void {
    this.#closed = true;
    this.until.until = -Infinity;
  }
}

/** What one namespace of the tier has for a half of a lease. */
interface Brief {
  readonly number: number;
  readonly values: Cache<any, any>;
  /** For flights of loaders. Within the values. */
  readonly loads: Cache<any, any>;
}

/** The memory of one namespace of the tier. Its owner keeps the object, because a read must not search for it. */
export class Place {
  readonly path: readonly string[];
  /** What was read from the server: values with their tags, or {@link ABSENT}. To be used under the lease only. */
  readonly main: Cache<any, any>;
  /** For flights of loaders under the lease: see {@link loading}. They are overtaken by the same changes as those of `main`. */
  readonly loads: Cache<any, any>;
  readonly #memory: Memory;
  readonly #leased: Leased<any, any>;
  #times: Cache<number, string> | undefined;
  #failed: Cache<any, any> | undefined;
  #known: readonly Brief[] = [];
  /** Until when this participant has to look for what it has kept without a server, in time of `performance.now()`. */
  #keptUntil = -Infinity;

  /** @internal */
  constructor(memory: Memory, path: readonly string[], main: Cache<any, any>, loads: Cache<any, any>) {
    this.#memory = memory;
    this.path = path;
    this.main = main;
    this.loads = loads;
    this.#leased = main.leased(memory.until);
  }

  /** @internal */
  within(name: string): Place {
    const { main, loads } = this;
    return new Place(this.#memory, [...this.path, name], main.namespace(`n${name}`), loads.namespace(`n${name}`));
  }

  /** When tags were invalidated, in microseconds of the server's clock. To be used under the lease only. Within `main`. */
  get times(): Cache<number, string> {
    this.#times ??= this.main.namespace<number, string>("t");
    return this.#times;
  }

  // ---- reading

  /**
   * What this host knows of a key, without asking the server: the value, {@link ABSENT}, or `undefined` when it does not know.
   *
   * @throws {TypeError} and {CacheError} as {@link Cache.get}.
   */
  peek(key: Key): unknown {
    const value = this.#leased.get(key);
    return value === undefined ? this.#peekAgain(key) : value;
  }

  /** After the values had none, or there was no lease. */
  #peekAgain(key: Key): unknown {
    const memory = this.#memory;
    const now = monotonic();
    if (now >= memory.until.until && memory.isGood) {
      const value = this.#leased.get(key);
      if (value !== undefined) return value;
    }
    const isGood = now < memory.until.until;
    if (isGood && now >= this.#keptUntil) return undefined;
    for (const { values, loads } of this.#briefs()) {
      const value = values.get(key) ?? loads.get(key);
      if (value !== undefined) return value;
    }
    return !isGood && memory.serves ? this.main.get(key) : undefined;
  }

  /**
   * As {@link peek}, with the expiry and the tags.
   *
   * @throws {TypeError} and {CacheError} as {@link Cache.getEntry}.
   */
  entry(key: Key): Entry<unknown> | typeof ABSENT | undefined {
    const entry = this.#entry(key);
    return entry?.value === ABSENT ? ABSENT : entry;
  }

  #entry(key: Key): Entry<unknown> | undefined {
    const memory = this.#memory;
    const { isGood } = memory;
    if (isGood) {
      const entry = this.main.getEntry(key);
      if (entry !== undefined || monotonic() >= this.#keptUntil) return entry;
    }
    for (const { values, loads } of this.#briefs()) {
      const entry = values.getEntry(key) ?? loads.getEntry(key);
      if (entry !== undefined) return entry;
    }
    return !isGood && memory.serves ? this.main.getEntry(key) : undefined;
  }

  /** Where a read of the server that begins now has its flight and leaves its value. To be asked for each read. */
  current(): Cache<any, any> {
    const memory = this.#memory;
    return memory.serves || memory.isGood ? this.main : (this.#briefs()[0] as Brief).values;
  }

  /**
   * Where a loader that begins now has its flight. To be asked for each load. While the server is away, the flight may store its value
   * there, if {@link keep} says so: like all that was loaded, it is within the bound for one lease after its load began, and a
   * change of this host overtakes it. Elsewhere no value is to be stored.
   *
   * @param isAway whether the server is away
   */
  loading(isAway: boolean): Cache<any, any> {
    const memory = this.#memory;
    return !isAway && (memory.serves || memory.isGood) ? this.loads : (this.#briefs()[0] as Brief).loads;
  }

  /**
   * Before a flight of a loader ends whose value is not on the server: for how many milliseconds the flight is to keep the value. 0: not
   * at all.
   *
   * @param space of the flight
   */
  keep(space: Cache<any, any>): number {
    if (space === this.loads) return 0;
    const { lease } = this.#memory;
    this.#keptUntil = monotonic() + lease;
    return lease;
  }

  // ---- loads that have failed

  /** Whether a load of this key has failed on this host, and is not to be tried again yet. */
  isBackingOff(key: Key): boolean {
    return this.#failures.has(key);
  }

  /** After a load of this key has failed: it is not to be tried again for some milliseconds, by nobody on this host. */
  backOff(key: Key, ms: number): void {
    // When there is no room for this, it is tried again earlier.
    if (ms > 0) this.#failures.trySet(key, 1, { ttl: ms });
  }

  get #failures(): Cache<any, any> {
    this.#failed ??= this.loads.namespace("f");
    return this.#failed;
  }

  // ---- changes of this host

  /** After a change on the server: nobody on this host reads what was there before. @throws {CacheError} `ERR_CLOSED`. */
  drop(key: Key): void {
    this.#surely(() => {
      this.forget(key);
      for (const { values, loads } of this.#briefs()) {
        values.delete(key);
        loads.delete(key);
      }
    });
  }

  /** After an invalidation of tags on the server, as {@link drop}. @throws {CacheError} `ERR_CLOSED`. */
  dropTags(tags: readonly string[]): void {
    this.#surely(() => {
      for (const tag of tags) this.forgetTag(tag);
      for (const { values, loads } of this.#briefs()) {
        values.invalidateTag(...tags);
        loads.invalidateTag(...tags);
      }
    });
  }

  /** After the namespace was emptied on the server, with those within it, as {@link drop}. @throws {CacheError} `ERR_CLOSED`. */
  clear(): void {
    this.main.clear();
    this.loads.clear();
    // With the loads within.
    for (const { values } of this.#briefs()) values.clear();
  }

  /** @internal */
  forget(key: Key): void {
    this.main.delete(key);
    this.loads.delete(key);
  }

  /**
   * The time of the tag goes first. Otherwise a reader might find the old time after the invalidation, and take a value of before it
   * for a new one.
   *
   * @internal
   */
  forgetTag(tag: string): void {
    this.times.delete(tag);
    this.main.invalidateTag(tag);
    this.loads.invalidateTag(tag);
  }

  /** Makes a change, or empties the memory when another participant is in the way of it. */
  #surely(change: () => void): void {
    try {
      change();
    } catch (error) {
      if (!isBusy(error)) throw error;
      this.#memory.emptyAll();
    }
  }

  /** What this place has for the present half of a lease, and for the one before. */
  #briefs(): readonly Brief[] {
    const briefs = this.#memory.briefs();
    const known = this.#known;
    if (known[0]?.number !== briefs[0]?.number) {
      this.#known = briefs.map(
        ({ number, space }) => known.find((old) => old.number === number) ?? { number, ...this.#briefOf(space) },
      );
    }
    return this.#known;
  }

  #briefOf(outermost: Cache<any, any>): { values: Cache<any, any>; loads: Cache<any, any> } {
    const values = this.path.reduce((outer, name) => outer.namespace(`n${name}`), outermost);
    return { values, loads: values.namespace("l") };
  }
}
