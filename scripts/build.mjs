/**
 * Builds dist/: the package as an ES module and as a CommonJS module for Node.js, an ES module for browsers, the same two modules for each
 * adapter, the command line, and the types. The compiled engine becomes part of the modules.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build, transform } from "esbuild";
import { constants } from "./constants.mjs";
import { wasmAsText } from "./wasm/text.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const DIST = join(root, "dist");
/**
 * The modules behind the subpaths of the package, such as `adapters/keyv`, from package.json: `dist/adapters/keyv.js` is built from
 * `src/adapters/keyv.ts`.
 */
const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const subpaths = Object.entries(exports)
  .filter(([subpath]) => !/^\.$|\.json$/.test(subpath))
  .map(([, { default: file }]) => file.default.replace(/^\.\/dist\/(.*)\.js$/, "$1"))
  .filter((name) => existsSync(join(root, `src/${name}.ts`)));

const shared = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: "es2022",
  loader: { ".wasm": "binary" },
  define: constants(),
  legalComments: "none",
  // Replaces the constants of files without imports by their numbers: see src/engine/contract.ts.
  minifySyntax: true,
  logLevel: "warning",
};
const node = { ...shared, platform: "node", packages: "external" };
/**
 * In CommonJS there is no `import.meta`. Bundlers and file tracing find the native part by `__dirname` there. The one dependency
 * is an ES module, which Jest cannot `require`, so it becomes part of the module.
 */
const commonjs = {
  ...shared,
  platform: "node",
  format: "cjs",
  define: { ...shared.define, "import.meta.url": "moduleUrl", "import.meta.dirname": "__dirname" },
  banner: {
    js: '"use strict";\nconst moduleUrl = typeof __filename === "string" ? require("node:url").pathToFileURL(__filename).href : undefined;',
  },
};

/**
 * The command line is one module with the libraries that it uses, so that an installation needs none of them. What looks into caches is
 * a module beside it, which is loaded by the commands that look. It lies in dist/ itself, from where the native part is found.
 */
const program = {
  ...shared,
  platform: "node",
  minify: true,
  external: ["devalue"],
};
const LOOK = ["spectator", "files", "facts"];
const besideTheProgram = {
  name: "beside-the-program",
  setup({ onResolve }) {
    onResolve({ filter: /^(\.\.\/)+index\.ts$/ }, ({ importer, path }) => {
      const isPackage = join(dirname(importer), path) === join(root, "src/index.ts");
      return isPackage ? { path: "../index.js", external: true } : undefined;
    });
    onResolve({ filter: new RegExp(`/inspect/(${LOOK.join("|")})\\.ts$`) }, ({ kind }) => {
      if (kind === "dynamic-import") return { path: "../inspect.js", external: true };
      return { errors: [{ text: "the command line loads it when it is needed: context.inspect()" }] };
    });
  },
};

/**
 * Takes the built-in modules of Node.js from `process.getBuiltinModule`. An `import` of one reads all of its properties, also those that
 * load more of Node.js when they are read: `node:fs` alone takes one to three milliseconds like that.
 */
const builtins = {
  name: "builtins",
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, ({ path }) => ({
      loader: "ts",
      contents: readFileSync(path, "utf8").replace(
        /^import \{([^}]*)\} from ("node:[^"]+");$/gm,
        (_, names, module) => {
          const values = names.split(",").filter((name) => !/^\s*(type\b|$)/.test(name));
          return `const { ${values.join(",").replaceAll(" as ", ": ")} } = process.getBuiltinModule(${module});`;
        },
      ),
    }));
  },
};

/**
 * Builds the ES module for Node.js without the comments within classes and functions, which esbuild keeps otherwise: each process
 * reads and stores the text of the module, with two bytes for each character when one of them is not in Latin-1. The names stay, for
 * stack traces. The one dependency becomes part of the module, because it has eight files, and each takes half a millisecond.
 */
async function buildModule() {
  const options = { ...shared, platform: "node", plugins: [builtins], minifyWhitespace: true, write: false };
  const { outputFiles, metafile } = await build({ ...options, entryPoints: ["src/index.ts"], metafile: true });
  const { code } = await transform(outputFiles[0].text, { format: shared.format, target: shared.target });
  mkdirSync(DIST, { recursive: true });
  writeFileSync(join(DIST, "index.js"), code);
  writeLicences(metafile, "");
}

/** Keeps the package itself out of the module of a subpath: both must be the same instance of it. */
function besideThePackage(file) {
  return {
    name: "beside-the-package",
    setup({ onResolve }) {
      onResolve({ filter: /^(\.\.\/)+index\.ts$/ }, () => ({ path: file, external: true }));
    },
  };
}

rmSync(DIST, { recursive: true, force: true });
const entryPoints = Object.fromEntries(subpaths.map((name) => [name, `src/${name}.ts`]));
/**
 * The kit of checks imports nothing at run time, neither the package nor a dependency. So one module is enough for both kinds of
 * modules, which keeps the package small. The program of its processes is beside it.
 */
const KIT = "testing/index";
const { [KIT]: kit, ...adapters } = entryPoints;
await Promise.all([
  buildModule(),
  build({ ...commonjs, entryPoints: ["src/index.ts"], outfile: "dist/index.cjs" }),
  build({
    ...node,
    entryPoints: { ...adapters, "testing/participant": "src/testing/participant.ts" },
    outdir: "dist",
    plugins: [besideThePackage("../index.js")],
  }),
  build({
    ...commonjs,
    entryPoints,
    outdir: "dist",
    outExtension: { ".js": ".cjs" },
    plugins: [besideThePackage("../index.cjs")],
  }),
  build({
    ...shared,
    entryPoints: ["src/browser.ts"],
    outfile: "dist/browser.js",
    platform: "browser",
    packages: "external",
    plugins: [wasmAsText],
    // The bundle does not look for what only Node.js has, and esbuild leaves out the code that uses it.
    define: { ...shared.define, "globalThis.process": "undefined", "globalThis.Buffer": "undefined" },
  }),
  build({
    ...program,
    entryPoints: ["src/cli/index.ts"],
    outfile: "dist/cli/index.js",
    // commander is a CommonJS module, which requires parts of Node.js.
    banner: {
      js: '#!/usr/bin/env node\nimport { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
    },
    plugins: [besideTheProgram],
    metafile: true,
  }).then(({ metafile }) => writeLicences(metafile, "cli/")),
  build({
    ...program,
    stdin: { contents: LOOK.map((name) => `export * from "./src/inspect/${name}.ts";`).join("\n"), resolveDir: root },
    outfile: "dist/inspect.js",
  }),
]);
chmodSync(join(DIST, "cli/index.js"), 0o755);
if (kit) writeFileSync(join(DIST, `${KIT}.js`), 'export * from "./index.cjs";\n');
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
execFileSync(process.execPath, [tsc, "-p", root], { stdio: "inherit" });

/** Declarations that no public one leads to are of no use to anybody. */
const TYPES = join(DIST, "types");
const reached = new Set();
const reach = (file) => {
  if (reached.has(file)) return;
  reached.add(file);
  for (const [, from, inline] of readFileSync(file, "utf8").matchAll(/\bfrom "(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/g)) {
    reach(join(dirname(file), (from ?? inline).replace(/\.(ts|js)$/, ".d.ts")));
  }
};
for (const name of ["index", "browser", ...subpaths]) reach(join(TYPES, `${name}.d.ts`));
for (const name of readdirSync(TYPES, { recursive: true })) {
  const file = join(TYPES, name);
  if (name.endsWith(".d.ts") && !reached.has(file)) rmSync(file);
}

/**
 * The types exist once, in a folder of CommonJS, which both kinds of modules may import. So a `Cache` that a CommonJS module has
 * opened is a `Cache` for an ES module too.
 */
writeFileSync(join(DIST, "types/package.json"), '{ "type": "commonjs" }\n');
for (const name of ["index", ...subpaths]) {
  mkdirSync(dirname(join(DIST, name)), { recursive: true });
  const from = `"${name === "index" ? "./" : "../"}types/${name}.js"`;
  const text = `export * from ${from};\n${await defaultOf(name, from)}`;
  for (const ending of ["d.ts", "d.cts"]) writeFileSync(join(DIST, `${name}.${ending}`), text);
}

/**
 * The declaration of a module's default export. To an ES module the `default` of a CommonJS module is the whole module, also in
 * types. So the default export has to have a name too, by which it is exported here. The other values are named as well, because
 * arethetypeswrong does not look behind `export *` where there is a default.
 */
async function defaultOf(name, from) {
  const { default: value, ...named } = await import(pathToFileURL(join(DIST, `${name}.js`)).href);
  if (value === undefined) return "";
  const names = Object.keys(named);
  const alias = names.find((each) => named[each] === value);
  if (alias === undefined) throw new Error(`src/${name}.ts: the default export has to be exported by a name too`);
  return `export { ${[...names, `${alias} as default`].join(", ")} } from ${from};\n`;
}

/** Writes the licences of the libraries that have become part of the modules in a folder. Each of them asks for that. */
function writeLicences({ inputs }, folder) {
  const libraries = new Set(
    Object.keys(inputs).flatMap((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? []),
  );
  const texts = [...libraries].sort().map((library) => {
    const { name, version } = JSON.parse(readFileSync(join(root, library, "package.json"), "utf8"));
    const file = readdirSync(join(root, library)).find((each) => /^licen[cs]e/i.test(each));
    if (file === undefined) throw new Error(`${name} has no file with its licence`);
    return `${name} ${version}\n\n${readFileSync(join(root, library, file), "utf8").trim()}\n`;
  });
  const rule = `\n${"-".repeat(80)}\n\n`;
  writeFileSync(
    join(DIST, folder, "THIRD-PARTY.txt"),
    [`dist/${folder}index.js contains these libraries:\n`, ...texts].join(rule),
  );
}
