/**
 * Does what the reader of a page in docs/adapters/, or of a recipe in docs/recipes.md, does first: installs what the page says into an empty folder, with the packed
 * package in the place of the published one, and runs the first program of the page there.
 *
 * The first block of a page is `npm install cache-machine …` and the next block of JavaScript is that program. It ends by itself and
 * warns of nothing. A block of text directly behind it is its output. Comments say what is different:
 *
 *     <!-- three lines: starts a server -->        it prints an address, answers there, and ends on SIGTERM
 *     <!-- three lines: node >= 22 -->             it needs this version of Node.js
 *     <!-- three lines: not run, because … -->     it cannot run in an empty folder, and the page has a test of its own
 *
 * Of a recipe all blocks are run, as test/package/docs.test.ts runs them.
 *
 * Packages without a version on the page are installed in the version that the other tests use.
 */

import fs from "node:fs";
import path from "node:path";
import { marked } from "marked";
import { afterAll, expect, test } from "vitest";
import { runSection, type Section, sections, unprinted } from "../package/blocks.ts";
import { nodeBinary, versions } from "../package/nodes.ts";
import { address, execute, Projects, Running, root } from "../package/projects.ts";

const PAGES = "docs/adapters";
const LANGUAGES: Record<string, string> = { js: "mjs", mjs: "mjs", javascript: "mjs", cjs: "cjs", ts: "ts" };
const NPM = [
  "--ignore-scripts",
  "--no-audit",
  "--no-fund",
  "--no-update-notifier",
  "--prefer-offline",
  "--loglevel=error",
];
const INSTALL_MS = 180_000;

interface Page {
  /** What the comments say. */
  notes: string[];
  install: string | undefined;
  program: { language: string; code: string } | undefined;
  output: string | undefined;
}

const projects = new Projects("three-lines");
afterAll(() => projects.remove());

const pages = fs.readdirSync(path.join(root, PAGES)).filter((file) => file.endsWith(".md"));

/** The first program of a page, and what belongs to it. */
function read(text: string): Page {
  const page: Page = { notes: [], install: undefined, program: undefined, output: undefined };
  let last = "";
  for (const token of marked.lexer(text)) {
    if (token.type === "html") page.notes.push(...comments(token.raw));
    if (token.type === "code") {
      const [language = ""] = (token.lang ?? "").split(" ");
      if (page.program !== undefined) {
        if (language === "text" && last === "code") page.output = token.text;
        return page;
      }
      if (language === "sh") page.install ??= token.text;
      else if (language in LANGUAGES) page.program = { language, code: `${token.text}\n` };
    } else if (page.program !== undefined && token.type !== "space") {
      return page;
    }
    if (token.type !== "space") last = token.type;
  }
  return page;
}

function comments(html: string): string[] {
  return [...html.matchAll(/<!-- three lines: (.+?) -->/gs)].map(([, note = ""]) => note);
}

/** What `npm install` gets beside the packed package: the other packages of these commands, in the versions that are tested. */
function packages(commands: string): string[] {
  const words = [...commands.matchAll(/^npm install (.+)$/gm)].flatMap(([, list = ""]) => list.split(/\s+/));
  const names = [...new Set(words.filter((word) => word !== "" && !word.startsWith("-")))];
  expect(names[0], "the first package of `npm install`").toBe("cache-machine");
  const tested = ["package.json", "test/ecosystem/package.json"].map((file) => {
    const { dependencies, devDependencies } = JSON.parse(fs.readFileSync(path.join(root, file), "utf8"));
    return { ...dependencies, ...devDependencies };
  });
  return names.slice(1).map((name) => {
    if (name.lastIndexOf("@") > 0) return name;
    const version = tested.map((each) => each[name]).find((each) => each !== undefined);
    return version === undefined ? name : `${name}@${version}`;
  });
}

/** A binary of Node.js that a page can use; `undefined` when there is none here. */
async function node(notes: string[]): Promise<string | undefined> {
  const [, least = "0"] = /^node >= (\d+)$/m.exec(notes.join("\n")) ?? [];
  if (Number(process.versions.node.split(".")[0]) >= Number(least)) return process.execPath;
  for (const version of versions) {
    const binary = await nodeBinary(version);
    const { stdout } = await execute(binary, ["-p", "process.versions.node.split('.')[0]"], { cwd: projects.folder });
    if (Number(stdout) >= Number(least)) return binary;
  }
  return undefined;
}

test("a page is read as its reader reads it", () => {
  const text =
    "# a\n\n```sh\nnpm install cache-machine x\n```\n\n<!-- three lines: starts a server -->\n```js\nlet a;\n```\n";
  const page = { notes: ["starts a server"], install: "npm install cache-machine x", output: undefined };
  expect(read(text)).toEqual({ ...page, program: { language: "js", code: "let a;\n" } });
  expect(read(`${text}\n\`\`\`text\n1\n\`\`\`\n`).output).toBe("1");
  expect(read(`${text}\nmore\n\n\`\`\`text\n1\n\`\`\`\n`).output).toBe(undefined);
});

test.each(pages)("the first program of %s works in an empty folder", async (file) => {
  const { notes, install, program, output } = read(fs.readFileSync(path.join(root, PAGES, file), "utf8"));
  if (notes.some((note) => /^not run, because ./s.test(note))) return;
  if (install === undefined || program === undefined)
    throw new Error(`${file} does not begin with what a reader copies`);
  const binary = await node(notes);
  if (binary === undefined) {
    console.warn(`${file} needs another version of Node.js: not run`);
    return;
  }

  const name = path.basename(file, ".md");
  const env = { PATH: `${path.dirname(binary)}:${process.env.PATH}` };
  const cwd = await installed(name, install);

  const script = `program.${LANGUAGES[program.language]}`;
  const code = projects.apart(program.code, name);
  const entry = script.replace(/ts$/, "mjs");
  fs.writeFileSync(path.join(cwd, entry), script.endsWith("ts") ? await compiled(code) : code);
  if (notes.includes("starts a server")) {
    const server = new Running(binary, [entry], { cwd, env });
    try {
      const response = await fetch(await address(server), { signal: AbortSignal.timeout(20_000) });
      expect(response.status).toBeLessThan(500);
      server.child.kill("SIGTERM");
      expect((await server.ended).stderr).toBe("");
    } finally {
      server.kill();
    }
    return;
  }
  const { status, stdout, stderr } = await execute(binary, [entry], { cwd, env });
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: "" });
  if (output !== undefined) expect(unprinted(output, stdout)).toEqual([]);
});

const RECIPES = "docs/recipes.md";
const recipes = sections(RECIPES, fs.readFileSync(path.join(root, RECIPES), "utf8")).filter(({ blocks }) =>
  /^npm install cache-machine /.test(blocks[0]?.code ?? ""),
);

test.each(recipes.map((section): [string, Section] => [section.heading, section]))(
  "the recipe for %s works in an empty folder",
  async (heading, section) => {
    const cwd = await installed(heading.toLowerCase().replace(/\W+/g, "-"), commands(section));
    expect(await runSection(section, cwd, projects)).toEqual([]);
  },
);

function commands({ blocks }: Section): string {
  return blocks.flatMap(({ language, code }) => (language === "sh" ? [code] : [])).join("\n");
}

/** A folder into which `npm install` has put what the reader installs. */
async function installed(name: string, install: string): Promise<string> {
  const cwd = projects.create(name);
  const args = ["install", ...NPM, projects.pack().file, ...packages(install)];
  const { status, stderr } = await execute("npm", args, { cwd, timeoutMs: INSTALL_MS });
  expect(status, stderr).toBe(0);
  return cwd;
}

async function compiled(code: string): Promise<string> {
  const { transform } = await import("esbuild");
  return (await transform(code, { loader: "ts" })).code;
}
