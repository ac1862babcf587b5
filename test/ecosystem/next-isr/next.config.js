/** An application without `cacheComponents`: pages, answers of route handlers and of `fetch` are kept by the class for `cacheHandler`. */
module.exports = {
  cacheHandler: require.resolve("cache-machine/next/incremental"),
  cacheMaxMemorySize: 0,
};
