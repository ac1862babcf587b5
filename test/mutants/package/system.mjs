import { FILE, LOCK_FILE, NATIVE, PLACES } from "../files.mjs";

/** @type {import("../index.mjs").PackageMutant[]} */
export default [
  // ---- who is alive
  {
    name: "locked-by-another-is-ours",
    breaks: "L3",
    what: "a lock that another holds proves its death",
    file: "src/system/native.ts",
    find: 'if (code === "EAGAIN" || code === "EACCES") return false;',
    replace: 'if (code === "EAGAIN" || code === "EACCES") return true;',
    first: LOCK_FILE,
  },
  {
    name: "no-descriptor-is-no-binary",
    breaks: "errors",
    what: "when no descriptor is left the native part is said to be broken",
    file: "src/system/binary.ts",
    find: "if (/Too many open files|No file descriptors/i.test(message)) {",
    replace: "if (/No such error/i.test(message)) {",
    first: FILE,
    filter: "descriptors",
  },

  // ---- the file
  {
    name: "lost-race-is-won",
    breaks: "A1",
    what: "of two creators both believe that the name is theirs",
    file: "src/system/native.ts",
    find: 'if (code === "EEXIST") return false;',
    replace: 'if (code === "EEXIST") return true;',
    first: FILE,
  },
  {
    name: "no-limit-of-the-group",
    breaks: "resources",
    what: "a cache may be larger than the memory of its container",
    file: "src/system/cgroup.ts",
    find: "if (size <= limit) return;",
    replace: "if (size > 0) return;",
    first: PLACES,
  },
  {
    name: "outer-groups-do-not-count",
    breaks: "resources",
    what: "only the innermost control group is looked at",
    file: "src/system/cgroup.ts",
    find: 'if (group === "" || group === "/") break;',
    replace: "break;",
    first: PLACES,
  },
  {
    name: "no-reserving-is-any-error",
    breaks: "errors",
    what: "a file system that cannot reserve blocks is not told from one that fails",
    file: "src/system/native.ts",
    find: '    case "ENOTSUP":\n    case "EINVAL":\n',
    replace: '    case "EINVAL":\n',
    first: FILE,
    filter: "reserves no blocks",
  },
  {
    name: "no-addons-is-a-broken-file",
    breaks: "errors",
    what: "the error does not say that --no-addons forbids the native part",
    file: "src/system/binary.ts",
    find: 'if (cause.code === "ERR_DLOPEN_DISABLED") {',
    replace: 'if (cause.code === "ENOSYS") {',
    first: NATIVE,
    filter: "forbidden",
  },
];
