/**
 * The clients of a tier against real servers: each library, each protocol, one server and a cluster. What is proven here is what the
 * tier relies on: bytes arrive as they are, a beat comes after the changes before it, and whatever makes a listener deaf ends it.
 */

import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CacheError } from "cache-machine";
import Redis5 from "ioredis";
import Redis6 from "ioredis6";
import Iovalkey from "iovalkey";
import { createClient, createCluster, createSentinel } from "redis";
import { createClient as createClient5, createSentinel as createSentinel5 } from "redis5";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type Client, clientOf, type Listener } from "../../src/tier/clients/client.ts";
import { CLUSTERS, LIBRARIES, type Library, type Where } from "./libraries.ts";
import { endProxies, endServers, NO_SERVER, SERVERS, startCluster, startProxy, startServer } from "./servers.ts";

// The clients are no subpath of the package. They take the package from dist/, as they do when they are built.
vi.mock("../../src/index.ts", () => import("cache-machine"));

type Server = Awaited<ReturnType<typeof startServer>>;

const PREFIXES = ["test:v:", "test:t:"];
const TIMEOUT = 5_000;
const PATIENCE = 30_000;

const toClose: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of toClose.splice(0).reverse()) await close();
  await endProxies();
});
afterAll(endServers);

async function clientFor(library: Library, where: Where): Promise<{ client: Client; user: any }> {
  const { client, close } = await library.open(where);
  const ours = clientOf(client);
  toClose.push(close, () => ours.close());
  return { client: ours, user: client };
}

/** A listener that records what it hears. */
class Ears {
  readonly heard: (string | null)[] = [];
  readonly ends: Error[] = [];
  #onEnd: (() => void) | undefined;
  listener!: Listener;

  static async open(client: Client, timeout = TIMEOUT): Promise<Ears> {
    const ears = new Ears();
    ears.listener = await client.listen(
      {
        prefixes: PREFIXES,
        onChanged: (keys) => void ears.heard.push(...(keys ?? [null])),
        onEnd: (reason) => {
          ears.ends.push(reason);
          ears.#onEnd?.();
        },
      },
      timeout,
    );
    toClose.push(() => ears.listener.close());
    return ears;
  }

  beat(): Promise<number> {
    return this.listener.beat(TIMEOUT);
  }

  /** Waits until the listener has ended. With beats, because some ends show only then. */
  async ended(): Promise<Error> {
    for (const since = performance.now(); this.ends.length === 0; ) {
      if (performance.now() - since > PATIENCE) throw new Error("hangs: the listener does not end");
      await this.listener.beat(TIMEOUT).catch(() => undefined);
    }
    expect(this.ends).toHaveLength(1);
    await expect(this.listener.beat(TIMEOUT)).rejects.toBe(this.ends[0]);
    return this.ends[0] as Error;
  }
}

async function until(reached: () => Promise<boolean>, what: string, patience = PATIENCE): Promise<void> {
  for (const since = performance.now(); !(await reached()); ) {
    if (performance.now() - since > patience) throw new Error(`hangs: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The connections of listeners, by the flags that the server shows: `t` is tracked, `P` is subscribed. */
async function listening(server: Server): Promise<{ id: string; flags: string }[]> {
  const list = String(await server.command("CLIENT", "LIST"));
  return [...list.matchAll(/^id=(\d+) .* flags=(\S+)/gm)]
    .map(([, id, flags]) => ({ id: id as string, flags: flags as string }))
    .filter(({ flags }) => /[tP]/.test(flags));
}

/** The connections that a listener will open with a client of a user. */
function copiesOf(user: any): any[] {
  const copies: any[] = [];
  const duplicate = user.duplicate.bind(user);
  user.duplicate = (options: object) => {
    const copy = duplicate(options);
    copies.push(copy);
    return copy;
  };
  return copies;
}

describe.skipIf(NO_SERVER).each(SERVERS)("$name $version", (program) => {
  let server: Server;
  beforeAll(async () => {
    server = await startServer({ tcp: true, server: program });
  });
  afterEach(() => server.command("FLUSHALL"));

  describe.each(LIBRARIES)("$name", (library) => {
    test("sends bytes, and receives them as they are", async () => {
      const { client } = await clientFor(library, { path: server.path });
      const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
      const send = (...args: (string | Buffer)[]) => client.send("test:v:é", args, TIMEOUT);
      expect(String(await send("SET", "test:v:é", bytes))).toBe("OK");
      expect(await send("GET", "test:v:é")).toEqual(bytes);
      expect(await send("SET", "test:v:é", Buffer.alloc(0))).not.toBeNull();
      expect(await send("GET", "test:v:é")).toEqual(Buffer.alloc(0));
      expect(await send("GET", "test:v:absent")).toBeNull();
      expect(await send("STRLEN", "test:v:é")).toBe(0);
      const script = "return {1, ARGV[1], {redis.call('GET', KEYS[1]), false}, -2}";
      expect(await send("EVAL", script, "1", "test:v:é", bytes)).toEqual([1, bytes, [Buffer.alloc(0), null], -2]);
      expect(await send("MGET", "test:v:é", "test:v:absent")).toEqual([Buffer.alloc(0), null]);
      const large = randomBytes(300_000);
      await send("SET", "test:v:é", large);
      expect(((await send("GET", "test:v:é")) as Buffer).equals(large)).toBe(true);
    });

    test("tells an error reply from no reply", async () => {
      const { client } = await clientFor(library, { path: server.path });
      const failed = await client.send("k", ["EVALSHA", "0".repeat(40), "0"], TIMEOUT).catch((error) => error);
      expect(failed).toBeInstanceOf(Error);
      expect(client.errorReply(failed)).toMatch(/^NOSCRIPT /);
      const wrong = await client.send("k", ["GET"], TIMEOUT).catch((error) => error);
      expect(client.errorReply(wrong)).toMatch(/^ERR wrong number/);
      expect(client.errorReply(new Error("Connection is closed."))).toBeUndefined();
      expect(client.errorReply(undefined)).toBeUndefined();
    });

    test("a beat comes after all changes that were acknowledged before it", async () => {
      const { client } = await clientFor(library, { path: server.path });
      const { client: other } = await clientFor(library, { port: server.port });
      const ears = await Ears.open(client);
      for (let trial = 0; trial < 500; trial++) {
        // Writers of both connections, several at once, keys of both prefixes, and keys that are not tracked.
        const keys = Array.from({ length: 1 + (trial % 4) }, (_, i) => `${PREFIXES[i % 2]}${trial}-${i}-ü`);
        ears.heard.length = 0;
        await Promise.all(
          keys.map((key, i) => (i % 2 === 0 ? client : other).send(key, ["SET", key, "1", "PX", "60000"], TIMEOUT)),
        );
        await other.send("test:l:x", ["SET", "test:l:x", String(trial)], TIMEOUT);
        await ears.beat();
        expect([...ears.heard].sort()).toEqual([...keys].sort());
      }
    });

    test("a flush is reported as null, and the time is that of the server", async () => {
      const { client } = await clientFor(library, { path: server.path });
      const ears = await Ears.open(client);
      await server.command("SET", "test:v:a", "1");
      await server.command("DEL", "test:v:a");
      await server.command("FLUSHALL");
      const before = Date.now();
      const time = await ears.beat();
      expect(ears.heard).toEqual(["test:v:a", "test:v:a", null]);
      // The server runs on this machine, whose clock is read here too.
      expect(time).toBeGreaterThan(before - 2);
      expect(time).toBeLessThan(Date.now() + 2);
    });

    test("scans all keys that match", async () => {
      const { client } = await clientFor(library, { path: server.path });
      const keys = Array.from({ length: 2_500 }, (_, i) => `test:v:[*]:${i}`);
      await client.send("x", ["MSET", ...keys.flatMap((key) => [key, "1"]), "test:v:other", "1"], TIMEOUT);
      const found = new Set<string>();
      for await (const batch of client.scan("test:v:\\[\\*\\]:*", TIMEOUT)) for (const key of batch) found.add(key);
      expect([...found].sort()).toEqual([...keys].sort());
    });

    test("a lost connection ends the listener, whichever it is", async () => {
      const { client, user } = await clientFor(library, { path: server.path });
      const count = (await Ears.open(client).then(() => listening(server))).length;
      expect(count).toBe(count === 1 ? 1 : 2);
      for (let which = 0; which < count; which++) {
        const known = new Set((await listening(server)).map(({ id }) => id));
        const ears = await Ears.open(client);
        const fresh = (await listening(server)).filter(({ id }) => !known.has(id));
        expect(fresh).toHaveLength(count);
        await server.command("CLIENT", "KILL", "ID", fresh[which]?.id as string);
        await ears.ended();
        // The other connection of the pair is gone too.
        await until(
          async () => !(await listening(server)).some(({ id }) => fresh.some((one) => one.id === id)),
          "the connections of an ended listener",
        );
      }
      expect(user.eventNames()).not.toContain("invalidate");
    });

    test("closing is final and leaves nothing behind", async () => {
      const { client, user } = await clientFor(library, { path: server.path });
      await client.send("k", ["GET", "k"], TIMEOUT);
      const events = user.eventNames().map((name: string) => [name, user.listenerCount(name)]);
      const ears = await Ears.open(client);
      const closing = ears.listener.beat(TIMEOUT).catch((error) => error);
      await ears.listener.close();
      await ears.listener.close();
      expect(await closing).toBeInstanceOf(Error);
      await server.command("SET", "test:v:a", "1");
      await until(async () => (await listening(server)).length === 0, "the connections of a closed listener");
      expect(ears.heard).toEqual([]);
      expect(ears.ends).toEqual([]);
      await expect(ears.beat()).rejects.toThrow("closed");
      expect(user.eventNames().map((name: string) => [name, user.listenerCount(name)])).toEqual(events);
    });

    test("a listener does not keep the process alive", async () => {
      const { client } = await clientFor(library, { path: server.path });
      await client.send("k", ["GET", "k"], TIMEOUT);
      const alive = (): number => process.getActiveResourcesInfo().filter((name) => name === "PipeWrap").length;
      const before = alive();
      const ears = await Ears.open(client);
      await ears.beat();
      expect(alive()).toBe(before);
    });

    test("a callback that throws ends the listener, and nothing else", async () => {
      const { client } = await clientFor(library, { path: server.path });
      let reason: Error | undefined;
      const listener = await client.listen(
        {
          prefixes: PREFIXES,
          onChanged: () => {
            throw new Error("of the callback");
          },
          onEnd: (error) => {
            reason = error;
          },
        },
        TIMEOUT,
      );
      toClose.push(() => listener.close());
      await server.command("SET", "test:v:a", "1");
      await expect(listener.beat(TIMEOUT)).rejects.toThrow("of the callback");
      expect(reason?.message).toBe("of the callback");
      expect(await client.send("k", ["GET", "test:v:a"], TIMEOUT)).toEqual(Buffer.from("1"));
    });

    test("a server that is stopped: sending and beats end in time, and so does listening", async () => {
      const own = await startServer({ server: program });
      const { client } = await clientFor(library, { path: own.path });
      const ears = await Ears.open(client);
      await client.send("k", ["SET", "k", "1"], TIMEOUT);
      await own.pause();
      const since = performance.now();
      const failed = await client.send("k", ["GET", "k"], 100).catch((error) => error);
      expect(failed).toBeInstanceOf(Error);
      expect(client.errorReply(failed)).toBeUndefined();
      await expect(ears.listener.beat(100)).rejects.toThrow("100 ms");
      // Accepted by the kernel, and never answered.
      await expect(Ears.open(client, 300)).rejects.toThrow(/ms$/);
      expect(performance.now() - since).toBeLessThan(TIMEOUT + PATIENCE);
      expect(ears.ends).toHaveLength(1);
      own.resume();
      await until(
        () =>
          client
            .send("k", ["GET", "k"], 1_000)
            .then(String, String)
            .then((text) => text === "1"),
        "the server answers again",
      );
      await (await Ears.open(client)).beat();
      await own.stop();
    });

    test("a server that is away: commands end in time, do not pile up, and are not sent later", async () => {
      const own = await startServer({ server: program, tcp: true });
      const { client } = await clientFor(library, { port: own.port });
      const ears = await Ears.open(client);
      await client.send("k", ["SET", "k", "1"], TIMEOUT);
      await own.crash();
      await ears.ended();
      const outcomes = await Promise.all(
        Array.from({ length: 3_000 }, () => client.send("k", ["INCR", "late"], 200).catch((error) => error)),
      );
      for (const outcome of outcomes) {
        expect(outcome).toBeInstanceOf(Error);
        expect(client.errorReply(outcome)).toBeUndefined();
      }
      await expect(Ears.open(client)).rejects.toThrow();
      await own.restart();
      await until(
        () =>
          client.send("k", ["GET", "k"], 1_000).then(
            (reply) => reply === null,
            () => false,
          ),
        "the client connects again",
      );
      expect(await own.command("GET", "late")).toBeNull();
      await (await Ears.open(client)).beat();
      await own.stop();
    });

    test("a command whose connection is lost is not sent again", async () => {
      const proxy = await startProxy(server.port);
      const { client } = await clientFor(library, { port: proxy.port });
      await client.send("count", ["SET", "count", "0"], TIMEOUT);
      // The server executes the command, and its answer is under way when the connection is cut.
      proxy.delay(150);
      const outcome = client.send("count", ["INCR", "count"], TIMEOUT).catch((error) => error);
      await until(async () => (await server.command("GET", "count")) === "1", "the server executes the command");
      proxy.cut();
      expect(await outcome).toBeInstanceOf(Error);
      proxy.delay(0);
      const answers = (): Promise<boolean> =>
        client.send("k", ["GET", "k"], 1_000).then(
          () => true,
          () => false,
        );
      await until(answers, "the client connects again");
      expect(await client.send("count", ["GET", "count"], TIMEOUT)).toEqual(Buffer.from("1"));
    });

    test("a connection that is reset just before a command is written: each answer is that of its command", async () => {
      const proxy = await startProxy(server.port);
      const { client } = await clientFor(library, { port: proxy.port });
      const keys = ["a", "b", "c", "d", "e"];
      const mset = await client.send("a", ["MSET", ...keys.flatMap((key) => [key, `value of ${key}`])], TIMEOUT);
      expect(String(mset)).toBe("OK");
      const wrong: string[] = [];
      const get = (key: string): Promise<string> =>
        client.send(key, ["GET", key], 1_000).then((reply) => {
          if (String(reply) !== `value of ${key}`) wrong.push(`${key}: ${reply}`);
          return String(reply);
        });
      for (let count = 1; count <= keys.length; count++) {
        const settled = new Promise<PromiseSettledResult<string>[]>((resolve) => {
          // After a timer the loop first looks at the sockets, and finds the reset, and then runs what was put off by setImmediate: this is
          // how node-redis puts off its writes.
          setTimeout(() => {
            resolve(Promise.allSettled(keys.slice(0, count).map(get)));
            for (const pair of proxy.pairs) pair.reset();
          });
        });
        await settled;
        await until(
          () =>
            get("a").then(
              () => true,
              () => false,
            ),
          "the client answers again",
        );
        expect(await Promise.all(keys.map(get))).toEqual(keys.map((key) => `value of ${key}`));
      }
      expect(wrong).toEqual([]);
    });

    // A pool is the user's.
    test.skipIf(/pool/.test(library.name))("a connection that is silent for ever is replaced", async () => {
      const proxy = await startProxy(server.port);
      const { client } = await clientFor(library, { port: proxy.port });
      await client.send("k", ["SET", "k", "1"], TIMEOUT);
      const answers = (): Promise<boolean> =>
        client.send("k", ["GET", "k"], 100).then(
          (reply) => String(reply) === "1",
          () => false,
        );
      // Nobody is told that the connections are dead. Others open as ever.
      for (const pair of proxy.pairs) pair.stall();
      const since = performance.now();
      expect(await answers()).toBe(false);
      await until(answers, "another connection is opened");
      // It may be slow for a while. After 2 seconds without any answer it is given up.
      expect(performance.now() - since).toBeGreaterThan(1_900);
      // The same for connections that open, and on which the greeting of the library is lost.
      proxy.isDeaf = true;
      const { accepted } = proxy;
      proxy.cut();
      await until(async () => !(await answers()) && proxy.accepted > accepted, "the library connects again");
      proxy.isDeaf = false;
      await until(answers, "another connection is opened after a lost greeting");
    });

    test("closing ends what was opened for commands", async () => {
      const { client, user } = await clientFor(library, { path: server.path });
      await client.send("k", ["SET", "k", "1"], TIMEOUT);
      await client.close();
      await client.close();
      const still = await (user.sendCommand && user.isOpen ? user.sendCommand(["GET", "k"]) : user.get("k"));
      expect(String(still), "the client of the user").toBe("1");
    });

    test("a server that becomes a replica ends the listener, and cannot be listened to", async () => {
      const own = await startServer({ server: program, tcp: true });
      const { client } = await clientFor(library, { port: own.port });
      const ears = await Ears.open(client);
      await own.command("REPLICAOF", "127.0.0.1", server.port);
      expect((await ears.ended()).message).toMatch(/no master/);
      await expect(Ears.open(client)).rejects.toThrow(/no master/);
      await own.stop();
    });

    test.runIf(/ioredis|iovalkey/.test(library.name))("a pair of which one hears nothing: no beat", async () => {
      const { client, user } = await clientFor(library, { path: server.path });
      const copies = copiesOf(user);
      const ears = await Ears.open(client);
      const subscribed = copies.find((copy) => copy.mode === "subscriber");
      subscribed.stream.pause();
      await server.command("SET", "test:v:a", "1");
      await expect(ears.listener.beat(200)).rejects.toThrow("200 ms");
      expect(ears.heard).toEqual([]);
      expect(ears.ends).toHaveLength(1);
    });

    test("a connection that is not tracked as before ends the listener", async () => {
      const { client, user } = await clientFor(library, { path: server.path });
      const copies = copiesOf(user.execute === undefined ? user : await user.execute((each: object) => each));
      const say = (copy: any, args: string[]) => (copy.call ? copy.call(...args) : copy.sendCommand(args));
      for (const change of [
        [["CLIENT", "TRACKING", "OFF"]],
        [
          ["CLIENT", "TRACKING", "OFF"],
          ["CLIENT", "TRACKING", "ON"],
        ],
        [
          ["CLIENT", "TRACKING", "OFF"],
          ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "other:"],
        ],
      ]) {
        copies.length = 0;
        const ears = await Ears.open(client);
        const known = await listening(server);
        const ids = await Promise.all(copies.map((copy) => say(copy, ["CLIENT", "ID"]).catch(() => undefined)));
        const tracked =
          copies[ids.findIndex((id) => known.some((one) => one.id === String(id) && /t/.test(one.flags)))];
        for (const args of change) await say(tracked, args);
        expect((await ears.ended()).message).toContain("does not track the keys any more");
      }
    });

    test("a password, and a user with no more permissions than are documented", async () => {
      const own = await startServer({ server: program, tcp: true, password: "secret-of-the-server" });
      const { client: owner } = await clientFor(library, { port: own.port, password: "secret-of-the-server" });
      await (await Ears.open(owner)).beat();
      const allowed = ["hello", "client|id", "client|tracking", "client|trackinginfo", "time", "subscribe", "ping"];
      const needs = [
        "-@all",
        "resetchannels",
        ...allowed.map((name) => `+${name}`),
        "&__redis__:invalidate",
        "~test:*",
        "+get",
        "+set",
      ];
      // The libraries themselves ask for these, and go on when they are refused.
      await own.command("ACL", "SETUSER", "app", "on", ">pass-of-app", "+auth", "+info", ...needs);
      const { client } = await clientFor(library, { port: own.port, username: "app", password: "pass-of-app" });
      const ears = await Ears.open(client);
      await client.send("test:v:a", ["SET", "test:v:a", "1"], TIMEOUT);
      await ears.beat();
      expect(ears.heard).toEqual(["test:v:a"]);
      for (const name of ["client|tracking", "client|trackinginfo", "time"]) {
        await own.command("ACL", "SETUSER", "app", `-${name}`);
        const refused = await Ears.open(client).catch((error) => error);
        expect(refused, name).toBeInstanceOf(CacheError);
        expect(refused).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringContaining(`+${name}`) });
        expect(refused.message).toContain("NOPERM");
        await own.command("ACL", "SETUSER", "app", `+${name}`);
      }
      // Another password from now on: a matter of time for the listener, not of the server.
      await own.command("ACL", "SETUSER", "app", "resetpass", ">another");
      const refused = await Ears.open(client).catch((error) => error);
      expect(refused.message).toContain("WRONGPASS");
      expect(refused).not.toBeInstanceOf(CacheError);
      await own.stop();
    });

    // The valkey-server that is installed for the tests is built without TLS.
    test.skipIf(program.name === "valkey")("TLS", async () => {
      const own = await startServer({ server: program, tls: true, password: "p" });
      const { ca } = own.certificate as { ca: string };
      const { client } = await clientFor(library, { port: own.port, tls: { ca }, password: "p" });
      const ears = await Ears.open(client);
      await client.send("test:v:a", ["SET", "test:v:a", "1"], TIMEOUT);
      await ears.beat();
      expect(ears.heard).toEqual(["test:v:a"]);
      await own.crash();
      await ears.ended();
      await own.stop();
    });

    test("a connection that is cut, delayed or closed while it opens", async () => {
      const proxy = await startProxy(server.port);
      const { client } = await clientFor(library, { port: proxy.port });
      await client.send("k", ["GET", "k"], TIMEOUT);
      const ears = await Ears.open(client);
      await proxy.cut();
      await ears.ended();
      await proxy.stall();
      const before = process.listenerCount("uncaughtException");
      const opening = client.listen({ prefixes: PREFIXES, onChanged() {}, onEnd() {} }, 200).catch((error) => error);
      expect(await opening).toBeInstanceOf(Error);
      await proxy.resume();
      await until(
        () =>
          client.send("k", ["GET", "k"], 1_000).then(
            () => true,
            () => false,
          ),
        "the client connects again",
      );
      await (await Ears.open(client)).beat();
      expect(process.listenerCount("uncaughtException")).toBe(before);
    });
  });

  test.each(LIBRARIES.filter(({ name }) => /^(node-redis 5|ioredis 5|iovalkey)$/.test(name)))(
    "$name: a server that does not know a command that is needed",
    async (library) => {
      const own = await startServer({ server: program, config: ['rename-command HELLO ""'] });
      const { client } = await clientFor(library, { path: own.path });
      const refused = await Ears.open(client).catch((error) => error);
      expect(refused).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringContaining("Use Redis 6.2") });
      expect(refused.message).toContain("HELLO");
      await own.stop();
    },
  );

  test.each([
    ["ioredis 5", Redis5],
    ["ioredis 6", Redis6],
    ["iovalkey", Iovalkey],
  ] as [string, any][])("%s: a client that gives up reconnecting is opened again", async (_name, Redis) => {
    const own = await startServer({ server: program });
    const user = new Redis({ path: own.path, retryStrategy: null, reconnectOnError: () => 2 });
    user.on("error", () => undefined);
    const client = clientOf(user);
    toClose.push(
      () => user.disconnect(),
      () => client.close(),
    );
    expect(await client.send("n", ["INCR", "n"], TIMEOUT)).toBe(1);
    // With the answer 2 the library would send the command again and again.
    await expect(client.send("n", ["INCR", "n", "too many"], TIMEOUT)).rejects.toThrow("ERR wrong number");
    await own.restart();
    const answers = (): Promise<boolean> =>
      client.send("n", ["GET", "n"], 1_000).then(
        () => true,
        () => false,
      );
    await until(answers, "the client connects again");
    await own.stop();
  });

  test("clients that cannot be used are refused by name", async () => {
    const refusal = (client: unknown): string => {
      try {
        clientOf(client);
      } catch (error) {
        expect(error).toBeInstanceOf(TypeError);
        return (error as Error).message;
      }
      throw new Error("was not refused");
    };
    for (const nothing of [undefined, null, 1, "redis://127.0.0.1", {}, [], new Map(), () => undefined]) {
      expect(refusal(nothing)).toMatch(
        /^client: must be a client of node-redis 5 or later, .* not (a|an|undefined|null)\b/,
      );
    }
    const socket = { path: server.path };
    expect(refusal(createClient({ socket }))).toContain("await client.connect()");
    expect(refusal(createClient5({ socket }))).toContain("await client.connect()");
    expect(refusal(createCluster({ rootNodes: [{ socket }] }))).toContain("await client.connect()");
    const subscriber = await createClient({ socket, RESP: 2 }).connect();
    await subscriber.subscribe("channel", () => undefined);
    expect(refusal(subscriber)).toContain("client.duplicate()");
    expect(refusal(subscriber.multi())).toMatch(/^client: must be/);
    subscriber.destroy();
    const both = await createClient({ socket }).connect();
    await both.subscribe("channel", () => undefined);
    expect(clientOf(both).library, "with RESP3 a subscriber may send commands").toBe("node-redis");
    both.destroy();
    expect(refusal(subscriber)).toContain("await client.connect()");
    const legacy = await createClient({ socket }).connect();
    expect(refusal(legacy.legacy())).toMatch(/^client: must be/);
    // Node-redis 4 has a client of this form.
    expect(refusal({ isOpen: true, sendCommand: async () => "OK", duplicate: () => ({}) })).toContain("5 or later");
    legacy.destroy();

    for (const Redis of [Redis5, Redis6, Iovalkey] as any[]) {
      const open = (options: object) => {
        const client = new Redis({ path: server.path, lazyConnect: true, ...options });
        toClose.push(() => client.disconnect());
        return client;
      };
      expect(refusal(open({ keyPrefix: "app:" }))).toMatch(/keyPrefix.*"app:".*prefix/);
      expect(refusal(open({}).pipeline())).toMatch(/^client: must be/);
      const busy = open({ protocol: 2 });
      await busy.subscribe("channel");
      const beside = clientOf(busy);
      expect(await beside.send("k", ["GET", "absent"], TIMEOUT), "a connection of its own").toBeNull();
      await beside.close();
      const closed = open({});
      await closed.quit();
      await until(async () => closed.status === "end", "a client closes");
      expect(refusal(closed)).toContain("is closed");
      const prefixed = new Redis.Cluster([{ port: 1 }], { lazyConnect: true, redisOptions: { keyPrefix: "p" } });
      expect(refusal(prefixed)).toContain("keyPrefix");
    }
    expect(refusal({ customCommand: async () => null, close() {} })).toMatch(/^client: valkey-glide .* node-redis/);
  });

  describe.each(LIBRARIES.filter(({ name }) => CLUSTERS[program === SERVERS[0] ? 0 : 1].test(name)))(
    "$name with a cluster",
    (library) => {
      test("hears all masters, also through failovers, new masters and slots that move", async () => {
        const cluster = await startCluster(3, 1, { server: program });
        const { client: user, close } = await library.cluster(cluster);
        const client = clientOf(user);
        toClose.push(close, () => client.close());
        expect(client.isCluster).toBe(true);
        await until(() => answers(client), "the client connects");

        let ears = await Ears.open(client);
        await hearsWrites(client, ears, 200);
        await scans(client);

        // A command that was under way when its connection was lost is not sent again: it would take what is pushed later.
        const popped = client.send("test:list", ["BLPOP", "test:list", "0"], TIMEOUT).catch((error) => error);
        const blocked = async (master: Server): Promise<string | undefined> =>
          /^id=(\d+) .* flags=b/m.exec(String(await master.command("CLIENT", "LIST")))?.[1];
        await until(async () => {
          for (const master of cluster.masters) {
            const id = await blocked(master);
            if (id !== undefined) await master.command("CLIENT", "KILL", "ID", id);
            if (id !== undefined) return true;
          }
          return false;
        }, "the command blocks");
        expect(await popped).toBeInstanceOf(Error);
        await until(() => answers(client), "the client connects again");
        expect(await client.send("test:list", ["RPUSH", "test:list", "x"], TIMEOUT)).toBe(1);
        expect(await client.send("test:list", ["LLEN", "test:list"], TIMEOUT)).toBe(1);

        // A failover that was asked for: the old master becomes a replica.
        const [, , third] = cluster.masters as [Server, Server, Server];
        const heir = cluster.replicas[2] as Server;
        await heir.command("CLUSTER", "FAILOVER");
        expect((await ears.ended()).message).toMatch(/no master|other masters/);
        await until(() => answers(client), "the client finds the new master");
        ears = await listensAgain(client);
        await hearsWrites(client, ears, 50);

        // A new master without slots is heard before it gets any.
        const fresh = await startServer({ server: program, cluster: true });
        await fresh.command("CLUSTER", "MEET", "127.0.0.1", third.port, third.busPort);
        expect((await ears.ended()).message).toMatch(/other masters/);
        ears = await listensAgain(client);
        expect(await trackedBy([fresh])).toBe(1);
        const nodes = [...cluster.nodes, fresh];
        await until(
          async () => String(await fresh.command("CLUSTER", "INFO")).includes("cluster_state:ok"),
          "the new master takes part",
        );
        await moveSlot(nodes, 0);
        await until(() => answers(client, slotZero), "the client finds the slot");
        await hearsWrites(client, ears, 50, slotZero);
        await hearsWrites(client, ears, 50);
        expect(ears.ends).toEqual([]);

        // A master that dies. A cluster of node-redis 5 asks it for ever, and not the replica that has taken its place.
        if (library.name.startsWith("node-redis 5")) return;
        const [first] = cluster.masters as [Server];
        await first.crash();
        await ears.ended();
        await until(() => answers(client), "a replica takes over", 60_000);
        ears = await listensAgain(client);
        await hearsWrites(client, ears, 50);
        await ears.listener.close();
        await until(async () => (await trackedBy(nodes.filter((node) => node !== first))) === 0, "closed connections");
        for (const node of nodes) await node.stop();
      }, 240_000);
    },
  );

  test("behind Sentinel: a master that dies is followed by its replica", async () => {
    const master = await startServer({ server: program, tcp: true });
    await startServer({ server: program, tcp: true, config: [`replicaof 127.0.0.1 ${master.port}`] });
    const guard = await startSentinel(program, master);
    // A sentinel looks for replicas every ten seconds.
    const knows = async (): Promise<boolean> => String(await guard.command("INFO", "sentinel")).includes("slaves=1");
    await until(knows, "the sentinel knows the replica");
    const place = { host: "127.0.0.1", port: guard.port };
    const opened: [string, any, () => void][] = [];
    for (const [name, create] of [
      ["node-redis 6", createSentinel],
      ["node-redis 5", createSentinel5],
    ] as [string, any][]) {
      const client = create({ name: "guarded", sentinelRootNodes: [place] });
      client.on("error", () => undefined);
      await client.connect();
      opened.push([name, client, () => client.destroy()]);
    }
    for (const [name, Redis] of [
      ["ioredis 5", Redis5],
      ["ioredis 6", Redis6],
      ["iovalkey", Iovalkey],
    ] as [string, any][]) {
      const client = new Redis({ sentinels: [place], name: "guarded" });
      client.on("error", () => undefined);
      opened.push([name, client, () => client.disconnect()]);
    }
    for (const [, , close] of opened) toClose.push(close);
    const clients = opened.map(([, user]) => clientOf(user));
    for (const client of clients) toClose.push(() => client.close());
    const all = await Promise.all(clients.map((client) => Ears.open(client)));
    for (const [i, client] of clients.entries()) await hearsWrites(client, all[i] as Ears, 100);
    await scans(clients[0] as Client);
    await scans(clients[2] as Client);
    await master.crash();
    await Promise.all(all.map((ears) => ears.ended()));
    await Promise.all(
      clients.map(async (client, i) => {
        const ears = await listensAgain(client);
        await until(() => answers(client), "the client finds the new master");
        await hearsWrites(client, ears, 20, (trial) => `test:v:${i}:${trial}`);
      }),
    );
  });

  test("a server of a cluster is not listened to as if it were alone", async () => {
    const cluster = await startCluster(3, 0, { server: program });
    const { client } = await clientFor(LIBRARIES[0] as Library, { port: cluster.masters[0]?.port as number });
    const refused = await Ears.open(client).catch((error) => error);
    expect(refused).toMatchObject({ code: "ERR_UNSUPPORTED", message: expect.stringContaining("part of a cluster") });
    await cluster.stop();
  });
});

/** A sentinel that guards one master. */
async function startSentinel(program: (typeof SERVERS)[0], master: Server): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), "cache-machine-sentinel-"));
  toClose.push(() => rmSync(folder, { recursive: true }));
  // The harness starts a program with a file, and a sentinel needs an argument more.
  const sentinel = join(folder, "sentinel");
  writeFileSync(sentinel, `#!/bin/sh\nexec "${program.program}" "$1" --sentinel\n`, { mode: 0o700 });
  const config = [
    `sentinel monitor guarded 127.0.0.1 ${master.port} 1`,
    "sentinel down-after-milliseconds guarded 500",
    "sentinel failover-timeout guarded 3000",
  ];
  return startServer({ server: { ...program, program: sentinel }, tcp: true, config });
}

/** A key whose slot is 0. */
const slotZero = (trial: number): string => `test:v:{3560}${trial}`;
const anySlot = (trial: number): string => `test:${trial % 2 === 0 ? "v" : "t"}:${trial}`;

/** Whether the masters answer. */
async function answers(client: Client, keyOf = anySlot): Promise<boolean> {
  const keys = Array.from({ length: 64 }, (_, i) => keyOf(i));
  const outcomes = await Promise.allSettled(keys.map((key) => client.send(key, ["SET", key, "1"], 1_000)));
  return outcomes.every(({ status }) => status === "fulfilled");
}

async function hearsWrites(client: Client, ears: Ears, trials: number, keyOf = anySlot): Promise<void> {
  for (let trial = 0; trial < trials; trial++) {
    const key = keyOf(trial);
    ears.heard.length = 0;
    await client.send(key, ["SET", key, String(trial)], TIMEOUT);
    expect(await client.send(key, ["GET", key], TIMEOUT), "read from the master").toEqual(Buffer.from(String(trial)));
    await ears.beat();
    expect(ears.heard).toContain(key);
  }
}

async function scans(client: Client): Promise<void> {
  const keys = Array.from({ length: 300 }, (_, i) => `test:v:scan:${i}`);
  await Promise.all(keys.map((key) => client.send(key, ["SET", key, "1"], TIMEOUT)));
  const found: string[] = [];
  for await (const batch of client.scan("test:v:scan:*", TIMEOUT)) found.push(...batch);
  expect(found.sort()).toEqual([...keys].sort());
}

/** A new listener, as its owner would open it: again and again. */
async function listensAgain(client: Client): Promise<Ears> {
  let ears: Ears | undefined;
  const opens = async (): Promise<boolean> => {
    ears = await Ears.open(client).catch(() => undefined);
    return ears !== undefined;
  };
  await until(opens, "the client can be listened with again", 60_000);
  return ears as Ears;
}

async function trackedBy(servers: readonly Server[]): Promise<number> {
  const counts = await Promise.all(servers.map((server) => listening(server)));
  return counts.filter((connections) => connections.length > 0).length;
}

/** Moves a slot to the last of the nodes, as `redis-cli --cluster` does. */
async function moveSlot(nodes: readonly Server[], slot: number): Promise<void> {
  const to = nodes.at(-1) as Server;
  const target = String(await to.command("CLUSTER", "MYID"));
  const ids = await Promise.all(nodes.map((node) => node.command("CLUSTER", "MYID")));
  const ranges = (await to.command("CLUSTER", "SLOTS")) as [number, number, [string, number, string]][];
  const [, , [, , source]] = ranges.find(([from, until]) => from <= slot && slot <= until) as (typeof ranges)[0];
  const from = nodes[ids.findIndex((id) => String(id) === source)] as Server;
  await to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source);
  await from.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target);
  for (;;) {
    const keys = (await from.command("CLUSTER", "GETKEYSINSLOT", slot, 100)) as string[];
    if (keys.length === 0) break;
    await from.command("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", ...keys);
  }
  for (const node of [to, from]) await node.command("CLUSTER", "SETSLOT", slot, "NODE", target);
}
