import { APPLICATION, ERRORS, SEATS } from "../files.mjs";

/** @type {import("../index.mjs").PackageMutant[]} */
export default [
  // ---- operations
  {
    name: "handles-of-any-build",
    breaks: "A1",
    what: "a handle from another version of the package is accepted",
    file: "src/open/threads.ts",
    find: "if (build !== plan.build) {",
    replace: "if (build === undefined) {",
    first: ERRORS,
  },

  // ---- the seats of a thread, and the application
  {
    name: "memories-of-this-realm",
    breaks: "errors",
    what: "a handle from another realm is refused",
    file: "src/open/threads.ts",
    find: "if (!isSharedMemory(memory)",
    replace: "if (!isSharedMemory(memory) || !(memory instanceof WebAssembly.Memory)",
    first: SEATS,
    filter: "realm",
  },
  {
    name: "the-tool-is-the-application",
    breaks: "errors",
    what: "the application is the tool that was started",
    file: "src/open/application.ts",
    find: "      if (ABOVE_DEPENDENCIES.test(at)) return undefined;\n",
    replace: "",
    also: [["    if (ABOVE_DEPENDENCIES.test(at)) return undefined;\n    return", "    return"]],
    first: APPLICATION,
  },
  {
    name: "a-linked-tool-is-the-application",
    breaks: "errors",
    what: "a tool that is linked to a checkout is taken for the application",
    file: "src/open/application.ts",
    find: "        at = resolve(folder, readlinkSync(at));",
    replace: "        at = realpathSync(resolve(folder, readlinkSync(at)));\n        break;",
    first: APPLICATION,
    filter: "checkout",
  },
  {
    name: "the-working-directory-is-the-application",
    breaks: "errors",
    what: "under a tool the working directory counts, not the code that calls",
    file: "src/open/application.ts",
    find: "if (own !== undefined) return projectAbove(dirname(own));",
    replace: "if (own !== undefined) return projectAbove(process.cwd());",
    first: APPLICATION,
  },
  {
    name: "names-cut-by-characters",
    breaks: "errors",
    what: "the readable part of a name is cut after a number of characters, and not of bytes",
    file: "src/open/application.ts",
    find: "bytes += /[A-Za-z0-9._-]/.test(char) ? 1 : 3 * Buffer.byteLength(char);",
    replace: "bytes += 1;",
    first: APPLICATION,
    filter: "name",
  },
];
