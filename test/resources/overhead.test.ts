/**
 * Pins numbers that must not change unnoticed: the memory that an entry takes, the size, imports and exports of the compiled engine,
 * and the dependencies of the package. An intended change is made here too.
 */

import { readFileSync } from "node:fs";
import { createCache } from "cache-machine";
import { describe, expect, it } from "vitest";

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url));
const MIB = 1 << 20;
const INDEX_WORD = 8;

/** The bytes that one entry takes in the log. */
function cost(key: string | Uint8Array, value: unknown, options?: { ttl?: number; tags?: string[] }): number {
  const cache = createCache({ size: "1mb" });
  cache.set(key, value, options);
  const { entries, bytes } = cache.census();
  cache.close();
  expect(entries).toBe(1);
  return bytes;
}

const up = (bytes: number, to: number) => Math.ceil(bytes / to) * to;

describe("the memory of an entry", () => {
  it.each([
    [1, 0],
    [8, 8],
    [9, 0],
    [16, 100],
    [20, 100],
    [20, 1_000],
    [250, 7_000],
  ])(
    "an entry with a key of %i and a value of %i bytes takes 32 bytes more, rounded up to a multiple of 16",
    (keyLength, valueLength) => {
      const expected = up(32 + up(keyLength, 8) + valueLength, 16);
      expect(cost("k".repeat(keyLength), "v".repeat(valueLength))).toBe(expected);
      expect(cost("k".repeat(keyLength), Buffer.alloc(valueLength))).toBe(expected);
      expect(cost(Buffer.alloc(keyLength), Buffer.alloc(valueLength))).toBe(expected);
    },
  );

  it.each([
    ["a number", 1.5, 8],
    ["a boolean", true, 0],
    ["null", null, 0],
    ["a text of two-byte characters, in UTF-16", "Ω€Ω€", 8],
  ])("a value takes no more than its own bytes in the record of its entry: %s", (_, value, bytes) => {
    expect(cost("12345678", value)).toBe(up(32 + 8 + bytes, 16));
  });

  it("an entry that expires takes 8 bytes more", () => {
    expect(cost("12345678", "v".repeat(8), { ttl: 1_000 })).toBe(48 + 16);
    expect(cost("12345678", "", { ttl: 1_000 })).toBe(48);
  });

  it("an entry with a grace takes 16 bytes more, with a ttl or without", () => {
    expect(cost("12345678", "v".repeat(8), { grace: 1_000 })).toBe(48 + 16);
    expect(cost("12345678", "v".repeat(8), { ttl: 1_000, grace: 1_000 })).toBe(48 + 16);
  });

  it("an entry with tags takes 8 bytes more, and 14 bytes and the name for each tag", () => {
    const tags = ["news", "sport"];
    expect(cost("12345678", "", { tags })).toBe(up(32 + 8 + up(8 + 2 * 14 + 9, 8), 16));
  });

  it("a large entry takes less than 0.5 % more for its chunks", () => {
    const cache = createCache({ size: "64mb" });
    cache.set("large", Buffer.alloc(8 * MIB));
    const { bytes } = cache.census();
    cache.close();
    expect(bytes / (8 * MIB)).toBeLessThan(1.005);
  });

  it("an entry takes on average at most 64 bytes beside key and value, with two words of the index", () => {
    const cache = createCache({ size: "64mb", nearCache: 0 });
    const count = 20_000;
    let payload = 0;
    for (let i = 0; i < count; i++) {
      const key = `${i}:`.padEnd(6 + (i % 35), "k");
      const value = "v".repeat((i * 7) % 500);
      payload += key.length + value.length;
      cache.set(key, value);
    }
    const { entries, bytes } = cache.census();
    cache.close();
    expect(entries).toBe(count);
    const overhead = (bytes - payload) / count + 2 * INDEX_WORD;
    console.log(`${overhead.toFixed(1)} bytes beside key and value, two index words included`);
    expect(overhead).toBeLessThanOrEqual(64);
  });
});

it.each([1, 2, 4, 8, 16, 64, 256, 1024])("the tables of a cache of %i MiB take less than 21 % of it", (mib) => {
  const cache = createCache({ size: mib * MIB, nearCache: 0 });
  const { size, capacity } = cache.stats();
  cache.close();
  expect(size).toBe(mib * MIB);
  expect((size - capacity) / size).toBeLessThan(0.21);
});

describe("the compiled engine", () => {
  const bytes = read("wasm/cache_machine.wasm");
  const module = new WebAssembly.Module(bytes);

  it("the compiled engine has less than 72 KiB", () => {
    expect(bytes.length).toBeLessThan(72 * 1024);
  });

  it("the compiled engine imports its memory and four functions", () => {
    const imports = WebAssembly.Module.imports(module).map(({ module, name, kind }) => `${kind} ${module}.${name}`);
    expect(imports.sort()).toEqual([
      "function host.now",
      "function host.pause",
      "function host.release",
      "function host.take",
      "memory host.memory",
    ]);
  });

  it("the compiled engine exports these functions and no others", () => {
    const names = WebAssembly.Module.exports(module).map(({ name }) => name);
    expect(names.sort().join(" ")).toMatchInlineSnapshot(
      `"__heap_base __stack_pointer abandon_large attach begin_large capacity census chunk_bytes claim claim_lock clear close_claim commit_large counter detach expire expire_tags extend find format get get_in_group increment invalidate is_waited_for limit listen max_inline max_value next next_bell next_claim next_lock next_locked_bucket occupancy participants pass_lock prefetch_group probe_claim read_chunk recover release release_lock remove residence seat_at seats_of segments set spectate stands tag_changes tag_counters tag_counters_at tag_times touch used validate wait write_chunk"`,
    );
  });
});

describe("the package", () => {
  const manifest = JSON.parse(read("package.json").toString());

  it("the package has one dependency; it works with other packages, and asks for none of them", () => {
    expect(Object.keys(manifest.dependencies ?? {})).toEqual(["devalue"]);
    expect(manifest.optionalDependencies).toBeUndefined();
    const optional = Object.entries(manifest.peerDependenciesMeta).filter(([, { optional }]: any) => optional === true);
    expect(optional.map(([name]) => name).sort()).toEqual(Object.keys(manifest.peerDependencies).sort());
  });

  it("the package runs no script when it is installed", () => {
    expect(Object.keys(manifest.scripts).filter((name) => /install|^prepare$/.test(name))).toEqual([]);
  });
});
