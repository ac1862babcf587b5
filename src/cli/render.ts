/**
 * What people see: tables, numbers with units, and text that cannot steer the terminal. Knows nothing about caches.
 *
 * Keys and values come from programs, and perhaps from attackers. All text of theirs passes through `visible` before it reaches a
 * terminal.
 */

import { Chalk, type ChalkInstance, supportsColor } from "chalk";
import stringWidth from "string-width";

/** Characters that move the cursor, change colours, turn the direction of text, or have no shape: they are shown as escapes. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;
const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escapeOf(char: string): string {
  const code = char.codePointAt(0) as number;
  if (code < 0x100) return SHORT[char] ?? `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\u{${code.toString(16)}}`;
}

/** Text on one line, with an escape in place of each invisible character, and of the backslash, so that no two texts look the same. */
export function visible(text: string): string {
  return text.replaceAll("\\", "\\\\").replace(INVISIBLE, escapeOf);
}

/** Text of several lines: as `visible`, but line breaks and backslashes stay. For text that has escapes already. */
export function visibleLines(text: string): string {
  return text.replace(INVISIBLE, (char) => (char === "\n" ? char : escapeOf(char)));
}

/** A text of JSON, with an escape of JSON in place of each invisible character: it stands for the same document. */
export function invisibleEscaped(json: string): string {
  return json.replace(INVISIBLE, (char) =>
    Array.from({ length: char.length }, (_, i) => `\\u${char.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""),
  );
}

/** A key for people. Bytes look as Node.js prints a Buffer. */
export function showKey(key: string | Uint8Array): string {
  return typeof key === "string"
    ? visible(key)
    : `<Buffer ${Buffer.from(key)
        .toString("hex")
        .replace(/..(?=.)/g, "$& ")}>`;
}

/** A name with its namespaces around it, for example `users / alice`. */
export function showPath(namespace: readonly string[], key: string | Uint8Array): string {
  return [...namespace.map(visible), showKey(key)].join(" / ");
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A number of bytes, such as `512 B`, `1.5 KiB`, `64 MiB`. */
export function bytes(count: number): string {
  let unit = 0;
  // From 1023.95 KiB on, the rounded number would be 1024.0.
  while (unit < UNITS.length - 1 && Math.abs(count) >= (unit === 0 ? 1024 : 1023.95)) {
    count /= 1024;
    unit++;
  }
  return `${unit === 0 ? Math.round(count) : Number(count.toFixed(1))} ${UNITS[unit]}`;
}

/** A whole number with separators, such as `1,234,567`. */
export function count(number: number): string {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A share of one, such as `98.7 %`; `-` when there is none. */
export function percent(share: number): string {
  return Number.isFinite(share) ? `${(share * 100).toFixed(1)} %` : "-";
}

const SPANS: readonly (readonly [unit: string, ms: number])[] = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
];

/** A time in at most two units, such as `350 ms`, `4.2 s`, `5 m 3 s`, `2 d 1 h`; `never` for `Infinity`. */
export function duration(ms: number): string {
  if (ms === Infinity) return "never";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${Number((Math.floor(ms / 100) / 10).toFixed(1))} s`;
  const first = SPANS.findIndex(([, span]) => ms >= span);
  const [unit, span] = SPANS[first] as readonly [string, number];
  const next = SPANS[first + 1];
  const rest = next === undefined ? 0 : Math.floor((ms % span) / next[1]);
  return `${Math.floor(ms / span)} ${unit}${rest === 0 ? "" : ` ${rest} ${next?.[0]}`}`;
}

/** Columns that a text takes in a terminal. */
export function widthOf(text: string): number {
  return /^[\x20-\x7e]*$/.test(text) ? text.length : stringWidth(text);
}

/** Cuts a text without colours to a number of columns. The last one is `…` if something was cut. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = "";
  let used = 0;
  // A text is at most as wide as its number of characters twice over, so longer ones need not be looked at whole.
  for (const { segment } of new Intl.Segmenter().segment(text.slice(0, width * 8))) {
    used += widthOf(segment);
    if (used > width - 1) break;
    kept += segment;
  }
  return width > 0 ? `${kept}…` : "";
}

/** Breaks a text at spaces. A word that is too wide for a line stays whole. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || widthOf(last) + 1 + widthOf(word) > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** A path as a shell takes it, without what could steer the terminal. */
export function quoted(path: string): string {
  return /^[\w./:@=+-]+$/.test(path) ? path : `'${visible(path).replaceAll("'", "'\\''")}'`;
}

/** A column of a table. */
export interface Column {
  readonly title: string;
  /** Numbers stand on the right; `"left"` by default. */
  readonly align?: "left" | "right";
  /** Columns that may be cut when the table is too wide; the others keep their width. */
  readonly shrinks?: boolean;
  /** The colour of the cells. */
  readonly style?: ((text: string) => string) | undefined;
}

const GAP = "  ";
/** A column is not cut to fewer columns of the terminal than this. */
const LEAST = 8;

/** The widths of the columns, so that a row fits into `width` if that is possible. */
export function fit(columns: readonly Column[], rows: readonly (readonly string[])[], width: number): number[] {
  const widths = columns.map(({ title }, i) =>
    rows.reduce((most, row) => Math.max(most, widthOf(row[i] ?? "")), widthOf(title)),
  );
  let excess = widths.reduce((sum, each) => sum + each, 0) + GAP.length * (columns.length - 1) - width;
  while (excess > 0) {
    let widest = -1;
    for (const [i, { shrinks }] of columns.entries()) {
      const own = widths[i] as number;
      if (shrinks && own > LEAST && (widest < 0 || own > (widths[widest] as number))) widest = i;
    }
    if (widest < 0) break;
    const others = columns.flatMap(({ shrinks }, i) => (shrinks && i !== widest ? [widths[i] as number] : []));
    const step = Math.min(excess, Math.max(1, (widths[widest] as number) - Math.max(LEAST, ...others)));
    widths[widest] = (widths[widest] as number) - step;
    excess -= step;
  }
  return widths;
}

/** A row of a table, without spaces at its end, and never wider than `width`. */
export function row(
  cells: readonly string[],
  columns: readonly Column[],
  widths: readonly number[],
  width: number = Infinity,
): string {
  let left = width;
  const parts: string[] = [];
  for (const [i, column] of columns.entries()) {
    if (left <= 0) break;
    const text = cut(cells[i] ?? "", Math.min(widths[i] as number, left));
    const space = " ".repeat(Math.max(0, Math.min(widths[i] as number, left) - widthOf(text)));
    const styled = column.style === undefined ? text : column.style(text);
    const last = i === columns.length - 1;
    parts.push(column.align === "right" ? space + styled : last ? styled : styled + space);
    left -= (widths[i] as number) + GAP.length;
  }
  return parts.join(GAP).trimEnd();
}

/** How a table is drawn. */
export interface TableOptions {
  /** Columns of the terminal; without limit by default. */
  readonly width?: number;
  /** The colour of the titles. */
  readonly title?: (text: string) => string;
}

/** A table with its titles. An empty one has only titles. */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  options: TableOptions = {},
): string[] {
  const { width = Infinity, title = (text) => text } = options;
  const widths = fit(columns, rows, width);
  const titles = columns.map((column) => column.title);
  const plain = columns.map(({ align }) => ({ title: "", ...(align && { align }) }));
  return [title(row(titles, plain, widths, width)), ...rows.map((cells) => row(cells, columns, widths, width))];
}

/** Names and values below each other. */
export function list(
  pairs: readonly (readonly [name: string, value: string])[],
  style: (text: string) => string,
): string[] {
  const widest = Math.max(0, ...pairs.map(([name]) => widthOf(name)));
  return pairs.map(([name, value]) => `${style(name)}${" ".repeat(widest - widthOf(name))}  ${value}`);
}

/** The colours for a stream: none unless it is a terminal, and none if NO_COLOR is set; FORCE_COLOR wins over both. */
export function coloursFor(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): ChalkInstance {
  const forced = env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== "0" && env.FORCE_COLOR !== "false";
  const wanted = forced || (stream.isTTY === true && (env.NO_COLOR ?? "") === "");
  const level = wanted && supportsColor !== false ? supportsColor.level : 0;
  return new Chalk({ level });
}
