/**
 * What every command shares: its common options, the cache that it is about, and how it ends. What looks into caches, and what opens
 * them, is loaded when a command needs it, so that `--help` and mistakes are answered at once.
 */

import { Command } from "commander";
import type { CacheFile } from "../inspect/files.ts";
import type { Spectator } from "../inspect/spectator.ts";
import { type ExitCode, exitCodeOf, Failure, FOUND, USAGE } from "./failure.ts";
import { Output } from "./output.ts";
import { visible, visibleLines } from "./render.ts";

/** The options of all commands. */
export interface CommonOptions {
  /** The directory of the caches; /dev/shm by default. */
  readonly path?: string;
  readonly json?: boolean;
}

/** What one kind of commands registers: `src/cli/commands/*.ts`, `src/cli/top/index.ts`, `src/cli/doctor/index.ts`. */
export type Register = (program: Command, context: Context) => void;

type Inspect = typeof import("../inspect/files.ts") &
  typeof import("../inspect/spectator.ts") &
  typeof import("../inspect/facts.ts");
type Package = typeof import("../index.ts");

export class Context {
  readonly output: Output = new Output(process.stdout);
  readonly #errors: NodeJS.WriteStream = process.stderr;
  #interruption: AbortController | undefined;

  /**
   * Makes a command with the common options.
   *
   * @param usage the arguments, such as `[cache] <key>`. They are declared here as text only: commander has no optional argument
   * before others, so {@link split} takes them apart.
   */
  command(name: string, usage: string, summary: string): Command {
    return new Command(name)
      .summary(summary)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)
      .usage(`[options]${usage === "" ? "" : ` ${usage}`}`)
      .option("--path <dir>", "directory of the caches (default: /dev/shm)")
      .option("--json", "print JSON, for programs");
  }

  /** Makes the action of a command: it returns the exit code, or nothing when all is fine. */
  action<A extends unknown[]>(
    run: (...args: A) => Promise<ExitCode | undefined> | Promise<void>,
  ): (...args: A) => Promise<void> {
    return async (...args) => {
      process.exitCode = (await run(...args)) ?? 0;
      await this.output.flush();
    };
  }

  /** What looks into directories and caches without a seat and without write access. */
  async inspect(): Promise<Inspect> {
    const [files, spectator, facts] = await Promise.all([
      import("../inspect/files.ts"),
      import("../inspect/spectator.ts"),
      import("../inspect/facts.ts"),
    ]);
    return { ...files, ...spectator, ...facts };
  }

  /** The package itself, for the commands that open a cache as a participant. */
  package(): Promise<Package> {
    return import("../index.ts");
  }

  /** The caches in the directory of the options that this build can open. */
  async caches({ path }: CommonOptions): Promise<CacheFile[]> {
    const { listCaches } = await this.inspect();
    return listCaches(path).filter(({ state, ours }) => state === "current" && ours);
  }

  /**
   * Finds the cache with a name; without a name the only one that there is.
   *
   * @throws {Failure} when there is no such cache, or several without a name to choose one. The error lists them.
   */
  async find(name: string | undefined, options: CommonOptions): Promise<CacheFile> {
    const caches = await this.caches(options);
    const found = name === undefined ? caches : caches.filter((each) => each.name === name);
    const [first] = found;
    if (first !== undefined && found.length === 1) return first;
    const where = visible(options.path ?? "/dev/shm");
    const names = caches.map((each) => visible(each.name));
    const there = `There ${names.length === 1 ? "is" : "are"}: ${names.slice(0, 6).join(", ")}${names.length > 6 ? ", …" : ""}.`;
    if (name === undefined && first !== undefined) {
      throw new Failure(USAGE, `cache: ${names.length} caches are in ${where}. Say which one. ${there}`);
    }
    const what = name === undefined ? "there is no cache" : `there is no cache "${visible(name)}"`;
    const remedy = names.length > 0 ? there : "`cache-machine ls` lists all files, those of other layouts too.";
    throw new Failure(FOUND, `cache: ${what} in ${where}. ${remedy}`);
  }

  /** Looks into the cache with a name, or the only one. Takes no seat. */
  async look<T>(
    name: string | undefined,
    options: CommonOptions,
    use: (spectator: Spectator, file: CacheFile) => T | Promise<T>,
  ): Promise<T> {
    const file = await this.find(name, options);
    const { Spectator } = await this.inspect();
    const spectator = Spectator.open(file.path);
    try {
      return await use(spectator, file);
    } finally {
      spectator.close();
    }
  }

  /**
   * Aborted by Ctrl-C and by SIGTERM. A command that runs until then asks for it, and ends with 0. All other commands are ended by
   * the signal itself.
   */
  get interruption(): AbortSignal {
    if (this.#interruption === undefined) {
      const controller = new AbortController();
      for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => controller.abort());
      this.#interruption = controller;
    }
    return this.#interruption.signal;
  }

  /** Waits; returns early, with `false`, when the command is interrupted. */
  pause(ms: number): Promise<boolean> {
    const signal = this.interruption;
    return new Promise((resolve) => {
      if (signal.aborted) return resolve(false);
      const done = (waited: boolean) => () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", stop);
        resolve(waited);
      };
      const timer = setTimeout(() => done(true)(), ms);
      const stop = done(false);
      signal.addEventListener("abort", stop);
    });
  }

  /** Prints a remark for people to stderr. */
  note(text: string): void {
    this.#errors.write(`${visibleLines(text)}\n`);
  }

  /** Prints an error on one line. Returns the exit code for it. */
  fail(error: unknown): ExitCode {
    const message = error instanceof Error ? error.message : String(error);
    this.note(`cache-machine: ${message.replaceAll("\n", " ")}`);
    if (process.env.DEBUG && error instanceof Error && error.stack !== undefined) this.note(error.stack);
    return exitCodeOf(error);
  }
}

/**
 * Takes apart the arguments `[cache] …`: the last `names.length` ones have these names, and one more before them names the cache.
 *
 * @throws {Failure} when there are fewer or more.
 */
export function split(
  args: readonly string[],
  ...names: readonly string[]
): [cache: string | undefined, ...rest: string[]] {
  if (args.length < names.length) {
    throw new Failure(USAGE, `${names[args.length]}: is missing. Add --help to see how the command is used.`);
  }
  if (args.length > names.length + 1) {
    const usage = ["[cache]", ...names.map((each) => `<${each}>`)].join(" ");
    throw new Failure(
      USAGE,
      `there are too many arguments: ${args.length} in place of ${usage}. Quote what has spaces.`,
    );
  }
  return args.length === names.length ? [undefined, ...args] : [args[0], ...args.slice(1)];
}
