/** All processes that serve this application share what is cached: entries of "use cache", pages, and answers of fetch. */
export default {
  cacheComponents: true,
  partialPrefetching: true,
  cacheHandlers: {
    default: import.meta.resolve("cache-machine/next"),
    remote: import.meta.resolve("cache-machine/next"),
  },
  cacheHandler: import.meta.resolve("cache-machine/next/incremental"),
  // For modules of an application that use cache-machine themselves.
  serverExternalPackages: ["cache-machine"],
  // `OUTPUT=standalone npm run build` makes a folder that runs without node_modules.
  output: process.env.OUTPUT,
};
