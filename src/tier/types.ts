/** The types of the public interface of a tier. Times are in milliseconds. */

import type { CountedEntry, Entry, SetOptions } from "../index.ts";

/** How a tier works. All processes of a host should use the same options. */
export interface TierOptions {
  /**
   * The client by which this process or thread speaks to the server: of node-redis 5 or later (connected), ioredis or iovalkey.
   * It stays the caller's: the tier never closes it. The connection that hears of changes is another one, which the tier makes with the
   * same settings; with ioredis and iovalkey also the one for commands, because theirs may send a command twice.
   */
  client: unknown;
  /** What the names of all keys on the server begin with; `"cache-machine:"` by default. Hosts with the same prefix share values. */
  prefix?: string | undefined;
  /** How long values live that are stored without a `ttl`; `Infinity` by default. */
  ttl?: number | undefined;
  /** The longest time that a value stays in the memory of the host before it is read from the server again; `Infinity` by default. */
  maxAge?: number | undefined;
  /**
   * What reads return while nobody on this host hears of changes: with `"expire"`, the default, what the host has in memory is not
   * used any more, so no read is staler than `lease`; with `"serve"` it is used until the connection is back, however long that takes.
   */
  onDisconnect?: "expire" | "serve" | undefined;
  /** The bound of staleness: no read returns a value that was replaced on the server longer ago than this; 1,000 by default, from 100 on. */
  lease?: number | undefined;
  /** How long to wait for an answer of the server; 1,000 by default. */
  timeout?: number | undefined;
  /**
   * Who loads a key with `getOrSet`: with `"host"`, the default, one process or thread of each host; with `"all"` one of all hosts, while
   * the others wait for its value.
   */
  singleFlight?: "host" | "all" | undefined;
}

/** How a value is stored by way of a tier: as in {@link SetOptions} of a cache. */
export type TierSetOptions = Pick<SetOptions, "ttl" | "expiresAt" | "grace" | "tags">;

/** An entry of a tier. It has no version: the server has none. */
export type TierEntry<V> = Pick<Entry<V>, "value" | "expiresAt" | "tags">;
/** A number of a tier after an increment. */
export type TierCountedEntry = Pick<CountedEntry, "value" | "expiresAt">;

/** Numbers about a tier. What is not in `own` is the same for all threads and processes of the host. */
export interface TierStats {
  /** Whether the memory of the host is good now, so that reads may use it. */
  isGood: boolean;
  /** Milliseconds for which it stays good if nobody renews the lease; 0 when it is not good. */
  leaseLeft: number;
  /** The participant that hears of changes for the whole host; `undefined` while there is none. */
  owner: OwnerReport | undefined;
  /** What this `Tier` and its namespaces, in this thread, have counted since they were opened. */
  own: Counts & {
    /** Commands that were sent to the server. */
    commands: number;
  };
}

/** What one participant has counted since it opened the tier. */
export interface Counts {
  /** Reads that the memory of the host answered, also those of keys that are known to be absent. */
  hits: number;
  /** Reads that had to ask the server, or to wait for another participant that asked it. */
  misses: number;
  /** Loaders that ran here. */
  loads: number;
  /** Reads and writes that the server did not answer. */
  errors: number;
}

/** What an owner is doing. `"following"`: it hears all changes. */
export type OwnerState = "connecting" | "following";

/** What a host knows of its owner. The counts are those of the host: a new owner goes on from the numbers of the one before. */
export interface OwnerReport {
  pid: number;
  threadId: number;
  state: OwnerState;
  /** When it became the owner, in milliseconds since 1970. */
  since: number;
  /** Milliseconds since it has reported this. */
  age: number;
  /** How often the memory was emptied because a connection was new. */
  epochs: number;
  /** Changed keys that the server has pushed. */
  invalidations: number;
  /** Beats that were answered. */
  beats: number;
  /** Milliseconds that the latest beat took. */
  roundTrip: number;
  /** Why it is connecting: what the latest attempt, or the listener before, has failed with. */
  error?: string;
}
