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

/** One direction of one connection. Chunks wait in a queue while the proxy holds them back. */
class Flow {
  #to;
  #proxy;
  #queue = [];
  #timer;

  constructor(from, to, proxy) {
    this.#to = to;
    this.#proxy = proxy;
    from.on("data", (bytes) => this.#add(bytes));
    // The end comes after the bytes before it.
    from.on("end", () => this.#add(null));
  }

  #add(bytes) {
    this.#queue.push({ bytes, due: performance.now() + this.#proxy.latency });
    this.pump();
  }

  pump() {
    clearTimeout(this.#timer);
    while (this.#queue.length > 0 && !this.#proxy.isStalled) {
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

class Relay {
  /** The port on 127.0.0.1; 0 on a unix socket. */
  port = 0;
  /** The unix socket, if it listens on one. */
  path;
  /** Delay of each chunk in each direction, in milliseconds. */
  latency = 0;
  isStalled = false;
  isRefusing = false;
  /** Connections that were accepted so far. */
  accepted = 0;
  #target;
  #listener;
  #pairs = new Set();

  constructor(target) {
    this.#target = target;
    this.#listener = createServer({ allowHalfOpen: true }, (near) => this.#accept(near));
  }

  /** Connections that are open. */
  get connections() {
    return this.#pairs.size;
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
    near.on("error", () => {});
    if (this.isRefusing) {
      near.resetAndDestroy?.();
      near.destroy();
      return;
    }
    this.accepted++;
    const far = connect(
      typeof this.#target === "string" ? { path: this.#target } : { host: "127.0.0.1", port: this.#target },
    );
    near.setNoDelay(true);
    far.setNoDelay(true);
    const flows = [new Flow(near, far, this), new Flow(far, near, this)];
    const pair = {
      flows,
      end: () => {
        this.#pairs.delete(pair);
        for (const flow of flows) flow.end();
        near.destroy();
        far.destroy();
      },
    };
    this.#pairs.add(pair);
    far.on("error", pair.end);
    near.on("error", pair.end);
    near.on("close", pair.end);
    far.on("close", pair.end);
  }

  /** Ends all connections at once. What was on its way is lost. New ones are accepted, unless `refuse` says otherwise. */
  cut() {
    for (const pair of [...this.#pairs]) pair.end();
  }

  /** From now on each chunk arrives this many milliseconds later. */
  delay(ms) {
    this.latency = ms;
  }

  /** Holds all bytes back, in both directions. The connections stay open. */
  stall() {
    this.isStalled = true;
  }

  /** Ends the connections of new clients at once; those that are open stay. */
  refuse() {
    this.isRefusing = true;
  }

  /** Ends `delay`, `stall` and `refuse`: what was held back passes now. */
  resume() {
    this.latency = 0;
    this.isStalled = false;
    this.isRefusing = false;
    for (const { flows } of this.#pairs) for (const flow of flows) flow.flush();
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
