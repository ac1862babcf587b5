/** The Web Worker of browser.test.ts: executes the orders of page.ts, and answers. */

import { attachCache, type Cache, type CacheHandle, type CacheOptions } from "cache-machine";
import { meetAs, runSuite } from "./suite.ts";

export type Order = { handle: CacheHandle } & (
  | { do: "suite"; largest: number; options: CacheOptions }
  | { do: "part" | "meet"; number: number; count: number; largest: number }
  | { do: "attach" }
  | { do: "delay"; ms: number }
  | { do: "write"; number: number }
  | { do: "count"; until: number }
  | { do: "ask"; ms: number; count: number }
);

/** The cache that the order `attach` opened. An order of its own, because a Web Lock is granted only between two tasks. */
let attached: Cache | undefined;

async function obey(order: Order): Promise<unknown> {
  const { handle } = order;
  const open = (options?: CacheOptions): Cache => attachCache(handle, options);
  switch (order.do) {
    case "suite":
      return runSuite({ reach: "threads", largest: order.largest, open }, order.options);
    case "part": {
      const part = (options?: CacheOptions): Cache => open(options).namespace(`part ${order.number}`);
      return runSuite({ reach: "threads", largest: order.largest, open: part });
    }
    case "meet":
      return meetAs(order);
    case "delay": {
      // Delays only requests without options.
      const { request } = LockManager.prototype;
      LockManager.prototype.request = async function (...args: Parameters<typeof request>) {
        if (args.length === 2) await new Promise((resolve) => setTimeout(resolve, order.ms));
        return request.apply(this, args);
      } as typeof request;
      return true;
    }
    case "attach":
      // The variable keeps the cache open.
      attached = open();
      attached.set("attached", true);
      return true;
    case "write": {
      const cache = attached as Cache;
      self.postMessage({ value: true });
      for (let i = 0; ; i++) {
        const key = `key ${(i * 7919) % 20_000}`;
        if (i % 5 === 0) cache.increment(`count ${i % 100}`);
        else if (i % 501 === 0) cache.set(key, `${order.number}`.repeat(100_000));
        else cache.set(key, `value ${(i * 7919) % 20_000}`.repeat(10));
      }
    }
    case "count": {
      const cache = attached as Cache;
      cache.set("counting", true);
      let seen = cache.stats().participants;
      // This loop does not return to the event loop.
      for (const since = performance.now(); seen > order.until && performance.now() - since < 15_000; ) {
        seen = cache.stats().participants;
      }
      return { seen };
    }
    case "ask": {
      const cache = attached as Cache;
      let fewest = order.count;
      for (const since = performance.now(); performance.now() - since < order.ms; ) {
        fewest = Math.min(fewest, cache.stats().participants);
      }
      cache.increment("asked");
      return { fewest };
    }
  }
}

self.onmessage = async ({ data }: MessageEvent<Order>) => {
  try {
    const value = await obey(data);
    self.postMessage({ value });
  } catch (error) {
    self.postMessage({ error: String((error as Error).stack) });
  }
};
