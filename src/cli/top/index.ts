/**
 * `cache-machine top`: what happens in a cache, live. On a terminal it is a screen that is drawn anew at each interval; elsewhere, or with
 * `json`, each interval is a line. It looks at the cache without a seat and without write access.
 */

import type { ReadStream } from "node:tty";
import type { ChalkInstance } from "chalk";
import { type Command, Option } from "commander";
import { CacheError } from "../../errors.ts";
import type { CommonOptions, Context } from "../context.ts";
import { type ExitCode, Failure, FINE, USAGE } from "../failure.ts";
import { visible } from "../render.ts";
import { type Frame, Sampler } from "./sample.ts";
import { draw, plain, SORTS, type Sort } from "./screen.ts";
import { type Output, Terminal } from "./terminal.ts";
import { Watch } from "./watch.ts";

/** What to look at, and how to show it. */
interface TopOptions {
  /** The name of the cache. */
  name: string;
  /** Seconds between two looks. */
  interval: number;
  /** How many frames are shown before it ends by itself. */
  count: number;
  /** Whether each frame is a JSON object on a line. */
  json: boolean;
  /** What participants are sorted by. */
  sort: Sort;
  colours: ChalkInstance;
}

interface Flags extends CommonOptions {
  interval: number;
  count: number;
  sort: Sort;
}

/** The shortest and the longest time between two looks, in seconds. */
const [SHORTEST, LONGEST] = [0.1, 3600];

/** The intervals that the keys + and - choose from, in seconds. */
const INTERVALS = [0.2, 0.5, 1, 2, 5, 10, 30, 60];
/** The first rates are shown after this time at the latest, in milliseconds. */
const FIRST = 500;

/** Registers `top`. */
export function register(program: Command, context: Context): void {
  const command = context
    .command("top", "[cache]", "show live what happens in a cache, and who takes part")
    .argument("[cache]", "name of the cache")
    .option("-i, --interval <seconds>", "time between two looks", seconds, 1)
    .option("-n, --count <number>", "end after this many", whole, Number.POSITIVE_INFINITY)
    .addOption(new Option("--sort <column>", "what the participants are sorted by").choices(SORTS).default("ops"))
    .addHelpText(
      "after",
      "\nOn a terminal, press ? for the keys. Elsewhere each look is a line of plain text, or of JSON with --json.",
    );
  command.action(
    context.action(async (name: string | undefined, flags: Flags) => {
      const first = await context.find(name, flags);
      const { listCaches, Spectator } = await context.inspect();
      const find = (): string | undefined => {
        const isSame = (file: typeof first) => file.state === "current" && file.ours && file.name === first.name;
        return listCaches(flags.path).find(isSame)?.path;
      };
      const watch = new Watch(find, Spectator.open);
      const { interval, count, sort, json = false } = flags;
      const colours = context.output.colours;
      return await top({ name: first.name ?? "", interval, count, sort, json, colours }, watch);
    }),
  );
  program.addCommand(command);
}

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= SHORTEST && value <= LONGEST) return value;
  throw new Failure(
    USAGE,
    `--interval: must be a number of seconds from ${SHORTEST} to ${LONGEST}, not "${visible(text)}".`,
  );
}

function whole(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new Failure(USAGE, `--count: must be a whole number from 1 on, not "${visible(text)}".`);
}

/** Runs until the user quits, `count` frames were shown, or nobody reads the output any more. */
async function top(options: TopOptions, watch: Watch): Promise<ExitCode> {
  const { stdin, stdout } = process;
  try {
    // A file that cannot be looked at is an error on the usual screen.
    watch.look(now);
    // A dumb terminal, such as that of an editor, has no cursor to move.
    const hasScreen = stdout.isTTY && process.env.TERM !== "dumb";
    if (hasScreen && !options.json) await new Screen(options, watch, stdin, stdout).run();
    else await lines(options, watch, stdout);
    return FINE;
  } finally {
    watch.close();
  }
}

const now = (): number => performance.now();

/** Looks, and makes a frame. `undefined` while there is no cache. */
class Looking {
  readonly #watch: Watch;
  sampler = new Sampler();

  constructor(watch: Watch) {
    this.#watch = watch;
  }

  next(): Frame | undefined {
    const found = this.#watch.look(now);
    if (found === undefined) return undefined;
    if (found.isNew) this.sampler = new Sampler();
    return this.sampler.frame(found.look);
  }
}

// ---- Lines

async function lines(options: TopOptions, watch: Watch, output: NodeJS.WriteStream): Promise<void> {
  const { name, interval, count, json } = options;
  let ended = false;
  let wake = (): void => {};
  // Whoever reads the lines, such as `head`, may have had enough.
  output.on("error", () => {
    ended = true;
    wake();
  });
  const looking = new Looking(watch);
  looking.next();
  for (let shown = 0; shown < count && !ended; ) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, interval * 1000);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    if (ended) break;
    const frame = looking.next();
    const time = new Date().toISOString();
    // The first look at a cache has no rates yet. It gets a line when the cache came while others waited for it.
    const line = json
      ? JSON.stringify({ time, name, present: frame !== undefined, ...frame })
      : frame === undefined
        ? `${time} cache=${visible(name).replaceAll(" ", "\\x20")} gone`
        : plain(name, time, frame);
    await new Promise<void>((resolve) => {
      output.write(`${line}\n`, () => resolve());
    });
    shown++;
  }
}

// ---- The screen

class Screen {
  readonly #name: string;
  readonly #looking: Looking;
  readonly #terminal: Terminal;
  readonly #count: number;
  readonly #colours: ChalkInstance;
  #interval: number;
  #sort: Sort;
  #offset = 0;
  #paused = false;
  #help = false;
  #frame: Frame | undefined;
  #history: Sampler["history"] = [];
  #message = "";
  #time = "";
  #shown = 0;
  #timer: NodeJS.Timeout | undefined;
  #finish: (error?: unknown) => void = () => {};

  constructor(options: TopOptions, watch: Watch, input: ReadStream, output: Output) {
    this.#name = options.name;
    this.#interval = options.interval;
    this.#count = options.count;
    this.#sort = options.sort;
    this.#colours = options.colours;
    this.#looking = new Looking(watch);
    this.#terminal = new Terminal(input, output, {
      key: (key) => this.#key(key),
      redraw: () => this.#draw(),
      end: (signal) => this.#end(signal),
    });
  }

  async run(): Promise<void> {
    const error = await new Promise<unknown>((resolve) => {
      this.#finish = resolve;
      this.#terminal.enter();
      this.#tick();
    });
    clearTimeout(this.#timer);
    this.#terminal.leave();
    if (error !== undefined) throw error;
  }

  /** Looks, draws, and does so again. */
  #tick(): void {
    let frame: Frame | undefined;
    try {
      frame = this.#looking.next();
    } catch (error) {
      // What has the name now is no cache that can be looked at. It may be replaced once more.
      if (!(error instanceof CacheError)) {
        this.#finish(error);
        return;
      }
      this.#message = error.message;
    }
    if (!this.#paused) {
      this.#time = new Date().toTimeString().slice(0, 8);
      if (this.#frame !== undefined && frame === undefined) {
        this.#message ||= `The cache was removed at ${this.#time}. Waiting for a new one with that name.`;
      }
      if (frame !== undefined) this.#message = "";
      this.#frame = frame;
      this.#history = [...this.#looking.sampler.history];
    }
    this.#draw();
    if (frame?.rates !== null && ++this.#shown >= this.#count) {
      this.#finish();
      return;
    }
    const wait = this.#interval * 1000;
    this.#timer = setTimeout(() => this.#tick(), frame?.rates === null ? Math.min(FIRST, wait) : wait);
  }

  #draw(): void {
    const { columns, rows } = this.#terminal;
    const view = {
      name: this.#name,
      frame: this.#frame,
      history: this.#history,
      message: this.#message,
      time: this.#time,
      interval: this.#interval,
      sort: this.#sort,
      offset: this.#offset,
      paused: this.#paused,
      help: this.#help,
      columns,
      rows,
    };
    this.#terminal.show(draw(view, this.#colours));
  }

  #key(key: string): void {
    const most = Math.max(0, (this.#frame?.participants.length ?? 1) - 1);
    const page = Math.max(1, this.#terminal.rows - 12);
    const scroll = (to: number): void => {
      this.#offset = Math.max(0, Math.min(most, to));
    };
    const sort = (step: number): void => {
      this.#sort = SORTS[(SORTS.indexOf(this.#sort) + step + SORTS.length) % SORTS.length] as Sort;
      this.#offset = 0;
    };
    const actions: Record<string, () => void> = {
      q: () => this.#finish(),
      "ctrl-c": () => this.#finish(),
      s: () => sort(1),
      right: () => sort(1),
      left: () => sort(-1),
      up: () => scroll(this.#offset - 1),
      down: () => scroll(this.#offset + 1),
      pageup: () => scroll(this.#offset - page),
      pagedown: () => scroll(this.#offset + page),
      home: () => scroll(0),
      end: () => scroll(most),
      p: () => this.#pause(),
      space: () => this.#pause(),
      "+": () => this.#change(1),
      "=": () => this.#change(1),
      "-": () => this.#change(-1),
      "?": () => this.#toggleHelp(),
      h: () => this.#toggleHelp(),
      escape: () => {
        this.#help = false;
      },
    };
    if (!Object.hasOwn(actions, key)) return;
    actions[key]?.();
    this.#draw();
  }

  #pause(): void {
    this.#paused = !this.#paused;
  }

  #toggleHelp(): void {
    this.#help = !this.#help;
  }

  /** Takes the next longer or the next shorter interval, from now on. */
  #change(step: 1 | -1): void {
    const next =
      step > 0 ? INTERVALS.find((each) => each > this.#interval) : INTERVALS.findLast((each) => each < this.#interval);
    if (next === undefined) return;
    this.#interval = next;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), next * 1000);
  }

  /** Ends as the signal would have ended the process, so that whoever started it learns of it. */
  #end(signal: NodeJS.Signals | undefined): void {
    this.#terminal.leave();
    if (signal !== undefined) process.kill(process.pid, signal);
    this.#finish();
  }
}
