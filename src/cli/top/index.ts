/**
 * `cache-machine top`: what happens in a cache, live. On a terminal it is a screen that is drawn anew at each interval; elsewhere, or with
 * `json`, each interval is a line. It looks at the cache without a seat and without write access.
 */

import type { ReadStream } from "node:tty";
import chalk from "chalk";
import { CacheError } from "../../errors.ts";
import { Spectator } from "../../inspect/spectator.ts";
import { type Frame, Sampler } from "./sample.ts";
import { draw, plain, printable, SORTS, type Sort } from "./screen.ts";
import { type Output, Terminal } from "./terminal.ts";
import { type Source, Watch } from "./watch.ts";

/** What to look at, and how to show it. */
export interface TopOptions {
  /** The name of the cache. */
  name: string;
  /** Returns the path of the cache's file, `undefined` while there is none. */
  find(): string | undefined;
  /** Seconds between two looks, at least 0.1; 1 by default. */
  interval?: number | undefined;
  /** How many frames are shown before it ends by itself; without end by default. */
  count?: number | undefined;
  /** Whether each frame is a JSON object on a line. */
  json?: boolean | undefined;
  /** What participants are sorted by; `"ops"` by default. */
  sort?: Sort | undefined;
  /** Opens a file; {@link Spectator.open} by default. */
  open?: ((file: string) => Source) | undefined;
}

/** The intervals that the keys + and - choose from, in seconds. */
const INTERVALS = [0.2, 0.5, 1, 2, 5, 10, 30, 60];
/** The first rates are shown after this time at the latest, in milliseconds. */
const FIRST = 500;

/**
 * Runs until the user quits, `count` frames were shown, or nobody reads the output any more.
 *
 * @returns the exit code: 0, or 1 when there is no cache of that name at the start
 * @throws {CacheError} when the file cannot be looked at.
 */
export async function top(options: TopOptions): Promise<number> {
  const { name, find, open = Spectator.open } = options;
  const watch = new Watch(find, open);
  try {
    // Errors of the start belong on the usual screen.
    const first = watch.look(now);
    if (first === undefined) {
      process.stderr.write(
        `cache-machine: there is no cache ${printable(name)}. List what is there with cache-machine ls.\n`,
      );
      return 1;
    }
    const { stdin, stdout } = process;
    return stdout.isTTY && !options.json
      ? await new Screen(options, watch, stdin, stdout).run()
      : await lines(options, watch, stdout);
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

async function lines(options: TopOptions, watch: Watch, output: NodeJS.WriteStream): Promise<number> {
  const { name, interval = 1, count = Number.POSITIVE_INFINITY, json = false } = options;
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
        ? `${time} cache=${printable(name)} gone`
        : plain(name, time, frame);
    await new Promise<void>((resolve) => {
      output.write(`${line}\n`, () => resolve());
    });
    shown++;
  }
  return 0;
}

// ---- The screen

class Screen {
  readonly #name: string;
  readonly #looking: Looking;
  readonly #terminal: Terminal;
  readonly #count: number;
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
  #finish: (result: { code: number } | { error: unknown }) => void = () => {};

  constructor(options: TopOptions, watch: Watch, input: ReadStream, output: Output) {
    this.#name = options.name;
    this.#interval = options.interval ?? 1;
    this.#count = options.count ?? Number.POSITIVE_INFINITY;
    this.#sort = options.sort ?? "ops";
    this.#looking = new Looking(watch);
    this.#terminal = new Terminal(input, output, {
      key: (key) => this.#key(key),
      redraw: () => this.#draw(),
      end: (signal) => this.#end(signal),
    });
  }

  async run(): Promise<number> {
    const result = await new Promise<{ code: number } | { error: unknown }>((resolve) => {
      this.#finish = resolve;
      this.#terminal.enter();
      this.#tick();
    });
    clearTimeout(this.#timer);
    this.#terminal.leave();
    if ("error" in result) throw result.error;
    return result.code;
  }

  /** Looks, draws, and does so again. */
  #tick(): void {
    let frame: Frame | undefined;
    try {
      frame = this.#looking.next();
    } catch (error) {
      // What has the name now is no cache that can be looked at. It may be replaced once more.
      if (!(error instanceof CacheError)) {
        this.#finish({ error });
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
      this.#finish({ code: 0 });
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
    this.#terminal.show(draw(view, chalk));
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
      q: () => this.#finish({ code: 0 }),
      "ctrl-c": () => this.#finish({ code: 0 }),
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
    this.#finish({ code: 0 });
  }
}
