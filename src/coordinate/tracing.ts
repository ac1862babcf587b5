/**
 * The diagnostics channel of the loads of this process: `tracingChannel("cache-machine:load")` of `node:diagnostics_channel`. Tools
 * that trace a program subscribe to it by its name. Without subscribers a load asks one property and makes no object. A read that
 * finds its value never gets here. Browsers have no such channels.
 */

import type { LoadTrace } from "./loading.ts";
import type { AnyKey, Scoped } from "./scoped.ts";

interface Channel {
  readonly hasSubscribers: boolean;
  publish(message: LoadTrace): void;
  runStores<T>(message: LoadTrace, body: () => T): T;
}
type Event = "start" | "end" | "asyncStart" | "asyncEnd" | "error";
type Channels = Readonly<Record<Event, Channel>>;

const EVENTS: readonly Event[] = ["start", "end", "asyncStart", "asyncEnd", "error"];

let isSought = false;
let channels: Channels | undefined;

/** Whether anybody listens. */
function isHeard(): boolean {
  if (!isSought) {
    isSought = true;
    const host = globalThis.process?.getBuiltinModule?.("node:diagnostics_channel");
    channels = host?.tracingChannel?.("cache-machine:load") as unknown as Channels | undefined;
  }
  return channels !== undefined && EVENTS.some((event) => (channels as Channels)[event].hasSubscribers);
}

/** The events of one call of a loader. An error of a subscriber is uncaught in the next tick, as always in Node.js, and harms no load. */
export class Trace {
  readonly #message: LoadTrace;
  readonly #channels: Channels;

  constructor(message: LoadTrace, to: Channels) {
    this.#message = message;
    this.#channels = to;
  }

  /** Runs the synchronous part of the loader. */
  run(body: () => unknown): unknown {
    const message = this.#message;
    const { start, error, end } = this.#channels;
    return start.runStores(message, () => {
      try {
        const result = body();
        if (!isThenable(result)) message.result = result;
        return result;
      } catch (thrown) {
        message.error = thrown;
        error.publish(message);
        throw thrown;
      } finally {
        end.publish(message);
      }
    });
  }

  /** The promise of the loader is fulfilled. `settle` tells those who wait. */
  fulfilled(result: unknown, settle: () => void): void {
    this.#message.result = result;
    this.#around(settle);
  }

  /** The promise of the loader is rejected. */
  rejected(error: unknown, settle: () => void): void {
    this.#message.error = error;
    this.#channels.error.publish(this.#message);
    this.#around(settle);
  }

  #around(settle: () => void): void {
    const { asyncStart, asyncEnd } = this.#channels;
    asyncStart.publish(this.#message);
    try {
      settle();
    } finally {
      asyncEnd.publish(this.#message);
    }
  }
}

/** What is known of a load when its loader is called. */
interface Traced {
  readonly view: Scoped;
  readonly key: AnyKey;
  readonly background: boolean;
  readonly options: { readonly fresh: boolean };
}

/**
 * The events of a loader that is about to be called; `undefined` when nobody listens.
 *
 * @param flights what it loads. All are of one scope.
 * @param many whether the loader takes many keys
 */
export function traceOf(flights: readonly Traced[], many: boolean): Trace | undefined {
  if (!isHeard()) return undefined;
  const { view, key, background, options } = flights[0] as Traced;
  const message: LoadTrace = {
    cache: view.opening.name,
    namespace: view.scope.path,
    ...(many ? { keys: flights.map((each) => each.key) } : { key }),
    reason: background ? "refresh" : options.fresh ? "fresh" : "miss",
  };
  return new Trace(message, channels as Channels);
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as PromiseLike<unknown>).then === "function";
}
