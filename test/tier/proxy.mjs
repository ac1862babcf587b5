/**
 * A network between a client and a server that a test can break: it accepts on 127.0.0.1 or on a unix socket, and connects each
 * connection to the server. Bytes pass in order and unchanged, or not at all.
 *
 *     const proxy = await startProxy(server.path);
 *     const client = createClient({ socket: { host: "127.0.0.1", port: proxy.port } });
 *     proxy.stall();
 */
import { rmSync } from "node:fs";
import { connect, createServer } from "node:net";

const running = new Set();

/** Delays bytes and holds them back. A relay has one for all its connections, each connection has one more. */
class Weather {
  /** Delay of each chunk in each direction, in milliseconds. */
  latency = 0;
  /** The directions that are held back. */
  held = new Set();

  stall(direction) {
    for (const each of direction === undefined ? ["toServer", "toClient"] : [direction]) this.held.add(each);
  }

  clear() {
    this.latency = 0;
    this.held.clear();
  }
}

/** One direction of one connection. Chunks wait in a queue while they are held back. */
class Flow {
  #to;
  #direction;
  #weathers;
  #queue = [];
  #timer;

  constructor(from, to, direction, weathers) {
    this.#to = to;
    this.#direction = direction;
    this.#weathers = weathers;
    from.on("data", (bytes) => this.#add(bytes));
    // The end comes after the bytes before it.
    from.on("end", () => this.#add(null));
  }

  #add(bytes) {
    this.#queue.push({ bytes, due: performance.now() + Math.max(...this.#weathers.map(({ latency }) => latency)) });
    this.pump();
  }

  pump() {
    clearTimeout(this.#timer);
    while (this.#queue.length > 0 && !this.#weathers.some(({ held }) => held.has(this.#direction))) {
      const wait = this.#queue[0].due - performance.now();
      if (wait > 0) {
        this.#timer = setTimeout(() => this.pump(), wait);
        return;
      }
      const { bytes } = this.#queue.shift();
      if (this.#to.destroyed) continue;
      if (bytes === null) this.#to.end();
      else this.#to.write(bytes);
    }
  }

  /** Passes what waits, without the rest of its delay. */
  flush() {
    for (const chunk of this.#queue) chunk.due = 0;
    this.pump();
  }

  end() {
    clearTimeout(this.#timer);
    this.#queue.length = 0;
  }
}

/** One connection through a relay. Its methods are those of the relay, for this connection alone. */
class Pair {
  #near;
  #far;
  #flows;
  #weather = new Weather();
  #ended;

  constructor(near, far, weather, ended) {
    this.#near = near;
    this.#far = far;
    this.#ended = ended;
    const weathers = [weather, this.#weather];
    this.#flows = [new Flow(near, far, "toServer", weathers), new Flow(far, near, "toClient", weathers)];
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      socket.on("error", () => this.cut());
      socket.on("close", () => this.cut());
    }
  }

  cut() {
    for (const flow of this.#flows) flow.end();
    this.#near.destroy();
    this.#far.destroy();
    this.#ended(this);
  }

  /** As `cut`, but the client is told by a RST, as by the kernel of a server that knows nothing of the connection any more. */
  reset() {
    this.#near.resetAndDestroy();
    this.cut();
  }

  delay(ms) {
    this.#weather.latency = ms;
  }

  stall(direction) {
    this.#weather.stall(direction);
  }

  resume() {
    this.#weather.clear();
    for (const flow of this.#flows) flow.flush();
  }
}

class Relay {
  /** The port on 127.0.0.1; 0 on a unix socket. */
  port = 0;
  /** The unix socket, if it listens on one. */
  path;
  isRefusing = false;
  /** While it is set, new connections open, and nothing passes through them, also later. */
  isDeaf = false;
  /** Connections that were accepted so far. */
  accepted = 0;
  #target;
  #listener;
  #weather = new Weather();
  #pairs = new Set();

  constructor(target) {
    this.#target = target;
    this.#listener = createServer({ allowHalfOpen: true }, (near) => this.#accept(near));
  }

  /** The number of open connections. */
  get connections() {
    return this.#pairs.size;
  }

  /** The open connections, the oldest first. Each has `cut`, `reset`, `delay`, `stall` and `resume` of its own. */
  get pairs() {
    return [...this.#pairs];
  }

  /** @internal */
  listen(path) {
    this.path = path;
    return new Promise((resolve, reject) => {
      this.#listener.once("error", reject);
      const listening = () => {
        if (path === undefined) this.port = this.#listener.address().port;
        resolve(this);
      };
      if (path === undefined) this.#listener.listen(0, "127.0.0.1", listening);
      else this.#listener.listen(path, listening);
    });
  }

  #accept(near) {
    if (this.isRefusing) {
      near.on("error", () => {});
      near.destroy();
      return;
    }
    this.accepted++;
    const target = this.#target;
    const far = connect(typeof target === "string" ? { path: target } : { host: "127.0.0.1", port: target });
    const pair = new Pair(near, far, this.#weather, (pair) => this.#pairs.delete(pair));
    if (this.isDeaf) pair.stall();
    this.#pairs.add(pair);
  }

  /** Ends all connections at once. What was on its way is lost. New ones are accepted, unless `refuse` says otherwise. */
  cut() {
    for (const pair of this.pairs) pair.cut();
  }

  /** As `cut`, but the clients are told by a RST. */
  reset() {
    for (const pair of this.pairs) pair.reset();
  }

  /** From now on each chunk arrives this many milliseconds later, in each direction. */
  delay(ms) {
    this.#weather.latency = ms;
  }

  /**
   * Holds all bytes back. The connections stay open.
   *
   * @param direction only those `"toServer"` or `"toClient"`
   */
  stall(direction) {
    this.#weather.stall(direction);
  }

  /** Ends the connections of new clients at once; those that are open stay. */
  refuse() {
    this.isRefusing = true;
  }

  /** Ends `delay`, `stall` and `refuse`, also those of single connections: what was held back passes now. */
  resume() {
    this.#weather.clear();
    this.isRefusing = false;
    for (const pair of this.pairs) pair.resume();
  }

  async stop() {
    running.delete(this);
    this.cut();
    await new Promise((resolve) => this.#listener.close(resolve));
    if (this.path !== undefined) rmSync(this.path, { force: true });
  }
}

/**
 * @param target the unix socket (string) or the port on 127.0.0.1 (number) of the server
 * @param path the unix socket to listen on; a free port of 127.0.0.1 by default
 */
export async function startProxy(target, path) {
  const proxy = new Relay(target);
  running.add(proxy);
  return await proxy.listen(path);
}

/** For `afterEach` or `afterAll`: ends all proxies of this process. */
export async function endProxies() {
  await Promise.all([...running].map((proxy) => proxy.stop()));
}
