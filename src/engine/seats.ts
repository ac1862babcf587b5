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

/** A seat in a cache: the engine, and how many in this thread use it. */
export interface Seat {
  readonly engine: Engine;
  /** How many times the cache is open in this thread. */
  users: number;
  /** The name of the property by which copies of this package find the seat. */
  readonly name: string;
  /**
   * Gives the seat back for users that were garbage-collected without `close`. It is the registry of the copy that made the
   * engine, because it lives as long as the engine. The registry of another realm dies with its realm and then calls nobody.
   */
  readonly forgotten: FinalizationRegistry<Seat>;
}

/** Identity of what copies share: the engine, and the TypeScript around it. */
const PREFIX = `cache-machine seat ${BUILD} ${SOURCES_SHA256}`;

const forgotten = new FinalizationRegistry<Seat>((seat) => leaveSeat(seat));

/**
 * The seats in memories that this copy has created. Other copies do not find them. So a realm that is dropped, such as a test
 * file in jest, takes its memories with it.
 */
const created = new Map<string, Seat>();

/** An object that all realms of this thread see. In test runners each realm has its own `globalThis` and `process`. */
const thread: object = globalThis.process?.getBuiltinModule?.("node:worker_threads") ?? globalThis;

/**
 * Takes the seat of this thread in a region, for one user more. The user has to register with `forgotten`. The region belongs
 * to the seat from here on; it is closed when there is a seat already, and when there is an error.
 *
 * @param isNew whether this thread has just created the memory
 * @throws {CacheError} `ERR_BUSY` when living threads own all seats.
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
    // Where that object is frozen, the seat is shared within this copy only.
    if (isNew || !Reflect.defineProperty(thread, name, { value: seat, configurable: true })) created.set(name, seat);
  } else region.close();
  seat.users++;
  return seat;
}

/** Gives the seat back for one user. `user` is the token that it registered with, `undefined` when it was garbage-collected. */
export function leaveSeat(seat: Seat, user?: object): void {
  if (user !== undefined) seat.forgotten.unregister(user);
  if (seat.users === 1) {
    // From here on nobody finds the seat. When the stack ends in the middle, the same user may leave once more.
    if (created.get(seat.name) === seat) created.delete(seat.name);
    if (Reflect.get(thread, seat.name) === seat) Reflect.deleteProperty(thread, seat.name);
    seat.engine.close();
  }
  seat.users--;
}
