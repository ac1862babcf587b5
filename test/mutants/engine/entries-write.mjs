/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  // ---- exclusive bytes: hazards, segments, generations
  {
    name: "withdrawn-before-published",
    breaks: "M1",
    what: "a writer withdraws its announcement before it publishes the record",
    file: "wasm/src/entries/store.rs",
    find: `let stored = self.publish(key, &space, state, expect);
        self.withdraw();`,
    replace: `self.withdraw();
        let stored = self.publish(key, &space, state, expect);`,
    first: ["models::m1_"],
  },

  // ---- locks and deaths
  {
    name: "stored-without-a-lock",
    breaks: "I3",
    what: "two writers of one key do not exclude each other",
    file: "wasm/src/entries/store.rs",
    find: `let mut held = self.lock(key.hash)?;
        let published =`,
    replace: `let mut held = self.lock(key.hash ^ self.seat as u64)?;
        let published =`,
    first: ["models::i3_", "threads"],
  },
  {
    name: "unlocked-before-stored",
    breaks: "I3",
    what: "the bucket is unlocked before the entry is put there",
    file: "wasm/src/entries/store.rs",
    find: "let published = self.publish_locked(&mut held, key, space, state, expect);",
    replace: `self.unlock(held);
        let mut held = self.lock(key.hash ^ self.seat as u64)?;
        let published = self.publish_locked(&mut held, key, space, state, expect);`,
    first: ["models::i3_", "threads"],
  },

  {
    name: "kept-expiry-not-compared",
    breaks: "I2",
    what: "a store that keeps the expiry undoes a touch that came between",
    file: "wasm/src/entries/store.rs",
    find: "new.expiry(&self.region) != record.expiry(&self.region)",
    replace: "new.expiry(&self.region) == f64::NAN || record.length == 0",
    first: ["promises::a_store_that_keeps_the_expiry"],
  },

  // ---- changes of one word at a time
  {
    name: "published-before-written",
    breaks: "I1",
    what: "an entry points to its record before the record is written",
    file: "wasm/src/entries/store.rs",
    find: `self.write(&space, key, draft);
        let state = if draft.flags & CHUNKED != 0 { EntryState::Mutable } else { EntryState::Plain };
        let stored = self.publish(key, &space, state, expect);`,
    replace: `let state = if draft.flags & CHUNKED != 0 { EntryState::Mutable } else { EntryState::Plain };
        let stored = self.publish(key, &space, state, expect);
        self.write(&space, key, draft);`,
    first: ["models::i1_"],
  },
  {
    name: "second-entry-for-a-key",
    breaks: "I3",
    what: "a set leaves the old entry of its key in place",
    file: "wasm/src/entries/store.rs",
    find: "existing.map_or_else(|| self.choose_way(key), |hit| (hit.entry_at, hit.entry));",
    replace: "self.choose_way(key);",
    first: ["model::few"],
  },
  {
    name: "delete-leaves-what-counts",
    breaks: "I2",
    what: "a delete does not remove counters and large values",
    file: "wasm/src/entries/store.rs",
    find: "if self.drop_entry(&hit, false) {\n                self.ring",
    replace: "if hit.entry.is_mutable() || self.drop_entry(&hit, false) {\n                self.ring",
    first: ["model::few"],
  },
  {
    name: "delete-of-any-version",
    breaks: "I2",
    what: "a delete of one version deletes another",
    file: "wasm/src/entries/store.rs",
    find: "if live && !meets(expect, Some(hit.record.version(&self.region))) {",
    replace: "if false {",
    first: ["model::few"],
  },
  {
    name: "expected-only-without-the-lock",
    breaks: "I2",
    what: "compare-and-set compares only before it has the lock",
    file: "wasm/src/entries/store.rs",
    find: "if !meets(expect, live.map(|hit| hit.record.version(&self.region))) {",
    replace: "if false {",
    first: ["threads::at_most", "interleave"],
  },
  {
    name: "set-too-large-deletes",
    breaks: "P3",
    what: "a set that is refused for its size removes the old value",
    file: "wasm/src/entries/store.rs",
    find: "self.check_size(draft.bytes(key))?;\n        match expect",
    replace:
      "if self.check_size(draft.bytes(key)).is_err() {\n            let _ = self.remove(key, Expect::Anything);\n            return Err(Refused::TooLarge);\n        }\n        match expect",
    first: ["promises::what_is_refused"],
  },
  {
    name: "refused-set-deletes",
    breaks: "P3",
    what: "a set that is refused by its expectation removes the old value",
    file: "wasm/src/entries/store.rs",
    find: "self.settle_version(live);\n                return Err(Refused::Unexpected);",
    replace:
      "self.settle_version(live);\n                if let Some(hit) = live {\n                    self.drop_entry(hit, false);\n                }\n                return Err(Refused::Unexpected);",
    first: ["threads::at_most", "interleave"],
  },
  {
    name: "foreign-entries-stay",
    breaks: "I4",
    what: "an entry that points nowhere is never removed",
    file: "wasm/src/entries/locked.rs",
    find: "Probe::Unsettled => self.remove_dangling(key.hash),",
    replace: "Probe::Unsettled => {}",
    first: ["hostile::an_entry"],
  },

  // ---- counters
  {
    name: "counted-without-a-lock",
    breaks: "P4",
    what: "two increments of one counter run at the same time",
    file: "wasm/src/entries/change.rs",
    find: `let mut held = self.lock(key.hash)?;
        let result = match self.find_locked(key) {`,
    replace: `let mut held = self.lock(key.hash ^ self.seat as u64)?;
        let result = match self.find_locked(key) {`,
    first: ["models::p4_"],
  },
  {
    name: "record-copied-without-a-second-look",
    breaks: "I1",
    what: "a copy of a record is published without checking that its bytes still belong to the record",
    file: "wasm/src/entries/change.rs",
    find: "is_valid(region, hit).then_some(copy)",
    replace: "(is_valid(region, hit) || true).then_some(copy)",
    first: ["hostile::m2_", "models::p4_"],
  },
  {
    name: "counting-keeps-the-version",
    breaks: "I2",
    what: "an increment changes the number and keeps the version",
    file: "wasm/src/entries/change.rs",
    find: "let next = self.version();",
    replace: "let next = version.load(Relaxed);",
    first: ["promises::a_counter", "models::i2_", "interleave"],
  },
  {
    name: "version-even-too-early",
    breaks: "I2",
    what: "the new version is visible while the old number still is",
    file: "wasm/src/entries/change.rs",
    find: "version.store(next | CHANGING, SeqCst);",
    replace: "version.store(next, SeqCst);",
    first: ["models::every_pair", "models::p4_"],
  },
  {
    name: "odd-version-meets",
    breaks: "I2",
    what: "compare-and-set accepts the version of an increment whose writer died",
    file: "wasm/src/entries/store.rs",
    find: "wanted == version && version & CHANGING == 0",
    replace: "wanted == version",
    first: ["models::i1_a_version"],
  },
  {
    name: "odd-version-stays",
    breaks: "L2",
    what: "compare-and-set of a counter whose writer died never succeeds again",
    file: "wasm/src/entries/locked.rs",
    find: "if version.load(Acquire) & CHANGING != 0 {",
    replace: "if false && version.load(Acquire) & CHANGING != 0 {",
    first: ["promises::a_counter"],
  },

  {
    name: "counted-out-of-bounds",
    breaks: "P3",
    what: "an increment stores a sum that is outside of its bounds",
    file: "wasm/src/entries/change.rs",
    find: "if sum >= self.min && sum <= self.max {",
    replace: "if true {",
    first: ["promises::an_increment_stays"],
  },

  // ---- rate limits
  {
    name: "limit-judged-without-a-lock",
    breaks: "P6",
    what: "two requests are judged by one state at the same time",
    file: "wasm/src/entries/limit.rs",
    find: "self.lock(key.hash)?;",
    replace: "self.lock(key.hash ^ self.seat as u64)?;",
    first: ["models::p6_"],
  },
  {
    name: "limit-written-in-place",
    breaks: "P6",
    what: "the words of the state that counts are overwritten one by one",
    file: "wasm/src/entries/limit.rs",
    find: "let head = (head ^ SECOND_STATE) & SECOND_STATE",
    replace: "let head = head & SECOND_STATE",
    first: ["promises::a_death_in", "models::p6_"],
  },
  {
    name: "limit-counts-the-refused",
    breaks: "P6",
    what: "a refused request takes away from what is free",
    file: "wasm/src/entries/limit.rs",
    find: "let counts = allowed && !self.peek;",
    replace: "let counts = !self.peek;",
    first: ["promises::a_limit_lets"],
  },
  {
    name: "limit-ahead-of-the-clock",
    breaks: "P6",
    what: "a limit blocks its key for as long as the clock was set back",
    file: "wasm/src/entries/limit.rs",
    find: "State { start: state.start.min(now), ..state }",
    replace: "state",
    first: ["promises::a_limit_survives"],
  },
  {
    name: "limit-forgotten-too-early",
    breaks: "P6",
    what: "the expiry of a limit stays where its first request has put it",
    file: "wasm/src/entries/limit.rs",
    find: "if verdict.reset_at > expiry && record.has(EXPIRES) {",
    replace: "if false && verdict.reset_at > expiry && record.has(EXPIRES) {",
    first: ["promises::the_generic", "promises::a_limit"],
  },
  {
    name: "limit-divides-first",
    breaks: "P6",
    what: "the theoretical arrival time is rounded with each request",
    file: "wasm/src/entries/limit.rs",
    find: "(state.start - now) * self.limit + state.count * self.window",
    replace: "((state.start - now) + state.count * (self.window / self.limit)) * self.limit",
    first: ["promises::the_generic", "promises::a_limit"],
  },

  // ---- expiry, tags, clear
  {
    name: "touch-drops-tags",
    breaks: "I2",
    what: "an entry that gets another expiry loses its tags",
    file: "wasm/src/entries/change.rs",
    find: "let (tags_at, _) = record.tags();",
    replace: "let tags_at = record.key_at;",
    also: [["record.flags & !(EXPIRES | GRACE) | optional", "record.flags & !(EXPIRES | GRACE) & !2 | optional"]],
    first: ["model::few"],
  },
  {
    name: "touch-drops-the-expiry",
    breaks: "P2",
    what: "an entry that gets another expiry never expires",
    file: "wasm/src/entries/change.rs",
    find: "let optional = optional_flags(expiry, grace);",
    replace: "let optional = optional_flags(f64::INFINITY, grace);",
    first: ["model::few"],
  },
  {
    name: "touch-drops-the-grace",
    breaks: "P2",
    what: "an entry that gets another expiry loses its grace",
    file: "wasm/src/entries/change.rs",
    find: "let grace = record.grace(region);",
    replace: "let grace = 0.0;",
    first: ["model::few"],
  },
  {
    name: "expire-lets-loads-pass",
    breaks: "L1",
    what: "a load that began before an entry was told to expire stores its value as a fresh one",
    file: "wasm/src/entries/change.rs",
    find: "store its value as fresh.\n            self.overtake(held, key.hash);",
    replace: "store its value as fresh.",
    first: ["coordinate::"],
  },
  {
    name: "expire-removes-the-stale",
    breaks: "P2",
    what: "an entry that is told to expire is removed although it has a grace",
    file: "wasm/src/entries/change.rs",
    find: "let stays = hit.record.has(GRACE);",
    replace: "let stays = false;",
    first: ["model::few"],
  },
  {
    name: "touch-outlives-a-clear",
    breaks: "I2",
    what: "an entry that is touched while the cache is cleared comes back",
    file: "wasm/src/entries/change.rs",
    find: "SecondWord::new(record.key_length, record.value_type, flags, record.clear_epoch)",
    replace: "SecondWord::new(record.key_length, record.value_type, flags, self.clear_epoch())",
    first: ["promises::a_clear_in_between"],
  },

  // ---- large values
  {
    name: "chunks-of-another-version",
    breaks: "I1",
    what: "a large value is read from the chunks of two sets",
    file: "wasm/src/entries/large.rs",
    find: "|| head.version(&self.region) != version",
    replace: "",
    also: [["chunk.version(&self.region) != version || chunk.chunk_number", "chunk.chunk_number"]],
    first: ["models::i1_", "models::every_pair", "threads::nothing_torn"],
  },
  {
    name: "published-without-its-chunks",
    breaks: "authentic set",
    what: "a large value is stored although its chunks are gone",
    file: "wasm/src/entries/store.rs",
    find: `if large && !self.has_its_chunks(space) {
                return Err(Refused::Busy);`,
    replace: `if false {
                return Err(Refused::Busy);`,
    first: ["frozen::the_unfinished"],
  },

  // ---- making room
  {
    name: "ghosts-not-asked",
    breaks: "policy",
    what: "a key that is set while its ghost stands goes to the small queue",
    file: "wasm/src/entries/placement.rs",
    find: "EntryState::Ghost if self.remembers(entry) => return Class::Main,",
    replace: "EntryState::Ghost if self.remembers(entry) && self.seat == u32::MAX => return Class::Main,",
    first: ["promises::ghosts", "promises::a_skewed"],
  },
  {
    name: "the-invalid-keep-their-place",
    breaks: "policy",
    what: "a hot entry that is invalid stays in a full bucket",
    file: "wasm/src/entries/placement.rs",
    find: "self.find_worthless(bucket).unwrap_or(best)",
    replace: "best",
    first: ["promises::the_invalid"],
  },
  {
    name: "the-hottest-goes-first",
    breaks: "policy",
    what: "a new entry replaces the hottest entry of a full bucket",
    file: "wasm/src/entries/placement.rs",
    find: "(1 << 41) + entry.heat()",
    replace: "(1 << 41) - entry.heat()",
    first: ["promises::a_full_bucket"],
  },
];
