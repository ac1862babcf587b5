/**
 * The seats of this thread. A thread takes one place in a cache, however often it opens it: all its `Cache` objects of one
 * memory share one engine, and the last of them to be closed or forgotten gives the place back.
 *
 * A bundler, a test runner or a `?query` in an import may load this package several times in one thread, also into realms
 * of their own. Copies of the same build share the seats: each is a property of an object that all realms of a thread see.
 * Copies of another build do not know of them, and take places of their own.
 */

import type { Region } from "../memory/memory.ts";
import { Engine } from "./engine.ts";
import { BUILD } from "./wasm.ts";

/** One participant of a cache, and those of this thread who use it. */
export interface Seat {
  readonly engine: Engine;
  /** How many `Cache` objects use it. */
  users: number;
  readonly name: string;
  /**
   * Gives back what was forgotten without `close`. That of the copy which made the engine: it is there as long as the
   * engine, while that of another realm is gone with the realm, and then nobody calls it.
   */
  readonly forgotten: FinalizationRegistry<Seat>;
}

/** Identity of what copies share: the engine, and the code around it. */
const PREFIX = `cache-machine seat ${BUILD} ${SOURCES_SHA256}`;

const forgotten = new FinalizationRegistry<Seat>((seat) => leaveSeat(seat));

/**
 * The seats in memories that this copy has created. Nobody else knows of them, so that a realm that is dropped (a test
 * file in jest) takes its memories with it.
 */
const created = new Map<string, Seat>();

/** What all realms of this thread see: their `globalThis` and `process` are their own in test runners. */
const thread: object = globalThis.process?.getBuiltinModule?.("node:worker_threads") ?? globalThis;

/**
 * The seat of this thread in a region, with one user more, who has to register with `forgotten`. The region becomes the
 * seat's own; it is closed when there is a seat already, and when there is an error.
 *
 * @param isNew whether this thread has just created the memory
 * @throws {CacheError} `ERR_BUSY` when all places are taken by living threads.
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
    // Where the host has frozen that object, this copy alone shares.
    if (isNew || !Reflect.defineProperty(thread, name, { value: seat, configurable: true })) created.set(name, seat);
  } else region.close();
  seat.users++;
  return seat;
}

/** One user less; `user` is what it has registered, unless it was forgotten. */
export function leaveSeat(seat: Seat, user?: object): void {
  if (user !== undefined) seat.forgotten.unregister(user);
  if (seat.users === 1) {
    // From here on nobody else finds it. When the stack ends in the middle, the same user may leave once more.
    if (created.get(seat.name) === seat) created.delete(seat.name);
    if (Reflect.get(thread, seat.name) === seat) Reflect.deleteProperty(thread, seat.name);
    seat.engine.close();
  }
  seat.users--;
}
