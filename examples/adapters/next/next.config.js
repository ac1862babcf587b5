import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/** All processes that serve this application share what is cached: entries of "use cache", pages, and answers of fetch. */
export default {
  cacheComponents: true,
  partialPrefetching: true,
  cacheHandlers: {
    default: require.resolve("cache-machine/next"),
    remote: require.resolve("cache-machine/next"),
  },
  cacheHandler: require.resolve("cache-machine/next/incremental"),
  // Next.js keeps nothing in the memory of each process beside it.
  cacheMaxMemorySize: 0,
  // For code of the application that uses cache-machine itself.
  serverExternalPackages: ["cache-machine"],
  // `OUTPUT=standalone npm run build` makes a folder that runs without node_modules.
  output: process.env.OUTPUT,
};
