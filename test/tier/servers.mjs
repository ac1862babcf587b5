/**
 * Real Redis and Valkey servers for tests. Each has a private folder, and listens on a unix socket in it, or on 127.0.0.1 too. A
 * server ends with the process that started it, whatever happens to that process (the kernel kills it), and its folder is removed.
 *
 *     afterEach(endServers);
 *     const server = await startServer({ persist: true });
 *     const client = createClient({ socket: { path: server.path } });
 *
 * The program is $REDIS_SERVER, or `redis-server` in PATH or /usr/bin; for Valkey $VALKEY_SERVER or `valkey-server` likewise.
 * `sh scripts/install-redis-server.sh` installs both into .tools/bin, where they are also found.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  accessSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";
import { makeCertificate } from "./certificate.mjs";

const PATIENCE_MS = 30_000;
const FOLDER = "cache-machine-server-";
const TOOLS = fileURLToPath(new URL("../../.tools/bin", import.meta.url));

/** A server program: `{ name: "redis" | "valkey", program: string, version: string }`. */
function find(name) {
  const file = `${name}-server`;
  const own = process.env[`${name.toUpperCase()}_SERVER`];
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/bin", "/usr/local/bin", TOOLS];
  for (const program of own ? [own] : folders.map((folder) => join(folder, file))) {
    try {
      accessSync(program, constants.X_OK);
      const version = /v=([\d.]+)/.exec(execFileSync(program, ["--version"], { encoding: "utf8" }))?.[1] ?? "unknown";
      return { name, program, version };
    } catch (error) {
      if (own) throw new Error(`$${name.toUpperCase()}_SERVER is ${own}, which cannot be run: ${error.message}`);
    }
  }
}

/**
 * The server programs of this machine, Redis first; only the first one unless `ALL_SERVERS` is set, as by `npm run test:tier`. For
 * `describe.each(SERVERS)`.
 */
export const SERVERS = ["redis", "valkey"]
  .map(find)
  .filter((found) => found !== undefined)
  .slice(0, process.env.ALL_SERVERS ? 2 : 1);
/** Why tests with a server cannot run here; undefined if they can. For `describe.skipIf(NO_SERVER)`. */
export const NO_SERVER =
  SERVERS.length > 0
    ? undefined
    : "there is no redis-server and no valkey-server: run `sh scripts/install-redis-server.sh`, or set $REDIS_SERVER";
if (NO_SERVER !== undefined) {
  // On the machines that decide about a change, a test that does not run is a failure.
  if (process.env.CI) throw new Error(NO_SERVER);
  console.warn(`skipped: ${NO_SERVER}`);
}

const running = new Set();
const folders = new Set();
process.once("exit", () => {
  for (const server of running) server.kill();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Removes what was left by processes that were killed. */
function sweep() {
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${FOLDER}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined) continue;
    try {
      process.kill(Number(pid), 0);
    } catch {
      rmSync(join(tmpdir(), name), { recursive: true, force: true });
    }
  }
}

/** A port of 127.0.0.1 that is free now. Another program may take it before the server does: then the start is tried again. */
function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 5));

/** Waits until a condition holds. */
async function until(reached, what, patience = PATIENCE_MS) {
  for (const since = performance.now(); !(await reached()); await soon()) {
    if (performance.now() - since > patience) throw new Error(`hangs: ${what()}`);
  }
}

/** Whether the server answers, and has loaded its data. */
function answers(path) {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (result) => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(1_000, () => end(false));
    socket.once("error", () => end(false));
    socket.once("data", (bytes) => end(/^\+PONG|^-NOAUTH/.test(bytes)));
    socket.write("PING\r\n");
  });
}

class Server {
  /** The private folder. */
  folder;
  /** The unix socket. */
  path;
  /** The port on 127.0.0.1; 0 without `tcp`, `tls` and `cluster`. */
  port = 0;
  /** `"redis"` or `"valkey"`, and its version. */
  name;
  version;
  password;
  /** PEM texts with `tls`: `{ ca, cert, key }`. */
  certificate;
  /** Starts so far. */
  starts = 0;
  #options;
  #program;
  #child;
  #isPaused = false;
  /** The port of the cluster bus. */
  busPort;

  constructor(options) {
    const { program, name, version } = options.server ?? SERVERS[0] ?? {};
    if (program === undefined) throw new Error(NO_SERVER);
    Object.assign(this, { name, version, password: options.password });
    this.#program = program;
    this.#options = options;
    this.folder = mkdtempSync(join(tmpdir(), `${FOLDER}${process.pid}-`));
    folders.add(this.folder);
    this.path = join(this.folder, "socket");
    if (options.tls) this.#certify();
  }

  get pid() {
    return this.#child?.pid;
  }

  get isRunning() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get isPaused() {
    return this.#isPaused;
  }

  /** For clients that take a URL; the unix socket without a port has none. */
  get url() {
    if (this.port === 0) return undefined;
    const user = this.password === undefined ? "" : `:${encodeURIComponent(this.password)}@`;
    return `${this.#options.tls ? "rediss" : "redis"}://${user}127.0.0.1:${this.port}`;
  }

  /** What the server has written about itself. */
  get log() {
    return readFileSync(join(this.folder, "log"), "utf8");
  }

  #certify() {
    this.certificate = makeCertificate();
    for (const [name, text] of Object.entries(this.certificate)) writeFileSync(join(this.folder, `${name}.pem`), text);
  }

  #configuration() {
    const { tls, password, persist, cluster, config = [] } = this.#options;
    const file = (name) => join(this.folder, name);
    const lines = [
      `unixsocket ${this.path}`,
      `dir ${this.folder}`,
      "bind 127.0.0.1",
      "daemonize no",
      'save ""',
      // The server gives every write to the kernel before it answers. The kernel keeps it: the server is killed here, not the machine.
      ...(persist ? ["appendonly yes", "appendfsync no"] : ["appendonly no"]),
      ...(tls
        ? [
            "port 0",
            `tls-port ${this.port}`,
            `tls-cert-file ${file("cert.pem")}`,
            `tls-key-file ${file("key.pem")}`,
            `tls-ca-cert-file ${file("ca.pem")}`,
            "tls-auth-clients no",
          ]
        : [`port ${this.port}`]),
      ...(password === undefined ? [] : [`requirepass ${password}`, `masterauth ${password}`]),
      ...(cluster
        ? [
            "cluster-enabled yes",
            `cluster-port ${this.busPort}`,
            "cluster-config-file nodes.conf",
            "cluster-node-timeout 2000",
          ]
        : []),
      // A replica gets its data at once.
      "repl-diskless-sync-delay 0",
      "repl-ping-replica-period 1",
      ...config,
    ];
    writeFileSync(file("server.conf"), `${lines.join("\n")}\n`);
    return file("server.conf");
  }

  /** @internal */
  async launch(port) {
    const { tcp, tls, cluster } = this.#options;
    const needsPort = tcp || tls || cluster || port !== undefined;
    for (let attempt = 1; ; attempt++) {
      if (needsPort) this.port = port ?? (await freePort());
      if (cluster) this.busPort ??= await freePort();
      try {
        return await this.#run();
      } catch (error) {
        if (attempt === 5 || port !== undefined || !/Address already in use/.test(this.log)) throw error;
        this.busPort = undefined;
      }
    }
  }

  async #run() {
    const log = openSync(join(this.folder, "log"), "a");
    const command = ["--pdeathsig", "KILL", this.#program, this.#configuration()];
    this.#child = spawn("setpriv", command, { stdio: ["ignore", log, log], cwd: this.folder });
    closeSync(log);
    this.#isPaused = false;
    running.add(this);
    const child = this.#child;
    child.once("exit", () => {
      if (this.#child === child) running.delete(this);
    });
    const failed = () => `${this.name}-server does not start:\n${this.log.slice(-2_000)}`;
    await until(() => {
      if (!this.isRunning) throw new Error(failed());
      return answers(this.path);
    }, failed);
    this.starts++;
  }

  /** @internal SIGKILL, also for a paused one. */
  kill() {
    if (this.isRunning) this.#child.kill("SIGKILL");
  }

  /** Kills the server (SIGKILL) and keeps its folder: `restart` starts it again. */
  async crash() {
    this.kill();
    await until(
      () => !this.isRunning,
      () => "the end of a server",
    );
  }

  /**
   * Kills the server and starts it again at the same path and port. With `persist` it has its data again, unless `empty`. Without
   * `persist` it is empty.
   */
  async restart({ empty = false } = {}) {
    await this.crash();
    if (empty) {
      for (const name of ["appendonlydir", "appendonly.aof", "dump.rdb"]) {
        rmSync(join(this.folder, name), { recursive: true, force: true });
      }
    }
    await this.launch(this.port === 0 ? undefined : this.port);
  }

  /** SIGSTOP. Resolves when it is stopped: connections stay open, and nothing answers. */
  async pause() {
    process.kill(this.pid, "SIGSTOP");
    this.#isPaused = true;
    const stopped = () => /\) T /.test(readFileSync(`/proc/${this.pid}/stat`, "latin1"));
    await until(stopped, () => "a server stops");
  }

  /** SIGCONT */
  resume() {
    process.kill(this.pid, "SIGCONT");
    this.#isPaused = false;
  }

  /** One command, on a connection of its own, as the default user. @returns the reply as node-redis gives it with RESP 2 */
  async command(...args) {
    const socket = { path: this.path, reconnectStrategy: false, connectTimeout: 10_000 };
    const client = createClient({ socket, password: this.password, RESP: 2, disableClientInfo: true });
    client.on("error", () => {});
    await client.connect();
    try {
      return await client.sendCommand(args.map(String));
    } finally {
      client.destroy();
    }
  }

  /** Kills the server and removes its folder. */
  async stop() {
    await this.crash();
    rmSync(this.folder, { recursive: true, force: true });
    folders.delete(this.folder);
    started.delete(this);
  }
}

const started = new Set();

/**
 * Starts a server. Without a port it listens on its unix socket only.
 *
 * @param options.server the program: one of {@link SERVERS}; the first one by default
 * @param options.tcp whether it listens on a free port of 127.0.0.1 too
 * @param options.port a certain port
 * @param options.tls whether the port speaks TLS (the unix socket does not)
 * @param options.password the password of the default user
 * @param options.persist whether every write is in a file before it is answered, so that nothing is lost by `crash` and `restart`
 * @param options.config more lines of the configuration
 * @param options.cluster whether the server is a node of a cluster
 */
export async function startServer(options = {}) {
  if (started.size === 0) sweep();
  const server = new Server(options);
  started.add(server);
  try {
    await server.launch(options.port);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

/** For `afterEach` or `afterAll`: ends all servers of this process, also those that a failed test has left. */
export async function endServers() {
  await Promise.all([...started].map((server) => server.stop()));
}

/**
 * Starts a cluster. It resolves when every node says that the cluster is in order, and every replica is connected.
 *
 * @param masters number of masters, 3 or more (fewer cannot elect a new master)
 * @param replicas number of replicas of each master
 * @returns `{ masters, replicas, nodes, urls, stop() }`; replica `i` belongs to master `i % masters`
 */
export async function startCluster(masters = 3, replicas = 0, options = {}) {
  const nodes = await Promise.all(
    Array.from({ length: masters * (1 + replicas) }, () => startServer({ ...options, cluster: true })),
  );
  const heads = nodes.slice(0, masters);
  const others = nodes.slice(masters);
  for (const [index, node] of nodes.entries()) {
    await node.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1);
    const from = Math.floor((16_384 * index) / masters);
    const to = Math.floor((16_384 * (index + 1)) / masters) - 1;
    if (index < masters) await node.command("CLUSTER", "ADDSLOTSRANGE", from, to);
  }
  for (const node of nodes.slice(1)) await nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port, node.busPort);
  const knows = async (node) => {
    const info = await node.command("CLUSTER", "INFO");
    return info.includes(`cluster_known_nodes:${nodes.length}`) && info.includes("cluster_state:ok");
  };
  const inOrder = async () => (await Promise.all(nodes.map(knows))).every(Boolean);
  await until(inOrder, () => "the nodes of a cluster meet");
  for (const [index, node] of others.entries()) {
    await node.command("CLUSTER", "REPLICATE", await heads[index % masters].command("CLUSTER", "MYID"));
  }
  for (const node of others) {
    const connected = async () => (await node.command("INFO", "replication")).includes("master_link_status:up");
    await until(connected, () => "a replica connects");
  }
  // Clients ask any node for the topology. It names a replica when it has heard that the replica has data: a ping of its master is enough.
  const named = async (node) => (await node.command("CLUSTER", "SLOTS")).every((slot) => slot.length === 3 + replicas);
  const known = async () => (await Promise.all(nodes.map(named))).every(Boolean);
  await until(known, () => "the nodes of a cluster hear of the replicas");
  return {
    masters: heads,
    replicas: others,
    nodes,
    urls: nodes.map(({ url }) => url),
    stop: () => Promise.all(nodes.map((node) => node.stop())),
  };
}
