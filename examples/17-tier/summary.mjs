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
  const meanwhile = books.staleness(owner.at - lease, owner.at + 2 * lease);

  const lines = [
    ["reads", `${count(reads)}: ${percent(sum(({ memory }) => memory) / reads)} from the hosts' memory,`],
    [
      "",
      `${count(sum(({ server }) => server))} from the server, ${count(sum(({ source }) => source))} from the database`,
    ],
    ["server", `${count(commands)} commands in all, one for ${count(reads / commands)} reads`],
    ["writes", `${books.writes} confirmed, ${books.refused.length} refused while the server was away`],
    ["staleness", `p50 ${ms(quantile(stale, 0.5))}, p99 ${ms(quantile(stale, 0.99))}, max ${ms(stale.at(-1) ?? 0)}`],
    ["", `while an owner died: max ${ms(meanwhile.at(-1) ?? 0)}`],
    ["", `(${count(stale.length)} times a process after a write; the bound is ${ms(lease)})`],
    ["take-over", `${ms(owner.took)} after the kill`],
    ["server away", `${ms(away.lasted)}: ${count(away.memory)} reads from memory, ${count(away.source)} from the`],
    ["", `database, none failed; all hosts hear the server again after ${ms(away.recovered)}`],
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
