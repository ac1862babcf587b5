/**
 * Whether a module does what src/engine/contract.ts says. This needs no Rust, so it also notices a module and a contract that
 * come from different commits. It calls the module as one participant and looks for each answer where the contract says.
 */
import { BuildError } from "./toolchain.mjs";

function demand(condition, message) {
  if (!condition) throw new BuildError(`the contract and the module do not agree: ${message}`);
}

/**
 * Throws unless the module agrees with the contract, as far as that shows from outside.
 *
 * @param {Record<string, any>} contract the constants by name
 * @param {Uint8Array} wasm
 */
export function checkAgreement(contract, wasm) {
  const participant = new Participant(contract, wasm);
  checkSizes(contract, participant);
  checkHeader(contract, participant);
  checkNumbers(contract, participant);
  checkKeys(contract, participant);
  checkResults(contract, participant);
  checkProof(contract, participant);
  checkSeat(contract, participant);
  checkSegments(contract, participant);
  checkLoads(contract, participant);
  checkLocks(contract, participant);
  checkBells(contract, participant);
}

/** The name of a tag, `t`. */
const T = 116;

/** One participant of a region of the smallest size, with the views of its area. */
class Participant {
  time = 0;
  /** `inside` and the hazard, whenever the module asked for the time. */
  inside = [];
  hazards = [];

  constructor(contract, wasm) {
    const { PAGE, MIN_SIZE, AREAS_AT, AREA_BYTES, AREA_OUT, OUT_BYTES } = contract;
    this.contract = contract;
    this.area = AREAS_AT;
    this.base = AREAS_AT + Math.ceil(AREA_BYTES / PAGE) * PAGE;
    const pages = (this.base + MIN_SIZE) / PAGE;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const now = () => {
      this.inside.push(this.out32[contract.OUT_INSIDE]);
      this.hazards.push(this.memory32[this.seat / 4 + contract.SEAT_HAZARD]);
      return this.time;
    };
    const host = { memory, now, take: () => 0, release: () => {}, pause: () => 0 };
    this.exports = new WebAssembly.Instance(new WebAssembly.Module(wasm), { host }).exports;
    const { buffer } = memory;
    this.memory32 = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.out32 = new Int32Array(buffer, AREAS_AT + AREA_OUT, OUT_BYTES / 4);
    this.out64 = new Float64Array(buffer, AREAS_AT + AREA_OUT, OUT_BYTES / 8);
    this.key = new Uint8Array(buffer, AREAS_AT + contract.AREA_KEY, contract.MAX_KEY);
    this.tags = new Uint8Array(buffer, AREAS_AT + contract.AREA_TAGS, contract.TAGS_BYTES);
    this.value = new Float64Array(buffer, AREAS_AT + contract.AREA_VALUE, contract.VALUE_BYTES / 8);

    const x = this.exports;
    demand(x.__heap_base.value <= AREAS_AT, "the data of the module reaches into the areas");
    demand(x.format(this.base, MIN_SIZE, 1, 2, 3, 4), "the smallest region cannot be formatted");
    x.__stack_pointer.value = AREAS_AT + AREA_BYTES;
    demand(x.attach(AREAS_AT, this.base, MIN_SIZE, 0), "the smallest region cannot be joined");
    this.seat = x.seat_at(AREAS_AT);
  }

  /** Writes a block with the tag `t`, without a prefix. */
  tag() {
    this.tags.fill(0);
    this.tags[0] = 1;
    this.tags[this.contract.TAGS_HEADER] = 1;
    this.tags[this.contract.TAGS_HEADER + this.contract.TAG_LENGTH_BYTES] = T;
  }

  /** Stores the double `value` as a number, with the tag `t` or without tags. */
  set(word, value, { type, expiry = Number.POSITIVE_INFINITY, grace = 0, tagged = 0, expect = 0, version = 0 }) {
    if (tagged) this.tag();
    this.value[0] = value;
    return this.exports.set(this.area, word, type, 8, expiry, grace, tagged, expect, version);
  }

  /** From now on there are no bells to ring. */
  waitNoMore() {
    const at = this.seat / 4 + this.contract.SEAT_INTEREST;
    this.memory32.fill(0, at, at + 2);
    while (this.exports.next_bell(this.area) >= 0);
  }
}

function checkSizes({ PAGE, MIN_SIZE, MAX_SIZE, MIN_SEATS, MAX_SEATS }, { exports: x }) {
  for (const size of [MIN_SIZE, MAX_SIZE]) demand(x.max_value(size) > 0, `a region cannot have ${size} bytes`);
  for (const size of [MIN_SIZE - PAGE, MAX_SIZE + PAGE])
    demand(x.max_value(size) === 0, `a region can have ${size} bytes`);
  // As src/engine/plan.ts computes it.
  for (let size = MIN_SIZE; size <= MAX_SIZE; size += PAGE) {
    const seats = Math.min(Math.max(size / PAGE, MIN_SEATS), MAX_SEATS);
    demand(x.seats_of(size) === seats, `a region of ${size} bytes has ${x.seats_of(size)} seats, not ${seats}`);
  }
}

function checkHeader(contract, { bytes, base }) {
  const header = new BigUint64Array(bytes.slice(base, base + contract.INSPECTED_BYTES).buffer);
  demand(
    header[contract.HEADER_MAGIC] === contract.MAGIC,
    "the magic has another value, or lies elsewhere in the header",
  );
  demand(
    header[contract.HEADER_VERSION] === BigInt(contract.LAYOUT_VERSION),
    "the layout version has another value, or lies elsewhere in the header",
  );
  demand(
    header[contract.HEADER_SIZE] === BigInt(contract.MIN_SIZE),
    "the size has another value, or lies elsewhere in the header",
  );
}

/** A number with tags and an expiry is stored, raised and read. */
function checkNumbers(contract, me) {
  const { exports: x, area, out32, out64 } = me;
  const { DONE, NUMBER_TYPE, WANT_VALUE, WANT_TAGS, OUT_NUMBER } = contract;
  const word = (1 << contract.KEY_KIND_BITS) | contract.KEY_BYTES;
  me.key.fill(7);
  demand(me.set(word, 41, { type: NUMBER_TYPE, expiry: 1e9, tagged: 1 }) === DONE, "a number cannot be stored");
  demand(
    x.increment(area, word, 1, 0, 0, 42, 0, 0) === DONE && out64[OUT_NUMBER] === 42 && out64[contract.OUT_MORE] === 1e9,
    "a number cannot be incremented, or the sum or its expiry is put out elsewhere",
  );
  me.value.fill(0);
  me.tags.fill(0);
  demand(x.get(area, word, WANT_VALUE) === 8 && me.value[0] === 42 && me.tags[0] === 0, "the value is read wrongly");
  demand(out32[contract.OUT_TYPE] === NUMBER_TYPE, "the value type is put out elsewhere");
  demand(out64[OUT_NUMBER] === 1e9, "the expiry is put out elsewhere");
  me.value.fill(0);
  demand(x.get(area, word, WANT_TAGS) === 8 && me.value[0] === 0 && me.tags[0] === 24, "the tags are read wrongly");
  const { TAG_BLOCK_HEADER, TAG_BYTES, TAG_LENGTH_BYTES } = contract;
  const name = TAG_BLOCK_HEADER + TAG_BYTES;
  demand(me.tags[TAG_BLOCK_HEADER / 2] === 1, "the number of tags lies elsewhere");
  demand(me.tags[name] === 1 && me.tags[name + TAG_LENGTH_BYTES] === T, "the name of a tag lies elsewhere");
  demand(out32[contract.OUT_WORD] === 24, "the length of the tags is put out elsewhere");
  const counter = new Int32Array(me.tags.slice(TAG_BLOCK_HEADER, name).buffer)[2];
  const counters = x.tag_counters_at(area) / 4;
  me.tag();
  x.invalidate(area, 5);
  demand(me.memory32[counters + contract.TAG_COUNTER_WORDS * counter] === 1, "the counter of a tag lies elsewhere");
  demand(x.tag_times(area) === 5, "the time of a tag lies elsewhere");
  demand(
    out32[contract.OUT_INSIDE] === 0,
    "the word that tells whether a call is under way is not 0 between two calls",
  );
  demand(
    me.inside.length > 0 && me.inside.every((each) => each === 1),
    "the word that tells whether a call is under way is not 1 during a call",
  );
  demand(
    me.hazards.some((each) => each !== 0),
    "the hazard lies elsewhere",
  );
}

/** What a key is: its length and its kind in one word, its bytes in the key part. */
function checkKeys(contract, me) {
  const { exports: x, area, key } = me;
  const { KEY_KIND_BITS, NUMBER_TYPE, WANT_QUIET, OUT_WORD } = contract;
  x.clear(area);
  const kinds = [contract.KEY_STRING, contract.KEY_BYTES, contract.KEY_ILL_FORMED, contract.KEY_NAMESPACED];
  for (const kind of kinds) {
    const word = (3 << KEY_KIND_BITS) | kind;
    key.fill(9);
    me.set(word, kind, { type: NUMBER_TYPE });
    key.fill(8, 3);
    demand(
      x.get(area, word, WANT_QUIET) === 8,
      `a key of three bytes and of kind ${kind} does not depend on its three bytes only`,
    );
  }
  demand(x.census(area) === 4 && me.out32[OUT_WORD] === 1, "keys in a namespace are of another kind");
  key.fill(0);
  // The beginning of all keys of one kind, and then of none.
  const beginning = new Uint32Array(me.tags.buffer, me.tags.byteOffset, 3);
  beginning.set([contract.KEY_BYTES, 0, 0]);
  demand(x.next(area, 0, 1) >= 0 && key[2] === 9, "the next key is put elsewhere");
  demand(me.out32[OUT_WORD] >> KEY_KIND_BITS === 3, "the next key has another length");
  beginning.set([(4 << KEY_KIND_BITS) | contract.KEY_BYTES, 0, 0]);
  demand(x.next(area, 0, 1) === -1, "the beginning of a key is read elsewhere");
  const last = contract.GROUP - 1;
  const slot = area + contract.AREA_SLOTS + last * contract.SLOT_BYTES;
  me.bytes.fill(9, slot, slot + 3).fill(8, slot + 3, slot + contract.SLOT_KEY);
  me.memory32[(area + contract.AREA_GROUP) / 4 + last] = (3 << KEY_KIND_BITS) | contract.KEY_BYTES;
  x.prefetch_group(area, contract.GROUP);
  demand(x.get_in_group(area, last, WANT_QUIET) === 8, "a key of a group lies elsewhere");
  const longest = (contract.SLOT_KEY << KEY_KIND_BITS) | contract.KEY_BYTES;
  key.fill(8).fill(9, 0, 3);
  me.set(longest, 1, { type: NUMBER_TYPE });
  key.fill(7, contract.SLOT_KEY - 1, contract.SLOT_KEY);
  me.set(longest, 1, { type: NUMBER_TYPE + 1 });
  // Behind the short key the prefetch has written zeros.
  me.bytes.fill(8, slot + 3, slot + 8)[slot + contract.SLOT_KEY - 1] = 7;
  me.memory32[(area + contract.AREA_GROUP) / 4 + last] = longest;
  x.prefetch_group(area, contract.GROUP);
  x.get_in_group(area, last, WANT_QUIET);
  demand(me.out32[contract.OUT_TYPE] === NUMBER_TYPE + 1, "a slot of a group has another size");
  me.memory32[(area + contract.AREA_GROUP) / 4 + last] = longest + (8 << KEY_KIND_BITS);
  x.prefetch_group(area, contract.GROUP);
  x.get_in_group(area, last, WANT_QUIET);
  demand(me.out32[contract.OUT_TYPE] === NUMBER_TYPE + 1, "a slot of a group has room for a longer key");
}

/** What a change expects to find, and what comes of it. */
function checkResults(contract, me) {
  const { exports: x, area, key, out64 } = me;
  const { ANYTHING, ABSENT, PRESENT, VERSION, DONE, UNEXPECTED, TOO_LARGE, NOT_A_NUMBER } = contract;
  const word = (1 << contract.KEY_KIND_BITS) | contract.KEY_STRING;
  const set = (expect, version = 0) => me.set(word, 0, { type: contract.NUMBER_TYPE + 1, expect, version });
  key.fill(1);
  demand(set(PRESENT) === UNEXPECTED && set(ABSENT) === DONE && set(ABSENT) === UNEXPECTED, "ABSENT is another number");
  demand(set(PRESENT) === DONE && set(ANYTHING) === DONE, "PRESENT or ANYTHING is another number");
  x.get(area, word, 0);
  const version = out64[contract.OUT_VERSION];
  demand(
    set(VERSION, version + 2) === UNEXPECTED && set(VERSION, version) === DONE,
    "the version is put out elsewhere",
  );
  const untouched = (at, expiry) =>
    me.set(word, 0, { type: contract.NUMBER_TYPE + 1, expect: contract.UNTOUCHED, version: at, expiry });
  x.get(area, word, 0);
  const now = out64[contract.OUT_VERSION];
  const refused = [untouched(now + 2, Number.POSITIVE_INFINITY), untouched(now, 10)];
  demand(
    refused.every((code) => code === UNEXPECTED),
    "UNTOUCHED is another number",
  );
  demand(untouched(now, Number.POSITIVE_INFINITY) === DONE, "UNTOUCHED is another number");
  demand(me.set(word, 0, { type: contract.NUMBER_TYPE + 1, expiry: 10, grace: 5 }) === DONE, "no grace can be stored");
  me.time = 10;
  const { WANT_STALE, WANT_QUIET, STALE, OUT_TYPE } = contract;
  me.value[0] = 7;
  demand(x.get(area, word, WANT_QUIET) === -1, "a stale entry is found without WANT_STALE");
  demand(x.get(area, word, WANT_STALE) === 8 && me.value[0] === 7, "WANT_STALE is another flag");
  demand((me.out32[OUT_TYPE] & ~0xff) === STALE, "STALE is another flag");
  demand(out64[contract.OUT_MORE] === 5, "the grace is put out elsewhere");
  me.time = 0;
  const increment = (max) => x.increment(area, word, 1, 0, 0, max, 0, 0);
  demand(increment(9) === NOT_A_NUMBER, "NOT_A_NUMBER is another number");
  const limit = (algorithm = contract.LIMIT_FIXED) => x.limit(area, word, algorithm, 1, 1000, 1, 1, 0, 0);
  demand(limit() === contract.NOT_A_LIMIT, "NOT_A_LIMIT is another number");
  x.remove(area, word, ANYTHING, 0);
  demand(increment(0) === contract.OUT_OF_RANGE, "OUT_OF_RANGE is another number");
  demand(limit() === DONE && limit() === UNEXPECTED, "a limit of 1 does not let one request through");
  const [remaining, resetAt] = [out64[contract.OUT_NUMBER], out64[contract.OUT_VERSION]];
  const [retryAfter, resetAfter] = out64.subarray(contract.OUT_MORE);
  demand(
    remaining === 0 && resetAt >= 1000 && retryAfter > 0 && retryAfter === resetAfter,
    "the answer of a limit is put out elsewhere",
  );
  x.get(area, word, contract.WANT_VALUE);
  demand(me.out32[contract.OUT_TYPE] === contract.LIMIT_TYPE, "LIMIT_TYPE is another number");
  me.time += 5000;
  const algorithms = [
    [contract.LIMIT_GCRA, 1000, 1000],
    [contract.LIMIT_SLIDING, 2000, 0],
    [contract.LIMIT_FIXED, 1000, 0],
  ];
  for (const [algorithm, wait, start] of algorithms) {
    limit(algorithm);
    demand(limit(algorithm) === UNEXPECTED && out64[contract.OUT_MORE] === wait, "an algorithm has another number");
    const length = x.get(area, word, contract.WANT_VALUE);
    const head = new Uint32Array(me.value.buffer, me.value.byteOffset, 1)[0];
    demand(length === contract.LIMIT_BYTES && (head & 0xff) === algorithm, "a limit has other bytes");
    const state = (head & contract.LIMIT_SECOND) === 0 ? 1 : 4;
    demand(me.value[state] === me.time + start, "the state of a limit that counts is another one");
  }
  const { VALUE_BYTES } = contract;
  const large = x.set(area, word, 2, VALUE_BYTES, Number.POSITIVE_INFINITY, 0, 0, ANYTHING, 0);
  demand(large === TOO_LARGE, "TOO_LARGE is another number");
}

/** The stamp of an entry, and the proof that it is true. */
function checkProof(contract, me) {
  const { exports: x, area, out32, memory32 } = me;
  const { OUT_STAMP, STAMP_WORDS, OUT_CLEAR_EPOCH, OUT_CHANGES_AT, OUT_CHANGES, CLEAR_EPOCH_AT } = contract;
  const word = (1 << contract.KEY_KIND_BITS) | contract.KEY_STRING;
  const counter = (number) => x.counter(area, number);
  x.clear(area);
  me.key.fill(2);
  me.set(word, 1, { type: contract.NUMBER_TYPE + 1 });
  me.value.fill(0);
  const hits = counter(contract.COUNTER_HITS);
  // The entry is at its highest heat after three reads.
  for (let reads = 0; reads < 3; reads++) x.get(area, word, 0);
  x.get(area, word, contract.WANT_QUIET);
  const stamp = out32.slice(OUT_STAMP, OUT_STAMP + STAMP_WORDS);
  demand(x.find(area, word) === 1, "the key is not found");
  x.get(area, word, contract.WANT_AFTER_FIND);
  x.find(area, word);
  demand(counter(contract.COUNTER_HITS) === hits + 5, "hits are counted elsewhere");
  demand(me.value[0] === 0, "a read brings a value that was not asked for");
  // The entry, low and high, and the generation of a segment in its first life.
  demand(stamp.length === 3 && stamp[0] !== 0 && stamp[1] !== 0 && stamp[2] === 1, "the stamp lies elsewhere");
  demand(
    stamp.every((each, i) => each === out32[OUT_STAMP + i]),
    "`get` and `find` put out different stamps",
  );
  const changes = () => memory32[out32[OUT_CHANGES_AT]];
  demand(changes() === out32[OUT_CHANGES], "the changes of the bucket are counted elsewhere");
  me.set(word, 2, { type: contract.NUMBER_TYPE + 1 });
  demand(changes() === out32[OUT_CHANGES] + 1, "a change of the bucket is not counted");
  const epoch = out32[OUT_CLEAR_EPOCH];
  demand(memory32[(me.base + CLEAR_EPOCH_AT) / 4] === epoch && epoch === 2, "the clear epoch lies elsewhere");
  x.clear(area);
  demand(memory32[(me.base + CLEAR_EPOCH_AT) / 4] === epoch + 1, "`clear` does not raise the clear epoch");
  const misses = counter(contract.COUNTER_MISSES);
  x.find(area, word);
  demand(x.get(area, word, contract.WANT_AFTER_FIND) === -1, "a cleared entry is found");
  demand(counter(contract.COUNTER_MISSES) === misses + 1, "a miss after `find` is counted twice");
}

/** The words of a seat that JavaScript writes, and the counters. */
function checkSeat(contract, me) {
  const { exports: x, area, memory32 } = me;
  const { seat } = me;
  const word = (number) => memory32[seat / 4 + number];
  const { SEAT_INCARNATION, SEAT_HAZARD, SEAT_PENDING, SEAT_NEAR_HITS } = contract;
  const incarnation = word(SEAT_INCARNATION);
  memory32.fill(5, seat / 4 + SEAT_HAZARD, seat / 4 + SEAT_PENDING + 2);
  x.recover(area);
  demand(word(SEAT_INCARNATION) === incarnation + 1, "the incarnation lies elsewhere");
  const held = [SEAT_HAZARD, SEAT_PENDING, SEAT_PENDING + 1].map(word);
  demand(
    held.every((each) => each === 0),
    "the hazard or the version of a large value lies elsewhere",
  );
  const hits = x.counter(area, contract.COUNTER_HITS);
  new Float64Array(memory32.buffer, seat + SEAT_NEAR_HITS, 1)[0] = 1000;
  demand(x.counter(area, contract.COUNTER_HITS) === hits + 1000, "hits of the near cache are counted elsewhere");

  const before = [contract.COUNTER_SETS, contract.COUNTER_DELETES].map((number) => x.counter(area, number));
  const key = (1 << contract.KEY_KIND_BITS) | contract.KEY_STRING;
  me.set(key, 1, { type: 1 });
  demand(x.counter(area, contract.COUNTER_SETS) === before[0] + 1, "stores are counted elsewhere");
  const counters = new BigUint64Array(memory32.buffer, seat, contract.SEAT_BYTES / 8);
  demand(
    counters[contract.SEAT_COUNTERS + contract.COUNTER_SETS] === BigInt(before[0] + 1),
    "the counters of a seat lie elsewhere",
  );
  demand(x.remove(area, key, contract.ANYTHING, 0) === 1, "an entry cannot be removed");
  demand(x.counter(area, contract.COUNTER_DELETES) === before[1] + 1, "removals are counted elsewhere");
}

function checkSegments(contract, me) {
  const { exports: x, area } = me;
  const { SEGMENT_WORDS, SEGMENT_STATE, SEGMENT_USED, SEGMENT_LIVE, SEGMENT_GENERATION, PHASE_FREE, PHASE_OPEN } =
    contract;
  me.set((1 << contract.KEY_KIND_BITS) | contract.KEY_STRING, 1, { type: 1 });
  const words = new Uint32Array(me.bytes.buffer, area + contract.AREA_VALUE, x.segments(area) * SEGMENT_WORDS);
  const column = (number) => words.filter((_, i) => i % SEGMENT_WORDS === number);
  const open = PHASE_OPEN | (contract.CLASS_SMALL << contract.CLASS_SHIFT);
  const states = column(SEGMENT_STATE);
  const of = (number) => column(number)[states.indexOf(open)];
  demand(states.filter((state) => state === PHASE_FREE).length === states.length - 1, "segments are in other phases");
  demand(of(SEGMENT_USED) > of(SEGMENT_LIVE) && of(SEGMENT_LIVE) >= 32, "the bytes of a segment lie elsewhere");
  demand(
    column(SEGMENT_GENERATION).filter((generation) => generation === 1).length === states.length,
    "the generation of a segment lies elsewhere",
  );
}

/** Claims of loads: what they answer, and what is stored under them. */
function checkLoads(contract, me) {
  const { exports: x, area, key, out32, out64, memory32 } = me;
  const { CLAIMED, TAKEN, PRESENT, CLAIMS_FULL, CLAIM_FRESH, CLAIM_WAIT, DONE, OVERTAKEN, INVALIDATED } = contract;
  const word = (4 << contract.KEY_KIND_BITS) | contract.KEY_BYTES;
  const ask = (flags = 0, now = 0) => x.claim(area, word, flags, 100, now);
  const claim = () => ({ number: out32[contract.OUT_WORD], token: out64[contract.OUT_VERSION] });
  const store = ({ number, token }) => {
    const expect = contract.CLAIM | (number << contract.CLAIM_SHIFT);
    return me.set(word, 1, { type: 1, expect, version: token });
  };
  x.clear(area);
  key.fill(0);
  me.tags.fill(0);
  me.tags[0] = 1;
  // Five invalidations of one tag, so that their number differs from all others.
  for (let i = 0; i < 5; i++) x.invalidate(area, 0);
  demand(ask() === CLAIMED, "CLAIMED is another number");
  const first = claim();
  demand(out32[contract.OUT_OWNER_SEAT] === 0, "the seat of the owner is put out elsewhere");
  const tenure = memory32[me.seat / 4 + contract.SEAT_INCARNATION + 1];
  demand(tenure !== 0 && out32[contract.OUT_OWNER_TENURE] === tenure, "the tenure of the owner is put out elsewhere");
  const sequence = memory32[(me.base + contract.INVALIDATIONS_AT) / 4];
  demand(sequence === 6 && out32[contract.OUT_START_SEQUENCE] === 6, "the invalidations are counted elsewhere");
  const epoch = memory32[(me.base + contract.CLEAR_EPOCH_AT) / 4];
  demand(out32[contract.OUT_START_CLEAR_EPOCH] === epoch, "the clear epoch of a claim is put out elsewhere");
  demand(
    ask() === TAKEN && claim().token === first.token,
    "TAKEN is another number, or the token is put out elsewhere",
  );
  demand(x.is_waited_for(area, first.number, first.token) === 0, "CLAIM_WAIT is another number");
  ask(CLAIM_WAIT);
  demand(x.is_waited_for(area, first.number, first.token) === 1, "CLAIM_WAIT is another number");
  demand(x.wait(area, word) === out32[contract.OUT_CLASS], "the class is put out elsewhere");
  me.waitNoMore();
  demand(store({ ...first, token: first.token + 1 }) === OVERTAKEN, "OVERTAKEN is another number");
  const { GONE, STANDS, WAS_OVERTAKEN } = contract;
  const stands = () => x.stands(area, first.number, first.token);
  const { CLAIM_SEEN_LOADING, CLAIM_SEEN_OVERTAKEN } = contract;
  const isSeenAs = (kind) => x.next_claim(area, 0) === first.number && out32[contract.OUT_CLASS] === kind;
  demand(isSeenAs(CLAIM_SEEN_LOADING) && out64[contract.OUT_NUMBER] === 100, "CLAIM_SEEN_LOADING is another number");
  demand(stands() === STANDS, "STANDS is another number");
  x.clear(area);
  demand(store(first) === INVALIDATED, "INVALIDATED is another number");
  me.set(word, 1, { type: 1 });
  demand(stands() === WAS_OVERTAKEN, "WAS_OVERTAKEN is another number");
  demand(isSeenAs(CLAIM_SEEN_LOADING | CLAIM_SEEN_OVERTAKEN), "CLAIM_SEEN_OVERTAKEN is another flag");
  x.release(area, first.number, first.token);
  demand(stands() === GONE, "GONE is another number");
  demand(ask() === PRESENT, "PRESENT is another number");
  demand(ask(CLAIM_FRESH) === CLAIMED, "CLAIM_FRESH is another number");
  demand(store(claim()) === DONE, "CLAIM is another number");
  const claims = [];
  let answer = CLAIMED;
  for (let i = 0; answer === CLAIMED; i++) {
    new Int32Array(key.buffer, key.byteOffset, 1)[0] = i;
    answer = ask(CLAIM_FRESH);
    if (answer === CLAIMED) claims.push(claim());
  }
  demand(answer === CLAIMS_FULL, "CLAIMS_FULL is another number");
  for (const { number, token } of claims) x.release(area, number, token);
}

/** Locks and requests for locks, and how they are listed. */
function checkLocks(contract, me) {
  const { exports: x, area, key, out32, out64, memory32 } = me;
  const { CLAIMED, TAKEN, CLAIM_STEAL, CLAIM_PENDING, OUT_WORD, OUT_VERSION, SEAT_THREAD, MAX_CLAIM_NAME } = contract;
  const word = (4 << contract.KEY_KIND_BITS) | contract.KEY_STRING;
  const name = me.bytes.subarray(area + contract.AREA_VALUE, area + contract.AREA_VALUE + 200);
  const ask = (flags) => x.claim_lock(area, word, flags, 100) & ~contract.RING;
  key.fill(1);
  name.fill(7);
  memory32[me.seat / 4 + SEAT_THREAD] = 1234;
  memory32[me.seat / 4 + SEAT_THREAD + 1] = 56;
  demand(ask(0) === CLAIMED && ask(0) === TAKEN, "a lock is held by two");
  const first = [out32[OUT_WORD], out64[OUT_VERSION]];
  const { RELEASED_GONE, RELEASED, RELEASED_PASSED, RELEASED_STOLEN } = contract;
  const release = (number, each) => x.release_lock(area, number, each) & ~contract.RING;
  demand(release(first[0], first[1] + 1) === RELEASED_GONE, "RELEASED_GONE is another number");
  demand(ask(CLAIM_STEAL) === CLAIMED, "CLAIM_STEAL is another number");
  demand(release(...first) === RELEASED_STOLEN, "RELEASED_STOLEN is another number");
  const second = [out32[OUT_WORD], out64[OUT_VERSION]];
  demand(release(...second) === RELEASED, "RELEASED is another number");
  // The participant waits for itself, without a request.
  ask(0);
  const third = [out32[OUT_WORD], out64[OUT_VERSION]];
  ask(contract.CLAIM_WAIT);
  demand(release(...third) === RELEASED_PASSED, "RELEASED_PASSED is another number");
  me.waitNoMore();
  ask(0);
  const token = out64[OUT_VERSION];
  demand(ask(CLAIM_PENDING) === CLAIMED, "CLAIM_PENDING is another number");
  const seen = [];
  for (let number = 0; ; number++) {
    name.fill(0);
    number = x.next_lock(area, number);
    if (number < 0) break;
    demand(out32[OUT_WORD] === 100, "the length of the name of a lock is put out elsewhere");
    demand(name[MAX_CLAIM_NAME - 1] === 7 && name[MAX_CLAIM_NAME] === 0, "another part of the name of a lock is kept");
    const thread = [out32[contract.OUT_START_SEQUENCE], out32[contract.OUT_START_CLEAR_EPOCH]];
    demand(thread[0] === 1234 && thread[1] === 56, "the thread of a lock lies elsewhere");
    seen.push([number, out64[OUT_VERSION], out32[contract.OUT_CLASS]]);
  }
  const kinds = seen.map(([number]) => (x.next_claim(area, number) === number ? out32[contract.OUT_CLASS] : -1));
  const { CLAIM_SEEN_LOCKED, CLAIM_SEEN_PENDING } = contract;
  demand(
    seen.every(([, , state], i) => kinds[i] === (state === 0 ? CLAIM_SEEN_LOCKED : CLAIM_SEEN_PENDING)),
    "CLAIM_SEEN_LOCKED or CLAIM_SEEN_PENDING is another number",
  );
  const states = seen.filter(([, each]) => each >= token).map(([, , state]) => state);
  demand(
    states.length === seen.length && states.includes(0) && states.includes(CLAIM_PENDING),
    "locks are listed wrongly",
  );
  for (const [number, each] of seen) x.release(area, number, each);
}

/** Who waits is rung. */
function checkBells(contract, me) {
  const { exports: x, area, key, memory32 } = me;
  const { DONE, RING, SEATS_AT, SEAT_INTEREST, SEAT_RINGING } = contract;
  const word = (4 << contract.KEY_KIND_BITS) | contract.KEY_STRING;
  demand(me.base + SEATS_AT === me.seat, "the seats begin elsewhere");
  const words = (number) => memory32.subarray(me.seat / 4 + number, me.seat / 4 + number + 2);
  me.waitNoMore();
  words(SEAT_RINGING).fill(0);
  key.fill(5);
  const bit = x.wait(area, word);
  const interest = words(SEAT_INTEREST);
  demand(
    interest[bit >> 5] === 1 << (bit & 31) && interest[1 - (bit >> 5)] === 0,
    "the interest of a seat lies elsewhere",
  );
  demand(me.set(word, 1, { type: 1 }) === (DONE | RING), "RING is another number");
  demand(words(SEAT_RINGING)[0] === 1 && words(SEAT_RINGING)[1] === 0, "whether a seat is rung lies elsewhere");
  demand(x.next_bell(area) === 0 && x.next_bell(area) === -1, "the bells to ring are listed wrongly");
  demand(me.set(word, 1, { type: 1 }) === DONE, "who is rung already is rung again");
}
