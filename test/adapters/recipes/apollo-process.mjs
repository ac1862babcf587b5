/** One process with an Apollo Server: sends it the request in the argument and prints the answer. */
import { ApolloServer } from "@apollo/server";
import { openCache } from "cache-machine";
import { keyValueCache } from "./apollo-cache.mjs";

const [name, request] = process.argv.slice(2);
const server = new ApolloServer({
  typeDefs: "type Query { hello: String }",
  resolvers: { Query: { hello: () => "Hello" } },
  cache: keyValueCache(openCache(name)),
});
await server.start();
const { body } = await server.executeHTTPGraphQLRequest({
  httpGraphQLRequest: {
    method: "POST",
    headers: new Map([["content-type", "application/json"]]),
    search: "",
    body: JSON.parse(request),
  },
  context: async () => ({}),
});
console.log(body.string.trim());
await server.stop();
