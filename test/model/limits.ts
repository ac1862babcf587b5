/**
 * The model of rate limits: what each algorithm answers, from its definition. The state is what `get` shows of a limit.
 */

import type { RateLimitOptions, RateLimitResult, RateLimitState } from "cache-machine";
import fc from "fast-check";

/** What a request makes of a limit. */
export interface Judged {
  readonly result: RateLimitResult;
  /** The state afterwards, `undefined` when nothing is stored. */
  readonly state: RateLimitState | undefined;
  /** When the limit may be forgotten, in milliseconds of the clock. */
  readonly expiresAt: number;
}

/** Few numbers, so that limits are reached. Some times are no whole numbers. */
export const limitOptions: fc.Arbitrary<RateLimitOptions> = fc
  .record({
    limit: fc.constantFrom(3, 1, 2, 7),
    window: fc.constantFrom(100, 30, 1.5, 1e6),
    algorithm: fc.constantFrom("gcra", "fixed", "sliding", undefined),
    burst: fc.option(fc.constantFrom(1, 5), { nil: undefined }),
    cost: fc.constantFrom(1, undefined, 2),
    peek: fc.constantFrom(undefined, undefined, false, true),
  })
  .map(({ burst, cost, ...given }) => {
    const isGcra = (given.algorithm ?? "gcra") === "gcra";
    const most = (isGcra ? burst : undefined) ?? given.limit;
    return { ...given, burst: isGcra ? burst : undefined, cost: cost === undefined ? cost : Math.min(cost, most) };
  });

/** Judges a request at `now`. `before` is the state that stands, if it has not expired, and `expiry` when it does. */
export function judge(
  options: RateLimitOptions,
  before: RateLimitState | undefined,
  expiry: number,
  now: number,
): Judged {
  const { limit, window, algorithm = "gcra", burst = limit, cost = 1, peek = false } = options;
  const fresh: RateLimitState = { algorithm, startedAt: now, count: 0, previous: 0 };
  const known = before?.algorithm === algorithm ? before : fresh;
  const isAhead = algorithm === "gcra" ? ahead(known) > burst * window : known.startedAt > now;
  let state = settled(known);
  const allowed = cost <= free(state);
  const retryAfter = allowed ? 0 : ceil(wait(state));
  const counts = allowed && !peek;
  if (counts) state = counted(state);
  const resetAfter = ceil(reset(state));
  const remaining = Math.floor(Math.max(free(state), 0));
  const resetAt = now + resetAfter;
  const longest = algorithm === "gcra" ? (burst * window) / limit : 0;
  return {
    result: { allowed, limit, window, burst, remaining, resetAt, resetAfter, retryAfter },
    state: counts || (isAhead && !peek) ? state : undefined,
    expiresAt: resetAt > expiry ? Math.max(resetAt, now + longest) : expiry,
  };

  /** GCRA: how far the theoretical arrival time lies ahead, in milliseconds times `limit`. */
  function ahead({ startedAt, count }: RateLimitState): number {
    return (startedAt - now) * limit + count * window;
  }

  /** The state as it stands at `now`: nothing lies ahead of the clock, and windows that are over are gone. */
  function settled(state: RateLimitState): RateLimitState {
    if (algorithm === "gcra") {
      if (ahead(state) <= 0) return fresh;
      return isAhead ? { ...fresh, count: burst } : state;
    }
    const startedAt = Math.min(state.startedAt, now);
    const windows = Math.floor((now - startedAt) / window);
    if (windows >= (algorithm === "sliding" ? 2 : 1)) return fresh;
    if (windows === 0) return { ...state, startedAt };
    return { algorithm, startedAt: startedAt + window, count: 0, previous: state.count };
  }

  function left({ startedAt }: RateLimitState): number {
    return startedAt + window - now;
  }

  function free(state: RateLimitState): number {
    if (algorithm === "gcra") return (burst * window - ahead(state)) / window;
    if (algorithm === "fixed") return limit - state.count;
    return ((limit - state.count) * window - state.previous * left(state)) / window;
  }

  function wait(state: RateLimitState): number {
    if (algorithm === "gcra") return (ahead(state) + (cost - burst) * window) / limit;
    if (algorithm === "fixed") return left(state);
    const { count, previous } = state;
    if (count + cost <= limit) return left(state) - (window * (limit - count - cost)) / previous;
    return left(state) + window - (window * (limit - cost)) / count;
  }

  function reset(state: RateLimitState): number {
    if (algorithm === "gcra") return ahead(state) / limit;
    if (algorithm === "sliding" && state.count > 0) return left(state) + window;
    return state.count > 0 || state.previous > 0 ? left(state) : 0;
  }

  function counted(state: RateLimitState): RateLimitState {
    const count = state.count + cost;
    const windows = algorithm === "gcra" ? Math.floor(count / limit) : 0;
    return { ...state, startedAt: state.startedAt + windows * window, count: count - windows * limit };
  }
}

function ceil(x: number): number {
  return Math.max(Math.ceil(x), 0);
}
