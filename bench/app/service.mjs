/**
 * One process of the service: answers `/<number>` with the item of this number, through the cache that it was started with.
 *
 *     node service.mjs <JSON: { contender, source, options }>
 */

import { createServer } from "node:http";
import net from "node:net";
import { CONTENDERS } from "./contenders.mjs";

const { contender, source, options } = JSON.parse(process.argv[2]);

/** A client of source.mjs with one connection: `load(number)` answers the item. */
function connect(socketPath) {
  const socket = net.connect(socketPath).setEncoding("latin1");
  const waiting = new Map();
  let next = 0;
  let rest = "";
  socket.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const space = line.indexOf(" ");
      const id = Number(line.slice(0, space));
      waiting.get(id)(JSON.parse(line.slice(space + 1)));
      waiting.delete(id);
    }
  });
  return (number) =>
    new Promise((resolve) => {
      waiting.set(++next, resolve);
      socket.write(`${next} ${number}\n`);
    });
}

const load = connect(source);
const cache = await CONTENDERS[contender].open(options);
const server = createServer(async (request, response) => {
  const number = request.url.slice(1);
  try {
    const item = await cache.read(`item:${number}`, () => load(number));
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(item));
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
});
server.listen(0, "127.0.0.1", () => process.send({ port: server.address().port }));
// Nobody sends requests any more.
process.on("message", () => process.exit());
process.on("disconnect", () => process.exit());
