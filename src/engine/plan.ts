/**
 * What is known of a region before there is one, or before this thread has joined it: sizes, the private part of a memory, an
 * empty region, and whether bytes are the start of a region. Everything but `format` needs neither a memory nor WebAssembly:
 * contract.ts has the numbers.
 *
 * A memory has the private part of the process below the region:
 *
 *     0             AREAS_AT                                             base
 *     │ module data │ area of seat 0 │ area of seat 1 │ …               │ region …
 */

import { noCache } from "../errors.ts";
import type { Mapping, Plan } from "../memory/memory.ts";
import { readableSize } from "../size.ts";
import {
  AREA_BYTES,
  AREAS_AT,
  HEADER_MAGIC,
  HEADER_SIZE,
  HEADER_VERSION,
  INSPECTED_BYTES,
  LAYOUT_VERSION,
  MAGIC,
  MAX_SEATS,
  MAX_SIZE,
  MIN_SEATS,
  MIN_SIZE,
  PAGE,
} from "./contract.ts";
import { BUILD, instantiate, NO_IMPORTS, wasmModule } from "./wasm.ts";

/** The smallest and the largest region, in bytes. */
export function sizeLimits(): { min: number; max: number } {
  return { min: MIN_SIZE, max: MAX_SIZE };
}

/** The plan of this build. */
export const plan: Plan = {
  build: BUILD,

  version: LAYOUT_VERSION,

  headerBytes: INSPECTED_BYTES,

  of(size: number): { base: number; seats: number } {
    // Where WebAssembly is missing, the error comes before memory is taken.
    wasmModule();
    const seats = Math.min(Math.max(size / PAGE, MIN_SEATS), MAX_SEATS);
    return { base: Math.ceil((AREAS_AT + seats * AREA_BYTES) / PAGE) * PAGE, seats };
  },

  format(memory: WebAssembly.Memory, base: number, size: number): void {
    const [a, b, c, d] = crypto.getRandomValues(new Uint32Array(4)) as unknown as [number, number, number, number];
    if (!instantiate(memory, NO_IMPORTS).format(base, size, a, b, c, d)) {
      throw new RangeError(`size: there is no cache of ${readableSize(size)}`);
    }
  },

  inspect(header: Uint8Array, size: number): void {
    const words = new BigUint64Array(header.slice(0, INSPECTED_BYTES).buffer);
    let what: string;
    if (words[HEADER_MAGIC] !== MAGIC) what = "it does not begin as one";
    else if (words[HEADER_VERSION] !== BigInt(LAYOUT_VERSION)) what = "it has another layout version";
    else if (words[HEADER_SIZE] !== BigInt(size)) what = "its size is not the one it was made with";
    else return;
    throw noCache("this", what);
  },
};

/** The area of a seat: where it begins, and where the stack at its end begins, which grows down. In bytes. */
export function areaOf(seat: number): { area: number; stackTop: number } {
  const area = AREAS_AT + seat * AREA_BYTES;
  return { area, stackTop: area + AREA_BYTES };
}

/**
 * Checks that a memory of another thread holds a region that this engine understands.
 *
 * @throws {CacheError} `ERR_LAYOUT` when it does not.
 */
export function checkMapping({ memory, base, size }: Mapping): void {
  plan.inspect(new Uint8Array(memory.buffer).slice(base, base + INSPECTED_BYTES), size);
}
