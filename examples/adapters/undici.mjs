/**
 * Four processes fetch the same page through undici's cache interceptor. One of them asks the origin, and the others answer from the
 * memory that they share. A POST of one process removes the page for all.
 *
 *     node examples/adapters/undici.mjs
 *
 * It prints:
 *
 *     4 processes have "price 100", the origin was asked 1 time
 *     after a POST they have "price 101", the origin was asked 2 times
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { destroyCache, openCache } from "cache-machine";
import { CacheMachineStore } from "cache-machine/undici";
import { Agent, interceptors, request } from "undici";

const cache = openCache("example-undici", { size: "8mb" });

if (process.send === undefined) {
  let price = 100;
  let asked = 0;
  const origin = createServer((incoming, response) => {
    if (incoming.method === "POST") price++;
    else asked++;
    response.setHeader("cache-control", "max-age=60").end(`price ${price}`);
  }).listen(0);
  await once(origin, "listening");
  const url = `http://localhost:${origin.address().port}/`;

  const workers = Array.from({ length: 4 }, () => fork(fileURLToPath(import.meta.url)));
  const ended = workers.map((worker) => once(worker, "exit"));
  async function ask(worker, method) {
    worker.send({ url, method });
    const [answer] = await once(worker, "message");
    return answer;
  }
  async function askAll() {
    const answers = new Set();
    for (const worker of workers) answers.add(await ask(worker, "GET"));
    return [...answers].join(" and ");
  }
  console.log(`4 processes have "${await askAll()}", the origin was asked ${asked} time`);
  await ask(workers[0], "POST");
  console.log(`after a POST they have "${await askAll()}", the origin was asked ${asked} times`);

  for (const worker of workers) worker.disconnect();
  await Promise.all(ended);
  origin.close();
  destroyCache("example-undici");
} else {
  const dispatcher = new Agent().compose(interceptors.cache({ store: new CacheMachineStore(cache) }));
  process.on("message", async ({ url, method }) => {
    const { body } = await request(url, { method, dispatcher });
    process.send(await body.text());
  });
  process.on("disconnect", () => dispatcher.destroy());
}
