/**
 * ioredis 5 and later, and iovalkey, which descends from it: `Redis` (also behind Sentinel) and `Cluster`.
 *
 * Listens with RESP2: these libraries hand the pushes of RESP3 to nobody.
 */

import type { Argument, Client, ListenEvents, Listener, Reply } from "./interface.ts";
import { type Address, type Connection, type ConnectionEvents, type Dialer, listen } from "./listening.ts";
import { type Duplicate, Own } from "./owned.ts";
import { Sending } from "./sending.ts";

/** What is used of a client, of a node of a cluster, and of a cluster. */
interface IoRedis {
  readonly status: string;
  readonly isCluster: boolean;
  readonly options: Options;
  readonly stream?: { unref(): void; destroy(): void };
  connect(): Promise<unknown>;
  disconnect(): void;
  callBuffer(name: string, ...args: Argument[]): Promise<unknown>;
  subscribe(channel: string): Promise<unknown>;
  ping(): Promise<unknown>;
  duplicate(options: Options): IoRedis;
  on(event: string, listener: (...args: never[]) => void): unknown;
}
interface Cluster extends Omit<IoRedis, "duplicate"> {
  nodes(role: "master"): IoRedis[];
  /** @param nodes none for those of this cluster */
  duplicate(nodes: [], options: Options): Cluster;
}
type Options = Record<string, unknown> & {
  host?: string;
  port?: number;
  keyPrefix?: string | Buffer;
  reconnectOnError?: ((error: Error) => unknown) | null;
  redisOptions?: Options;
};

/** A client of ioredis or iovalkey; `undefined` for an object of another library. */
export function ioredis(client: object): Client | undefined {
  const it = client as IoRedis;
  if (typeof it.callBuffer !== "function" || typeof it.status !== "string") return undefined;
  if (typeof it.duplicate !== "function" || typeof it.options !== "object") return undefined;
  refuse(it);
  return it.isCluster ? new ClusterClient(it as unknown as Cluster) : new Single(it);
}

/** Throws for a client that cannot be used. */
function refuse({ options, status }: IoRedis): void {
  if (options.keyPrefix !== undefined && options.keyPrefix !== null && options.keyPrefix.length > 0) {
    throw new TypeError(
      `client: has the \`keyPrefix\` ${JSON.stringify(String(options.keyPrefix))}, which would change the keys. Use a client without it, and the \`prefix\` of the tier.`,
    );
  }
  if (status === "end") throw new TypeError("client: is closed. Use a client that is connected.");
}

/**
 * What the connections of a tier have otherwise than the client of the user.
 *
 * By default these libraries send a command again when the connection was lost before its answer. Then a command is executed twice,
 * or long after its caller was told that it has failed. So the commands of a tier have a connection of their own.
 */
const OWN: Options = {
  autoResendUnfulfilledCommands: false,
  autoResubscribe: false,
  // What the user has set for commands. With automatic pipelines `callBuffer` of ioredis 5 sends a command without its name.
  enableAutoPipelining: false,
  keyPrefix: "",
  stringNumbers: false,
  replyMapping: "legacy",
  commandTimeout: undefined,
  showFriendlyErrorStack: false,
  scripts: undefined,
  // Replicas may be late.
  readOnly: false,
  role: "master",
  monitor: false,
};

/** With the answer 2 of this option the command that has failed would be sent again. */
function withoutResending({ reconnectOnError }: Options): Options {
  if (typeof reconnectOnError !== "function") return {};
  return { reconnectOnError: (error) => Boolean(reconnectOnError(error)) };
}

/** A duplicate for the commands of the tier. */
class Copy<T extends Omit<IoRedis, "duplicate">> implements Duplicate {
  readonly call: Call;
  readonly client: T;

  constructor(client: T) {
    this.client = client;
    this.call = caller(client);
    // The user hears of errors by the client of the user.
    client.on("error", () => undefined);
  }

  get isReady(): boolean {
    return this.client.status === "ready";
  }

  get isConnected(): boolean {
    return this.isReady || this.client.status === "connect";
  }

  get isOver(): boolean {
    return this.client.status === "end";
  }

  watch(onReady: () => void, onOver: () => void): void {
    this.client.on("ready", onReady);
    this.client.on("end", onOver);
  }

  isReply(error: unknown): boolean {
    return errorReply(error) !== undefined;
  }

  destroy(): void {
    this.client.disconnect();
    // Otherwise the library waits until the server closes the connection.
    this.client.stream?.destroy();
  }
}

/** What a single server and a cluster have in common. */
abstract class Sender<T extends Omit<IoRedis, "duplicate">> implements Client {
  abstract readonly isCluster: boolean;
  /** Also for iovalkey, which calls itself so. */
  readonly library = "ioredis";
  /** The client of the user. */
  protected readonly user: T;
  readonly #own = new Own(() => new Copy(this.duplicate()));
  readonly #sending = new Sending();

  constructor(user: T) {
    this.user = user;
  }

  /** Opens the client of the tier. */
  protected abstract duplicate(): T;

  send(_key: string, args: readonly Argument[], timeout: number): Promise<Reply> {
    return this.#own.send(args, timeout);
  }

  errorReply(error: unknown): string | undefined {
    return errorReply(error);
  }

  abstract scan(pattern: string, timeout: number): AsyncIterable<string[]>;
  abstract listen(events: ListenEvents, timeout: number): Promise<Listener>;

  async close(): Promise<void> {
    this.#own.close();
  }

  /** The client of the tier, when it is connected. */
  protected async own(timeout: number): Promise<T> {
    return (await this.#own.ready(timeout)).client;
  }

  /** The batches of one server. */
  protected async *scanOne(server: IoRedis, pattern: string, timeout: number): AsyncIterable<string[]> {
    const call = caller(server);
    let cursor = "0";
    do {
      const args = ["SCAN", cursor, "MATCH", pattern, "COUNT", "1000"];
      const [next, keys] = (await this.#sending.run(() => call(args), timeout, true)) as [Buffer, Buffer[]];
      cursor = String(next);
      if (keys.length > 0) yield keys.map(String);
    } while (cursor !== "0");
  }
}

/** One server. */
class Single extends Sender<IoRedis> {
  readonly isCluster = false;

  protected override duplicate(): IoRedis {
    const client = this.user.duplicate({
      ...OWN,
      ...withoutResending(this.user.options),
      enableOfflineQueue: false,
      lazyConnect: false,
    });
    client.on("connect", () => client.stream?.unref());
    return client;
  }

  async *scan(pattern: string, timeout: number): AsyncIterable<string[]> {
    yield* this.scanOne(await this.own(timeout), pattern, timeout);
  }

  listen(events: ListenEvents, timeout: number): Promise<Listener> {
    return listen(
      dialer(
        async () => undefined,
        () => this.user,
      ),
      events,
      timeout,
    );
  }
}

class ClusterClient extends Sender<Cluster> {
  readonly isCluster = true;

  protected override duplicate(): Cluster {
    const { redisOptions } = this.user.options;
    return this.user.duplicate([], {
      ...OWN,
      redisOptions: { ...redisOptions, ...OWN, ...withoutResending(redisOptions ?? {}) },
      // Otherwise the commands fail that come while the connection to a node opens, which is done for the first of them.
      enableOfflineQueue: true,
      lazyConnect: false,
      scaleReads: "master",
      shardedSubscribers: false,
      // With a delay, commands whose connection was lost would be sent again.
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
    });
  }

  async *scan(pattern: string, timeout: number): AsyncIterable<string[]> {
    const cluster = await this.own(timeout);
    for (const node of cluster.nodes("master")) yield* this.scanOne(node, pattern, timeout);
  }

  listen(events: ListenEvents, timeout: number): Promise<Listener> {
    let nodes: IoRedis[] = [];
    const seeds = async (): Promise<Address[]> => {
      nodes = (await this.own(timeout)).nodes("master");
      return nodes.map(({ options }) => ({ host: options.host as string, port: options.port as number }));
    };
    const nodeAt = (to: Address | undefined): IoRedis => {
      const node = nodes.find(({ options }) => options.host === to?.host && options.port === to?.port) ?? nodes[0];
      if (node === undefined) throw new Error("the cluster has no node that is connected");
      return node;
    };
    return listen(dialer(seeds, nodeAt), events, timeout);
  }
}

type Call = (args: readonly Argument[]) => Promise<Reply>;

function caller(client: Pick<IoRedis, "callBuffer">): Call {
  return (args) => {
    const [name, ...rest] = args as [string, ...Argument[]];
    return client.callBuffer(name, ...rest) as Promise<Reply>;
  };
}

function errorReply(error: unknown): string | undefined {
  return error instanceof Error && error.name === "ReplyError" ? error.message : undefined;
}

/** @param server the client whose options are used for a server */
function dialer(seeds: Dialer["seeds"], server: (to: Address | undefined) => IoRedis): Dialer {
  return {
    hasPushes: false,
    seeds,
    errorReply,
    open: (to, events, started) => open(server(to), to, events, started),
  };
}

/** Opens a duplicate of a client that never reconnects. */
async function open(
  client: IoRedis,
  to: Address | undefined,
  events: ConnectionEvents,
  started: (destroy: () => void) => void,
): Promise<Connection> {
  const copy = client.duplicate({
    ...OWN,
    ...to,
    protocol: 2,
    lazyConnect: true,
    retryStrategy: null,
    sentinelRetryStrategy: () => null,
    failoverDetector: false,
    reconnectOnError: null,
    enableOfflineQueue: false,
    // Asks INFO, for which permission would be needed.
    enableReadyCheck: false,
    socketTimeout: undefined,
  });
  let lastError: Error | undefined;
  let isClosed = false;
  const destroy = (): void => {
    isClosed = true;
    copy.disconnect();
    copy.stream?.destroy();
  };
  copy.on("error", (error: Error) => {
    lastError = error;
  });
  copy.on("end", () => {
    if (isClosed) return;
    isClosed = true;
    events.onClosed(lastError ?? new Error("the connection was closed"));
  });
  copy.on("connect", () => copy.stream?.unref());
  copy.on("messageBuffer", (_channel: Buffer, keys: unknown) => events.onKeys(keys));
  started(destroy);
  if (isClosed) throw new Error("the listener was closed");
  // The library says only that a connection is closed where it has reported why: a wrong password, for example.
  const because = (error: unknown): never => {
    if (errorReply(error) !== undefined && errorReply(lastError) === undefined) throw error;
    throw lastError ?? new Error("the connection was closed", { cause: error });
  };
  await copy.connect().catch(because);
  const call = caller(copy);
  return {
    ask: (commands) => Promise.all(commands.map(call)).catch(because),
    subscribe: async (channel) => {
      await copy.subscribe(channel);
    },
    ping: () => copy.ping().catch(because),
    destroy,
  };
}
