/** What a tier needs of a client of Redis or Valkey, and of a listener to the changes of keys. Each library has a file that implements it. */

/** One argument of a command. */
export type Argument = string | Buffer;

/**
 * A reply of the server: bulk strings are Buffers, integers numbers, nil is `null`. Maps of RESP3 are flat arrays of keys and values.
 *
 * Simple strings such as `OK` are strings, or Buffers where the library does not tell them from bulk strings (ioredis, iovalkey).
 */
export type Reply = null | number | string | Buffer | Reply[];

/** One client of a server, or of a cluster of servers. */
export interface Client {
  /** For messages: `node-redis`, or `ioredis`, also for iovalkey. */
  readonly library: string;
  readonly isCluster: boolean;
  /**
   * Sends one command to a master.
   *
   * @param key names the slot in a cluster
   * @param timeout milliseconds. A command that was not answered by then rejects, and is withdrawn if it was not sent yet.
   */
  send(key: string, args: readonly Argument[], timeout: number): Promise<Reply>;
  /** The text of the server's error reply, such as `READONLY You can't write …`; `undefined` when the server did not answer. */
  errorReply(error: unknown): string | undefined;
  /**
   * Batches of the keys that match a glob pattern, from all masters. A key may come twice.
   *
   * @param timeout milliseconds for each batch
   */
  scan(pattern: string, timeout: number): AsyncIterable<string[]>;
  /**
   * Opens connections of its own, to each master, and has the server report the keys that change. Resolves when all of it is
   * confirmed.
   *
   * @param timeout milliseconds
   * @throws CacheError `ERR_UNSUPPORTED` when the server, or the permissions of its user, do not allow it.
   */
  listen(events: ListenEvents, timeout: number): Promise<Listener>;
  /** Ends the connections that were opened for commands. Not the client of the user, and no listeners. May be called again. */
  close(): Promise<void>;
}

/** What a listener reports. */
export interface ListenEvents {
  /** Keys that begin with one of these are reported. */
  readonly prefixes: readonly string[];
  /** Keys that have changed; `null`: any may have. Called in the order of the server's messages, before a later `beat` resolves. */
  onChanged(keys: readonly string[] | null): void;
  /**
   * At most once: a connection was lost, tracking is off, a server is no master any more, or the cluster has other masters. There
   * is no reconnection: open a new listener.
   */
  onEnd(reason: Error): void;
}

/** Hears all changes of the tracked keys until it ends. */
export interface Listener {
  /**
   * Proves by a round trip on each connection that every change is heard, and that the changes which were acknowledged to their
   * writers before this call have been reported. Otherwise it rejects, and the listener ends.
   *
   * @param timeout milliseconds
   * @returns the server's time in milliseconds since 1970; of several masters, the latest.
   */
  beat(timeout: number): Promise<number>;
  /** Closes the connections. No event comes afterwards. May be called again. */
  close(): Promise<void>;
}
