/**
 * Damages the region of a cache of 1 MiB. Has the offsets of its parts, and the changes for each part, which a seed determines. Half
 * of the changes are random bytes. The other half nearly makes sense: a word from another place, a length that is one too large, a
 * record of another type.
 *
 * The offsets are those that `Geometry::of` in `wasm/src/format/layout.rs` computes. They are repeated here because only these tests
 * need them. hostile.test.ts compares them with the engine, so they cannot drift apart.
 */

import { numbers } from "./contract-numbers.mjs";

const { MAX_KEY } = numbers;
export const SIZE = 1 << 20;

const PARTICIPANTS = 64;
const CLAIM_SETS = 16;
const CLAIM_WAYS = 16;
const CLAIM = 128;
const TAGS = 512;
const BUCKETS = 1024;
const SEGMENTS = 51;
const SEGMENT = 16 << 10;
const BUCKET = 128;
const CONTROL = 120;

const CLAIMS_AT = 4096 + PARTICIPANTS * 128;
const TAGS_AT = CLAIMS_AT + CLAIM_SETS * CLAIM_WAYS * CLAIM;
const STATES_AT = TAGS_AT + TAGS * 24;
const METAS_AT = Math.ceil((STATES_AT + SEGMENTS * 8) / 64) * 64;
const CHANGES_AT = Math.ceil((METAS_AT + SEGMENTS * 32) / 64) * 64;
const INDEX_AT = Math.ceil((CHANGES_AT + BUCKETS * 8) / 128) * 128;
const SEGMENTS_AT = INDEX_AT + BUCKETS * BUCKET;

/** The beginning and the end of each part. */
export const PLACES = {
  identity: [0, 64],
  counters: [64, 448],
  lanes: [1024, 2048],
  participants: [4096, CLAIMS_AT],
  claims: [CLAIMS_AT, TAGS_AT],
  tags: [TAGS_AT, STATES_AT],
  states: [STATES_AT, STATES_AT + SEGMENTS * 8],
  metas: [METAS_AT, METAS_AT + SEGMENTS * 32],
  changes: [CHANGES_AT, CHANGES_AT + BUCKETS * 8],
  index: [INDEX_AT, SEGMENTS_AT],
  segments: [SEGMENTS_AT, SEGMENTS_AT + SEGMENTS * SEGMENT],
  slack: [SEGMENTS_AT + SEGMENTS * SEGMENT, SIZE],
};
export const SEGMENT_BYTES = SEGMENT;

// The fields of the header; each has one word.
const COUNTERS = [64, 128, 192, 200, 256, 320, 384];

// Offsets in a seat: what it waits for, whether it was rung, and its process and thread.
const SEAT_BELLS = [32, 40, 48];

// Offsets in a claim, see `wasm/src/format/claim.rs`.
const [HASH, TOKEN, DEADLINE, START, NAME_BYTES, NAME] = [8, 16, 24, 32, 40, 48];
const MAX_NAME = CLAIM - NAME;

// Offsets in a record, see `wasm/src/format/record.rs`.
const TYPE = 10;
const FLAGS = 11;
const VERSION = 24;
const OPTIONAL = 32;
const [EXPIRES, TAGGED, CHUNKED, GRACE] = [1, 2, 4, 64];
const TEXT = 2;
const STRUCTURED = 32;

/** Words at the limits of number types. */
const EXTREMES = [
  0n,
  1n,
  2n ** 16n - 1n,
  2n ** 31n,
  2n ** 32n - 16n,
  2n ** 32n - 1n,
  2n ** 53n - 1n,
  2n ** 53n + 1n,
  2n ** 63n,
  2n ** 64n - 1n,
  // As float64: infinity, minus infinity, not a number, the largest number, minus one.
  0x7ff0000000000000n,
  0xfff0000000000000n,
  0x7ff8000000000001n,
  0x7fefffffffffffffn,
  0xbff0000000000000n,
];

/** Texts that are decoded as objects once the type of their record is changed; most are malformed. */
export const MALFORMED_TEXTS = [
  "-1",
  "[]",
  "[[1],[0]]",
  "[[0]]",
  "[[-7,4294967295]]",
  "[[-7,9007199254740993,0,0]]",
  '[{"__proto__":1},5]',
  '[["Map",0,0]]',
  '[["Set",1],["Map",0,1]]',
  '[["Date","never"]]',
  '[["RegExp","(","g"]]',
  '[["BigInt","0x"]]',
  '[["Int32Array",1],["ArrayBuffer","AAAAAAA="]]',
  '[["Float64Array",1,0,4294967295],["ArrayBuffer","AAAAAAAAAAA="]]',
  '[["ArrayBuffer","!"]]',
  '[["Object",0]]',
  '[["Error",1],{"message":2,"stack":2,"cause":0},7]',
  '[["Error",1],{"kind":2,"name":2,"\\u0000":1},"AggregateError"]',
  '[["Error",1],{"kind":2,"\\u0000":3},"DOMException",{"message":3}]',
  '[["Buffer",1],"text"]',
  '[["null","__proto__",1],5]',
  '[{"length":1,"then":1,"toJSON":1,"constructor":1},1]',
  '["\\ud800"]',
  "1e999",
  "123456789012345678901234567890",
];

/** Where the tags or the key of a record with these flags begin. */
const tagsAt = (flags) => OPTIONAL + (flags & GRACE ? 16 : flags & EXPIRES ? 8 : 0);

/** An attacker. Its `memory` has `read(at, length)` and `write(at, bytes)`. */
export class Attacker {
  /** Number of changes in each part. @type {Record<string, number>} */
  hits = {};
  /** The last changes, for the report of a failure. */
  recent = [];
  #random;
  #memory;

  constructor(random, memory) {
    this.#random = random;
    this.#memory = memory;
  }

  static parts = [
    "identity",
    "counters",
    "lanes",
    "participants",
    "claims",
    "bells",
    "tags",
    "states",
    "metas",
    "changes",
    "entries",
    "locks",
    "records",
    "chunks",
    "types",
    "segments",
    "slack",
  ];

  /** Makes one change in the part. */
  attack(part) {
    const { below } = this.#random;
    const within = (place) => PLACES[place][0] + below(PLACES[place][1] - PLACES[place][0]);
    switch (part) {
      case "counters":
        this.#change(part, this.#pick(COUNTERS) + below(8));
        break;
      case "participants":
        // Mostly seats that are in use.
        this.#change(part, PLACES.participants[0] + below(below(4) === 0 ? 64 * 128 : 8 * 128));
        break;
      case "claims":
        this.#attackClaim(part);
        break;
      case "bells":
        this.#attackBell(part);
        break;
      case "entries":
        this.#attackEntry(part);
        break;
      case "locks":
        this.#attackLock(part);
        break;
      case "records":
        this.#attackRecord(part, () => true);
        break;
      case "chunks":
        this.#attackRecord(part, (flags) => (flags & CHUNKED) !== 0);
        break;
      case "types":
        this.#attackType(part);
        break;
      default:
        this.#change(part, within(part));
    }
  }

  #pick(list) {
    return list[this.#random.below(list.length)];
  }

  #write(part, at, bytes, how) {
    if (at < 0 || at + bytes.length > SIZE) return;
    this.#memory.write(at, bytes);
    this.hits[part] = (this.hits[part] ?? 0) + 1;
    this.recent.push(`${part} ${at}: ${how} ${Buffer.from(bytes.subarray(0, 8)).toString("hex")} (${bytes.length})`);
    if (this.recent.length > 40) this.recent.shift();
  }

  #word(at) {
    return this.#memory.read(at, 8).readBigUInt64LE();
  }

  #writeWord(part, at, value, how) {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
    this.#write(part, at, bytes, how);
  }

  /** Changes the bytes at `at` without regard to their format. */
  #change(part, at) {
    const { below, next } = this.#random;
    const word = at & ~7;
    const length = Math.min(1 + below(below(4) === 0 ? 64 : 8), SIZE - at);
    switch (below(6)) {
      case 0: {
        const bytes = Buffer.from(this.#memory.read(at, 1));
        bytes[0] ^= 1 << below(8);
        return this.#write(part, at, bytes, "flip");
      }
      case 1:
        return this.#write(part, at, Buffer.alloc(length), "zero");
      case 2:
        return this.#write(part, at, Buffer.from(Array.from({ length }, () => next() & 255)), "random");
      case 3:
        return this.#writeWord(part, word, this.#pick(EXTREMES), "extreme");
      case 4:
        return this.#writeWord(part, word, this.#word(word) + BigInt(below(65) - 32), "near");
      default:
        // Copies another word, of the same part or of another one.
        return this.#writeWord(part, word, this.#word((word + 8 * (below(64) - 32) + SIZE) % SIZE), "copy");
    }
  }

  /** The offsets of live entries, and the entries. */
  #entries() {
    const [from, to] = PLACES.index;
    const index = this.#memory.read(from, to - from);
    const found = [];
    for (let at = 0; at < index.length; at += 8) {
      if (at % BUCKET === CONTROL) continue;
      const high = index.readUInt32LE(at + 4);
      const state = (high >>> 12) & 3;
      if (state === 1 || state === 2) found.push([from + at, index.readBigUInt64LE(at)]);
    }
    return found;
  }

  #attackEntry(part) {
    const { below } = this.#random;
    const entries = this.#entries();
    const [from, to] = PLACES.index;
    if (entries.length === 0 || below(4) === 0) return this.#change(part, from + below(to - from));
    const [at, entry] = this.#pick(entries);
    const [, other] = this.#pick(entries);
    const place = 0xfffffffn;
    switch (below(6)) {
      case 0:
        return this.#writeWord(part, at, (entry & ~place) | (other & place), "of another record");
      case 1:
        return this.#writeWord(part, at, entry + BigInt(below(9) - 4), "of a place nearby");
      case 2:
        return this.#writeWord(part, at, entry ^ (3n << 44n), "of another state");
      case 3:
        return this.#writeWord(part, at, entry ^ (1n << BigInt(28 + below(16))), "of another generation");
      case 4:
        // The same entry again in its bucket, so that a key is there twice.
        return this.#writeWord(part, at - (at % BUCKET) + 8 * below(15), entry, "twice");
      default:
        return this.#change(part, at);
    }
  }

  /** Changes what a seat waits for, whether it was rung, or whose it is. */
  #attackBell(part) {
    const { below } = this.#random;
    const at = PLACES.participants[0] + below(8) * 128 + this.#pick(SEAT_BELLS);
    switch (below(3)) {
      case 0:
        return this.#writeWord(part, at, -1n, "every class");
      case 1:
        return this.#writeWord(part, at, 0n, "nothing");
      default:
        return this.#change(part, at + below(8));
    }
  }

  /** Changes a claim, or makes one in the name of a living participant or of one that never existed. */
  #attackClaim(part) {
    const { below } = this.#random;
    const claims = [];
    for (let at = CLAIMS_AT; at < TAGS_AT; at += CLAIM) if (this.#word(at) !== 0n) claims.push(at);
    const any = CLAIMS_AT + CLAIM * below(CLAIM_SETS * CLAIM_WAYS);
    const at = claims.length === 0 || below(4) === 0 ? any : this.#pick(claims);
    const other = claims.length === 0 ? any : this.#pick(claims);
    const seat = below(5) === 0 ? below(65_536) : below(8);
    const tenure = this.#word(PLACES.participants[0] + (seat % PARTICIPANTS) * 128) >> 32n;
    const owner = (BigInt(seat + 1) << 48n) | (tenure << 16n) | BigInt(below(6));
    switch (below(8)) {
      case 0:
        return this.#writeWord(part, at, owner, `claimed by ${seat}`);
      case 1: {
        // A second claim of the same key in the same set, for another participant.
        const set = other - ((other - CLAIMS_AT) % (CLAIM * CLAIM_WAYS));
        const bytes = Buffer.from(this.#memory.read(other, CLAIM));
        bytes.writeBigUInt64LE(owner);
        return this.#write(part, set + CLAIM * below(CLAIM_WAYS), bytes, `claimed again by ${seat}`);
      }
      case 2: {
        // All claims of a set are taken.
        const set = at - ((at - CLAIMS_AT) % (CLAIM * CLAIM_WAYS));
        const bytes = Buffer.alloc(CLAIM * CLAIM_WAYS);
        for (let i = 0; i < CLAIM_WAYS; i++) {
          bytes.writeBigUInt64LE(owner, i * CLAIM);
          bytes.writeBigUInt64LE(this.#pick(EXTREMES), i * CLAIM + HASH);
          bytes.writeDoubleLE(Infinity, i * CLAIM + DEADLINE);
        }
        return this.#write(part, set, bytes, `a set full of claims of ${seat}`);
      }
      case 3:
        return this.#writeWord(part, at + TOKEN, this.#word(at + TOKEN) ^ BigInt(1 << below(4)), "token");
      case 4:
        return this.#writeWord(part, at + this.#pick([HASH, TOKEN, DEADLINE, START]), this.#pick(EXTREMES), "extreme");
      case 5:
        return this.#write(part, at + DEADLINE, Buffer.from(Float64Array.of(1e9 * (below(5) - 2)).buffer), "deadline");
      case 6:
        return this.#write(
          part,
          at + NAME_BYTES,
          Buffer.from(Uint32Array.of(this.#pick([0, 1, MAX_NAME, MAX_NAME + 1, 65_536, 2 ** 31, 2 ** 32 - 1])).buffer),
          "bytes of the name",
        );
      default:
        return this.#change(part, at + below(CLAIM));
    }
  }

  /** Locks a bucket in the name of a living participant, or of one that never existed. */
  #attackLock(part) {
    const { below } = this.#random;
    const entries = this.#entries();
    const bucket = below(3) === 0 || entries.length === 0 ? below(BUCKETS) : (this.#pick(entries)[0] - INDEX_AT) >>> 7;
    const at = INDEX_AT + bucket * BUCKET + CONTROL;
    const seat = below(5) === 0 ? below(65_536) : below(8);
    const incarnation = this.#word(PLACES.participants[0] + (seat % PARTICIPANTS) * 128) & 0xffffffffn;
    if (below(3) === 0) return this.#change(part, at);
    this.#writeWord(part, at, (BigInt(seat + 1) << 48n) | (incarnation << 16n), `held by ${seat}`);
  }

  /** The offset and the first bytes of a random record that `wanted` accepts. */
  #record(wanted) {
    const entries = this.#entries();
    for (let tries = 0; tries < 50 && entries.length > 0; tries++) {
      const at = Number(this.#pick(entries)[1] & 0xfffffffn) * 16;
      if (at < PLACES.segments[0] || at + 64 > PLACES.segments[1]) continue;
      const head = this.#memory.read(at, 64);
      if (wanted(head[FLAGS], head)) return [at, head];
    }
    return undefined;
  }

  #attackRecord(part, wanted) {
    const { below } = this.#random;
    const [at, head] = this.#record(wanted) ?? [PLACES.segments[0] + 16 * below(1000), Buffer.alloc(64)];
    const flags = head[FLAGS];
    const keyLength = head.readUInt16LE(8);
    const byte = (offset, value, how) => this.#write(part, at + offset, Buffer.of(value), how);
    switch (below(12)) {
      case 0:
        return this.#writeWord(part, at, this.#word(at) + BigInt(below(33) - 16), "length");
      case 1:
        return this.#writeWord(
          part,
          at,
          (this.#word(at) & ~0xffffffffn) | this.#pick([0n, 15n, 47n, 0xfffffff0n]),
          "length",
        );
      case 2:
        return this.#write(
          part,
          at + 8,
          Buffer.from(Uint16Array.of(this.#pick([0, 1, 4096, 4097, MAX_KEY, MAX_KEY + 1, 65_535])).buffer),
          "key length",
        );
      case 3:
        return byte(FLAGS, flags ^ (1 << below(8)), "flags");
      case 4:
        return byte(TYPE, below(256), "type");
      case 5:
        return this.#writeWord(part, at + VERSION, this.#pick(EXTREMES), "version");
      case 6:
        // This word is an expiry, a grace, the sizes of the tags, or the key.
        return this.#writeWord(part, at + OPTIONAL + 8 * below(2), this.#pick(EXTREMES), "optional word");
      case 7: {
        const sizes = at + tagsAt(flags);
        if ((flags & TAGGED) === 0) byte(FLAGS, flags | TAGGED, "tagged");
        return this.#writeWord(part, sizes, (BigInt(below(150)) << 32n) | BigInt(8 * below(256)), "tag sizes");
      }
      case 8:
        return this.#write(part, at + OPTIONAL + below(64), Buffer.of(below(256)), "key or value");
      case 9: {
        // The total length of a large value without tags.
        const value = at + tagsAt(flags) + Math.ceil(keyLength / 8) * 8;
        return this.#writeWord(
          part,
          value,
          this.#pick([...EXTREMES, 2n ** 28n, 100_000n, 131_072n, 131_073n]),
          "total",
        );
      }
      case 10: {
        const value = at + tagsAt(flags) + Math.ceil(keyLength / 8) * 8;
        const generation = this.#word(at) & ~0xffffffffn;
        const place = this.#pick([BigInt(at), BigInt(at + 16), BigInt(PLACES.segments[1] - 16), 0n, 0xfffffff0n]);
        return this.#writeWord(part, value + 8 * (1 + below(4)), generation | place, "place of a chunk");
      }
      default:
        return this.#change(part, at + below(OPTIONAL));
    }
  }

  /** Makes a text an object, or bytes a value of another binary type. */
  #attackType(part) {
    const { below } = this.#random;
    const isText = below(2) === 0;
    const found = this.#record((_, head) => (isText ? head[TYPE] === TEXT : head[TYPE] >= 8));
    if (found === undefined) return this.#change(part, PLACES.segments[0] + below(4096));
    const [at] = found;
    const type = isText
      ? this.#pick([TEXT + STRUCTURED, TEXT + STRUCTURED, TEXT + STRUCTURED, 8, 1, 36])
      : 16 + below(36);
    this.#write(part, at + TYPE, Buffer.of(type), "another type");
  }
}
