/** `cache.locks`: `navigator.locks` for all threads and processes that share a cache. How it works: lock-queue.ts. */

import { CLAIMS_FULL, TAKEN } from "../engine/contract.ts";
import type { Engine } from "../engine/engine.ts";
import { busy } from "../errors.ts";
import { checkOptions } from "../option-names.ts";
import { KeyCodec } from "../values/key.ts";
import { readName } from "./lock-name.ts";
import { full, type Held, LockTable, type Queue, type Request } from "./lock-queue.ts";
import { checkSignal, checkTimeout, Limits, type Scoped, shown } from "./scoped.ts";

/** How to request a lock. */
export interface LockOptions {
  /** Whether to call the callback with `null` at once when the lock is taken, instead of waiting; false by default. */
  ifAvailable?: boolean | undefined;
  /** Whether to take the lock away from its holder, before all who wait; false by default. */
  steal?: boolean | undefined;
  /** Ends waiting: rejects the promise with the signal's reason. Does nothing once the lock is granted. */
  signal?: AbortSignal | undefined;
  /** Milliseconds of waiting after which the promise is rejected with `ERR_TIMEOUT`; `Infinity` by default. */
  timeout?: number | undefined;
}

/** A lock that was granted. */
export interface Lock {
  readonly name: string;
  /**
   * The fencing token. It is larger each time a lock of this cache is granted. Send it along with what you write elsewhere, and
   * refuse there what comes with a smaller number than one before.
   */
  readonly fence: number;
  /** Aborted when the lock is lost while it is held: it was stolen, or the cache was closed in this thread. */
  readonly signal: AbortSignal;
}

/** A lock that is held. */
export interface HeldLock {
  /** The name. Of a name of more than 72 bytes in another thread only the beginning is known; then it ends with `…`. */
  name: string;
  fence: number;
  pid: number;
  threadId: number;
}

/** A request that waits for a lock. */
export interface PendingLock {
  /** As for {@link HeldLock}. */
  name: string;
  pid: number;
  threadId: number;
}

/** The locks of a cache or a namespace at one moment. */
export interface LockState {
  held: HeldLock[];
  /** All requests of this thread, and of every other thread that waits for a lock the first request for that lock. */
  pending: PendingLock[];
}

const NAMES = ["ifAvailable", "steal", "signal", "timeout"] as const;

/** The locks of this thread in each cache. */
const tables = new WeakMap<Engine, LockTable>();

function tableOf(engine: Engine): LockTable {
  let table = tables.get(engine);
  if (table === undefined) tables.set(engine, (table = new LockTable(engine)));
  return table;
}

/** What a request wants. */
interface Wanted {
  ifAvailable: boolean;
  steal: boolean;
  signal: AbortSignal | undefined;
  timeout: number;
}

const PLAIN: Wanted = { ifAvailable: false, steal: false, signal: undefined, timeout: Infinity };

function checked(options: LockOptions): Wanted {
  const { ifAvailable = false, steal = false, signal, timeout } = checkOptions<LockOptions>(options, NAMES);
  if (typeof ifAvailable !== "boolean") throw new TypeError("ifAvailable: must be a boolean");
  if (typeof steal !== "boolean") throw new TypeError("steal: must be a boolean");
  if (steal && ifAvailable) throw new TypeError("steal, ifAvailable: one of them only");
  return { ifAvailable, steal, signal: checkSignal(signal), timeout: checkTimeout(timeout) };
}

/**
 * The locks of a cache or a namespace: the property `locks` of a `Cache`. They are those of `navigator.locks`, but for all threads
 * and processes that share the cache, and exclusive ones only.
 */
export class Locks {
  readonly #view: Scoped;

  /** @internal */
  constructor(view: Scoped) {
    this.#view = view;
  }

  /**
   * Waits until nobody has the lock with this name, and calls `callback` with it. Returns a promise of the callback's result. The
   * lock is held until the promise that `callback` returns is settled. It is released when `callback` throws, and when its thread
   * or process dies. A thread or process that is stopped keeps it.
   *
   * In one thread requests get a lock in the order in which they came. Between threads and processes there is no order, but a
   * thread that releases a lock lets the others try first. Requesting a lock within its own callback, and awaiting that, waits for
   * ever.
   *
   * @throws {TypeError} and {RangeError} for wrong arguments, as a rejected promise, like all others.
   * @throws {CacheError} `ERR_TIMEOUT`; `ERR_TOO_LARGE` for a name of more than 4,096 bytes; `ERR_BUSY` when living threads hold so
   * many locks that there was no room for another one for a second; `ERR_CLOSED`, also when the cache is closed while the lock is
   * held.
   * @throws {DOMException} `AbortError` when the lock was stolen while it was held; the callback goes on. An error of the callback,
   * and the reason of the signal, are passed on.
   */
  request<T>(name: string, callback: (lock: Lock) => T): Promise<Awaited<T>>;
  request<T>(
    name: string,
    options: LockOptions & { ifAvailable?: false | undefined },
    callback: (lock: Lock) => T,
  ): Promise<Awaited<T>>;
  request<T>(name: string, options: LockOptions, callback: (lock: Lock | null) => T): Promise<Awaited<T>>;
  async request(name: string, second: unknown, third?: unknown): Promise<any> {
    const [options, callback] = typeof second === "function" ? [undefined, second] : [second, third];
    if (typeof name !== "string") throw new TypeError(`name: must be a string, not ${typeof name}`);
    if (typeof callback !== "function") throw new TypeError("callback: must be a function");
    const wanted = options === undefined ? PLAIN : checked(options as LockOptions);
    if (wanted.signal?.aborted) throw wanted.signal.reason;
    // Awaited, so that the callback never runs within this call.
    const held = await acquire(this.#view, name, wanted);
    return held === null ? callback(null) : run(held, callback as (lock: Lock) => unknown);
  }

  /**
   * Tells which locks of this cache or namespace are held, and which requests wait, at one moment.
   *
   * @throws {CacheError} `ERR_CLOSED`.
   */
  query(): LockState {
    return stateOf(this.#view);
  }
}

/** Gets a lock, or a promise of it; `null` when it is taken and that is all that was asked. */
function acquire(view: Scoped, name: string, wanted: Wanted): Held | null | Promise<Held> {
  const written = view.writeKey(name);
  if (written < 0) throw new KeyCodec().tooLong(name, "name");
  const queue = tableOf(view.engine).queue(view, name);
  let result: Held | number | undefined;
  try {
    result = queue.tryNow(view, name, wanted.steal);
    if (typeof result !== "number") return result;
    if (wanted.ifAvailable) {
      if (result === TAKEN) return null;
      throw result === CLAIMS_FULL ? full() : busy("another participant is in the way");
    }
    return wait(queue, view, name, wanted);
  } finally {
    if (typeof result !== "object") queue.retire();
  }
}

function wait(queue: Queue, view: Scoped, name: string, { steal, signal, timeout }: Wanted): Promise<Held> {
  return new Promise((grant, reject) => {
    const request: Request = { view, name, steal, limits: undefined, grant, reject };
    const end = (reason: unknown): void => {
      reject(reason);
      queue.leave(request);
    };
    request.limits = new Limits(view, () => `the lock ${shown(name)}`, timeout, signal, end);
    try {
      queue.wait(request);
    } catch (error) {
      request.limits.lift();
      end(error);
    }
  });
}

/** Calls the callback, and releases the lock when it is done. */
function run(held: Held, callback: (lock: Lock) => unknown): unknown {
  if (held.lost !== undefined) throw held.lost;
  let result: unknown;
  try {
    result = callback(held);
    if (typeof (result as PromiseLike<unknown> | undefined)?.then === "function") {
      return new Promise((resolve, reject) => {
        held.onLost = reject;
        // When the lock is lost, the promise was rejected before.
        Promise.resolve(result)
          .finally(() => held.release())
          .then((value) => (held.lost === undefined ? resolve(value) : reject(held.lost)), reject);
      });
    }
  } catch (error) {
    held.release();
    throw error;
  }
  held.release();
  if (held.lost !== undefined) throw held.lost;
  return result;
}

function stateOf(view: Scoped): LockState {
  view.opening.checkOpen();
  const { engine, scope } = view;
  const queues = [...tableOf(engine).queues.values()].filter((queue) => queue.scope === scope.id);
  const state: LockState = { held: [], pending: [] };
  for (const { token, pending, pid, threadId, name: bytes, nameBytes } of engine.claims()) {
    let name = readName(scope, bytes, nameBytes);
    if (name === undefined) continue;
    if (!pending) {
      // This thread knows the whole names of its own locks.
      name = queues.find((queue) => queue.known.held?.fence === token)?.known.held?.name ?? name;
      state.held.push({ name, fence: token, pid, threadId });
    } else if (!queues.some((queue) => queue.known.sign === token)) state.pending.push({ name, pid, threadId });
  }
  const { pid, threadId } = engine.thread;
  for (const { known } of queues) for (const { name } of known.waiting) state.pending.push({ name, pid, threadId });
  state.held.sort((a, b) => a.fence - b.fence);
  return state;
}
