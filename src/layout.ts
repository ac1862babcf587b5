/**
 * What has to be known of a region before there is one, or before anybody has joined it: sizes, the private part of a
 * memory, an empty region, and whether some bytes are one. Asks the engine, on an instance over a few pages of its own.
 *
 * Memory below the region, private to the process:
 *
 *     0          64 KiB                                                  base
 *     │ module data │ area of slot 0 │ area of slot 1 │ …               │ region …
 */

import { CacheError } from "./errors.ts";
import type { Exports } from "./exports.ts";
import type { Layout, Mapping } from "./memory.ts";
import { PAGE, readableSize } from "./size.ts";
import { BUILD, instantiate, NO_HOST } from "./wasm.ts";

/** Where the areas begin: behind the module's own data. */
const AREAS_AT = PAGE;

/** An instance over a few pages of its own, to ask for sizes before there is a region. */
let planner: { exports: Exports; bytes: Uint8Array } | undefined;

function plan(): { exports: Exports; bytes: Uint8Array } {
  if (planner === undefined) {
    const memory = new WebAssembly.Memory({ initial: 2, maximum: 2, shared: true });
    planner = { exports: instantiate(memory, NO_HOST), bytes: new Uint8Array(memory.buffer) };
    if ((planner.exports.__heap_base.value as number) > AREAS_AT) throw new Error("the module's data is too large");
  }
  return planner;
}

/** The smallest and the largest region, in bytes. */
export function sizeLimits(): { min: number; max: number } {
  const { exports } = plan();
  return { min: exports.min_size(), max: exports.max_size() };
}

/** The engine's own answers. */
export const layout: Layout = {
  build: BUILD,

  get version(): number {
    return plan().exports.layout_version();
  },

  plan(size: number): { base: number; slots: number } {
    const { exports } = plan();
    const slots = exports.participants_of(size);
    return { base: Math.ceil((AREAS_AT + slots * exports.area_bytes()) / PAGE) * PAGE, slots };
  },

  format(memory: WebAssembly.Memory, base: number, size: number): void {
    const [a, b, c, d] = crypto.getRandomValues(new Uint32Array(4)) as unknown as [number, number, number, number];
    if (!instantiate(memory, NO_HOST).format(base, size, a, b, c, d)) {
      throw new RangeError(`size: there is no cache of ${readableSize(size)}`);
    }
  },

  inspect(header: Uint8Array, size: number): void {
    const { exports, bytes } = plan();
    bytes.set(header.subarray(0, 64), AREAS_AT);
    const result = exports.inspect(AREAS_AT, size);
    if (result === 0) return;
    const what = ["", "it is not a cache", "it has another layout version", "its size is not the one it was made with"];
    throw new CacheError(
      "ERR_LAYOUT",
      `this is no cache that can be used: ${what[result]}. Remove it with destroyCache(name), or choose another name.`,
    );
  },
};

/** The area of a slot: where it begins, and where the stack at its start ends. */
export function areaOf(slot: number): { area: number; stackTop: number } {
  const { exports } = plan();
  const area = AREAS_AT + slot * exports.area_bytes();
  return { area, stackTop: area + exports.stack_bytes() };
}

/** Whether a memory of another thread holds a region that this engine understands. */
export function checkMapping({ memory, base, size }: Mapping): void {
  layout.inspect(new Uint8Array(memory.buffer).slice(base, base + 64), size);
}
