/**
 * The command line: `npx cache-machine`. Registers the commands, and turns whatever ends one into an exit code: 0 fine, 1 not found or
 * a finding, 2 wrong usage, 3 unable.
 */

import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { register as entries } from "./commands/entries.ts";
import { register as files } from "./commands/files.ts";
import { register as keys } from "./commands/keys.ts";
import { register as snapshot } from "./commands/snapshot.ts";
import { register as stat } from "./commands/stat.ts";
import { register as who } from "./commands/who.ts";
import { Context, type Register } from "./context.ts";
import { register as doctor } from "./doctor/index.ts";
import { FINE, USAGE } from "./failure.ts";
import { register as top } from "./top/index.ts";

const COMMANDS: readonly Register[] = [files, top, stat, keys, entries, who, snapshot, doctor];

/** A reader such as `head` has seen enough, or the terminal was closed. */
function endWithReader(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE" || error.code === "EIO") process.exit(FINE);
  throw error;
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")).version;
}

async function main(): Promise<void> {
  process.stdout.on("error", endWithReader);
  process.stderr.on("error", () => {});
  const context = new Context();
  const program = new Command("cache-machine")
    .description("Looks into the caches of this machine, and changes them.")
    .usage("<command> [options] [cache]")
    .helpCommand("help [command]", "print how a command is used")
    .configureHelp({ sortSubcommands: false, subcommandTerm: (command) => command.name() })
    .addHelpText(
      "after",
      "\nWithout the name of a cache, a command is about the only one that there is.\n" +
        "Exit codes: 0 fine, 1 not found or something found wrong, 2 wrong usage, 3 unable to look.",
    );
  for (const register of COMMANDS) register(program, context);
  program.option("--version", "print the version of the package");
  program.on("option:version", () => {
    process.stdout.write(`${version()}\n`);
    process.exit(FINE);
  });
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({ outputError: (text, write) => write(oneLine(text)) });
  }
  if (process.argv.length <= 2) {
    program.outputHelp();
    return;
  }
  try {
    await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? FINE : USAGE;
    else process.exitCode = context.fail(error);
  }
}

/** An error of commander in the style of this package: one line, with what was probably meant. */
function oneLine(text: string): string {
  const line = text
    .trim()
    .replace(/^error: /, "")
    .replace(/\n\(?(.*?)\)?$/s, ". $1");
  return `cache-machine: ${line.replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, "?")}\n`;
}

await main();
