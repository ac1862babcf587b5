/**
 * The WebAssembly binary format: the part of it that is needed to turn the output of wasm-bindgen into the module that is
 * shipped.
 * https://webassembly.github.io/spec/core/binary/modules.html
 */
import { BuildError } from "./toolchain.mjs";

/** The only module that is imported from: the memory, and the functions of the host. */
export const HOST = "host";
/** Exports of wasm-bindgen's runtime that nothing uses. The start function only zeroes the .bss, which is empty here. */
const BINDGEN_LEFTOVERS = ["__abort_handler", "__instance_terminated", "__wbindgen_start"];

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  get done() {
    return this.at >= this.bytes.length;
  }
  byte() {
    return this.bytes[this.at++];
  }
  u32() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }
  take(length) {
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  name() {
    return new TextDecoder().decode(this.take(this.u32()));
  }
  /** The value of an initialiser, which has to be `i32.const n; end`. */
  constant() {
    if (this.byte() !== 0x41) throw new BuildError("an initialiser is not an i32 constant");
    const start = this.at;
    while (this.byte() >= 0x80);
    let value = 0n;
    for (let at = this.at - 1; at >= start; at--) value = (value << 7n) | BigInt(this.bytes[at] & 0x7f);
    if (this.byte() !== 0x0b) throw new BuildError("an initialiser is not a single constant");
    return Number(BigInt.asUintN(32, BigInt.asIntN(7 * (this.at - 1 - start), value)));
  }
}

const u32 = (value) => {
  const bytes = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 0x80);
  }
};
const name = (text) => [...u32(Buffer.byteLength(text)), ...Buffer.from(text)];
/** `i32.const value; end`, padded to five bytes, so that no bit of an address below 2 GiB is read as the sign. */
const constant = (value) => [
  0x41,
  ...[0, 7, 14, 21, 28].map((s, i) => ((value >>> s) & 0x7f) | (i < 4 ? 0x80 : 0)),
  0x0b,
];
const vector = (items) => [...u32(items.length), ...items.flat()];

export const SECTION = { CUSTOM: 0, IMPORT: 2, GLOBAL: 6, EXPORT: 7, START: 8, DATA: 11, DATA_COUNT: 12 };
export const KIND = ["function", "table", "memory", "global"];
export const MEMORY = 2;
export const GLOBAL = 3;

export function readSections(bytes) {
  const reader = new Reader(bytes);
  if (Buffer.compare(reader.take(8), Buffer.from("\0asm\x01\0\0\0", "latin1")) !== 0)
    throw new BuildError("not a wasm module");
  const sections = [];
  while (!reader.done) sections.push({ id: reader.byte(), body: reader.take(reader.u32()) });
  return sections;
}

function writeSections(sections) {
  const parts = sections.map(({ id, body }) => Buffer.from([id, ...u32(body.length), ...body]));
  return Buffer.concat([Buffer.from("\0asm\x01\0\0\0", "latin1"), ...parts]);
}

function readVector(sections, id, item) {
  const body = sections.find((section) => section.id === id)?.body;
  if (body === undefined) return [];
  const reader = new Reader(body);
  return Array.from({ length: reader.u32() }, () => {
    const start = reader.at;
    const value = item(reader);
    return { ...value, bytes: [...body.subarray(start, reader.at)] };
  });
}

export const readImports = (sections) =>
  readVector(sections, SECTION.IMPORT, (reader) => {
    const entry = { module: reader.name(), name: reader.name(), kind: reader.byte() };
    if (entry.kind === MEMORY) {
      entry.limits = reader.byte();
      entry.initial = reader.u32();
      entry.maximum = entry.limits & 1 ? reader.u32() : undefined;
    } else if (entry.kind === GLOBAL) {
      reader.take(2);
    } else if (entry.kind === 0) {
      reader.u32();
    } else {
      throw new BuildError(`the module imports a ${KIND[entry.kind] ?? "tag"}: ${entry.module}.${entry.name}`);
    }
    return entry;
  });

export const readExports = (sections) =>
  readVector(sections, SECTION.EXPORT, (reader) => ({ name: reader.name(), kind: reader.byte(), index: reader.u32() }));

export const readGlobals = (sections) =>
  readVector(sections, SECTION.GLOBAL, (reader) => ({
    type: reader.byte(),
    mutable: reader.byte() === 1,
    value: reader.constant(),
  }));

export const readData = (sections) =>
  readVector(sections, SECTION.DATA, (reader) => {
    if (reader.u32() !== 0) throw new BuildError("a data segment is not an active one of memory 0");
    return { offset: reader.constant(), length: reader.take(reader.u32()).length };
  });

/** The contents of the custom section of that name. */
export function customSection(bytes, wanted) {
  const readers = readSections(bytes)
    .filter(({ id }) => id === SECTION.CUSTOM)
    .map(({ body }) => new Reader(body));
  const found = readers.find((reader) => reader.name() === wanted);
  if (found === undefined) throw new BuildError(`the linked module has no custom section ${wanted}`);
  return found.bytes.subarray(found.at);
}

/** The value of a global that the linked module exports. */
export function linkedGlobal(bytes, wanted) {
  const sections = readSections(bytes);
  const index = readExports(sections).find((entry) => entry.name === wanted && entry.kind === GLOBAL)?.index;
  if (index === undefined) throw new BuildError(`the linked module does not export ${wanted}`);
  return readGlobals(sections)[index].value;
}

/**
 * Turns the output of wasm-bindgen into the module that is shipped. The memory becomes shared. Custom sections, and the
 * unused exports and data of wasm-bindgen's runtime, are removed. `__heap_base`, which wasm-bindgen removes, is added again.
 */
export function putInOrder(bytes, { heapBase, constants }) {
  const sections = readSections(bytes);
  if (sections.some(({ id }) => id === SECTION.DATA_COUNT))
    throw new BuildError("the module has passive data segments");

  const imports = readImports(sections).map((entry) => {
    if (entry.kind !== MEMORY) return entry.bytes;
    if (entry.limits !== 0x01) throw new BuildError(`the imported memory has the limits flag ${entry.limits}, not 1`);
    return [...name(HOST), ...name("memory"), MEMORY, 0x03, ...u32(entry.initial), ...u32(entry.maximum)];
  });
  const globals = readGlobals(sections).map((entry) => entry.bytes);
  const exported = readExports(sections).filter((entry) => !BINDGEN_LEFTOVERS.includes(entry.name));
  const exports = exported.map((entry) => entry.bytes);
  exports.push([...name("__heap_base"), GLOBAL, ...u32(globals.length)]);
  globals.push([0x7f, 0, ...constant(heapBase)]);
  const data = readData(sections).filter(({ offset }) => offset >= constants.start && offset < constants.end);

  const changed = new Map([
    [SECTION.IMPORT, vector(imports)],
    [SECTION.GLOBAL, vector(globals)],
    [SECTION.EXPORT, vector(exports)],
    [SECTION.DATA, vector(data.map((entry) => entry.bytes))],
  ]);
  const kept = sections.filter(({ id }) => id !== SECTION.CUSTOM);
  return writeSections(kept.map(({ id, body }) => ({ id, body: changed.get(id) ?? body })));
}

/**
 * Where the linker put the constants. All other data of the module has to belong to wasm-bindgen's runtime: a mutable static
 * of the engine would be shared by all threads, and each instance would write it anew when it starts.
 *
 * @throws {BuildError} when there is a mutable static.
 */
export function readLinkMap(map) {
  const constants = { start: 0, end: 0 };
  let section = "";
  for (const line of map.split("\n")) {
    const [, address, size, text] = /^\s*([0-9a-f]+|-)\s+[0-9a-f]+\s+([0-9a-f]+)(\s+.*)$/.exec(line) ?? [];
    if (text === undefined) continue;
    const output = /^ ([.\w]+)$/.exec(text);
    if (output) {
      section = output[1];
      if (section === ".rodata") {
        constants.start = Number.parseInt(address, 16);
        constants.end = constants.start + Number.parseInt(size, 16);
      }
    } else if (
      [".data", ".bss", ".tdata", ".tbss"].includes(section) &&
      /:\(\./.test(text) &&
      !/libwasm_bindgen-/.test(text)
    ) {
      throw new BuildError(`the module has mutable data, which no instance may have:\n  ${text.trim()}`);
    }
  }
  return constants;
}
