/**
 * Fastify with cached responses, by two hooks. Start it twice, with different ports:
 *
 *     PORT=3000 node examples/06-fastify.mjs
 */

import { CacheError, destroyCache, openCache } from "cache-machine";
import fastify from "fastify";

const cache = openCache("example-fastify", { size: "8mb" });
const app = fastify();

// Caches routes with `config: { cache: milliseconds }`. Their responses must not depend on cookies or on the user.
app.addHook("onRequest", async (request, reply) => {
  if (request.routeOptions.config.cache === undefined) return;
  const hit = cache.get(request.url);
  if (hit !== undefined) return reply.header("x-cache", "hit").type(hit.type).send(hit.body);
});

app.addHook("onSend", async (request, reply, body) => {
  const ttl = request.routeOptions.config.cache;
  if (ttl === undefined || reply.hasHeader("x-cache") || reply.statusCode !== 200 || typeof body !== "string") return;
  try {
    cache.set(request.url, { type: reply.getHeader("content-type"), body }, { ttl });
  } catch (error) {
    // A response that cannot be stored, for example because it is too large, is still sent.
    if (!(error instanceof CacheError)) throw error;
  }
});

app.get("/reports/:name", { config: { cache: 60_000 } }, async (request) => {
  return { report: request.params.name, computedBy: process.pid };
});

await app.listen({ port: Number(process.env.PORT ?? 3000), host: "127.0.0.1" });
console.log(`http://127.0.0.1:${app.server.address().port}/reports/sales`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    destroyCache("example-fastify");
    app.close();
  });
}
