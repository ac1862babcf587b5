/** The libraries that tests try: how a user opens a client of each, for one server and for a cluster. */

import Redis5, { Cluster as Cluster5 } from "ioredis";
import Redis6, { Cluster as Cluster6 } from "ioredis6";
import Iovalkey, { Cluster as IovalkeyCluster } from "iovalkey";
import { createClient, createClientPool, createCluster } from "redis";
import { createClient as createClient5, createCluster as createCluster5 } from "redis5";
import type { startCluster } from "./servers.ts";

type Servers = Awaited<ReturnType<typeof startCluster>>;

/** How a client of a user reaches a server. */
export interface Where {
  path?: string;
  port?: number;
  tls?: { ca: string };
  username?: string;
  password?: string;
}

/** One library: how its users open a client. `close` must leave nothing behind. */
export interface Library {
  name: string;
  open(where: Where): Promise<Opened>;
  cluster(cluster: Servers): Promise<Opened>;
}
export interface Opened {
  client: object & { on(event: string, listener: (error: Error) => void): unknown };
  close(): void;
}

function nodeRedis(name: string, create: (options: object) => any, createMany: any, options: object): Library {
  const opened = async (client: any): Promise<Opened> => {
    client.on("error", () => undefined);
    await client.connect();
    return { client, close: () => client.isOpen && client.destroy() };
  };
  return {
    name,
    open: ({ path, port, tls, ...account }) => {
      const place = path === undefined ? { host: "127.0.0.1", port } : { path };
      return opened(create({ ...options, ...account, socket: { ...place, ...(tls && { tls: true, ...tls }) } }));
    },
    cluster: ({ masters }) =>
      opened(
        createMany({
          ...options,
          rootNodes: masters.map(({ url }) => ({ url })),
          defaults: options,
          useReplicas: true,
        }),
      ),
  };
}

function ioredis(name: string, Single: any, Many: any, options: object = {}): Library {
  const opened = async (client: any): Promise<Opened> => {
    client.on("error", () => undefined);
    return { client, close: () => client.disconnect() };
  };
  return {
    name,
    open: ({ path, port, tls, ...account }) =>
      opened(
        new Single({ ...options, ...account, ...(path ? { path } : { host: "127.0.0.1", port }), ...(tls && { tls }) }),
      ),
    cluster: ({ masters }) =>
      opened(
        new Many(
          masters.map(({ port }) => ({ host: "127.0.0.1", port })),
          { redisOptions: options },
        ),
      ),
  };
}

/** Options of users that change commands or replies, and must not matter. */
const ODD_NODE_REDIS = {
  commandOptions: { typeMapping: { 36: String, 58: String }, timeout: 3_000 },
  pingInterval: 500,
};
const ODD_IOREDIS = {
  enableAutoPipelining: true,
  stringNumbers: true,
  lazyConnect: true,
  showFriendlyErrorStack: true,
};

export const LIBRARIES: Library[] = [
  nodeRedis("node-redis 6", createClient, createCluster, {}),
  nodeRedis("node-redis 6 with RESP2", createClient, createCluster, { RESP: 2 }),
  nodeRedis("node-redis 6 with odd options", createClient, createCluster, ODD_NODE_REDIS),
  nodeRedis("a pool of node-redis 6", (options) => createClientPool(options), createCluster, {}),
  nodeRedis("node-redis 5", createClient5, createCluster5, {}),
  nodeRedis("node-redis 5 with RESP2", createClient5, createCluster5, { RESP: 2 }),
  ioredis("ioredis 5", Redis5, Cluster5),
  ioredis("ioredis 5 with odd options", Redis5, Cluster5, ODD_IOREDIS),
  ioredis("ioredis 6", Redis6, Cluster6),
  ioredis("ioredis 6 with RESP2", Redis6, Cluster6, { protocol: 2, ...ODD_IOREDIS }),
  ioredis("iovalkey", Iovalkey, IovalkeyCluster),
];

/** The libraries that are tried with a cluster: all with the first server, some with others, because it takes a while. */
export const CLUSTERS = [/^(?!a pool|.* odd)/, /^(node-redis 6|ioredis 5)$/] as const;
