/** `ls`: the caches of a directory, with those that this build cannot open. */

import type { Command } from "commander";
import type { CacheFile } from "../../inspect/files.ts";
import type { CommonOptions, Context } from "../context.ts";
import { bytes, type Column, count, duration, table, visible } from "../render.ts";

const COLUMNS: readonly Column[] = [
  { title: "name", shrinks: true },
  { title: "size", align: "right" },
  { title: "open in", align: "right" },
  { title: "age", align: "right" },
  { title: "state", shrinks: true },
];

const DOCUMENT_KEYS = ["name", "path", "size", "state", "reason", "users", "uid", "ours", "layout", "boot"] as const;

export function register(program: Command, context: Context): void {
  const { output } = context;
  program.addCommand(
    context.command("ls", "", "list the caches").action(
      context.action(async (options: CommonOptions) => {
        const { listCaches } = await context.inspect();
        const files = listCaches(options.path);
        if (options.json) {
          await output.json(files.map(documentOf));
          return;
        }
        if (files.length === 0) {
          context.note(`There is no cache in ${options.path ?? "/dev/shm"}.`);
          return;
        }
        const { bold } = output.colours;
        const now = Date.now();
        await output.lines(
          ...table(
            COLUMNS,
            files.map((file) => rowOf(file, now)),
            { width: output.width, title: bold },
          ),
        );
      }),
    ),
  );
}

function documentOf(file: CacheFile): object {
  const { modified, bells } = file;
  const pairs = DOCUMENT_KEYS.map((key) => [key, file[key] ?? null]);
  return { ...Object.fromEntries(pairs), modified: modified.toISOString(), bells: bells.length };
}

function rowOf(file: CacheFile, now: number): string[] {
  const threads = file.users === undefined ? "?" : `${count(file.users)} ${file.users === 1 ? "thread" : "threads"}`;
  const age = file.identity === undefined ? "-" : duration(now - file.modified.getTime());
  return [visible(file.name), bytes(file.size), threads, age, visible(stateOf(file))];
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
