/**
 * The network between the hosts and the server: one socket per host, all that comes there goes on to the server. Counts the commands that
 * each host sends, by name, so that what a script does within the server does not count. Cuts the connections of a host, or lets nothing
 * pass for a while, as a network does that loses everything.
 *
 *     node network.mjs <JSON: { server, sockets }>
 *
 * Messages: `{ id, task: "counts" | "cut" | "freeze" | "thaw", args: { host } }` with the number of the host.
 */

import net from "node:net";

const { server, sockets } = JSON.parse(process.argv[2]);

/** Counts the commands of one connection: arrays of bulk strings of RESP, of which the first is the name. */
class Counter {
  #counts;
  /** Bytes of a bulk string, with its line break, that are still to come. */
  #skip = 0;
  #isName = false;
  #line = "";
  #name = "";

  constructor(counts) {
    this.#counts = counts;
  }

  take(chunk) {
    let at = 0;
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const taken = Math.min(this.#skip, chunk.length - at);
        if (this.#isName) this.#name += chunk.latin1Slice(at, at + taken);
        this.#skip -= taken;
        at += taken;
        if (this.#skip === 0) this.#endOfString();
        continue;
      }
      const end = chunk.indexOf(10, at);
      this.#line += chunk.latin1Slice(at, end < 0 ? chunk.length : end);
      if (end < 0) return;
      at = end + 1;
      this.#endOfLine(this.#line);
      this.#line = "";
    }
  }

  #endOfLine(line) {
    const number = Number.parseInt(line.slice(1), 10);
    if (line[0] === "*") {
      this.#isName = true;
      this.#name = "";
    } else if (line[0] === "$") {
      this.#skip = number + 2;
    } else {
      throw new Error(`not a command: ${line}`);
    }
  }

  #endOfString() {
    if (!this.#isName) return;
    const name = this.#name.trim().toUpperCase();
    this.#counts[name] = (this.#counts[name] ?? 0) + 1;
    this.#isName = false;
  }
}

const hosts = sockets.map((socket) => {
  const host = { counts: {}, connections: new Set(), isFrozen: false };
  net
    .createServer((client) => {
      const upstream = net.connect(server);
      const counter = new Counter(host.counts);
      const pair = { client, upstream };
      host.connections.add(pair);
      const end = () => {
        client.destroy();
        upstream.destroy();
        host.connections.delete(pair);
      };
      for (const side of [client, upstream]) side.on("error", end).on("close", end);
      client.on("data", (chunk) => {
        counter.take(chunk);
        upstream.write(chunk);
      });
      upstream.on("data", (chunk) => client.write(chunk));
      if (host.isFrozen) freeze(pair);
    })
    .listen(socket);
  return host;
});

function freeze({ client, upstream }) {
  client.pause();
  upstream.pause();
}

const TASKS = {
  counts: (host) => host.counts,
  cut: (host) => {
    for (const { client, upstream } of [...host.connections]) {
      client.destroy();
      upstream.destroy();
    }
  },
  freeze: (host) => {
    host.isFrozen = true;
    for (const pair of host.connections) freeze(pair);
  },
  thaw: (host) => {
    host.isFrozen = false;
    for (const { client, upstream } of host.connections) {
      client.resume();
      upstream.resume();
    }
  },
};

process.on("message", ({ id, task, args }) => process.send({ id, result: TASKS[task](hosts[args.host]) }));
process.on("disconnect", () => process.exit());
process.send({ ready: true });
