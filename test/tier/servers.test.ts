/** The servers and proxies of the tests do what the tests rely on. */

import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";
import { afterEach, describe, expect, test } from "vitest";
import { endProxies, endServers, NO_SERVER, SERVERS, startCluster, startProxy, startServer } from "./servers.ts";

afterEach(async () => {
  await endProxies();
  await endServers();
});

async function connected(options: object): Promise<any> {
  const client = createClient(options as any);
  client.on("error", () => {});
  await client.connect();
  return client;
}

/** Whether a promise is still pending after `ms`. Only to show that nothing arrives; what arrives is awaited. */
const pending = (promise: Promise<unknown>, ms: number) =>
  Promise.race([promise.then(() => false), new Promise<boolean>((resolve) => setTimeout(resolve, ms, true))]);

describe.skipIf(NO_SERVER)("servers", () => {
  test.each(SERVERS)("$name $version: starts on a unix socket only, answers, and leaves nothing", async (program) => {
    const server = await startServer({ server: program });
    expect(server).toMatchObject({ port: 0, url: undefined, isRunning: true, name: program.name });
    expect(await server.command("SET", "a", 1)).toBe("OK");
    expect(await server.command("GET", "a")).toBe("1");
    const { pid, folder } = server;
    await server.stop();
    expect(existsSync(folder)).toBe(false);
    expect(() => process.kill(pid, 0)).toThrow();
  });

  test("a restart keeps the path and the port, and the data exactly with `persist`", async () => {
    for (const persist of [true, false]) {
      const server = await startServer({ tcp: true, persist });
      const { path, url, pid } = server;
      await server.command("SET", "a", 1);
      await server.restart();
      expect([server.path, server.url]).toEqual([path, url]);
      expect(server.pid).not.toBe(pid);
      expect(await server.command("GET", "a")).toBe(persist ? "1" : null);
      await server.command("SET", "b", 1);
      await server.restart({ empty: true });
      expect(await server.command("DBSIZE")).toBe(0);
    }
  });

  test("TLS with a password", async () => {
    const server = await startServer({ tls: true, password: "secret" });
    const client = await connected({ url: server.url, socket: { ca: server.certificate.ca } });
    expect(await client.ping()).toBe("PONG");
    client.destroy();
    await expect(connected({ url: server.url, socket: { reconnectStrategy: false } })).rejects.toThrow(/self.signed/i);
    const guest = { url: server.url.replace(/:[^@]*@/, ""), socket: { ca: server.certificate.ca } };
    const unknown = await connected(guest).catch((error) => error);
    if (!(unknown instanceof Error)) {
      await expect(unknown.ping()).rejects.toThrow(/NOAUTH/);
      unknown.destroy();
    }
    expect(await server.command("PING")).toBe("PONG");
  });

  test("a paused server answers nothing until it goes on", async () => {
    const server = await startServer();
    const client = await connected({ socket: { path: server.path } });
    await server.pause();
    const answer = client.ping();
    expect(await pending(answer, 50)).toBe(true);
    server.resume();
    expect(await answer).toBe("PONG");
    await server.pause();
    client.destroy();
  });

  test("a server that cannot start says why", async () => {
    await expect(startServer({ config: ["no-such-option 1"] })).rejects.toThrow(/no-such-option/);
  });

  test("a server ends with its process, even when that is killed", async () => {
    const script = `import { startServer } from ${JSON.stringify(fileURLToPath(new URL("servers.mjs", import.meta.url)))};
      const server = await startServer();
      console.log(server.pid);
      setInterval(() => {}, 1000);`;
    const other = spawn(process.execPath, ["--input-type=module", "--eval", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await new Promise<Buffer>((resolve) => other.stdout.once("data", resolve))).toString().split("\n");
    const pid = Number(line);
    expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).toContain("server");
    const exited = new Promise((resolve) => other.once("exit", resolve));
    other.kill("SIGKILL");
    await exited;
    const isAlive = () => existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
    await expect.poll(isAlive, { timeout: 10_000 }).toBe(false);
  });

  test.each(SERVERS)(
    "$name $version: a cluster of three masters with a replica each; a replica takes over",
    async (program) => {
      const cluster = await startCluster(3, 1, { server: program });
      const slots: any = await cluster.nodes[5].command("CLUSTER", "SLOTS");
      expect(slots.map((slot: any) => slot.length)).toEqual([4, 4, 4]);
      await cluster.replicas[0].command("CLUSTER", "FAILOVER");
      const role = async () => ((await cluster.replicas[0].command("ROLE")) as any)[0];
      await expect.poll(role, { timeout: 20_000 }).toBe("master");
    },
  );
});

describe.skipIf(NO_SERVER)("the proxy", () => {
  test("passes bytes, holds them back, delays them, cuts and refuses", async () => {
    const server = await startServer();
    const proxy = await startProxy(server.path);
    const client = await connected({ socket: { host: "127.0.0.1", port: proxy.port, reconnectStrategy: false } });
    const large = "x".repeat(3 << 20);
    await client.set("large", large);
    expect(await client.get("large")).toBe(large);

    proxy.stall();
    const answer = client.ping();
    expect(await pending(answer, 50)).toBe(true);
    expect(proxy.connections).toBe(1);
    proxy.resume();
    expect(await answer).toBe("PONG");

    // One direction of one connection.
    const before = await server.command("INFO", "commandstats");
    const [pair] = proxy.pairs;
    pair.stall("toClient");
    const held = client.incr("n");
    await expect.poll(() => server.command("GET", "n")).toBe("1");
    expect(before).not.toContain("cmdstat_incr:");
    expect(await pending(held, 20)).toBe(true);
    pair.resume();
    expect(await held).toBe(1);

    proxy.delay(40);
    const since = performance.now();
    await client.ping();
    expect(performance.now() - since).toBeGreaterThan(79);
    proxy.resume();

    proxy.refuse();
    await expect(
      connected({ socket: { host: "127.0.0.1", port: proxy.port, reconnectStrategy: false } }),
    ).rejects.toThrow();
    expect(await client.ping()).toBe("PONG");
    proxy.resume();

    const ended = new Promise((resolve) => client.once("error", resolve));
    proxy.cut();
    await ended;
    await expect(client.ping()).rejects.toThrow();
    expect(proxy.connections).toBe(0);
    const next = await connected({ socket: { host: "127.0.0.1", port: proxy.port } });
    expect(await next.ping()).toBe("PONG");
    next.destroy();
  });
});
