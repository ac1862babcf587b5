/** `stat`: the counters of a cache, once or as a line for each interval. */

import type { Command } from "commander";
import type { Spectator } from "../../inspect/spectator.ts";
import { type CommonOptions, type Context, split } from "../context.ts";
import { bytes, type Column, count, list, percent, row, visible } from "../render.ts";
import { parseCount, parseSeconds } from "../values.ts";

interface StatOptions extends CommonOptions {
  readonly interval?: string;
  readonly count?: string;
}

type Numbers = ReturnType<Spectator["stats"]>;

export function register(program: Command, context: Context): void {
  program.addCommand(
    context
      .command("stat", "[cache]", "print the counters of a cache")
      .argument("[cache]", "name of the cache")
      .option("-i, --interval <seconds>", "print a line with the differences for each interval")
      .option("-n, --count <lines>", "end after so many lines; with an interval of 1 s by default")
      .action(context.action(stat)),
  );
  const { output } = context;

  async function stat(name: string | undefined, options: StatOptions): Promise<void> {
    const [cache] = split(name === undefined ? [] : [name]);
    const repeats = options.interval !== undefined || options.count !== undefined;
    const ms = parseSeconds(options.interval ?? "1", "--interval");
    const lines = options.count === undefined ? Infinity : parseCount(options.count, "--count");
    await context.look(cache, options, async (spectator, file) => {
      if (repeats) return follow(spectator, ms, lines, options.json === true);
      const stats = spectator.stats();
      const { entries, bytes: taken, namespaced } = spectator.census();
      if (options.json) {
        await output.json({ name: file.name, path: file.path, ...stats, entries, bytes: taken, namespaced });
        return;
      }
      const pairs: [string, string][] = [
        ["cache", visible(file.name)],
        ["file", visible(file.path)],
        ["size", `${bytes(stats.size)}, of which entries can take ${bytes(stats.capacity)}`],
        ["in use", `${bytes(stats.used)} (${percent(stats.used / stats.capacity)})`],
        [
          "entries",
          `${count(entries)} with ${bytes(taken)}${namespaced > 0 ? `, ${count(namespaced)} in namespaces` : ""}`,
        ],
        ["participants", `${count(stats.participants)} of at most ${count(stats.seats)}`],
        ["hits", `${count(stats.hits)} (${percent(hitShare(stats))}), ${count(stats.nearHits)} of them near`],
        ["misses", count(stats.misses)],
        ["sets", count(stats.sets)],
        ["deletes", count(stats.deletes)],
        ["evictions", count(stats.evictions)],
        ["expirations", count(stats.expirations)],
        ["reclaims", `${count(stats.reclaims)}, ${count(stats.compactions)} of them compactions`],
      ];
      await output.lines(...list(pairs, output.colours.bold));
    });
  }

  /** Prints a line for each interval until the count is reached, the reader has gone, or Ctrl-C. */
  async function follow(spectator: Spectator, ms: number, lines: number, json: boolean): Promise<void> {
    const columns: Column[] = COLUMNS.map(([title, width]) => ({ title: title.padStart(width), align: "right" }));
    const widths = COLUMNS.map(([, width]) => width);
    const titles = output.colours.bold(
      row(
        columns.map(({ title }) => title),
        columns,
        widths,
        output.width,
      ),
    );
    let before = spectator.stats();
    let at = performance.now();
    for (let line = 0; line < lines; line++) {
      if (!(await context.pause(ms))) return;
      const now = spectator.stats();
      const time = performance.now();
      const seconds = (time - at) / 1000;
      if (json) await output.json({ at: new Date().toISOString(), seconds, ...differences(before, now) });
      else {
        // The titles come again before they have left the screen.
        if (line % Math.max(2, Math.min(25, output.rows - 2)) === 0) await output.lines(titles);
        await output.lines(row(cellsOf(differences(before, now), now, seconds), columns, widths, output.width));
      }
      await output.flush();
      [before, at] = [now, time];
    }
  }
}

const COUNTERS = [
  "hits",
  "nearHits",
  "misses",
  "sets",
  "deletes",
  "evictions",
  "expirations",
  "reclaims",
  "compactions",
] as const;

/** The columns of a line, with their widths. */
const COLUMNS: readonly (readonly [title: string, width: number])[] = [
  ["hits/s", 11],
  ["misses/s", 9],
  ["hit", 7],
  ["sets/s", 9],
  ["dels/s", 7],
  ["evict/s", 8],
  ["used", 8],
  ["open", 5],
];

const hitShare = ({ hits, misses }: { hits: number; misses: number }): number => hits / (hits + misses);

/** What has happened between two looks, with the memory and the participants of the second one. */
function differences(before: Numbers, now: Numbers): Numbers {
  const changed = Object.fromEntries(COUNTERS.map((name) => [name, now[name] - before[name]]));
  return { ...now, ...changed };
}

function cellsOf(change: Numbers, now: Numbers, seconds: number): string[] {
  const rate = (number: number): string => count(number / seconds);
  const { hits, misses, sets, deletes, evictions } = change;
  return [
    ...[rate(hits), rate(misses), percent(hitShare(change)), rate(sets), rate(deletes), rate(evictions)],
    ...[percent(now.used / now.capacity), count(now.participants)],
  ];
}
