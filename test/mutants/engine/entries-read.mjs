/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  // ---- counters
  {
    name: "number-and-version-read-apart",
    breaks: "I1",
    what: "a reader returns the number of one version with another version",
    file: "wasm/src/entries/read.rs",
    find: "&& (record.version(&self.region) != version",
    replace: "&& (false",
    first: ["models::i1_a_version"],
  },

  // ---- expiry, tags, clear
  {
    name: "expired-a-moment-late",
    breaks: "P2",
    what: "an entry is still read in the millisecond it expires",
    file: "wasm/src/entries/read.rs",
    find: "&& expiry <= self.host.now()",
    replace: "&& expiry < self.host.now()",
    first: ["model::few"],
  },
  {
    name: "iteration-shows-the-dead",
    breaks: "P2",
    what: "iterating returns entries that were cleared or have expired",
    file: "wasm/src/entries/read.rs",
    find: "return live.then_some((way, record.key_length, record.key_kind()));",
    replace: "return Some((way, record.key_length, record.key_kind()));",
    first: ["model"],
  },
  {
    name: "clear-keeps-the-epoch",
    breaks: "I2",
    what: "clear leaves the clear epoch as it is",
    file: "wasm/src/entries/tags.rs",
    find: "CLEAR_EPOCH_AT).fetch_add(1, SeqCst)",
    replace: "CLEAR_EPOCH_AT).fetch_add(0, SeqCst)",
    first: ["model::few"],
  },
  {
    name: "stamp-without-epoch",
    breaks: "I2",
    what: "near caches do not notice a clear",
    file: "wasm/src/entries/read.rs",
    find: "let stamp = Stamp { clear_epoch, ..self",
    replace: "let stamp = Stamp { clear_epoch: clear_epoch & 0, ..self",
    also: [
      ["stamp: Stamp { clear_epoch, ..self", "stamp: Stamp { clear_epoch: clear_epoch & 0, ..self"],
      ["as u32 == sight.stamp.clear_epoch", "as u32 & 0 == sight.stamp.clear_epoch"],
    ],
    first: ["promises::near_caches", "model::few"],
  },
  {
    name: "invalidation-counts-nothing",
    breaks: "I2",
    what: "invalidating a tag leaves its counter as it is",
    file: "wasm/src/entries/tags.rs",
    find: "self.region.word(at).fetch_max(sequence, SeqCst);",
    replace: "self.region.word(at).fetch_max(0, SeqCst);",
    first: ["model::few"],
  },
  {
    name: "stamped-after-the-read",
    breaks: "I2",
    what: "a value that was read before a clear gets a stamp from after it",
    file: "wasm/src/entries/read.rs",
    find: "stamp: Stamp { clear_epoch, ..self",
    replace: "stamp: Stamp { clear_epoch: self.clear_epoch().max(clear_epoch), ..self",
    first: ["promises::near_caches"],
  },
  {
    name: "stamp-without-generation",
    breaks: "M2",
    what: "a near cache takes an entry from another life of the segment for the one it knows",
    file: "wasm/src/entries/read.rs",
    find: "Stamp { way: self.way(entry_at), entry: kept, generation, clear_epoch: 0 }",
    replace: "Stamp { way: self.way(entry_at), entry: kept, generation: generation & 0, clear_epoch: 0 }",
    first: ["promises::no_stamp", "threads::nothing_torn"],
  },
  {
    name: "counters-have-stamps",
    breaks: "I2",
    what: "a near cache keeps a number that changes in place",
    file: "wasm/src/entries/read.rs",
    find: "if entry.state() == EntryState::Plain { entry.with_heat(MAX_HEAT).0 } else { 0 }",
    replace: "entry.with_heat(0).0",
    first: ["model::few", "interleave"],
  },
  {
    name: "proved-while-locked",
    breaks: "I2",
    what: "a change counter proves an entry while its bucket is locked for a change",
    file: "wasm/src/entries/read.rs",
    find: "&& self.is_unlocked(bucket)",
    replace: "&& (self.is_unlocked(bucket) || true)",
    first: ["models::i2_a_proof"],
  },
  {
    name: "proved-while-reclaimed",
    breaks: "I2",
    what: "a change counter proves an entry while its segment is reclaimed",
    file: "wasm/src/entries/read.rs",
    find: "&& state.phase() != Phase::Reclaim",
    replace: "&& (state.phase() != Phase::Reclaim || true)",
    first: ["promises::what_was_evicted"],
  },
  {
    name: "proved-by-one-look",
    breaks: "I2",
    what: "an entry is proved without loading it again",
    file: "wasm/src/entries/read.rs",
    find: "&& load_entry(&self.region, entry_at).is_same(entry);",
    replace: ";",
    first: ["models::i2_a_proof"],
  },
  {
    name: "count-read-too-late",
    breaks: "I2",
    what: "an entry is proved by a change counter that was read after the entry",
    file: "wasm/src/entries/read.rs",
    find: "Some(Sight { stamp, changes: if proved",
    replace: `let changes = self.region.word(geometry.changes(bucket)).load(Acquire);
                Some(Sight { stamp, changes: if proved`,
    first: ["models::i2_a_proof"],
  },
  {
    name: "proved-while-cool",
    breaks: "policy",
    what: "an entry is proved for a near cache before it has the most heat",
    file: "wasm/src/entries/read.rs",
    find: "let proved = entry.heat() == MAX_HEAT",
    replace: "let proved = entry.heat() <= MAX_HEAT",
    first: ["promises::what_is_near"],
  },

  // ---- reads
  {
    name: "reads-lock",
    breaks: "L1",
    what: "a read takes the lock of its bucket",
    file: "wasm/src/entries/read.rs",
    find: "let found = unsafe { self.lookup(key, want, value, tags) };",
    replace: `let Ok(held) = self.lock(key.hash) else { return None };
        let found = unsafe { self.lookup(key, want, value, tags) };
        self.unlock(held);`,
    first: ["frozen::reads_go_on"],
  },
  {
    name: "reads-look-without-end",
    breaks: "L1",
    what: "a read has no bound on its attempts",
    file: "wasm/src/entries/read.rs",
    find: `for _ in 0..ATTEMPTS {
            // Before the record`,
    replace: `loop {
            // Before the record`,
    also: [
      [
        "            return Some(found);\n        }\n        None\n    }",
        "            return Some(found);\n        }\n    }",
      ],
    ],
    first: ["hostile::hostile_bytes"],
  },

  // ---- foreign bytes
  {
    name: "value-longer-than-the-scratch-area",
    breaks: "I4",
    what: "a foreign value is copied beyond the end of the reader's buffer",
    file: "wasm/src/entries/read.rs",
    find: "length.min(self.region.geometry.max_record)",
    replace: "length",
    first: ["hostile::a_record_longer"],
  },
];
