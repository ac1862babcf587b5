/**
 * Types: a cache and namespaces with the types of their values. Node.js 22.18 and later run this file directly; earlier versions
 * need a compiler.
 *
 *     node examples/11-typescript.ts
 */

import { type Cache, CacheError, createCache, type Entry } from "cache-machine";

interface User {
  name: string;
  roles: readonly string[];
}

const cache = createCache({ size: "4mb" });
const users: Cache<User> = cache.namespace<User>("users");
const visits: Cache<number> = cache.namespace<number>("visits");

users.set("ada", { name: "Ada", roles: ["author"] }, { tags: ["staff"], ttl: 60_000 });
visits.increment("ada");

// @ts-expect-error a user has roles
users.set("eve", { name: "Eve" });
users.delete("eve");

const user: User | undefined = users.get("ada");
const entry: Entry<User> | undefined = users.getEntry("ada");
console.log(`${user?.name} has the roles ${user?.roles.join(", ")} and the tags ${entry?.tags.join(", ")}`);

const changed: User = users.update("ada", (was) => ({ name: "Ada", roles: [...(was?.roles ?? []), "editor"] }));
console.log(`${changed.roles.length} roles, ${visits.get("ada")} visit`);

try {
  cache.set("too large", "x".repeat(1_000_000));
} catch (error) {
  if (error instanceof CacheError && error.code === "ERR_TOO_LARGE") console.log(error.code);
  else throw error;
}

cache.close();
