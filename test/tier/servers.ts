/** The servers and the proxies of the tests, in one place. Programs that run without a compiler import the two modules themselves. */
export { endProxies, startProxy } from "./proxy.mjs";
export { endServers, NO_SERVER, SERVERS, startCluster, startServer } from "./servers.mjs";
