/** `get`, `ttl`, `watch`, which look, and `set`, `del`, which open the cache as a participant: one entry. */

import { readFileSync } from "node:fs";
import type { Command } from "commander";
import type { Cache } from "../../cache/cache.ts";
import type { SetOptions } from "../../cache/options.ts";
import type { EntryReport } from "../../inspect/reports.ts";
import type { Spectator } from "../../inspect/spectator.ts";
import { type CommonOptions, type Context, split } from "../context.ts";
import { type ExitCode, Failure, FINE, FOUND, USAGE } from "../failure.ts";
import { duration, showKey } from "../render.ts";
import {
  collect,
  collectTags,
  type KeyOptions,
  keyJson,
  parseDuration,
  parseKey,
  parseSeconds,
  showBriefly,
  showValue,
  valueJson,
} from "../values.ts";
import { documentOf } from "./keys.ts";

type EntryOptions = CommonOptions & KeyOptions;

interface GetOptions extends EntryOptions {
  readonly raw?: boolean;
  readonly long?: boolean;
}

interface StoreOptions extends EntryOptions {
  readonly text?: boolean;
  readonly ttl?: string;
  readonly tags?: readonly string[];
}

interface WatchOptions extends EntryOptions {
  readonly interval?: string;
}

export function register(program: Command, context: Context): void {
  const command = (name: string, usage: string, summary: string): Command =>
    context
      .command(name, usage, summary)
      .argument("[arguments...]", "name of the cache, if there are several, then the rest")
      .option("--namespace <name>", "namespace of the key; once for each level, the outermost first", collect)
      .option("--base64", "the key is bytes, written as base64");
  program.addCommand(
    command("get", "[cache] <key>", "print the value of a key; exit code 1 when it is absent")
      .option("--raw", "print a string or bytes as they are, without a line break")
      .option("-l, --long", "with size, heat, time to live, tags and version")
      .action(context.action(get)),
  );
  program.addCommand(
    command("set", "[cache] <key> <value>", "store a value, which is JSON; - reads it from the standard input")
      .option("--text", "the value is a text and no JSON")
      .option("--ttl <time>", "time to live, such as 500ms, 90s, 5m, 1h30m; never")
      .option("--tags <tags>", "tags of the entry, separated by commas", collectTags)
      .action(context.action(set)),
  );
  program.addCommand(
    command("del", "[cache] <key>", "remove an entry; exit code 1 when it is absent").action(context.action(del)),
  );
  program.addCommand(
    command("ttl", "[cache] <key>", "print when an entry expires; exit code 1 when it is absent").action(
      context.action(ttl),
    ),
  );
  program.addCommand(
    command("watch", "[cache] <key>", "print the value of a key, and each change of it")
      .option("-i, --interval <seconds>", "how often to look", "0.1")
      .action(context.action(watch)),
  );
  const { output } = context;

  async function get(args: readonly string[], options: GetOptions): Promise<ExitCode> {
    const [cache, key] = keyOf(args, options);
    return context.look(cache, options, async (spectator) => {
      const entry = find(spectator, key, options);
      if (entry === undefined) return absent(key);
      const value = entry.foreign ? entry.value : entry.decode();
      if (options.raw) {
        await output.raw(rawOf(value));
        return FINE;
      }
      if (options.json) {
        const document = { ...documentOf(entry), version: entry.version, value: valueJson(value) };
        await output.json(options.long ? document : document.value);
        return FINE;
      }
      if (entry.foreign) context.note("The application's own codec has encoded this value: these are its bytes.");
      await output.lines(...showValue(value, output.width));
      if (options.long) {
        const { bytes, heat, class: kind, tags, version } = entry;
        await output.lines(
          ...showValue({ bytes, heat, class: kind, expiresIn: duration(entry.ttl), tags, version }, output.width),
        );
      }
      return FINE;
    });
  }

  async function ttl(args: readonly string[], options: EntryOptions): Promise<ExitCode> {
    const [cache, key] = keyOf(args, options);
    return context.look(cache, options, async (spectator) => {
      const entry = find(spectator, key, options);
      if (entry === undefined) return absent(key);
      if (options.json) await output.json({ ttl: entry.ttl === Infinity ? null : entry.ttl });
      else await output.lines(duration(entry.ttl));
      return FINE;
    });
  }

  async function set(args: readonly string[], options: StoreOptions): Promise<void> {
    const [name, keyText, text] = split(args, "key", "value") as [string | undefined, string, string];
    const key = parseKey(keyText, options);
    const given = text === "-" ? readFileSync(0, "utf8") : text;
    const value: unknown = options.text ? given : parseJson(given);
    const storing: SetOptions = {
      ...(options.ttl !== undefined && { ttl: parseDuration(options.ttl, "--ttl") }),
      ...(options.tags !== undefined && { tags: options.tags }),
    };
    await open(name, options, (cache) => cache.set(key, value, storing));
    if (options.json) await output.json({ key: keyJson(key), stored: true });
  }

  async function del(args: readonly string[], options: EntryOptions): Promise<ExitCode> {
    const [name, key] = keyOf(args, options);
    const removed = await open(name, options, (cache) => cache.delete(key));
    if (options.json) await output.json({ key: keyJson(key), removed });
    if (removed) return FINE;
    return options.json ? FOUND : absent(key);
  }

  /** Opens a cache that exists as a participant, for one change, in the namespace of the options. */
  async function open<T>(
    name: string | undefined,
    options: EntryOptions,
    change: (cache: Pick<Cache<unknown, string | Uint8Array>, "set" | "delete">) => T,
  ): Promise<T> {
    const file = await context.find(name, options);
    const { openCache } = await context.package();
    // Whoever has replaced the file meanwhile gets this entry: it is a cache with the same name.
    const cache = openCache<unknown, string | Uint8Array>(file.name, { path: file.directory, nearCache: 0 });
    try {
      let scope: Cache<unknown, string | Uint8Array> = cache;
      for (const each of options.namespace ?? []) scope = scope.namespace<unknown, string | Uint8Array>(each);
      return change(scope);
    } finally {
      cache.close();
    }
  }

  async function watch(args: readonly string[], options: WatchOptions): Promise<void> {
    const [cache, key] = keyOf(args, options);
    const ms = parseSeconds(options.interval ?? "0.1", "--interval");
    await context.look(cache, options, async (spectator) => {
      let before: string | undefined;
      do {
        const entry = find(spectator, key, options);
        const state = entry === undefined ? "absent" : String(entry.version);
        if (state !== before) await report(key, entry, options);
        before = state;
      } while (await context.pause(ms));
    });
  }

  async function report(
    key: string | Uint8Array,
    entry: EntryReport | undefined,
    options: WatchOptions,
  ): Promise<void> {
    const at = new Date();
    if (options.json) {
      const value = entry === undefined ? {} : { ...documentOf(entry), value: valueJson(decoded(entry)) };
      await output.json({ at: at.toISOString(), key: keyJson(key), present: entry !== undefined, ...value });
    } else {
      const text = entry === undefined ? output.colours.dim("absent") : showBriefly(decoded(entry));
      const life = entry === undefined || entry.ttl === Infinity ? "" : `  (expires in ${duration(entry.ttl)})`;
      await output.lines(`${at.toISOString().slice(11, 23)}  ${text}${life}`);
    }
    await output.flush();
  }

  function absent(key: string | Uint8Array): ExitCode {
    context.note(`cache-machine: key: there is no entry ${showKey(key)}.`);
    return FOUND;
  }
}

function keyOf(args: readonly string[], options: EntryOptions): [cache: string | undefined, key: string | Uint8Array] {
  const [cache, key] = split(args, "key") as [string | undefined, string];
  return [cache, parseKey(key, options)];
}

function find(spectator: Spectator, key: string | Uint8Array, options: EntryOptions): EntryReport | undefined {
  return spectator.entry(key, options.namespace ?? []);
}

function decoded(entry: EntryReport): unknown {
  return entry.foreign ? entry.value : entry.decode();
}

/** What `--raw` prints: text and bytes as they are, anything else as JSON. */
function rawOf(value: unknown): string | Uint8Array {
  if (typeof value === "string") return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  return JSON.stringify(valueJson(value));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure(
      USAGE,
      `value: is no JSON (${(error as Error).message}). Quote it for the shell, as in '"text"' or '{"a":1}', or add --text.`,
    );
  }
}
