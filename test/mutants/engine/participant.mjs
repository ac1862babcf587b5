/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  // ---- expiry, tags, clear
  {
    name: "expired-still-expected",
    breaks: "P2",
    what: "an entry that has expired this millisecond counts as present for writers",
    file: "wasm/src/participant/validity.rs",
    find: "record.expiry(&self.region) <= self.host.now())",
    replace: "record.expiry(&self.region) < self.host.now())",
    first: ["model::few"],
  },

  // ---- keys cannot be aimed without knowing the seed
  {
    name: "half-a-seed",
    breaks: "policy",
    what: "half of the seed is lost",
    file: "wasm/src/participant/recover.rs",
    find: "region.word(SEED_AT[1]).store(seed[1], Relaxed);",
    replace: "region.word(SEED_AT[1]).store(0, Relaxed);",
    first: ["hashing::everybody"],
  },

  // ---- locks and deaths
  {
    name: "stolen-for-impatience",
    breaks: "L3",
    what: "a lock is stolen from its living holder after some spinning",
    file: "wasm/src/participant/lock.rs",
    find: "self.is_gone(owner, seen.incarnation())",
    replace: "self.is_gone(owner, seen.incarnation()) || spins >= SPINS",
    first: ["models::i3_", "models::l3_", "frozen"],
  },
  {
    name: "stolen-without-the-incarnation",
    breaks: "L3",
    what: "a lock names its holder without the incarnation, so it looks abandoned",
    file: "wasm/src/participant/lock.rs",
    find: "seen.held_by(self.seat, self.incarnation.get())",
    replace: "seen.held_by(self.seat, 0)",
    first: ["models::i3_", "frozen"],
  },
  {
    name: "buried-without-proof",
    breaks: "L3",
    what: "a participant is reaped without asking whether it is dead",
    file: "wasm/src/participant/recover.rs",
    find: `|| !self.host.take(seat) {
            return false;
        }
        self.reap(seat);
        self.host.release(seat);`,
    replace: `{
            return false;
        }
        self.reap(seat);`,
    first: ["models::l3_"],
  },
  {
    name: "never-buried",
    breaks: "L2",
    what: "the locks of the dead stay for ever",
    file: "wasm/src/participant/lock.rs",
    find: "if spins == SPINS && !holder.is_some_and(|holder| self.reap_if_dead(holder)) {",
    replace: "if spins == SPINS {",
    first: ["crash"],
  },
  {
    name: "reaped-in-the-same-incarnation",
    breaks: "L2",
    what: "a participant that was reaped still counts as the holder of its locks",
    file: "wasm/src/participant/recover.rs",
    find: "word.store(Seat::free(seen.next_incarnation()).0, Release);",
    replace: "word.store(Seat::free(seen.incarnation()).0, Release);",
    first: ["crash"],
  },
  {
    name: "attached-in-the-same-incarnation",
    breaks: "L2",
    what: "the new owner of a dead participant's seat counts as the holder of its locks",
    file: "wasm/src/participant/recover.rs",
    find: "Seat(word.load(Relaxed)).next_incarnation();",
    replace: "Seat(word.load(Relaxed)).incarnation();",
    first: ["promises::a_new_owner", "crash"],
  },
  {
    name: "attached-with-the-hazard-of-the-dead",
    breaks: "M3",
    what: "the new owner of a dead participant's seat pins the segment that it wrote into",
    file: "wasm/src/participant/recover.rs",
    find: `participant.hazard_of(seat).store(0, SeqCst);
        participant`,
    replace: "participant",
    first: ["promises::a_new_owner", "crash"],
  },
  {
    name: "attached-with-the-large-value-of-the-dead",
    breaks: "M3",
    what: "the new owner of a dead participant's seat keeps the chunks of the value that it was writing",
    file: "wasm/src/participant/recover.rs",
    find: `participant.pending_of(seat).store(0, Relaxed);
        participant`,
    replace: "participant",
    first: ["promises::a_new_owner", "crash"],
  },
  {
    name: "locked-by-a-store",
    breaks: "I3",
    what: "two participants can take the same lock",
    file: "wasm/src/participant/lock.rs",
    find: "if word.compare_exchange_weak(seen.0, mine.0, AcqRel, Relaxed).is_ok() {",
    replace: "word.store(mine.0, Release);\n                if mine != seen {",
    first: ["models::i3_"],
  },
  {
    name: "lock-waited-for-without-end",
    breaks: "L2",
    what: "a writer waits for a frozen holder for ever",
    file: "wasm/src/participant/lock.rs",
    find: "while self.host.pause(attempt) {",
    replace: "while self.host.pause(attempt) || attempt > 0 {",
    first: ["frozen::the_frozen_hold_up"],
  },

  // ---- foreign bytes
  {
    name: "more-seats-than-there-are",
    breaks: "I4",
    what: "the number of seats ever used is used unchecked",
    file: "wasm/src/participant/recover.rs",
    find: ".load(SeqCst) as u32).min(self.region.geometry.participants)",
    replace: ".load(SeqCst) as u32)",
    first: ["hostile"],
  },
  {
    name: "holder-out-of-the-table",
    breaks: "I4",
    what: "the seat of a lock's holder is used unchecked",
    file: "wasm/src/participant/recover.rs",
    find: "seat >= self.region.geometry.participants\n            || Seat(self",
    replace: "Seat(self",
    first: ["hostile"],
  },

  // ---- attaching
  {
    name: "any-layout-version",
    breaks: "A1",
    what: "a region of another layout is attached to",
    file: "wasm/src/participant/recover.rs",
    find: "} else if word(VERSION_AT) != LAYOUT_VERSION as u64 {",
    replace: "} else if false {",
    first: ["promises::only_a_region"],
  },
  {
    name: "any-size",
    breaks: "A1",
    what: "a region that names another size is attached to",
    file: "wasm/src/participant/recover.rs",
    find: "} else if word(SIZE_AT) != size {",
    replace: "} else if false {",
    first: ["promises::only_a_region"],
  },
];
