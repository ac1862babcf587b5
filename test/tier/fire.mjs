/**
 * Several simulated hosts under fire: each is a cache of its own with some processes and threads, a proxy of its own, and one real
 * server behind all of them. While they read and write, owners are killed, processes are stopped, connections are cut, delayed and
 * held back, the server is restarted, stopped and emptied, and wall clocks are set. Then everything is healed, all participants read
 * everything, and the checker judges what they have recorded.
 *
 * The plan of faults and the work of each participant follow from the seed. The times at which things happen do not: a seed repeats
 * the kind of a run, not each moment.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { destroyCache } from "cache-machine";
import { generator } from "../crash/checked-values.mjs";
import { check } from "./checker.mjs";
import { startProxy } from "./proxy.mjs";
import { startCluster, startServer } from "./servers.mjs";

const HOST = fileURLToPath(new URL("host.mjs", import.meta.url));
const PATIENCE_MS = 40_000;
const HOUR_MS = 3_600_000;
/** The clock of the records. */
const now = () => Number(process.hrtime.bigint()) / 1e6;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let runs = 0;

/** One process of a host, as long as it lives. */
class Member {
  #child;
  #questions = new Map();
  #number = 0;
  isFrozen = false;
  isExpected = false;

  /** @param told called with every message that is no answer */
  constructor(setup, told) {
    this.setup = setup;
    const command = ["--pdeathsig", "KILL", process.execPath, HOST, JSON.stringify(setup)];
    this.#child = spawn("setpriv", command, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.ended = new Promise((resolve) => {
      this.#child.once("exit", (code, signal) => {
        this.hasEnded = { code, signal, at: now() };
        for (const question of this.#questions.values()) question.reject(new Error("the process has ended"));
        resolve();
      });
    });
    this.ready = new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`${setup.who} does not start`)), PATIENCE_MS).unref();
      this.#child.on("message", (message) => {
        if (message.fatal !== undefined) reject(new Error(`${setup.who} (${setup.library}): ${message.fatal}`));
        if (message.ready && !message.thread) {
          this.isReady = true;
          resolve();
        }
        if (message.ready && message.thread) this.isThreadReady = true;
        if (message.fatal !== undefined) told(message);
        const question = this.#questions.get(message.number);
        this.#questions.delete(message.number);
        if (message.error !== undefined) question?.reject(new Error(message.error));
        else question?.resolve(message.result);
      });
      this.ended.then(resolve);
    });
    this.ready.catch(() => {});
  }

  get pid() {
    return this.#child.pid;
  }

  get isAlive() {
    return this.hasEnded === undefined;
  }

  /** Asks the process, or its thread. */
  ask(command, more = {}, patience = PATIENCE_MS) {
    const number = ++this.#number;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#questions.delete(number);
        reject(new Error(`${this.setup.who} does not answer: ${command}`));
      }, patience);
      const settled = (how) => (result) => {
        clearTimeout(timer);
        how(result);
      };
      this.#questions.set(number, { resolve: settled(resolve), reject: settled(reject) });
      if (!this.isAlive || !this.#child.connected) settled(reject)(new Error("the process has ended"));
      else this.#child.send({ number, command, ...more }, () => {});
    });
  }

  signal(signal) {
    if (this.isAlive) this.#child.kill(signal);
  }

  leave() {
    this.isExpected = true;
    if (this.#child.connected) this.#child.disconnect();
  }
}

class Fire {
  #plan;
  #random;
  #folder;
  /** The server, or the masters of a cluster. */
  #servers = [];
  #hosts = [];
  #windows = [];
  #losses = [];
  #failures = [];
  #deaths = new Map();
  #incarnations = new Map();
  #spawning = new Set();
  counts = {
    ownerKills: 0,
    kills: 0,
    terminations: 0,
    freezes: 0,
    cuts: 0,
    delays: 0,
    stalls: 0,
    restarts: 0,
    losses: 0,
    pauses: 0,
    steps: 0,
  };

  constructor(plan) {
    this.#plan = {
      ms: 10_000,
      hosts: 2,
      processes: 2,
      lease: 500,
      timeout: 400,
      flights: "host",
      libraries: ["redis", "ioredis", "iovalkey"],
      nodes: 1,
      deaths: true,
      network: true,
      losses: false,
      pace: 1,
      gap: 1,
      ...plan,
    };
    this.#random = generator(plan.seed);
    this.#folder = mkdtempSync(join(tmpdir(), `cache-machine-fire-${process.pid}-`));
  }

  async run() {
    const { ms, deaths, network } = this.#plan;
    try {
      await this.#start();
      const end = now() + ms;
      const loops = [];
      if (deaths) loops.push(this.#faults(end, generator(this.#random.next()), 60, this.#processFaults()));
      if (network) loops.push(this.#faults(end, generator(this.#random.next()), 150, this.#networkFaults()));
      loops.push(sleep(ms));
      await Promise.all(loops);
      await this.#heal();
      await this.#readAll();
      return this.#judge();
    } finally {
      await this.#end();
    }
  }

  // ---- Start and end

  async #start() {
    const { hosts, processes, losses, server, libraries, nodes } = this.#plan;
    const options = { persist: !losses, server };
    this.#servers = nodes > 1 ? (await startCluster(nodes, 0, options)).nodes : [await startServer(options)];
    const slots = hosts * (processes + 1);
    const keys = (letter, count) =>
      Array.from({ length: count }, (_, i) => `${letter}${i}${Math.floor(i / slots) % 2 === 1 ? "~" : ""}`);
    this.keys = {
      registers: keys("r", slots * 2),
      sources: keys("s", slots * 2),
      multi: keys("m", 3),
      short: keys("t", 3),
      counters: keys("n", 2),
    };
    writeFileSync(join(this.#folder, "source"), Buffer.alloc(this.keys.sources.length * 4));
    const run = `t-${process.pid}-fire-${++runs}`;
    for (let index = 0; index < hosts; index++) {
      const proxies = await Promise.all(this.#servers.map(({ path }) => startProxy(path)));
      const cache = `${run}-${index}`;
      const library = libraries[index % libraries.length];
      this.#hosts.push({ index, proxies, cache, library, skew: 0, members: new Array(processes) });
    }
    // Half of the hosts have a wrong clock from the beginning.
    for (const host of this.#hosts) if (host.index % 2 === 1) host.skew = HOUR_MS;
    await Promise.all(this.#hosts.flatMap((host) => Array.from(host.members, (_, place) => this.#spawn(host, place))));
    await this.#allGood("the start");
  }

  /** What a participant has to know. The last slot of a host is that of the thread of its first process. */
  #setup(host, place, isThread) {
    const { processes, seed, lease, timeout, flights, fake, pace } = this.#plan;
    const who = `h${host.index}p${place}${isThread ? "t" : ""}`;
    const incarnation = (this.#incarnations.get(who) ?? 0) + 1;
    this.#incarnations.set(who, incarnation);
    const slot = host.index * (processes + 1) + (isThread ? processes : place);
    return {
      who,
      slot,
      slots: this.#plan.hosts * (processes + 1),
      incarnation,
      seed: seed * 1_000 + slot * 31 + incarnation,
      journal: join(this.#folder, `${host.index}-${who}-${incarnation}.jsonl`),
      source: join(this.#folder, "source"),
      cache: host.cache,
      prefix: "fire:",
      // Where the host finds each server: what it knows of the network is the proxies.
      ports: host.proxies.map(({ port }) => port),
      servers: this.#servers.map(({ port }) => port),
      library: host.library,
      skew: host.skew,
      keys: this.keys,
      lease,
      timeout,
      flightLease: 2_000,
      singleFlight: flights,
      fake,
      pace,
    };
  }

  async #spawn(host, place) {
    const setup = this.#setup(host, place, false);
    if (place === 0) setup.thread = this.#setup(host, place, true);
    const from = now();
    const names = [setup, setup.thread].filter(Boolean);
    const member = new Member(setup, (message) =>
      this.#failures.push({ rule: "crash", who: setup.who, at: now(), ...message }),
    );
    host.members[place] = member;
    member.ended.then(() => {
      if (!member.isExpected) this.#failures.push({ rule: "crash", who: setup.who, ...member.hasEnded });
    });
    await member.ready;
    for (const { who } of names) this.#windows.push({ what: "start", host: host.index, who, from, to: now() });
    if (member.isAlive) await member.ask("run").catch(() => {});
    if (place === 0) member.threadRuns = this.#runThread(member);
  }

  /** The thread reports that it is ready some time later. */
  async #runThread(member) {
    const from = now();
    while (member.isAlive && !member.isThreadReady) await sleep(5);
    if (!member.isAlive) return;
    const { who } = member.setup.thread;
    this.#windows.push({ what: "start", host: Number(who[1]), who, from, to: now() });
    await member.ask("run", { toThread: true }).catch(() => {});
  }

  get #living() {
    return this.#hosts.flatMap((host) => host.members.map((member) => ({ host, member })));
  }

  async #until(reached, what, patience = PATIENCE_MS) {
    for (const since = now(); !(await reached()); await sleep(20)) {
      if (now() - since > patience) {
        this.#failures.push({ rule: "stuck", what, at: now() });
        return false;
      }
    }
    return true;
  }

  #stats(member, patience = 300, toThread = false) {
    return member.ask("stats", { toThread }, patience).catch(() => undefined);
  }

  /** Waits until each participant says that its memory is good. */
  async #allGood(what) {
    let last;
    const good = async () => {
      last = await Promise.all(this.#living.map(({ member }) => this.#stats(member, 2_000)));
      return last.every((stats) => stats?.isGood === true);
    };
    const isGood = await this.#until(good, `not good after ${what}`);
    if (!isGood) this.#failures.push({ rule: "stuck", what: `good after ${what}`, stats: last });
  }

  async #heal() {
    for (const server of this.#servers) {
      if (!server.isRunning) await server.restart();
      if (server.isPaused) server.resume();
    }
    for (const { proxies } of this.#hosts) for (const proxy of proxies) proxy.resume();
    await Promise.all(this.#spawning);
    const from = now();
    await Promise.all(this.#living.map(({ member }) => member.ready.then(() => member.threadRuns)));
    await this.#allGood("the last fault");
    this.healed = now() - from;
  }

  async #readAll() {
    const everyone = (command, patience) =>
      Promise.all(
        this.#living.flatMap(({ member }) => [
          this.#must(member, command, {}, patience),
          ...(member.isThreadReady ? [this.#must(member, command, { toThread: true }, patience)] : []),
        ]),
      );
    await everyone("settle", 3 * PATIENCE_MS);
    // What a failed call has left in the network arrives, and the lease of all that was read before ends.
    await sleep(this.#plan.lease + 500);
    await everyone("readAll", PATIENCE_MS);
    const stats = await Promise.all(this.#living.map(({ member }) => this.#stats(member, 2_000)));
    this.stats = stats;
    await everyone("close", PATIENCE_MS);
    for (const { member } of this.#living) member.leave();
    const ended = () => this.#living.every(({ member }) => !member.isAlive);
    await this.#until(ended, "a process does not end after close()");
  }

  async #must(member, command, more, patience) {
    try {
      return await member.ask(command, more, patience);
    } catch (error) {
      this.#failures.push({ rule: "stuck", who: member.setup.who, ...more, what: String(error.message) });
    }
  }

  async #end() {
    for (const { member } of this.#living) {
      if (member === undefined) continue;
      member.isExpected = true;
      member.signal("SIGKILL");
    }
    await Promise.all(this.#living.map(({ member }) => member?.ended));
    for (const { proxies, cache } of this.#hosts) {
      await Promise.all(proxies.map((proxy) => proxy.stop()));
      destroyCache(cache);
    }
    await Promise.all(this.#servers.map((server) => server.stop()));
    if (process.env.FIRE_KEEP === undefined) rmSync(this.#folder, { recursive: true, force: true });
    else console.log(`kept: ${this.#folder}`);
  }

  // ---- Faults

  /** Makes one fault after the other, chosen by their weights. */
  async #faults(end, random, pause, kinds) {
    const sum = kinds.reduce((total, { weight }) => total + weight, 0);
    while (now() < end) {
      await sleep((pause + random.below(pause * 6)) * this.#plan.gap);
      let chosen = random.below(sum);
      const kind = kinds.find(({ weight }) => (chosen -= weight) < 0);
      await kind.fault(random);
      this.#plan.progress?.(this.counts);
    }
  }

  /** A disturbance while something is done. */
  async #during(window, action) {
    const record = { ...window, from: now(), to: Infinity };
    this.#windows.push(record);
    try {
      await action();
    } finally {
      record.to = now();
    }
  }

  #pick(items, random) {
    return items[random.below(items.length)];
  }

  /** The process or the thread that owns the tier of a host. */
  async #owner(host) {
    for (const since = now(); now() - since < 1_500; await sleep(10)) {
      for (const member of host.members) {
        if (!member.isAlive || member.isFrozen || !member.isReady) continue;
        const owner = (await this.#stats(member))?.owner;
        const found = host.members.find(({ pid, isAlive }) => isAlive && pid === owner?.pid);
        if (found !== undefined) return { member: found, isThread: owner.threadId !== 0 };
      }
    }
  }

  async #kill(host, member) {
    const place = host.members.indexOf(member);
    if (place < 0 || !member.isAlive) return false;
    await this.#during({ what: "kill", host: host.index, isDeath: true }, async () => {
      member.isExpected = true;
      member.signal("SIGKILL");
      await member.ended;
    });
    const { setup } = member;
    this.#died(setup, member.hasEnded.at);
    if (setup.thread !== undefined) this.#died(setup.thread, member.hasEnded.at);
    this.counts.kills++;
    return true;
  }

  #died({ who, incarnation }, time) {
    this.#deaths.set(`${who}-${incarnation}`, time);
  }

  async #terminate(host, member) {
    const { thread } = member.setup;
    if (thread === undefined || !member.isThreadReady) return false;
    member.isThreadReady = false;
    await this.#during({ what: "terminate", host: host.index, isDeath: true }, async () => {
      await member.ask("terminate").catch(() => {});
    });
    this.#died(thread, now());
    this.counts.terminations++;
    const next = this.#setup(host, 0, true);
    member.setup.thread = next;
    await member.ask("thread", { thread: next }).catch(() => {});
    member.threadRuns = this.#runThread(member);
    return true;
  }

  async #freeze(member, host, ms) {
    if (!member.isAlive) return;
    member.isFrozen = true;
    const names = [member.setup.who, member.setup.thread?.who].filter((who) => who !== undefined);
    const windows = names.map((who) => ({ what: "freeze", host: host.index, who, from: now(), to: Infinity }));
    this.#windows.push(...windows);
    member.signal("SIGSTOP");
    await sleep(ms);
    member.signal("SIGCONT");
    for (const window of windows) window.to = now();
    member.isFrozen = false;
    this.counts.freezes++;
  }

  #processFaults() {
    const { lease } = this.#plan;
    const anyHost = (random) => this.#pick(this.#hosts, random);
    // The next one comes soon. Others are killed meanwhile, but never the last one of a host.
    const replace = async (host, member, random) => {
      const place = host.members.indexOf(member);
      const others = host.members.filter(
        (other) => other !== member && other.isAlive && other.isReady && !other.isFrozen,
      );
      if (others.length === 0 || !(await this.#kill(host, member))) return false;
      const wait = random.below(150);
      const next = sleep(wait).then(() => this.#spawn(host, place));
      this.#spawning.add(next);
      next.finally(() => this.#spawning.delete(next)).catch(() => {});
      return true;
    };
    return [
      {
        weight: 10,
        fault: async (random) => {
          const host = anyHost(random);
          const owner = await this.#owner(host);
          if (owner === undefined) return;
          if (owner.isThread && random.below(2) === 0) {
            if (await this.#terminate(host, owner.member)) this.counts.ownerKills++;
            return;
          }
          if (await replace(host, owner.member, random)) this.counts.ownerKills++;
        },
      },
      {
        weight: 2,
        fault: async (random) => {
          const host = anyHost(random);
          const member = this.#pick(host.members, random);
          await replace(host, member, random);
        },
      },
      {
        weight: 1,
        fault: async (random) => {
          const host = anyHost(random);
          await this.#terminate(host, host.members[0]);
        },
      },
      {
        weight: 2,
        fault: async (random) => {
          const host = anyHost(random);
          const owner = await this.#owner(host);
          if (owner !== undefined) await this.#freeze(owner.member, host, 20 + random.below(lease * 3));
        },
      },
      {
        weight: 1,
        fault: async (random) => {
          const host = anyHost(random);
          await this.#freeze(this.#pick(host.members, random), host, 20 + random.below(lease * 3));
        },
      },
      {
        weight: 1,
        fault: async (random) => {
          const host = anyHost(random);
          host.skew = this.#pick([-HOUR_MS, 0, HOUR_MS], random);
          this.counts.steps++;
          await Promise.all(host.members.map((member) => member.ask("step", { skew: host.skew }, 300).catch(() => {})));
        },
      },
    ];
  }

  #networkFaults() {
    const { lease, losses } = this.#plan;
    const anyHost = (random) => this.#pick(this.#hosts, random);
    const anyServer = (random) => this.#pick(this.#servers, random);
    /** The whole network between a host and a server, or one connection of it. */
    const network = (random) => {
      const host = anyHost(random);
      const proxy = this.#pick(host.proxies, random);
      return { host, part: random.below(2) === 0 || proxy.connections === 0 ? proxy : this.#pick(proxy.pairs, random) };
    };
    const while_ = (what, host, action) => this.#during({ what, host: host?.index }, action);
    const kinds = [
      {
        weight: 4,
        fault: async (random) => {
          const { host, part } = network(random);
          await while_("cut", host, () => (random.below(2) === 0 ? part.reset() : part.cut()));
          this.counts.cuts++;
        },
      },
      {
        weight: 3,
        fault: async (random) => {
          const { host, part } = network(random);
          await while_("delay", host, async () => {
            part.delay(2 + random.below(lease));
            await sleep(random.below(lease * 3));
            // Slow answers are the last ones for a while: what they have proved is older than it seems.
            if (random.below(2) === 0) {
              part.stall("toClient");
              await sleep(lease * 2);
            }
            part.resume();
          });
          this.counts.delays++;
        },
      },
      {
        weight: 4,
        fault: async (random) => {
          const { host, part } = network(random);
          await while_("stall", host, async () => {
            part.stall(this.#pick([undefined, "toServer", "toClient"], random));
            await sleep(random.below(lease * 3));
            // What was held back arrives late, or never.
            if (random.below(3) === 0) part.cut();
            part.resume();
          });
          this.counts.stalls++;
        },
      },
      {
        weight: 1,
        fault: async (random) => {
          const host = anyHost(random);
          const proxy = this.#pick(host.proxies, random);
          await while_("refuse", host, async () => {
            proxy.refuse();
            proxy.cut();
            await sleep(random.below(lease * 2));
            proxy.resume();
          });
          this.counts.cuts++;
        },
      },
      {
        weight: 1,
        fault: async (random) => {
          await while_("client kill", undefined, () =>
            anyServer(random).command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
          );
          this.counts.cuts++;
        },
      },
      {
        weight: 3,
        fault: async (random) => {
          const from = now();
          const server = anyServer(random);
          await while_("restart", undefined, async () => {
            await server.crash();
            await sleep(random.below(2) === 0 ? 0 : random.below(lease * 2));
            await server.restart();
            // A node that was away for long is asked again by the others before the cluster is in order.
            await this.#until(() => isInOrder(server), "a restarted server is in order");
          });
          this.counts.restarts++;
          if (!losses) return;
          this.#losses.push({ from, to: now() });
          this.counts.losses++;
        },
      },
      {
        weight: 1,
        fault: async (random) => {
          const server = anyServer(random);
          await while_("pause", undefined, async () => {
            await server.pause();
            await sleep(random.below(lease * 3));
            server.resume();
            await this.#until(() => isInOrder(server), "a stopped server is in order");
          });
          this.counts.pauses++;
        },
      },
    ];
    if (losses) {
      kinds.push({
        weight: 1,
        fault: async () => {
          const from = now();
          await while_("flush", undefined, () =>
            Promise.all(this.#servers.map((server) => server.command("FLUSHALL"))),
          );
          this.#losses.push({ from, to: now() });
          this.counts.losses++;
        },
      });
    }
    return kinds;
  }

  // ---- The history

  #judge() {
    const { lease, flights, seed, timeout } = this.#plan;
    const kinds = {};
    const kindOf = {
      registers: "register",
      multi: "register",
      short: "register",
      sources: "source",
      counters: "counter",
    };
    for (const [group, keys] of Object.entries(this.keys)) for (const key of keys) kinds[key] = kindOf[group];
    const history = {
      lease,
      // Up to 2 ms more than the lease were measured, with more processes than processors.
      slack: 5,
      recovery: 4_500 + timeout,
      flights,
      kinds,
      windows: this.#windows,
      losses: this.#losses,
    };
    Object.assign(history, { reads: [], writes: [], changes: [], increments: [], loads: [], failures: this.#failures });
    const end = now();
    for (const window of history.windows) window.to = Math.min(window.to, end);
    for (const file of readdirSync(this.#folder)) {
      const [, host, name] = /^(\d+)-(.*)\.jsonl$/.exec(file) ?? [];
      if (name === undefined) continue;
      const who = name.replace(/-\d+$/, "");
      const text = readFileSync(join(this.#folder, file), "utf8");
      new Testimony(history, Number(host), who, this.#deaths.get(name) ?? end).hear(text);
    }
    const verdict = check(history);
    const near = (time) => this.#windows.filter(({ from, to }) => from < time + 500 && to > time - 3 * lease - 500);
    for (const violation of verdict.violations) {
      const time = violation.read?.called ?? violation.first?.from ?? violation.called ?? violation.at;
      if (time !== undefined) Object.assign(violation, { faults: near(time), story: story(history, violation, time) });
    }
    return { seed, ...this.counts, ...verdict, healed: this.healed, stats: this.stats, history };
  }
}

/** Whether a server serves all its keys: a node of a cluster does not, as long as it has not heard of all others. */
async function isInOrder(server) {
  const info = await server.command("INFO", "cluster");
  return info.includes("cluster_enabled:0") || (await server.command("CLUSTER", "INFO")).includes("cluster_state:ok");
}

/** What happened to the key of a violation before it, in the order of beginning. Times are relative to the violation. */
function story(history, violation, time) {
  const key = violation.key ?? violation.read?.key ?? violation.first?.key;
  const told = [];
  for (const kind of ["reads", "writes", "changes", "increments", "loads"]) {
    for (const { key: about, ...event } of history[kind]) {
      const from = event.called ?? event.from;
      if (about !== key || from < time - 3_000 || from > time + 500) continue;
      for (const [name, value] of Object.entries(event)) {
        if (typeof value === "number" && value > 1e6) event[name] = Number((value - time).toFixed(2));
      }
      told.push({ from, text: JSON.stringify({ kind, ...event }) });
    }
  }
  return told.sort((a, b) => a.from - b.from).map(({ text }) => text);
}

/** What one participant has recorded, as parts of the history. */
class Testimony {
  #history;
  #about;
  #end;
  #open = new Map();
  #changing = new Map();

  constructor(history, host, who, end) {
    this.#history = history;
    this.#about = { host, who };
    this.#end = end;
  }

  hear(text) {
    for (const line of text.split("\n")) {
      if (line === "") continue;
      let record;
      try {
        record = JSON.parse(line);
      } catch {
        // The last line of one that was killed.
        continue;
      }
      this.#records[record[0]]?.(...record.slice(1));
    }
    // The ends of these calls are unknown.
    for (const call of this.#open.values()) Object.assign(call, { returned: this.#end, ok: false });
    for (const [name, changed] of this.#changing) {
      const [key, version] = name.split(" ");
      const untold = { called: Infinity, returned: Infinity, ok: false, how: "none" };
      this.#history.changes.push({ ...this.#about, key, version: Number(version), changed, ...untold });
    }
  }

  #call(list, id, more) {
    const call = { ...this.#about, ...more };
    this.#open.set(id, call);
    list.push(call);
  }

  #records = {
    read: (key, value, called, returned, until, count, final) =>
      this.#history.reads.push({ ...this.#about, key, value, called, returned, until, count, final }),
    write: (id, called, key, value, ttl) =>
      this.#call(this.#history.writes, id, { key, value, called, ttl: ttl ?? undefined }),
    increment: (id, called, key) => this.#call(this.#history.increments, id, { key, called }),
    changing: (key, version, changed) => this.#changing.set(`${key} ${version}`, changed),
    change: (id, called, key, version, how) => {
      const name = `${key} ${version}`;
      this.#call(this.#history.changes, id, { key, version, how, called, changed: this.#changing.get(name) });
      this.#changing.delete(name);
    },
    end: (id, returned, ok, result) => {
      Object.assign(this.#open.get(id), { returned, ok, result });
      this.#open.delete(id);
    },
    load: (key, from, to, version) => this.#history.loads.push({ ...this.#about, key, from, to, version }),
    blocked: (from, to) => this.#history.windows.push({ what: "blocked", ...this.#about, from, to }),
    failure: (failure) => this.#history.failures.push({ ...this.#about, ...failure }),
  };
}

/**
 * One run.
 *
 * @param plan.seed what the faults and the work follow from
 * @param plan.ms how long the faults go on
 * @param plan.hosts number of hosts
 * @param plan.processes number of processes of each host; the first one has a thread that is a participant too
 * @param plan.lease, plan.timeout, plan.flights options of the tier
 * @param plan.libraries the clients of the hosts, one after the other
 * @param plan.server one of `SERVERS`
 * @param plan.nodes number of masters of a cluster (3 or more), 1 for a single server
 * @param plan.deaths whether processes are killed and stopped, and clocks set
 * @param plan.network whether connections and the server suffer
 * @param plan.losses whether the server loses its data when it is restarted, and is emptied; otherwise it keeps every write
 * @returns the counts of faults and calls, the staleness that was measured, and the violations
 */
export async function fire(plan) {
  return await new Fire(plan).run();
}
