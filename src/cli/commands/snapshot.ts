/** `export` and `import`: the entries of a cache in a file. Both open the cache as a participant. */

import type { Command } from "commander";
import type { Cache } from "../../cache/cache.ts";
import type { ImportResult } from "../../snapshot/options.ts";
import { type CommonOptions, type Context, split } from "../context.ts";
import { type ExitCode, Failure, FINE, FOUND, USAGE } from "../failure.ts";
import { bytes, count, duration, visible } from "../render.ts";
import { parseDuration } from "../values.ts";

interface ImportCommandOptions extends CommonOptions {
  readonly maxAge?: string;
  readonly size?: string;
}

/** Milliseconds between two reports of progress. */
const REPORT_MS = 200;

export function register(program: Command, context: Context): void {
  const command = (name: string, summary: string): Command =>
    context
      .command(name, "[cache] <file>", summary)
      .argument("[arguments...]", "name of the cache, if there are several, then the file; - is a pipe");
  program.addCommand(command("export", "write the entries of a cache to a file").action(context.action(exportTo)));
  program.addCommand(
    command("import", "add the entries of a file to a cache; what is there stays")
      .option("--max-age <time>", "add nothing from a file that is older, such as 90s, 5m, 7d")
      .option("--size <size>", "create the cache with this size if it does not exist, such as 64mb")
      .action(context.action(importFrom)),
  );
  const { output } = context;

  async function exportTo(args: readonly string[], options: CommonOptions): Promise<ExitCode> {
    const [name, target] = split(args, "file") as [string | undefined, string];
    const file = await context.find(name, options);
    const { exportCache, openCache } = await context.package();
    const cache = openCache(file.name, { path: file.directory, nearCache: 0 });
    const progress = reporter();
    try {
      const result = await exportCache(cache, target === "-" ? process.stdout : target, {
        signal: context.interruption,
        onProgress: ({ entries, total }) => progress(`${count(entries)}${total ? ` of ${count(total)}` : ""} entries`),
      });
      progress();
      if (target === "-") return FINE;
      if (options.json) await output.json({ name: file.name, file: target, ...result });
      else {
        const skipped = result.skipped > 0 ? `, ${count(result.skipped)} damaged ones left out` : "";
        await output.lines(
          `exported ${count(result.entries)} entries to ${visible(target)}, ${bytes(result.bytes)}${skipped}`,
        );
      }
      return result.skipped > 0 ? FOUND : FINE;
    } finally {
      cache.close();
    }
  }

  async function importFrom(args: readonly string[], options: ImportCommandOptions): Promise<ExitCode> {
    const [name, source] = split(args, "file") as [string | undefined, string];
    const maxAge = options.maxAge === undefined ? Infinity : parseDuration(options.maxAge, "--max-age");
    const { importCache } = await context.package();
    const cache = await target(name, options);
    const progress = reporter();
    try {
      const result = await importCache(cache, source === "-" ? process.stdin : source, {
        maxAge,
        signal: context.interruption,
        onProgress: ({ entries, bytes: read, total }) =>
          progress(`${count(entries)} entries, ${bytes(read)}${total ? ` of ${bytes(total)}` : ""}`),
      });
      progress();
      if (options.json) await output.json({ ...result, name: result.name ?? null });
      else await output.lines(sentenceOf(result));
      return result.damaged > 0 || result.truncated || result.outdated ? FOUND : FINE;
    } finally {
      cache.close();
    }
  }

  /** Opens the cache that the entries are added to. With a size it may be a new one. */
  async function target(name: string | undefined, options: ImportCommandOptions): Promise<Cache> {
    const { openCache } = await context.package();
    if (options.size === undefined) {
      const file = await context.find(name, options);
      return openCache(file.name, { path: file.directory, nearCache: 0 });
    }
    if (name === undefined) throw new Failure(USAGE, "cache: say by which name --size is to create it.");
    return openCache(name, { path: options.path, size: options.size, nearCache: 0 });
  }

  /** Prints how far it is, on one line of a terminal; called without a text, removes that line. */
  function reporter(): (text?: string) => void {
    let last = performance.now();
    let printed = false;
    return (text) => {
      if (!process.stderr.isTTY) return;
      const now = performance.now();
      if (text === undefined) {
        if (printed) process.stderr.write("\r\x1b[K");
      } else if (now - last >= REPORT_MS) {
        process.stderr.write(`\r\x1b[K${text}`);
        [last, printed] = [now, true];
      }
    };
  }
}

function sentenceOf(result: ImportResult): string {
  const age = duration(Math.max(0, Date.now() - result.createdAt));
  if (result.outdated) return `imported nothing: the file is ${age} old`;
  const others: [number, string][] = [
    [result.present, "were there already"],
    [result.expired, "have expired"],
    [result.full, "found no room"],
    [result.tooLarge, "are too large"],
    [result.busy, "were in use"],
    [result.evicted, "were evicted meanwhile"],
    [result.damaged, "blocks are damaged"],
  ];
  const words = others.filter(([number]) => number > 0).map(([number, what]) => `${count(number)} ${what}`);
  if (result.truncated) words.push("the file ends too early");
  return [`imported ${count(result.entries)} entries, ${age} old`, ...words].join("; ");
}
