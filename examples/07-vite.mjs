/**
 * A server that renders pages with Vite, and caches them for all of its processes; each page is rendered by one of them for all.
 * Each page has a tag for its source, so that a change of the source invalidates the pages made of it, in every process at once,
 * also a page that is just being rendered. Start it twice, with different ports:
 *
 *     PORT=3000 node examples/07-vite.mjs
 */

import { CacheError, destroyCache, openCache } from "cache-machine";
import { createServer } from "vite";

const cache = openCache("example-vite", { size: "8mb" });

const PAGE = "export const render = (url) => '<h1>' + encodeURI(url) + '</h1> rendered by ' + process.pid";

/** A plugin in place of an application's sources, so that this example is one file. */
const application = {
  name: "application",
  resolveId: (id) => (id === "virtual:page" ? id : undefined),
  load: (id) => (id === "virtual:page" ? PAGE : undefined),
};

/** A plugin that sends pages from the cache, and renders those that are missing. */
const cachedPages = {
  name: "cached-pages",
  configureServer(vite) {
    vite.watcher.on("change", () => cache.invalidateTag("source"));
    vite.middlewares.use(async (request, response, next) => {
      try {
        if (request.method === "POST" && request.url === "/publish") {
          cache.invalidateTag("source");
          return response.end("published\n");
        }
        const { page, outcome } = await pageOf(vite, request.url);
        response.setHeader("x-cache", outcome === "hit" ? "hit" : "miss");
        response.setHeader("content-type", "text/html").end(page);
      } catch (error) {
        next(error);
      }
    });
  },
};

async function pageOf(vite, url) {
  let outcome;
  const render = async () => (await vite.ssrLoadModule("virtual:page")).render(url);
  try {
    const onOutcome = (how) => (outcome = how);
    const page = await cache.getOrSet(url, render, { ttl: 3_600_000, tags: ["source"], onOutcome });
    return { page, outcome };
  } catch (error) {
    // A page whose URL is too long for a key is still sent.
    if (error instanceof CacheError && error.code === "ERR_TOO_LARGE") return { page: await render(), outcome };
    throw error;
  }
}

const vite = await createServer({
  configFile: false,
  appType: "custom",
  logLevel: "warn",
  plugins: [application, cachedPages],
  // This server has no scripts for browsers, so there are no dependencies to look for.
  optimizeDeps: { noDiscovery: true },
  server: { host: "127.0.0.1", port: Number(process.env.PORT ?? 3000), ws: false },
});
await vite.listen();
console.log(`http://127.0.0.1:${vite.httpServer.address().port}/about`);

process.on("exit", () => destroyCache("example-vite"));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit());
