/**
 * How the keys begin that a walk is to find, as blocks of bytes for the engine, which compares them with the keys where they
 * lie. `wasm/src/abi/area.rs` reads a block: for each beginning its key word in eight bytes, then its bytes, filled up to eight.
 */

import { KEY_BYTES, KEY_ILL_FORMED, KEY_KIND_BITS, KEY_NAMESPACED, KEY_STRING } from "../engine/contract.ts";
import { describe, typedArrayName } from "./describe.ts";
import { KEY_LIMIT } from "./key.ts";
import { encoder, runtime } from "./runtime.ts";
import { ROOT, type Scope } from "./scope.ts";
import { isWellFormed } from "./text.ts";

/** The beginnings of the keys that a walk finds. */
export interface Beginnings {
  readonly block: Uint8Array;
  readonly count: number;
  /** A text with which the keys begin, if the engine's bytes cannot tell exactly. */
  readonly text: string | undefined;
}

/** Bytes of a key word in a block. */
const WORD = 8;
const NOTHING: Uint8Array = new Uint8Array(0);

/**
 * The beginnings of the keys of a scope that begin with a prefix; of all its keys without one. A string finds strings, bytes
 * find bytes.
 *
 * @throws {TypeError} when the prefix is neither a string nor bytes.
 */
export function beginningsOf(scope: Scope, prefix: string | Uint8Array | undefined): Beginnings {
  const own: [kind: number, bytes: Uint8Array][] = [];
  let text: string | undefined;
  if (prefix === undefined) {
    own.push([KEY_STRING, NOTHING], [KEY_BYTES, NOTHING], [KEY_ILL_FORMED, NOTHING]);
  } else if (typeof prefix === "string") {
    const utf16 = new Uint8Array(2 * prefix.length);
    runtime.writeUtf16(prefix, utf16, 0);
    own.push([KEY_ILL_FORMED, utf16]);
    if (isWellFormed(prefix)) own.push([KEY_STRING, encoder.encode(prefix)]);
    else if (isWellFormed(`${prefix}\udc00`)) {
      // The first half of a surrogate pair: keys may go on with any second half. The half decides the first two of four bytes.
      own.push([KEY_STRING, encoder.encode(`${prefix}\udc00`).slice(0, -2)]);
      text = prefix;
    }
  } else if (typedArrayName(prefix) === "Uint8Array") own.push([KEY_BYTES, prefix]);
  else throw new TypeError(`prefix: must be a string or a Uint8Array (such as a Buffer), not ${describe(prefix)}`);

  const fitting = own.filter(([, bytes]) => bytes.length <= KEY_LIMIT);
  const parts = fitting.map(([kind, bytes]) => beginning(scope, kind, bytes));
  const block = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    block.set(part, at);
    at += part.length;
  }
  return { block, count: parts.length, text };
}

function beginning(scope: Scope, kind: number, bytes: Uint8Array): Uint8Array {
  const length = scope.prefix.length + bytes.length;
  const part = new Uint8Array(WORD + Math.ceil(length / WORD) * WORD);
  part.set(scope.prefix, WORD);
  // In a namespace the first byte is the kind of the own key.
  if (scope !== ROOT) part[WORD] = kind;
  part.set(bytes, WORD + scope.prefix.length);
  const word = (length << KEY_KIND_BITS) | (scope === ROOT ? kind : KEY_NAMESPACED);
  new DataView(part.buffer).setUint32(0, word, true);
  return part;
}
