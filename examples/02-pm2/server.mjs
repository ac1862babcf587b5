/** An HTTP server. pm2 runs it in several processes, which share this cache. */

import { createServer } from "node:http";
import { openCache } from "cache-machine";

const cache = openCache("example-pm2", { size: "4mb" });

const server = createServer((request, response) => {
  let page = cache.get(request.url);
  if (page === undefined) {
    page = `${request.url} was computed by process ${process.pid}`;
    cache.set(request.url, page, { ttl: 60_000 });
  }
  response.end(`${page}, answered by process ${process.pid}\n`);
});

// pm2 waits for "ready" when it is started with `wait_ready`.
server.listen(process.env.PORT, "127.0.0.1", () => process.send?.("ready"));
