/**
 * How the compiled engine ships: its bytes are part of the bundle, so there is no file to find and nothing to fetch, in
 * Node.js and in browsers alike. They are compiled once per thread, when the first cache is opened.
 */

import bytes from "../wasm/cache_machine.wasm";
import type { Exports } from "./exports.ts";

/** Identity of the engine: threads share the private part of a memory only with the very same one. */
export const BUILD: string = WASM_SHA256;

let compiled: WebAssembly.Module | undefined;

/** The compiled engine. Small enough for the synchronous compilation that browsers allow on their main thread. */
export function wasmModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(bytes);
  return compiled;
}

/** An instance of the engine over a memory. */
export function instantiate(memory: WebAssembly.Memory, host: Host): Exports {
  const { exports } = new WebAssembly.Instance(wasmModule(), { host: { memory, ...host } });
  return exports as unknown as Exports;
}

/** The functions that the engine imports. None may throw: they run while locks are held. */
export interface Host extends Record<string, WebAssembly.ImportValue> {
  now(): number;
  take(slot: number): number;
  release(slot: number): void;
  pause(attempt: number): number;
}

/** For calls that need none. */
export const NO_HOST: Host = { now: () => 0, take: () => 0, release: () => {}, pause: () => 0 };
