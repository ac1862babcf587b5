/**
 * Starts redis and memcached, where they are installed, on Unix sockets of their own, and ends them by pid. Has a minimal
 * client for both, which writes all requests of one tick at once. `$REDIS_SERVER` is the path of a redis-server that is not in the PATH.
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const COMMANDS = {
  redis: (socket, folder, more) => [
    process.env.REDIS_SERVER ?? "redis-server",
    [
      "--port",
      "0",
      "--unixsocket",
      socket,
      "--save",
      "",
      "--appendonly",
      "no",
      "--dir",
      folder,
      "--logfile",
      "/dev/null",
      ...more,
    ],
  ],
  memcached: (socket) => [
    "memcached",
    ["-s", socket, "-m", "2048", ...(process.getuid?.() === 0 ? ["-u", "root"] : [])],
  ],
};

/**
 * Starts the servers that are installed: `{ sockets: { redis: path }, pids, stop() }`.
 *
 * @param {string[]} only the kinds to start
 * @param {string[]} redisArguments more arguments for redis-server
 */
export async function startServers(folder, only = Object.keys(COMMANDS), redisArguments = []) {
  const sockets = {};
  const pids = {};
  const children = [];
  for (const kind of only) {
    const socket = path.join(folder, `${kind}.sock`);
    const [file, args] = COMMANDS[kind](socket, folder, redisArguments);
    const child = spawn(file, args, { stdio: "ignore" });
    const failed = new Promise((resolve) => {
      child.once("error", resolve);
      child.once("exit", resolve);
    });
    const up = (async () => {
      for (let i = 0; i < 200; i++) {
        if (existsSync(socket)) return "up";
        await sleep(25);
      }
      child.kill("SIGKILL");
    })();
    if ((await Promise.race([up, failed])) !== "up") continue;
    sockets[kind] = socket;
    pids[kind] = child.pid;
    children.push(child);
  }
  return {
    sockets,
    pids,
    async stop() {
      await Promise.all(
        children.map((child) => {
          if (child.exitCode !== null || child.signalCode !== null) return undefined;
          const ended = new Promise((resolve) => child.once("exit", resolve));
          child.kill("SIGKILL");
          return ended;
        }),
      );
    },
  };
}

const LINE = Buffer.from("\r\n");

const PROTOCOLS = {
  redis: {
    get: (key) => `*2\r\n$3\r\nGET\r\n$${key.length}\r\n${key}\r\n`,
    set: (key, bytes) => `*3\r\n$3\r\nSET\r\n$${key.length}\r\n${key}\r\n$${bytes}\r\n`,
    /** Length of the value that follows this line; -1 if none follows. */
    follows: (line) => {
      if (line.startsWith("-")) throw new Error(line);
      return line.startsWith("$") ? Number(line.slice(1)) : -1;
    },
    tail: 2,
  },
  memcached: {
    get: (key) => `get ${key}\r\n`,
    set: (key, bytes) => `set ${key} 0 0 ${bytes}\r\n`,
    follows: (line) => {
      if (line.includes("ERROR")) throw new Error(line);
      return line.startsWith("VALUE") ? Number(line.slice(line.lastIndexOf(" ") + 1)) : -1;
    },
    /** The line break behind the value, and `END` with its own. */
    tail: 7,
  },
};

/** A cache behind a socket; keys are ASCII. */
export async function connect(kind, socketPath, type) {
  const { get, set, follows, tail } = PROTOCOLS[kind];
  const socket = net.connect(socketPath);
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  const encode = type === "object" ? JSON.stringify : (value) => value;
  const decode = {
    text: (bytes) => bytes.toString("utf8"),
    object: (bytes) => JSON.parse(bytes.toString("utf8")),
    bytes: (bytes) => Buffer.from(bytes),
  }[type];
  const waiting = [];
  let first = 0;
  let pending = Buffer.alloc(0);

  /** Resolves the requests whose answers have arrived completely. */
  socket.on("data", (chunk) => {
    pending = pending.length ? Buffer.concat([pending, chunk]) : chunk;
    let at = 0;
    for (;;) {
      const end = pending.indexOf(LINE, at);
      if (end < 0) break;
      const length = follows(pending.latin1Slice(at, end));
      const start = end + 2;
      if (length >= 0 && start + length + tail > pending.length) break;
      at = length < 0 ? start : start + length + tail;
      const { resolve, wants } = waiting[first];
      waiting[first++] = undefined;
      resolve(wants && length >= 0 ? decode(pending.subarray(start, start + length)) : undefined);
    }
    pending = pending.subarray(at);
    if (first === waiting.length) waiting.length = first = 0;
  });

  let corked = false;
  const send = (wants, ...pieces) =>
    new Promise((resolve) => {
      waiting.push({ resolve, wants });
      if (!corked) {
        corked = true;
        socket.cork();
        process.nextTick(() => {
          corked = false;
          socket.uncork();
        });
      }
      for (const piece of pieces) socket.write(piece);
    });

  return {
    get: (key) => send(true, get(key)),
    set: (key, value) => send(false, ...pieces(set, key, encode(value))),
    fill: async (entries) => {
      let last;
      let count = 0;
      for (const [key, value] of entries) {
        last = send(false, ...pieces(set, key, encode(value)));
        if (++count % 1000 === 0) await last;
      }
      await last;
    },
    close: () => socket.destroy(),
  };
}

/** The pieces of a request to write, as few as possible. */
function pieces(set, key, encoded) {
  if (typeof encoded === "string") return [`${set(key, Buffer.byteLength(encoded))}${encoded}\r\n`];
  return [set(key, encoded.length), encoded, LINE];
}
