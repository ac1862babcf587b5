/**
 * What has to be known of a region before there is one, or before anybody has joined it: sizes, the private part of a
 * memory, an empty region, and whether some bytes are one. The numbers are the engine's own, which the build has asked,
 * so that they are there without a memory to ask in and without WebAssembly.
 *
 * Memory below the region, private to the process:
 *
 *     0          64 KiB                                                  base
 *     │ module data │ area of slot 0 │ area of slot 1 │ …               │ region …
 */

import { CacheError } from "../errors.ts";
import type { Mapping, Plan } from "../memory/memory.ts";
import { PAGE, readableSize } from "../size.ts";
import { BUILD, instantiate, NO_HOST, wasmModule } from "./wasm.ts";

/** Where the areas begin: behind the module's own data. */
const AREAS_AT = PAGE;

const FACTS = WASM_FACTS;
const [MAGIC] = new BigUint64Array(Uint8Array.from(FACTS.magic, (char) => char.charCodeAt(0)).buffer);

/** The smallest and the largest region, in bytes. */
export function sizeLimits(): { min: number; max: number } {
  return { min: FACTS.minSize, max: FACTS.maxSize };
}

/** The engine's own answers. */
export const plan: Plan = {
  build: BUILD,

  version: FACTS.version,

  of(size: number): { base: number; slots: number } {
    // What is missing is told before memory is taken.
    wasmModule();
    const slots = Math.min(Math.max(size / PAGE, FACTS.minSlots), FACTS.maxSlots);
    return { base: Math.ceil((AREAS_AT + slots * FACTS.areaBytes) / PAGE) * PAGE, slots };
  },

  format(memory: WebAssembly.Memory, base: number, size: number): void {
    const [a, b, c, d] = crypto.getRandomValues(new Uint32Array(4)) as unknown as [number, number, number, number];
    if (!instantiate(memory, NO_HOST).format(base, size, a, b, c, d)) {
      throw new RangeError(`size: there is no cache of ${readableSize(size)}`);
    }
  },

  inspect(header: Uint8Array, size: number): void {
    // Three words, as layout.rs draws them: magic, layout version, size.
    const [magic, version, bytes] = new BigUint64Array(header.slice(0, 24).buffer);
    let what: string;
    if (magic !== MAGIC) what = "it is not a cache";
    else if (version !== BigInt(FACTS.version)) what = "it has another layout version";
    else if (bytes !== BigInt(size)) what = "its size is not the one it was made with";
    else return;
    throw new CacheError(
      "ERR_LAYOUT",
      `this is no cache that can be used: ${what}. Remove it with destroyCache(name), or choose another name.`,
    );
  },
};

/** The area of a slot: where it begins, and where the stack at its end begins, which grows down. */
export function areaOf(slot: number): { area: number; stackTop: number } {
  const area = AREAS_AT + slot * FACTS.areaBytes;
  return { area, stackTop: area + FACTS.areaBytes };
}

/** Whether a memory of another thread holds a region that this engine understands. */
export function checkMapping({ memory, base, size }: Mapping): void {
  plan.inspect(new Uint8Array(memory.buffer).slice(base, base + 64), size);
}
