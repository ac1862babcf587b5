import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/** An application without `cacheComponents`: pages, answers of route handlers and of `fetch` are kept by the class for `cacheHandler`. */
export default {
  cacheHandler: require.resolve("cache-machine/next/incremental"),
  cacheMaxMemorySize: 0,
  serverExternalPackages: ["cache-machine"],
};
