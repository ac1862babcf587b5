/**
 * node-redis 5 and later (the package `redis`, or `@redis/client`): `createClient()` and `createCluster()`.
 *
 * Listens with RESP3 where this version reports pushes (`emitInvalidate`), unless the user has chosen RESP2.
 */

import type { Argument, Client, ListenEvents, Listener, Reply } from "./interface.ts";
import { type Address, type Connection, type ConnectionEvents, type Dialer, listen } from "./listening.ts";
import { Sending } from "./sending.ts";

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
  timeout?: number;
  asap?: boolean;
  abortSignal?: undefined;
}
type Options = Record<string, unknown> & { RESP?: number; socket?: Record<string, unknown> };

/** How replies are read, by the first byte of each type in RESP: bulk strings and verbatim strings are Buffers, maps arrays. */
const TYPES: Readonly<Record<number, unknown>> = { 36: Buffer, 61: Buffer, 37: Array, 40: String };

/** A client of node-redis; `undefined` for an object of another library. */
export function nodeRedis(client: object): Client | undefined {
  const it = client as NodeRedis & { withTypeMapping?: unknown };
  if (typeof it.sendCommand !== "function" || typeof it.isOpen !== "boolean") return undefined;
  if (typeof it.withTypeMapping !== "function" || typeof it.duplicate !== "function") {
    throw new TypeError(
      "client: this is an old or a legacy client of node-redis. Use `createClient()` of node-redis 5 or later.",
    );
  }
  if (!it.isOpen) throw new TypeError("client: is not open. Call `await client.connect()` first.");
  if (it.isPubSubActive) {
    throw new TypeError("client: is subscribed to channels. Use a client of its own: `client.duplicate()`.");
  }
  return new Single(it);
}

/** One server. */
class Single implements Client {
  readonly library = "node-redis";
  readonly isCluster = false;
  readonly #client: NodeRedis;
  readonly #sending = new Sending();

  constructor(client: NodeRedis) {
    this.#client = client;
  }

  send(_key: string, args: readonly Argument[], timeout: number): Promise<Reply> {
    const client = this.#client;
    return this.#sending.run(() => command(client, args, timeout), timeout, client.isReady);
  }

  errorReply(error: unknown): string | undefined {
    return errorReply(error);
  }

  async *scan(pattern: string, timeout: number): AsyncIterable<string[]> {
    yield* scan((args) => this.send("", args, timeout), pattern);
  }

  listen(events: ListenEvents, timeout: number): Promise<Listener> {
    return listen(new SingleDialer(this.#client), events, timeout);
  }
}

function command(client: NodeRedis, args: readonly Argument[], timeout: number): Promise<Reply> {
  // All options are named, because the options of the user's client hold otherwise.
  const options = { typeMapping: TYPES, timeout, asap: false, abortSignal: undefined };
  return client.sendCommand(args, options) as Promise<Reply>;
}

/** The batches of one server. */
async function* scan(send: (args: string[]) => Promise<Reply>, pattern: string): AsyncIterable<string[]> {
  let cursor = "0";
  do {
    const [next, keys] = (await send(["SCAN", cursor, "MATCH", pattern, "COUNT", "1000"])) as [Buffer, Buffer[]];
    cursor = String(next);
    if (keys.length > 0) yield keys.map(String);
  } while (cursor !== "0");
}

/** The errors of the library begin with a small letter or with a word such as "The"; those of the system have a code. */
function errorReply(error: unknown): string | undefined {
  if (!(error instanceof Error) || "code" in error) return undefined;
  return /^[A-Z][A-Z0-9_]+(?: |$)/.test(error.message) ? error.message : undefined;
}

class SingleDialer implements Dialer {
  readonly hasPushes: boolean;
  readonly #client: NodeRedis;

  constructor(client: NodeRedis) {
    this.#client = client;
    this.hasPushes = hasPushes(client);
  }

  async seeds(): Promise<undefined> {}

  errorReply(error: unknown): string | undefined {
    return errorReply(error);
  }

  open(
    _to: Address | undefined,
    events: ConnectionEvents,
    started: (destroy: () => void) => void,
  ): Promise<Connection> {
    return open(this.#client, {}, this.hasPushes, events, started);
  }
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
  client: NodeRedis,
  socket: Record<string, unknown>,
  hasPushes: boolean,
  events: ConnectionEvents,
  started: (destroy: () => void) => void,
): Promise<Connection> {
  // Ends a socket that is not connected yet, which the library cannot.
  const ending = new AbortController();
  const copy = client.duplicate({
    RESP: hasPushes ? 3 : 2,
    emitInvalidate: hasPushes,
    clientSideCache: undefined,
    // What the user has set for commands, and what exchanges or closes sockets.
    commandOptions: {},
    commandsQueueMaxLength: undefined,
    maintNotifications: "disabled",
    pingInterval: undefined,
    readonly: false,
    disableOfflineQueue: true,
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
