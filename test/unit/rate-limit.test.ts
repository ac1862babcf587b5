/** The header fields that announce a rate limit, after three drafts of the IETF, and the errors of wrong arguments. */

import { createCache, type RateLimitHeadersOptions, type RateLimitResult, rateLimitHeaders } from "cache-machine";
import { expect, test } from "vitest";

const result: RateLimitResult = {
  allowed: true,
  limit: 100,
  window: 60_000,
  burst: 100,
  remaining: 99,
  resetAt: 1_700_000_000_000,
  resetAfter: 600,
  retryAfter: 0,
};
const refused: RateLimitResult = { ...result, allowed: false, remaining: 0, resetAfter: 59_001, retryAfter: 1001 };

test("draft 8 is the default: items with the name of the policy, quota and window, what remains and until when", () => {
  const fields = { "RateLimit-Policy": '"default";q=100;w=60', RateLimit: '"default";r=99;t=1' };
  expect(rateLimitHeaders(result)).toEqual(fields);
  expect(rateLimitHeaders(result, {})).toEqual(fields);
  expect(rateLimitHeaders(result, { draft: 8, name: 'a "b" \\' })).toEqual({
    "RateLimit-Policy": '"a \\"b\\" \\\\";q=100;w=60',
    RateLimit: '"a \\"b\\" \\\\";r=99;t=1',
  });
});

test("draft 7 has the field RateLimit with limit, remaining and reset", () => {
  expect(rateLimitHeaders(result, { draft: 7, name: "api" })).toEqual({
    "RateLimit-Policy": "100;w=60",
    RateLimit: "limit=100, remaining=99, reset=1",
  });
});

test("draft 6 has one field for each number", () => {
  expect(rateLimitHeaders(result, { draft: 6 })).toEqual({
    "RateLimit-Policy": "100;w=60",
    "RateLimit-Limit": "100",
    "RateLimit-Remaining": "99",
    "RateLimit-Reset": "1",
  });
});

test("a refused request has Retry-After in every draft, in whole seconds, rounded up", () => {
  for (const draft of [6, 7, 8] as const) {
    expect(rateLimitHeaders(refused, { draft })["Retry-After"]).toBe("2");
    expect(Object.keys(rateLimitHeaders(result, { draft }))).not.toContain("Retry-After");
  }
  expect(rateLimitHeaders(refused).RateLimit).toBe('"default";r=0;t=60');
});

test("a burst of its own is announced as the quota of the time in which it comes back", () => {
  const bursty = { ...result, burst: 10, remaining: 9 };
  expect(rateLimitHeaders(bursty)["RateLimit-Policy"]).toBe('"default";q=10;w=6');
  expect(rateLimitHeaders(bursty, { draft: 7 })).toEqual({
    "RateLimit-Policy": "10;w=6",
    RateLimit: "limit=10, remaining=9, reset=1",
  });
});

test("the fields are valid for Headers, and belong to what a cache answers", () => {
  const cache = createCache({ size: "1mb", now: () => 5000 });
  const rule = { limit: 2, window: 3000, algorithm: "fixed" } as const;
  cache.rateLimit("a", rule);
  cache.rateLimit("a", rule);
  const headers = new Headers(rateLimitHeaders(cache.rateLimit("a", rule), { name: "two" }));
  expect(Object.fromEntries(headers)).toEqual({
    ratelimit: '"two";r=0;t=3',
    "ratelimit-policy": '"two";q=2;w=3',
    "retry-after": "3",
  });
  cache.close();
});

test("wrong arguments of rateLimitHeaders are TypeErrors that name them", () => {
  const wrong = (options: unknown, of: unknown = result): (() => unknown) => {
    return () => rateLimitHeaders(of as RateLimitResult, options as RateLimitHeadersOptions);
  };
  expect(wrong({ draft: 5 })).toThrow(/^draft: /);
  expect(wrong({ draft: "8" })).toThrow(/^draft: /);
  expect(wrong({ name: 1 })).toThrow(/^name: /);
  expect(wrong({ name: "é" })).toThrow(/^name: /);
  expect(wrong({ name: "a\nb" })).toThrow(/^name: /);
  expect(wrong({ policy: "a" })).toThrow(/^options\.policy: /);
  expect(wrong(5)).toThrow(/^options: /);
  expect(wrong({}, null)).toThrow(/^result: /);
  expect(wrong({}, true)).toThrow(/^result: /);
});
