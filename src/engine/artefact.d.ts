/** What esbuild puts in place of an import of the compiled engine. */
declare module "*.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}

/** SHA-256 of the compiled engine, put in by scripts/build.mjs. */
declare const WASM_SHA256: string;

/** What the compiled engine says about itself, asked by scripts/build.mjs: see scripts/wasm/facts.mjs. */
declare const WASM_FACTS: {
  readonly version: number;
  readonly minSize: number;
  readonly maxSize: number;
  readonly areaBytes: number;
  readonly minSlots: number;
  readonly maxSlots: number;
  readonly magic: string;
};

/** SHA-256 of the TypeScript, put in by scripts/build.mjs. */
declare const SOURCES_SHA256: string;
