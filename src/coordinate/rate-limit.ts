/**
 * Rate limits: their options and answers, and the header fields of HTTP that announce them. Who may go through is decided by
 * the engine (`wasm/src/entries/limit.rs`). Must not know where a limit is kept.
 */

import { LIMIT_GCRA } from "../engine/contract.ts";
import { checkOptions, refuseUnknown } from "../option-names.ts";
import { describe } from "../values/describe.ts";
import { ALGORITHMS, type RateLimitAlgorithm } from "../values/limit.ts";

/** What a request has to keep to. */
export interface RateLimitOptions {
  /** Requests that a window has room for: a whole number from 1 on. */
  limit: number;
  /** Milliseconds of the window, more than 0. */
  window: number;
  /**
   * How requests are counted; `"gcra"` by default.
   *
   * - `"gcra"`: requests come back one by one, each `window / limit` after the one before, and `burst` of them may come at
   *   once. In any time `t` at most `burst + t × limit / window` go through.
   * - `"fixed"`: the first request begins a window, which has room for `limit`. Around the border of two windows twice as many
   *   may go through within a short time.
   * - `"sliding"`: windows follow one another, and the one before counts by the part of it that lies less than a window back.
   *   In any time `t` up to a window at most `limit × (1 + t / window)` go through.
   */
  algorithm?: RateLimitAlgorithm | undefined;
  /** With `"gcra"`: how many requests may come at once, a whole number; `limit` by default. */
  burst?: number | undefined;
  /** As how many requests this one counts, a whole number; 1 by default. */
  cost?: number | undefined;
  /** Only look whether the request would be allowed, without counting it; false by default. */
  peek?: boolean | undefined;
}

/** Whether a request may go through. */
export interface RateLimitResult {
  allowed: boolean;
  /** The options `limit`, `window` and `burst`; `burst` is `limit` with `"fixed"` and `"sliding"`. */
  limit: number;
  window: number;
  burst: number;
  /** How many requests may follow at once: a whole number. */
  remaining: number;
  /** When everything is free again if no request follows: a time of the cache's clock in milliseconds. */
  resetAt: number;
  /** Milliseconds until then. */
  resetAfter: number;
  /** Milliseconds until this request would be allowed; 0 when it is allowed. */
  retryAfter: number;
}

/** {@link RateLimitOptions}, checked, with defaults. */
export interface Rule {
  limit: number;
  window: number;
  algorithm: number;
  burst: number;
  cost: number;
  peek: boolean;
}

const OPTIONS = ["limit", "window", "algorithm", "burst", "cost", "peek"] as const;

/**
 * Checks the options of a request.
 *
 * @throws {TypeError} and {RangeError} naming the option that is wrong.
 */
export function checkRule(options: RateLimitOptions): Rule {
  const given = checkNames(options);
  const limit = whole("limit", given.limit);
  const { window, algorithm = "gcra", burst = limit, cost = 1, peek = false } = given;
  if (typeof window !== "number") throw new TypeError(`window: must be milliseconds, not ${describe(window)}`);
  if (!(window > 0 && window < Infinity)) {
    throw new RangeError(`window: must be more than 0 milliseconds and finite, not ${window}`);
  }
  const number = algorithm === "gcra" ? LIMIT_GCRA : numberOf(algorithm);
  if (burst !== limit) {
    if (algorithm !== "gcra") throw new TypeError('burst: is an option of the algorithm "gcra" only');
    whole("burst", burst);
  }
  if (cost !== 1 && whole("cost", cost) > burst) {
    const most = burst === limit ? "limit" : "burst";
    throw new RangeError(`cost: must be at most ${burst} (${most}), not ${cost}: it would never be allowed`);
  }
  if (typeof peek !== "boolean") throw new TypeError("peek: must be a boolean");
  return { limit, window, algorithm: number, burst, cost, peek };
}

/** As `checkOptions`, for options that come with each request: comparing with constants takes less time. */
function checkNames(options: RateLimitOptions): Partial<RateLimitOptions> {
  if (typeof options !== "object" || options === null) return checkOptions<RateLimitOptions>(options ?? {}, OPTIONS);
  for (const name in options) {
    switch (name) {
      case "limit":
      case "window":
      case "algorithm":
      case "burst":
      case "cost":
      case "peek":
        break;
      default:
        refuseUnknown(options, name, OPTIONS);
    }
  }
  return options;
}

function numberOf(algorithm: RateLimitAlgorithm): number {
  if (Object.hasOwn(ALGORITHMS, algorithm)) return ALGORITHMS[algorithm];
  throw new TypeError('algorithm: must be "gcra", "fixed" or "sliding"');
}

function whole(name: string, value: unknown): number {
  if (typeof value !== "number") throw new TypeError(`${name}: must be a number of requests, not ${describe(value)}`);
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(`${name}: must be a whole number of requests from 1 on, not ${value}`);
  }
  return value;
}

/** How a rate limit is announced. */
export interface RateLimitHeadersOptions {
  /** The name of the policy, printable ASCII; `"default"` by default. Only draft 8 sends it. */
  name?: string | undefined;
  /** The draft of `draft-ietf-httpapi-ratelimit-headers`: 6, 7 or 8; 8 by default. */
  draft?: 6 | 7 | 8 | undefined;
}

/**
 * Returns the header fields that tell a client about a rate limit, after the drafts of the IETF's RateLimit header fields, as
 * a record of names and values for `response.setHeaders`, `res.set` or `new Headers`. Times are whole seconds, rounded up.
 *
 * - draft 6: `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` and `RateLimit-Policy: 100;w=60`;
 * - draft 7: `RateLimit: limit=100, remaining=99, reset=60` and the same policy;
 * - draft 8: `RateLimit: "default";r=99;t=60` and `RateLimit-Policy: "default";q=100;w=60`.
 *
 * A refused request has `Retry-After` too. With a `burst` of its own the policy is the one with the same rate whose quota is
 * the burst.
 *
 * @param result - as `rateLimit` returned it.
 * @throws {TypeError} when `result` is no such answer, or an option is wrong.
 */
export function rateLimitHeaders(result: RateLimitResult, options?: RateLimitHeadersOptions): Record<string, string> {
  if (typeof result !== "object" || result === null || typeof result.resetAfter !== "number") {
    throw new TypeError("result: must be what rateLimit has returned");
  }
  const { name = "default", draft = 8 } = checkOptions<RateLimitHeadersOptions>(options, ["name", "draft"]);
  if (typeof name !== "string" || !/^[ -~]*$/.test(name)) {
    throw new TypeError("name: must be a string of printable ASCII characters");
  }
  const { allowed, burst, limit, remaining } = result;
  const window = seconds(burst === limit ? result.window : (burst / limit) * result.window);
  const reset = seconds(result.resetAfter);
  const fields: Record<string, string> = {};
  if (draft === 8) {
    // A string of structured fields (RFC 9651).
    const policy = `"${name.replace(/["\\]/g, "\\$&")}"`;
    fields["RateLimit-Policy"] = `${policy};q=${burst};w=${window}`;
    fields.RateLimit = `${policy};r=${remaining};t=${reset}`;
  } else if (draft === 7 || draft === 6) {
    fields["RateLimit-Policy"] = `${burst};w=${window}`;
    if (draft === 7) fields.RateLimit = `limit=${burst}, remaining=${remaining}, reset=${reset}`;
    else {
      fields["RateLimit-Limit"] = `${burst}`;
      fields["RateLimit-Remaining"] = `${remaining}`;
      fields["RateLimit-Reset"] = `${reset}`;
    }
  } else throw new TypeError("draft: must be 6, 7 or 8");
  if (!allowed) fields["Retry-After"] = `${seconds(result.retryAfter)}`;
  return fields;
}

function seconds(milliseconds: number): number {
  return Math.ceil(milliseconds / 1000);
}
