/**
 * Objects as the near cache keeps them: packed, so that each reader can be given a copy of its own.
 *
 * Programs store many objects with the same names. Once a few of one shape were met, a function is compiled for it: an
 * object literal that takes all it needs from one array, in which the values of the objects within lie together. So a copy
 * takes nanoseconds, and waits for memory once and not for each object. (msgpackr reads records that way.) What has no such
 * function yet, and what is no object, is copied by `copy.ts`.
 *
 * Of what was stored only names get into the code, and only as JSON strings. Browsers compile nothing here, as their pages
 * may forbid it; nor does Node.js when it was started with `--disallow-code-generation-from-strings`.
 */

import { type Copier, copierOf, copy } from "./copy.ts";

/** What makes a copy, and what it makes it of: see {@link unpack}. */
export type Packed = [copyOf: (packed: Packed) => unknown, ...parts: unknown[]];

/** A copy of what was packed. */
export function unpack(packed: Packed): unknown {
  return packed[0](packed);
}

/** How often a shape is met before a function is compiled for it. */
const OFTEN = 4;
/** An object with more values and objects in it, or with objects within one another deeper, is not worth a function. */
const PARTS = 128;
const DEPTH = 16;
/** Ways on from one step that are remembered. Where names are data there are always more. */
const WAYS = 16;
/** Bytes of shapes before all are forgotten. What is compiled stays as long as anything that was packed with it. */
const BYTES = 1 << 19;
const STEP_BYTES = 144;
/** A longer name is data, which comes once. */
const LONGEST_NAME = 128;
/** Functions before all shapes are forgotten, and what one takes: so much, and for each character of its code so much. */
const FUNCTIONS = 256;
const FUNCTION_BYTES = 3000;
const CODE_BYTES = 6;

/** What a name stands for. An array of at most {@link SHORT} primitive values has `LIST` and its length. */
const PRIMITIVE = 0;
const OBJECT = 1;
const ARRAY = 2;
const END = 3;
const LIST = 4;
const SHORT = 4;

type Plain = Record<string, unknown>;

/**
 * A name of an object, or the end of one, after all that came before: the shapes that were met are the paths of a tree (a
 * trie), and a shape is found by one walk through the object.
 */
interface Step {
  readonly name: string;
  readonly part: number;
  readonly next: Step[];
  /** At the end of a shape: how often it was met, and the function for it. */
  met: number;
  copyOf: Packed[0] | undefined;
}

/** The shapes that a near cache has met: it goes with them. */
export class Shapes {
  first: Step = newStep("", OBJECT);
  functions = 0;
  bytes = 0;
  /** Bytes of heap of the function that {@link pack} has compiled for its last value; 0 when it has not. */
  compiled = 0;

  /** Packs a value; `undefined` for what cannot be copied, as `copierOf` says. The value must not be used any more. */
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

/** For the function of its shape; `undefined` when there is none. */
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
  // As it grew, there is more room in it than is needed.
  return packed.slice() as Packed;
}

/** Packs all parts of an object on the way from one step to the last, which it returns; `undefined` when it cannot. */
function walk(value: Plain, from: Step, packed: unknown[], seen: Set<object>, depth: number): Step | undefined {
  if (depth === 0 || seen.has(value)) return undefined;
  seen.add(value);
  let at = from;
  for (const name of Object.keys(value)) {
    const item = value[name];
    const part = partOf(item);
    if (name.length > LONGEST_NAME) return undefined;
    at = follow(at, name, part);
    // In a literal that name would be the prototype.
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

/** The step that follows. What is often met moves to the front, and a new one takes the place of the last. */
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
  next[Math.min(next.length, WAYS - 1)] = added;
  return added;
}

/** Bytes of all steps that were ever made. */
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

/** A function for the shape of a value; `undefined` where code must not be made of text. */
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
