/**
 * The compiled engine. Its bytes are part of the bundle, so there is no file to find and nothing to fetch, in Node.js and in
 * browsers alike. They are compiled once in each thread, when it opens its first cache.
 */

import bytes from "../../wasm/cache_machine.wasm";
import { type CacheError, noAddressSpace, unsupported } from "../errors.ts";
import type { Exports } from "./exports.ts";

/** Identity of the engine: threads share the private part of a memory only with the same engine. */
export const BUILD: string = WASM_SHA256;

let compiled: WebAssembly.Module | undefined;

/**
 * Compiles the engine, once. It is small enough for the synchronous compilation that browsers allow on their main thread.
 *
 * @throws {CacheError} `ERR_UNSUPPORTED` naming what this runtime lacks; `ERR_NO_SPACE` without address space for the code.
 */
export function wasmModule(): WebAssembly.Module {
  if (compiled !== undefined) return compiled;
  if (typeof WebAssembly !== "object") {
    throw missing("there is no WebAssembly here: Node.js has none with the option --jitless");
  }
  try {
    compiled = new WebAssembly.Module(bytes);
    return compiled;
  } catch (cause) {
    if (cause instanceof RangeError) throw noAddressSpace(cause);
    if (!WebAssembly.validate(USES_SIMD)) {
      throw missing("WebAssembly has no SIMD here: V8 needs SSE4.1 for it, or NEON", cause);
    }
    if (!WebAssembly.validate(bytes)) throw missing("WebAssembly with threads and SIMD is missing here", cause);
    throw missing(
      "WebAssembly is forbidden here: the Content-Security-Policy of a page has to allow it (script-src), and edge runtimes " +
        "such as Cloudflare Workers do not compile code at all",
      cause,
    );
  }
}

/** A module with one function that uses SIMD: `(func (result v128) i32.const 0 i8x16.splat)`. */
const USES_SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11],
);

/** The error of a runtime that cannot run the engine. */
function missing(what: string, cause?: unknown): CacheError {
  return unsupported(`${what}. A cache cannot be opened without it.`, { cause });
}

/**
 * Makes an instance of the engine over a memory.
 *
 * @throws {CacheError} as {@link wasmModule}.
 */
export function instantiate(memory: WebAssembly.Memory, imports: Imports): Exports {
  const module = wasmModule();
  try {
    const { exports } = new WebAssembly.Instance(module, { host: { memory, ...imports } });
    return exports as unknown as Exports;
  } catch (cause) {
    if (cause instanceof RangeError) throw noAddressSpace(cause);
    throw cause;
  }
}

/** The functions that the engine imports. None may throw: the engine calls them while it holds locks. */
export interface Imports extends Record<string, WebAssembly.ImportValue> {
  /** Milliseconds. */
  now(): number;
  /** Takes a seat without a living owner. Returns 1 when the caller owns it now, until `release`; otherwise 0. */
  take(seat: number): number;
  release(seat: number): void;
  /** Waits a little, longer with each attempt. Returns 0 when the time for waiting is over, otherwise 1. */
  pause(attempt: number): number;
}

/** For an instance of which only exports are called that use no import but the memory. */
export const NO_IMPORTS: Imports = { now: () => 0, take: () => 0, release: () => {}, pause: () => 0 };
