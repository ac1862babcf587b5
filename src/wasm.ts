/**
 * How the compiled engine ships: its bytes are part of the bundle, so there is no file to find and nothing to fetch, in
 * Node.js and in browsers alike. They are compiled once per thread, when the first cache is opened.
 */

import bytes from "../wasm/cache_machine.wasm";

/** Identity of the engine: threads share the private part of a memory only with the very same one. */
export const BUILD: string = WASM_SHA256;

let compiled: WebAssembly.Module | undefined;

/** The compiled engine. Small enough for the synchronous compilation that browsers allow on their main thread. */
export function wasmModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(bytes);
  return compiled;
}
