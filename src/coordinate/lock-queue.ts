/**
 * The locks of one thread: those that it holds, and the queues of the requests that wait for one. `locks.ts` is what users see of
 * them. A lock is a claim in the shared memory (wasm/src/coordinate/locks.rs), and its token is the fence.
 *
 * In one thread who comes first is served first. Only the first request for a lock tries to claim it; the others stand behind it.
 *
 * Between threads there is a queue too: a thread that waits for a lock has a second claim in the shared memory, its *sign*. A
 * release rings the thread with the oldest sign, and leaves the lock to it for a moment. A thread with further requests goes to the
 * end of the queue when it gets the lock. The order is not strict. A thread that asks at the right moment gets a free lock at
 * once, and the lock is anybody's again when the thread that was rung does not come in time, because it is frozen. So a frozen
 * thread that waits delays the others by that moment, once.
 *
 * The death of the holder rings nobody, so the first request also tries again from time to time.
 */

import {
  BUSY,
  CLAIM_PENDING,
  CLAIM_STEAL,
  CLAIM_WAIT,
  CLAIMED,
  CLAIMS_FULL,
  RELEASED,
  RELEASED_PASSED,
  STANDS,
  TAKEN,
} from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { busy, closed } from "../errors.ts";
import { clearTimeout, keepAlive, setTimeout, type Timer } from "../system/timers.ts";
import { machineTime } from "./clock.ts";
import { Listening } from "./listening.ts";
import { writeName } from "./lock-name.ts";
import { idOf, type Limits, type Scoped } from "./scoped.ts";

/** Milliseconds for which a request waits while there is no room for a claim, before it is refused. */
const FULL_MS = 1000;
/**
 * Milliseconds for which a thread leaves a lock that it has released to those who wait: the first time, and the last time if each
 * time nobody has come.
 */
const FIRST_YIELD_MS = 1;
const LAST_YIELD_MS = 16;
/** Milliseconds for which a lock is held before its holder begins to hear of a theft. Most locks are held for less. */
const GUARD_MS = 2;

/** A request that waits. */
export interface Request {
  readonly view: Scoped;
  readonly name: string;
  readonly steal: boolean;
  /** What ends it from outside. */
  limits: Limits | undefined;
  grant(held: Held): void;
  reject(error: unknown): void;
}

/** A lock that this thread holds. */
export class Held {
  readonly name: string;
  /** The token of its claim. */
  readonly fence: number;
  /** Why it was lost before it was released. */
  lost: unknown;
  /** Told when it is lost. */
  onLost: ((reason: unknown) => void) | undefined;
  readonly #queue: Queue;
  readonly #view: Scoped;
  readonly #claim: number;
  readonly #onClose = (): void => this.lose(closed());
  #listening: Listening | undefined;
  #over = false;
  #aborter: AbortController | undefined;

  constructor(queue: Queue, view: Scoped, name: string) {
    this.name = name;
    this.fence = view.engine.claimToken;
    this.#claim = view.engine.claimNumber;
    this.#queue = queue;
    this.#view = view;
    view.opening.endings.add(this.#onClose);
  }

  /** Aborted when the lock is lost. Made when it is asked for, because that takes longer than the lock itself. */
  get signal(): AbortSignal {
    if (this.#aborter === undefined) {
      this.#aborter = new AbortController();
      if (this.lost !== undefined) this.#aborter.abort(this.lost);
    }
    return this.#aborter.signal;
  }

  /** Begins to hear of a theft. */
  listen(engine: Engine): void {
    const look = (): boolean => {
      if (this.#over || engine.stands(this.#claim, this.fence) === STANDS) return false;
      this.lose(stolen());
      return true;
    };
    this.#listening = new Listening(engine, look, { hold: false, probe: false });
    this.#listening.add(() => engine.listen(this.#claim, this.fence));
    look();
  }

  /** The lock is lost while the callback runs. */
  lose(reason: unknown): void {
    if (this.#over) return;
    this.lost = reason;
    this.release();
    this.onLost?.(reason);
    // Runs the user's code, so it comes last.
    this.#aborter?.abort(reason);
  }

  /** Gives the lock back, if it was not lost. Afterwards {@link lost} tells. */
  release(): void {
    if (this.#over) return;
    this.#over = true;
    this.#view.opening.endings.delete(this.#onClose);
    this.#listening?.release();
    if (!this.#queue.release(this, this.#claim, this.#view)) this.lost ??= stolen();
  }
}

/** The requests for one lock in this thread. It exists while there are any. */
export class Queue {
  /** The id of the scope. */
  readonly scope: string;
  readonly #table: LockTable;
  readonly #id: string;
  /** The lock, while this thread holds it. */
  #holder: Held | undefined;
  /** The requests that wait, the first one first. */
  #waiting = new Set<Request>();
  /** While the first request waits for somebody else. */
  #listening: Listening | undefined;
  /** While this thread leaves the lock to others. */
  #yielding: Timer | undefined;
  #yieldMs = FIRST_YIELD_MS;
  /** The claim that tells the other threads that this one waits. */
  #sign: { claim: number; token: number } | undefined;
  /** Since when there was no room for a claim. */
  #fullSince: number | undefined;

  constructor(table: LockTable, scope: string, id: string) {
    this.#table = table;
    this.scope = scope;
    this.#id = id;
  }

  /** The names and tokens of what this thread knows better than the shared memory. */
  get known(): { held: Held | undefined; sign: number | undefined; waiting: Iterable<Request> } {
    return { held: this.#holder, sign: this.#sign?.token, waiting: this.#waiting };
  }

  /**
   * Claims the lock, if no request of this thread comes first.
   *
   * @returns the lock, or why it was not claimed: `TAKEN`, `CLAIMS_FULL` or `BUSY`
   */
  tryNow(view: Scoped, name: string, steal: boolean): Held | number {
    const isFirst = this.#holder === undefined && this.#waiting.size === 0 && this.#yielding === undefined;
    return steal || isFirst ? this.#claim(view, name, steal ? CLAIM_STEAL : 0) : TAKEN;
  }

  /** Lets a request wait; a thief before all others. */
  wait(request: Request): void {
    if (request.steal) this.#waiting = new Set([request, ...this.#waiting]);
    else this.#waiting.add(request);
    if (this.#sign === undefined) this.#announce(request);
    this.#advance();
  }

  /** A request has ended before it was granted. */
  leave(request: Request): void {
    this.#waiting.delete(request);
    this.#advance();
    this.retire();
  }

  /** Gives a lock back. Returns whether it had not been stolen. */
  release(held: Held, claim: number, view: Scoped): boolean {
    this.#table.fresh.delete(held);
    const result = this.#table.engine.releaseLock(claim, held.fence);
    if (this.#holder === held) {
      this.#holder = undefined;
      if (result === RELEASED_PASSED && this.#yieldMs <= LAST_YIELD_MS) this.#yield(view, held.name);
      if (this.#waiting.size > 0) this.#advance();
      this.retire();
    }
    return result === RELEASED || result === RELEASED_PASSED;
  }

  /** Forgets the queue when it is not needed. */
  retire(): void {
    if (this.#waiting.size === 0) this.#rest();
    if (this.#holder === undefined && this.#waiting.size === 0 && this.#yielding === undefined) {
      this.#table.queues.delete(this.#id);
    }
  }

  #claim(view: Scoped, name: string, flags: number): Held | number {
    const { engine } = this.#table;
    const written = view.writeKey(name);
    const result = engine.claimLock(written, flags, writeName(view, name));
    if (result !== CLAIMED) return result;
    const thief = new Held(this, view, name);
    const victim = this.#holder;
    this.#holder = thief;
    this.#table.guard(thief);
    victim?.lose(stolen());
    return thief;
  }

  /**
   * Leaves the lock to the thread that was rung for a moment: longer each time that it does not come. It needs about a tenth of a
   * millisecond. If nobody of this thread wants the lock then, the next one in the queue is rung.
   */
  #yield(view: Scoped, name: string): void {
    this.#yielding = setTimeout(() => {
      this.#yielding = undefined;
      if (this.#waiting.size > 0) this.#look();
      else if (!view.opening.closed && this.#table.engine.passLock(view.writeKey(name)) === 1) this.#yield(view, name);
      this.retire();
    }, this.#yieldMs);
    this.#yieldMs *= 2;
  }

  /** Stands in the queue of the threads, and is listed by `query`. There may be no room for that. */
  #announce({ view, name }: Request): void {
    const { engine } = this.#table;
    if (view.opening.closed) return;
    const written = view.writeKey(name);
    if (engine.claimLock(written, CLAIM_PENDING, writeName(view, name)) !== CLAIMED) return;
    this.#sign = { claim: engine.claimNumber, token: engine.claimToken };
  }

  /** Leaves the queue of the threads. */
  #withdraw(): void {
    if (this.#sign !== undefined) this.#table.engine.releaseLock(this.#sign.claim, this.#sign.token);
    this.#sign = undefined;
  }

  /** Tries to claim the lock for the first request. */
  #advance(): void {
    const { engine } = this.#table;
    for (const request of this.#waiting) {
      const { view, name, steal, limits } = request;
      // The cache is being closed, which ends this request too.
      if (view.opening.closed) continue;
      if (!steal && this.#holder !== undefined) return;
      // Before the sign and the claim: from then on a ring may come.
      this.#listening ??= new Listening(engine, () => this.#look(), { hold: true, probe: true });
      if (this.#sign === undefined) this.#announce(request);
      if (!steal && this.#yielding !== undefined) return;
      // Who has no sign is rung as one of all who wait.
      const wait = this.#sign === undefined ? CLAIM_WAIT : 0;
      const result = this.#claim(view, name, steal ? CLAIM_STEAL | wait : wait);
      if (result === BUSY) return;
      if (typeof result !== "number") {
        this.#waiting.delete(request);
        this.#fullSince = undefined;
        this.#listening.release();
        this.#listening = undefined;
        // To the end of the queue.
        this.#withdraw();
        const [next] = this.#waiting;
        if (next !== undefined) this.#announce(next);
        limits?.lift();
        request.grant(result);
        return;
      }
      if (wait !== 0) this.#listening.listen(engine.claimClass);
      if (result !== CLAIMS_FULL) {
        this.#fullSince = undefined;
        this.#yieldMs = FIRST_YIELD_MS;
        return;
      }
      const now = machineTime();
      this.#fullSince ??= now;
      if (now - this.#fullSince < FULL_MS) return;
      this.#waiting.delete(request);
      limits?.lift();
      request.reject(full());
    }
  }

  /** After a ring, and now and then. */
  #look(): boolean {
    clearTimeout(this.#yielding);
    this.#yielding = undefined;
    this.#advance();
    this.retire();
    // A try may succeed without a ring because the holder has died. So no look counts as one that has helped.
    return false;
  }

  /** Nobody waits any more. */
  #rest(): void {
    this.#listening?.release();
    this.#listening = undefined;
    this.#withdraw();
  }
}

/** The locks of one thread in one cache. */
export class LockTable {
  readonly engine: Engine;
  readonly queues: Map<string, Queue> = new Map();
  /** Locks that were just granted. Their holders do not hear of a theft yet. */
  readonly fresh: Set<Held> = new Set();
  #guarding = false;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** The queue for a lock. Whoever asks for it has to call `retire` unless it gets the lock or waits. */
  queue(view: Scoped, name: string): Queue {
    const id = idOf(view, name);
    let queue = this.queues.get(id);
    if (queue === undefined) this.queues.set(id, (queue = new Queue(this, view.scope.id, id)));
    return queue;
  }

  /** From soon on the holder hears of a theft. */
  guard(held: Held): void {
    this.fresh.add(held);
    if (this.#guarding) return;
    this.#guarding = true;
    const timer = setTimeout(() => {
      this.#guarding = false;
      const all = [...this.fresh];
      this.fresh.clear();
      for (const each of all) each.listen(this.engine);
    }, GUARD_MS);
    keepAlive(timer, false);
  }
}

/** There is no room for another claim. */
export function full(): Error {
  return busy("living threads hold so many locks that there is no room for another one");
}

/** Why a holder has lost its lock, as `navigator.locks` says it. */
function stolen(): unknown {
  const message = "The lock was stolen by another request.";
  // Not every realm has it.
  if (typeof DOMException === "function") return new DOMException(message, "AbortError");
  return Object.assign(new Error(message), { name: "AbortError" });
}
