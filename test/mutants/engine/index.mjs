/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  // ---- exclusive bytes: hazards, segments, generations
  {
    name: "life-not-looked-at-again",
    breaks: "M2",
    what: "after a copy only the entry is checked, whose generation wraps around",
    file: "wasm/src/index/probe.rs",
    find: ".is_same(hit.entry) && is_same_life(region, hit)",
    replace: ".is_same(hit.entry) && (is_same_life(region, hit) || true)",
    first: ["models::m2_the_same"],
  },
  {
    name: "entry-not-looked-at-again",
    breaks: "I1",
    what: "after a copy only the segment's generation is checked",
    file: "wasm/src/index/probe.rs",
    find: "Entry(region.word(hit.entry_at).load(SeqCst)).is_same(hit.entry) && is_same_life(region, hit)",
    replace: "is_same_life(region, hit)",
    first: ["models::m2_the_same"],
  },
  {
    name: "record-of-another-life",
    breaks: "M2",
    what: "a record is accepted from another life of its segment",
    file: "wasm/src/index/probe.rs",
    find: "if record.generation != state.generation() {",
    replace: "if false {",
    first: ["hostile::a_record_of_another_life"],
  },
  {
    name: "heat-in-the-way-of-a-move",
    breaks: "I1",
    what: "a read that raises the heat keeps an entry from being moved, and its segment is freed nevertheless",
    file: "wasm/src/index/probe.rs",
    find: "for _ in 0..2 * MAX_HEAT + 2 {",
    replace: "for _ in 0..1 {",
    first: ["frozen::the_frozen_hold_up", "models::i2_", "models::i1_"],
  },

  // ---- changes of one word at a time
  {
    name: "entries-stored-blindly",
    breaks: "I2",
    what: "an entry is replaced even if another one stands there meanwhile",
    file: "wasm/src/index/probe.rs",
    find: `region.word(entry_at).compare_exchange(from.0, to.0, SeqCst, Relaxed).is_ok()
}`,
    replace: `region.word(entry_at).store(to.0, SeqCst);
    from != Entry(u64::MAX)
}`,
    first: ["models::i2_", "models::i3_"],
  },
  {
    name: "key-not-compared",
    breaks: "I1",
    what: "keys with the same bucket and fingerprint are not compared",
    file: "wasm/src/index/key.rs",
    find: "&& record.key_equals(region, self.words)",
    replace: "",
    first: ["promises::keys_that", "promises::a_million"],
  },
  {
    name: "key-length-not-compared",
    breaks: "I1",
    what: "a key and the same key with zeros behind it are the same key",
    file: "wasm/src/index/key.rs",
    find: "record.key_length == self.length && record",
    replace: "record",
    first: ["promises::keys_that"],
  },
  {
    name: "key-kind-not-compared",
    breaks: "I1",
    what: "a text and the same bytes are the same key",
    file: "wasm/src/index/key.rs",
    find: "record.key_length == self.length && record.key_kind() == self.kind",
    replace: "record.key_length == self.length",
    first: ["promises::keys_that"],
  },
  {
    name: "beginning-in-whole-words",
    breaks: "I1",
    what: "a walk compares the beginning of a key only as far as whole words go",
    file: "wasm/src/index/key.rs",
    find: "&& (rest == 0",
    replace: "&& (true || rest == 0",
    first: ["promises::a_walk_finds"],
  },
  {
    name: "beginning-longer-than-the-key",
    breaks: "I1",
    what: "a walk takes what lies behind a key for a part of it",
    file: "wasm/src/index/key.rs",
    find: "record.key_length >= self.length",
    replace: "true",
    first: ["promises::a_walk_finds"],
  },

  // ---- expiry, tags, clear
  {
    name: "changes-not-counted",
    breaks: "I2",
    what: "changes are not counted",
    file: "wasm/src/index/probe.rs",
    find: "fetch_add(1, AcqRel)",
    replace: "fetch_add(0, AcqRel)",
    first: ["model::few"],
  },
  {
    name: "changes-counted-too-late",
    breaks: "I2",
    what: "a change is counted after it is made",
    file: "wasm/src/index/probe.rs",
    find: "    region.word(region.geometry.changes(bucket)).fetch_add(1, AcqRel);\n",
    replace: "",
    also: [
      [
        "            return Some(seen);\n        }\n        seen =",
        "            region.word(region.geometry.changes(bucket)).fetch_add(1, AcqRel);\n            return Some(seen);\n        }\n        seen =",
      ],
    ],
    first: ["models::i2_a_proof"],
  },

  // ---- reads
  {
    name: "hot-keys-are-written",
    breaks: "P1",
    what: "every read writes to its entry",
    file: "wasm/src/index/probe.rs",
    find: `if entry.heat() < MAX_HEAT {
        let warmer = entry.with_heat(entry.heat() + 1);`,
    replace: `if entry.is_live() {
        let warmer = entry.with_heat((entry.heat() + 1).min(MAX_HEAT));`,
    first: ["promises::a_hot_key"],
  },
];
