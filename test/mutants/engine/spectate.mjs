/** @type {import("../index.mjs").EngineMutant[]} */
export default [
  {
    name: "void-claims-are-listed",
    breaks: "C4",
    what: "a spectator lists claims of participants that have left",
    file: "wasm/src/coordinate/claims.rs",
    find: "if state == ClaimState::Reserved || self.is_void(owner) {",
    replace: "if state == ClaimState::Reserved {",
    first: ["spectate::a_spectator_sees_claims"],
  },
  {
    name: "holders-never-leave",
    breaks: "policy",
    what: "a spectator takes the lock of a bucket whose holder has left for one that is in the way",
    file: "wasm/src/participant/lock.rs",
    find: "let gone = self.is_gone(seat, control.incarnation());",
    replace: "let gone = false && self.is_gone(seat, control.incarnation());",
    first: ["spectate::a_spectator_sees_locks"],
  },
];
