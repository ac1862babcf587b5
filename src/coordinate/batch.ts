/**
 * One loader for many keys at once. Each key that is missing has a flight of its own, as with `getOrSet`, so that calls for
 * single keys and for many keys wait for each other. The flights that get their claims are collected, and the loader runs once for
 * all of them.
 */

import { runLater } from "../system/timers.ts";
import { describe } from "../values/describe.ts";
import { type Flight, type Load, loaderOf } from "./flights.ts";
import { runLoader } from "./nesting.ts";
import type { AnyKey } from "./scoped.ts";
import { isThenable, traceOf } from "./tracing.ts";

/** What a loader of many keys is told, and what it may say. */
export class BatchContext {
  readonly background: boolean;
  ttl: number | undefined;
  tags: readonly string[] | undefined;
  readonly #flights: readonly Flight[];
  #controller: AbortController | undefined;

  constructor(flights: readonly Flight[], background: boolean) {
    this.#flights = flights;
    this.background = background;
    for (const flight of flights) flight.onAbort = () => this.#abort();
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    this.#abort();
    return this.#controller.signal;
  }

  /** The loader is told to stop when nobody waits for any of its keys. */
  #abort(): void {
    if (this.#flights.every(({ aborted }) => aborted)) this.#controller?.abort(this.#flights[0]?.signal.reason);
  }
}

/** A flight that has its claim, and the promise that stands for its value. */
interface Seat {
  readonly flight: Flight;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** The loads of one call of `getOrSetMany`. */
export class Batch {
  readonly #load: (keys: any[], context: any) => unknown;
  #seats: Seat[] = [];
  #isScheduled = true;

  constructor(load: (keys: any[], context: any) => unknown) {
    this.#load = load;
  }

  /** The loader of each flight. */
  readonly load: Load = (flight) =>
    new Promise((resolve, reject) => {
      this.#seats.push({ flight, resolve, reject });
      if (this.#isScheduled) return;
      // A flight that had to wait for somebody else, in vain.
      this.#isScheduled = true;
      runLater(() => this.depart());
    });

  /** Runs the loader for all flights that have been collected. */
  depart(): void {
    this.#isScheduled = false;
    const seats = this.#seats;
    this.#seats = [];
    for (const background of [false, true]) {
      const group = seats.filter(({ flight }) => flight.background === background);
      if (group.length > 0) this.#run(group, background);
    }
  }

  #run(seats: readonly Seat[], background: boolean): void {
    const flights = seats.map(({ flight }) => flight);
    const context = new BatchContext(flights, background);
    const loader = loaderOf(flights);
    for (const flight of flights) flight.loader = loader;
    const keys = flights.map(({ key }) => key);
    const trace = traceOf(flights, true);
    const load = (): unknown => this.#load([...keys], context);
    const loaded = new Promise((resolve, reject) => {
      const result = runLoader(loader, trace === undefined ? load : () => trace.run(load));
      if (trace === undefined || !isThenable(result)) return resolve(result);
      result.then(
        (values) => trace.fulfilled(values, () => resolve(values)),
        (error) => trace.rejected(error, () => reject(error)),
      );
    });
    loaded
      .then((values) => {
        const valueAt = reader(values, keys);
        seats.forEach(({ flight, resolve }, i) => {
          Object.assign(flight.context as object, { ttl: context.ttl, tags: context.tags });
          resolve(valueAt(i));
        });
      })
      .catch((error) => {
        for (const { reject } of seats) reject(error);
      });
  }
}

/** Returns a function that takes the value of a key, by its place, from what the loader has returned. */
function reader(values: unknown, keys: readonly AnyKey[]): (i: number) => unknown {
  if (values instanceof Map) return (i) => values.get(keys[i]);
  if (!Array.isArray(values)) {
    throw new TypeError(
      `load: must return an array of values in the order of the keys, or a Map, not ${describe(values)}`,
    );
  }
  if (values.length !== keys.length) {
    throw new TypeError(
      `load: must return as many values as it was given keys: ${keys.length}, not ${values.length}. Use undefined for a key ` +
        "without a value, or return a Map.",
    );
  }
  return (i) => values[i];
}
