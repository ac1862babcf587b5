/**
 * Writes docs/api.md from the doc comments of the public interface, which it reads from the types in dist/: run
 * `npm run docs`, or `node docs/api.mjs` after `npm run build`. A test compares the result with docs/api.md.
 *
 * The page is grouped by what the reader wants to do. An export, or a member of `Cache`, that is in no group is an error, and
 * so is a name in a group that does not exist.
 *
 * This is no parser of TypeScript. It understands what the compiler writes into declaration files: a comment, then a
 * declaration that ends with a semicolon or a brace. Anything else is an error.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const TYPES = new URL("../dist/types/", import.meta.url);
const TARGET = fileURLToPath(new URL("api.md", import.meta.url));

/**
 * The groups of the page, in its order: the title, then exports and members. A class is followed by its members, which are
 * named after an object: `cache.get`, `error.code`.
 *
 * @type {[title: string, names: string[]][]}
 */
export const GROUPS = [
  [
    "Opening and closing",
    [
      "openCache",
      "createCache",
      "attachCache",
      "destroyCache",
      "cache.close",
      "cache[Symbol.dispose]",
      "cache.destroyed",
      "cache.handle",
      "OpenOptions",
      "CreateOptions",
      "CacheOptions",
      "Codec",
      "CacheHandle",
    ],
  ],
  ["Without configuration", ["set", "get"]],
  ["The cache", ["Cache", "Key"]],
  [
    "Reading",
    [
      "cache.get",
      "cache.getMany",
      "cache.getManyEntries",
      "cache.hasMany",
      "cache.getEntry",
      "cache.getStale",
      "cache.has",
      "cache.ttl",
      "cache.size",
      "cache.keys",
      "cache.values",
      "cache.entries",
      "cache[Symbol.iterator]",
      "cache.forEach",
      "Entry",
      "StaleEntry",
      "KeysOptions",
    ],
  ],
  [
    "Writing",
    [
      "cache.set",
      "cache.setMany",
      "cache.touch",
      "cache.expire",
      "cache.delete",
      "cache.deleteMany",
      "cache.clear",
      "SetOptions",
    ],
  ],
  [
    "Writing on a condition",
    [
      "cache.add",
      "cache.trySet",
      "cache.getOrInsert",
      "cache.getOrInsertComputed",
      "cache.replace",
      "cache.compareAndSet",
      "cache.update",
      "cache.compareAndDelete",
      "cache.take",
    ],
  ],
  ["Numbers", ["cache.increment", "cache.incrementEntry", "cache.decrement", "IncrementOptions", "CountedEntry"]],
  [
    "Rate limits",
    [
      "cache.rateLimit",
      "rateLimitHeaders",
      "RateLimitOptions",
      "RateLimitResult",
      "RateLimitHeadersOptions",
      "RateLimitAlgorithm",
      "RateLimitState",
    ],
  ],
  [
    "Groups of entries",
    ["cache.invalidateTag", "cache.expireTag", "cache.tagInvalidatedAt", "cache.namespace", "NamespaceOptions"],
  ],
  [
    "Loading",
    [
      "cache.getOrSet",
      "cache.getOrSetMany",
      "cache.memoize",
      "LoadOptions",
      "LoadContext",
      "LoadTrace",
      "LoadManyContext",
      "LoadedMany",
      "LoadOutcome",
      "MemoizeOptions",
    ],
  ],
  ["Waiting and watching", ["cache.waitFor", "cache.watch", "cache.watchTag", "WaitForOptions", "WatchOptions"]],
  [
    "Locks",
    [
      "cache.locks",
      "Locks",
      "cache.locks.request",
      "cache.locks.query",
      "LockOptions",
      "Lock",
      "LockState",
      "HeldLock",
      "PendingLock",
    ],
  ],
  ["A second tier", ["cache.encode", "cache.decode", "cache.leased", "Leased", "Lease"]],
  [
    "Observing",
    [
      "cache.stats",
      "cache.census",
      "cache.inspect",
      "cache.name",
      "cache.reach",
      "cache.toJSON",
      "cache[Symbol.toStringTag]",
      "Stats",
      "Census",
      "Inspection",
      "Segment",
      "CacheSummary",
    ],
  ],
  [
    "Snapshots",
    [
      "exportCache",
      "importCache",
      "ExportOptions",
      "ExportProgress",
      "ExportResult",
      "ImportOptions",
      "ImportProgress",
      "ImportResult",
      "SnapshotTarget",
      "SnapshotSource",
      "FileUrl",
    ],
  ],
  ["Errors", ["CacheError", "error.code", "CacheErrorCode"]],
  [
    "A tier: cache-machine/tier",
    [
      "openTier",
      "TierOptions",
      "Tier",
      "tier.peek",
      "tier.get",
      "tier.getMany",
      "tier.getEntry",
      "tier.has",
      "tier.ttl",
      "tier.keys",
      "tier.set",
      "tier.setMany",
      "tier.add",
      "tier.touch",
      "tier.delete",
      "tier.deleteMany",
      "tier.clear",
      "tier.increment",
      "tier.incrementEntry",
      "tier.decrement",
      "tier.getOrSet",
      "tier.getOrSetMany",
      "tier.memoize",
      "tier.invalidateTag",
      "tier.tagInvalidatedAt",
      "tier.now",
      "tier.namespace",
      "tier.stats",
      "tier.close",
      "tier[Symbol.asyncDispose]",
      "TierSetOptions",
      "TierEntry",
      "TierCountedEntry",
      "TierStats",
      "Counts",
      "OwnerReport",
      "OwnerState",
    ],
  ],
];

/** The classes whose members are in groups, and what an object of each is called. */
const OBJECTS = { Cache: "cache", Locks: "cache.locks", CacheError: "error", Tier: "tier" };

/** The declarations of the entries that the page is about. */
const ENTRIES = ["index.d.ts", "tier/index.d.ts"];

/** The text of docs/api.md; only tests give other groups. */
export function reference(groups = GROUPS) {
  const all = new Map();
  for (const [name, found] of ENTRIES.flatMap((entry) => [...exportsOf(entry)])) {
    all.set(name, () => describe(name, found));
    for (const [member, overloads] of Object.hasOwn(OBJECTS, name) ? membersOf(name, found) : []) {
      all.set(member, () => describeMember(member, overloads));
    }
  }
  const listed = groups.flatMap(([, names]) => names);
  const missing = [...all.keys()].filter((name) => !listed.includes(name));
  if (missing.length > 0) throw new Error(`docs/api.mjs: ${missing.join(", ")}: in no group of GROUPS`);
  const gone = listed.filter((name) => !all.has(name));
  if (gone.length > 0) throw new Error(`docs/api.mjs: ${gone.join(", ")}: in GROUPS, but not exported any more`);
  const twice = listed.filter((name, i) => listed.indexOf(name) !== i);
  if (twice.length > 0) throw new Error(`docs/api.mjs: ${twice.join(", ")}: in two groups`);

  const lines = [
    "# API reference",
    "",
    "<!-- Generated from the doc comments in src/ by `npm run docs`: do not edit. -->",
    "",
    "What `cache-machine` exports to Node.js, and at the end `cache-machine/tier`. In browsers `createCache` and `attachCache` are the same, and `openCache` and",
    "`destroyCache` throw `ERR_UNSUPPORTED`. Wrong arguments are a `TypeError` or a `RangeError` that names them. An option that",
    "does not exist is a `TypeError` that names the option which was probably meant.",
    "",
    ...contents(groups),
  ];
  for (const [title, names] of groups) lines.push("", `## ${title}`, ...names.flatMap((name) => all.get(name)()));
  return `${lines.join("\n")}\n`;
}

/** The groups with links to what is in them. */
function contents(groups) {
  const met = new Map();
  const link = (text, heading) => {
    const fragment = heading
      .toLowerCase()
      .replace(/[^\w -]/g, "")
      .replaceAll(" ", "-");
    const before = met.get(fragment) ?? 0;
    met.set(fragment, before + 1);
    // Markdown viewers number headings whose fragments are the same.
    return `[${text}](#${fragment}${before === 0 ? "" : `-${before}`})`;
  };
  return groups.map(([title, names]) => {
    const head = link(title, title);
    return `- ${head}: ${names.map((name) => link(`\`${name.replace(/^(?:cache|error|tier)\.?/, "")}\``, name)).join(", ")}`;
  });
}

/** The exports of a declaration file: their declarations by name, overloads together. */
function exportsOf(file) {
  const found = new Map();
  for (const { code, name } of declarations(read(file))) {
    const [, names] = /^export (?:type )?\{([^}]*)\}/s.exec(code) ?? [];
    const exported = names === undefined ? [name] : names.match(/\b(?!type\b)\w+/g);
    if (code.startsWith("export ")) for (const each of exported) found.set(each, declarationsOf(each, file));
  }
  return found;
}

/** The declarations of one name, in this file or in the one it is imported or exported from. */
function declarationsOf(name, file) {
  const all = declarations(read(file));
  const own = all.filter((declaration) => declaration.name === name);
  if (own.length > 0) return own;
  for (const { code } of all) {
    const [, names, from] = /^(?:import|export) (?:type )?\{([^}]*)\} from "\.\/([\w./-]+)\.[tj]s";$/s.exec(code) ?? [];
    if (names !== undefined && new RegExp(`\\b${name}\\b`).test(names)) {
      return declarationsOf(name, new URL(`${from}.d.ts`, new URL(file, TYPES)));
    }
  }
  throw new Error(`docs/api.mjs: ${file} does not say where ${name} comes from`);
}

function read(file) {
  return readFileSync(new URL(file, TYPES), "utf8");
}

/** Splits a text into `{ comment, code, name }`; also the inside of a class or an interface. */
function declarations(text) {
  const found = [];
  let comment;
  let at = 0;
  while (at < text.length) {
    const rest = text.slice(at);
    const space = /^\s+/.exec(rest)?.[0];
    const block = /^\/\*\*[\s\S]*?\*\//.exec(rest)?.[0];
    const line = /^\/\/.*/.exec(rest)?.[0];
    if (space !== undefined) at += space.length;
    else if (line !== undefined) at += line.length;
    else if (block !== undefined) {
      comment = block;
      at += block.length;
    } else {
      const code = rest.slice(0, endOf(rest));
      const name =
        /^(?:export )?(?:declare )?(?:function|const|type|interface|class) (\w+)/.exec(code)?.[1] ??
        /^(?:readonly )?(?:get )?([\w#]+|\[[\w.]+\])\s*[<(?:;]/.exec(code)?.[1];
      found.push({ comment, code, name });
      comment = undefined;
      at += code.length;
    }
  }
  return found;
}

/** Where the declaration at the start of a text ends. */
function endOf(text) {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    if (text.startsWith("/*", at)) at = text.indexOf("*/", at) + 1;
    else if (text[at] === '"') at = text.indexOf('"', at + 1);
    else if ("({[".includes(text[at])) depth++;
    else if (")}]".includes(text[at])) {
      depth--;
      const isBody = depth === 0 && text[at] === "}" && /^export (declare class|interface)/.test(text);
      if (isBody) return at + 1;
    } else if (text[at] === ";" && depth === 0) return at + 1;
  }
  throw new Error(`docs/api.mjs: no end of ${text.slice(0, 80)}`);
}

/** The part of the page that is about one export. */
function describe(name, overloads) {
  const [{ code, comment }] = overloads;
  const kind = /^export (?:declare )?(\w+)/.exec(code)[1];
  if (kind === "function") {
    const documented = overloads.find(({ comment }) => comment !== undefined);
    return ["", `### ${name}`, ...signatures(overloads.map(({ code }) => code)), ...prose(documented.comment)];
  }
  if (kind === "type" && code.includes("/**")) {
    const members = [...code.matchAll(/\/\*\*([\s\S]*?)\*\/\s*\|?\s*"(\w+)"/g)];
    const rows = members.map(([, text, code]) => `| \`${code}\` | ${inline(text)} |`);
    return ["", `### ${name}`, ...prose(comment), "", "| code | meaning |", "|---|---|", ...rows];
  }
  if (kind === "type") return ["", `### ${name}`, ...signatures([code]), ...prose(comment)];

  const [head] = /^[^{]+/.exec(code);
  const lines = ["", `### ${name}`, ...signatures([head.trim()]), ...prose(comment)];
  if (kind === "interface") {
    lines.push("", "| | type | |", "|---|---|---|");
    for (const member of declarations(bodyOf(code))) {
      const [, property, type] = /^(?:readonly )?(\w+)\??(?:: |(?=\())(.*);$/s.exec(member.code);
      lines.push(
        `| \`${property}\` | \`${type.replace(" | undefined", "").replace(/\s+/g, " ").replaceAll("|", "\\|")}\` | ${inline(member.comment ?? "")} |`,
      );
    }
  }
  return lines;
}

/** Members of classes that need no words. */
const UNTOLD = ["cache.constructor", "cache.locks.constructor", "error.constructor", "error.name", "tier.constructor"];

/** The public members of a class: their declarations by their names on the page, overloads together. */
function membersOf(name, [{ code }]) {
  const members = new Map();
  for (const member of declarations(bodyOf(code))) {
    if (member.name === undefined || member.name.startsWith("#")) continue;
    const path = `${OBJECTS[name]}${member.name.startsWith("[") ? "" : "."}${member.name}`;
    if (!UNTOLD.includes(path)) members.set(path, [...(members.get(path) ?? []), member]);
  }
  return members;
}

function describeMember(name, overloads) {
  const { comment } = overloads.find((each) => each.comment !== undefined) ?? {};
  return ["", `### ${name}`, ...signatures(overloads.map(({ code }) => code)), ...prose(comment)];
}

/** What is between the braces of a class or an interface. */
function bodyOf(code) {
  return code.slice(code.indexOf("{") + 1, -1);
}

function signatures(codes) {
  const plain = codes.map((code) => code.replace(/^export (declare )?/, "").replace(/\n {4}/g, "\n  "));
  return ["", "```typescript", ...plain, "```"];
}

/** A comment as paragraphs: what it says, then what is returned and thrown. */
function prose(comment) {
  if (comment === undefined) throw new Error("docs/api.mjs: a part of the public interface has no doc comment");
  const text = bare(comment);
  if (text === "") return [];
  const [told, ...tags] = text.split(/^@(?=throws|returns|param)/m);
  const lines = told.trim() === "" ? [] : ["", ...linked(told).trim().split("\n")];
  for (const tag of tags) {
    const [, kind, what] = /^(\w+) +([\s\S]*)$/.exec(tag);
    const words = linked(what).replace(/\s+/g, " ").trim();
    if (kind === "param") lines.push("", words.replace(/^(\w+) (- )?/, "`$1`: "));
    else lines.push("", `${{ throws: "Throws", returns: "Returns" }[kind]} ${words.replace(/\{(\w+)\}/g, "`$1`")}`);
  }
  return lines;
}

/** A comment as part of a line. */
function inline(comment) {
  return prose(comment).join(" ").replace(/\s+/g, " ").replaceAll("|", "\\|").trim();
}

function bare(comment) {
  return comment
    .replace(/^\/\*\*|\*\/$/g, "")
    .split("\n")
    .map((line) => line.replace(/^\s*\*? ?/, ""))
    .join("\n")
    .trim();
}

function linked(text) {
  return text.replace(/\{@link (?:\w+\.)?(\w+)\}/g, "`$1`");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(TARGET, reference());
