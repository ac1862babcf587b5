/**
 * Binary data ↔ bytes: `Buffer`, typed arrays, `DataView` and `ArrayBuffer`. Relies on `describe.ts` for the class of an
 * object. Numbers in typed arrays are little-endian, as on every runtime with WebAssembly.
 */

import { classOf, typedArrayName } from "./describe.ts";
import type { Runtime } from "./runtime.ts";
import { missing, unreadable } from "./value-errors.ts";
import { ARRAY_BUFFER, BINARY_CLASSES, BUFFER, BYTES } from "./value-types.ts";

type ViewClass = (new (buffer: ArrayBufferLike) => ArrayBufferView) & { BYTES_PER_ELEMENT?: number };

const types: ReadonlyMap<string, number> = new Map(BINARY_CLASSES.map((name, index) => [name, BUFFER + index]));

/** The value type of binary data, or 0 for every other object. */
export function binaryType(value: object, runtime: Runtime): number {
  if (ArrayBuffer.isView(value)) {
    if (runtime.isBuffer(value)) return BUFFER;
    return types.get(typedArrayName(value) ?? "DataView") ?? 0;
  }
  return classOf(value) === "ArrayBuffer" ? ARRAY_BUFFER : 0;
}

/** The bytes of binary data, without a copy. */
export function bytesOf(value: ArrayBufferView | ArrayBuffer): Uint8Array {
  if (value instanceof Uint8Array) return value;
  return ArrayBuffer.isView(value) ? plainBytes(value) : new Uint8Array(value);
}

/** The bytes of a view, without a copy, and never as a `Buffer`. */
export function plainBytes(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/**
 * Turns bytes back into binary data of the value type `type`.
 * @param owned - whether `source` is private memory that nobody else will use: then the bytes are not copied if they are all
 * of its buffer.
 * @throws {CacheError} `ERR_DATA` for a class that this runtime lacks, and for a length that is not a number of elements.
 */
export function toBinary(
  type: number,
  source: Uint8Array,
  start: number,
  length: number,
  runtime: Runtime,
  owned: boolean,
): object {
  const whole = owned && start === 0 && length === source.buffer.byteLength;
  if (type === BUFFER) return whole ? runtime.adopt(source) : runtime.copy(source, start, length);
  const bytes = whole ? new Uint8Array(source.buffer) : new Uint8Array(source.subarray(start, start + length));
  // Returned before its `buffer` is read: V8 makes the buffer of a small array only when somebody asks for it.
  if (type === BYTES) return bytes;
  const { buffer } = bytes;
  if (type === ARRAY_BUFFER) return buffer;
  const name = BINARY_CLASSES[type - BUFFER] as string;
  const View = (globalThis as unknown as Record<string, ViewClass | undefined>)[name];
  if (View === undefined) throw missing(name);
  if (length % (View.BYTES_PER_ELEMENT ?? 1) !== 0) throw unreadable(`it is a ${name} that ends within an element`);
  return new View(buffer);
}
