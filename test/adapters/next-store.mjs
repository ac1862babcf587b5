/** The handlers for Next.js as stores for the checks of `cache-machine/testing`: `HANDLER` says which one, `NAME` names the cache. */
import { createCacheHandler } from "cache-machine/next";
import { createIncrementalCacheHandler } from "cache-machine/next/incremental";

export default () => {
  const options = { name: process.env.NAME };
  return process.env.HANDLER === "incremental" ? incremental(options) : useCache(options);
};

export function useCache(options) {
  const handler = createCacheHandler(options);
  return {
    async get(key) {
      const entry = await handler.get(key, []);
      return entry && JSON.parse(await new Response(entry.value).text());
    },
    set(key, value, { ttl = 3_600_000, tags = [] } = {}) {
      const timestamp = performance.timeOrigin + performance.now();
      const stream = new Response(JSON.stringify(value)).body;
      const entry = { value: stream, tags, timestamp, stale: 0, revalidate: ttl / 1000, expire: ttl / 1000 };
      return handler.set(key, Promise.resolve(entry));
    },
    invalidateTag: async (tag) => {
      await handler.updateTags([tag]);
      nextMillisecond();
    },
  };
}

export function incremental(options) {
  const Handler = createIncrementalCacheHandler(options);
  // Next.js makes a handler for each request.
  const handler = () => new Handler({ serverDistDir: "/application/.next/server" });
  return {
    get: async (key) => (await handler().get(key, { kind: "APP_PAGE" }))?.value.props,
    set(key, value, { ttl = 3_600_000, tags = [] } = {}) {
      const headers = { "x-next-cache-tags": tags.join(",") };
      const cacheControl = { revalidate: ttl / 1000, expire: ttl / 1000 };
      return handler().set(key, { kind: "APP_PAGE", html: "", headers, props: value }, { cacheControl });
    },
    invalidateTag: async (tag) => {
      await handler().revalidateTag(tag);
      nextMillisecond();
    },
  };
}

/** For the handlers, what began in the millisecond of an invalidation was there before it. */
function nextMillisecond() {
  const now = Date.now();
  while (Date.now() === now);
}
