/**
 * Checks that calls go down, as ARCHITECTURE.md draws it, in src/ and in the crate: a file uses only files on its own floor or on lower
 * floors, and no files call each other in a circle. The exceptions are named in `RINGS`.
 */

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The folders from the highest floor to the lowest; `.` stands for the files beside the folders. */
const FLOORS = {
  "wasm/src": ["abi", "entries", "coordinate", "log", "participant", "index", "format", "sync"],
  src: [
    "cli/top",
    "cli/doctor",
    "cli/commands",
    "cli",
    "testing",
    "adapters",
    "tier",
    "tier/clients",
    "inspect",
    "open",
    "snapshot",
    "cache",
    "coordinate",
    "near",
    "values",
    "engine",
    "memory",
    "bells",
    "liveness",
    "system",
    ".",
  ],
};
/** Files above all floors: they only name the modules, and no other file uses them. */
const TOP = { "wasm/src": ["lib.rs"], src: ["index.ts", "browser.ts", "cli/index.ts"] };
/**
 * Rings: files that call each other in a circle, in the order of the calls. The last one calls the first.
 *
 * Appending a record may have to reclaim a segment first, reclaiming walks the segment, and the walk appends copies of the
 * records that are kept.
 */
const RINGS = { "wasm/src": [["log/append.rs", "log/reclaim.rs", "log/walk.rs"]], src: [] as string[][] };

type Tree = keyof typeof FLOORS;
/** For each file, the files that it calls or imports. */
type Uses = Map<string, Set<string>>;

function sources(tree: Tree, ending: string): Map<string, string> {
  const names = fs.readdirSync(path.join(root, tree), { recursive: true, encoding: "utf8" });
  const files = names.filter((name) => name.endsWith(ending) && !TOP[tree].includes(name)).sort();
  return new Map(files.map((file) => [file, fs.readFileSync(path.join(root, tree, file), "utf8")]));
}

/** The imports of each file, also those of types only. */
function usesOfTypeScript(): Uses {
  const uses: Uses = new Map();
  for (const [file, text] of sources("src", ".ts")) {
    const found = [...text.matchAll(/\bfrom "(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/g)].map(([, a, b]) =>
      path.join(path.dirname(file), (a ?? b) as string),
    );
    uses.set(file, new Set(found.filter((each) => each.endsWith(".ts"))));
  }
  return uses;
}

/**
 * The uses of each Rust file: the modules in its paths, and the modules that define the methods of `Participant` which it calls. The
 * methods are spread over the modules, so a call of `self.lock(` is a use of the module that defines `lock`.
 */
function usesOfRust(): Uses {
  const files = sources("wasm/src", ".rs");
  // Unit tests may use any module.
  const code = new Map(
    [...files].map(([file, text]) => [file, (text.split("#[cfg(test)]")[0] as string).replace(/\/\/.*$/gm, "")]),
  );
  const methods = new Map<string, string>();
  for (const [file, text] of code) {
    for (const [, body] of text.matchAll(/^impl<H: Host> Participant<H> \{\n([\s\S]*?)^\}/gm)) {
      for (const [, name] of (body as string).matchAll(/^ {4}(?:pub(?:\(\w+\))? )?(?:unsafe )?fn (\w+)/gm)) {
        methods.set(name as string, file);
      }
    }
  }
  const uses: Uses = new Map();
  for (const [file, text] of code) {
    const found = new Set<string>();
    for (const [, folder, name] of text.matchAll(/\bcrate::(\w+)(?:::(\w+))?/g)) {
      const inner = `${folder}/${name}.rs`;
      found.add(files.has(inner) ? inner : `${folder}/mod.rs`);
    }
    for (const [, name] of text.matchAll(/\b(?:self|me|participant)\.(\w+)\(/g)) {
      const home = methods.get(name as string);
      if (home !== undefined) found.add(home);
    }
    uses.set(file, found);
  }
  return uses;
}

const folderOf = (file: string): string => path.dirname(file);

/** Floors that stand on the public interface only: beside their own files they use `src/index.ts` and nothing else. */
const OUTSIDE = ["testing", "adapters", "tier", "tier/clients"];
/** Files without state that the floors outside may use too: each module gets a copy. */
const PURE = [
  "index.ts",
  "option-names.ts",
  "values/describe.ts",
  "coordinate/clock.ts",
  "coordinate/loading.ts",
  "cache/load-options.ts",
];

/** The uses that go up to a higher floor, or past the public interface, and the circles. */
function faults(tree: Tree, uses: Uses): string[] {
  const floors: string[] = FLOORS[tree];
  const closesRing = (from: string, to: string) => RINGS[tree].some((ring) => from === ring.at(-1) && to === ring[0]);
  const wrong: string[] = [];
  for (const [from, found] of uses) {
    if (!floors.includes(folderOf(from))) wrong.push(`${from} is on no floor`);
    for (const to of found) {
      if (floors.indexOf(folderOf(to)) < floors.indexOf(folderOf(from))) wrong.push(`${from} goes up to ${to}`);
      if (tree === "src" && OUTSIDE.includes(folderOf(from)) && !PURE.includes(to) && !OUTSIDE.includes(folderOf(to))) {
        wrong.push(`${from} goes past the public interface to ${to}`);
      }
    }
  }
  const done = new Set<string>();
  const visit = (file: string, way: string[]): void => {
    if (way.includes(file)) wrong.push([...way.slice(way.indexOf(file)), file].join(" → "));
    else if (!done.has(file)) {
      for (const to of uses.get(file) ?? []) if (to !== file && !closesRing(file, to)) visit(to, [...way, file]);
      done.add(file);
    }
  };
  for (const file of uses.keys()) visit(file, []);
  return wrong;
}

describe.each([
  ["wasm/src", usesOfRust],
  ["src", usesOfTypeScript],
] as const)("%s", (tree, usesOf) => {
  const uses = usesOf();

  test("every floor has files, and uses between files are found", () => {
    expect([...new Set([...uses.keys()].map(folderOf))].sort()).toEqual([...FLOORS[tree]].sort());
    expect([...uses.values()].reduce((sum, each) => sum + each.size, 0)).toBeGreaterThan(50);
  });

  test("no file uses a file on a higher floor, and there is no circle", () => {
    expect(faults(tree, uses)).toEqual([]);
  });

  test("a use that goes up is found, and so is a circle", () => {
    const [highest, lowest] = [FLOORS[tree][0], FLOORS[tree].at(-1)].map((floor) =>
      [...uses.keys()].find((file) => folderOf(file) === floor),
    ) as [string, string];
    const up = new Map(uses).set(lowest, new Set([highest]));
    expect(faults(tree, up)).toContain(`${lowest} goes up to ${highest}`);
    const circle = new Map([
      ["a", new Set(["b"])],
      ["b", new Set(["a"])],
    ]);
    expect(faults(tree, circle)).toContain("a → b → a");
  });

  test("every ring in RINGS exists", () => {
    for (const ring of RINGS[tree]) {
      expect(ring.filter((file, i) => !uses.get(file)?.has(ring[(i + 1) % ring.length] as string))).toEqual([]);
    }
  });
});
