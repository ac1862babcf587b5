/**
 * cache-machine/testing: checks for whoever writes a store, an adapter or a tier. They need no test runner:
 * `for (const { name, run } of storeChecks({ open: () => new MyStore() })) test(name, run);`
 *
 * - `storeChecks`: what a key-value store over a cache promises, in one process.
 * - `acrossProcesses`: what it promises to processes that share it.
 * - `conformance`: the whole contract of `Cache`, for who implements or wraps it; `meet`: its part for several participants at once.
 *
 * @packageDocumentation
 */

export { acrossProcesses, type ProcessesOptions } from "./across-processes.ts";
export type { Check, Subject } from "./check.ts";
export { type Member, meet } from "./concurrent-checks.ts";
export { type ConformanceOptions, type ConformancePart, conformance } from "./conformance.ts";
export type { Store, StoreMember, StoreSubject, Values } from "./store.ts";
export { storeChecks } from "./store-checks.ts";
