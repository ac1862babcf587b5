/**
 * Finds the blocks of code in a text, and runs them like a reader who types them in: all blocks of a section, from one heading to
 * the next, in one folder.
 *
 *     ```js               is run
 *     ```js server.mjs    is written to that file, which a block of sh in the same section uses
 *     ```sh               is run; the packages that it installs are there already
 *     ```text             directly behind one of those: its expected output, where 4711 stands for any number
 *     ```json yaml ini …  is parsed
 *
 * A comment `<!-- not run: reason -->` directly before a block says that the block is only parsed. A paragraph that ends with a
 * link in parentheses, `([store.mjs](store.mjs)):`, says that the next block is an excerpt of that file: the file has all lines of
 * the block. The blocks of a section that speaks of `REDIS_URL` find a server of their own under that address.
 */

import fs from "node:fs";
import path from "node:path";
import { marked, type Token } from "marked";
import { startServer } from "../tier/servers.ts";
import { execute, freePort, type Output, type Projects, root } from "./projects.ts";

interface Block {
  language: string;
  /** The file that the block is written to. */
  file: string | undefined;
  code: string;
  line: number;
  /** The reason why the block is not run. */
  not: string | undefined;
  /** The file that the block is an excerpt of, as a path from the root. */
  excerpt: string | undefined;
  /** The expected output of the block. */
  output: string | undefined;
}

export interface Section {
  /** `file:line` of its first block. */
  place: string;
  heading: string;
  blocks: Block[];
}

const LONGEST_MS = 60_000;
const SCRIPTS: Record<string, string> = { js: "mjs", mjs: "mjs", javascript: "mjs", cjs: "cjs", ts: "ts" };

/** The sections of a text that have blocks. */
export function sections(file: string, text: string): Section[] {
  const found: Section[] = [];
  let heading = "";
  let blocks: Block[] = [];
  let not: string | undefined;
  let excerpt: string | undefined;
  let line = 1;
  let last: Block | undefined;
  const end = (): void => {
    if (blocks[0] !== undefined) found.push({ place: `${file}:${blocks[0].line}`, heading, blocks });
    blocks = [];
  };
  const walk = (tokens: Token[], from: number): void => {
    line = from;
    for (const token of tokens) {
      if (token.type === "heading") {
        end();
        heading = token.text;
      } else if (token.type === "html") {
        not = /^<!-- not run: (\S.*?) -->\s*$/s.exec(token.raw)?.[1];
      } else if (token.type === "code") {
        const [language = "", name] = (token.lang ?? "").split(" ");
        const block = { language, file: name, code: `${token.text}\n`, line, not, excerpt, output: undefined };
        if (language === "text" && last !== undefined) {
          last.output = token.text;
          last = undefined;
        } else {
          blocks.push(block);
          last = isRun(block) ? block : undefined;
        }
      } else if (token.type === "list") {
        let at = line;
        for (const item of token.items) {
          walk(item.tokens, at);
          at += newlines(item.raw);
        }
        line = at - newlines(token.raw);
      }
      if (!["html", "space", "code"].includes(token.type)) last = undefined;
      if (!["html", "space"].includes(token.type)) {
        not = undefined;
        const link = token.type === "paragraph" ? /\(\[[^\]]+\]\(([\w./-]+)\)\):$/.exec(token.text)?.[1] : undefined;
        excerpt = link && path.join(path.dirname(file), link);
      }
      line += newlines(token.raw);
    }
  };
  walk(marked.lexer(text), 1);
  end();
  return found;
}

/** Whether a block is run, and not written to a file, parsed or compared. */
function isRun({ language, file, not, excerpt }: Block): boolean {
  const isScript = language in SCRIPTS && file === undefined;
  return (isScript || language === "sh") && not === undefined && excerpt === undefined;
}

function newlines(text: string): number {
  return text.split("\n").length - 1;
}

/** Whether the blocks of a section use a server of Redis or Valkey. */
export function needsServer({ blocks }: Section): boolean {
  return blocks.some((block) => (isRun(block) || block.file !== undefined) && block.code.includes("REDIS_URL"));
}

/** The doc comments of a source file, as a text with the same numbers of lines. */
export function comments(source: string): string {
  let inside = false;
  const lines = source.split("\n").map((text) => {
    const starts = /^\s*\/\*\*/.test(text);
    if (starts) inside = true;
    const told = inside ? text.replace(/^\s*(\/\*\*|\*\/| ?\* ?)/, "").replace(/\*\/\s*$/, "") : "";
    if (text.includes("*/")) inside = false;
    return told;
  });
  return lines.join("\n");
}

/** Runs the blocks of a section: what is wrong with them, empty when nothing is. */
export async function runSection(section: Section, folder: string, projects: Projects): Promise<string[]> {
  const wrong: string[] = [];
  const port = String(await freePort());
  const home = path.join(folder, ".pm2");
  const name = path.basename(folder);
  const bin = path.join(folder, "node_modules/.bin");
  const server = needsServer(section) ? await startServer({ tcp: true }) : undefined;
  const env = {
    PATH: `${shims(folder)}:${bin}:${process.env.PATH}`,
    PM2_HOME: home,
    PM2_DISABLE_VERSION_CHECK: "true",
    ...(server && { REDIS_URL: server.url }),
  };
  const apart = (code: string): string => projects.apart(code, name).replaceAll("3000", port);
  const run = (command: string, ...args: string[]): Promise<Output> =>
    execute(command, args, { cwd: folder, env, timeoutMs: LONGEST_MS });

  try {
    for (const block of section.blocks) {
      const complain = (what: string): void => void wrong.push(`line ${block.line}: ${what}`);
      const output = await tryBlock(block, complain);
      if (output === undefined) continue;
      const { status, stdout, stderr } = output;
      if (status !== 0) complain(`ended with ${status}: ${stderr}${stdout}`);
      // Tools in a block of sh may print warnings, the package may not.
      else if (stderr !== "" && block.language !== "sh") complain(`warned: ${stderr}`);
      if (block.output !== undefined) for (const missing of unprinted(block.output, stdout)) complain(missing);
    }
    for (const { file, not } of section.blocks) {
      if (file === undefined || not !== undefined) continue;
      const used = section.blocks.some((other) => other.file !== file && other.code.includes(file));
      if (!used) wrong.push(`${file} is written, and nothing uses it`);
    }
  } finally {
    if (fs.existsSync(home)) await run("pm2", "kill");
    await server?.stop();
  }
  return wrong;

  async function tryBlock(block: Block, complain: (what: string) => void): Promise<Output | undefined> {
    const { language, code, excerpt, line } = block;
    if (block.file !== undefined) fs.mkdirSync(path.dirname(path.join(folder, block.file)), { recursive: true });
    if (excerpt !== undefined) {
      const source = fs.readFileSync(path.join(root, excerpt), "utf8").split("\n");
      for (const text of code.trimEnd().split("\n")) {
        if (text.trim() !== "" && !source.some((one) => one.trim() === text.trim())) {
          complain(`${excerpt} has no line "${text.trim()}"`);
        }
      }
      return undefined;
    }
    const extension = SCRIPTS[language];
    if (extension !== undefined) {
      const file = block.file ?? `block-${line}.${extension === "ts" ? "mts" : extension}`;
      fs.writeFileSync(path.join(folder, file), apart(code));
      const script = extension === "ts" ? await compile(file) : file;
      if (isRun(block)) return run(process.execPath, script);
      const { status, stderr } = await run(process.execPath, "--check", script);
      if (status !== 0) complain(stderr);
      return undefined;
    }
    if (language === "sh") {
      const script = path.join(folder, `block-${line}.sh`);
      fs.writeFileSync(script, apart(code));
      if (isRun(block)) return run("sh", "-eu", script);
      const { status, stderr } = await run("sh", "-n", script);
      if (status !== 0) complain(stderr);
      return undefined;
    }
    const parse = PARSERS[language];
    if (parse === undefined) {
      complain(`unknown language of a block: "${language}"`);
      return undefined;
    }
    try {
      await parse(code);
    } catch (error) {
      complain((error as Error).message);
    }
    if (block.file !== undefined) fs.writeFileSync(path.join(folder, block.file), apart(code));
    return undefined;
  }

  async function compile(file: string): Promise<string> {
    const { transform } = await import("esbuild");
    const { code } = await transform(fs.readFileSync(path.join(folder, file), "utf8"), { loader: "ts" });
    const compiled = file.replace(/\.m?ts$/, ".mjs");
    fs.writeFileSync(path.join(folder, compiled), code);
    return compiled;
  }
}

/** The lines of the expected output that were not printed in this order. A number of three or more digits matches any number. */
export function unprinted(expected: string, printed: string): string[] {
  const lines = printed.split("\n").map((line) => line.trim());
  let from = 0;
  return expected.split("\n").flatMap((text) => {
    if (text.trim() === "") return [];
    const literal = text.trim().replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
    const pattern = new RegExp(`^${literal.replace(/\d{3,}/g, "\\d+")}$`);
    const at = lines.findIndex((line, index) => index >= from && pattern.test(line));
    if (at < 0) return [`does not print "${text}" but:\n${printed}`];
    from = at + 1;
    return [];
  });
}

/**
 * Creates replacements for programs that would need the network, or would run this test again. The replacement of npm checks that
 * the package or script exists. The replacement of curl waits for the server, which a reader would have started before.
 */
function shims(folder: string): string {
  const bin = path.join(folder, ".shims");
  fs.mkdirSync(bin, { recursive: true });
  const npm = `#!${process.execPath}
const { existsSync } = require("node:fs");
const [command, ...words] = process.argv.slice(2).filter((name) => !name.startsWith("-"));
const names = words.map((name) => name.replace(/(?<=.)@.*/, ""));
const { scripts } = require(${JSON.stringify(path.join(root, "package.json"))});
const isThere = (name) => existsSync("node_modules/" + name);
const good = { ci: () => true, init: () => true, install: () => names.every(isThere), run: () => names[0] in scripts };
if ((good[command] ?? (() => command in scripts))()) process.exit();
console.error("npm " + [command, ...names].join(" ") + ": this is not there");
process.exit(1);
`;
  const curl = `#!${process.execPath}
const end = Date.now() + 20_000;
(async function ask() {
  try {
    process.stdout.write(await (await fetch(new URL("http://" + process.argv.at(-1).replace("http://", "")))).text());
  } catch (error) {
    if (Date.now() < end) setTimeout(ask, 50);
    else throw error;
  }
})();
`;
  fs.writeFileSync(path.join(bin, "npm"), npm, { mode: 0o755 });
  fs.writeFileSync(path.join(bin, "curl"), curl, { mode: 0o755 });
  return bin;
}

/** Parsers for the languages that are not run. */
const PARSERS: Record<string, (code: string) => unknown> = {
  // Drawings, and outputs of programs that are not run here.
  text: () => {},
  "": () => {},
  // Signatures; only the generated reference has them.
  typescript: () => {},
  json: JSON.parse,
  async yaml(code) {
    const { createRequire } = await import("node:module");
    const ofPm2 = createRequire(createRequire(import.meta.url).resolve("pm2/package.json"));
    ofPm2("js-yaml").loadAll(code);
  },
  ini(code) {
    for (const line of code.split("\n")) {
      if (!/^(\[\w+\]|[A-Z]\w+=.+|#.*|)$/.test(line)) throw new Error(`not a line of a unit: "${line}"`);
    }
  },
  dockerfile(code) {
    for (const line of code.split("\n")) {
      if (!/^(FROM|RUN|COPY|WORKDIR|USER|ENV|CMD|EXPOSE) \S|^#|^$/.test(line)) {
        throw new Error(`not a line of a Dockerfile: "${line}"`);
      }
    }
  },
};
