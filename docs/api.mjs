/**
 * Writes docs/api.md from the comments in the source, by way of the types in dist/: what the package exports, and nothing
 * that is internal. `node docs/api.mjs` after `npm run build`.
 *
 * It reads just as much TypeScript as the compiler writes into such files: a comment, then a declaration that ends with a
 * semicolon or a brace. What it does not understand is an error.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const TYPES = new URL("../dist/", import.meta.url);
const TARGET = fileURLToPath(new URL("api.md", import.meta.url));

/** The order of the page. What is exported and not listed here comes behind its types. */
const CHAPTERS = [
  ["Opening a cache", ["openCache", "createCache", "attachCache", "destroyCache"]],
  ["Without configuration", ["set", "get"]],
  ["The cache", ["Cache"]],
  ["Options", ["OpenOptions", "CreateOptions", "CacheOptions", "SetOptions", "IncrementOptions", "Codec"]],
  ["Types", ["Key", "Entry", "Stats", "CacheHandle"]],
  ["Errors", ["CacheError", "CacheErrorCode"]],
];

/** The text of docs/api.md. */
export function reference() {
  const exported = exportsOf("index.d.ts");
  const listed = CHAPTERS.flatMap(([, names]) => names);
  const gone = listed.filter((name) => !exported.has(name));
  if (gone.length > 0) throw new Error(`docs/api.mjs: ${gone} is not exported any more`);
  const others = [...exported.keys()].filter((name) => !listed.includes(name));
  const lines = [
    "# API reference",
    "",
    "<!-- Generated from the comments in the source by `node docs/api.mjs`: do not edit. -->",
    "",
    "What `cache-machine` exports to Node.js. In browsers `createCache` and `attachCache` are the same, and `openCache` and",
    "`destroyCache` throw `ERR_UNSUPPORTED`. Wrong arguments are a `TypeError` or a `RangeError` that names them.",
  ];
  for (const [chapter, names] of CHAPTERS) {
    lines.push("", `## ${chapter}`);
    const all = chapter === "Types" ? [...names, ...others] : names;
    for (const name of all) lines.push(...describe(name, exported.get(name)));
  }
  return `${lines.join("\n")}\n`;
}

/** Declarations by name, overloads together. */
function exportsOf(file) {
  const all = declarations(readFileSync(new URL(file, TYPES), "utf8"));
  const found = new Map();
  const wanted = new Map();
  for (const declaration of all) {
    const [, names, from] = /^export (?:type )?\{([^}]*)\}(?: from "\.\/(\w+)\.ts")?;$/s.exec(declaration.code) ?? [];
    if (names !== undefined) {
      for (const name of names.split(","))
        wanted.set(name.replace(/\btype\b/, "").trim(), from ?? importedFrom(all, name));
    } else if (declaration.name !== undefined && declaration.code.startsWith("export ")) {
      found.set(declaration.name, [...(found.get(declaration.name) ?? []), declaration]);
    }
  }
  for (const [name, from] of wanted) {
    const there = declarations(readFileSync(new URL(`${from}.d.ts`, TYPES), "utf8"));
    found.set(
      name,
      there.filter((declaration) => declaration.name === name),
    );
  }
  return found;
}

function importedFrom(all, name) {
  const { code } = all.find(({ code }) => new RegExp(`^import .*\\b${name.trim()}\\b.* from`).test(code));
  return /"\.\/(\w+)\.ts"/.exec(code)[1];
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
  const body = code.slice(head.length + 1, -1);
  const members = declarations(body).filter(({ name }) => name !== undefined && !name.startsWith("#"));
  const lines = ["", `### ${name}`, ...signatures([head.trim()]), ...prose(comment)];
  if (kind === "interface") {
    lines.push("", "| | type | |", "|---|---|---|");
    for (const { code, comment } of members) {
      const [, property, type] = /^(?:readonly )?(\w+)\??(?:: |(?=\())(.*);$/s.exec(code);
      lines.push(
        `| \`${property}\` | \`${type.replace(" | undefined", "").replace(/\s+/g, " ").replaceAll("|", "\\|")}\` | ${inline(comment ?? "")} |`,
      );
    }
    return lines;
  }
  const object = name === "CacheError" ? "error" : "cache";
  for (const { name: member, code, comment } of members) {
    if (comment === undefined) continue;
    lines.push(
      "",
      `#### ${object}${member.startsWith("[") ? member : `.${member}`}`,
      ...signatures([code]),
      ...prose(comment),
    );
  }
  return lines;
}

function signatures(codes) {
  const plain = codes.map((code) => code.replace(/^export (declare )?/, "").replace(/\n {4}/g, "\n  "));
  return ["", "```typescript", ...plain, "```"];
}

/** A comment as paragraphs: what it says, then what is returned and thrown. */
function prose(comment) {
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
