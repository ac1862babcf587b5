/**
 * One loader for all: the loads of one opening of a cache. A *flight* is one load of one key, and all calls of this thread that
 * wait for it. Of all flights of a key, in all threads and processes, one holds the claim of the key and runs its loader; the
 * others wait until that claim has ended. A value that is there never gets here, unless a call asks for a fresh one.
 *
 * ```text
 *           ┌────────── the claim has ended, or its owner is dead, or its lease is over ◄────────┐
 *           ▼                                                                                    │
 *   call ─► claim ─► CLAIMED: run the loader ─► store under the claim, which ends it             │
 *             │                                    └► not stored: write the outcome, release     │
 *             ├────► PRESENT: somebody has stored a value                                        │
 *             └────► TAKEN: wait ────────────────────────────────────────────────────────────────┘
 * ```
 *
 * The claim decides what may be stored: a change of the key marks it as overtaken, and the engine refuses the store (see
 * wasm/src/coordinate/claims.rs). This file decides who gets a value that was not stored: those who were there before the
 * change. Who comes later starts a flight of its own.
 *
 * A flight outlives its calls. A call may give up by its timeout or its signal, and the flight goes on. Only when the last call
 * has given up by its signal, the loader is told to stop.
 *
 * Must not know how a value is stored, nor which options a user can give: see src/cache/.
 */

import { BUSY, CLAIM_FRESH, CLAIM_WAIT, CLAIMED, CLAIMS_FULL, GONE, PRESENT, STANDS } from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import type { Waiter } from "../engine/wakeups.ts";
import { busy, CacheError, closed, loadFailed, timedOut } from "../errors.ts";
import { clearTimeout, keepAlive, setTimeout, type Timer } from "../system/timers.ts";
import { machineTime } from "./clock.ts";
import type { Found, Loading, OutcomeKind, Storing } from "./loading.ts";
import {
  contextOfCall,
  dependsOn,
  endLoader,
  type Loader,
  loaderOfCall,
  loads,
  runLoader,
  type Waiting,
} from "./nesting.ts";
import type { Outcome, Outcomes, Start } from "./outcomes.ts";
import { type AnyKey, copyOfKey, idOf, LONGEST_TIMER, type Scoped, shown, whenAborted } from "./scoped.ts";
import { isThenable, type Trace, traceOf } from "./tracing.ts";

/** What is needed of a cache: the view of one scope. */
export interface LoadView extends Scoped {
  /** Whether readers share one frozen object. */
  readonly sharesObjects: boolean;
  /** Milliseconds that a value lives by default. */
  readonly ttl: number;
  /** Writes a key that is to be stored to the area. @throws {CacheError} `ERR_CLOSED`, `ERR_TOO_LARGE`. */
  writeNewKey(key: AnyKey): number;
  /** The entry of a key, also when it is within its grace. `quiet`: this is not counted as a read. */
  staleEntry(key: AnyKey, quiet: boolean): Found | undefined;
  /**
   * Stores a loaded value, if its claim stands, and releases the claim. Returns false when the value was not stored. The version
   * is in the engine.
   *
   * @throws {TypeError}, {RangeError} and {CacheError} when the value or a tag can never be stored.
   */
  commit(key: AnyKey, value: unknown, storing: Storing, claim: number, token: number): boolean;
  /** A text that changes with each `clear` of the scope or of one around it. */
  clearings(): string;
  /** Returns a function that makes copies of a value, as readers get them. */
  copier(value: unknown): () => unknown;
}

/** Runs the loader of a flight that has the claim. */
export type Load = (flight: Flight) => unknown;

/** Milliseconds for which a flight waits for a free claim, and between two of its tries. */
const FULL_MS = 1000;
const FULL_AGAIN_MS = 20;
/** A value that lives shorter is handed to those who wait as an outcome, too: it may expire before they wake. In milliseconds. */
const SHORT_LIVED_MS = 1000;
/** How often a claim may find a value that nobody can read here, before the value is replaced. */
const UNREADABLE = 16;

/** The flights of this thread that run a loader, by the token of their claim. */
const loading: WeakMap<Engine, Map<number, Flight>> = new WeakMap();

function loadingIn(engine: Engine): Map<number, Flight> {
  let flights = loading.get(engine);
  if (flights === undefined) loading.set(engine, (flights = new Map()));
  return flights;
}

/** Whether a call that came at `since` came before every invalidation after `start`. Both numbers may wrap around. */
function isBefore(since: Start, start: Start): boolean {
  return ((start.sequence - since.sequence) | 0) >= 0 && ((start.clearEpoch - since.clearEpoch) | 0) >= 0;
}

function startOf({ sequence, clearEpoch }: Engine): Start {
  return { sequence, clearEpoch };
}

// ---- calls

/** One call of `getOrSet` that did not find what it wants. */
export class Call {
  readonly view: LoadView;
  readonly key: AnyKey;
  readonly id: string;
  readonly load: Load;
  readonly options: Loading;
  readonly #resolve: (value: unknown) => void;
  readonly #reject: (error: unknown) => void;
  /** The loader in which the call was made. */
  readonly inside: Loader | undefined = loaderOfCall();
  /** Runs a function in the asynchronous context of the call. */
  context: (<T>(body: () => T) => T) | undefined;
  /** What had been invalidated when the call joined its flight. */
  since: Start;
  /** Whether an old value may stand in. */
  mayBeStale = false;
  flight: Flight | undefined;
  #over = false;
  #limited = false;
  #timers: Timer[] = [];
  #forgetSignal: (() => void) | undefined;

  constructor(
    view: LoadView,
    key: AnyKey,
    load: Load,
    options: Loading,
    resolve: (value: unknown) => void,
    reject: (error: unknown) => void,
  ) {
    this.view = view;
    this.key = copyOfKey(key);
    this.id = idOf(view, key);
    this.load = load;
    this.options = options;
    this.since = startOf(view.engine);
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Ends the call with a value. */
  give(kind: OutcomeKind, { value, version, expiresAt, tags }: Found): void {
    if (!this.#end()) return;
    try {
      this.options.onOutcome?.(kind, { value, version, expiresAt, tags }, this.key);
      this.#resolve(value);
    } catch (error) {
      this.#reject(error);
    }
  }

  /** Ends the call with an error. */
  fail(error: unknown): void {
    if (this.#end()) this.#reject(error);
  }

  /** Ends the call with the old value, if it may have it and there is one still. Returns whether it did. */
  giveOld(): boolean {
    if (!this.mayBeStale) return false;
    let found: Found | undefined;
    try {
      found = readable(this.view, this.key);
    } catch {
      // The cache was closed, or its clock has failed. The caller has an error of its own to tell.
    }
    if (found === undefined) return false;
    this.give(found.stale ? "stale" : "hit", found);
    return true;
  }

  /** Before the call waits: sets its limits, once. */
  limit(): void {
    if (this.#over || this.#limited) return;
    this.#limited = true;
    // Its loader may run later, in the task of a timer or of somebody else.
    if (this.flight?.isRunning(this) === false) this.context = contextOfCall();
    const { timeout, graceWait, signal } = this.options;
    this.#forgetSignal = signal && whenAborted(signal, () => this.#giveUp(signal.reason));
    if (this.mayBeStale && graceWait < timeout) this.#after(graceWait, () => this.giveOld());
    this.#after(timeout, () => this.giveOld() || this.fail(timedOut("the value", timeout)));
  }

  /** After a time, does something that may end the call. The load goes on without it, for the cache. */
  #after(milliseconds: number, action: () => void): void {
    if (milliseconds > LONGEST_TIMER) return;
    const end = (): void => {
      const { flight } = this;
      if (flight !== undefined) flight.kept = true;
      action();
      flight?.abandon(undefined);
    };
    this.#timers.push(setTimeout(end, milliseconds));
  }

  #giveUp(reason: unknown): void {
    const { flight } = this;
    this.fail(reason);
    flight?.abandon(reason);
  }

  #end(): boolean {
    if (this.#over) return false;
    this.#over = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#forgetSignal?.();
    this.leave();
    return true;
  }

  /** Leaves its flight. */
  leave(): void {
    this.flight?.calls.delete(this);
    this.flight = undefined;
    this.inside?.pending.delete(this);
  }
}

/** The latest value of a key. A value that cannot be read here counts as none. */
function readable(view: LoadView, key: AnyKey): Found | undefined {
  try {
    return view.staleEntry(key, true);
  } catch (error) {
    if (!(error instanceof CacheError) || error.code !== "ERR_DATA") throw error;
    return undefined;
  }
}

// ---- flights

/** What a loader is told, and what it may say. */
export class Context {
  readonly key: AnyKey;
  /** Whether nobody waits for this load: an old value is refreshed. */
  readonly background: boolean;
  /** The entry of the key when the load began: an old value, or one that is to be replaced by a fresh one. */
  readonly stale: Found | undefined;
  ttl: number | undefined;
  tags: readonly string[] | undefined;
  readonly #flight: Flight;

  constructor(flight: Flight, stale: Found | undefined) {
    this.#flight = flight;
    this.key = flight.key;
    this.background = flight.background;
    this.stale = stale;
  }

  get signal(): AbortSignal {
    return this.#flight.signal;
  }

  /** A function of its own, so that loaders can take it from the context. */
  readonly unchanged = (): unknown => {
    if (this.stale === undefined) {
      throw new TypeError("unchanged: there is no old value. Look at `stale` first, and load the value without it.");
    }
    this.tags ??= this.stale.tags;
    return this.stale.value;
  };
}

type State = "new" | "waiting" | "loading" | "over";

/** One load of one key in this thread, or the wait for the load of somebody else. */
export class Flight implements Waiting {
  readonly view: LoadView;
  readonly key: AnyKey;
  readonly id: string;
  readonly options: Loading;
  /** Whether nobody waited when it began. */
  readonly background: boolean;
  readonly calls: Set<Call> = new Set();
  /** Whether the load is to go on when the last call has gone. */
  kept: boolean;
  /** Whether the load that it waits for, or runs, began after the first call. */
  begun: boolean;
  loader: Loader | undefined;
  behind: Flight | undefined;
  context: Context | undefined;
  /** The events of its loader, while somebody listens to them. */
  trace: Trace | undefined;
  /** Told when the loader is told to stop. */
  onAbort: (() => void) | undefined;
  /** Whether the loader was told to stop. */
  aborted = false;

  readonly #flights: Flights;
  readonly #engine: Engine;
  /** The call that has started the flight, whose loader it runs. */
  readonly #first: Call;
  /** For a refresh ahead of the expiry: the expiry of the entry that is to be replaced. */
  readonly #ahead: number | undefined;
  #state: State = "new";
  /** Whether a value that is there is not new enough. */
  #fresh: boolean;
  /** The token of the load whose result is too old for this flight. */
  #tooOld = 0;
  #claim = 0;
  #token = 0;
  #start: Start;
  /** What had been cleared when the loader began. */
  #clearings = "";
  #waiter: Waiter | undefined;
  /** Whether the flight has waited for somebody else. */
  #hasWaited = false;
  #timer: Timer | undefined;
  /** Since when all claims are taken. */
  #fullSince: number | undefined;
  #controller: AbortController | undefined;
  #reason: unknown;

  /** @param ahead the expiry of the entry that is to be replaced, for a refresh ahead of it */
  constructor(flights: Flights, call: Call, background: boolean, fresh: boolean, ahead?: number) {
    this.#flights = flights;
    this.#first = call;
    this.view = call.view;
    this.#engine = call.view.engine;
    this.key = call.key;
    this.id = call.id;
    this.options = call.options;
    this.background = background;
    this.kept = background;
    this.#ahead = ahead;
    this.#fresh = fresh;
    this.begun = !call.options.fresh;
    this.#start = call.since;
  }

  /** The loader in which the call that started the flight waits. */
  get within(): Loader | undefined {
    return this.background ? undefined : this.#first.inside;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.aborted) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Whether the loader of this call runs already. */
  isRunning(call: Call): boolean {
    return this.#state === "loading" && this.#first === call;
  }

  /** Whether a call that comes now may have the result of this flight. */
  isOpen(): boolean {
    if (this.#token === 0 || !this.begun) return this.#state !== "over";
    return (
      this.#engine.stands(this.#claim, this.#token) === STANDS && this.#start.clearEpoch === this.#engine.clearEpoch
    );
  }

  /** Begins, or goes on after the claim of somebody else has ended. */
  go(): void {
    try {
      this.#tryToClaim();
    } catch (error) {
      this.#crash(error);
    }
  }

  /** Ends the flight with an error of the cache, or with that of somebody else's loader. */
  #crash(error: unknown): void {
    if (this.#state === "loading") this.#release(undefined);
    const calls = this.#end();
    for (const call of calls) call.giveOld() || call.fail(error);
  }

  #tryToClaim(): void {
    const engine = this.#engine;
    for (let unreadable = 0; ; ) {
      const written = this.view.writeNewKey(this.key);
      const now = machineTime();
      const flags = (this.#fresh ? CLAIM_FRESH : 0) | (this.#waiter === undefined ? 0 : CLAIM_WAIT);
      const result = engine.claim(written, flags, now + this.options.lease, now);
      if (result === CLAIMED) {
        this.#run();
        return;
      }
      if (result === BUSY) throw busy("another participant is in the way");
      if (result === PRESENT) {
        const found = readable(this.view, this.key);
        if (found?.stale === false) {
          this.#hand(found, this.#hasWaited ? "joined" : "hit", undefined);
          return;
        }
        // It has gone again, or nobody can read it here. Then it is replaced.
        if (++unreadable === UNREADABLE) this.#fresh = true;
      } else if (this.background) {
        // Somebody else refreshes the value.
        this.#end();
        return;
      } else if (result === CLAIMS_FULL) {
        // While this thread loads other keys itself, it waits for its own claims.
        const mayWait = loadingIn(engine).size > 0 && [...this.calls].every(({ inside }) => inside === undefined);
        if (mayWait) this.#fullSince = now;
        this.#fullSince ??= now;
        if (now - this.#fullSince > FULL_MS) throw busy("too many keys are loaded and too many locks are held");
        this.#timer = setTimeout(() => this.go(), FULL_AGAIN_MS);
        return;
      } else if (this.#waiter === undefined) {
        // Before the wait is announced.
        this.#waiter = engine.wakeups.register(() => this.#look(), { hold: true, probe: true });
      } else {
        this.#wait();
        return;
      }
    }
  }

  /** Notes the claim that the engine has made or met. */
  #meet(): void {
    const { claimNumber, claimToken, startSequence, startClearEpoch } = this.#engine;
    this.#claim = claimNumber;
    this.#token = claimToken;
    this.#start = { sequence: startSequence, clearEpoch: startClearEpoch };
  }

  // ---- waiting for somebody else

  #wait(): void {
    const engine = this.#engine;
    this.#state = "waiting";
    this.#hasWaited = true;
    this.#meet();
    this.#waiter?.listen(engine.claimClass);
    // The load of the first claim that a fresh flight meets began before the call. That of any other began after it.
    if (!this.begun && this.#tooOld === 0) this.#tooOld = this.#token;
    if (this.#token !== this.#tooOld) this.#flights.begin(this);
    this.behind = loadingIn(engine).get(this.#token);
    for (const call of [...this.calls]) {
      if (call.inside !== undefined && dependsOn(this, call.inside)) call.fail(nested(call));
    }
    if (this.calls.size === 0) this.#end();
  }

  /** Whether what the flight waits for has come. Goes on if it has. */
  #look(): boolean {
    if (this.#state !== "waiting" || this.#engine.probe(this.#claim, this.#token, machineTime()) !== GONE) return false;
    try {
      this.#arrive();
    } catch (error) {
      this.#crash(error);
    }
    return true;
  }

  /** The claim that the flight has waited for has ended. */
  #arrive(): void {
    const token = this.#token;
    this.#token = 0;
    this.behind = undefined;
    this.#state = "new";
    if (token !== this.#tooOld) {
      const outcome = this.#flights.outcomes.of(token);
      if (outcome !== undefined) {
        this.#takeOver(outcome);
        return;
      }
      // What is there now was stored by that load, or later.
      this.#fresh = false;
    }
    this.go();
  }

  /** Takes over what somebody else has loaded, and could not store, or not for long. */
  #takeOver({ value, failed, stored, start }: Outcome): void {
    if (failed) {
      const [name, message] = value as [string, string];
      this.#crash(loadFailed(name, message));
      return;
    }
    const found = stored ? readable(this.view, this.key) : undefined;
    if (found?.stale === false) this.#hand(found, "joined", undefined);
    else this.#hand(unstored(this.view, value), "joined", start);
  }

  // ---- loading

  #run(): void {
    const engine = this.#engine;
    this.#meet();
    this.#state = "loading";
    this.#waiter?.release();
    this.#waiter = undefined;
    loadingIn(engine).set(this.#token, this);
    this.#flights.begin(this);
    this.#clearings = this.view.clearings();
    const stale = readable(this.view, this.key);
    // Somebody else was faster: the entry was refreshed before this claim was made.
    if (this.#ahead !== undefined && stale?.expiresAt !== this.#ahead) {
      this.#release(undefined);
      this.#end();
      return;
    }
    this.context = new Context(this, stale);
    const call = this.#first;
    const load = (): unknown => call.load(this);
    try {
      const result = call.context === undefined ? load() : call.context(load);
      if (!isThenable(result)) {
        this.loaded(result);
        return;
      }
      this.#renewLater();
      const { trace } = this;
      result.then(
        trace === undefined
          ? (value) => this.loaded(value)
          : (value) => trace.fulfilled(value, () => this.loaded(value)),
        trace === undefined
          ? (error) => this.failed(error)
          : (error) => trace.rejected(error, () => this.failed(error)),
      );
    } catch (error) {
      this.failed(error);
    }
  }

  /** Keeps the lease while the event loop of this thread runs. */
  #renewLater(): void {
    const { lease } = this.options;
    if (lease / 3 > LONGEST_TIMER) return;
    this.#timer = setTimeout(() => {
      this.#engine.extend(this.#claim, this.#token, machineTime() + lease);
      this.#renewLater();
    }, lease / 3);
    keepAlive(this.#timer, false);
  }

  /** The loader has returned a value. */
  loaded(value: unknown): void {
    // The cache was closed meanwhile.
    if (this.#state !== "loading") return;
    const engine = this.#engine;
    let stored = false;
    let storing: Storing | undefined;
    let entry: Found;
    try {
      entry = unstored(this.view, value);
      storing = value === undefined ? undefined : this.#storing(value);
      if (storing !== undefined) {
        // This thread may end before the value is stored, or the store may be refused. So the outcome says when the load began.
        const outcome = { value, failed: false, stored: true, start: this.#start };
        // A value that lives this short may have expired before those who wait elsewhere have read it.
        const isShort = storing.expiresAt - this.view.now() < SHORT_LIVED_MS;
        if (isShort && engine.isWaitedFor(this.#claim, this.#token))
          this.#flights.outcomes.publish(this.#token, outcome);
        stored = this.view.commit(this.key, value, storing, this.#claim, this.#token);
        const tags = [...(storing.tags ?? [])];
        if (stored) entry = { value, version: engine.version, expiresAt: storing.expiresAt, tags, stale: false };
      }
    } catch (error) {
      this.failed(error);
      return;
    }
    // The value's own code, such as a getter, may have closed the cache.
    if (this.#state !== "loading") return;
    if (stored) {
      this.#hand(entry, "loaded", undefined);
      return;
    }
    const start = this.#isInvalidated(storing) ? this.#start : undefined;
    this.#release({ value, failed: false, stored: false, start });
    this.#hand(entry, "loaded", start);
  }

  /** Whether the value may have been invalidated since the load began. With tags, each invalidation of any tag counts. */
  #isInvalidated(storing: Storing | undefined): boolean {
    const tags = storing?.tags ?? this.context?.tags ?? this.options.tags;
    const mayHaveTags = typeof tags === "function" ? storing === undefined : tags !== undefined && tags.length > 0;
    const { sequence, clearEpoch } = this.#engine;
    if (mayHaveTags) return sequence !== this.#start.sequence || clearEpoch !== this.#start.clearEpoch;
    return this.view.clearings() !== this.#clearings;
  }

  /** How the value is stored; `undefined` when it is not. @throws {TypeError} and {RangeError}, also those of the user's functions. */
  #storing(value: unknown): Storing | undefined {
    const { options, view, key } = this;
    const context = this.context as Context;
    const evaluated = <T>(option: T | ((value: any, key: any) => T) | undefined): T | undefined =>
      typeof option === "function" ? (option as (value: unknown, key: AnyKey) => T)(value, key) : option;
    const ttl = context.ttl ?? evaluated(options.ttl) ?? view.ttl;
    if (typeof ttl !== "number" || Number.isNaN(ttl)) throw new TypeError("ttl: must be a number of milliseconds");
    const tags = context.tags ?? evaluated(options.tags);
    if (tags !== undefined && !Array.isArray(tags)) throw new TypeError("tags: must be an array of strings");
    if (ttl <= 0) return undefined;
    const spread = options.jitter > 0 && ttl !== Infinity ? ttl * (1 - options.jitter * Math.random()) : ttl;
    const expiresAt = spread === Infinity ? Infinity : view.now() + spread;
    return { expiresAt, grace: options.grace, tags };
  }

  /** The loader has failed. */
  failed(error: unknown): void {
    if (this.#state !== "loading") return;
    const { outcomes } = this.#flights;
    const { graceBackoff } = this.options;
    const refresh = this.#ahead !== undefined || this.context?.stale?.stale === true;
    if (refresh && graceBackoff > 0 && !this.aborted) {
      outcomes.backOff(this.id, this.context?.stale?.version ?? 0, graceBackoff);
    }
    // Who has come since the loader was told to stop has not waited for this failure.
    this.#release(this.aborted ? undefined : { value: error, failed: true, stored: false, start: undefined });
    const { aborted } = this;
    for (const call of this.#end()) {
      if (aborted) this.#flights.call(call);
      else call.giveOld() || call.fail(error);
    }
  }

  /** Ends the claim. Those who wait for it elsewhere get the outcome. */
  #release(outcome: Outcome | undefined): void {
    const engine = this.#engine;
    try {
      // From here on nobody joins, so the outcome is there for all who wait.
      const waited = engine.seal(this.#claim, this.#token) === 1;
      if (waited && outcome !== undefined) this.#flights.outcomes.publish(this.#token, outcome);
      engine.release(this.#claim, this.#token);
    } catch {
      // The JavaScript stack has ended here. The claim ends with its lease.
    }
  }

  // ---- the end

  /**
   * Gives all calls what was found, each a copy of its own.
   *
   * @param start only calls that came before every invalidation after it get the value. The others begin again.
   */
  #hand(found: Found, kind: OutcomeKind, start: Start | undefined): void {
    const calls = this.#end();
    const copy = copierOf(this.view, found.value);
    let isFirst = !this.view.sharesObjects;
    for (const call of calls) {
      if (start !== undefined && !isBefore(call.since, start)) {
        this.#flights.call(call);
        continue;
      }
      try {
        const value = isFirst ? found.value : copy();
        isFirst = false;
        call.give(kind === "loaded" && call !== this.#first ? "joined" : kind, { ...found, value });
      } catch (error) {
        call.fail(error);
      }
    }
  }

  /** Leaves the tables and forgets the calls, which it returns. */
  #end(): Call[] {
    this.#state = "over";
    clearTimeout(this.#timer);
    this.#waiter?.release();
    if (this.loader !== undefined) endLoader(this.loader);
    // Not the one that this flight has waited for.
    const loading = loadingIn(this.#engine);
    if (loading.get(this.#token) === this) loading.delete(this.#token);
    this.#flights.remove(this);
    const calls = [...this.calls];
    for (const call of calls) call.leave();
    return calls;
  }

  /** A call has given up. If it was the last, the wait for somebody else ends, or the loader is told to stop. */
  abandon(reason: unknown): void {
    if (this.calls.size > 0 || this.#state === "over") return;
    if (this.#state !== "loading") this.#end();
    // Unless somebody waits elsewhere.
    else if (!this.kept && !this.#engine.isWaitedFor(this.#claim, this.#token)) this.#abort(reason);
  }

  #abort(reason: unknown): void {
    this.aborted = true;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.onAbort?.();
  }

  /** The cache is closed in this thread. */
  close(): void {
    const error = closed();
    if (this.#state === "loading") {
      // First, so that the loader cannot come back with a result.
      this.#state = "over";
      this.#release(undefined);
      this.#abort(error);
    }
    for (const call of this.#end()) call.fail(error);
  }
}

/** A value that is under no key. */
function unstored(view: LoadView, value: unknown): Found {
  return { value, version: 0, expiresAt: view.now(), tags: [], stale: false };
}

function copierOf(view: LoadView, value: unknown): () => unknown {
  let copy: (() => unknown) | undefined;
  return () => {
    if (typeof value !== "object" || value === null) return value;
    copy ??= view.copier(value);
    return copy();
  };
}

function nested({ key }: Call): Error {
  return new Error(
    `key: the loader of the key ${shown(key)} waits for this key itself, directly or by way of other loaders, and so for ever. ` +
      "Load what both need under a key of its own.",
  );
}

/** The flights of one opening of a cache. */
export class Flights {
  readonly outcomes: Outcomes;
  /** The flight of each key whose result is good enough for everybody who does not ask for a fresh one. */
  readonly #current = new Map<string, Flight>();
  /** For each key the flight that waits until it can begin a fresh load. */
  readonly #upcoming = new Map<string, Flight>();
  /** These, and flights that were overtaken. */
  readonly #all = new Set<Flight>();

  constructor(outcomes: Outcomes) {
    this.outcomes = outcomes;
  }

  /**
   * The value of a key: an entry that is there, or a loaded one.
   *
   * @param quiet whether the read was counted already
   */
  get(view: LoadView, key: AnyKey, load: Load, options: Loading, quiet: boolean): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.call(new Call(view, key, load, options, resolve, reject), quiet);
    });
  }

  /** Begins a call, or begins it again. */
  call(call: Call, quiet = true): void {
    try {
      this.#call(call, quiet);
    } catch (error) {
      call.fail(error);
    }
  }

  #call(call: Call, quiet: boolean): void {
    const { view, key, options } = call;
    if (options.signal?.aborted) throw options.signal.reason;
    let fresh = options.fresh;
    if (!fresh) {
      let found: Found | undefined;
      try {
        found = view.staleEntry(key, quiet);
      } catch (error) {
        if (!(error instanceof CacheError) || error.code !== "ERR_DATA") throw error;
        // A value that cannot be read here is replaced.
        fresh = true;
      }
      if (found !== undefined && this.#suffices(call, found)) return;
    }
    this.#join(call, fresh);
  }

  /** Ends the call with an entry that is there, if that is good enough, and begins to refresh it when its time has come. */
  #suffices(call: Call, found: Found): boolean {
    const { view, id, options } = call;
    if (!found.stale) {
      const isDue = this.#isDue(view, found, options) && !this.outcomes.isBackingOff(id, found.version);
      if (isDue) this.#refresh(call, true, found.expiresAt);
      call.give("hit", found);
      return true;
    }
    const isLeftAlone = this.outcomes.isBackingOff(id, found.version);
    call.mayBeStale = true;
    if (!isLeftAlone && options.graceWait > 0) return false;
    if (!isLeftAlone) this.#refresh(call, false);
    call.give("stale", found);
    return true;
  }

  /** Whether so little of its time is left that an entry is to be refreshed ahead of its expiry. */
  #isDue(view: LoadView, { value, expiresAt }: Found, { refreshAhead, ttl }: Loading): boolean {
    if (refreshAhead <= 0 || expiresAt === Infinity) return false;
    const whole = (typeof ttl === "function" ? ttl(value, undefined) : ttl) ?? view.ttl;
    return expiresAt - view.now() <= refreshAhead * whole;
  }

  /** Begins to load a value for which nobody waits. */
  #refresh(call: Call, fresh: boolean, ahead?: number): void {
    if (this.#current.get(call.id)?.isOpen()) return;
    const flight = new Flight(this, call, true, fresh, ahead);
    this.#add(this.#current, flight);
    flight.go();
  }

  /** Joins the flight of the key, or begins one. */
  #join(call: Call, fresh: boolean): void {
    const { id, inside } = call;
    call.since = startOf(call.view.engine);
    const table = call.options.fresh ? this.#upcoming : this.#current;
    const there = table.get(id);
    const flight = there?.isOpen() ? there : new Flight(this, call, false, fresh);
    if (inside !== undefined && (loads(inside, call.view.engine, id) || dependsOn(flight, inside))) throw nested(call);
    call.flight = flight;
    flight.calls.add(call);
    inside?.pending.add(call);
    if (flight !== there) {
      this.#add(table, flight);
      flight.go();
    }
    call.limit();
  }

  #add(table: Map<string, Flight>, flight: Flight): void {
    table.set(flight.id, flight);
    this.#all.add(flight);
  }

  /** From now on everybody may join a flight that only calls for a fresh value could join before. */
  begin(flight: Flight): void {
    if (flight.begun) return;
    flight.begun = true;
    if (this.#upcoming.get(flight.id) === flight) this.#upcoming.delete(flight.id);
    this.#current.set(flight.id, flight);
  }

  /** Forgets a flight that is over. */
  remove(flight: Flight): void {
    for (const table of [this.#current, this.#upcoming]) {
      if (table.get(flight.id) === flight) table.delete(flight.id);
    }
    this.#all.delete(flight);
  }

  /** Ends all flights. */
  close(): void {
    for (const flight of this.#all) flight.close();
  }
}

/** A loader that is about to run for these flights. */
export function loaderOf(flights: readonly Flight[]): Loader {
  const first = flights[0] as Flight;
  const ids = flights.map(({ id }) => id);
  return { pending: new Set(), within: first.within, cache: first.view.engine, ids, over: false };
}

/** The loader of one key. */
export function oneLoader(load: (context: any) => unknown): Load {
  return (flight) => {
    flight.loader = loaderOf([flight]);
    const trace = traceOf([flight], false);
    flight.trace = trace;
    const run = (): unknown => load(flight.context);
    return runLoader(flight.loader, trace === undefined ? run : () => trace.run(run));
  };
}
