/** What esbuild puts in place of an import of the compiled engine. */
declare module "*.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}

/** SHA-256 of the compiled engine, put in by scripts/build.mjs. */
declare const WASM_SHA256: string;

/** SHA-256 of the TypeScript, put in by scripts/build.mjs. */
declare const SOURCES_SHA256: string;
