/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  // ---- foreign bytes
  {
    name: "tag-counter-out-of-the-table",
    breaks: "I4",
    what: "the number of a tag's counter is used unchecked",
    file: "wasm/src/format/layout.rs",
    find: "(counter & (self.tag_counters - 1)) * TAG_COUNTER_BYTES",
    replace: "counter * TAG_COUNTER_BYTES",
    first: ["models::i4_"],
  },
  {
    name: "record-longer-than-its-segment",
    breaks: "I4",
    what: "the length of a record is used unchecked",
    file: "wasm/src/format/record.rs",
    find: "if length < HEADER || length > end - at {",
    replace: "if length < HEADER {",
    first: ["hostile"],
  },
  {
    name: "record-shorter-than-its-header",
    breaks: "I4",
    what: "a record may be shorter than its header",
    file: "wasm/src/format/record.rs",
    find: "if length < HEADER || length > end - at {",
    replace: "if length > end - at {",
    first: ["models::i4_"],
  },
  {
    name: "key-longer-than-its-record",
    breaks: "I4",
    what: "the length of a key is used unchecked",
    file: "wasm/src/format/record.rs",
    find: "if key_length > MAX_KEY || next + words(key_length) > used {",
    replace: "if key_length > MAX_KEY {",
    first: ["hostile"],
  },
  {
    name: "tags-longer-than-their-record",
    breaks: "I4",
    what: "the length of a tag block is used unchecked",
    file: "wasm/src/format/record.rs",
    find: "                || bytes > used - next\n",
    replace: "",
    first: ["hostile::a_tag_block"],
  },
  {
    name: "place-behind-the-last-segment",
    breaks: "I4",
    what: "an entry may point behind the region",
    file: "wasm/src/format/layout.rs",
    find: "if segment < self.segments { Some(segment) } else { None }",
    replace: "Some(segment)",
    first: ["hostile"],
  },
  {
    name: "place-before-the-first-segment",
    breaks: "I4",
    what: "an entry may point into the index",
    file: "wasm/src/format/layout.rs",
    find: "if at < self.segments_at {",
    replace: "if false {",
    first: ["hostile"],
  },
  {
    name: "lane-names-no-segment",
    breaks: "I4",
    what: "the number of a lane's segment is used unchecked",
    file: "wasm/src/format/segment.rs",
    find: ".filter(|&segment| segment < segments)",
    replace: ".filter(|_| segments > 0)",
    first: ["hostile"],
  },

  // ---- keys cannot be aimed without knowing the seed
  {
    name: "hash-that-can-be-aimed",
    breaks: "policy",
    what: "keys are hashed by XXH64's round without the outer accumulator: a difference of one word is undone in the next",
    file: "wasm/src/format/hash.rs",
    find: "siphash(blocks, last | ((domain << 3 | length % 8) as u64) << 56, seed)",
    replace: `let mut h = seed[0] ^ seed[1] ^ (length << 3 | domain) as u64;
    for word in blocks.iter().chain([&last]) {
        let k = word.wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(31).wrapping_mul(0x9E37_79B1_85EB_CA87);
        h = (h ^ k).rotate_left(27).wrapping_mul(0x9E37_79B1_85EB_CA87).wrapping_add(0x85EB_CA77_C2B2_AE63);
    }
    h = (h ^ h >> 33).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    h = (h ^ h >> 29).wrapping_mul(0x1656_67B1_9E37_79F9);
    h ^ h >> 32`,
    first: ["hashing::differences", "hashing::families", "hashing::a_counter", "hashing::tags"],
  },
  {
    name: "hash-without-its-last-rounds",
    breaks: "policy",
    what: "the hash has no last rounds, so the last word of a key enters it unmixed",
    file: "wasm/src/format/hash.rs",
    find: "for _ in 0..3 {",
    replace: "for _ in 0..0 {",
    first: ["hashing::every_bit"],
  },
  {
    name: "hash-of-padded-keys",
    breaks: "policy",
    what: "a key and the same key with zeros behind it have the same hash",
    file: "wasm/src/format/hash.rs",
    find: "last | ((domain << 3 | length % 8) as u64) << 56",
    replace: "last | ((domain << 3) as u64) << 56",
    first: ["hashing::no_two_keys"],
  },
];
