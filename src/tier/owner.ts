/**
 * The owner: the one participant of a host that follows the changes on the server.
 *
 * Every participant stands for election by a lock of the cache. The one that has the lock opens a connection of its own on which the
 * server reports changed keys. Then, in this order:
 *
 * ```text
 *   listen ─► confirmed ─► raise the epoch ─► beat ─► renew the lease ─► beat ─► renew …
 *     ▲                                          │ a beat fails, the connection is lost, the server is no master any more
 *     └──────────── wait: 0, 50 ms … 2 s ◄───────┘
 * ```
 *
 * A lease says: every change that was acknowledged before `sent` is applied. It is true because
 * - every value in the memory was read after this owner was subscribed, since it raised the epoch after that, which also overtook the
 *   reads that were under way;
 * - the server sends the report of a change before it answers anything that it got after the change, on this connection, so the
 *   answer of a beat comes after the reports of all changes that were acknowledged before the beat was *sent*;
 * - the lease is renewed after those reports are applied.
 *
 * Nothing of this depends on who has the lock. Two owners at once each say something true of the same memory, because each has raised
 * the epoch after its own subscription and applies all changes itself. What a frozen owner has not applied, it has not published;
 * what it publishes when it wakes is about the time at which its beat was sent, and mostly over. So the lock only saves work. An owner
 * that was silent for too long, because it is frozen, loses it to another participant, without harm should it wake in that
 * moment.
 *
 * Nothing here keeps the process alive: the timers do not, and the clients open their connections accordingly.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { threadId } from "node:worker_threads";
import { machineTime } from "../coordinate/clock.ts";
import type { Lock } from "../index.ts";
import type { Client, Listener } from "./clients/client.ts";
import { hasCode } from "./errors.ts";
import type { Memory } from "./memory.ts";
import type { Names } from "./names.ts";
import { Pushes } from "./pushes.ts";
import type { OwnerReport, OwnerState } from "./types.ts";

/** The lock in the memory's `control`, and the key of the owner's report. */
const OWNER = "owner";
/** Milliseconds between two looks at the lock, the shortest and the longest. A dead owner is replaced after one of them. */
const FIRST_STAND_MS = 40;
const LAST_STAND_MS = 80;
/** The most milliseconds between two beats, and between two reports. With a shorter lease there are four of each in a lease. */
const MOST_PAUSE_MS = 5000;
/**
 * An owner is silent when it has reported nothing for as long as eight reports should take, and for as many milliseconds: to lose the lock costs all values of the memory, so a pause that any process may make is no silence.
 */
const SILENT_REPORTS = 8;
const SILENT_MS = 1000;
/** Milliseconds until a lost listener is opened again: the second time, and at most. The first time it is opened at once. */
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2000;
/** Milliseconds for which a listener has to last before its loss counts as the first one. */
const STEADY_MS = 5000;
/** Milliseconds that a client may take longer than its timeout, before it counts as one that never answers. */
const SLACK_MS = 500;
/** The most characters of an error in a report. */
const SHOWN = 200;
/** The most that a clock gains or loses in a millisecond while it is set by slewing. */
const SLEW = 0.0005;

/** As they are when the package is loaded: fake timers of a test do not stop them. */
const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
/** Runs a function outside of the asynchronous context of its caller, which would be kept for as long as the tier is open. */
const apart: <T>(run: () => T) => T = AsyncLocalStorage.snapshot();

/** How an owner works. */
export interface OwnerOptions {
  /** Milliseconds for which the memory is good after a beat was sent. */
  readonly lease: number;
  /** Milliseconds in which the server has to answer. */
  readonly timeout: number;
  /** Called when this participant becomes the owner, connects, or stops being the owner (`"standing"`). It must not throw. */
  onState?(state: OwnerState | "standing"): void;
  /** Called when the server has answered a beat of this participant. It must not throw. */
  onAnswer?(): void;
}

/** A report as it is published. */
interface Published extends Omit<OwnerReport, "age"> {
  /** The machine's time of the report. */
  at: number;
  lease: number;
  /** The fencing token of the owner's lock: larger for a later owner. */
  fence: number;
}

const NUMBERS = [
  "pid",
  "threadId",
  "since",
  "epochs",
  "invalidations",
  "beats",
  "roundTrip",
  "at",
  "lease",
  "fence",
] as const satisfies readonly (keyof Published)[];

function isClosed(error: unknown): boolean {
  return hasCode(error, "ERR_CLOSED");
}

/** Milliseconds between two beats, and between two reports. */
function pauseOf(lease: number): number {
  return Math.min(lease / 4, MOST_PAUSE_MS);
}

/** A number between `ms / 2` and `ms`: so that participants which have failed together do not try again together. */
function jittered(ms: number): number {
  return ms * (0.5 + Math.random() / 2);
}

/** Sleeps that can be ended, and do not keep the process alive. */
class Sleep {
  #wake: (() => void) | undefined;

  /** Resolves after a time, or at the next {@link end}. */
  async for(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((wake) => {
      this.#wake = wake;
      timer = setTimeout(wake, ms);
      timer.unref();
    });
    clearTimeout(timer);
  }

  end(): void {
    this.#wake?.();
  }
}

/** Stands for election, and follows the server for its host while it is elected. */
export class Owner {
  readonly #memory: Memory;
  readonly #client: Client;
  readonly #names: Names;
  readonly #options: OwnerOptions;
  readonly #sleep = new Sleep();
  #standing: Promise<void> | undefined;
  #reign: Reign | undefined;
  #closed = false;
  /** The latest reports that this participant has seen, and for how many milliseconds it has seen no other ones. */
  #heard = "";
  #silence = 0;
  #lastLook = 0;

  constructor(memory: Memory, client: Client, names: Names, options: OwnerOptions) {
    this.#memory = memory;
    this.#client = client;
    this.#names = names;
    this.#options = options;
  }

  /** Whether this participant is the owner. */
  get owns(): boolean {
    return this.#reign !== undefined;
  }

  /** Stands for election until {@link close}, or until the cache is closed. */
  start(): void {
    this.#standing ??= apart(() => this.#stand());
  }

  /** Gives the ownership up and closes the connection. Resolves when nothing is open any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#sleep.end();
    this.#reign?.end();
    await this.#standing;
  }

  /**
   * What the owner of this host has reported last; `undefined` when there was none yet. Its `age` says whether it is alive.
   *
   * @throws {CacheError} `ERR_CLOSED` when the cache was closed.
   */
  report(): OwnerReport | undefined {
    const published = reported(this.#memory);
    if (published === undefined) return undefined;
    const { at, lease, fence, ...report } = published;
    return { ...report, age: Math.max(0, machineTime() - at) };
  }

  async #stand(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#tryOnce();
      } catch (error) {
        if (isClosed(error)) break;
        // It was stolen, or there was no room for a lock, or somebody was in the way: next time.
      }
      if (this.#closed) break;
      await this.#sleep.for(FIRST_STAND_MS + Math.random() * (LAST_STAND_MS - FIRST_STAND_MS));
    }
  }

  /** Asks for the lock, and reigns if it is free, or if its holder is silent. Resolves when that is over. */
  async #tryOnce(): Promise<void> {
    const how = this.#isSilent() ? { steal: true } : { ifAvailable: true };
    let reigned: Promise<void> | undefined;
    try {
      await this.#memory.control.locks.request(OWNER, how, (lock) => {
        if (lock === null || this.#closed) return undefined;
        reigned = this.#rule(lock);
        return reigned;
      });
    } finally {
      // The request ends when the lock is stolen. The reign ends a little later.
      await reigned;
    }
  }

  async #rule({ signal: lost, fence }: Lock): Promise<void> {
    const reign = new Reign(this.#memory, this.#client, this.#names, this.#options, fence);
    const end = (): void => reign.end();
    this.#reign = reign;
    lost.addEventListener("abort", end);
    if (lost.aborted) end();
    try {
      await reign.run();
    } finally {
      lost.removeEventListener("abort", end);
      this.#reign = undefined;
      this.#silence = 0;
      this.#options.onState?.("standing");
    }
  }

  /**
   * Whether the holder of the lock was silent for too long. Silence is counted in looks of this participant, so time for which this
   * participant was frozen itself, perhaps together with the owner, counts as one look.
   */
  #isSilent(): boolean {
    const { control, lease } = this.#memory;
    const now = machineTime();
    const passed = Math.min(now - this.#lastLook, 2 * LAST_STAND_MS);
    this.#lastLook = now;
    // The lease too: should the report be stuck because somebody holds the lock of its bucket, the owner is not silent.
    const heard = `${control.get(OWNER)}/${this.#memory.published}`;
    if (heard !== this.#heard) {
      this.#heard = heard;
      this.#silence = 0;
      return false;
    }
    this.#silence += passed;
    const longest = Math.max(lease, reported(this.#memory)?.lease ?? 0);
    if (this.#silence <= Math.max(SILENT_REPORTS * pauseOf(longest), SILENT_MS)) return false;
    this.#silence = 0;
    return true;
  }
}

/** The latest report of an owner; `undefined` when there is none, or when it is damaged. */
function reported(memory: Memory): Published | undefined {
  try {
    const text = memory.control.get(OWNER);
    const report = JSON.parse(text as string) as Published;
    const { state, error } = report;
    const isValid =
      NUMBERS.every((name) => Number.isFinite(report[name])) &&
      (state === "connecting" || state === "following") &&
      (error === undefined || typeof error === "string");
    return isValid ? report : undefined;
  } catch (error) {
    if (isClosed(error)) throw error;
    return undefined;
  }
}

/** The time for which one participant is the owner. */
class Reign {
  readonly #memory: Memory;
  readonly #client: Client;
  readonly #names: Names;
  readonly #options: OwnerOptions;
  readonly #report: Published;
  readonly #sleep = new Sleep();
  readonly #clock = new ServerClock();
  /** Settled when the reign is to end. */
  readonly #ended: Promise<void>;
  #end: () => void = () => {};
  #isOver = false;

  constructor(memory: Memory, client: Client, names: Names, options: OwnerOptions, fence: number) {
    this.#memory = memory;
    this.#client = client;
    this.#names = names;
    this.#options = options;
    this.#ended = new Promise((resolve) => (this.#end = resolve));
    const { epochs = 0, invalidations = 0, beats = 0 } = reported(memory) ?? {};
    this.#report = {
      pid: process.pid,
      threadId,
      state: "connecting",
      since: Date.now(),
      epochs,
      invalidations,
      beats,
      roundTrip: 0,
      at: 0,
      lease: options.lease,
      fence,
    };
  }

  /** Ends the reign. {@link run} resolves when everything is closed. */
  end(): void {
    this.#isOver = true;
    this.#end();
    this.#sleep.end();
  }

  /** Follows the server until {@link end}. @throws {CacheError} `ERR_CLOSED` when the cache was closed. */
  async run(): Promise<void> {
    const { lease } = this.#options;
    // Also while it connects: who cannot reach the server is not silent.
    const reporting = setInterval(() => this.#publish(false), pauseOf(lease));
    reporting.unref();
    try {
      this.#enter("connecting", true);
      for (let wait = 0; !this.#isOver; ) {
        const began = machineTime();
        try {
          await this.#follow();
        } catch (error) {
          if (isClosed(error)) throw error;
          this.#report.error = String((error as Error)?.message ?? error).slice(0, SHOWN);
        }
        if (this.#isOver) break;
        this.#enter("connecting");
        if (machineTime() - began >= STEADY_MS) wait = 0;
        if (wait > 0) await this.#sleep.for(jittered(wait));
        wait = Math.min(Math.max(2 * wait, FIRST_RETRY_MS), LAST_RETRY_MS);
      }
    } finally {
      clearInterval(reporting);
    }
  }

  /** Opens one listener and follows it until it fails, or the reign ends. Rejects with the reason when it fails. */
  async #follow(): Promise<void> {
    const memory = this.#memory;
    let failed: (reason: unknown) => void = () => {};
    const failure = new Promise<never>((_, reject) => (failed = reject));
    // It may fail while nobody waits for it.
    failure.catch(() => {});
    const pushes = new Pushes(memory, failed);
    try {
      const listener = await this.#listen(pushes, failed, failure);
      if (listener === undefined) return;
      try {
        if (this.#isOver) return;
        memory.raise();
        this.#report.epochs++;
        await this.#beats(listener, pushes, failure);
      } finally {
        await this.#within(listener.close()).catch(() => {});
      }
    } finally {
      pushes.close();
    }
  }

  /** Opens a listener; `undefined` when the reign has ended. One that comes later is closed. */
  async #listen(
    pushes: Pushes,
    failed: (reason: unknown) => void,
    failure: Promise<never>,
  ): Promise<Listener | undefined> {
    const { timeout } = this.#options;
    const events = {
      prefixes: this.#names.tracked,
      onChanged: (keys: readonly string[] | null) => {
        this.#report.invalidations += keys === null ? 1 : keys.length;
        pushes.add(keys);
      },
      onEnd: failed,
    };
    let abandoned = false;
    const opening = this.#client.listen(events, timeout).then((listener) => {
      if (!abandoned) return listener;
      listener.close().catch(() => {});
      return undefined;
    });
    try {
      // Not ended early by `end`: nothing may be open when the reign is over.
      return await Promise.race([this.#within(opening), failure]);
    } catch (error) {
      abandoned = true;
      opening.catch(() => {});
      throw error;
    }
  }

  /** Beats until something fails or the reign ends. There is one beat at a time. */
  async #beats(listener: Listener, pushes: Pushes, failure: Promise<never>): Promise<void> {
    const { timeout, lease } = this.#options;
    while (!this.#isOver) {
      const sent = machineTime();
      const beat = this.#within(listener.beat(timeout));
      const time = await Promise.race([beat, failure, this.#ended]);
      if (time === undefined) {
        // The listener is being closed, which the beat is told too.
        beat.catch(() => {});
        return;
      }
      const received = machineTime();
      const offset = this.#clock.offset(time, sent, received);
      this.#report.roundTrip = received - sent;
      this.#options.onAnswer?.();
      await Promise.race([pushes.settled(), failure, this.#ended]);
      if (this.#isOver) return;
      this.#renew(sent, offset);
      this.#report.beats++;
      if (this.#report.state === "connecting") this.#enter("following");
      const pause = this.#sleep.for(Math.max(0, sent + pauseOf(lease) - machineTime()));
      await Promise.race([pause, failure]).finally(() => this.#sleep.end());
    }
  }

  #renew(sent: number, offset: number): void {
    try {
      this.#memory.renew(sent, offset);
    } catch (error) {
      if (isClosed(error)) throw error;
      // Somebody is in the way. The next beat renews it.
    }
  }

  /** Rejects when a client does not keep to its timeout. */
  async #within<T>(promise: Promise<T>): Promise<T> {
    const { timeout } = this.#options;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new Error(`${this.#client.library}: there was no answer, and no error, within ${timeout} ms`);
      timer = setTimeout(() => reject(error), timeout + SLACK_MS);
      timer.unref();
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #enter(state: OwnerState, isFirst = false): void {
    this.#report.state = state;
    if (state === "following") delete this.#report.error;
    this.#publish(isFirst);
    this.#options.onState?.(state);
  }

  /** @param isFirst whether the report of another owner is replaced in any case: it may be damaged */
  #publish(isFirst: boolean): void {
    if (this.#isOver) return;
    this.#report.at = machineTime();
    try {
      if (!isFirst && (reported(this.#memory)?.fence ?? 0) > this.#report.fence) {
        // The lock was stolen while this thread was frozen. The signal that tells of it may come later than this timer.
        this.end();
        return;
      }
      this.#memory.control.set(OWNER, JSON.stringify(this.#report));
    } catch {
      // Somebody is in the way, or the cache was closed, of which the lock tells.
    }
  }
}

/**
 * How far the server's clock is from the machine's (Cristian 1989). The server has read its clock between the sending of a beat and
 * the arrival of its answer. The estimate is the largest that is surely not ahead of the server.
 */
class ServerClock {
  #offset: number | undefined;
  #at = 0;

  /** The offset after a beat that was answered with the server's `time`. */
  offset(time: number, sent: number, received: number): number {
    const least = time - received;
    const most = time - sent;
    // What an earlier beat has shown, if the clocks have come closer by as much as they can, and if nobody has set them.
    const earlier = (this.#offset ?? -Infinity) - SLEW * (received - this.#at);
    this.#offset = earlier > least && earlier <= most ? earlier : least;
    this.#at = received;
    return this.#offset;
  }
}
