/**
 * The source of the application benchmark, such as a database: answers the number of an item with its JSON after some milliseconds, one
 * line each, over a Unix socket. It counts what it was asked.
 *
 *     node source.mjs <socket> <milliseconds>
 */

import net from "node:net";
import { makeItem } from "./items.mjs";

const [, , socketPath, delay] = process.argv;
let calls = 0;

const server = net.createServer((socket) => {
  let rest = "";
  socket.setEncoding("latin1").on("error", () => {});
  socket.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      calls++;
      const [id, number] = line.split(" ");
      setTimeout(() => socket.writable && socket.write(`${id} ${makeItem(Number(number))}\n`), Number(delay));
    }
  });
});
server.listen(socketPath, () => process.send("ready"));
process.on("message", () => process.send({ calls }));
process.on("disconnect", () => process.exit());
