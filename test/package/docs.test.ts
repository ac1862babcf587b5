/**
 * Tests what the documents say. Every block of code in the README, in docs/, in the examples' READMEs and in the doc comments of
 * src/ is run, or at least parsed if it cannot run (see blocks.ts). Links lead to existing files and headings, and docs/api.md
 * belongs to this version.
 */

import fs from "node:fs";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { GROUPS, reference } from "../../docs/api.mjs";
import { NO_SERVER } from "../tier/servers.ts";
import { comments, needsServer, runSection, type Section, sections } from "./blocks.ts";
import { Projects, root } from "./projects.ts";

const projects = new Projects("docs");
let count = 0;

afterAll(() => projects.remove());

/** The files of a folder whose names match, as paths from the root. */
function files(folder: string, pattern: RegExp, deep: boolean): string[] {
  return fs.readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) return deep && !OTHERS.includes(entry.name) ? files(file, pattern, deep) : [];
    return pattern.test(entry.name) ? [file] : [];
  });
}

/** Folders whose files are no documents of this repository, or are not written by hand. */
const OTHERS = ["node_modules", "dist", ".git", ".tools", "target", "coverage"];

const texts = [...files(".", /\.md$/, false), ...files("docs", /\.md$/, true), ...files("examples", /\.md$/, true)];
const sources = files("src", /\.ts$/, true);
/** Blocks of these languages show something and are not run: drawings, outputs, and signatures in the generated reference. */
const SHOWN = ["", "text", "typescript"];
const all: Section[] = [
  ...texts.flatMap((file) => sections(file, read(file))),
  ...sources.flatMap((file) => sections(file, comments(read(file)))),
].filter(({ blocks }) => blocks.some(({ language }) => !SHOWN.includes(language)));

function read(file: string): string {
  return fs.readFileSync(path.join(root, file), "utf8");
}

/** Runs the blocks of a text: what is wrong with them. */
async function complaints(text: string): Promise<string[]> {
  const found = sections("x.md", text);
  const wrong = await Promise.all(
    found.map((section) => runSection(section, projects.linked(`own-${++count}`), projects)),
  );
  return wrong.flat();
}

describe("finding blocks of code", () => {
  test("every file outside of test/ and wasm/ with a fence of a language that runs is among the files whose blocks are run", () => {
    const fences = /^[ \t]*(?:(?:\/?\*+|\/\/+!?)[ \t]*)?(?:```|~~~)[ \t]*([a-z]+)/gm;
    const fenced = files(".", /\.(md|[cm]?[jt]sx?|rs|c|h|sh|html|css)$/, true)
      .filter((file) => !/^(test|wasm)\//.test(file))
      .filter((file) => [...read(file).matchAll(fences)].some(([, language = ""]) => !SHOWN.includes(language)));
    expect(fenced).toContain("README.md");
    expect([...new Set(all.map(({ place }) => place.split(":")[0]))].sort()).toEqual(fenced.sort());
  });

  test("every block of a document that names its language is in a section", () => {
    for (const file of texts) {
      const found = sections(file, read(file)).flatMap(({ blocks }) => blocks);
      const outputs = found.filter(({ output }) => output !== undefined);
      const named = found.filter(({ language }) => language !== "");
      expect(named.length + outputs.length, file).toBe((read(file).match(/^\s*```\w/gm) ?? []).length);
    }
  });

  test("every folder of src/ has doc comments", () => {
    const folders = new Set(sources.map((file) => path.dirname(file)));
    expect(folders.size).toBeGreaterThan(5);
    for (const file of sources) if (comments(read(file)).trim() !== "") folders.delete(path.dirname(file));
    expect([...folders]).toEqual([]);
  });

  test("sections, headings, reasons not to run, and blocks in comments are recognised", () => {
    const text =
      "a\n\n```js\nlet a;\n```\n\n# b\n\n- c\n\n  ```sh\n  true\n  ```\n\n<!-- not run: why -->\n```js\nb\n```\n";
    const found = sections("x", text);
    expect(found.map(({ place, heading, blocks }) => [place, heading, blocks.length])).toEqual([
      ["x:3", "", 1],
      ["x:11", "b", 2],
    ]);
    expect(found[1]?.blocks.map(({ not }) => not)).toEqual([undefined, "why"]);
    expect(sections("x", comments("/**\n * ```js\n * a;\n * ```\n */\nlet a;"))[0]).toMatchObject({ place: "x:2" });
  });
});

describe("running blocks of code", () => {
  const js = (code: string): string => `\`\`\`js\n${code}\n\`\`\`\n`;
  test.each([
    ["fails", js("process.exit(3)"), "ended with 3"],
    ["does not parse", js("let let"), "SyntaxError"],
    ["warns", js('process.emitWarning("mind")'), "mind"],
    ["imports what the package does not export", js('import { gone } from "cache-machine";'), "gone"],
    [
      "prints another number",
      `${js("console.log('visit', 2)")}\n\`\`\`text\nvisit 1\n\`\`\`\n`,
      'does not print "visit 1"',
    ],
    ["prints something else", `${js("console.log(1, 2)")}\n\`\`\`text\n1 too\n\`\`\`\n`, 'does not print "1 too"'],
    ["fails in the shell", "```sh\nfalse\ntrue\n```\n", "ended with 1"],
    ["installs a package that does not exist", "```sh\nnpm install gone\n```\n", "npm install gone: this is not there"],
    ["is written to a file that no other block uses", "```js a.mjs\nlet a;\n```\n", "nothing uses it"],
    ["is not run and does not parse", `<!-- not run: why -->\n${js("let let")}`, "SyntaxError"],
    [
      "is no excerpt of the file that it names",
      `See it ([package.json](package.json)):\n\n${js("not in it")}`,
      "has no line",
    ],
    ["is called JSON and does not parse", "```json\n{]\n```\n", "JSON"],
    ["is called YAML and does not parse", "```yaml\na: [\n```\n", "unexpected end"],
    ["is called a systemd unit and is none", "```ini\n[Service]\nnonsense\n```\n", "not a line of a unit"],
    ["is called a Dockerfile and is none", "```dockerfile\nFORM node\n```\n", "not a line of a Dockerfile"],
    ["is of an unknown language", "```perl\n1\n```\n", "unknown language"],
  ])("a block of code that %s is reported", async (_, text, complaint) => {
    expect((await complaints(text)).join("\n")).toContain(complaint);
  });

  test("blocks that run, end with 0 and print what is told are accepted", async () => {
    const text = `${js("console.log(process.pid, 'is here')")}\n\`\`\`text\n4711 is here\n\`\`\`\n`;
    expect(
      await complaints(
        `${text}\`\`\`js a.mjs\nconsole.log("b")\n\`\`\`\n\`\`\`sh\nnpm install cache-machine\nnode a.mjs\n\`\`\`\n\`\`\`text\nb\n\`\`\`\n`,
      ),
    ).toEqual([]);
  });

  test.skipIf(NO_SERVER)("blocks that speak of REDIS_URL find a server, which ends with them", async () => {
    const code = [
      'import { createClient } from "redis";',
      "const client = await createClient({ url: process.env.REDIS_URL }).connect();",
      'console.log(await client.ping(), /process_id:(\\d+)/.exec(await client.info("server"))[1]);',
      "client.destroy();",
    ];
    const answer = await complaints(`${js(code.join("\n"))}\n\`\`\`text\nanother answer\n\`\`\`\n`);
    const [, pid] = /PONG (\d+)/.exec(answer.join()) ?? [];
    expect(Number(pid)).toBeGreaterThan(1);
    expect(() => process.kill(Number(pid), 0)).toThrow("ESRCH");
  });

  test.for(all.map((section) => [section.place, section] as const))(
    "the blocks from %s to the next heading run, end with 0 and print no warning",
    async ([, section], { skip }) => {
      if (needsServer(section)) skip(NO_SERVER !== undefined, NO_SERVER);
      expect(await runSection(section, projects.linked(`section-${++count}`), projects)).toEqual([]);
    },
  );
});

test("docs/api.md is the generated reference of this version", () => {
  expect(read("docs/api.md"), "run `npm run docs`").toBe(reference());
});

test("the reference has every export and every member of `Cache` in exactly one group", () => {
  const without = (left: string) => GROUPS.map(([title, names]) => [title, names.filter((name) => name !== left)]);
  for (const name of ["cache.getMany", "openCache", "error.code"]) {
    expect(() => reference(without(name) as typeof GROUPS)).toThrow(`${name}: in no group`);
  }
  expect(() => reference([...GROUPS, ["New", ["cache.gone"]]])).toThrow("cache.gone: in GROUPS, but not exported");
  expect(() => reference([...GROUPS, ["New", ["cache.get"]]])).toThrow("cache.get: in two groups");
});

test("every link in a document leads to an existing file and heading", () => {
  const anchors = (file: string): string[] => {
    const all = [...read(file).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    );
    // Headings with the same fragment are numbered.
    return all.map((name, i) => {
      const before = all.slice(0, i).filter((other) => other === name).length;
      return before === 0 ? name : `${name}-${before}`;
    });
  };
  const dead = texts.flatMap((file) => {
    const text = read(file).replace(/```[\s\S]*?```/g, "");
    const links = [...text.matchAll(/\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"/g)].map(
      ([, link, source]) => link ?? source ?? "",
    );
    return links
      .filter((link) => !/^https?:/.test(link))
      .filter((link) => {
        const [target = "", anchor] = link.split("#");
        const place = target === "" ? file : path.join(path.dirname(file), target);
        if (!fs.existsSync(path.join(root, place))) return true;
        return anchor !== undefined && place.endsWith(".md") && !anchors(place).includes(anchor);
      })
      .map((link) => `${file}: ${link}`);
  });
  expect(dead).toEqual([]);
});

describe("what documents name", () => {
  const folders = ["src", "wasm/src", "wasm/tests", "native", "test", "scripts", "docs", "bench", "examples"];
  const sources = folders.flatMap((folder) => files(folder, /\.(ts|rs|c|mjs)$/, true));
  const isFile = (name: string): boolean => sources.some((file) => path.basename(file) === name);
  const code = sources.filter((file) => /^(src|wasm\/src|native)\//.test(file));
  const words = new Set(code.flatMap((file) => read(file).match(/[\p{L}\d_]+/gu) ?? []));

  /** Single words of code in a text, without blocks. */
  const spans = (text: string): string[] =>
    [...text.replace(/```[\s\S]*?```/g, "").matchAll(/`([^`\s]+)`/g)].map(([, span = ""]) => span);

  /** Paths of the repository in a text, and names of source files, that do not exist. */
  function missingFiles(text: string): string[] {
    const drawn = [...text.matchAll(/```text\n([\s\S]*?)```/g)].flatMap(([, drawing = ""]) => {
      return drawing.match(/\b[\w-]+\.(?:ts|rs|c|mjs)\b/g) ?? [];
    });
    const paths = spans(text).filter((span) =>
      /^(src|wasm|native|test|scripts|bench|examples|docs)\/[\w./-]*$/.test(span),
    );
    const names = spans(text).filter((span) => /^[\w-]+(\.test)?\.(ts|rs|c)$/.test(span));
    return [
      ...paths.filter((place) => !fs.existsSync(path.join(root, place))),
      ...[...names, ...drawn].filter((name) => !isFile(name)),
    ];
  }

  /** Names of the code in a text, such as `Participant::find`, that do not occur in the sources. */
  function missingNames(text: string): string[] {
    return spans(text)
      .filter((span) => /^#?[\p{L}_][\p{L}\d_]*((\.|::)#?[\p{L}\d_]+)*(\(.*\))?$/u.test(span))
      .filter((span) => !/\.(c|json|md|mjs|node|rs|ts|wasm)$/.test(span))
      .filter((name) => !(name.replace(/\(.*/, "").match(/[\p{L}\d_]+/gu) ?? []).every((word) => words.has(word)));
  }

  const documents = texts.filter((file) => !file.startsWith("examples/") && !file.startsWith("node_modules/"));
  test.each(documents)("files that %s names exist", (file) => {
    // A server that the reader writes.
    expect(missingFiles(read(file)).filter((name) => name !== "server.mjs")).toEqual([]);
  });

  test("functions, fields and types that ARCHITECTURE.md names are in the sources", () => {
    expect(missingNames(read("ARCHITECTURE.md"))).toEqual([]);
  });

  test("a name in ARCHITECTURE.md that is not in the sources is found", () => {
    const text = "`src/gone.ts` `wasm/gone/` `gone.test.ts` `Cache.goneForGood` `Cache.get` `src/index.ts` `index.ts`";
    expect(missingFiles(`${text}\n\`\`\`text\ngone.rs index.ts\n\`\`\`\n`)).toEqual([
      "src/gone.ts",
      "wasm/gone/",
      "gone.test.ts",
      "gone.rs",
    ]);
    expect(missingNames(text)).toEqual(["Cache.goneForGood"]);
  });
});
