/** The import of the compiled engine is its bytes. */
declare module "*.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}

/** SHA-256 of the compiled engine; scripts/build.mjs replaces the name. */
declare const WASM_SHA256: string;

/** SHA-256 of the TypeScript; scripts/build.mjs replaces the name. */
declare const SOURCES_SHA256: string;
