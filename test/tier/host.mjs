/**
 * A process of a simulated host: opens the cache of its host, a client that goes through the proxy of its host, and a tier. Then it
 * reads, writes and loads, and records every call with its times. With `setup.thread` a worker thread is one more participant, with a
 * cache, client and tier of its own.
 *
 * What a participant is about to write is in its file before it calls the tier, so it is known also of those that are killed. The rest
 * is written every few milliseconds; what a killed one has not written is missing, which makes no check wrong.
 */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { generator } from "../crash/checked-values.mjs";

const FLUSH_MS = 25;
/** A pause of the event loop that explains why a command was not answered in time. */
const BLOCKED_MS = 100;
const setup = isMainThread ? JSON.parse(process.argv[2]) : workerData;

// The wall clock of the simulated host, which the driver sets. It is replaced before anything may have kept the original.
const wall = new Float64Array(setup.wall ?? new SharedArrayBuffer(8));
if (isMainThread) wall[0] = setup.skew;
const wallClock = Date.now;
Date.now = () => wallClock() + wall[0];

/** The clock of the records: the same in all processes of the machine. In milliseconds. */
const now = () => Number(process.hrtime.bigint()) / 1e6;

/** The file of records of a participant. */
class Journal {
  #file;
  #lines = [];

  constructor(path) {
    this.#file = openSync(path, "a");
  }

  add(...record) {
    this.#lines.push(JSON.stringify(record));
  }

  flush() {
    if (this.#lines.length === 0) return;
    writeSync(this.#file, `${this.#lines.join("\n")}\n`);
    this.#lines.length = 0;
  }
}

/** The source of the loaded values: a file with one version for each key. */
class Source {
  #file;
  #word = Buffer.alloc(4);

  constructor(path) {
    this.#file = openSync(path, "r+");
  }

  read(index) {
    readSync(this.#file, this.#word, 0, 4, index * 4);
    return this.#word.readUInt32LE();
  }

  write(index, version) {
    this.#word.writeUInt32LE(version);
    writeSync(this.#file, this.#word, 0, 4, index * 4);
  }

  close() {
    closeSync(this.#file);
  }
}

const at = (port) => ({ host: "127.0.0.1", port });

/** The client of the user, as a user would make it. It finds the servers where the proxies of the host are. */
async function connectClient() {
  const { library, ports, servers } = setup;
  const isCluster = ports.length > 1;
  /** In a cluster the servers name each other by their own ports. */
  const proxies = Object.fromEntries(servers.map((port, i) => [`127.0.0.1:${port}`, at(ports[i])]));
  if (library.startsWith("redis")) {
    const { createClient, createCluster } = await import(library);
    const client = isCluster
      ? createCluster({
          rootNodes: ports.map((port) => ({ socket: at(port) })),
          nodeAddressMap: proxies,
          // Version 5 otherwise mixes up answers after a reset: see docs/tier.md.
          defaults: library === "redis5" ? { disableOfflineQueue: true } : {},
        })
      : createClient({ socket: at(ports[0]) });
    client.on("error", () => {});
    // It connects as soon as there is a server; the tier has to live with that.
    const connected = client.connect();
    connected.catch(() => {});
    // The client of a cluster does not try again by itself.
    if (isCluster) await connected;
    return { client, end: () => client.destroy() };
  }
  const { default: Redis } = await import(library);
  // By default these clients send an unanswered command again on the next connection: an increment would count twice.
  const options = { autoResendUnfulfilledCommands: false };
  const client = isCluster
    ? new Redis.Cluster(ports.map(at), { natMap: proxies, redisOptions: options })
    : new Redis({ ...at(ports[0]), ...options });
  client.on("error", () => {});
  return { client, end: () => client.disconnect() };
}

class Participant {
  #random = generator(setup.seed);
  #journal = new Journal(setup.journal);
  #source = new Source(setup.source);
  /** The reads since the last flush, by what they found. */
  #reads = new Map();
  #pending = new Map();
  #calls = 0;
  #numbers = 0;
  #isOver = false;
  #loops = [];
  #tick;

  async open() {
    const { openCache } = await import("cache-machine");
    this.connection = await connectClient();
    if (setup.fake) {
      const { openFake } = await import(setup.fake);
      this.tier = openFake(this.connection.client, setup);
    } else {
      const { openTier } = await import("cache-machine/tier");
      this.cache = openCache(setup.cache, { size: "8mb" });
      const { lease, timeout, singleFlight, prefix } = setup;
      this.tier = openTier(this.cache, { client: this.connection.client, prefix, lease, timeout, singleFlight });
    }
    const within = this.tier.namespace("within");
    this.scope = (key) => (key.endsWith("~") ? within : this.tier);
    let last = now();
    this.#tick = setInterval(() => {
      const time = now();
      if (time - last > FLUSH_MS + BLOCKED_MS) this.#journal.add("blocked", last, time);
      last = time;
      this.#flush();
    }, FLUSH_MS);
    this.#journal.add("open", now());
    this.#flush();
  }

  #flush() {
    for (const run of this.#reads.values()) {
      this.#journal.add("read", run.key, run.value, run.called, run.returned, run.until, run.count, run.final);
    }
    this.#reads.clear();
    this.#journal.flush();
  }

  #read(key, value, called, returned, final = false) {
    const id = `${key} ${value}`;
    const run = this.#reads.get(id);
    if (run === undefined) {
      this.#reads.set(id, { key, value, called, returned, until: returned, count: 1, final });
      return;
    }
    run.called = Math.max(run.called, called);
    run.returned = Math.min(run.returned, returned);
    run.until = Math.max(run.until, returned);
    run.count++;
  }

  /**
   * Makes a call, and watches that it ends. The limit counts only while this event loop runs: after a pause the timer of the limit
   * comes before the answers, so there is one more.
   */
  async #watched(what, limit, call) {
    const id = ++this.#calls;
    const called = now();
    let timer = setTimeout(() => {
      timer = setTimeout(() => {
        this.#journal.add("failure", { rule: "stuck", what, called, noticed: now() });
        this.#flush();
      }, 1_000);
    }, limit);
    this.#pending.set(id, what);
    try {
      return await call();
    } finally {
      clearTimeout(timer);
      this.#pending.delete(id);
    }
  }

  #unexpected(what, called, error) {
    const { name, code, message, stack } = error;
    const cause = error.cause === undefined ? undefined : String(error.cause?.stack ?? error.cause);
    this.#journal.add("failure", { rule: "error", what, called, returned: now(), name, code, message, stack, cause });
  }

  /** What a value of the tier says: the number of its write, or the version of its source. */
  #meaning(key, value) {
    if (value === undefined || value === null) return null;
    if (key[0] === "n") return value;
    return key[0] === "s" ? value.version : `${value.writer}#${value.n}`;
  }

  peekAt(key) {
    const called = now();
    const value = this.#meaning(key, this.scope(key).peek(key));
    // That the memory has nothing is no answer about the server.
    if (value !== null) this.#read(key, value, called, now());
  }

  async get(key, how = "get", final = false) {
    const called = now();
    try {
      const value = await this.#watched(`${how} ${key}`, setup.timeout + 1_000, async () => {
        if (how === "getEntry") return (await this.scope(key).getEntry(key))?.value;
        return await this.scope(key).get(key);
      });
      this.#read(key, this.#meaning(key, value), called, now(), final);
    } catch (error) {
      this.#unexpected(`${how} ${key}`, called, error);
    }
  }

  async getMany(keys, final = false) {
    const called = now();
    try {
      const values = await this.#watched("getMany", setup.timeout + 1_000, () => this.tier.getMany(keys));
      const returned = now();
      for (const [i, key] of keys.entries()) this.#read(key, this.#meaning(key, values[i]), called, returned, final);
    } catch (error) {
      this.#unexpected("getMany", called, error);
    }
  }

  /** Records the call, makes it, and records how it ended: `true` for a success. */
  async #write(kind, records, what, call) {
    const ids = records.map(() => ++this.#numbers);
    const called = now();
    for (const [i, record] of records.entries()) this.#journal.add(kind, ids[i], called, ...record);
    this.#flush();
    let ok = true;
    let result = null;
    try {
      result = (await this.#watched(what, setup.timeout + 1_000, call)) ?? null;
    } catch (error) {
      ok = false;
      if (error.code !== "ERR_UNREACHABLE") this.#unexpected(what, called, error);
    }
    const returned = now();
    for (const id of ids) this.#journal.add("end", id, returned, ok, result);
  }

  #value() {
    const n = ++this.#numbers;
    const writer = `${setup.who}.${setup.incarnation}`;
    return {
      value: { writer, n, body: "x".repeat(this.#random.below(this.#random.below(8) === 0 ? 20_000 : 200)) },
      id: `${writer}#${n}`,
    };
  }

  set(key) {
    const { value, id } = this.#value();
    const ttl = key[0] === "t" ? 300 + this.#random.below(1_500) : undefined;
    const options = ttl === undefined ? undefined : { ttl };
    return this.#write("write", [[key, id, ttl]], `set ${key}`, () => this.scope(key).set(key, value, options));
  }

  setMany(keys) {
    const entries = keys.map((key) => ({ key, ...this.#value() }));
    const records = entries.map(({ key, id }) => [key, id]);
    return this.#write("write", records, "setMany", () =>
      this.tier.setMany(entries.map(({ key, value }) => [key, value])),
    );
  }

  delete(key) {
    return this.#write("write", [[key, null]], `delete ${key}`, () => this.scope(key).delete(key));
  }

  increment(key) {
    return this.#write("increment", [[key]], `increment ${key}`, () => this.scope(key).increment(key));
  }

  /** Puts the next version of a key of this writer into the source, and tells the tier. */
  async change(keys, how) {
    const versions = keys.map((key) => {
      const index = setup.keys.sources.indexOf(key);
      const version = this.#source.read(index) + 1;
      // Recorded first: a reader may see the version before this process comes to writing that it is there.
      this.#journal.add("changing", key, version, now());
      this.#flush();
      this.#source.write(index, version);
      return version;
    });
    const records = keys.map((key, i) => [key, versions[i], how]);
    const [key] = keys;
    const tags = [this.#tag(key)];
    await this.#write("change", records, `${how} ${keys}`, () => {
      if (how === "delete") return this.scope(key).delete(key);
      if (how === "tag") return this.scope(key).invalidateTag(...tags);
      return this.scope(key).set(key, { version: versions[0] }, { tags });
    });
  }

  /** All keys with this tag belong to one writer. */
  #tag(key) {
    return `tag ${setup.keys.sources.indexOf(key) % setup.slots}`;
  }

  async load(key) {
    const called = now();
    const index = setup.keys.sources.indexOf(key);
    // Mostly short; some take longer than the lease.
    const pause = this.#random.below(15) === 0 ? this.#random.below(setup.lease * 4) : this.#random.below(40);
    const loader = async () => {
      const from = now();
      const version = this.#source.read(index);
      await new Promise((resolve) => setTimeout(resolve, pause));
      this.#journal.add("load", key, from, now(), version);
      return { version };
    };
    const options = { lease: setup.flightLease, tags: [this.#tag(key)] };
    // Another one may load, and die: then this call loads after it.
    const limit = 4 * setup.timeout + 6 * setup.lease + 2 * setup.flightLease + 2_000;
    try {
      const value = await this.#watched(`getOrSet ${key}`, limit, () => this.scope(key).getOrSet(key, loader, options));
      this.#read(key, this.#meaning(key, value), called, now());
    } catch (error) {
      this.#unexpected(`getOrSet ${key}`, called, error);
    }
  }

  #pick(keys) {
    return keys[this.#random.below(keys.length)];
  }

  /** Repeats an action until the end, with pauses. Up to `width` of them run at the same time. */
  #loop(width, pause, action) {
    const one = async () => {
      while (!this.#isOver) {
        await action();
        await new Promise((resolve) => setTimeout(resolve, pause() * setup.pace));
      }
    };
    for (let i = 0; i < width; i++) this.#loops.push(one());
  }

  run() {
    const random = this.#random;
    const { registers, multi, short, sources, counters } = setup.keys;
    const all = [...registers, ...multi, ...short, ...sources, ...counters];
    const mine = (keys) => keys.filter((_, i) => i % setup.slots === setup.slot);
    const plain = (keys) => keys.filter((key) => !key.endsWith("~"));
    const read = [...registers, ...multi, ...short, ...counters];
    this.#loop(
      1,
      () => 4 + random.below(4),
      () => {
        for (let i = 0; i < 20; i++) this.peekAt(this.#pick(all));
      },
    );
    this.#loop(
      3,
      () => 6 + random.below(10),
      () => {
        if (random.below(6) === 0) return this.getMany(plain(read).filter(() => random.below(2) === 0));
        return this.get(this.#pick(read), random.below(4) === 0 ? "getEntry" : "get");
      },
    );
    this.#loop(
      2,
      () => 6 + random.below(10),
      () => this.load(this.#pick(sources)),
    );
    this.#loop(
      1,
      () => 10 + random.below(60),
      () => this.#someWrite(mine, plain),
    );
    this.#loop(
      1,
      () => 40 + random.below(100),
      () => (random.below(2) === 0 ? this.set(this.#pick(multi)) : this.increment(this.#pick(counters))),
    );
  }

  #someWrite(mine, plain) {
    const random = this.#random;
    const { registers, short, sources } = setup.keys;
    const own = mine(registers);
    const changing = mine(sources);
    const kind = random.below(10);
    if (kind < 3) return this.set(this.#pick(own));
    if (kind === 3) return this.delete(this.#pick(own));
    if (kind === 4 && plain(own).length > 0) return this.setMany(plain(own));
    if (kind === 5) return this.set(this.#pick(short));
    if (changing.length === 0) return this.set(this.#pick(own));
    const key = this.#pick(changing);
    if (kind === 6) return this.change([key], "set");
    if (kind === 7) {
      const within = key.endsWith("~");
      return this.change(
        changing.filter((other) => other.endsWith("~") === within),
        "tag",
      );
    }
    return this.change([key], "delete");
  }

  stats() {
    try {
      return this.tier.stats();
    } catch (error) {
      return { error: String(error) };
    }
  }

  /** Ends the loops. All calls have ended then, or are stuck. */
  async settle() {
    this.#isOver = true;
    await Promise.all(this.#loops);
    await this.#reached();
    this.#flush();
  }

  /** Waits until this participant's own connection is back: its owner, which hears of changes, has another one. */
  async #reached() {
    const end = now() + 15_000;
    for (;;) {
      try {
        return await this.tier.delete("nobody stores this key");
      } catch (error) {
        if (error.code !== "ERR_UNREACHABLE" || now() > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** The reads of all that is written, when the faults are over. */
  async readAll() {
    const { registers, multi, counters } = setup.keys;
    for (const key of [...registers, ...multi, ...counters]) await this.get(key, "get", true);
    this.#flush();
  }

  async close() {
    clearInterval(this.#tick);
    this.#flush();
    await this.tier.close();
    this.cache?.close();
    this.connection.end();
    this.#source.close();
  }
}

const participant = new Participant();
const send = (message) => (isMainThread ? process.send(message) : parentPort.postMessage(message));
const fatal = (error) => {
  send({ fatal: String(error?.stack ?? error) });
};
process.on("uncaughtException", fatal);
process.on("unhandledRejection", fatal);

let worker;
/** Whether the thread is there, and not on its way out. */
const hasThread = () => worker !== undefined;

function startThread() {
  const started = new Worker(new URL(import.meta.url), {
    workerData: { ...setup, ...setup.thread, thread: undefined, wall: wall.buffer },
  });
  worker = started;
  started.on("message", (message) => process.send({ ...message, thread: true }));
  started.on("error", (error) => process.send({ fatal: String(error?.stack ?? error), thread: true }));
  started.on("exit", () => {
    if (worker === started) worker = undefined;
  });
}

/** What the driver asks for. Answers name the number of the question. */
const commands = {
  stats: () => participant.stats(),
  run: () => participant.run(),
  settle: () => participant.settle(),
  readAll: () => participant.readAll(),
  async close() {
    await participant.close();
    // Nothing of the tier keeps this thread or process alive: it ends by itself.
    if (!isMainThread) setImmediate(() => parentPort.close());
  },
  async terminate() {
    const ended = worker;
    worker = undefined;
    await ended?.terminate();
  },
  thread({ thread }) {
    setup.thread = thread;
    startThread();
  },
  step({ skew }) {
    wall[0] = skew;
  },
};

async function answer({ number, command, toThread, ...more }) {
  if (toThread) {
    if (hasThread()) worker.postMessage({ number, command, ...more });
    else send({ number, error: "there is no thread" });
    return;
  }
  try {
    send({ number, result: await commands[command](more) });
  } catch (error) {
    send({ number, error: String(error?.stack ?? error) });
  }
}

if (isMainThread) process.on("message", answer);
else parentPort.on("message", answer);
await participant.open();
if (isMainThread && setup.thread !== undefined) startThread();
send({ ready: true });
