/** `ls` and `rm`: the files of caches in a directory, those that this build cannot open included. */

import type { Command } from "commander";
import type { CacheFile } from "../../inspect/files.ts";
import type { CommonOptions, Context } from "../context.ts";
import { type ExitCode, Failure, FINE, FOUND, UNABLE, USAGE } from "../failure.ts";
import { bytes, type Column, count, duration, table, visible } from "../render.ts";

interface RemoveOptions extends CommonOptions {
  readonly allStale?: boolean;
  readonly dryRun?: boolean;
  readonly force?: boolean;
}

export function register(program: Command, context: Context): void {
  program.addCommand(context.command("ls", "", "list the caches").action(context.action(ls)));
  program.addCommand(
    context
      .command("rm", "[cache...]", "remove caches")
      .argument("[cache...]", "names of caches")
      .option(
        "--all-stale",
        "remove what no program can open any more: old layouts, earlier boots, bells without a cache",
      )
      .option("--dry-run", "only print what would be removed")
      .option("--force", "remove caches that somebody has open too")
      .action(context.action(rm)),
  );
  const { output } = context;

  async function ls(options: CommonOptions): Promise<void> {
    const { listCaches } = await context.inspect();
    const files = listCaches(options.path);
    if (options.json) return output.json(files.map(documentOf));
    if (files.length === 0) return context.note(`There is no cache in ${options.path ?? "/dev/shm"}.`);
    const now = Date.now();
    const rows = files.map((file) => rowOf(file, now));
    await output.lines(...table(COLUMNS, rows, { width: output.width, title: output.colours.bold }));
  }

  async function rm(names: readonly string[], options: RemoveOptions): Promise<ExitCode> {
    if (names.length > 0 === (options.allStale === true)) {
      throw new Failure(USAGE, "cache: say which one to remove by its name, or use --all-stale.");
    }
    const { listCaches, removeFile } = await context.inspect();
    const files = listCaches(options.path);
    const wanted = options.allStale ? files.filter(isStale) : names.flatMap((name) => named(files, name, options));
    const documents: object[] = [];
    let exitCode: ExitCode = FINE;
    for (const file of wanted) {
      const { result, code } = remove(file, options, removeFile);
      if (code !== FINE) exitCode = code;
      documents.push({ ...documentOf(file), ...result });
      if (!options.json) await output.lines(sentenceOf(file, result));
    }
    if (options.json) await output.json(documents);
    else if (wanted.length === 0) context.note("There is nothing to remove.");
    return exitCode;
  }
}

const COLUMNS: readonly Column[] = [
  { title: "name", shrinks: true },
  { title: "size", align: "right" },
  { title: "open in", align: "right" },
  { title: "age", align: "right" },
  { title: "state", shrinks: true },
];

const DOCUMENT_KEYS = ["name", "path", "size", "state", "reason", "users", "uid", "ours", "layout", "boot"] as const;

function documentOf(file: CacheFile): object {
  const { modified, bells } = file;
  const pairs = DOCUMENT_KEYS.map((key) => [key, file[key] ?? null]);
  return { ...Object.fromEntries(pairs), modified: modified.toISOString(), bells: bells.length };
}

const threads = (users: number): string => `${count(users)} ${users === 1 ? "thread" : "threads"}`;

function rowOf(file: CacheFile, now: number): string[] {
  const users = file.users === undefined ? "?" : threads(file.users);
  const age = file.identity === undefined ? "-" : duration(now - file.modified.getTime());
  return [visible(file.name), bytes(file.size), users, age, visible(stateOf(file))];
}

/** The state in words. A good cache of this user needs none but `ok`. */
function stateOf({ state, reason, ours, uid, layout, bells }: CacheFile): string {
  const words: string[] = [];
  if (!ours) words.push(`of the user ${uid}`);
  if (state === "stale layout") words.push(`layout ${layout}, of another version of the package`);
  else if (state === "other boot") words.push("of an earlier boot");
  else if (state === "foreign") words.push("no cache");
  else if (state === "no file") words.push(`${bells.length} bells without a cache`);
  if (reason !== undefined) words.push(reason);
  return words.length === 0 ? "ok" : words.join(", ");
}

/** What `--all-stale` is about: no program of this build opens it. What merely has the name of a cache is left to people. */
function isStale({ state, ours }: CacheFile): boolean {
  return ours && (state === "stale layout" || state === "other boot" || state === "no file");
}

/**
 * The file that a name means: the cache that this build opens by it. Files of the same name with other layouts stay.
 *
 * @throws {Failure} when there is none.
 */
function named(files: readonly CacheFile[], name: string, { path }: RemoveOptions): CacheFile[] {
  const same = files.filter((file) => file.name === name);
  const current = same.filter(({ state, ours }) => ours && (state === "current" || state === "foreign"));
  if (current.length > 0) return current;
  const others = same.length === 0 ? "" : ` Others have this name: ${same.map(stateOf).join("; ")}. See --all-stale.`;
  throw new Failure(
    FOUND,
    `cache: there is no cache "${name}" of this user and layout in ${path ?? "/dev/shm"}.${others || " `cache-machine ls` lists them."}`,
  );
}

interface Result {
  readonly removed: boolean;
  /** Why it was not removed. */
  readonly kept?: string;
}

function remove(
  file: CacheFile,
  { dryRun, force }: RemoveOptions,
  removeFile: (file: CacheFile) => boolean,
): { result: Result; code: ExitCode } {
  const inUse = file.users === undefined ? file.state === "current" || file.state === "stale layout" : file.users > 0;
  if (inUse && !force) {
    const who = file.users === undefined ? "it cannot be known who has it open" : `open in ${threads(file.users)}`;
    return { result: { removed: false, kept: `${who}; --force removes it all the same` }, code: UNABLE };
  }
  if (dryRun) return { result: { removed: false, kept: "dry run" }, code: FINE };
  try {
    const removed = removeFile(file);
    return { result: removed ? { removed } : { removed, kept: "it had gone or was replaced meanwhile" }, code: FINE };
  } catch (error) {
    return { result: { removed: false, kept: (error as Error).message }, code: UNABLE };
  }
}

function sentenceOf(file: CacheFile, { removed, kept }: Result): string {
  const what = `${visible(file.name)}  ${bytes(file.size)}  ${visible(file.path)}`;
  if (removed) return `removed  ${what}`;
  return kept === "dry run" ? `would remove  ${what}` : `kept  ${what}: ${visible(kept ?? "")}`;
}
