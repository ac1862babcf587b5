/**
 * Loads: `getOrSet` of a tier. Of all threads and processes of a host one runs the loader of a key, by a flight in the host's memory.
 * On the server a load has a *token* beside the key. Every change of the key removes the token, and a loaded value is stored only
 * while its token is there, so a load that was overtaken by any host is never stored (the leases of memcached: Nishtala et al., NSDI
 * '13).
 *
 * ```text
 * flight of the host ─► begin: token ───────────► loader ─► commit: stored, if the token is still there
 *                         │  └► found: somebody has stored a value meanwhile
 *                         └► another host leads (`singleFlight: "all"`): wait for its value, or for the end of its token
 * ```
 *
 * When the server is away the loader runs without a token, and the flight keeps its value in the host's memory for one lease.
 */

import type { Loading } from "../coordinate/loading.ts";
import type { Key, LoadContext, StaleEntry } from "../index.ts";
import { type Core, idOf } from "./core.ts";
import { hasCode } from "./errors.ts";
import type { Place } from "./memory.ts";
import { checkTags, checkValue } from "./options.ts";
import { isInvalid } from "./reading.ts";
import type { Stored } from "./server.ts";

/** What a flight's loader is told by the memory. */
interface FlightContext {
  readonly signal: AbortSignal;
  readonly background: boolean;
}

/** A load of one key in one flight. */
export interface Load {
  readonly core: Core;
  readonly place: Place;
  readonly key: Key;
  readonly options: Loading;
  /** Milliseconds that a value lives when nothing else says so. */
  readonly ttl: number;
  /** The old value, which may stand in when the loader fails. */
  readonly stale: Stored | undefined;
  /** Whether a value that is there does not count: a fresh one is wanted, or it cannot be read. */
  readonly replace: boolean;
}

/** Milliseconds between two looks at a key that another host loads: the first time, and at most. */
const FIRST_LOOK_MS = 10;
const LAST_LOOK_MS = 200;

/** How a loaded value is to be stored. `ttl` 0 or less: not at all. */
export interface Loaded {
  readonly value: unknown;
  readonly ttl: number;
  readonly tags: readonly string[];
  /** Whether the server was away when the value was to be stored. */
  isUnsaved?: boolean;
}

/** What a loader has returned, in the order of its keys, and what it has said of these values. */
interface Led {
  readonly values: readonly unknown[];
  readonly said: Pick<LoadContext, "ttl" | "tags">;
}

/** Runs the loader of a flight, and stores what it returns. Returns the value, and `undefined` when there is none. */
export async function lead(
  load: Load,
  run: (context: LoadContext<any, any>) => unknown,
  flight: FlightContext,
): Promise<Loaded | undefined> {
  const one = async (): Promise<Led> => {
    const context = contextOf(load, flight);
    return { values: [await run(context)], said: context };
  };
  return (await leadMany([load], one, flight.signal)).get(idOf(load.key));
}

function isStorable(loaded: Loaded | undefined): loaded is Loaded {
  return loaded !== undefined && loaded.ttl > 0;
}

interface Token {
  readonly found?: undefined;
  readonly token: string;
  readonly since: number;
}

/**
 * Gets the token of a load, or the value that is there by now; `undefined` when the server is away. While another host leads, waits
 * for that.
 */
async function begin(
  { core, place, key, options, replace }: Load,
  signal: AbortSignal,
): Promise<Token | { readonly found: Stored } | undefined> {
  let unless: number | true | undefined = replace ? true : undefined;
  // A fresh value is not that of a load which has begun before. The server stores the one that began last.
  const all = core.options.all && !options.fresh;
  for (let wait = FIRST_LOOK_MS; ; wait = Math.min(wait * 2, LAST_LOOK_MS)) {
    try {
      const begun = await core.server.begin(place.path, key, { all, lease: options.lease, unless });
      if ("token" in begun) return begun;
      if ("found" in begun) {
        if (!(await isInvalid(core, place, begun.found))) return begun;
        unless = begun.found.stamp;
        continue;
      }
      // A value that the other host stores is from after this call.
      if (unless === true) unless = undefined;
      await changeOf(place, key, Math.min(begun.left, wait), signal);
    } catch (error) {
      if (!hasCode(error, "ERR_UNREACHABLE")) throw error;
      core.counts.errors++;
      return undefined;
    }
  }
}

/** Waits until the key changes in the memory of the host, which follows the server, but no longer than `ms`. */
async function changeOf(place: Place, key: Key, ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) throw signal.reason;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let end: (() => void) | undefined;
  let watching: Disposable | undefined;
  try {
    await new Promise<void>((resolve) => {
      end = resolve;
      // A random part, so that hosts which wait for the same key do not ask at the same time.
      timer = setTimeout(resolve, ms * (0.75 + Math.random() / 2));
      signal.addEventListener("abort", resolve as () => void, { once: true });
      watching = place.main.watch(key, () => resolve());
    });
  } finally {
    clearTimeout(timer);
    watching?.[Symbol.dispose]();
    if (end !== undefined) signal.removeEventListener("abort", end);
  }
  if (signal.aborted) throw signal.reason;
}

/** Renews the token of a load while its loader runs. Returns a function that ends that. */
function keepAlive({ core, place, key, options }: Load, token: string): () => void {
  if (options.lease === Infinity) return () => {};
  const timer = setInterval(
    () => {
      // When this fails, the token runs out, and the value is not stored.
      core.server.renew(place.path, key, token, options.lease).catch(() => {});
    },
    Math.min(options.lease / 3, 2 ** 31 - 1),
  );
  timer.unref();
  return () => clearInterval(timer);
}

function contextOf({ key, stale }: Load, { signal, background }: FlightContext): LoadContext<any, any> {
  const old: StaleEntry<any> | undefined = stale && {
    value: stale.value,
    version: 0,
    expiresAt: Date.now() + stale.ttl,
    tags: stale.tags,
    stale: stale.ttl <= 0,
  };
  return {
    key: key as string,
    signal,
    background,
    stale: old,
    ttl: undefined,
    tags: undefined,
    unchanged() {
      if (old === undefined) throw new TypeError("unchanged: there is no old value of this key");
      this.tags ??= old.tags;
      return old.value;
    },
  };
}

/** Reads what the loader has said of its value, and what the options say. @throws {TypeError} and {RangeError}. */
function describe(
  { key, options, ttl }: Load,
  value: unknown,
  said: Pick<LoadContext, "ttl" | "tags">,
): Loaded | undefined {
  if (value === undefined) return undefined;
  checkValue(value);
  const { ttl: saidTtl, tags: saidTags } = said;
  const own = saidTtl ?? (typeof options.ttl === "function" ? options.ttl(value, key) : options.ttl) ?? ttl;
  if (typeof own !== "number") throw new TypeError(`ttl: must be a number of milliseconds, not ${typeof own}`);
  if (Number.isNaN(own)) throw new RangeError("ttl: must be a number of milliseconds, not NaN");
  const tags = saidTags ?? (typeof options.tags === "function" ? options.tags(value, key) : options.tags) ?? [];
  const jittered = options.jitter > 0 && own !== Infinity ? own * (1 - options.jitter * Math.random()) : own;
  return { value, ttl: jittered, tags: checkTags(tags) };
}

/** Runs one loader for many keys, and stores what it returns. Returns what came of each key that has a value, by {@link idOf}. */
export async function leadMany(
  loads: readonly Load[],
  run: (keys: Key[]) => Promise<Led>,
  signal: AbortSignal,
): Promise<Map<string, Loaded>> {
  const results = new Map<string, Loaded>();
  const begun = await Promise.all(loads.map(async (load) => ({ load, token: await begin(load, signal) })));
  const missing: { load: Load; token: Token | undefined }[] = [];
  for (const { load, token } of begun) {
    if (token?.found === undefined) missing.push({ load, token });
    else results.set(idOf(load.key), { ...token.found });
  }
  if (missing.length === 0) return results;
  const stops = missing.map(({ load, token }) => (token === undefined ? () => {} : keepAlive(load, token.token)));
  let loaded: (Loaded | undefined)[] = [];
  try {
    for (const { load } of missing) load.core.counts.loads++;
    const { values, said } = await run(missing.map(({ load }) => load.key));
    loaded = missing.map(({ load }, i) => describe(load, values[i], said));
  } finally {
    for (const stop of stops) stop();
    for (const [i, { load, token }] of missing.entries()) if (!isStorable(loaded[i])) abandon(load, token);
  }
  await Promise.all(
    missing.map(async ({ load, token }, i) => {
      const one = loaded[i];
      if (one !== undefined) results.set(idOf(load.key), one);
      if (isStorable(one)) await store(load, token, one);
    }),
  );
  return results;
}

/** Gives the token of a load back. Nobody waits for that: a token that stays is over after its lease. */
function abandon({ core, place, key }: Load, token: Token | undefined): void {
  if (token !== undefined) core.server.abandon(place.path, key, token.token, core.options.all).catch(() => {});
}

/** Stores a loaded value on the server. When that is away, marks the value. */
async function store(load: Load, token: Token | undefined, loaded: Loaded): Promise<void> {
  const { core, place, key, options } = load;
  const { value, ttl, tags } = loaded;
  try {
    if (token === undefined) loaded.isUnsaved = true;
    else {
      await core.server.commit(place.path, key, token.token, token.since, value, { ttl, grace: options.grace, tags });
      // What is known of the key here is from before.
      place.drop(key);
    }
  } catch (error) {
    if (!hasCode(error, "ERR_UNREACHABLE", "ERR_TOO_LARGE")) throw error;
    core.counts.errors++;
    loaded.isUnsaved = true;
  }
}
