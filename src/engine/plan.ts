/**
 * The plan of regions: how large they are, how many seats they have, where they lie in a memory, how an empty region is made,
 * and whether bytes are the start of a region. Nothing here needs a participant: the numbers come from contract.ts, and only
 * `format` runs code of the engine.
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
  MIN_SEATS,
  PAGE,
} from "./contract.ts";
import { BUILD, instantiate, NO_IMPORTS, wasmModule } from "./wasm.ts";

/** The plan of this build. */
export const plan: Plan = {
  build: BUILD,

  version: LAYOUT_VERSION,

  headerBytes: INSPECTED_BYTES,

  of(size: number): { base: number; seats: number } {
    // Only for its error: where WebAssembly is missing, that must come before memory is allocated.
    wasmModule();
    const seats = Math.min(Math.max(size / PAGE, MIN_SEATS), MAX_SEATS);
    return { base: Math.ceil((AREAS_AT + seats * AREA_BYTES) / PAGE) * PAGE, seats };
  },

  format(memory: WebAssembly.Memory, base: number, size: number): void {
    const [a, b, c, d] = crypto.getRandomValues(new Uint32Array(4)) as unknown as [number, number, number, number];
    if (!instantiate(memory, NO_IMPORTS).format(base, size, a, b, c, d)) {
      throw new RangeError(`size: a cache cannot have ${readableSize(size)}. Choose another size.`);
    }
  },

  inspect(header: Uint8Array, size: number, subject: string): void {
    const words = new BigUint64Array(header.slice(0, INSPECTED_BYTES).buffer);
    let reason: string;
    if (words[HEADER_MAGIC] !== MAGIC) reason = "it does not begin as a cache does";
    else if (words[HEADER_VERSION] !== BigInt(LAYOUT_VERSION)) reason = "it has another layout version";
    else if (words[HEADER_SIZE] !== BigInt(size)) reason = "its size is not the one with which it was created";
    else return;
    throw noCache(subject, reason);
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
  plan.inspect(new Uint8Array(memory.buffer).subarray(base, base + INSPECTED_BYTES), size, "handle: its memory");
}
