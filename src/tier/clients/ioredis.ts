/**
 * ioredis 5 and later, and iovalkey, which descends from it: `Redis` (also behind Sentinel) and `Cluster`.
 *
 * Listens with RESP2: these libraries hand the pushes of RESP3 to nobody.
 */

import type { Argument, Client, ListenEvents, Listener, Reply } from "./interface.ts";
import { type Address, type Connection, type ConnectionEvents, type Dialer, listen } from "./listening.ts";
import { noAnswer, Sending } from "./sending.ts";

/** What is used of a client, of a node of a cluster, and of a cluster. */
interface IoRedis {
  readonly status: string;
  readonly mode?: string;
  readonly isCluster: boolean;
  readonly options: Options;
  readonly stream?: { unref(): void; destroy(): void };
  connect(): Promise<unknown>;
  disconnect(): void;
  callBuffer(name: string, ...args: Argument[]): Promise<unknown>;
  sendCommand(...args: unknown[]): Promise<unknown>;
  subscribe(channel: string): Promise<unknown>;
  ping(): Promise<unknown>;
  duplicate(options: Options): IoRedis;
  on(event: string, listener: (...args: never[]) => void): unknown;
  off(event: string, listener: (...args: never[]) => void): unknown;
}
interface Cluster extends IoRedis {
  nodes(role: "master"): IoRedis[];
}
type Options = Record<string, unknown> & {
  host?: string;
  port?: number;
  keyPrefix?: string | Buffer;
  enableOfflineQueue?: boolean;
  scaleReads?: unknown;
  sentinels?: unknown;
  role?: unknown;
};

/** A client of ioredis or iovalkey; `undefined` for an object of another library. */
export function ioredis(client: object): Client | undefined {
  const it = client as IoRedis;
  if (typeof it.callBuffer !== "function" || typeof it.status !== "string") return undefined;
  if (typeof it.duplicate !== "function" || typeof it.options !== "object") return undefined;
  refuse(it);
  return it.isCluster ? new ClusterClient(it as Cluster) : new Single(it);
}

/** Throws for a client that cannot be used. */
function refuse({ options, status, mode }: IoRedis): void {
  if (options.keyPrefix !== undefined && options.keyPrefix !== null && options.keyPrefix.length > 0) {
    throw new TypeError(
      `client: has the \`keyPrefix\` ${JSON.stringify(String(options.keyPrefix))}, which would change the keys. Use a client without it, and the \`prefix\` of the tier.`,
    );
  }
  if (options.scaleReads !== undefined && options.scaleReads !== "master") {
    throw new TypeError('client: reads from replicas, which may be late. Use a client with `scaleReads: "master"`.');
  }
  if (options.sentinels && options.role === "slave") {
    throw new TypeError('client: is connected to a replica. Use a client with `role: "master"`.');
  }
  if (mode === "subscriber" || mode === "monitor") {
    throw new TypeError(
      `client: is a ${mode}, which cannot send commands. Use a client of its own: \`client.duplicate()\`.`,
    );
  }
  if (status === "end") throw new TypeError("client: is closed. Use a client that is connected.");
}

/** What a single server and a cluster have in common. */
abstract class Sender implements Client {
  abstract readonly isCluster: boolean;
  /** Also for iovalkey, which calls itself so. */
  readonly library = "ioredis";
  readonly #client: IoRedis;
  readonly #call: Call;
  readonly #sending = new Sending();
  readonly #readiness: Readiness;

  constructor(client: IoRedis) {
    this.#client = client;
    this.#call = caller(client);
    this.#readiness = new Readiness(client);
  }

  send(_key: string, args: readonly Argument[], timeout: number): Promise<Reply> {
    const isReady = this.#client.status === "ready";
    return this.#sending.run(() => (isReady ? this.#call(args) : this.#callWhenReady(args, timeout)), timeout, isReady);
  }

  errorReply(error: unknown): string | undefined {
    return errorReply(error);
  }

  abstract scan(pattern: string, timeout: number): AsyncIterable<string[]>;
  abstract listen(events: ListenEvents, timeout: number): Promise<Listener>;

  /** The queue of the library cannot be asked to give a command back. So a command is not given to it before it can be sent. */
  async #callWhenReady(args: readonly Argument[], timeout: number): Promise<Reply> {
    await this.ready(timeout);
    return this.#call(args);
  }

  protected ready(timeout: number): Promise<void> {
    return this.#readiness.wait(timeout);
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
class Single extends Sender {
  readonly isCluster = false;
  readonly #client: IoRedis;

  constructor(client: IoRedis) {
    super(client);
    this.#client = client;
  }

  async *scan(pattern: string, timeout: number): AsyncIterable<string[]> {
    if (this.#client.status !== "ready") await this.ready(timeout);
    yield* this.scanOne(this.#client, pattern, timeout);
  }

  listen(events: ListenEvents, timeout: number): Promise<Listener> {
    return listen(
      dialer(
        async () => undefined,
        () => this.#client,
      ),
      events,
      timeout,
    );
  }
}

class ClusterClient extends Sender {
  readonly isCluster = true;
  readonly #cluster: Cluster;

  constructor(cluster: Cluster) {
    super(cluster);
    this.#cluster = cluster;
  }

  async *scan(pattern: string, timeout: number): AsyncIterable<string[]> {
    if (this.#cluster.status !== "ready") await this.ready(timeout);
    for (const node of this.#cluster.nodes("master")) yield* this.scanOne(node, pattern, timeout);
  }

  listen(events: ListenEvents, timeout: number): Promise<Listener> {
    const nodes = (): IoRedis[] => this.#cluster.nodes("master");
    const address = ({ options }: IoRedis): Address => ({ host: options.host as string, port: options.port as number });
    const seeds = async (): Promise<Address[]> => {
      if (this.#cluster.status !== "ready") await this.ready(timeout);
      return nodes().map(address);
    };
    const nodeAt = (to: Address | undefined): IoRedis => {
      const all = nodes();
      const node = all.find(({ options }) => options.host === to?.host && options.port === to?.port) ?? all[0];
      if (node === undefined) throw new Error("the cluster has no node that is connected");
      return node;
    };
    return listen(dialer(seeds, nodeAt), events, timeout);
  }
}

type Call = (args: readonly Argument[]) => Promise<Reply>;

/**
 * Sends commands without what the options of a client add to them. Automatic pipelines cannot be used: with them `callBuffer` of
 * ioredis 5 sends a command without its name.
 */
function caller(client: IoRedis): Call {
  const plain = { options: {}, sendCommand: (...args: unknown[]) => client.sendCommand(...args) };
  const { stringNumbers } = client.options;
  return (args) => {
    const [name, ...rest] = args as [string, ...Argument[]];
    const answer = client.callBuffer.call(plain as unknown as IoRedis, name, ...rest) as Promise<Reply>;
    // Only integers are text then: strings are Buffers.
    return stringNumbers === true ? answer.then(numbers) : answer;
  };
}

function numbers(reply: Reply): Reply {
  if (typeof reply === "string") return Number(reply);
  return Array.isArray(reply) ? reply.map(numbers) : reply;
}

function errorReply(error: unknown): string | undefined {
  return error instanceof Error && error.name === "ReplyError" ? error.message : undefined;
}

/** Waits until a client is connected. There are listeners on the client only while somebody waits. */
class Readiness {
  readonly #client: IoRedis;
  readonly #waiting = new Set<(error?: Error) => void>();
  readonly #onReady = (): void => this.#settle();
  readonly #onEnd = (): void => this.#settle(new Error("the client was closed"));

  constructor(client: IoRedis) {
    this.#client = client;
  }

  wait(timeout: number): Promise<void> {
    const client = this.#client;
    if (client.status === "end") return Promise.reject(new Error("the client was closed"));
    if (client.options.enableOfflineQueue === false) return Promise.reject(new Error("the client is not connected"));
    // With the option `lazyConnect` a client connects for its first command.
    if (client.status === "wait") client.connect().catch(() => undefined);
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => {
        clearTimeout(timer);
        this.#remove(settle);
        if (error === undefined) resolve();
        else reject(error);
      };
      const timer = setTimeout(settle, timeout, noAnswer(timeout));
      this.#add(settle);
    });
  }

  #settle(error?: Error): void {
    for (const settle of [...this.#waiting]) settle(error);
  }

  #add(settle: (error?: Error) => void): void {
    if (this.#waiting.size === 0) {
      this.#client.on("ready", this.#onReady);
      this.#client.on("end", this.#onEnd);
    }
    this.#waiting.add(settle);
  }

  #remove(settle: (error?: Error) => void): void {
    if (!this.#waiting.delete(settle) || this.#waiting.size > 0) return;
    this.#client.off("ready", this.#onReady);
    this.#client.off("end", this.#onEnd);
  }
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
    ...to,
    protocol: 2,
    replyMapping: "legacy",
    lazyConnect: true,
    retryStrategy: null,
    sentinelRetryStrategy: () => null,
    failoverDetector: false,
    reconnectOnError: null,
    enableOfflineQueue: false,
    // Asks INFO, for which permission would be needed.
    enableReadyCheck: false,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    // What the user has set for commands.
    enableAutoPipelining: false,
    stringNumbers: false,
    commandTimeout: undefined,
    socketTimeout: undefined,
    scripts: undefined,
    readOnly: false,
    monitor: false,
    showFriendlyErrorStack: false,
  });
  let lastError: Error | undefined;
  let isClosed = false;
  const destroy = (): void => {
    isClosed = true;
    copy.disconnect();
    // Otherwise the library waits until the server closes the connection.
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
