/**
 * What an object is, told by what it holds and not by what it says: neither `Symbol.toStringTag`, nor a method that somebody
 * replaced, nor another realm (which test runners and `node:vm` make) changes the answer. Relies on the runtime only.
 */
import { typedArrayKind } from "./runtime.ts";

type Kind = abstract new (...args: never[]) => object;
/** Refuses every object that is not of its kind; what it returns is what the object holds. */
type Content = (this: unknown) => unknown;

const getter = (kind: Kind, name: string): Content =>
  Object.getOwnPropertyDescriptor(kind.prototype, name)?.get as Content;

const KINDS: readonly (readonly [string, Kind, Content])[] = [
  ["Map", Map, Map.prototype.entries],
  ["Set", Set, Set.prototype.values],
  ["Date", Date, Date.prototype.getTime],
  ["RegExp", RegExp, getter(RegExp, "source")],
  ["ArrayBuffer", ArrayBuffer, getter(ArrayBuffer, "byteLength")],
  ["URL", URL, URL.prototype.toString],
  ["URLSearchParams", URLSearchParams, URLSearchParams.prototype.toString],
  ["Number", Number, Number.prototype.valueOf],
  ["String", String, String.prototype.valueOf],
  ["Boolean", Boolean, Boolean.prototype.valueOf],
  ["BigInt", BigInt as unknown as Kind, BigInt.prototype.valueOf],
];
const contents: ReadonlyMap<string, Content> = new Map(KINDS.map(([name, , content]) => [name, content]));
const kinds: ReadonlyMap<unknown, string> = new Map([
  ...KINDS.map(([name, kind]) => [kind.prototype, name] as const),
  [Error.prototype, "Error"],
]);
const TEMPORAL = "Temporal.";
const toTag: () => string = Object.prototype.toString;

/** What `Object.prototype.toString` calls a value, which anybody can choose. */
export function tagOf(value: unknown): string {
  return toTag.call(value).slice(8, -1);
}

/**
 * `"Map"`, `"Uint8Array"` (for a `Buffer`, too), `"Error"` with all its subclasses, `"Temporal.Instant"` … of what comes back
 * as what it is; `"Array"`; `"Object"` for plain objects and all others.
 */
export function kindOf(value: object): string {
  if (Array.isArray(value)) return "Array";
  if (ArrayBuffer.isView(value)) return typedArrayKind(value) ?? "DataView";
  let kind: string | undefined;
  let at: unknown = Object.getPrototypeOf(value);
  while (at !== null && at !== Object.prototype && kind === undefined) {
    kind = kinds.get(at);
    at = Object.getPrototypeOf(at);
  }
  if (kind === undefined) {
    const tag = (value as Record<symbol, unknown>)[Symbol.toStringTag];
    const isTold = typeof tag === "string";
    if (isTold && tag.startsWith(TEMPORAL)) kind = tag;
    // Of this realm, and of no kind of it.
    else if (at !== null) return "Object";
    else kind = tagOf(value);
    if (kind === "Error" ? !isTold : isForeignError(value)) return "Error";
  }
  return kind === "Error" || holds(value, contents.get(kind) ?? contentOfTemporal(kind)) ? kind : "Object";
}

/** What an object of that kind holds: entries, time, text, the primitive value. */
export function contentOf(value: object, kind: string): unknown {
  return (contents.get(kind) ?? contentOfTemporal(kind))?.call(value);
}

/** Newer runtimes tell errors of other realms that call themselves something else. */
function isForeignError(value: object): boolean {
  return (Error as { isError?: (value: unknown) => boolean }).isError?.(value) === true;
}

function contentOfTemporal(tag: string): Content | undefined {
  const { Temporal } = globalThis as { Temporal?: Record<string, Kind | undefined> };
  return Temporal?.[tag.slice(TEMPORAL.length)]?.prototype?.toString;
}

function holds(value: object, content: Content | undefined): boolean {
  try {
    content?.call(value);
    return content !== undefined;
  } catch (error) {
    if (isStackOverflow(error)) throw error;
    return false;
  }
}

/** Whether there is anything to wait for: a Promise, or what looks like one. */
export function isThenable(value: object): boolean {
  return typeof (value as { then?: unknown }).then === "function";
}

/** Also where a native function ran out of stack and says so in an error of its own. */
export function isStackOverflow(error: unknown): boolean {
  const message = error instanceof Error ? String(error.message) : "";
  return message.includes("Maximum call stack size exceeded") || message === "too much recursion";
}
