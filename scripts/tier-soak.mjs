/**
 * Runs simulated hosts with a tier on a real server for as long as you like, and breaks everything that can break: see
 * test/tier/fire.mjs. Each round has hosts, a server and a history of its own, which is checked. The first violation ends the run with
 * exit code 1, and says what was read and which faults were near. Nothing is left behind.
 *
 *   npm run soak:tier -- --minutes 30 --seed 7
 *   npm run soak:tier -- --minutes 60 --ownerKills 200 --connections 100 --restarts 20 --log tier.jsonl
 *   npm run soak:tier -- --seed 12 --first 7 --only network     (repeats the plan of a round that failed: all this is in the message)
 */
import { appendFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { fire } from "../test/tier/fire.mjs";
import { SERVERS } from "../test/tier/servers.mjs";

const KINDS = {
  everything: { hosts: 3 },
  deaths: { network: false, processes: 4, pace: 3, gap: 0.5 },
  network: { deaths: false, hosts: 3 },
  losses: { losses: true },
  cluster: { nodes: 3 },
  "one-flight": { flights: "all" },
  "one-flight-peace": { flights: "all", deaths: false, network: false, hosts: 3 },
  "short-lease": { lease: 400, timeout: 400 },
  "long-timeout": { lease: 400, timeout: 1_500 },
};
/** The numbers that are added up over the rounds. */
const SUMS = [
  ...[
    "ownerKills",
    "kills",
    "terminations",
    "freezes",
    "cuts",
    "delays",
    "stalls",
    "restarts",
    "losses",
    "pauses",
    "steps",
  ],
  ...["reads", "writes", "loads", "unknown", "excused"],
];

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 1e9)) },
    /** Seconds of a round, before its history is checked. */
    round: { type: "string", default: "20" },
    /** The number of the first round. The clients and the servers of a round follow from its number. */
    first: { type: "string", default: "0" },
    /** One kind of round only, by its name. */
    only: { type: "string" },
    /** `redis` or `valkey`; by default the rounds take turns. */
    server: { type: "string" },
    /** The clients of the hosts. */
    clients: { type: "string", default: "redis,ioredis,iovalkey,redis5,ioredis6" },
    /** The run also ends when all three counts are reached. */
    ownerKills: { type: "string", default: "Infinity" },
    /** Connections that were cut, delayed or held back. */
    connections: { type: "string", default: "Infinity" },
    restarts: { type: "string", default: "Infinity" },
    /** A file to which a line of JSON is appended for each round. */
    log: { type: "string" },
  },
});
const minutes = Number(values.minutes);
const seconds = Number(values.round);
const seed = Number(values.seed);
const first = Number(values.first);
const wanted = ["ownerKills", "connections", "restarts"].map((name) => [name, Number(values[name])]);
const servers = SERVERS.filter(({ name }) => values.server === undefined || name === values.server);
if (
  !(minutes > 0) ||
  !(seconds >= 1) ||
  !Number.isSafeInteger(seed) ||
  !(Number.isSafeInteger(first) && first >= 0) ||
  !wanted.every(([, count]) => count >= 0) ||
  servers.length === 0 ||
  (values.only !== undefined && KINDS[values.only] === undefined)
) {
  console.error(
    "usage: npm run soak:tier -- [--minutes N] [--seed S] [--first N] [--round SECONDS] [--only KIND] [--server redis|valkey]\n" +
      "                            [--clients LIST] [--ownerKills N] [--connections N] [--restarts N] [--log FILE]\n" +
      `kinds: ${Object.keys(KINDS).join(" ")}`,
  );
  process.exit(2);
}

const started = performance.now();
const elapsed = () => (performance.now() - started) / 60_000;
let interrupted = false;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    interrupted = true;
  });
}

const total = { rounds: 0, connections: 0, ...Object.fromEntries(SUMS.map((name) => [name, 0])) };
const staleness = { p99: 0, max: 0, maxOfLease: 0 };
const clients = values.clients.split(",");
const names = values.only === undefined ? Object.keys(KINDS) : [values.only];
const isEnough = () => wanted.every(([name, count]) => total[name] >= count);
const line = () =>
  [
    `${elapsed().toFixed(1)} of ${minutes} min`,
    ...Object.entries(total).map(([name, count]) => `${count} ${name}`),
  ].join(" │ ");

console.log(
  `--seed ${seed} --minutes ${minutes} --round ${seconds}; ${servers.map(({ name, version }) => `${name} ${version}`)}`,
);
while (!interrupted && elapsed() < minutes && !isEnough()) {
  const round = first + total.rounds++;
  const name = names[round % names.length];
  const plan = { lease: 1_000, timeout: 1_000, ...KINDS[name], seed: seed + round - first, ms: seconds * 1_000 };
  // Each round begins with another client, so that each client meets each kind of round.
  plan.libraries = clients.map((_, i) => clients[(i + round) % clients.length]);
  plan.server = servers[round % servers.length];
  const { history, violations, stats, ...found } = await fire(plan);
  for (const sum of SUMS) total[sum] += found[sum];
  total.connections += found.cuts + found.delays + found.stalls;
  staleness.p99 = Math.max(staleness.p99, found.staleness.p99);
  staleness.max = Math.max(staleness.max, found.staleness.max);
  staleness.maxOfLease = Math.max(staleness.maxOfLease, found.staleness.max / plan.lease);
  if (values.log !== undefined) {
    appendFileSync(
      values.log,
      `${JSON.stringify({ kind: name, server: plan.server.name, ...found, violations: violations.length })}\n`,
    );
  }
  const { max, worst } = found.staleness;
  console.log(`${line()} │ ${name}: staleness ${max.toFixed(0)} ms of ${plan.lease}`);
  // Allowed, as far as the measurement is inexact.
  if (max > plan.lease) console.log(`  ${JSON.stringify(worst)}`);
  if (violations.length > 0) {
    console.error(
      `${violations.length} violations; again: --seed ${plan.seed} --first ${round} --only ${name} --round ${seconds} --clients ${clients} --server ${plan.server.name}`,
    );
    for (const { faults = [], story = [], ...violation } of violations.slice(0, 5)) {
      console.error(JSON.stringify(violation, null, 2));
      for (const fault of faults) if (fault.what !== "blocked") console.error(`  fault ${JSON.stringify(fault)}`);
      for (const event of story.slice(-60)) console.error(`  ${event}`);
    }
    process.exit(1);
  }
}
console.log(
  `no violation; staleness at most ${staleness.max.toFixed(0)} ms, ${(staleness.maxOfLease * 100).toFixed(0)} % of the lease`,
);
