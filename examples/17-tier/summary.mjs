/** Judges the run, and prints what was measured. */

import { readsOf } from "./hosts.mjs";
import { quantile } from "./measure.mjs";
import { count, ms, percent } from "./screen.mjs";

/** Prints the summary; whether all promises were kept. */
export function printSummary(screen, { books, hosts, commands, owner, away, lease }) {
  const all = hosts.processes;
  const sum = (of) => all.reduce((total, one) => total + of(one), 0);
  const reads = sum(readsOf);
  const stale = books.staleness();
  /** The stalest read from a moment on, and from a lease before. */
  const stalest = (from, to) => ms(books.staleness(from - lease, to).at(-1) ?? 0);
  const back = away.at + away.lasted + away.recovered;

  const lines = [
    [
      "reads",
      `${count(reads)}: ${percent(sum(({ memory }) => memory) / reads)} from the hosts' memory, ${count(sum(({ server }) => server))} from the`,
    ],
    ["", `server, ${count(sum(({ source }) => source))} from the database`],
    ["server", `${count(commands)} commands in all, one for ${count(reads / commands)} reads`],
    ["writes", `${books.writes} confirmed, ${books.refused.length} refused while the server was away`],
    [
      "staleness",
      `p50 ${ms(quantile(stale, 0.5))}, p99 ${ms(quantile(stale, 0.99))}, max ${ms(stale.at(-1) ?? 0)}; the bound is ${ms(lease)}`,
    ],
    ["", `(after ${books.writes} writes, in each process)`],
    ["", `while an owner was killed: max ${stalest(owner.at, owner.at + lease)}`],
    ["", `while the server was killed and came back: max ${stalest(away.at, back + lease)}`],
    ["take-over", `${ms(owner.took)} after the kill of an owner`],
    ["server away", `${ms(away.lasted)}, with ${count(away.memory)} reads from memory and`],
    ["", `${count(away.source)} from the database; all well ${ms(away.recovered)} after its start`],
  ];
  screen.print("", ...lines.map(([name, text]) => `  ${screen.bold(name.padEnd(12))} ${text}`), "");

  const alive = hosts.alive();
  const promises = [
    ["No read was staler than the bound", stale.length > 0 && (stale.at(-1) ?? 0) <= lease],
    ["All processes see the last write", alive.every(({ version }) => version === hosts.version)],
    [
      "Every host has one owner again",
      ["A", "B"].every((host) => alive.filter((one) => one.host === host && one.owns).length === 1),
    ],
    ["Writes that were refused said ERR_UNREACHABLE", books.refused.every((code) => code === "ERR_UNREACHABLE")],
    ["No read failed", sum(({ failed }) => failed) === 0],
  ];
  for (const [promise, kept] of promises) {
    screen.print(kept ? `  ${screen.green("✓")} ${promise}` : `  ${screen.red(`✗ ${promise}`)}`);
  }
  return promises.every(([, kept]) => kept);
}
