/**
 * The timers of the host, as they are when the package is loaded. Tests replace the timers of their realm by fake ones, which
 * stand still. A wait must not stand still with them.
 */

// Under another name, because the names of the timers are taken by this file's own.
const host: typeof globalThis = globalThis;

/** A timer that can be ended. */
export type Timer = ReturnType<typeof host.setTimeout>;

export const setTimeout: typeof host.setTimeout = host.setTimeout;
export const clearTimeout: typeof host.clearTimeout = host.clearTimeout;
export const queueMicrotask: typeof host.queueMicrotask = host.queueMicrotask;

/**
 * Runs a function outside of the asynchronous context of its caller, the one of `AsyncLocalStorage`. What lives longer than a call,
 * such as a timer that many waits share, would otherwise keep the context of the first, and others would run in it.
 */
export const apart: <T>(run: () => T) => T =
  globalThis.process?.getBuiltinModule?.("node:async_hooks").AsyncLocalStorage.snapshot() ?? ((run) => run());

/** Sets whether a timer keeps the process alive. A browser has nothing to keep alive. */
export function keepAlive(timer: Timer, alive: boolean): void {
  const { ref, unref } = timer as { ref?: () => unknown; unref?: () => unknown };
  (alive ? ref : unref)?.call(timer);
}

/** Runs a function in a task of its own, as soon as possible. The task keeps the process alive until then. */
export const runLater: (task: () => void) => void = host.setImmediate ?? ((task) => setTimeout(task, 0));
