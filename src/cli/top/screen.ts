/**
 * The screen of `top` as lines of text: a frame of numbers goes in, and exactly as many lines as the terminal has come out, none of them
 * wider than the terminal. Nothing here writes to a terminal.
 *
 * Colours: only those of the sixteen that can be read on light and on dark grounds; headings are the default colours, inverted or bold.
 */

import type { ChalkInstance } from "chalk";
import cliTruncate from "cli-truncate";
import stringWidth from "string-width";
import { visible, wrap } from "../render.ts";
import type { Frame, Holding, Participant, Point } from "./sample.ts";

/** What the rows are sorted by. */
export type Sort = (typeof SORTS)[number];
export const SORTS = ["ops", "near", "held", "state", "pid"] as const;

/** What there is to see, and how. */
export interface View {
  name: string;
  /** `undefined` before the first look, and while the cache is not there. */
  frame: Frame | undefined;
  history: readonly Point[];
  /** Stands in place of the numbers when there is no frame, such as that the cache is gone. */
  message?: string | undefined;
  /** Time of day as text. */
  time: string;
  /** Seconds between two looks. */
  interval: number;
  sort: Sort;
  /** How many rows are scrolled away. */
  offset: number;
  paused: boolean;
  help: boolean;
  columns: number;
  rows: number;
}

const SPARKS = [..."▁▂▃▄▅▆▇█"];
/** The time that a curve shows, in milliseconds. */
const CURVE = 120_000;
const HELP: readonly (readonly [what: string, text: string])[] = [
  ["q, Ctrl-C", "quit"],
  ["s, → and ←", `sort by another column: ${SORTS.join(", ")}`],
  ["↓ ↑ PgDn PgUp", "scroll the participants; Home and End too"],
  ["p, space", "pause, and go on"],
  ["+ and -", "look less often, more often"],
  ["?, h", "this help"],
  ["", ""],
  ["hit ratio", "reads that found a value, of the reads in the interval"],
  ["near", "reads that near caches answered, of the reads"],
  ["holds", "what it has at this moment, and since when that was seen"],
  ["waits for", "locks of others that it waits for"],
  ["frozen", "its process was stopped, by a signal, a debugger or a freezer"],
  ["dead", "it ended without close; its seat is free for the next"],
  ["unknown", "it is in another container, or cannot be asked"],
];

/**
 * Draws the screen.
 *
 * @returns `rows` lines, without line breaks, each at most `columns` wide
 */
export function draw(view: View, chalk: ChalkInstance): string[] {
  const { columns, rows } = view;
  const lines: string[] = [titleOf(view, chalk)];
  const footer = footerOf(view, chalk);
  if (view.help) lines.push("", ...helpOf(columns));
  else if (view.frame === undefined) lines.push("", view.message ?? "");
  else {
    const room = rows - 1;
    lines.push(
      ...warningsOf(view.frame, columns, Math.max(1, Math.floor(rows / 6)), chalk),
      ...numbersOf(view, view.frame, chalk),
      "",
    );
    lines.push(...tableOf(view, view.frame, room - lines.length, chalk));
  }
  const fitted = lines.slice(0, Math.max(0, rows - 1)).map((line) => fit(line, columns));
  while (fitted.length < rows - 1) fitted.push("");
  return [...fitted, fit(footer, columns)].slice(0, rows);
}

/** The frame as one line of plain text, `name=value` with a space between. What is not known yet is left out. */
export function plain(name: string, time: string, frame: Frame): string {
  const { rates } = frame;
  const states = (state: Participant["state"]) => frame.participants.filter((each) => each.state === state).length;
  const fields: [string, string | number | null | undefined][] = [
    ["cache", visible(name).replaceAll(" ", "\\x20")],
    ["hit", percent(frame.hitRatio, "")],
    ["ops/s", whole(rates?.operations)],
    ["reads/s", whole(rates?.reads)],
    ["sets/s", whole(rates?.sets)],
    ["deletes/s", whole(rates?.deletes)],
    ["near", percent(frame.nearShare, "")],
    ["entries", frame.entries],
    ["bytes", frame.bytes],
    ["used", frame.used],
    ["capacity", frame.capacity],
    ["evictions/s", whole(frame.evictions)],
    ["expirations/s", whole(frame.expirations)],
    ["reclaims/s", whole(frame.reclaims)],
    ["participants", frame.participants.length],
    ["frozen", states("frozen")],
    ["dead", states("dead")],
    ["warnings", frame.warnings.map(({ code }) => code).join(",") || null],
  ];
  const known = fields.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return [time, ...known.map(([field, value]) => `${field}=${value}`)].join(" ");
}

function fit(line: string, columns: number): string {
  return stringWidth(line) <= columns ? line : columns < 1 ? "" : cliTruncate(line, columns);
}

function helpOf(columns: number): string[] {
  const indent = 15;
  return HELP.flatMap(([what, text]) =>
    wrap(text, columns - indent).map((line, i) => (i === 0 ? what : "").padEnd(indent) + line),
  );
}

function titleOf({ name, frame, time, paused, columns }: View, chalk: ChalkInstance): string {
  const size = frame === undefined ? "" : ` · ${bytes(frame.size)}`;
  const right = `${paused ? "paused · " : ""}${time}`;
  const left = `${chalk.bold("cache-machine top")} · `;
  const room = columns - stringWidth(left) - stringWidth(size) - stringWidth(right) - 2;
  return beside(`${left}${chalk.bold(fit(visible(name), Math.max(8, room)))}${size}`, right, columns);
}

function footerOf({ sort, interval, help, paused }: View, chalk: ChalkInstance): string {
  const keys: [string, string][] = help
    ? [
        ["?", "back"],
        ["q", "quit"],
      ]
    : [
        ["q", "quit"],
        ["s", `sort: ${sort}`],
        ["p", paused ? "go on" : "pause"],
        ["+-", `every ${interval} s`],
        ["?", "help"],
      ];
  return keys.map(([key, text]) => `${chalk.inverse(` ${key} `)} ${text}`).join("  ");
}

/** The warnings, wrapped at words, the worst first. The last line says how many there was no room for. */
function warningsOf({ warnings }: Frame, columns: number, most: number, chalk: ChalkInstance): string[] {
  const lines: string[] = [];
  for (const [i, { code, text }] of warnings.entries()) {
    const wrapped = wrap(visible(text), columns - 2);
    if (i > 0 && lines.length + wrapped.length > most) {
      const more = `(+${warnings.length - i} more)`;
      const last = lines.pop() as string;
      lines.push(beside(fit(last, columns - more.length - 1), more, columns));
      break;
    }
    const colour = code === "frozen" || code === "dead" ? chalk.magenta : chalk.red.bold;
    lines.push(...wrapped.map((line, n) => colour(`${n === 0 ? "!" : " "} ${line}`)));
  }
  return lines;
}

function numbersOf({ history, columns }: View, frame: Frame, chalk: ChalkInstance): string[] {
  const { rates, used, capacity } = frame;
  const numbers: [string, string][] = [
    ["hit ratio", percent(frame.hitRatio)],
    ["operations", perSecond(rates?.operations)],
  ];
  const curve = Math.min(60, columns - 29);
  const highest = Math.max(...history.map(({ operations }) => operations), 1);
  const curves = [
    spark(history, curve, 1, ({ hitRatio }) => hitRatio),
    spark(history, curve, highest, ({ operations }) => operations),
  ];
  const scales = ["0–100 %", `0–${short(highest)}`];
  const share = capacity > 0 ? used / capacity : 0;
  const bar = Math.min(30, columns - 57);
  const filled = Math.round(share * bar);
  const gauge = bar < 4 ? "" : `${chalk.green("█".repeat(filled))}${"░".repeat(bar - filled)} `;
  const line = (...pieces: (string | false)[]) => joined(" ".repeat(11), pieces, columns);
  const entries = frame.entries !== null && `${short(frame.entries)} entries`;
  const inEntries = frame.bytes !== null && bytes(frame.bytes);
  return [
    ...numbers.map(([label, value], i) => {
      const drawn = curve < 10 ? "" : `  ${chalk.green(curves[i] as string)} ${scales[i]}`;
      return `${label.padEnd(11)}${chalk.bold(value.padStart(8))}${drawn}`;
    }),
    line(
      `reads ${perSecond(rates?.reads)}`,
      `sets ${perSecond(rates?.sets)}`,
      `near hits ${percent(frame.nearShare)}`,
      `deletes ${perSecond(rates?.deletes)}`,
    ),
    joined("memory     ", [`${gauge}${percent(share)} of ${bytes(capacity)}`, entries, inEntries], columns),
    line(
      `evictions ${perSecond(frame.evictions)}`,
      `reclaims ${perSecond(frame.reclaims)}`,
      `expirations ${perSecond(frame.expirations)}`,
    ),
  ];
}

/** Pieces with a dot between, as many from the first on as there is room for. */
function joined(label: string, pieces: readonly (string | false)[], columns: number): string {
  const known = pieces.filter((piece) => piece !== false);
  let line = label + (known[0] ?? "");
  for (const piece of known.slice(1)) {
    if (stringWidth(line) + 3 + stringWidth(piece) > columns) break;
    line += ` · ${piece}`;
  }
  return line;
}

/** A curve of the last two minutes. Its columns are of fixed times, so that it moves only when a column is full. */
export function spark(
  history: readonly Point[],
  columns: number,
  highest: number,
  pick: (point: Point) => number | null,
): string {
  if (columns < 1) return "";
  const step = CURVE / columns;
  const last = Math.floor((history.at(-1)?.at ?? 0) / step);
  const sums = Array.from({ length: columns }, () => ({ sum: 0, count: 0 }));
  for (const point of history) {
    const value = pick(point);
    const column = sums[columns - 1 - (last - Math.floor(point.at / step))];
    if (column === undefined || value === null) continue;
    column.sum += value;
    column.count++;
  }
  const known = sums.map(({ sum, count }) => (count > 0 ? sum / count : undefined));
  // Looks further apart than a column leave columns out: these show the value before.
  let before: number | undefined;
  return known
    .map((value) => {
      before = value ?? before;
      if (before === undefined) return " ";
      return SPARKS[Math.min(7, Math.max(0, Math.floor((before / highest) * 8)))] as string;
    })
    .join("");
}

interface Column {
  title: string;
  width: number;
  /** The sort that this column stands for. */
  sort?: Sort;
  left?: boolean;
  text(participant: Participant): string;
}

function columnsOf(columns: number): Column[] {
  const rate = (pick: (rates: NonNullable<Participant["rates"]>) => number) => (participant: Participant) =>
    participant.rates === null ? "–" : short(pick(participant.rates));
  const wide = columns >= 76;
  const found: (Column | false)[] = [
    { title: "PID", width: 8, sort: "pid", text: ({ pid }) => (pid === 0 ? "?" : `${pid}`) },
    { title: "THREAD", width: 6, text: ({ threadId }) => (threadId === 0 ? "main" : `${threadId}`) },
    { title: "STATE", width: 7, sort: "state", left: true, text: ({ state }) => state },
    { title: "OPS/S", width: 7, sort: "ops", text: rate(({ operations }) => operations) },
    wide && { title: "READS/S", width: 7, text: rate(({ reads }) => reads) },
    wide && { title: "SETS/S", width: 7, text: rate(({ sets }) => sets) },
    { title: "NEAR", width: 6, sort: "near", text: ({ nearShare }) => percent(nearShare) },
  ];
  const fixed = found.filter((each) => each !== false);
  const room = columns - fixed.reduce((sum, { width }) => sum + width + 1, 0);
  if (columns >= 110) {
    const half = Math.floor((room - 1) / 2);
    fixed.push({ title: "HOLDS", width: half, sort: "held", left: true, text: ({ holds }) => inWords(holds) });
    fixed.push({ title: "WAITS FOR", width: half, left: true, text: ({ waitsFor }) => inWords(waitsFor) });
  } else {
    const text = ({ holds, waitsFor }: Participant) =>
      [inWords(holds), waitsFor.length > 0 ? `waits: ${inWords(waitsFor)}` : ""].filter(Boolean).join("; ");
    fixed.push({ title: "HOLDS, WAITS FOR", width: Math.max(0, room), sort: "held", left: true, text });
  }
  return fixed;
}

function inWords(holdings: readonly Holding[]): string {
  const times = [...holdings].sort((a, b) => b.since - a.since);
  return times.map(({ what, since }) => visible(what) + (since >= 1000 ? ` ${duration(since)}` : "")).join(", ");
}

function tableOf(view: View, { participants }: Frame, room: number, chalk: ChalkInstance): string[] {
  const columns = columnsOf(view.columns);
  const cell = (text: string, { width, left }: Column) => {
    const fitted = fit(text, width);
    const space = " ".repeat(Math.max(0, width - stringWidth(fitted)));
    return left ? fitted + space : space + fitted;
  };
  const head = columns.map((each) => cell(each.title + (each.sort === view.sort ? "▾" : ""), each)).join(" ");
  const sorted = sort(participants, view.sort);
  const most = Math.max(0, room - 1);
  const all = sorted.length <= most;
  const offset = clampOffset(view.offset, sorted.length, view.columns, most);
  const shown = sorted.slice(offset, offset + (all ? most : Math.max(0, most - 1)));
  const rows = shown.map((each) => {
    const line = columns.map((column) => cell(column.text(each), column)).join(" ");
    if (each.state === "frozen" || each.state === "dead")
      return each.holds.length > 0 ? chalk.red.bold(line) : chalk.magenta(line);
    return line;
  });
  const lines = [chalk.inverse(fit(head.padEnd(view.columns), view.columns)), ...rows];
  if (participants.length === 0) lines.push("nobody has the cache open");
  if (!all)
    lines.push(`${offset + 1} to ${offset + shown.length} of ${sorted.length} participants: scroll with ↓ and ↑`);
  return lines;
}

/** How many rows can be scrolled away at most, so that the last page is full. */
function clampOffset(offset: number, count: number, _columns: number, most: number): number {
  return Math.max(0, Math.min(offset, count - Math.max(1, most - 1)));
}

const STATES: readonly Participant["state"][] = ["frozen", "dead", "unknown", "alive"];

/** The participants in the order of a column. Ties are in the order of the seats, so that rows do not jump. */
export function sort(participants: readonly Participant[], by: Sort): Participant[] {
  const longest = ({ holds, waitsFor }: Participant) =>
    Math.max(...holds.map(({ since }) => since + 2), ...waitsFor.map(({ since }) => since + 1), 0);
  const keys: Record<Sort, (participant: Participant) => number> = {
    ops: ({ rates }) => -(rates?.operations ?? 0),
    near: ({ nearShare }) => nearShare ?? 2,
    held: (participant) => -longest(participant),
    state: ({ state }) => STATES.indexOf(state),
    pid: ({ pid }) => pid,
  };
  return [...participants].sort((a, b) => keys[by](a) - keys[by](b) || a.seat - b.seat);
}

// ---- Numbers as text

/** A share as a percentage of four characters at most, and its unit. */
function percent(share: number | null | undefined, unit = " %"): string {
  if (share === null || share === undefined) return unit === "" ? "" : "–";
  const value = 100 * share;
  return `${value >= 99.95 ? 100 : value.toFixed(1)}${unit}`;
}

/** A count with at most five characters: `12.3k`. */
export function short(value: number): string {
  if (value < 9.95) return value === Math.round(value) ? `${value}` : value.toFixed(1);
  const units = ["", "k", "M", "G", "T"];
  let unit = 0;
  while (Math.round(value) >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit > 0 && value < 99.95 ? value.toFixed(1) : Math.round(value)}${units[unit]}`;
}

function perSecond(rate: number | null | undefined): string {
  return rate === null || rate === undefined ? "–" : `${short(rate)}/s`;
}

function whole(rate: number | null | undefined): number | undefined {
  return rate === null || rate === undefined ? undefined : Math.round(rate * 10) / 10;
}

/** Bytes in the units in which sizes of caches are given: 1 KiB is 1,024 bytes. */
function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit > 0 && value < 99.95 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${units[unit]}`;
}

function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

// ---- Text that fits

/** Two texts at the two ends of a line. */
function beside(left: string, right: string, columns: number): string {
  const space = columns - stringWidth(left) - stringWidth(right);
  return space < 1 ? fit(left, columns) : left + " ".repeat(space) + right;
}
