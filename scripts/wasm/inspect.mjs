/** Checks of the built engine: its imports and exports, its memory, and its atomic instructions. */
import {
  GLOBAL,
  HOST,
  KIND,
  MEMORY,
  readData,
  readExports,
  readGlobals,
  readImports,
  readSections,
  SECTION,
} from "./binary.mjs";
import { BuildError, LINKER_GLOBALS } from "./toolchain.mjs";

/**
 * Checks that `bytes` is a module as src/engine/ needs it; returns what the record says about it.
 *
 * @throws {BuildError} when it is not.
 */
export async function inspect(bytes) {
  const demand = (condition, message) => {
    if (!condition) throw new BuildError(`the built module is wrong: ${message}`);
  };
  new WebAssembly.Module(bytes);
  const sections = readSections(bytes);
  demand(!sections.some(({ id }) => id === SECTION.START), "it has a start function");
  demand(!sections.some(({ id }) => id === SECTION.CUSTOM), "it has custom sections");

  const imports = readImports(sections);
  for (const entry of imports) demand(entry.module === HOST, `it imports ${entry.module}.${entry.name}`);
  const memory = imports.find((entry) => entry.kind === MEMORY);
  demand(memory?.limits === 0x03, "its memory is not imported and shared");
  demand(
    imports.every((entry) => entry === memory || entry.kind === 0),
    "it imports more than a memory and functions",
  );

  const globals = readGlobals(sections);
  const exports = readExports(sections);
  const exportedGlobals = exports.filter((entry) => entry.kind === GLOBAL).map((entry) => entry.name);
  demand(
    exportedGlobals.sort().join() === [...LINKER_GLOBALS].sort().join(),
    `it exports the globals ${exportedGlobals}`,
  );
  const global = (wanted) => globals[exports.find((entry) => entry.name === wanted).index];
  demand(global("__stack_pointer").mutable, "__stack_pointer is not mutable");
  for (const entry of exports)
    demand(entry.kind === 0 || entry.kind === GLOBAL, `it exports the ${KIND[entry.kind]} ${entry.name}`);
  for (const entry of exports.filter((each) => each.kind === 0))
    demand(!entry.name.startsWith("__"), `it exports ${entry.name}`);

  const segments = readData(sections);
  const heapBase = global("__heap_base").value;
  const dataEnd = Math.max(global("__stack_pointer").value, ...segments.map(({ offset, length }) => offset + length));
  demand(dataEnd <= heapBase, "its data reaches past __heap_base");

  const instructions = await countInstructions(bytes);
  // A core library compiled without atomics turns them into plain accesses, and says nothing.
  demand(
    Object.keys(instructions).some((kind) => /atomic\.(rmw|load|store)/.test(kind)),
    "it has no atomic instructions",
  );

  return {
    memory: { initialPages: memory.initial, maximumPages: memory.maximum },
    stackTop: global("__stack_pointer").value,
    dataBytes: segments.reduce((sum, { length }) => sum + length, 0),
    heapBase,
    imports: imports.map((entry) => `${entry.module}.${entry.name}`).sort(),
    exports: exports.map((entry) => entry.name).sort(),
    instructions,
  };
}

/** How often each atomic instruction, and each bulk memory instruction, occurs in the functions that can be reached. */
async function countInstructions(bytes) {
  const { default: binaryen } = await import("binaryen");
  const module = binaryen.readBinary(bytes);
  module.runPasses(["remove-unused-module-elements"]);
  const counts = {};
  for (const [, kind] of module
    .emitText()
    .matchAll(/\(((?:i32|i64|memory)\.atomic\.[\w.]+|atomic\.fence|memory\.(?:copy|fill))\b/g)) {
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  module.dispose();
  return Object.fromEntries(Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Checks that the optimiser lost no atomic instruction. Inlining may add some.
 *
 * @throws {BuildError} when one is missing.
 */
export async function compareAtomics(before, after) {
  const [had, has] = await Promise.all([countInstructions(before), countInstructions(after)]);
  for (const [kind, count] of Object.entries(had)) {
    if (kind.includes("atomic") && (has[kind] ?? 0) < count) {
      throw new BuildError(`wasm-opt left ${has[kind] ?? 0} of ${count} ${kind}`);
    }
  }
}
