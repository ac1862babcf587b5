/**
 * Sends odd and hostile requests to the servers in examples/, and odd keys and values to the recipes of docs/guides.md: every
 * request is answered, and no process ends.
 */

import fs from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import { afterAll, afterEach, expect, test } from "vitest";
import { LONG, ODD } from "../hostile/outside-keys.ts";
import { sections } from "./blocks.ts";
import { address, execute, Projects, Running, root } from "./projects.ts";

const projects = new Projects("recipes");
const servers: Running[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.kill();
    await server.ended;
  }
});
afterAll(() => projects.remove());

/** Targets in the first line of a request, as bytes. */
const TARGETS = [
  `/reports/${"x".repeat(10_000)}`,
  `/reports/sales?q=${"x".repeat(10_000)}`,
  `/reports/sales?q=${"%F0%9F%98%80".repeat(700)}`,
  `/reports/sales?q=${"\xe9".repeat(3000)}`,
  `/reports/sales?${"x".repeat(40_000)}`,
  ...["%00", "%ED%A0%80", "%E0%A4%A", "%", "\xff", "\xed\xa0\x80", "__proto__", "constructor", "toString"].flatMap(
    (odd) => [`/reports/${odd}`, `/reports/sales?${odd}=${odd}`, `/${odd}`],
  ),
  "/reports/..%2f..%2fetc",
  "//",
  "/?",
  "/reports/",
];

/** Sends a request; the status of the answer, -1 when the connection ends without one. */
function ask(url: URL, target: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(Number(url.port), url.hostname, () => {
      socket.write(`GET ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`, "latin1");
    });
    socket.setTimeout(20_000, () => socket.destroy(new Error(`no answer to ${target.slice(0, 50)}`)));
    socket.on("data", (bytes) => (answer += bytes.toString("latin1")));
    socket.on("error", (error) => (answer === "" ? reject(error) : undefined));
    socket.on("close", () => resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? -1)));
  });
}

test.each(["05-express.mjs", "06-fastify.mjs", "07-vite.mjs"])(
  "the example %s answers every request, whatever its target",
  async (file) => {
    const project = projects.linked(file.slice(0, 2), { type: "module" });
    const source = fs.readFileSync(path.join(root, "examples", file), "utf8");
    fs.writeFileSync(path.join(project, file), projects.apart(source, file.slice(0, 2)));
    const server = new Running(process.execPath, [file], {
      cwd: project,
      env: { PORT: "0", NODE_ENV: "test" },
      timeoutMs: 100_000,
    });
    servers.push(server);
    const url = new URL(await address(server));
    for (let round = 0; round < 2; round++) {
      for (const target of TARGETS) {
        const status = await ask(url, target);
        expect(status, `${target.slice(0, 60)} (${target.length})`).toBeGreaterThanOrEqual(200);
        expect(status, `${target.slice(0, 60)} (${target.length})`).toBeLessThan(500);
      }
      expect(await ask(url, url.pathname)).toBe(200);
      // A long target is answered like a short one, but not from the cache.
      expect(await ask(url, `${url.pathname}?q=${"x".repeat(10_000)}`)).toBe(200);
    }
    server.child.kill("SIGTERM");
    const { status, stderr } = await server.ended;
    // Vite prints this line for each request whose headers exceed 16 kB, perhaps in colours.
    const said = stripVTControlCharacters(stderr);
    expect([status, said.replace(/^Server responded with status code 431.*\n/gm, "")]).toEqual([0, ""]);
  },
);

/** Sections of the guide, and code that uses the recipe of that section with an odd key or value. */
const RECIPES: [string, string][] = [
  ["Cached responses", "page(odd, () => 'a page');"],
  [
    "A large lookup table",
    "try { country(odd); } catch (error) { if (!/not in the table/.test(error.message)) throw error; }",
  ],
  ["Rate limits", "if (!ask(odd).allowed || !ask(odd).allowed || ask(odd).allowed) throw new Error('not counted');"],
  [
    "Keys and values from outside",
    "answer(odd, () => 'an answer'); answer('/a', () => JSON.parse(body)); body = '['.repeat(2000) + ']'.repeat(2000);",
  ],
];
test.each(RECIPES)(
  "the recipe of the guide for %s takes every key and value that clients send",
  async (heading, use) => {
    const guide = sections("guides.md", fs.readFileSync(path.join(root, "docs/guides.md"), "utf8"));
    const code = guide
      .find((section) => section.heading === heading)
      ?.blocks.find(({ language }) => language === "js")?.code;
    expect(code).toBeDefined();
    const project = projects.linked(`recipe-${heading.length}`, { type: "module" });
    const odd = ODD.map(([, key]) => key).filter((key) => typeof key === "string");
    const texts = [...odd, ...LONG.map(([, key]) => key).filter((key) => typeof key === "string"), ...TARGETS];
    const script = `${projects.apart(code as string, `recipe-${heading.length}`)}
    let body = '{"__proto__":{}}';
    for (const odd of ${JSON.stringify(texts)}) { ${use} }
    console.log("all");`;
    fs.writeFileSync(path.join(project, "recipe.mjs"), script);
    const { stdout, stderr, status } = await execute(process.execPath, ["recipe.mjs"], { cwd: project });
    expect([stderr, status]).toEqual(["", 0]);
    expect(stdout.trimEnd().endsWith("all")).toBe(true);
  },
);
