import { LOCK_FILE, NATIVE, RESOURCES } from "../files.mjs";

/** @type {import("../index.mjs").PackageMutant[]} */
export default [
  // ---- who is alive
  {
    name: "locks-of-the-process",
    breaks: "L3",
    what: "locks belong to the process and go with any of its descriptors (F_SETLK)",
    file: "native/cache_machine.c",
    find: "F_OFD_SETLK = 37,",
    replace: "F_OFD_SETLK = 6,",
    first: LOCK_FILE,
  },

  // ---- the file
  {
    name: "threads-end-without-leaving",
    breaks: "resources",
    what: "a thread that ends without close() counts as a user of its mappings for ever",
    file: "native/cache_machine.c",
    find: "    give_back(use, use->count);\n",
    replace: "",
    first: RESOURCES,
    filter: "without close",
  },
  {
    name: "last-thread-leaves-the-file",
    breaks: "resources",
    what: "the file stays mapped when its last user is a thread that ends",
    file: "native/cache_machine.c",
    find: "    give_back(use, use->count);\n",
    replace: "    __atomic_sub_fetch(use->users, use->count, __ATOMIC_SEQ_CST);\n",
    first: RESOURCES,
    filter: "without close",
  },
  {
    name: "one-user-of-many-is-given-back",
    breaks: "resources",
    what: "a thread that ends takes itself off once, however often it had the file open",
    file: "native/cache_machine.c",
    find: "    give_back(use, use->count);\n",
    replace: "    give_back(use, 1);\n",
    first: NATIVE,
    filter: "thread that ends",
  },
  {
    name: "no-answer-is-fatal",
    breaks: "death costs nothing",
    what: "what Node-API cannot do in a thread that is being terminated ends the process",
    file: "native/cache_machine.c",
    find: "return napi_define_properties(env, exports, COUNT, properties) == napi_ok ? exports : NULL;",
    replace:
      "if (napi_define_properties(env, exports, COUNT, properties) != napi_ok) __builtin_trap();\n  return exports;",
    first: NATIVE,
    filter: "first cache",
  },
  {
    name: "arguments-are-what-they-should-be",
    breaks: "errors",
    what: "the native part accepts a fraction as a number of bytes, and NaN as a descriptor",
    file: "native/cache_machine.c",
    find: "if (!(number >= 0 && number <= (double)most)) return false;",
    replace: "(void)most;",
    also: [["return (double)*result == number;", "return true;"]],
    first: NATIVE,
    filter: "functions",
  },
];
