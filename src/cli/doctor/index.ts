/** `doctor`: looks for what is wrong with the caches of this machine, and says what to do. Takes no seat and changes nothing. */

import type { ChalkInstance } from "chalk";
import type { Command } from "commander";
import type { CommonOptions, Context } from "../context.ts";
import { type ExitCode, Failure, FINE, FOUND, USAGE } from "../failure.ts";
import { visible, wrap } from "../render.ts";
import { type Check, checkCache, checkMachine, type Verdict } from "./checks.ts";

/** Seconds between the two looks. */
const INTERVAL = 2;
const MAX_INTERVAL = 3600;

interface DoctorOptions extends CommonOptions {
  readonly interval: number;
  readonly all?: boolean;
}

/** What is printed together. */
interface Group {
  /** The name of the cache; `undefined` for the machine. */
  readonly cache: string | undefined;
  readonly checks: readonly Check[];
}

const ORDER: readonly Verdict[] = ["problem", "warning", "unknown", "ok"];
const MARKS: Readonly<Record<Verdict, string>> = { problem: "✗", warning: "!", unknown: "?", ok: "✓" };

export function register(program: Command, context: Context): void {
  program.addCommand(
    context
      .command("doctor", "[cache]", "look for what is wrong, and say what to do")
      .argument("[cache]", "the cache; all caches by default")
      .option("--interval <seconds>", "time between the two looks; 0 for one look", secondsOf, INTERVAL)
      .option("--all", "also the details of what is fine, when something is not")
      .addHelpText("after", "\nEnds with 1 when there is a problem. `docs/night.md` goes through what it finds.")
      .action(context.action((cache: string | undefined, options: DoctorOptions) => examine(context, cache, options))),
  );
}

function secondsOf(text: string): number {
  const seconds = Number(text);
  if (text.trim() !== "" && seconds >= 0 && seconds <= MAX_INTERVAL) return seconds;
  throw new Failure(USAGE, `interval: must be a number of seconds from 0 to ${MAX_INTERVAL}. Use --interval 5.`);
}

/** Makes all checks and prints them. Returns the exit code. */
async function examine(context: Context, name: string | undefined, options: DoctorOptions): Promise<ExitCode> {
  const { lookAtMachine, lookAtCaches } = await context.inspect();
  const machine = lookAtMachine(options.path);
  // Where the directory or the native part is the problem, there is no cache to find.
  const canLook = machine.nativeError === undefined;
  let files = canLook ? machine.files.filter(({ state, ours }) => state === "current" && ours) : [];
  if (name !== undefined) {
    files = files.filter((file) => file.name === name);
  }
  const facts = await lookAtCaches(files, options.interval * 1000, (ms) => context.pause(ms));
  const groups: Group[] = [
    { cache: undefined, checks: checkMachine(machine) },
    ...facts.map((each) => ({ cache: each.file.name, checks: checkCache(each) })),
  ].map(({ cache, checks }) => ({ cache, checks: checks.sort((a, b) => rank(a) - rank(b)) }));
  groups.sort((a, b) => rankOf(a) - rankOf(b));
  if (options.json) {
    await context.output.json(
      groups.flatMap(({ cache, checks }) => checks.map((each) => ({ cache: cache ?? null, ...each }))),
    );
  } else {
    await context.output.lines(...render(groups, context.output.colours, context.output.width, options.all));
  }
  // That there is no such cache is told last: what was found may be the reason.
  if (name !== undefined && files.length === 0 && canLook && machine.directoryError === undefined) {
    await context.output.flush();
    await context.find(name, options);
  }
  return groups.some(({ checks }) => checks.some(({ state }) => state === "problem")) ? FOUND : FINE;
}

const rank = ({ state }: Check): number => ORDER.indexOf(state);
const rankOf = ({ checks }: Group): number => Math.min(...checks.map(rank));

function render(groups: readonly Group[], colours: ChalkInstance, width: number, all = false): string[] {
  const paint: Record<Verdict, ChalkInstance> = {
    problem: colours.red.bold,
    warning: colours.yellow,
    unknown: colours.cyan,
    ok: colours.green,
  };
  // Of several caches, those that are fine have a line each. With the name of a cache all its checks are shown.
  const isBrief = ({ cache, checks }: Group): boolean =>
    cache !== undefined && groups.length > 2 && checks.every(({ state }) => state === "ok");
  const brief = groups
    .filter(isBrief)
    .map(({ cache = "" }) => `${paint.ok(`${MARKS.ok} cache ${visible(cache)}`)}: fine`);
  const detailed = groups.filter((group) => !isBrief(group));
  // What is fine takes few lines beside what is not, so that all of it is on the screen.
  const isFolded = !all && groups.some((group) => rankOf(group) < ORDER.indexOf("ok"));
  const lines = detailed.flatMap(({ cache, checks }) => {
    const fine = isFolded ? checks.filter(({ state }) => state === "ok") : [];
    const summary = {
      state: "ok" as const,
      title: "fine",
      detail: fine.map(({ title }) => title).join(", "),
      remedy: "",
    };
    const shown = [...checks.filter((each) => !fine.includes(each)), ...(fine.length > 0 ? [summary] : [])];
    return [
      colours.bold(cache === undefined ? "This machine" : `Cache ${visible(cache)}`),
      ...shown.flatMap(({ state, title, detail, remedy }) => {
        const [first = "", ...rest] = wrap(`${MARKS[state]} ${title}: ${detail}`, width - 4);
        // A title is short: it stands on the first line.
        const marked = `${MARKS[state]} ${title}`;
        const advice = remedy === "" || state === "ok" ? [] : wrap(remedy, width - 6);
        return [
          `  ${paint[state](marked)}${first.slice(marked.length)}`,
          ...rest.map((line) => `    ${line}`),
          ...advice.map((line, i) => `    ${i === 0 ? "→" : " "} ${line}`),
        ];
      }),
      "",
    ];
  });
  if (brief.length > 0) lines.push(...brief, "");
  const found = (state: Verdict): number =>
    groups.flatMap(({ checks }) => checks.filter((each) => each.state === state)).length;
  const [problems, warnings] = [found("problem"), found("warning")];
  if (problems + warnings === 0) lines.push("Nothing is wrong.");
  else
    lines.push(
      `${problems} ${problems === 1 ? "problem" : "problems"}, ${warnings} ${warnings === 1 ? "warning" : "warnings"}.`,
    );
  return lines;
}
