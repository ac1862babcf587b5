/**
 * The service; pm2 runs several processes of it on one port. It answers from the cache. A page that is missing there is rendered by
 * a pool of worker threads, in one process for all that ask for it at that time. Results that clients post are stored in the same
 * cache, so that every process has them, and who asks for one before it is there waits for it.
 */

import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { rateLimitHeaders } from "cache-machine";
import { Piscina } from "piscina";
import { findPages } from "./docs.mjs";
import { keepHouse } from "./housekeeper.mjs";
import { limits, obeyLimits } from "./limits.mjs";
import { etagOf } from "./page.mjs";
import { processName, threads } from "./settings.mjs";
import { cache, monotonic, pages, recordsOf, results, waiting } from "./store.mjs";

const HOUR_MS = 3_600_000;

/** Headers that identify the process, in every response. */
const identity = { "x-process": processName, "x-pid": String(process.pid) };

const pool = new Piscina({
  filename: new URL("./render.mjs", import.meta.url).href,
  minThreads: threads,
  maxThreads: threads,
});

/** All pages by path. One process finds them; the others, and those that start later, have the list from the cache. */
const list = await cache.getOrSet("contents", findPages);
const contents = new Map(list.map((page) => [page.path, page]));

/** Number of pages that this process has rendered, sent with each response. */
let rendered = 0;

const server = createServer(async (request, response) => {
  try {
    if (request.method === "POST") await keep(request, response);
    else if (request.url.startsWith("/results/")) await answerWithResult(request, response);
    else await answerWithPage(request, response);
  } catch (error) {
    const status = { ERR_TOO_LARGE: 413, ERR_TIMEOUT: 504 }[error.code] ?? 500;
    if (!response.headersSent) response.writeHead(status, identity).end(`${error.message}\n`);
    if (status === 500 && !response.destroyed) console.error(error);
  }
});

async function answerWithPage({ url: path }, response) {
  const page = contents.get(path);
  if (page === undefined) return response.writeHead(404, identity).end("no such page\n");
  let outcome;
  const onOutcome = (how) => (outcome = how);
  const html = await pages.getOrSet(path, () => render(page), { onOutcome });
  // "hit": from the cache; "loaded": rendered here for this request; "joined": it was just being rendered, here or elsewhere.
  send(response, path, html, { "x-cache": outcome, "x-rendered-by": recordsOf(path).at(-1)?.by ?? "" });
}

async function render(page) {
  const html = await pool.run(page);
  rendered++;
  return html;
}

/**
 * Sends a result. If it is not there, a request that says so waits until a client posts it, to whichever process: `Prefer: wait=60`
 * are seconds, see RFC 7240.
 */
async function answerWithResult({ url: path, headers: { prefer } }, response) {
  const headers = { "x-cache": "hit", "content-type": "application/json" };
  let result = results.get(path);
  if (result === undefined) {
    const [, seconds] = /^wait=(\d{1,3})$/.exec(prefer) ?? [];
    if (seconds === undefined) return response.writeHead(404, identity).end("no such result\n");
    result = await waitForResult(path, Number(seconds) * 1000, response);
    headers["x-woken-at"] = monotonic();
  }
  send(response, path, result, headers);
}

async function waitForResult(path, timeout, response) {
  // Not longer than the client.
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  waiting.increment(processName);
  try {
    return await results.waitFor(path, { timeout, signal: gone.signal });
  } finally {
    waiting.decrement(processName);
  }
}

/** Stores a result that a client has posted. The limit is one for all processes: each client has so many posts an hour. */
async function keep(request, response) {
  if (!request.url.startsWith("/results/")) return response.writeHead(405, identity).end("post to /results/\n");
  const options = { limit: limits.postsPerHour, window: HOUR_MS };
  const limit = cache.rateLimit(`posts of ${request.socket.remoteAddress}`, options);
  const headers = { ...identity, ...rateLimitHeaders(limit, { name: "posts" }) };
  if (!limit.allowed) return response.writeHead(429, headers).end("too many posts\n");
  results.set(request.url, await buffer(request));
  response.writeHead(201, { ...headers, location: request.url, "x-stored-at": monotonic() }).end();
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

obeyLimits();
keepHouse(list);
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
