/**
 * The part of the conformance suite for whoever builds a second tier behind a cache: values as bytes, and reads under a lease.
 */

import type { Key } from "../index.ts";
import { ok, same, throws } from "./assert.ts";
import type { Define } from "./check.ts";
import { bytes, keys, lengths, text, values } from "./samples.ts";

export function tier(check: Define, largest: number): void {
  portable(check, largest);
  leased(check);
}

function portable(check: Define, largest: number): void {
  check(
    "encode turns every value into bytes, and decode of another participant turns them back",
    ({ cache, another }) => {
      const other = another({ nearCache: 0 }).namespace("other");
      for (const [name, value] of values()) {
        const encoded = cache.encode(value);
        same([Object.prototype.toString.call(encoded), encoded[0]], ["[object Uint8Array]", 1], name);
        same(other.decode(encoded), value, name);
        // As a part of another array, such as the answer of a server.
        const answer = new Uint8Array(encoded.length + 5).fill(0xff);
        answer.set(encoded, 3);
        const decoded = other.decode(answer.subarray(3, 3 + encoded.length));
        answer.fill(0);
        same(decoded, value, `${name} from a part of an array`);
      }
      for (const length of lengths(2 * largest)) {
        for (const value of [text(length, 1), bytes(length, 2)])
          same(other.decode(cache.encode(value)), value, `${length}`);
      }
      same([cache.size, other.size], [0, 0]);
    },
  );

  check("encoded bytes are a copy, and nothing is stored: maxEntrySize does not limit them", ({ another }) => {
    const small = another({ maxEntrySize: 10 });
    const value = Uint8Array.of(1, 2, 3);
    const encoded = small.encode(value);
    value.fill(9);
    same(small.decode(encoded), Uint8Array.of(1, 2, 3));
    const decoded = small.decode(encoded);
    decoded.fill(7);
    same(small.decode(encoded), Uint8Array.of(1, 2, 3));
    const long = text(1000, 3);
    throws(() => small.set("a", long), "ERR_TOO_LARGE");
    same(small.decode(small.encode(long)), long);
    same(small.size, 0);
  });

  check("encode refuses what set refuses, with the same errors", ({ cache }) => {
    const cycle: unknown[] = [() => 1];
    const refused = [undefined, () => 1, Symbol("s"), Promise.resolve(1), { f() {} }, { list: cycle }, new WeakMap()];
    for (const value of refused) {
      const errors = [() => cache.set("a", value), () => cache.encode(value)].map((call) => {
        try {
          return call();
        } catch (error) {
          const { name, message, code } = error as { name: string; message: string; code?: string };
          return { name, message, code };
        }
      });
      same(errors[1], errors[0]);
      ok((errors[0] as { message?: string }).message !== undefined, "it is refused");
    }
    same(cache.has("a"), false);
  });

  check("decode refuses bytes that are no value, and says what to do", ({ cache }) => {
    for (const wrong of [undefined, null, "text", [1, 2], new Uint16Array(2), new ArrayBuffer(4), { length: 2 }]) {
      throws(() => cache.decode(wrong as never), "TypeError", "bytes: must be a Uint8Array");
    }
    const encoded = cache.encode({ list: [1, 2, 3] });
    for (const length of [0, 1])
      throws(() => cache.decode(encoded.subarray(0, length)), "ERR_DATA", "Encode the value");
    throws(() => cache.decode(encoded.subarray(0, -1)), "ERR_DATA", "cannot be read here");
    for (const version of [0, 2, 255]) {
      const other = encoded.slice();
      other[0] = version;
      throws(() => cache.decode(other), "ERR_DATA", `format version ${version}`, "or encode the value again");
    }
    for (const type of [0, 10, 15, 31, 33, 37, 41, 49, 255]) {
      throws(() => cache.decode(Uint8Array.of(1, type, 1, 2, 3)), "ERR_DATA", `type ${type} is unknown`);
    }
  });

  check("encode and decode use the codec of the cache, which may use the cache meanwhile", ({ cache, another }) => {
    const codec = {
      encode(value: unknown): Uint8Array {
        coded.set("side", "stored while encoding");
        coded.encode("text that is encoded meanwhile");
        return new TextEncoder().encode(JSON.stringify(value));
      },
      decode(encoded: Uint8Array): unknown {
        coded.decode(cache.encode([coded.get("side")]));
        return { decoded: JSON.parse(new TextDecoder().decode(encoded)) as unknown };
      },
    };
    const coded = another({ codec });
    const encoded = coded.encode({ a: 1 });
    same(coded.decode(encoded), { decoded: { a: 1 } });
    same(coded.get("side"), "stored while encoding");
    for (const value of ["text", 1, null, Uint8Array.of(1)]) same(cache.decode(coded.encode(value)), value);
    same(coded.decode(cache.encode({ plain: 1 })), { plain: 1 });
    throws(() => cache.decode(encoded), "ERR_DATA", "codec");
    const failing = another({
      codec: {
        encode() {
          throw new RangeError("mine");
        },
        decode() {
          throw new RangeError("mine");
        },
      },
    });
    throws(() => failing.encode({}), "RangeError", "mine");
    throws(() => failing.decode(encoded), "ERR_DATA", "mine");
    const wrong = another({ codec: { encode: () => "text" as never, decode: () => 1 } });
    throws(() => wrong.encode({}), "TypeError", "codec");
  });

  check("with frozenObjects decode returns frozen objects", ({ cache, another }) => {
    const encoded = cache.encode({ list: [1, { a: 1 }] });
    const frozen = another({ frozenObjects: true }).decode(encoded);
    ok(Object.isFrozen(frozen) && Object.isFrozen(frozen.list) && Object.isFrozen(frozen.list[1]), "frozen");
    ok(!Object.isFrozen(cache.decode(encoded)), "only for those who asked for it");
  });
}

/** So many reads that the near cache has the value, and its proof. */
const READS = 12;

function leased(check: Define): void {
  check("a leased get is as get while the lease lasts, and a miss when it has ended", ({ cache, another }) => {
    const lease = { until: Number.POSITIVE_INFINITY };
    const parts = [cache, cache.namespace("a"), cache.namespace("a").namespace("b"), another({ nearCache: 0 })];
    for (const part of parts) {
      const reader = part.leased(lease);
      for (const [i, key] of keys().entries()) {
        for (const options of [{}, { ttl: 1e9 }, { tags: ["t"] }, { ttl: 1e9, tags: ["t", "u"] }]) {
          const value = i % 2 === 0 ? `value ${i}` : { i, list: [i] };
          part.set(key, value, options);
          lease.until = performance.now() + 1e9;
          for (let reads = 0; reads < READS; reads++) {
            same(reader.get(key), value);
            same(part.get(key), value);
          }
          for (const ended of [performance.now(), 0, -1, Number.NEGATIVE_INFINITY, Number.NaN]) {
            lease.until = ended;
            same(reader.get(key), undefined, `until ${ended}`);
          }
          same(part.get(key), value);
        }
        lease.until = Number.POSITIVE_INFINITY;
        part.delete(key);
        same(reader.get(key), undefined);
      }
    }
  });

  check("a leased get sees every change of every participant at once", ({ cache, clock, another }) => {
    const other = another();
    const lease = { until: Number.POSITIVE_INFINITY };
    for (const part of [cache, cache.namespace("a").namespace("b")]) {
      const there = part === cache ? other : other.namespace("a").namespace("b");
      const reader = part.leased(lease);
      const ttl = 1e9;
      const changes: [() => unknown, unknown][] = [
        [() => there.set("k", "other", { ttl }), "other"],
        [() => there.delete("k"), undefined],
        [() => there.clear(), undefined],
        [() => other.clear(), part === cache ? undefined : "value"],
        [() => other.namespace("a").clear(), part === cache ? "value" : undefined],
        [() => there.invalidateTag("t"), undefined],
        [() => there.invalidateTag("x"), "value"],
        [() => there.expireTag("u"), undefined],
        [() => there.expire("k"), undefined],
        [() => there.touch("k", 1e6), "value"],
        [() => there.set("n", 1), "value"],
      ];
      for (const [i, [change, expected]] of changes.entries()) {
        part.set("k", "value", { ttl, tags: ["t", "u"] });
        for (let reads = 0; reads < READS; reads++) same(reader.get("k"), "value", `before change ${i}`);
        change();
        for (let reads = 0; reads < READS; reads++) {
          const found = reader.get("k");
          // Tags and namespaces share counters, so a change of one of them may make an entry of another a miss.
          if (expected === "value" && found === undefined && !part.has("k")) break;
          same(found, expected, `after change ${i}`);
        }
      }
    }
    // Without the near cache the cache's own clock counts.
    const far = another({ nearCache: 0 }).leased(lease);
    cache.set("k", "value", { ttl: 100 });
    same(far.get("k"), "value");
    clock.now += 100;
    same(far.get("k"), undefined);
  });

  check("a leased get of an object returns a copy, or with frozenObjects the same object", ({ cache, another }) => {
    const lease = { until: Number.POSITIVE_INFINITY };
    const part = cache.namespace("a");
    part.set("o", { list: [1] }, { ttl: 1e9 });
    const reader = part.leased(lease);
    for (let reads = 0; reads < READS; reads++) {
      const value = reader.get("o");
      same(value, { list: [1] });
      value.list.push(2);
    }
    const frozen = another({ frozenObjects: true }).namespace("a").leased(lease);
    ok(Object.isFrozen(frozen.get("o")), "frozen");
  });

  check("a leased get has the errors of get, also when the lease has ended", ({ cache, another }) => {
    for (const wrong of [undefined, null, 5, "text", {}, { until: "5" }, { until: 5n }]) {
      throws(() => cache.leased(wrong as never), "TypeError", "lease: must be an object", "until");
    }
    const coded = another({ codec: { encode: () => Uint8Array.of(1), decode: () => 1 } });
    coded.set("o", {});
    const lease = { until: Number.POSITIVE_INFINITY };
    const reader = cache.leased(lease);
    throws(() => reader.get("o"), "ERR_DATA", "codec");
    const closed = another();
    const late = closed.namespace("a").leased(lease);
    closed.close();
    for (const until of [Number.POSITIVE_INFINITY, 0]) {
      lease.until = until;
      for (const key of [undefined, null, 5, {}]) throws(() => reader.get(key as never), "TypeError", "key");
      throws(() => late.get("a"), "ERR_CLOSED");
    }
    throws(() => closed.leased(lease), "ERR_CLOSED");
    const failing = cache.leased({
      get until(): number {
        if (cache.get("fail") === true) throw new RangeError("no lease");
        return Number.POSITIVE_INFINITY;
      },
    });
    cache.set("k" as Key, 1);
    same(failing.get("k"), 1);
    cache.set("fail", true);
    throws(() => failing.get("k"), "RangeError", "no lease");
  });
}
