/**
 * Shows the run: on a terminal a table that is redrawn in place, with the events above it; elsewhere, for example in a log, one plain
 * line per second.
 */

const BAR = 20;
/** The least width of a column with numbers. */
const NUMBER = 7;

export class Screen {
  #out;
  #live;
  #colours;
  /** The lines of the table as it is on the terminal now. */
  #shown = [];
  #eventful = false;
  #measured = { at: 0, answers: new Map() };
  /** Answers in a second by process id, over about the last one. */
  #perSecond = new Map();

  /** @param out the stream to write to, a terminal or another one */
  constructor(out) {
    this.#out = out;
    this.#live = out.isTTY === true && process.env.TERM !== "dumb";
    // hasColors() honours NO_COLOR and FORCE_COLOR.
    this.#colours = out.isTTY === true && out.hasColors();
    if (this.#live) out.write("\x1b[?25l");
  }

  /** Shows the cursor again. */
  close() {
    if (this.#live) this.#out.write("\x1b[?25h");
  }

  /** Prints lines that stay. */
  print(...lines) {
    this.#write(lines, this.#shown);
  }

  /** Prints an event with its time. */
  event(seconds, text) {
    this.#eventful = true;
    this.print(`${this.dim(`${seconds.toFixed(1).padStart(6)} s`)}  ${text}`);
  }

  /** Shows the progress of the run; to be called often. */
  progress(seconds, ofSeconds, scores, cacheLine) {
    const due = seconds - this.#measured.at >= 1;
    if (due) this.#measure(seconds, scores);
    if (this.#live) this.#write([], this.#table(seconds, ofSeconds, scores, cacheLine));
    else if (due) this.event(seconds, this.dim(plainLine(scores)));
  }

  /** Removes the table. */
  clear() {
    this.#write([], []);
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

  /** A table of the processes, with their answers in total or per second. */
  scores(scores, perSecond) {
    const names = ["rendered", "waited", "cached", "by others", perSecond ? "answers/s" : "answers"];
    // With these widths the table fits into 80 columns.
    const columns = names.map((name) => name.padStart(NUMBER));
    const head = ["process".padEnd(8), "pid".padStart(7), "state".padEnd(9), ...columns];
    const rows = scores.map((score) => {
      const { name, pid, state, rendered, waited, fromCache, fromOthers, answers } = score;
      const numbers = [rendered, waited, fromCache, fromOthers, perSecond ? (perSecond.get(pid) ?? 0) : answers];
      const cells = numbers.map((number, at) => count(number).padStart(columns[at].length));
      return [name.padEnd(8), String(pid).padStart(7), this.#state(state), ...cells];
    });
    return [this.dim(`  ${head.join("  ")}`), ...rows.map((cells) => `  ${cells.join("  ")}`)];
  }

  #state(state) {
    const text = state.padEnd(9);
    if (state === "killed") return this.red(text);
    return state === "restarted" ? this.yellow(text) : this.green(text);
  }

  #table(seconds, ofSeconds, scores, cacheLine) {
    const filled = Math.round(Math.min(seconds / ofSeconds, 1) * BAR);
    const bar = `${this.green("━".repeat(filled))}${this.dim("─".repeat(BAR - filled))}`;
    return [
      ...(this.#eventful ? [""] : []),
      `  ${bar}  ${seconds.toFixed(1).padStart(4)} s${seconds < ofSeconds ? ` of ${ofSeconds}` : ""}    ${cacheLine}`,
      "",
      ...this.scores(inOrder(scores.processes.values()), this.#perSecond),
    ];
  }

  #measure(seconds, scores) {
    const { at, answers } = this.#measured;
    for (const { pid, answers: now, state } of scores.processes.values()) {
      const rate = state === "killed" ? 0 : (now - (answers.get(pid) ?? 0)) / (seconds - at);
      this.#perSecond.set(pid, Math.round(rate));
      answers.set(pid, now);
    }
    this.#measured.at = seconds;
  }

  /** Replaces the table by `lines`, which stay, and the new table below them; in one write, so that nothing flickers. */
  #write(lines, table) {
    const width = this.#out.columns ?? Infinity;
    const up = this.#shown.length > 0 ? `\x1b[${this.#shown.length}F` : "";
    const end = this.#live ? "\x1b[K\n" : "\n";
    const text = [...lines, ...table.map((line) => cut(line, width))].map((line) => line + end).join("");
    // Clears the rest of a longer table.
    const rest = this.#shown.length > lines.length + table.length ? "\x1b[J" : "";
    this.#out.write(up + text + rest);
    this.#shown = table;
  }
}

/** The progress as one line of a log. */
function plainLine(scores) {
  const parts = inOrder(scores.processes.values())
    .filter(({ state }) => state !== "killed")
    .map(({ name, rendered, fromCache }) => `${name} ${rendered}/${fromCache}`);
  return `rendered/from cache: ${parts.join("  ")}`;
}

/** Sorts processes by name; a restarted process comes after the one that it replaces. */
export function inOrder(scores) {
  return [...scores].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

/** A number with separators for thousands. */
export function count(number) {
  return number.toLocaleString("en-US");
}

/** A number of bytes as readable text. */
export function bytes(number) {
  if (number < 2 ** 10) return `${number} B`;
  if (number < 2 ** 20) return `${Math.round(number / 2 ** 10)} KiB`;
  return `${(number / 2 ** 20).toFixed(1)} MiB`;
}

/** Cuts a line to the width of the terminal, because a wrapped line would make the table jump. */
function cut(line, width) {
  let room = width;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one, and take no room
  return line.replace(/\x1b\[\d+m|./gu, (part) => (part.startsWith("\x1b") || room-- > 0 ? part : ""));
}
