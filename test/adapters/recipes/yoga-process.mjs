/** A GraphQL Yoga with the response cache of the recipe. All processes have the same users, in the cache `name`. */
import { useResponseCache } from "@graphql-yoga/plugin-response-cache";
import { openCache } from "cache-machine";
import { createSchema, createYoga } from "graphql-yoga";
import { responseCache } from "./yoga-cache.mjs";

export function start(name) {
  const cache = openCache(name);
  const nameOf = (id) => cache.get(`name ${id}`) ?? `user ${id}`;
  const user = (id) => ({ id, name: nameOf(id) });
  const count = (result) => {
    cache.increment("executed");
    return result;
  };
  const yoga = createYoga({
    logging: false,
    schema: createSchema({
      typeDefs: `
        type User { id: ID! name: String }
        type Query { user(id: ID!): User users(count: Int!): [User!]! blob(size: Int!): String }
        type Mutation { rename(id: ID!, name: String): User }`,
      resolvers: {
        Query: {
          user: (_, { id }) => count(user(id)),
          users: (_, { count: length }) => count(Array.from({ length }, (_, id) => user(String(id)))),
          blob: (_, { size }) => count("x".repeat(size)),
        },
        Mutation: {
          rename: (_, { id, name }) => {
            cache.set(`name ${id}`, name);
            return user(id);
          },
        },
      },
    }),
    plugins: [
      useResponseCache({ session: () => null, ttl: 600_000, cache: responseCache(cache.namespace("responses")) }),
    ],
  });
  return async (query, variables) => {
    const response = await yoga.fetch("http://localhost/graphql", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = await response.json();
    if (errors) throw new Error(JSON.stringify(errors));
    return data;
  };
}
