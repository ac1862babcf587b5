/**
 * The seats of this thread. A thread takes one seat in a cache, however often it opens the cache: all its `Cache` objects of
 * one memory share one engine. When the last of them is closed or garbage-collected, the seat is given back.
 *
 * A bundler, a test runner or a `?query` in an import may load this package several times in one thread, also into realms
 * of their own. Copies of the same build share the seats: each seat is a property of an object that all realms of a thread
 * see. Copies of another build do not know these seats, and take seats of their own.
 */

import type { Region } from "../memory/memory.ts";
import { Engine } from "./engine.ts";
import { BUILD } from "./wasm.ts";

/** The seat of this thread in a cache: the engine, and how many openings use it. */
export interface Seat {
  readonly engine: Engine;
  /** How many times the cache is open in this thread. */
  users: number;
  /** The name of the property through which the copies of this package find the seat. */
  readonly name: string;
  /**
   * Gives the seat back for users that were garbage-collected without `close`. All copies use the registry of the copy that
   * made the engine, because that lives as long as the engine. The registry of another realm dies with its realm.
   */
  readonly forgotten: FinalizationRegistry<Seat>;
}

/** The names of the properties begin with this: only copies with the same engine and the same TypeScript share a seat. */
const PREFIX = `cache-machine seat ${BUILD} ${SOURCES_SHA256}`;

const forgotten = new FinalizationRegistry<Seat>((seat) => leaveSeat(seat));

/**
 * The seats in memories that this copy has created. Other copies do not find them. So when a realm is dropped, such as that
 * of a test file in jest, its memories can be collected.
 */
const created = new Map<string, Seat>();

/** An object that all realms of this thread see. In test runners each realm has its own `globalThis` and `process`. */
const thread: object = globalThis.process?.getBuiltinModule?.("node:worker_threads") ?? globalThis;

/**
 * Takes the seat of this thread in a region, for one more user. The user has to register with `forgotten`. From then on the
 * region belongs to the seat. It is closed at once when the thread has a seat in this cache already, and after an error.
 *
 * @param isNew whether this thread has just created the memory
 * @throws as the constructor of {@link Engine}.
 */
export function takeSeat(region: Region, isNew = false): Seat {
  const name = `${PREFIX} ${region.handle.id}`;
  let seat = created.get(name) ?? (Reflect.get(thread, name) as Seat | undefined);
  if (seat === undefined) {
    let engine: Engine;
    try {
      engine = new Engine(region);
    } catch (error) {
      region.close();
      throw error;
    }
    seat = { engine, users: 0, name, forgotten };
    // When `thread` cannot be changed, because it is frozen, only this copy finds the seat.
    if (isNew || !Reflect.defineProperty(thread, name, { value: seat, configurable: true })) created.set(name, seat);
  } else region.close();
  seat.users++;
  return seat;
}

/** Gives the seat back for one user. `user` is the token that it registered with, `undefined` when it was garbage-collected. */
export function leaveSeat(seat: Seat, user?: object): void {
  if (user !== undefined) seat.forgotten.unregister(user);
  if (seat.users === 1) {
    // From here on no opening finds the seat. `users` is lowered last: when the stack ends before, the user may leave again.
    if (created.get(seat.name) === seat) created.delete(seat.name);
    if (Reflect.get(thread, seat.name) === seat) Reflect.deleteProperty(thread, seat.name);
    seat.engine.close();
  }
  seat.users--;
}
