/**
 * Which loader makes a call. A loader that waits for its own end would wait for ever, directly or by way of the loaders of other
 * keys. So each call knows the loader that it was made in, each flight knows the loader that it runs, and a call that would close
 * the circle is refused. The circle is found in one thread: what loaders of other threads wait for, nobody here knows.
 *
 * In Node.js an AsyncLocalStorage tells the loader, also behind an `await`. Elsewhere only a call in the synchronous part of a
 * loader is known. The storage costs time with each promise of the process (before Node.js 24), so it is switched on with the first
 * loader that runs and off with the last.
 */

/** A loader that runs: for one key, or for many keys at once. */
export interface Loader {
  /** The calls that were made in this loader, and that wait. */
  readonly pending: Set<{ readonly flight: Waiting | undefined }>;
  /** The loader in which the call was made that started this one, while that call waits. */
  readonly within: Loader | undefined;
  /** The cache for which it loads, the same object for all openings of a thread, and the ids of the keys that it loads. */
  readonly cache: object;
  readonly ids: readonly string[];
  /** Whether it has come to its end. */
  over: boolean;
}

/** What a call waits for. */
export interface Waiting {
  /** The loader that it runs. */
  readonly loader: Loader | undefined;
  /** What it waits for itself, in this thread. */
  readonly behind: Waiting | undefined;
}

interface Storage {
  run<T>(loader: Loader, body: () => T): T;
  getStore(): Loader | undefined;
  disable(): void;
}
interface AsyncHooks {
  AsyncLocalStorage: new () => Storage;
  AsyncResource: new (type: string) => { runInAsyncScope<T>(body: () => T): T };
}

let hooks: AsyncHooks | undefined;
let storage: Storage | undefined;
/** Where there is no storage: the loader whose synchronous part runs. */
let current: Loader | undefined;
/** How many loaders run. */
let running = 0;

/** Runs the synchronous part of a loader. */
export function runLoader<T>(loader: Loader, body: () => T): T {
  hooks ??= globalThis.process?.getBuiltinModule?.("node:async_hooks") as AsyncHooks | undefined;
  if (hooks !== undefined) storage ??= new hooks.AsyncLocalStorage();
  running++;
  if (storage !== undefined) return storage.run(loader, body);
  const outer = current;
  current = loader;
  try {
    return body();
  } finally {
    current = outer;
  }
}

/** Notes that a loader has come to its end. May be called twice. */
export function endLoader(loader: Loader): void {
  if (loader.over) return;
  loader.over = true;
  if (--running === 0) storage?.disable();
}

/** The loader in which this call is made; `undefined` outside of all loaders that run. */
export function loaderOfCall(): Loader | undefined {
  if (running === 0) return undefined;
  const loader = storage === undefined ? current : storage.getStore();
  return loader?.over === false ? loader : undefined;
}

/** A function that runs others in the asynchronous context of this call; `undefined` where there is none. */
export function contextOfCall(): (<T>(body: () => T) => T) | undefined {
  hooks ??= globalThis.process?.getBuiltinModule?.("node:async_hooks") as AsyncHooks | undefined;
  // Not `AsyncLocalStorage.snapshot`, which takes 30 µs in Node.js 20.
  const resource = hooks && new hooks.AsyncResource("cache-machine load");
  return resource && ((body) => resource.runInAsyncScope(body));
}

/** Whether a loader, or one around it that waits for it, loads this key already. */
export function loads(loader: Loader, cache: object, id: string): boolean {
  for (let at: Loader | undefined = loader; at !== undefined; at = at.within) {
    if (!at.over && at.cache === cache && at.ids.includes(id)) return true;
  }
  return false;
}

/** Whether `waiting` can end only after `loader` has ended. */
export function dependsOn(waiting: Waiting, loader: Loader, seen: Set<Waiting> = new Set()): boolean {
  if (waiting.loader === loader) return true;
  if (seen.has(waiting)) return false;
  seen.add(waiting);
  if (waiting.behind !== undefined && dependsOn(waiting.behind, loader, seen)) return true;
  for (const { flight } of waiting.loader?.pending ?? []) {
    if (flight !== undefined && dependsOn(flight, loader, seen)) return true;
  }
  return false;
}
