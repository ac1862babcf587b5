/**
 * Serves the demo with the headers that make a page cross-origin isolated. It bundles the two entry points with esbuild when it
 * starts.
 *
 *     node examples/browser/serve.mjs            then open the address that it prints; PORT=… for another port
 *     node examples/browser/serve.mjs --plain    without the two headers, to see the page's error message
 */

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const folder = fileURLToPath(new URL(".", import.meta.url));

/** Headers that make a page cross-origin isolated, so that it has SharedArrayBuffer. The worker's script needs the second one. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
const ALWAYS = {
  // A page with a content security policy must allow WebAssembly, and nothing else for this package.
  "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-cache",
};

/** Starts a server; its address, and a function that stops it. */
export async function serve({ isolated = true, port = 0 } = {}) {
  const files = await load();
  const server = createServer(({ method, url }, response) => {
    const path = new URL(url, "http://localhost").pathname;
    const file = files.get(path === "/" ? "/index.html" : path);
    const status = file === undefined ? 404 : method === "GET" || method === "HEAD" ? 200 : 405;
    const type = file?.type ?? "text/plain; charset=utf-8";
    response.writeHead(status, { ...ALWAYS, ...(isolated ? ISOLATED : {}), "Content-Type": type });
    response.end(method === "HEAD" ? "" : status === 200 ? file.content : `${status}\n`);
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(port, "127.0.0.1", resolve));
  return {
    address: `http://localhost:${server.address().port}/`,
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

async function load() {
  const { outputFiles } = await build({
    absWorkingDir: folder,
    entryPoints: ["page.mjs", "worker.mjs"],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    outdir: "out",
    write: false,
    logLevel: "error",
  });
  const read = (name) => readFileSync(new URL(name, import.meta.url));
  const files = new Map([
    ["/index.html", { type: "text/html; charset=utf-8", content: read("index.html") }],
    ["/style.css", { type: "text/css; charset=utf-8", content: read("style.css") }],
    ["/icon.svg", { type: "image/svg+xml", content: read("icon.svg") }],
  ]);
  for (const { path, contents } of outputFiles) {
    const name = path.slice(path.lastIndexOf("/") + 1);
    files.set(`/${name}`, { type: "text/javascript; charset=utf-8", content: contents });
  }
  return files;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const isolated = !process.argv.includes("--plain");
  const { PORT } = process.env;
  // Uses any free port if the default port is taken and PORT is not set.
  const { address } = await serve({ isolated, port: Number(PORT ?? 8080) }).catch((error) => {
    if (error.code !== "EADDRINUSE" || PORT !== undefined) throw error;
    return serve({ isolated });
  });
  console.log(`One cache, many workers: ${address}`);
}
