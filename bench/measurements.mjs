/**
 * The measurements of the comparison, one function for each part of the report. A measurement starts the participants that it
 * needs, has them take turns, and ends them. A peer that is not installed is skipped, and the report says so; a peer that is
 * installed and fails is an error.
 */

import { readFileSync } from "node:fs";
import { ADAPTERS } from "./adapters.mjs";
import { interleave, latencies, median, pairs, start } from "./coordinator.mjs";
import { startServers } from "./servers.mjs";
import { DATA } from "./workloads.mjs";

/**
 * Opens each optional adapter once, and leaves out those that cannot be opened. An adapter that stands in for an installed one
 * is left out too.
 */
export async function probe(run) {
  const unknown = run.adapters.filter((id) => ADAPTERS[id].optional || ADAPTERS[id].standsInFor);
  for (const id of unknown) {
    if (run.adapters.includes(ADAPTERS[id].standsInFor) && run.has(ADAPTERS[id].standsInFor)) {
      run.missing.set(id, "not needed");
      continue;
    }
    const participant = start(id);
    try {
      const context = run.workspace.context(`probe-${id}`, "1mb");
      await participant.ask("opening", { adapter: id, context, dataName: "s100" });
    } catch (error) {
      run.missing.set(id, error.message);
      run.skip(id, error.message);
    }
    await participant.end();
  }
  await run.workspace.sweep();
}

/** Starts an adapter's first participant and fills its cache; `undefined` when the adapter is not installed. */
async function filled(run, id, dataName, context) {
  const participant = start(`${id}, ${dataName}`);
  try {
    await participant.ask("open", { adapter: id, context, dataName, orderFile: run.workspace.orderFile(dataName) });
    await participant.ask("fill");
    return participant;
  } catch (error) {
    await participant.end();
    if (!ADAPTERS[id].optional) throw error;
    run.skip(id, `${DATA[dataName].label}: ${error.message}`);
    return undefined;
  }
}

/** Starts those of `ids` that are installed and store this data, two at a time; the participants by id. */
async function filledAll(run, ids, dataName, { tag = "", size = DATA[dataName].size } = {}) {
  const found = {};
  const queue = ids.filter((id) => run.adapters.includes(id) && ADAPTERS[id].data.includes(dataName) && run.has(id));
  const contexts = Object.fromEntries(queue.map((id) => [id, run.workspace.context(`${dataName}-${id}${tag}`, size)]));
  const starter = async () => {
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
      const participant = await filled(run, id, dataName, contexts[id]);
      if (participant) found[id] = participant;
    }
  };
  await Promise.all([starter(), starter()]);
  const participants = {};
  for (const id of ids) if (found[id]) participants[id] = found[id];
  return { participants, contexts };
}

const endOf = async (participants) => {
  for (const participant of participants) await participant.end();
};

/** Time of an operation in one process: `{ data: { workload: { adapter: { ns, rounds } } } }`. */
export async function speed(run) {
  const results = {};
  for (const dataName of run.data.filter((name) => DATA[name].workloads.length > 0)) {
    const { participants } = await filledAll(run, Object.keys(ADAPTERS), dataName);
    results[dataName] = {};
    for (const workload of run.workloads ?? DATA[dataName].workloads) {
      const able = Object.entries(participants).filter(([id]) => ADAPTERS[id].workloads?.includes(workload) ?? true);
      results[dataName][workload] = await interleave(Object.fromEntries(able), workload, run);
      run.progress(dataName, workload, results[dataName][workload]);
    }
    await endOf(Object.values(participants));
    await run.workspace.sweep();
  }
  return results;
}

/** What the near cache gains or costs, by pattern of access: `{ data: { workload: { adapter: { ns, rounds } } } }`. */
export async function looking(run) {
  const results = {};
  for (const dataName of ["few", "s100", "many"]) {
    const { participants } = await filledAll(run, ["near", "far"], dataName, { tag: "-looking" });
    results[dataName] = {};
    for (const workload of ["built", "uniform", "scan"]) {
      results[dataName][workload] = await interleave(participants, workload, run);
      run.progress(dataName, workload, results[dataName][workload]);
    }
    await endOf(Object.values(participants));
    await run.workspace.sweep();
  }
  return results;
}

/** Many keys in one call, and numbers and limits: `{ data: { workload: { adapter: { ns, rounds } } } }`. */
export async function batches(run) {
  const results = {};
  const workloads = {
    s100: ["singles", "getMany", "scattered", "scatteredMany"],
    million: ["singles", "getMany", "scattered", "scatteredMany"],
    few: ["increment", "rateLimit"],
  };
  for (const dataName of Object.keys(workloads)) {
    const { participants } = await filledAll(run, ["near", "far"], dataName, { tag: "-batches" });
    results[dataName] = {};
    for (const workload of workloads[dataName]) {
      results[dataName][workload] = await interleave(participants, workload, run);
      run.progress(dataName, workload, results[dataName][workload]);
    }
    await endOf(Object.values(participants));
    await run.workspace.sweep();
  }
  return results;
}

/** Two processes at once, and two workers of one process: `{ processes: { workload: { adapter: … } }, workers: … }`. */
export async function together(run) {
  const dataName = "s100";
  const orderFile = run.workspace.orderFile(dataName);
  const results = { processes: {}, workers: {} };

  const first = await filledAll(
    run,
    ["near", "far", "lmdb", "sqlite", "sqlite-builtin", "redis", "memcached", "ipc", "lru"],
    dataName,
  );
  const teams = {};
  for (const [id, participant] of Object.entries(first.participants)) {
    const second = start(`${id}, second`);
    await second.ask("open", { adapter: id, context: first.contexts[id], dataName, orderFile });
    await second.ask(ADAPTERS[id].reach === "private" ? "fill" : "check");
    teams[id] = [participant, second];
  }
  for (const workload of ["get", "mixed"]) results.processes[workload] = await pairs(teams, workload, run);
  await endOf(Object.values(teams).flat());

  const hosts = await filledAll(run, ["near", "threads", "lmdb", "sharedmap", "lru"], dataName, { tag: "-workers" });
  const crews = {};
  for (const [id, host] of Object.entries(hosts.participants)) {
    await host.ask("workers", { count: 2 });
    crews[id] = [host.worker(0), host.worker(1)];
    for (const member of crews[id]) {
      await member.ask("open", { adapter: id, context: hosts.contexts[id], dataName, orderFile });
      await member.ask(ADAPTERS[id].reach === "private" ? "fill" : "check");
    }
  }
  for (const workload of ["get", "mixed"]) results.workers[workload] = await pairs(crews, workload, run);
  await endOf(Object.values(hosts.participants));
  await run.workspace.sweep();
  return results;
}

/**
 * Writes to three caches: one smaller than the data, which reclaims memory all the time; one so large that it reclaims nothing;
 * and one that holds everything and reclaims only overwritten entries.
 */
export async function reclaim(run) {
  const dataName = "s100";
  const cases = {
    none: { adapter: "near", size: "768mb", what: "cache-machine, 768 MiB, nothing is reclaimed" },
    overwritten: {
      adapter: "near",
      size: "64mb",
      what: "cache-machine, 64 MiB, only overwritten entries are reclaimed",
    },
    always: { adapter: "near", size: "8mb", what: "cache-machine, 8 MiB, less than the data" },
    lru: { adapter: "lru", what: "lru-cache, holds all" },
    "lru-small": { adapter: "lru", most: 40_000, what: "lru-cache, max: 40,000" },
  };
  const participants = {};
  for (const [id, { adapter, size, most }] of Object.entries(cases)) {
    if (!run.has(adapter)) continue;
    const participant = start(id);
    const context = { ...run.workspace.context(`reclaim-${id}`, size), most };
    await participant.ask("open", { adapter, context, dataName, orderFile: run.workspace.orderFile(dataName) });
    participants[id] = participant;
  }
  const results = { cases: Object.fromEntries(Object.entries(cases).map(([id, { what }]) => [id, what])) };
  const ours = Object.keys(participants).filter((id) => cases[id].adapter === "near");
  const stats = async () => {
    const all = await Promise.all(ours.map(async (id) => [id, await participants[id].ask("stats")]));
    return Object.fromEntries(all);
  };
  const after = {};
  results.set = await interleave(participants, "set", run);
  after.set = await stats();
  results.heavy = await interleave(participants, "heavy", run);
  after.heavy = await stats();
  const samples = run.quick ? 20_000 : 200_000;
  results.latency = await latencies(participants, "set", { rounds: run.rounds, samples: () => samples });
  after.latency = await stats();
  results.stats = after;
  await endOf(Object.values(participants));
  await run.workspace.sweep();
  return results;
}

/** Latency of a get and of a set: p50, p99, p99.9 and the maximum. */
export async function latency(run) {
  const dataName = "s100";
  const ids = [
    "near",
    "far",
    "threads",
    "map",
    "lru",
    "lmdb",
    "sqlite",
    "sqlite-builtin",
    "sharedmap",
    "redis",
    "memcached",
    "ipc",
  ];
  const { participants } = await filledAll(run, ids, dataName, { tag: "-latency" });
  const samples = (id) => (ADAPTERS[id].later ? 5_000 : 100_000) / (run.quick ? 10 : 1);
  const results = {};
  for (const workload of ["get", "set"]) {
    for (const participant of Object.values(participants)) await participant.ask("warm", { workload, ms: run.ms });
    results[workload] = await latencies(participants, workload, { rounds: Math.min(run.rounds, 5), samples });
  }
  await endOf(Object.values(participants));
  await run.workspace.sweep();
  return results;
}

/** Bytes per entry for 100,000 strings of 100 B under keys of 11 B, overhead included. */
export async function memory(run) {
  const dataName = "s100";
  const { keys: count } = DATA[dataName];
  const servers = await startServers(run.workspace.subfolder("memory"));
  const results = { count, entries: {} };
  try {
    const ids = ["near", "near-all", "far", "map", "lru", "lmdb", "sqlite", "sqlite-builtin", "redis", "memcached"];
    for (const id of ids.filter((id) => run.adapters.includes(id) && run.has(id))) {
      const size = "64mb";
      const context = { ...run.workspace.context(`memory-${id}`, size), sockets: servers.sockets };
      const resident = servers.pids[id] ? residentBytes(servers.pids[id]) : 0;
      const participant = start(`${id}, memory`);
      const { own, file, bytes } = await participant.ask("footprint", { adapter: id, context, dataName });
      const entry = { reach: ADAPTERS[id].reach };
      if (ADAPTERS[id].reach === "private") entry.each = own / count;
      else if (servers.pids[id]) entry.shared = (residentBytes(servers.pids[id]) - resident) / count;
      else if (bytes !== undefined) entry.live = bytes / count;
      else entry.shared = file / count;
      if (ADAPTERS[id].reach === "processes") {
        const reader = start(`${id}, reader`);
        entry.each = (await reader.ask("readingFootprint", { adapter: id, context, dataName })).own / count;
        await reader.end();
      }
      results.entries[id] = entry;
      await participant.end();
    }
    const participant = start("smallest");
    results.smallest = await participant.ask("smallest", { dataName });
    await participant.end();
  } finally {
    await servers.stop();
  }
  await run.workspace.sweep();
  return results;
}

function residentBytes(pid) {
  return Number(readFileSync(`/proc/${pid}/statm`, "utf8").split(" ")[1]) * 4096;
}

/** Time to load the package, to create a cache, to open an existing one, and of the first get; each in a fresh process. */
export async function opening(run) {
  const dataName = "s100";
  const key = "user:123456";
  const results = {};
  for (const id of ["near", "threads", "lru", "lmdb", "sqlite", "sqlite-builtin", "sharedmap", "redis", "memcached"]) {
    if (!run.adapters.includes(id) || !run.has(id)) continue;
    const size = "64mb";
    const host = start(`${id}, host`);
    const context = run.workspace.context(`opening-${id}`, size);
    const times = { load: [], create: [], attach: [], first: [] };
    await host.ask("open", { adapter: id, context, dataName, orderFile: run.workspace.orderFile(dataName) });
    await host.ask("fill");
    for (let round = 0; round < run.rounds; round++) {
      const creator = start(`${id}, creator`);
      const fresh = run.workspace.context(`opening-${id}-${round}`, size);
      const created = await creator.ask("opening", { adapter: id, context: fresh, dataName });
      if (ADAPTERS[id].module) times.load.push(created.load);
      times.create.push(created.open);
      await creator.end();
      if (ADAPTERS[id].reach === "processes") {
        const other = start(`${id}, other`);
        const attached = await other.ask("opening", { adapter: id, context, dataName, key });
        times.attach.push(attached.open);
        times.first.push(attached.first);
        await other.end();
      } else if (ADAPTERS[id].reach === "threads") {
        await host.ask("workers", { count: 1 });
        const attached = await host.worker(round).ask("opening", { adapter: id, context, dataName, key });
        times.attach.push(attached.open);
        times.first.push(attached.first);
      }
    }
    results[id] = Object.fromEntries(
      Object.entries(times).map(([name, all]) => [name, all.length ? median(all) : undefined]),
    );
    await host.end();
    await run.workspace.sweep();
  }
  return results;
}
