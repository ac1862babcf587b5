/**
 * Shows the run: on a terminal a table that is redrawn in place, with the events above it; elsewhere, for example in a pipe, one plain
 * line per second.
 */

import { readsOf, readsPerSecond } from "./hosts.mjs";

const BAR = 20;

export class Screen {
  #out = process.stdout;
  #live = this.#out.isTTY === true && process.env.TERM !== "dumb";
  // hasColors() honours NO_COLOR and FORCE_COLOR.
  #colours = this.#out.isTTY === true && this.#out.hasColors();
  /** The lines of the table as it is on the terminal now. */
  #shown = [];
  #due = 1;

  constructor() {
    if (this.#live) this.#out.write("\x1b[?25l");
  }

  /** Removes the table, and shows the cursor again. */
  close() {
    this.clear();
    if (this.#live) this.#out.write("\x1b[?25h");
    this.#live = false;
  }

  /** Removes the table. */
  clear() {
    this.#write([], []);
  }

  /** Prints lines that stay, above the table. */
  print(...lines) {
    this.#write(lines, this.#shown);
  }

  event(seconds, ...lines) {
    const [first, ...more] = lines;
    this.print(
      `${this.dim(`${seconds.toFixed(1).padStart(5)} s`)}  ${first}`,
      ...more.map((line) => `         ${line}`),
    );
  }

  /**
   * Shows the state; to be called often.
   *
   * @param rows the processes, as hosts.mjs keeps them
   * @param line what to say of the server
   */
  progress(seconds, ofSeconds, rows, line) {
    if (this.#live) return this.#write([], this.#table(seconds, ofSeconds, rows, line));
    if (seconds < this.#due) return;
    this.#due = Math.floor(seconds) + 1;
    const parts = rows.map((row) => `${row.host} ${row.pid}${row.owns ? "*" : ""} ${state(row)} #${row.version}`);
    this.event(seconds, `${parts.join(", ")}; ${line}`);
  }

  #table(seconds, ofSeconds, rows, line) {
    const filled = Math.round(Math.min(seconds / ofSeconds, 1) * BAR);
    const bar = `${this.green("━".repeat(filled))}${this.dim("─".repeat(BAR - filled))}`;
    const head = ["host", "process  ", "reads/s", " memory", " server", "database", "price", " lease", "state"];
    return [
      "",
      `  ${bar} ${seconds.toFixed(1).padStart(4)} s  ${line}`,
      "",
      this.dim(`  ${head.join("  ")}`),
      ...rows.map((row) => `  ${this.#cells(row, head).join("  ")}`),
      "",
      this.dim("  memory: reads that the host's memory answered; server, database: the rest"),
      this.dim("  *: the owner hears what changes on the server, and renews the host's lease"),
    ];
  }

  #cells(row, head) {
    const { host, pid, owns, memory, server, source, version, leaseLeft, isEnding } = row;
    if (row.isStarting)
      return [
        host.padEnd(4),
        String(pid).padEnd(9),
        ...head.slice(2, -1).map((name) => " ".repeat(name.length)),
        this.#state(row),
      ];
    const numbers = [
      isEnding ? "" : count(readsPerSecond(row)),
      percent(memory / Math.max(1, readsOf(row))),
      count(server),
      count(source),
      `#${version}`,
      isEnding || leaseLeft <= 0 ? "" : `${(leaseLeft / 1000).toFixed(2)} s`,
    ];
    const cells = numbers.map((text, at) => text.padStart(head[at + 2].length));
    return [host.padEnd(4), `${pid}${owns ? " *" : ""}`.padEnd(9), ...cells, this.#state(row)];
  }

  #state(row) {
    const text = state(row);
    if (text === "killed") return this.red(text);
    return text === "good" ? this.green(text) : this.yellow(text);
  }

  /** Replaces the table by `lines`, which stay, and the new table below them; in one write, so that nothing flickers. */
  #write(lines, table) {
    const width = this.#out.columns ?? Infinity;
    const up = this.#shown.length > 0 ? `\x1b[${this.#shown.length}F` : "";
    const end = this.#live ? "\x1b[K\n" : "\n";
    const text = [...lines, ...table.map((line) => cut(line, width))].map((line) => line + end).join("");
    const rest = this.#live ? "\x1b[J" : "";
    this.#out.write(up + text + rest);
    this.#shown = table;
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
}

function state({ wasKilled, isStarting, isGood }) {
  if (wasKilled) return "killed";
  if (isStarting) return "starting";
  return isGood ? "good" : "no lease";
}

/** A number with separators for thousands. */
export function count(number) {
  return Math.round(number).toLocaleString("en-US");
}

/** A share in per cent; less than all is never shown as 100. */
export function percent(share) {
  return `${(Math.floor(share * 1e4) / 100).toFixed(2)} %`;
}

/** Milliseconds. */
export function ms(number) {
  return `${number < 10 ? number.toFixed(1) : count(number)} ms`;
}

/** Cuts a line to the width of the terminal, because a wrapped line would make the table jump. */
function cut(line, width) {
  let room = width;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one, and take no room
  return line.replace(/\x1b\[\d+m|./gu, (part) => (part.startsWith("\x1b") || room-- > 0 ? part : ""));
}
