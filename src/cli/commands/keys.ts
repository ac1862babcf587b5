/** `keys`, `big` and `hot`: which entries there are. */

import type { Command } from "commander";
import type { KeyReport } from "../../inspect/reports.ts";
import type { CommonOptions, Context } from "../context.ts";
import { bytes, type Column, duration, showPath, table, visible } from "../render.ts";
import { collect, keyJson, parseCount } from "../values.ts";

interface KeysOptions extends CommonOptions {
  readonly prefix?: string;
  readonly namespace?: readonly string[];
  readonly limit?: string;
  readonly long?: boolean;
}

export function register(program: Command, context: Context): void {
  const command = (name: string, summary: string): Command =>
    context
      .command(name, "[cache]", summary)
      .argument("[cache]", "name of the cache")
      .option("--prefix <text>", "only string keys that begin with this")
      .option("--namespace <name>", "only keys of this namespace; once for each level, the outermost first", collect);
  program.addCommand(
    command("keys", "list the keys")
      .option("-l, --long", "with size, heat, time to live, type and tags")
      .option("-n, --limit <count>", "no more than so many")
      .action(context.action(keys)),
  );
  program.addCommand(
    command("big", "list the entries that take the most bytes")
      .option("-n, --limit <count>", "how many", "20")
      .action(context.action((name, options) => most(name, options, (a, b) => b.bytes - a.bytes))),
  );
  program.addCommand(
    command("hot", "list the entries that were read most lately")
      .option("-n, --limit <count>", "how many", "20")
      .action(context.action((name, options) => most(name, options, (a, b) => rank(b) - rank(a)))),
  );
  const { output } = context;

  async function keys(name: string | undefined, options: KeysOptions): Promise<void> {
    const limit = options.limit === undefined ? Infinity : parseCount(options.limit, "--limit");
    await context.look(name, options, async (spectator) => {
      const found: KeyReport[] = [];
      let seen = 0;
      for (const report of spectator.keys(filterOf(options))) {
        if (seen++ >= limit) break;
        if (options.json) await output.json(documentOf(report));
        else if (options.long) found.push(report);
        else await output.lines(showPath(report.namespace, report.key));
      }
      if (options.long && !options.json) await print(found);
    });
  }

  /** Prints the first ones in the order of `compare`. Keeps no more than twice as many in memory. */
  async function most(
    name: string | undefined,
    options: KeysOptions,
    compare: (a: KeyReport, b: KeyReport) => number,
  ): Promise<void> {
    const limit = parseCount(options.limit ?? "20", "--limit");
    await context.look(name, options, async (spectator) => {
      let found: KeyReport[] = [];
      const shorten = () => (found = found.sort(compare).slice(0, limit));
      for (const report of spectator.keys(filterOf(options))) {
        found.push(report);
        if (found.length >= 2 * limit + 1000) shorten();
      }
      shorten();
      if (options.json) await output.json(found.map(documentOf));
      else await print(found);
    });
  }

  function print(reports: readonly KeyReport[]): Promise<void> {
    return output.lines(...table(COLUMNS, reports.map(rowOf), { width: output.width, title: output.colours.bold }));
  }
}

const COLUMNS: readonly Column[] = [
  { title: "key", shrinks: true },
  { title: "bytes", align: "right" },
  { title: "heat" },
  { title: "expires in", align: "right" },
  { title: "type" },
  { title: "tags", shrinks: true },
];

/** The entries that survive eviction the longest come first. Of two that are as hot, the larger one. */
function rank({ heat, class: kind, bytes: size }: KeyReport): number {
  return heat * 2 + Number(kind === "main") + size / 2 ** 40;
}

function filterOf({ prefix, namespace }: KeysOptions): { prefix?: string; namespace?: readonly string[] } {
  return { ...(prefix !== undefined && { prefix }), ...(namespace !== undefined && { namespace }) };
}

/** A report as JSON: `ttl` is null for an entry that does not expire. */
export function documentOf(report: KeyReport): object {
  const { key, namespace, bytes: size, heat, class: kind, ttl, tags, valueType } = report;
  const left = ttl === Infinity ? null : ttl;
  return { key: keyJson(key), namespace, bytes: size, heat, class: kind, ttl: left, tags, type: valueType };
}

function rowOf({ key, namespace, bytes: size, heat, class: kind, ttl, tags, valueType }: KeyReport): string[] {
  const heatText = `${"▮".repeat(heat)}${"▯".repeat(3 - heat)} ${kind}`;
  return [showPath(namespace, key), bytes(size), heatText, duration(ttl), valueType, tags.map(visible).join(" ")];
}
