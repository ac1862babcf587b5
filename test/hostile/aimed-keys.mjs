/**
 * Families of keys that collide for every seed, in a hash that uses XXH64's round without the outer accumulator: the difference in
 * one word is undone by the next word. For hashing.test.ts and `npm run soak`.
 */
import { generator } from "../crash/checked-values.mjs";

const WORD = 2n ** 64n;
const P1 = 0x9e37_79b1_85eb_ca87n;
const P2 = 0xc2b2_ae3d_27d4_eb4fn;
const P4 = 0x85eb_ca77_c2b2_ae63n;
const times = (a, b) => BigInt.asUintN(64, a * b);
const rotate = (word, by) => BigInt.asUintN(64, (word << by) | (word >> (64n - by)));

/** The inverse of an odd number modulo 2⁶⁴, by Newton's method: each step doubles the number of correct bits. */
function inverse(odd) {
  let found = odd;
  for (let step = 0; step < 6; step++) found = times(found, 2n + WORD - times(odd, found));
  return found;
}

const [P1_BACK, P2_BACK] = [inverse(P1), inverse(P2)];
/** How XXH64 mixes a word before it goes into the state, and the inverse. */
const mixed = (word) => times(rotate(times(word, P2), 31n), P1);
const unmixed = (word) => times(rotate(times(word, P1_BACK), 33n), P2_BACK);
const twin = (word, bit) => unmixed(mixed(word) ^ (1n << bit));
const bytesOf = (words) => Buffer.from(BigUint64Array.from(words).buffer);

/** The state of the weak hash after all words of a key; the same for all keys of a family. */
export function weakHash(key) {
  let state = 0x1234_5678_9abc_def0n;
  for (const word of new BigUint64Array(Uint8Array.from(key).buffer)) {
    state = BigInt.asUintN(64, times(rotate(state ^ mixed(word), 27n), P1) + P4);
  }
  return state;
}

/** The families of keys for one seed. */
export class AimedKeys {
  #next;

  constructor(seed) {
    this.#next = generator(seed).next;
  }

  #word() {
    return (BigInt(this.#next()) << 32n) | BigInt(this.#next());
  }

  /** A family of 2ⁿ⁻¹ keys of n = `count` words, which differ in pairs of neighbouring words. */
  siblings(count) {
    const words = Array.from({ length: count }, () => this.#word());
    return Array.from({ length: 2 ** (count - 1) }, (_, changed) => {
      const key = words.map(mixed);
      for (let i = 0; i < count - 1; i++) {
        if (((changed >> i) & 1) === 0) continue;
        key[i] ^= 1n << 36n;
        key[i + 1] ^= 1n << 63n;
      }
      return bytesOf(key.map(unmixed));
    });
  }

  /** A family of 1,024 ASCII texts of 160 characters, which differ in ten pairs of words; found by trying random words. */
  asciiSiblings() {
    const TOP_BITS = 0x8080_8080_8080_8080n;
    const alternatives = (bit) => {
      for (;;) {
        const word = this.#word() & ~TOP_BITS;
        if ((twin(word, bit) & TOP_BITS) === 0n) return [word, twin(word, bit)];
      }
    };
    const pairs = Array.from({ length: 10 }, () => [alternatives(36n), alternatives(63n)]);
    return Array.from({ length: 1024 }, (_, changed) =>
      bytesOf(pairs.flatMap((pair, i) => pair.map((word) => word[(changed >> i) & 1]))).toString("latin1"),
    );
  }
}
