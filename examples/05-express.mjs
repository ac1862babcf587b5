/**
 * Express with cached responses: a response of one process is used by all processes. Start it twice, with different ports:
 *
 *     PORT=3000 node examples/05-express.mjs
 */

import { CacheError, destroyCache, openCache } from "cache-machine";
import express from "express";

const cache = openCache("example-express", { size: "8mb" });

/** Caches responses to GET requests. They must be the same for everybody, and not depend on cookies or on the user. */
function cached(ttl) {
  return (request, response, next) => {
    if (request.method !== "GET") return next();
    const hit = cache.get(request.originalUrl);
    if (hit !== undefined) return response.set("x-cache", "hit").type(hit.type).send(hit.body);

    const send = response.send.bind(response);
    response.send = (body) => {
      // Express calls `send` again with an object's JSON text.
      if (response.statusCode === 200 && (typeof body === "string" || Buffer.isBuffer(body))) {
        store(request.originalUrl, { type: response.get("content-type") ?? "html", body }, ttl);
      }
      return send(body);
    };
    next();
  };
}

function store(key, value, ttl) {
  try {
    cache.set(key, value, { ttl });
  } catch (error) {
    // A response that cannot be stored, for example because it is too large, is still sent.
    if (!(error instanceof CacheError)) throw error;
  }
}

const app = express();
app.get("/reports/:name", cached(60_000), (request, response) => {
  response.json({ report: request.params.name, computedBy: process.pid });
});

const server = app.listen(process.env.PORT ?? 3000, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/reports/sales`);
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    destroyCache("example-express");
    server.close();
    server.closeAllConnections();
  });
}
