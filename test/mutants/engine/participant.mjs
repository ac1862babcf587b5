/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  // ---- who does not know the seed cannot aim
  {
    name: "half-a-seed",
    breaks: "policy",
    what: "half of the seed is lost",
    file: "wasm/src/participant/recover.rs",
    find: "region.word(SEED_AT + 8).store(seed[1], Relaxed);",
    replace: "region.word(SEED_AT + 8).store(0, Relaxed);",
    first: ["hashing::everybody"],
  },

  // ---- locks and deaths
  {
    name: "stolen-for-impatience",
    breaks: "L3",
    what: "a lock is taken from its living holder after some spinning",
    file: "wasm/src/participant/lock.rs",
    find: "self.is_gone(owner, seen.epoch())",
    replace: "self.is_gone(owner, seen.epoch()) || spins >= SPINS",
    first: ["models::i3_", "models::l3_", "frozen"],
  },
  {
    name: "stolen-without-the-epoch",
    breaks: "L3",
    what: "a lock names its holder without the incarnation, so it looks as if left behind",
    file: "wasm/src/participant/lock.rs",
    find: "seen.held_by(self.slot, self.epoch.get())",
    replace: "seen.held_by(self.slot, 0)",
    first: ["models::i3_", "frozen"],
  },
  {
    name: "buried-without-proof",
    breaks: "L3",
    what: "a participant is reaped without asking whether it is dead",
    file: "wasm/src/participant/recover.rs",
    find: `|| !self.host.take(slot) {
            return false;
        }
        self.reap(slot);
        self.host.release(slot);`,
    replace: `{
            return false;
        }
        self.reap(slot);`,
    first: ["models::l3_"],
  },
  {
    name: "never-buried",
    breaks: "L2",
    what: "the locks of the dead stay for ever",
    file: "wasm/src/participant/lock.rs",
    find: "if spins == SPINS && !holder.is_some_and(|holder| self.bury(holder)) {",
    replace: "if spins == SPINS {",
    first: ["crash"],
  },
  {
    name: "reaped-in-the-same-epoch",
    breaks: "L2",
    what: "who was reaped still counts as the holder of its locks",
    file: "wasm/src/participant/recover.rs",
    find: "word.store(slot_word(FREE, (seen as u32).wrapping_add(1)), Release);",
    replace: "word.store(slot_word(FREE, seen as u32), Release);",
    first: ["crash"],
  },
  {
    name: "attached-in-the-same-epoch",
    breaks: "L2",
    what: "who comes into a dead one's slot looks like the holder of its locks",
    file: "wasm/src/participant/recover.rs",
    find: "(word.load(Relaxed) as u32).wrapping_add(1);",
    replace: "(word.load(Relaxed) as u32).wrapping_add(0);",
    first: ["promises::a_new_owner", "crash"],
  },
  {
    name: "attached-with-the-hazard-of-the-dead",
    breaks: "M3",
    what: "who comes into a dead one's slot pins the segment that one wrote into",
    file: "wasm/src/participant/recover.rs",
    find: `participant.hazard_of(slot).store(0, SeqCst);
        participant`,
    replace: "participant",
    first: ["promises::a_new_owner", "crash"],
  },
  {
    name: "attached-with-the-large-value-of-the-dead",
    breaks: "M3",
    what: "who comes into a dead one's slot keeps the chunks of what that one was writing",
    file: "wasm/src/participant/recover.rs",
    find: `participant.pending_of(slot).store(0, Relaxed);
        participant`,
    replace: "participant",
    first: ["promises::a_new_owner", "crash"],
  },
  {
    name: "locked-by-a-store",
    breaks: "I3",
    what: "two can take the same lock",
    file: "wasm/src/participant/lock.rs",
    find: "if word.compare_exchange_weak(seen.0, mine.0, AcqRel, Relaxed).is_ok() {",
    replace: "word.store(mine.0, Release);\n                if mine != seen {",
    first: ["models::i3_"],
  },
  {
    name: "lock-waited-for-without-end",
    breaks: "L2",
    what: "a writer waits for a frozen one for ever",
    file: "wasm/src/participant/lock.rs",
    find: `if !self.host.pause(attempt) {
                return Err(Busy);
            }`,
    replace: "self.host.pause(attempt);",
    first: ["frozen::the_frozen_hold_up"],
  },

  // ---- foreign bytes
  {
    name: "more-slots-than-there-are",
    breaks: "I4",
    what: "the count of slots ever used is believed",
    file: "wasm/src/participant/recover.rs",
    find: ".load(SeqCst) as u32).min(self.region.geometry.participants)",
    replace: ".load(SeqCst) as u32)",
    first: ["hostile"],
  },
  {
    name: "holder-out-of-the-table",
    breaks: "I4",
    what: "the slot of a lock's holder is believed",
    file: "wasm/src/participant/recover.rs",
    find: "slot >= self.region.geometry.participants\n            || self",
    replace: "self",
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
