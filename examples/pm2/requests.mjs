/** Requests on connections of their own, which may reach any process of the service. */

import { request } from "node:http";

/** Sends a request; resolves to its `{ status, headers, body }`. `options` are those of node:http, and the `body` to send. */
export function send(port, path, { body, timeoutS, ...options }) {
  return new Promise((resolve, reject) => {
    const timeout = timeoutS * 1000;
    const asked = request({ host: "127.0.0.1", port, path, agent: false, timeout, ...options }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    asked.on("timeout", () => asked.destroy(new Error(`no answer within ${timeoutS} s`)));
    asked.on("error", reject);
    asked.end(body);
  });
}
