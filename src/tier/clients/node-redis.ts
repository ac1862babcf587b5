/**
 * node-redis 5 and later (the package `redis`, or `@redis/client`): `createClient()`, `createClientPool()`, `createSentinel()` and `createCluster()`.
 *
 * Listens with RESP3 where this version reports pushes (`emitInvalidate`), unless the user has chosen RESP2.
 */

import { setMaxListeners } from "node:events";
import type { Argument, Client, ListenEvents, Listener, Reply } from "./interface.ts";
import { type Address, type Connection, type ConnectionEvents, type Dialer, listen } from "./listening.ts";
import { type Duplicate, Own } from "./owned.ts";
import { noAnswer, Sending } from "./sending.ts";

/** What is used of a client. */
interface NodeRedis {
  readonly isOpen: boolean;
  readonly isReady: boolean;
  readonly isPubSubActive: boolean;
  readonly options?: Options;
  sendCommand(args: readonly Argument[], options?: CommandOptions): Promise<unknown>;
  duplicate(options?: Options): NodeRedis;
  connect(): Promise<unknown>;
  destroy(): void;
  unref(): void;
  subscribe(channel: string, listener: (message: unknown) => void, bufferMode: true): Promise<void>;
  on(event: string, listener: (argument: never) => void): unknown;
}
interface CommandOptions {
  typeMapping?: Record<number, unknown>;
  timeout?: undefined;
  asap?: boolean;
  abortSignal?: AbortSignal;
}
type Options = Record<string, unknown> & { RESP?: number; socket?: Record<string, unknown> };

/** How replies are read, by the first byte of each type in RESP: bulk strings and verbatim strings are Buffers, maps arrays. */
const TYPES: Readonly<Record<number, unknown>> = { 36: Buffer, 61: Buffer, 37: Array, 40: String };

/** A client of node-redis; `undefined` for an object of another library. */
export function nodeRedis(client: object): Client | undefined {
  const it = client as NodeRedis & { withTypeMapping?: unknown };
  if (typeof it.sendCommand !== "function" || typeof it.isOpen !== "boolean") return undefined;
  if (typeof it.withTypeMapping !== "function") {
    throw new TypeError(
      "client: this is an old or a legacy client of node-redis. Use `createClient()` of node-redis 5 or later.",
    );
  }
  const servers = serversOf(client);
  if (servers === undefined) return undefined;
  if (!it.isOpen) throw new TypeError("client: is not open. Call `await client.connect()` first.");
  // With RESP3, which is the default since version 6, a subscriber may send commands.
  const isResp3 = (it.options?.RESP ?? ("_keyPrefix" in it ? 3 : 2)) === 3;
  if (it.isPubSubActive && !isResp3) {
    throw new TypeError("client: is subscribed to channels. Use a client of its own: `client.duplicate()`.");
  }
  return new NodeRedisClient(servers);
}

/** What differs between the kinds of clients. */
interface Servers {
  readonly isCluster: boolean;
  /** Within `timeout`, as {@link Client.send}. */
  send(key: string, args: readonly Argument[], timeout: number): Promise<unknown>;
  /** Clients of all masters that have keys. */
  masters(): Promise<readonly Sender[]>;
  /** See {@link Dialer}. */
  seeds: Dialer["seeds"];
  /** A client with the options for connections to an address, or to the only server; and what has to be changed in them. */
  template(to: Address | undefined): Promise<{ client: NodeRedis; socket: Record<string, unknown> }>;
  /** Ends the connections that were opened for commands. */
  close?(): void;
}
interface Sender {
  send(args: readonly Argument[], timeout: number): Promise<unknown>;
}

interface Pool {
  readonly isOpen: boolean;
  readonly totalClients: number;
  execute<T>(task: (client: NodeRedis) => T): Promise<Awaited<T>>;
}
interface Sentinel {
  readonly isReady: boolean;
  getSentinelNode(): unknown;
  /** Runs a task with the client of the master. */
  _execute<T>(isReadonly: boolean, task: (client: NodeRedis) => T): Promise<T>;
}
interface Cluster {
  readonly masters: readonly (Address & { client?: NodeRedis })[];
  nodeClient(node: Address): NodeRedis | Promise<NodeRedis>;
  sendCommand(key: string, isReadonly: boolean, args: readonly Argument[], options: CommandOptions): Promise<unknown>;
}

function serversOf(client: object): Servers | undefined {
  if (typeof (client as Cluster).nodeClient === "function") return cluster(client as Cluster);
  if (typeof (client as Sentinel).getSentinelNode === "function") return sentinel(client as Sentinel);
  if (typeof (client as Pool).totalClients === "number") return pool(client as Pool);
  return typeof (client as NodeRedis).isPubSubActive === "boolean" ? single(client as NodeRedis) : undefined;
}

/**
 * The commands have a connection of their own. After a connection was lost, node-redis 5 gives a command that it was about to write to the
 * dead socket, and takes the first answers on the next one for answers to it: the client never becomes ready again, or each command gets
 * the answer of another one. Without the queue of the library (`disableOfflineQueue`) it forgets such commands.
 */
function single(client: NodeRedis): Servers {
  const own = new Own(() => new Copy(client));
  return {
    isCluster: false,
    send: (_key, args, timeout) => own.send(args, timeout),
    masters: async () => [{ send: (args, timeout) => own.send(args, timeout) }],
    seeds: async () => undefined,
    template: async () => ({ client, socket: {} }),
    close: () => own.close(),
  };
}

/** What the connections of a tier have otherwise than the client of the user. */
const OWN: Options = {
  clientSideCache: undefined,
  emitInvalidate: false,
  // What the user has set for commands, and what exchanges or closes sockets.
  commandOptions: {},
  commandsQueueMaxLength: undefined,
  maintNotifications: "disabled",
  pingInterval: undefined,
  readonly: false,
  disableOfflineQueue: true,
};

/** A duplicate for the commands of the tier. */
class Copy implements Duplicate {
  readonly #client: NodeRedis;
  /** Ends a socket that is not connected yet, which the library cannot. */
  readonly #ending = new AbortController();
  isConnected = false;
  #over: () => void = () => undefined;

  constructor(user: NodeRedis) {
    const socket = { ...user.options?.socket, socketTimeout: undefined, signal: this.#ending.signal };
    setMaxListeners(0, this.#ending.signal);
    this.#client = user.duplicate({ ...OWN, socket });
    this.#client.on("connect", () => {
      this.isConnected = true;
    });
    this.#client.on("reconnecting", () => {
      this.isConnected = false;
    });
    // The user hears of errors by the client of the user.
    this.#client.on("error", () => {
      if (this.isOver) this.#over();
    });
    this.#client.on("end", () => this.#over());
    this.#client.unref();
    this.#client.connect().catch(() => this.#over());
  }

  get isReady(): boolean {
    return this.#client.isReady;
  }

  get isOver(): boolean {
    return !this.#client.isOpen;
  }

  watch(onReady: () => void, onOver: () => void): void {
    this.#client.on("ready", onReady);
    this.#over = onOver;
  }

  call(args: readonly Argument[], timeout: number): Promise<Reply> {
    return sendBy(this.#client, args, timeout) as Promise<Reply>;
  }

  isReply(error: unknown): boolean {
    return errorReply(error) !== undefined;
  }

  destroy(): void {
    this.#ending.abort();
    try {
      this.#client.destroy();
    } catch {
      // It is closed already.
    }
  }
}

function pool(client: Pool): Servers {
  let known: NodeRedis | undefined;
  const isReady = (): boolean => client.isOpen;
  return limited(isReady, {
    isCluster: false,
    send: (_key, args, timeout) => client.execute(inTime(args, timeout)),
    masters: async () => [{ send: (args, timeout) => client.execute(inTime(args, timeout)) }],
    seeds: async () => undefined,
    template: async () => {
      // Any client of the pool has the options, also when it is closed.
      known ??= await client.execute((each) => each);
      return { client: known, socket: {} };
    },
  });
}

function sentinel(client: Sentinel): Servers {
  const master: Sender = { send: (args, timeout) => client._execute(false, inTime(args, timeout)) };
  const isReady = (): boolean => client.isReady;
  return limited(isReady, {
    isCluster: false,
    send: (_key, args, timeout) => master.send(args, timeout),
    masters: async () => [master],
    seeds: async () => undefined,
    template: async () => ({ client: await client._execute(false, (each) => each), socket: {} }),
  });
}

/** A task that waits for a client, and does not send when its time is over: nobody waits for the answer any more. */
function inTime(args: readonly Argument[], timeout: number): (client: NodeRedis) => Promise<unknown> {
  const end = performance.now() + timeout;
  return (client) => (performance.now() < end ? sendBy(client, args, timeout) : Promise.reject(noAnswer(timeout)));
}

function cluster(client: Cluster): Servers {
  // A node that is not needed yet has no client.
  const isReady = (): boolean => client.masters.every((node) => node.client === undefined || node.client.isReady);
  return limited(isReady, {
    isCluster: true,
    // Nothing is said to be read only, so that replicas are not asked.
    send: (key, args, timeout) => client.sendCommand(key, false, args, commandOptions(timeout)),
    masters: async () => {
      const nodes = await Promise.all(client.masters.map((node) => client.nodeClient(node)));
      return nodes.map((node) => ({ send: (args, timeout) => sendBy(node, args, timeout) }));
    },
    seeds: async () => client.masters.map(({ host, port }) => ({ host, port })),
    template: async (to) => {
      const node = client.masters.find(({ host, port }) => host === to?.host && port === to.port);
      const known = node ?? client.masters[0];
      if (known === undefined) throw new Error("the client knows no master of the cluster");
      // The client of a node has its options also when it is not connected.
      const its = known.client ?? (await client.nodeClient(known));
      return { client: its, socket: node === undefined ? { ...to } : {} };
    },
  });
}

/**
 * Limits the time and the number of the commands that a client of the user sends.
 *
 * @param isReady whether all connections that may be used for a command are there
 */
function limited(isReady: () => boolean, servers: Servers): Servers {
  const sending = new Sending();
  const one = ({ send }: Sender): Sender => ({
    send: (args, timeout) => sending.run(() => send(args, timeout), timeout, true),
  });
  return {
    ...servers,
    send: (key, args, timeout) => sending.run(() => servers.send(key, args, timeout), timeout, isReady()),
    masters: async () => (await servers.masters()).map(one),
  };
}

class NodeRedisClient implements Client {
  readonly library = "node-redis";
  readonly isCluster: boolean;
  readonly #servers: Servers;
  constructor(servers: Servers) {
    this.#servers = servers;
    this.isCluster = servers.isCluster;
  }

  send(key: string, args: readonly Argument[], timeout: number): Promise<Reply> {
    return this.#servers.send(key, args, timeout) as Promise<Reply>;
  }

  errorReply(error: unknown): string | undefined {
    return errorReply(error);
  }

  async *scan(pattern: string, timeout: number): AsyncIterable<string[]> {
    for (const master of await this.#servers.masters()) {
      let cursor = "0";
      do {
        const args = ["SCAN", cursor, "MATCH", pattern, "COUNT", "1000"];
        const [next, keys] = (await master.send(args, timeout)) as [Buffer, Buffer[]];
        cursor = String(next);
        if (keys.length > 0) yield keys.map(String);
      } while (cursor !== "0");
    }
  }

  async listen(events: ListenEvents, timeout: number): Promise<Listener> {
    const servers = this.#servers;
    const { client } = await new Sending().run(() => servers.template(undefined), timeout, true);
    const withPushes = hasPushes(client);
    const dialer: Dialer = {
      hasPushes: withPushes,
      seeds: servers.seeds,
      errorReply,
      open: async (to, own, started) => open(await servers.template(to), withPushes, own, started),
    };
    return listen(dialer, events, timeout);
  }

  async close(): Promise<void> {
    this.#servers.close?.();
  }
}

function sendBy(client: NodeRedis, args: readonly Argument[], timeout: number): Promise<unknown> {
  return client.sendCommand(args, commandOptions(timeout));
}

/** All options are named, because those of the user's client may hold otherwise. */
function commandOptions(timeout: number): CommandOptions {
  return { typeMapping: TYPES, timeout: undefined, asap: false, abortSignal: withdrawal(timeout) };
}

/** Commands that share a signal: a signal looks through all its listeners for each new one. */
const MOST_OF_A_SIGNAL = 64;
const SIGNAL_MS = 50;
/** The signals that still take commands, by the time limit. */
const signals = new Map<number, { signal: AbortSignal; left: number; until: number }>();

/**
 * A signal that withdraws a command which is not sent when its time is over, so that it is not executed later: nobody waits for it
 * any more. Commands of the same moment share one, which ends no later than their time. The `timeout` of the library would cost a
 * timer for each command that is never cleared.
 */
function withdrawal(timeout: number): AbortSignal {
  const now = performance.now();
  let shared = signals.get(timeout);
  if (shared === undefined || shared.left === 0 || now >= shared.until) {
    const controller = new AbortController();
    setMaxListeners(0, controller.signal);
    const end = (): void => {
      if (signals.get(timeout)?.signal === controller.signal) signals.delete(timeout);
      controller.abort(WITHDRAWN);
    };
    setTimeout(end, timeout).unref();
    shared = { signal: controller.signal, left: MOST_OF_A_SIGNAL, until: now + Math.min(SIGNAL_MS, timeout / 8) };
    signals.set(timeout, shared);
  }
  shared.left--;
  return shared.signal;
}
const WITHDRAWN = new Error("the time of the command is over");

/** The errors of the library begin with a small letter or with a word such as "The"; those of the system have a code. */
function errorReply(error: unknown): string | undefined {
  if (!(error instanceof Error) || "code" in error) return undefined;
  return /^[A-Z][A-Z0-9_]+(?: |$)/.test(error.message) ? error.message : undefined;
}

/**
 * Whether a client reports the pushes of the server. Versions that know the option refuse it for RESP2, before anything else is
 * done; so nothing is created when they know it.
 */
function hasPushes(client: NodeRedis): boolean {
  if (client.options?.RESP === 2) return false;
  try {
    client.duplicate({ RESP: 2, clientSideCache: undefined, emitInvalidate: true }).destroy();
    return false;
  } catch (error) {
    return error instanceof Error && error.message.includes("emitInvalidate");
  }
}

/** Opens a duplicate of a client that never reconnects. */
async function open(
  { client, socket }: { client: NodeRedis; socket: Record<string, unknown> },
  hasPushes: boolean,
  events: ConnectionEvents,
  started: (destroy: () => void) => void,
): Promise<Connection> {
  // Ends a socket that is not connected yet, which the library cannot.
  const ending = new AbortController();
  const copy = client.duplicate({
    ...OWN,
    RESP: hasPushes ? 3 : 2,
    emitInvalidate: hasPushes,
    socket: {
      ...client.options?.socket,
      socketTimeout: undefined,
      ...socket,
      reconnectStrategy: false,
      signal: ending.signal,
    },
  });
  let isClosed = false;
  const closed = (reason: Error): void => {
    if (isClosed) return;
    isClosed = true;
    destroy();
    events.onClosed(reason);
  };
  const destroy = (): void => {
    isClosed = true;
    ending.abort();
    try {
      copy.destroy();
    } catch {
      // It is closed already.
    }
  };
  copy.on("error", (error) => closed(error));
  copy.on("end", () => closed(new Error("the connection was closed")));
  if (hasPushes) copy.on("invalidate", (key) => events.onKeys(key === null ? null : [key]));
  started(destroy);
  if (isClosed) throw new Error("the listener was closed");
  copy.unref();
  await copy.connect();
  return {
    ask: (commands) =>
      Promise.all(commands.map((args) => copy.sendCommand(args, { typeMapping: TYPES }) as Promise<Reply>)),
    subscribe: (channel) => copy.subscribe(channel, (message) => events.onKeys(message), true),
    ping: () => copy.sendCommand(["PING"]),
    destroy,
  };
}
