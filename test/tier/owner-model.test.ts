/**
 * A model of one host in virtual time: a server that is written to, two participants that read and write, and up to two owners at once,
 * whose connections are slow, lose messages, break, stall and come back, in an order that follows from a seed. The memory and the
 * owners are the real ones, over a cache of the built package.
 *
 * A checker holds what it says in src/tier/memory.ts against the recorded history of the server:
 *
 * - no read returns a value that was overwritten a lease before it or earlier, whoever has died or is late;
 * - what this host has changed is what it reads from then on;
 * - when everything has calmed down, the memory is good and holds what the server holds.
 *
 * `SEED=2 npx vitest …` sets another first seed, and `RUNS=300` how many seeds follow; each failure prints its own.
 */

import { describe, expect, test, vi } from "vitest";

vi.hoisted(() => {
  vi.useFakeTimers({
    toFake: [
      "setTimeout",
      "clearTimeout",
      "setInterval",
      "clearInterval",
      "setImmediate",
      "performance",
      "hrtime",
      "Date",
    ],
  });
});
vi.mock("../../src/index.ts", () => import("cache-machine"));

import { type Cache, createCache } from "cache-machine";
import { machineTime } from "../../src/coordinate/clock.ts";
import type { Client, ListenEvents, Listener } from "../../src/tier/clients/client.ts";
import { Memory } from "../../src/tier/memory.ts";
import { Names } from "../../src/tier/names.ts";
import { Owner } from "../../src/tier/owner.ts";
import { seeded } from "../contract/seeded.ts";
import { Deferred, pass, randomOf, settle } from "./virtual.ts";

const LEASE = 100;
const TIMEOUT = 120;
const KEYS = ["a", "b", "c", "d"];
const TICKS = 4000;
const RUNS = Number(process.env.RUNS ?? 16);
const names = new Names("app:");

type Random = () => number;

/** Does something at a time. */
interface Due {
  at: number;
  what: () => void;
}

/** What takes time in this model. */
class Agenda {
  #due: Due[] = [];

  after(ms: number, what: () => void): void {
    this.#due.push({ at: machineTime() + ms, what });
  }

  /** Does what is due, in the order of the times, and of the calls where they are equal. */
  run(): void {
    const now = machineTime();
    const ready = this.#due.filter(({ at }) => at <= now);
    this.#due = this.#due.filter(({ at }) => at > now);
    for (const { what } of ready) what();
  }
}

/** A server with one number for each key: how often it was written. */
class Server {
  readonly random: Random;
  readonly agenda: Agenda;
  /** When each version of each key was written, which is also when its writer was told. */
  readonly written = new Map<string, number[]>(KEYS.map((key) => [key, [machineTime()]]));
  connections: Connection[] = [];
  isAway = false;
  /** Whether the network is as quick as it can be. */
  isCalm = false;

  constructor(random: Random, agenda: Agenda) {
    this.random = random;
    this.agenda = agenda;
  }

  /** How long a message takes: mostly a few milliseconds, and now and then much longer. */
  delay(often: number, longest: number): number {
    const slow = this.random() < often && !this.isCalm;
    return this.random() * (slow ? longest : 4);
  }

  version(key: string): number {
    return (this.written.get(key) as number[]).length - 1;
  }

  write(key: string): number {
    this.written.get(key)?.push(machineTime());
    for (const connection of this.connections) connection.tell([names.value([], key)]);
    return this.version(key);
  }

  /** All values are removed: each is a new version, and all are told at once. */
  flush(): void {
    for (const key of KEYS) this.written.get(key)?.push(machineTime());
    for (const connection of this.connections) connection.tell(null);
  }
}

/** The connection of an owner. The server writes its messages in order, and the network delivers them in order, at some time. */
class Connection implements Listener {
  readonly #server: Server;
  readonly #events: ListenEvents;
  readonly #inbox: (() => void)[] = [];
  readonly #beats = new Set<Deferred<number>>();
  #latest = 0;
  #isClosed = false;
  #isTracking = false;

  constructor(server: Server, events: ListenEvents) {
    this.#server = server;
    this.#events = events;
    server.connections.push(this);
  }

  /** The server begins to track, and the answer comes later. */
  track(opened: Deferred<Listener>): void {
    this.#isTracking = true;
    this.#deliver(() => opened.resolve(this));
  }

  tell(keys: string[] | null): void {
    if (this.#isTracking) this.#deliver(() => this.#events.onChanged(keys));
  }

  #deliver(message: () => void): void {
    this.#latest = Math.max(this.#latest, machineTime() + this.#server.delay(0.05, 2 * LEASE));
    this.#inbox.push(message);
    this.#server.agenda.after(this.#latest - machineTime(), () => {
      if (!this.#isClosed) this.#inbox.shift()?.();
    });
  }

  beat(): Promise<number> {
    const beat = new Deferred<number>();
    this.#beats.add(beat);
    this.#server.agenda.after(this.#server.delay(0.1, LEASE), () => {
      if (this.#isTracking) this.#deliver(() => beat.resolve(Date.now()));
    });
    return beat.promise;
  }

  /** The server has lost the connection. The owner is told later, or not at all. */
  break(isTold: boolean): void {
    if (!this.#isTracking) return;
    this.#isTracking = false;
    this.#server.connections = this.#server.connections.filter((each) => each !== this);
    if (!isTold) return;
    this.#deliver(() => {
      this.#events.onEnd(new Error("lost"));
      for (const beat of this.#beats) beat.reject(new Error("lost"));
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.break(false);
    for (const beat of this.#beats) beat.reject(new Error("closed"));
  }
}

function clientOf(server: Server): Client {
  return {
    library: "model",
    isCluster: false,
    listen(events) {
      const opened = new Deferred<Listener>();
      const { random, agenda } = server;
      agenda.after(random() * 5, () => {
        if (server.isAway) opened.reject(new Error("away"));
        else new Connection(server, events).track(opened);
      });
      return opened.promise;
    },
    send: () => Promise.reject(new Error("no commands")),
    errorReply: () => undefined,
    scan: () => {
      throw new Error("no commands");
    },
  };
}

/** One participant that reads and writes, and checks what it reads. */
class Participant {
  readonly memory: Memory;
  readonly #server: Server;
  /** The versions that this host must not read any more, because it has written a newer one itself. */
  readonly #own: Map<string, number>;
  readonly counts: { hits: number; reads: number; worst: number };

  constructor(
    cache: Cache<any, any>,
    server: Server,
    own: Map<string, number>,
    counts: { hits: number; reads: number; worst: number },
  ) {
    this.memory = new Memory(cache, "app:", LEASE, names);
    this.#server = server;
    this.#own = own;
    this.counts = counts;
  }

  read(key: string): void {
    const began = machineTime();
    const own = this.#own.get(key) ?? 0;
    const place = this.memory.at([]);
    const known = place.peek(key) as number | undefined;
    this.counts.reads++;
    if (known !== undefined) {
      this.counts.hits++;
      this.check(key, known, began, own, "memory");
      return;
    }
    const server = this.#server;
    const network = (): Promise<void> =>
      new Promise((resolve) => server.agenda.after(server.delay(0.05, 2 * LEASE), resolve));
    place
      .current()
      .getOrSet(key, async () => {
        await network();
        const version = server.version(key);
        await network();
        return version;
      })
      .then((version) => this.check(key, version, began, own, "the server"))
      .catch((error) => faults.push(error));
  }

  /** A load: its value is stored nowhere, and may be handed to callers of the host as long as no change has overtaken it. */
  load(key: string): void {
    const began = machineTime();
    const own = this.#own.get(key) ?? 0;
    const server = this.#server;
    const work = (): Promise<void> =>
      new Promise((resolve) => server.agenda.after(server.isCalm ? 1 : server.random() ** 4 * 4 * LEASE, resolve));
    this.memory
      .at([])
      .loading(false)
      .getOrSet(
        key,
        async () => {
          await work();
          const version = server.version(key);
          await work();
          return version;
        },
        { ttl: 0, lease: 100 * LEASE },
      )
      .then((version) => this.check(key, version, began, own, "a load"))
      .catch((error) => faults.push(error));
  }

  /** A write of this host: acknowledged by the server, then dropped here, and then it returns. */
  write(key: string): void {
    const version = this.#server.write(key);
    const { random, agenda } = this.#server;
    agenda.after(random() * 4, () => {
      this.memory.at([]).drop(key);
      this.#own.set(key, Math.max(version, this.#own.get(key) ?? 0));
    });
  }

  check(key: string, version: number, at: number, own: number, from: string): void {
    const overwritten = this.#server.written.get(key)?.[version + 1];
    const staleness = overwritten === undefined || overwritten > at ? 0 : at - overwritten;
    this.counts.worst = Math.max(this.counts.worst, staleness);
    if (staleness >= LEASE)
      faults.push(`${key} from ${from} at ${at}: ${version} was overwritten ${staleness} ms before`);
    if (version < own) faults.push(`${key} from ${from} at ${at}: ${version}, but this host has written ${own}`);
  }
}

let faults: unknown[] = [];

/** An owner with a lock and reports of its own, so that there may be two of them. They share the values and the lease. */
function ownerOf(cache: Cache<any, any>, server: Server, number: number): Owner {
  const memory = new Memory(cache, "app:", LEASE, names);
  const own = cache.namespace(`owner ${number}`);
  const shared = memory.control;
  const control = {
    locks: own.locks,
    get: (key: string) => (key === "lease" ? shared : own).get(key),
    set: (key: string, value: unknown) => (key === "lease" ? shared : own).set(key, value),
  };
  Object.assign(memory, { control });
  const owner = new Owner(memory, clientOf(server), names, { lease: LEASE, timeout: TIMEOUT });
  owner.start();
  return owner;
}

async function run(
  seed: number,
): Promise<{ hits: number; reads: number; worst: number; epochs: number; writes: number }> {
  faults = [];
  const random = randomOf(seed);
  // The owners' pauses.
  vi.spyOn(Math, "random").mockImplementation(randomOf(-seed));
  const agenda = new Agenda();
  const server = new Server(random, agenda);
  const cache = seeded(1, () => createCache({ size: "4MiB" }));
  const counts = { hits: 0, reads: 0, worst: 0 };
  const own = new Map<string, number>();
  const readers = [0, 1].map(() => new Participant(cache, server, own, counts));
  const owners: (Owner | undefined)[] = [ownerOf(cache, server, 0), ownerOf(cache, server, 1)];
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  /** How lively the model is: some runs write often, and some break often. */
  const [writing, breaking] = [0.02 + random() * 0.2, random() * 0.02];
  const closing: Promise<void>[] = [];

  const tick = async (isCalm: boolean): Promise<void> => {
    agenda.run();
    for (let i = 0; i < 3; i++) if (random() < 0.7) pick(readers).read(pick(KEYS));
    if (random() < 0.2) pick(readers).load(pick(KEYS));
    if (!isCalm) {
      if (random() < writing) server.write(pick(KEYS));
      if (random() < writing / 4) pick(readers).write(pick(KEYS));
      if (random() < 0.001) server.flush();
      if (random() < breaking && server.connections.length > 0) pick(server.connections).break(random() < 0.5);
      if (random() < breaking / 4) {
        server.isAway = true;
        for (const connection of server.connections) connection.break(random() < 0.7);
        agenda.after(random() * 5 * LEASE, () => (server.isAway = false));
      }
      if (random() < breaking / 4) {
        const number = random() < 0.5 ? 0 : 1;
        const owner = owners[number];
        if (owner === undefined) owners[number] = ownerOf(cache, server, number);
        else closing.push(owner.close());
        if (owner !== undefined) owners[number] = undefined;
      }
    }
    await pass(1);
    expect(faults, `seed ${seed}`).toEqual([]);
  };
  for (let i = 0; i < TICKS; i++) await tick(false);
  server.isAway = false;
  server.isCalm = true;
  owners[0] ??= ownerOf(cache, server, 0);
  for (let i = 0; i < 3000; i++) await tick(true);
  const calm = readers.map(({ memory }) => [memory.isGood, ...KEYS.map((key) => memory.at([]).peek(key))]);
  const right = [true, ...KEYS.map((key) => server.version(key))];
  expect(calm, `seed ${seed}`).toEqual([right, right]);
  const { epochs = 0 } = owners[0]?.report() ?? {};
  for (const owner of owners) if (owner !== undefined) closing.push(owner.close());
  for (let i = 0; i < 1000; i++) {
    agenda.run();
    await pass(1);
  }
  await Promise.all(closing);
  await settle();
  cache.close();
  const writes = [...server.written.values()].reduce((sum, times) => sum + times.length, 0);
  return { ...counts, epochs, writes };
}

describe("a host in virtual time", () => {
  const first = Number(process.env.SEED ?? 1);
  for (let seed = first; seed < first + RUNS; seed++) {
    test(`seed ${seed}: nothing is staler than the lease`, async () => {
      const { hits, reads, worst, writes, epochs } = await run(seed);
      console.log(
        `seed ${seed}: ${reads} reads, ${hits} of them from memory, ${writes} writes, ${epochs} epochs, stalest ${worst.toFixed(1)} of ${LEASE} ms`,
      );
      // Otherwise the model would prove nothing.
      expect(hits).toBeGreaterThan(reads / 10);
      expect(worst).toBeGreaterThan(0);
    });
  }
});
