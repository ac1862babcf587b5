/**
 * Keys and values as people and programs write and read them: JSON for values that JSON does not know, pretty text that cannot steer
 * a terminal, and times such as `5m`. Knows nothing about caches.
 */

import { inspect } from "node:util";
import { Failure, USAGE } from "./failure.ts";
import { count, visibleLines } from "./render.ts";

/** A value of JSON. */
type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Bytes in JSON. */
export interface Base64 {
  base64: string;
}

/** A key or a value of bytes as `{"base64": …}`, anything else as it is. */
export function keyJson(key: string | Uint8Array): string | Base64 {
  return typeof key === "string" ? key : base64(key);
}

function base64(bytes: ArrayBufferView | ArrayBuffer): { base64: string } {
  const view = ArrayBuffer.isView(bytes)
    ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : Buffer.from(bytes);
  return { base64: view.toString("base64") };
}

/**
 * A value as JSON. What JSON does not know becomes what is nearest: bytes become `{"base64": …}`, a `Map` an array of pairs, a `Set` an
 * array, a `Date` its ISO text, a bigint, a `RegExp`, a `URL`, `NaN` and `Infinity` their text, an error its name and message, `undefined`
 * null, and a circle `"[Circular]"`.
 */
export function valueJson(value: unknown, around: readonly unknown[] = []): Json {
  if (value === null || value === undefined) return null;
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value !== "object") return String(value);
  if (around.includes(value)) return "[Circular]";
  const inner = (each: unknown): Json => valueJson(each, [...around, value]);
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return { ...base64(value) };
  if (Array.isArray(value)) return Array.from(value, inner);
  if (value instanceof Map) return Array.from(value, (pair) => pair.map(inner));
  if (value instanceof Set) return Array.from(value, inner);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Error) return { name: String(value.name), message: String(value.message) };
  if (value instanceof RegExp || value instanceof URL || value instanceof URLSearchParams) return String(value);
  if (value instanceof Number || value instanceof Boolean || value instanceof String) return inner(value.valueOf());
  const result: { [name: string]: Json } = Object.create(null);
  for (const [name, each] of Object.entries(value)) result[name] = inner(each);
  return result;
}

/** How much of a value people get to see. */
const MOST = { lines: 200, characters: 10_000 };

/** A value for people, on as many lines as it needs, cut with a note when it is long. */
export function showValue(value: unknown, width: number): string[] {
  const text = inspect(value, {
    depth: 12,
    breakLength: Number.isFinite(width) ? Math.max(20, width) : 100,
    maxArrayLength: 1000,
    maxStringLength: MOST.characters,
    // A value cannot have methods of its own here, and must not choose how it looks.
    customInspect: false,
  });
  const lines = visibleLines(text.slice(0, MOST.characters * 2)).split("\n");
  const kept = lines.slice(0, MOST.lines);
  const left = text.split("\n").length - kept.length;
  if (left > 0) kept.push(`… and ${count(left)} more lines: --json prints all of them.`);
  else if (text.length > MOST.characters * 2) kept.push("… and more: --json prints all of it.");
  return kept;
}

/** A value on one line, for a list of changes. */
export function showBriefly(value: unknown): string {
  const text = inspect(value, {
    depth: 3,
    breakLength: Infinity,
    maxArrayLength: 20,
    maxStringLength: 200,
    customInspect: false,
  });
  return visibleLines(text).replaceAll("\n", "\\n").slice(0, 1000);
}

const SPANS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * Reads a time such as `500ms`, `90s`, `5m`, `1h30m`, `7d`, or `never`. A number without a unit is refused, because it is milliseconds
 * in the package and seconds elsewhere.
 *
 * @returns milliseconds
 * @throws {Failure} when it is no such time.
 */
export function parseDuration(text: string, option: string): number {
  if (text === "never") return Infinity;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)];
  const ms = parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * (SPANS[unit as string] as number), 0);
  if (parts.length === 0 || parts.map(([part]) => part).join("") !== text || !(ms > 0)) {
    throw new Failure(USAGE, `${option}: must be a time such as 500ms, 90s, 5m, 1h30m or 7d, or never, not "${text}".`);
  }
  return ms;
}

/**
 * Reads a whole number of at least `least`.
 *
 * @throws {Failure} when it is none.
 */
export function parseCount(text: string, option: string, least = 1): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number) || number < least) {
    throw new Failure(USAGE, `${option}: must be a whole number of at least ${least}, not "${text}".`);
  }
  return number;
}

/**
 * Reads seconds, at least 0.1, such as `1` or `0.5`.
 *
 * @returns milliseconds
 * @throws {Failure} when it is no such number.
 */
export function parseSeconds(text: string, option: string): number {
  const seconds = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || !(seconds >= 0.1 && seconds <= 86_400)) {
    throw new Failure(USAGE, `${option}: must be a number of seconds from 0.1 to 86400, not "${text}".`);
  }
  return seconds * 1000;
}

/** The options with which a command says which key it means. */
export interface KeyOptions {
  readonly namespace?: readonly string[];
  readonly base64?: boolean;
}

/**
 * Reads a key from the command line: text, or bytes as base64 with the option of that name.
 *
 * @throws {Failure} when it is no base64.
 */
export function parseKey(text: string, { base64: isBase64 }: KeyOptions): string | Uint8Array {
  if (!isBase64) return text;
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64").replace(/=+$/, "") !== text.replace(/=+$/, "")) {
    throw new Failure(USAGE, `key: is no base64, as --base64 says: "${text}".`);
  }
  return bytes;
}

/** Collects an option that may stand several times. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

/** Collects tags: an option that may stand several times, with commas between the tags. */
export function collectTags(value: string, before: readonly string[] = []): string[] {
  return [...before, ...value.split(",").filter((tag) => tag !== "")];
}
