/**
 * What the tests of `server.ts` share: a real server or cluster, and hosts that talk to it, each by a client of its own. A host writes
 * down its commands, and can be stopped in front of one of them, so that a test chooses what happens in between.
 */

import { createCache } from "cache-machine";
import { createClient, createCluster } from "redis";
import { type Argument, type Client, clientOf, type Listener, type Reply } from "../../src/tier/clients/client.ts";
import { Gate, type GateOptions } from "../../src/tier/gate.ts";
import type { Names } from "../../src/tier/names.ts";
import type { Script } from "../../src/tier/scripts.ts";
import { Server } from "../../src/tier/server.ts";
import { seeded } from "../contract/seeded.ts";
import { SERVERS, startCluster, startServer } from "./servers.ts";

export const TIMEOUT = 10_000;

/** Where the tests run: each server program, and a cluster of the first one. */
export const PLACES = [
  ...SERVERS.map((server) => ({ name: `${server.name} ${server.version}`, server, isCluster: false })),
  ...SERVERS.slice(0, 1).map((server) => ({ name: `a cluster of ${server.name}`, server, isCluster: true })),
];
export type Place = (typeof PLACES)[number];

type Started = Awaited<ReturnType<typeof startServer>>;

/** A started server or cluster. */
export interface Backend {
  /** The servers that have keys. */
  readonly masters: Started[];
  /** A client of the library, as a user opens it; with an account if it is given. */
  connect(account?: { username: string; password: string }): Promise<any>;
}

export async function start({ server, isCluster }: Place, options: object = {}): Promise<Backend> {
  if (!isCluster) {
    const started = await startServer({ server, ...options } as never);
    return {
      masters: [started],
      connect: (account) => opened(createClient({ ...account, socket: { path: started.path, tls: false } })),
    };
  }
  const cluster = await startCluster(3, 0, { server, ...options } as never);
  const rootNodes = cluster.masters.map(({ url }: Started) => ({ url }));
  return { masters: cluster.masters, connect: () => opened(createCluster({ rootNodes })) };
}

async function opened(client: any): Promise<any> {
  // The tests see what the commands say.
  client.on("error", () => {});
  await client.connect();
  return client;
}

const cache = seeded(1, () => createCache({ size: "8mb" }));
/** As a tier encodes values. */
export const codec = {
  encode: (value: unknown): Uint8Array => cache.encode(value),
  decode: (bytes: Uint8Array): unknown => cache.decode(bytes),
};

/** One host: its commands go through a client that can be stopped. */
export class Host {
  readonly server: Server;
  readonly gate: Gate;
  readonly client: Client;
  /** The commands that were sent, by their names and their keys: `GET a`, `EVALSHA a b`. */
  readonly sent: string[] = [];
  readonly #client: any;
  #stops: { sha1: string; reached: () => void; go: Promise<void> }[] = [];

  constructor(client: any, names: Names, { timeout = TIMEOUT, now = () => undefined, gate = {} }: HostOptions = {}) {
    this.#client = client;
    const inner = clientOf(client);
    this.client = {
      library: inner.library,
      isCluster: inner.isCluster,
      send: (key, args, ms) => this.#send(inner, key, args, ms),
      errorReply: (error) => inner.errorReply(error),
      scan: (pattern, ms) => inner.scan(pattern, ms),
      listen: (events, ms) => inner.listen(events, ms),
    };
    this.gate = new Gate(gate);
    this.server = new Server(this.client, names, { timeout, codec, now, gate: this.gate });
  }

  async #send(inner: Client, key: string, args: readonly Argument[], ms: number): Promise<Reply> {
    const [command, second] = args as string[];
    const isScript = command === "EVALSHA" || command === "EVAL";
    const stop = this.#stops.find(({ sha1 }) => isScript && sha1 === second);
    if (stop !== undefined) {
      this.#stops = this.#stops.filter((each) => each !== stop);
      stop.reached();
      await stop.go;
    }
    const keys = isScript ? args.slice(3, 3 + Number(args[2])) : args.slice(1);
    this.sent.push([command, ...keys.map(String)].join(" "));
    return inner.send(key, args, ms);
  }

  /** Stops in front of the next run of a script. `reached` resolves there, and `go` lets it run. */
  stopAt({ sha1 }: Script): { reached: Promise<void>; go: () => void } {
    let reachedNow!: () => void;
    let go!: () => void;
    const reached = new Promise<void>((resolve) => {
      reachedNow = resolve;
    });
    this.#stops.push({
      sha1,
      reached: reachedNow,
      go: new Promise((resolve) => {
        go = resolve;
      }),
    });
    return { reached, go };
  }

  /** A command of nobody's tier, at the server of the key. */
  raw(key: string, ...args: Argument[]): Promise<Reply> {
    return clientOf(this.#client).send(key, args, TIMEOUT);
  }

  close(): void {
    this.gate.close();
    this.#client.destroy();
  }
}

export interface HostOptions {
  timeout?: number;
  now?: () => number | undefined;
  gate?: GateOptions;
}

/** Listens to the changes of keys. `heard` resolves with those of which the server has told until now. */
export async function listen(
  client: Client,
  names: Names,
): Promise<{ heard(): Promise<string[]>; close(): Promise<void> }> {
  let keys: string[] = [];
  const events = {
    prefixes: names.tracked,
    onChanged: (changed: readonly string[] | null) => {
      keys.push(...(changed ?? ["everything"]));
    },
    onEnd: () => {},
  };
  const listener: Listener = await client.listen(events, TIMEOUT);
  return {
    async heard() {
      await listener.beat(TIMEOUT);
      const heard = keys;
      keys = [];
      return heard.sort();
    },
    close: () => listener.close(),
  };
}
