/**
 * Packs objects for the near cache, so that it can give each reader a copy of its own.
 *
 * Programs store many objects of the same shape: with the same names in the same order. For a shape that is met often, a
 * function is compiled. It contains an object literal that takes its values from one flat array; the values of nested objects
 * are in the same array. So a copy takes nanoseconds, and waits for memory once instead of once for each object. (msgpackr
 * reads records in the same way.) Values without such a function are copied by `copy.ts`.
 *
 * The compiled code contains nothing of a value but its names, as JSON strings. Browsers compile nothing, because a page can
 * forbid it. Node.js compiles nothing if it was started with `--disallow-code-generation-from-strings`.
 */

import { type Copier, copierOf, copy } from "./copy.ts";

/** A packed value: a function that makes a copy, and the parts that it makes the copy of. {@link unpack} calls it. */
export type Packed = [copyOf: (packed: Packed) => unknown, ...parts: unknown[]];

/** Makes a copy of the value that was packed. */
export function unpack(packed: Packed): unknown {
  return packed[0](packed);
}

/** A function is compiled once a shape was met this many times. */
const OFTEN = 4;
/** Objects with more parts (values and nested objects), or with more levels, get no function. */
const PARTS = 128;
const DEPTH = 16;
/** At most this many next steps of a step are remembered. If the names are data (ids, for example), there are always more. */
const BRANCHES = 16;
/** Above this many bytes all shapes are forgotten. A compiled function lives on as long as a value is packed with it. */
const BYTES = 1 << 19;
const STEP_BYTES = 144;
/** A longer name is taken for data, which is not met again. */
const LONGEST_NAME = 128;
/** With this many functions all shapes are forgotten. A function takes a fixed number of bytes, and some for each character. */
const FUNCTIONS = 256;
const FUNCTION_BYTES = 3000;
const CODE_BYTES = 6;

/**
 * The part that follows a name: a primitive value, a nested object, an array; or the end of an object. For an array of at
 * most {@link SHORT} primitive values it is `LIST` plus the length.
 */
const PRIMITIVE = 0;
const OBJECT = 1;
const ARRAY = 2;
const END = 3;
const LIST = 4;
const SHORT = 4;

type Plain = Record<string, unknown>;

/**
 * A node of a trie: a name of an object, or the end of an object. Each path from the root is the shape of an object, so one
 * walk through an object finds its shape.
 */
interface Step {
  readonly name: string;
  readonly part: number;
  readonly next: Step[];
  /** At the end of a shape: how often the shape was met, and the function for it. */
  met: number;
  copyOf: Packed[0] | undefined;
}

/** The shapes that one near cache has met. */
export class Shapes {
  first: Step = newStep("", OBJECT);
  functions = 0;
  bytes = 0;
  /** The heap bytes of the function that the last {@link pack} has compiled; 0 if it has compiled none. */
  compiled = 0;

  /**
   * Packs a value. Returns `undefined` if the value cannot be copied (see `copierOf`). The caller must not use the value any
   * more.
   */
  pack(value: unknown): Packed | undefined {
    this.compiled = 0;
    const packed = globalThis.process && isPlain(value) ? packByShape(this, value) : undefined;
    if (packed !== undefined) return packed;
    const copier = copierOf(value);
    return copier && [copyPlanned, value, copier];
  }
}

function copyPlanned([, value, copier]: Packed): unknown {
  return copy(value, copier as Copier);
}

/** Packs an object for the function of its shape; `undefined` if there is no such function. */
function packByShape(shapes: Shapes, value: Plain): Packed | undefined {
  if (shapes.bytes > BYTES || shapes.functions >= FUNCTIONS) {
    shapes.first = newStep("", OBJECT);
    shapes.functions = 0;
    shapes.bytes = 0;
  }
  const packed = [undefined] as unknown as Packed;
  const before = made;
  const last = walk(value, shapes.first, packed, new Set(), DEPTH);
  shapes.bytes += made - before;
  if (last === undefined) return undefined;
  if (++last.met === OFTEN) {
    last.copyOf = compile(value);
    shapes.compiled = FUNCTION_BYTES + CODE_BYTES * String(last.copyOf).length;
    shapes.functions++;
  }
  if (last.copyOf === undefined) return undefined;
  packed[0] = last.copyOf;
  // An array that has grown has spare room; the slice has none.
  return packed.slice() as Packed;
}

/**
 * Walks through an object and along the trie, and packs the parts of the object. Returns the last step of its shape, or
 * `undefined` if the object cannot be packed.
 */
function walk(value: Plain, from: Step, packed: unknown[], seen: Set<object>, depth: number): Step | undefined {
  if (depth === 0 || seen.has(value)) return undefined;
  seen.add(value);
  let at = from;
  for (const name of Object.keys(value)) {
    const item = value[name];
    const part = partOf(item);
    if (name.length > LONGEST_NAME) return undefined;
    at = follow(at, name, part);
    // In an object literal this name sets the prototype.
    if (name === "__proto__" || packed.length + seen.size > PARTS) return undefined;
    if (part === PRIMITIVE) packed.push(item);
    else if (part >= LIST) {
      if (seen.has(item as object)) return undefined;
      seen.add(item as object);
      packed.push(...(item as unknown[]));
    } else if (part === ARRAY) {
      const copier = copierOf(item, seen);
      if (copier === undefined) return undefined;
      packed.push(item, copier);
    } else {
      const last = isPlain(item) ? walk(item, at, packed, seen, depth - 1) : undefined;
      if (last === undefined) return undefined;
      at = last;
    }
  }
  return follow(at, "", END);
}

/**
 * Returns the next step for a name and its part. A step that is met moves towards the front. A new step takes the last place
 * once all {@link BRANCHES} are taken.
 */
function follow({ next }: Step, name: string, part: number): Step {
  for (let i = 0; i < next.length; i++) {
    const one = next[i] as Step;
    if (one.name !== name || one.part !== part) continue;
    if (i > 0) {
      next[i] = next[i - 1] as Step;
      next[i - 1] = one;
    }
    return one;
  }
  const added = newStep(name, part);
  next[Math.min(next.length, BRANCHES - 1)] = added;
  return added;
}

/** The bytes of all steps that were ever made. */
let made = 0;

function newStep(name: string, part: number): Step {
  made += STEP_BYTES + name.length * 2;
  return { name, part, next: [], met: 0, copyOf: undefined };
}

function isPlain(value: unknown): value is Plain {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

function isPrimitive(item: unknown): boolean {
  return typeof item !== "object" || item === null;
}

function partOf(item: unknown): number {
  if (isPrimitive(item)) return PRIMITIVE;
  if (!Array.isArray(item)) return OBJECT;
  const isList = item.length <= SHORT && Object.keys(item).length === item.length && item.every(isPrimitive);
  return isList ? LIST + item.length : ARRAY;
}

/** Compiles a function for the shape of a value; `undefined` where the runtime forbids to compile text. */
function compile(value: Plain): Packed[0] | undefined {
  let at = 1;
  const expression = (item: unknown): string => {
    const part = partOf(item);
    if (part === PRIMITIVE) return `packed[${at++}]`;
    if (part >= LIST) return `[${(item as unknown[]).map(expression).join()}]`;
    if (part === ARRAY) return `copy(packed[${at++}], packed[${at++}])`;
    const properties = Object.keys(item as Plain).map(
      (name) => `${JSON.stringify(name)}: ${expression((item as Plain)[name])}`,
    );
    return `{${properties.join()}}`;
  };
  try {
    return new Function("copy", `return (packed) => (${expression(value)});`)(copy);
  } catch {
    return undefined;
  }
}
