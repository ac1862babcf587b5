/** The page of the benchmark of the tier, from the results of run.mjs. */

import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { CONTENDERS } from "./contenders.mjs";
import { VALUES } from "./values.mjs";

const MIB = 2 ** 20;
const HERE = path.dirname(fileURLToPath(import.meta.url));
const PHASES = {
  peace: "In peace",
  killed:
    "A process of the readers' host is killed with SIGKILL and started again, three times: the one that listens to the server for the host, where there is one",
  cut: "The connections of the readers' host are cut, three times",
  frozen:
    "Nothing passes between the readers' host and the server, for @ ms, and no connection ends; then all connections of the host are cut",
  restarted: "The server is killed with SIGKILL, is away for @ ms, and starts again with all its data, twice",
};

function line(cells) {
  return `| ${cells.join(" | ")} |`;
}

function table(head, rows) {
  return [
    line(head),
    `|---|${head
      .slice(1)
      .map(() => "---:|")
      .join("")}`,
    ...rows.map(line),
  ].join("\n");
}

function label(name) {
  return CONTENDERS[name].ours ? `**${CONTENDERS[name].label}**` : CONTENDERS[name].label;
}

function mean(numbers) {
  return numbers.reduce((total, number) => total + number, 0) / numbers.length;
}

function count(number) {
  return Math.round(number).toLocaleString("en");
}

function percent(part) {
  return `${(part * 100).toLocaleString("en", { maximumFractionDigits: 2 })} %`;
}

function mib(bytes) {
  return `${(bytes / MIB).toFixed(0)} MiB`;
}

function ms(value) {
  return value < 10 ? value.toFixed(1) : count(value);
}

/** The versions of the packages that were measured, as they are installed. */
function versions() {
  const version = (folder) => {
    for (const place of [HERE, path.join(HERE, "../..")]) {
      try {
        return JSON.parse(readFileSync(path.join(place, "node_modules", folder, "package.json"), "utf8")).version;
      } catch {}
    }
    return "unknown";
  };
  const own = JSON.parse(readFileSync(path.join(HERE, "../../package.json"), "utf8"));
  const packages = new Set(Object.values(CONTENDERS).flatMap(({ packages = [] }) => packages));
  const names = [...packages].map((name) => `${name === "redis" ? "node-redis" : name} ${version(name)}`);
  return [`cache-machine ${own.version}`, ...names].join(", ");
}

function speed(kind, results, { writes, usualWrites, contenders }) {
  const rows = contenders.map((name) => [
    label(name),
    ...writes.map((part) => {
      const own = mean(results[name].map((round) => round[part].readsPerSecond));
      if (results.server === undefined) return count(own);
      const ratios = results[name].map(
        (round, i) => round[part].readsPerSecond / results.server[i][part].readsPerSecond,
      );
      return `${count(own)} (${mean(ratios).toFixed(1)} ×)`;
    }),
    ...["perRead", "serverPerRead"].map((field) =>
      mean(results[name].map((round) => round[usualWrites][field])).toFixed(1),
    ),
    mib(mean(results[name].map((round) => round.memory))),
    mib(mean(results[name].map((round) => round.serverMemory))),
  ]);
  const head = [
    VALUES[kind].label,
    ...writes.map((part) => `reads/s, ${percent(1 - part)} reads`),
    "processor per read, µs: hosts",
    "server",
    "memory of a host",
    "memory of the server",
  ];
  return table(head, rows);
}

function work({ memory, writes, contenders }, settings) {
  const totals = (name) => contenders[name].warm;
  const names = Object.keys(contenders);
  const ratio = (name, field) => {
    if (contenders["client-side"] === undefined) return "–";
    return `${((field(contenders[name]) / field(contenders["client-side"])) * 100).toFixed(1)} %`;
  };
  const rows = names.map((name) => {
    const { commands, total, reads, writes } = totals(name);
    const list = Object.entries(commands).sort(([, a], [, b]) => b - a);
    return [
      label(name),
      count(total),
      ratio(name, ({ warm }) => warm.total),
      count(total - writes),
      ratio(name, ({ warm }) => warm.total - warm.writes),
      ((total - writes) / reads).toFixed(4),
      list.map(([command, number]) => `${command} ${count(number)}`).join(", "),
      count(contenders[name].cold.total),
      ratio(name, ({ cold }) => cold.total),
    ];
  });
  const { reads, writes: written } = totals(names[0]);
  const head = [
    `${mib(memory)} per host, ${percent(1 - writes)} reads`,
    "commands",
    "of client-side",
    "without the writes themselves",
    "of client-side",
    "of these per read",
    "which",
    "cold",
    "of client-side",
  ];
  const room = memory === settings.plenty ? "Room for everything in each process. " : "";
  return `${room}${count(reads)} reads and ${count(written)} writes of the host:\n\n${table(head, rows)}`;
}

function staleness(phase, results, { seconds }) {
  const length = seconds * 3000;
  const title = PHASES[phase].replace("@", count(length * (phase === "frozen" ? 0.4 : 0.1)));
  const rows = Object.entries(results).map(([name, phases]) => {
    const { last, first, reads, missing, failed, skipped, longest, staleLater, absentLater, swept, unacknowledged } =
      phases[phase];
    const all = reads + missing + failed + skipped;
    return [
      label(name),
      ...[last.p50, last.p99, last.max].map(ms),
      ...(phase === "peace" ? [first.p50, first.p99].map(ms) : []),
      `${staleLater} of ${count(swept)}${absentLater > 0 ? ` (${absentLater} without an answer)` : ""}`,
      percent(reads / all),
      count(longest),
      count(unacknowledged),
    ];
  });
  const head = [
    "ms",
    "stale, p50",
    "p99",
    "max",
    ...(phase === "peace" ? ["new value seen, p50", "p99"] : []),
    `stale ${seconds} s after the last write`,
    "reads with a value",
    "longest read",
    "writes not acknowledged",
  ];
  return `### ${title}\n\n${table(head, rows)}`;
}

function micro(results) {
  const rows = results.map(({ node, rounds, lost, ns, ratio }) => [
    `Node.js ${node}`,
    `${ns["cache.get"].toFixed(1)} ns`,
    `${ns["tier.peek"].toFixed(1)} ns`,
    `**${ratio.peek.toFixed(2)}**`,
    `${ns["await cache.get"].toFixed(1)} ns`,
    `${ns["await tier.get"].toFixed(1)} ns`,
    `**${ratio.get.toFixed(2)}**`,
    count(rounds) + (lost > 0 ? ` (and ${count(lost)} in which the lease ended, not counted)` : ""),
  ]);
  const head = ["", "cache.get", "tier.peek", "ratio", "await cache.get", "await tier.get", "ratio", "rounds"];
  return table(head, rows);
}

export function report({ machine, date, settings, bytesOfOne, ...results }) {
  const { node, processor, cores, load } = machine;
  const { seconds, memory, keys, processes, pace, server } = settings;
  const parts = [
    "# Hosts with a server behind them",
    `Two simulated hosts of ${processes} processes each use one server, redis-server ${server}, on a Unix socket. A host of cache-machine is a cache of its own: ` +
      `one memory for its processes, three quarters of it shared, a quarter for the near caches. The others divide the same memory among the processes, by the number of values ` +
      `that fit, as measured. The keys are zipfian (exponent 0.99) over ${count(keys)}. Made by \`npm run bench:tier\` on ${date.slice(0, 10)} with Node.js ` +
      `${node.slice(1)} on ${cores} cores of ${processor}, which the hosts, the server and the measurement share (load average ${load.toFixed(1)} at the beginning): ` +
      "compare the rows, not the machines.",
    `Versions: ${versions()}.`,
  ];
  if (results.speed !== undefined) {
    parts.push(
      "## Reads per second",
      `All processes of both hosts together, as fast as they can for ${seconds} s, with ${mib(memory)} per host; means of ${settings.rounds} rounds, in which the ` +
        "contenders take turns, and multiples of the server alone in the same round. A process serves 8 requests at a time; a request reads or writes 10 values one after another, and " +
        `then the event loop turns. Before, each process has read ${count(keys)} times. Processor time is that of all threads, at ${percent(1 - settings.usualWrites)} reads: it tells costs apart also where other programs use the machine. Memory is the proportional set size of the processes of one host, with the code and heap of Node.js; pages that processes share count once.`,
      ...Object.entries(results.speed).map(([kind, rows]) => speed(kind, rows, settings)),
      `Bytes of one value in the heap: ${Object.entries(bytesOfOne)
        .filter(([, bytes]) => bytes > 0)
        .map(([name, bytes]) => `${name} ${count(bytes)}`)
        .join(", ")}.`,
    );
  }
  if (results.work !== undefined) {
    parts.push(
      "## Commands for the same work",
      `Each process does the same sequence of operations with every contender, ${count(pace)} per second, values of 1 KiB. Counted are the commands that one host of ${processes} processes ` +
        "sends, on the wire between the host and the server, so commands that a script runs within the server are not among them; upkeep (such as beats) is. The other host does as much. *Cold* is what the host sends " +
        `for the first ${count(seconds * 4 * pace)} reads of each process, after it has started empty; then each process reads ${count(seconds * 8 * pace)} more, and then the counted work begins.`,
      ...results.work.map((row) => work(row, settings)),
    );
  }
  if (results.staleness !== undefined) {
    const [first] = Object.values(results.staleness);
    parts.push(
      "## Staleness after a write on another host",
      `One process of a host writes a number every 10 ms, each under another of 256 keys in turns; the ${processes} processes of another host read these keys before they are written, just after, and at growing ` +
        `distances, about 2,000 reads a second each. *Stale* is, for each write and each reader: how long after the write was acknowledged the reader last began a read that answered an older value (0 if it never did). ` +
        "Clock: the monotonic one of the machine, which all processes share. *New value seen*: since the write began. A read that begins before the acknowledgement may answer either. A write that was not acknowledged may have happened, and demands nothing.",
      ...Object.keys(first).map((phase) => staleness(phase, results.staleness, settings)),
    );
  }
  if (results.micro !== undefined) {
    parts.push(
      "## What a read of what the host has costs",
      "In one process, slices of 50,000 reads in turns, objects of 100 B, 1,024 keys that are all near. The cache's entries are in a namespace and have a ttl, as those of the tier. Processor time, medians; the ratios are medians of ratios " +
        "of the same round.",
      micro(results.micro),
    );
  }
  return `${parts.join("\n\n")}\n`;
}
