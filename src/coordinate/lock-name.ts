/**
 * The names by which locks are listed. The shared memory keeps the first {@link MAX_CLAIM_NAME} bytes of what is written here: a
 * mark of the scope, and the beginning of the name.
 *
 * ```text
 * 0 salt of the scope u32 │ 4 bytes of its id u16 │ 6 its depth u8 │ 7 unused │ 8 name in UTF-8
 * ```
 */

import { MAX_CLAIM_NAME } from "../engine/contract.ts";
import { runtime } from "../values/runtime.ts";
import type { Scope } from "../values/scope.ts";
import type { Scoped } from "./scoped.ts";

const MARK_BYTES = 8;
const ROOM = MAX_CLAIM_NAME - MARK_BYTES;

/** The byte of a scope's mark at `i`. */
function markOf({ salt, prefix, path }: Scope, i: number): number {
  if (i < 4) return (salt >>> (8 * i)) & 0xff;
  if (i < 6) return (prefix.length >> (8 * (i - 4))) & 0xff;
  return i === 6 ? path.length : 0;
}

/** Writes scope and name to the value part of the area. Returns the length in bytes; more than the room for a name that is cut. */
export function writeName({ engine, scope }: Scoped, name: string): number {
  const { value } = engine;
  for (let i = 0; i < MARK_BYTES; i++) value[i] = markOf(scope, i);
  const length = Math.min(name.length, ROOM);
  for (let i = 0; i < length; i++) {
    const unit = name.charCodeAt(i);
    if (unit > 0x7f) return writeUnicode(value, name);
    value[MARK_BYTES + i] = unit;
  }
  return MARK_BYTES + name.length;
}

function writeUnicode(value: Uint8Array, name: string): number {
  const { read, written } = runtime.encodeInto(name, value.subarray(MARK_BYTES, MAX_CLAIM_NAME));
  return read < name.length ? MAX_CLAIM_NAME + 1 : MARK_BYTES + written;
}

/** The name of a lock of this scope that `bytes` tell; `undefined` for a lock of another scope. A name that was cut ends with `…`. */
export function readName(scope: Scope, bytes: Uint8Array, length: number): string | undefined {
  for (let i = 0; i < MARK_BYTES; i++) if (bytes[i] !== markOf(scope, i)) return undefined;
  const kept = Math.min(length, MAX_CLAIM_NAME) - MARK_BYTES;
  if (kept < 0) return undefined;
  const name = runtime.readUtf8(bytes, MARK_BYTES, kept);
  // The cut may have split a character.
  return length > MAX_CLAIM_NAME ? `${name.replace(/\uFFFD+$/, "")}…` : name;
}
