/**
 * Shows the run while it happens: on a terminal a table that is redrawn in place, with what happened above it;
 * elsewhere, in a log for instance, one plain line per second.
 */

const BAR = 32;

export class Screen {
  #out;
  #live;
  #colours;
  /** The lines of the table as it is on the terminal now. */
  #shown = [];
  #last = { at: -Infinity, answers: new Map() };
  #rates = new Map();

  /** @param out where to: the stream of a terminal, or any other */
  constructor(out) {
    this.#out = out;
    this.#live = out.isTTY === true && process.env.TERM !== "dumb";
    // hasColors() honours NO_COLOR and FORCE_COLOR.
    this.#colours = out.isTTY === true && out.hasColors();
    if (this.#live) out.write("\x1b[?25l");
  }

  /** Gives the cursor back. */
  close() {
    if (this.#live) this.#out.write("\x1b[?25h");
  }

  /** Prints lines that stay. */
  print(...lines) {
    this.#write(lines, this.#shown);
  }

  /** Prints what happened, with its time. */
  event(seconds, text) {
    this.print(`${this.dim(`${seconds.toFixed(1).padStart(6)} s`)}  ${text}`);
  }

  /** Shows how far the run is; to be called often. */
  progress(seconds, ofSeconds, scores, cacheLine) {
    const due = seconds - this.#last.at >= 1;
    if (due) this.#measure(seconds, scores);
    if (this.#live) this.#write([], this.#table(seconds, ofSeconds, scores, cacheLine));
    else if (due) this.print(this.#plainLine(seconds, scores));
  }

  /** Leaves the table as it is and goes on below it. */
  keep() {
    this.#shown = [];
  }

  bold(text) {
    return this.#paint(1, text);
  }
  dim(text) {
    return this.#paint(2, text);
  }
  green(text) {
    return this.#paint(32, text);
  }
  red(text) {
    return this.#paint(31, text);
  }
  yellow(text) {
    return this.#paint(33, text);
  }

  #paint(code, text) {
    return this.#colours ? `\x1b[${code}m${text}\x1b[0m` : text;
  }

  #table(seconds, ofSeconds, scores, cacheLine) {
    const done = Math.min(seconds / ofSeconds, 1);
    const filled = Math.round(done * BAR);
    const bar = `${this.green("━".repeat(filled))}${this.dim("━".repeat(BAR - filled))}`;
    return [
      "",
      `  ${bar}  ${seconds.toFixed(1)} of ${ofSeconds} s   ${cacheLine}`,
      "",
      ...this.scoreLines(scores, { rates: true }),
    ];
  }

  /** The processes one below the other. */
  scoreLines(scores, { rates = false } = {}) {
    const row = (cells) => `  ${cells.join("  ")}`;
    const heads = ["process".padEnd(9), "pid".padStart(7), "state".padEnd(9)];
    const columns = ["rendered", "from cache", "of others", rates ? "answers/s" : "answers"];
    const lines = [...scores.processes.values()].map((score) => {
      const gone = score.state === "killed";
      const state = score.state.padEnd(9);
      const cells = [
        score.name.padEnd(9),
        String(score.pid).padStart(7),
        gone ? this.red(state) : score.state === "restarted" ? this.yellow(state) : this.green(state),
      ];
      const rate = gone ? 0 : (this.#rates.get(score.pid) ?? 0);
      const numbers = [score.rendered, score.fromCache, score.fromOthers, rates ? rate : score.answers];
      return row([...cells, ...numbers.map((number, at) => count(number).padStart(columns[at].length))]);
    });
    return [this.dim(row([...heads, ...columns])), ...lines];
  }

  #plainLine(seconds, scores) {
    const parts = [...scores.processes.values()]
      .filter((score) => score.state !== "killed")
      .map((score) => `${score.name} ${score.rendered} rendered ${score.fromCache} from cache`);
    return `${seconds.toFixed(1).padStart(6)} s  ${parts.join(" | ")}`;
  }

  #measure(seconds, scores) {
    const { at, answers } = this.#last;
    for (const { pid, answers: now } of scores.processes.values()) {
      if (at >= 0) this.#rates.set(pid, Math.round((now - (answers.get(pid) ?? 0)) / (seconds - at)));
      answers.set(pid, now);
    }
    this.#last.at = seconds;
  }

  /** Writes `lines` to stay where the table was, and the table below them: in one go, so that nothing flickers. */
  #write(lines, table) {
    const width = this.#out.columns ?? Infinity;
    const up = this.#shown.length > 0 ? `\x1b[${this.#shown.length}F` : "";
    const end = this.#live ? "\x1b[K\n" : "\n";
    const text = [...lines, ...table.map((line) => cut(line, width))].map((line) => line + end).join("");
    // What is left of a longer table before.
    const rest = this.#shown.length > lines.length + table.length ? "\x1b[J" : "";
    this.#out.write(up + text + rest);
    this.#shown = table;
  }
}

/** A number with its thousands apart. */
export function count(number) {
  return number.toLocaleString("en-US");
}

/** A number of bytes for people. */
export function bytes(number) {
  if (number < 2 ** 10) return `${number} B`;
  if (number < 2 ** 20) return `${Math.round(number / 2 ** 10)} KiB`;
  return `${(number / 2 ** 20).toFixed(1)} MiB`;
}

/** Cuts a line to the width of the terminal, since a line that wraps would make the table jump. */
function cut(line, width) {
  let room = width;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one, and take no room
  return line.replace(/\x1b\[\d+m|./gu, (part) => (part.startsWith("\x1b") || room-- > 0 ? part : ""));
}
