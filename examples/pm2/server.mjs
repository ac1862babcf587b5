/**
 * The service; pm2 runs several processes of it on one port. It answers from the cache. Pages that are missing there are rendered by
 * a pool of worker threads, which store them. Results that clients post are stored in the same cache, so that every process has them.
 */

import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { CacheError } from "cache-machine";
import { Piscina } from "piscina";
import { findPages } from "./docs.mjs";
import { etagOf } from "./page.mjs";
import { processName, threads } from "./settings.mjs";
import { cache, origins, pages, results } from "./store.mjs";

/** Headers that identify the process, in every response. */
const identity = { "x-process": processName, "x-pid": String(process.pid) };

const pool = new Piscina({
  filename: new URL("./render.mjs", import.meta.url).href,
  minThreads: threads,
  maxThreads: threads,
});

/** All pages by path. The first process finds them and stores the list in the cache for processes that start later. */
const contents = new Map((cache.get("contents") ?? searchAndKeep()).map((page) => [page.path, page]));

/** Pages that this process is rendering, so that it does not render a page once for each reader. */
const rendering = new Map();
/** Number of pages that this process has rendered, sent with each response. */
let rendered = 0;

const server = createServer(async (request, response) => {
  try {
    if (request.method === "POST") await keep(request, response);
    else await answer(request, response);
  } catch (error) {
    const tooLarge = error instanceof CacheError && error.code === "ERR_TOO_LARGE";
    response.writeHead(tooLarge ? 413 : 500, identity).end(`${error.message}\n`);
    if (!tooLarge) console.error(error);
  }
});

async function answer({ url: path }, response) {
  const result = results.get(path);
  if (result !== undefined) {
    return send(response, path, result, { "x-cache": "hit", "content-type": "application/json" });
  }
  const html = pages.get(path);
  if (html !== undefined) {
    return send(response, path, html, { "x-cache": "hit", "x-rendered-by": origins.get(path) ?? "" });
  }
  const page = contents.get(path);
  if (page === undefined) return response.writeHead(404, identity).end("no such page\n");

  const fresh = await render(page);
  send(response, path, fresh.html, { "x-cache": "miss", "x-rendered-by": fresh.origin });
}

/** Stores a result that a client has posted. */
async function keep(request, response) {
  if (!request.url.startsWith("/results/")) return response.writeHead(405, identity).end("post to /results/\n");
  results.set(request.url, await buffer(request));
  response.writeHead(201, { ...identity, location: request.url }).end();
}

/** Renders a page, once for all requests at the same time. */
function render(page) {
  let job = rendering.get(page.path);
  if (job === undefined) {
    job = runInPool(page);
    rendering.set(page.path, job);
  }
  return job;
}

async function runInPool(page) {
  try {
    const result = await pool.run(page);
    rendered++;
    return result;
  } finally {
    rendering.delete(page.path);
  }
}

/** Sends a page. The ETag is computed from the sent bytes, so that it shows what the cache returned. */
function send(response, path, bytes, headers) {
  response
    .writeHead(200, {
      "content-type": "text/html; charset=utf-8",
      "content-length": bytes.length,
      "content-location": path,
      etag: etagOf(bytes),
      "x-rendered": rendered,
      ...identity,
      ...headers,
    })
    .end(bytes);
}

function searchAndKeep() {
  const found = findPages();
  cache.set("contents", found);
  return found;
}

// pm2 waits for this message before it starts the next process.
server.listen(Number(process.env.PORT), "127.0.0.1", () => process.send?.("ready"));

// pm2 sends SIGINT to end a process.
process.on("SIGINT", async () => {
  server.close();
  server.closeAllConnections();
  await pool.destroy();
  cache.close();
  process.exit(0);
});
