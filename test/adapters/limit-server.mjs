/**
 * A server whose requests are limited by one of the adapters, in a process of its own: for tests with several of them. It tells its
 * port, and counts on demand as fast as it can without HTTP. It ends when its parent does.
 */

import { once } from "node:events";
import { createServer } from "node:http";
import { openCache } from "cache-machine";

const { adapter, name, limit, window } = JSON.parse(process.argv[2]);
process.on("disconnect", () => process.exit());
const cache = openCache(name);

/** Each returns the port of a server, and a function that counts a hit of a key and tells whether it is allowed. */
const ADAPTERS = {
  async express() {
    const { default: express } = await import("express");
    const { rateLimit } = await import("express-rate-limit");
    const { CacheMachineStore } = await import("cache-machine/express-rate-limit");
    const store = new CacheMachineStore(cache);
    const app = express();
    const limiter = rateLimit({ limit, windowMs: window, store, standardHeaders: "draft-7" });
    app.delete("/", (request, response) => {
      limiter.resetKey(request.ip);
      response.end();
    });
    app.use(limiter);
    app.get("/", (_, response) => response.end());
    const server = app.listen(0, "127.0.0.1");
    await once(server, "listening");
    return { port: server.address().port, hit: (key) => store.increment(key).totalHits <= limit };
  },

  async fastify() {
    const { default: Fastify } = await import("fastify");
    const { default: rateLimit } = await import("@fastify/rate-limit");
    const { createStore } = await import("cache-machine/fastify-rate-limit");
    const Store = createStore(cache);
    const fastify = Fastify();
    await fastify.register(rateLimit, { max: limit, timeWindow: window, store: Store });
    fastify.get("/", async () => "");
    fastify.get("/own", { config: { rateLimit: { max: 3 } } }, async () => "");
    await fastify.listen({ port: 0, host: "127.0.0.1" });
    const store = new Store({});
    const hit = (key) => {
      let answer;
      store.incr(key, (...given) => (answer = given), window, limit);
      const [error, result] = answer;
      if (error !== null) throw error;
      return result.current <= limit;
    };
    return { port: fastify.server.address().port, hit };
  },

  async flexible() {
    const { RateLimiterMemcache } = await import("rate-limiter-flexible");
    const { createRateLimiter } = await import("cache-machine/rate-limiter-flexible");
    const RateLimiterCacheMachine = createRateLimiter(RateLimiterMemcache);
    const limiter = new RateLimiterCacheMachine({ storeClient: cache, points: limit, duration: window / 1000 });
    const hit = (key) =>
      limiter.consume(key).then(
        () => true,
        (refused) => {
          if (refused instanceof Error) throw refused;
          return false;
        },
      );
    const server = createServer(async (request, response) => {
      if (request.method === "DELETE") await limiter.delete("client");
      else if (!(await hit("client"))) response.statusCode = 429;
      response.end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return { port: server.address().port, hit };
  },
};

const { port, hit } = await ADAPTERS[adapter]();
process.on("message", async ({ key, hits }) => {
  const answers = { allowed: 0, refused: 0, busy: 0 };
  for (let i = 0; i < hits; i++) {
    try {
      answers[(await hit(key)) ? "allowed" : "refused"]++;
    } catch (error) {
      // The machine may keep a process for 50 ms from ending its step.
      if (error.code !== "ERR_BUSY") throw error;
      answers.busy++;
    }
  }
  process.send(answers);
});
process.send({ port });
