/**
 * A server that renders pages with Vite, and keeps them for all of its processes. A page carries a tag for what it was
 * made of, so that a change throws away what depends on it, in every process at once. Start it twice, with another PORT:
 *
 *     PORT=3000 node examples/07-vite.mjs
 */

import { CacheError, destroyCache, openCache } from "cache-machine";
import { createServer } from "vite";

const cache = openCache("example-vite", { size: "8mb" });

const PAGE = "export const render = (url) => '<h1>' + encodeURI(url) + '</h1> rendered by ' + process.pid";

/** Stands for the source of an application, so that one file suffices. */
const application = {
  name: "application",
  resolveId: (id) => (id === "virtual:page" ? id : undefined),
  load: (id) => (id === "virtual:page" ? PAGE : undefined),
};

/** Answers with rendered pages from the cache, or renders them. */
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
        let page = cache.get(request.url);
        response.setHeader("x-cache", page === undefined ? "miss" : "hit");
        if (page === undefined) {
          const { render } = await vite.ssrLoadModule("virtual:page");
          page = render(request.url);
          keep(request.url, page);
        }
        response.setHeader("content-type", "text/html").end(page);
      } catch (error) {
        next(error);
      }
    });
  },
};

function keep(url, page) {
  try {
    cache.set(url, page, { ttl: 3_600_000, tags: ["source"] });
  } catch (error) {
    // A page that finds no place, as its address is too long for a key for instance, is still a page.
    if (!(error instanceof CacheError)) throw error;
  }
}

const vite = await createServer({
  configFile: false,
  appType: "custom",
  logLevel: "warn",
  plugins: [application, cachedPages],
  server: { host: "127.0.0.1", port: Number(process.env.PORT ?? 3000), ws: false },
});
await vite.listen();
console.log(`http://127.0.0.1:${vite.httpServer.address().port}/about`);

process.on("exit", () => destroyCache("example-vite"));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit());
