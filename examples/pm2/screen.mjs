/**
 * Shows the run while it happens: on a terminal a table that is redrawn in place, with what happened above it;
 * elsewhere, in a log for instance, one plain line per second.
 */

const BAR = 20;

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
    this.#eventful = true;
    this.print(`${this.dim(`${seconds.toFixed(1).padStart(6)} s`)}  ${text}`);
  }

  /** Shows how far the run is; to be called often. */
  progress(seconds, ofSeconds, scores, cacheLine) {
    const due = seconds - this.#measured.at >= 1;
    if (due) this.#measure(seconds, scores);
    if (this.#live) this.#write([], this.#table(seconds, ofSeconds, scores, cacheLine));
    else if (due) this.event(seconds, this.dim(plainLine(scores)));
  }

  /** Takes the table away. */
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

  /** The processes one below the other, with how many answers they gave in all or how many they give in a second. */
  scores(scores, perSecond) {
    const columns = ["rendered", "from cache", "by others", perSecond ? "answers/s" : "answers"];
    const head = ["process".padEnd(8), "pid".padStart(7), "state".padEnd(9), ...columns];
    const rows = scores.map((score) => {
      const { name, pid, state, rendered, fromCache, fromOthers, answers } = score;
      const numbers = [rendered, fromCache, fromOthers, perSecond ? (perSecond.get(pid) ?? 0) : answers];
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

/** What can be said in one line of a log. */
function plainLine(scores) {
  const parts = inOrder(scores.processes.values())
    .filter(({ state }) => state !== "killed")
    .map(({ name, rendered, fromCache }) => `${name} ${rendered}/${fromCache}`);
  return `rendered/from cache: ${parts.join("  ")}`;
}

/** Processes by name; one that was started in place of another comes after it. */
export function inOrder(scores) {
  return [...scores].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
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
