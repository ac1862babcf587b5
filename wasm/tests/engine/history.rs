//! Linearizability (Herlihy & Wing, 1990): the operations on a key must have an order that agrees with their times, and in
//! which a plain map would have given the same answers. If eviction is allowed, the map may forget the key at any moment. An
//! operation whose participant died may have happened, or not.

use cache_machine_core::Expect;

use crate::acts::RULE;

#[derive(Clone, Debug, PartialEq)]
pub enum Did {
    /// `version` is `None` when the store was refused.
    Set {
        expect: Expect,
        value: Vec<u8>,
        version: Option<u64>,
    },
    Got(Option<(Vec<u8>, u64)>),
    Removed(bool),
    /// Cleared or invalidated, whatever the key held.
    Dropped,
    /// `sum` is `None` when the increment was refused.
    Incremented {
        by: f64,
        sum: Option<f64>,
    },
    /// A request at the limit of [`RULE`].
    Asked {
        allowed: bool,
        remaining: f64,
    },
    Touched(bool),
    /// The participant died; what it was about to do.
    Died(Change),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Nothing,
    Put {
        expect: Expect,
        value: Vec<u8>,
    },
    Remove,
    Add(f64),
    Ask,
    /// A participant that died while it changed a counter or a limit left an odd version; the next one settles it.
    Renumber,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub start: u64,
    /// [`NO_END`] when the participant died.
    pub end: u64,
    pub did: Did,
}

pub const NO_END: u64 = u64::MAX;

/// What the map holds for the key. The version of a counter is unknown until it is read.
type State = Option<(Vec<u8>, Option<u64>)>;

fn number(value: &[u8]) -> f64 {
    f64::from_le_bytes(value.try_into().unwrap())
}

fn is(state: &State, expect: &Expect) -> bool {
    match (expect, state) {
        (Expect::Anything, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
        (Expect::Version(wanted), Some((_, version))) => version.is_none_or(|version| version == *wanted),
        _ => false,
    }
}

/// The requests that a limit has let through, and those after one more request.
fn asked(state: &State) -> (f64, f64) {
    let before = state.as_ref().map_or(0.0, |(value, _)| number(value));
    (before, (before + 1.0).min(RULE.limit))
}

/// What a map that holds `state` holds after the operation; `None` when it would have answered differently.
fn after(state: &State, did: &Did) -> Option<State> {
    match did {
        Did::Set { expect, value, version: Some(version) } => {
            is(state, expect).then(|| Some((value.clone(), Some(*version))))
        }
        Did::Set { expect: Expect::Version(_), version: None, .. }
            if state.as_ref().is_some_and(|it| it.1.is_none()) =>
        {
            Some(state.clone())
        }
        Did::Set { expect, version: None, .. } => (!is(state, expect)).then(|| state.clone()),
        Did::Got(None) => state.is_none().then_some(None),
        Did::Got(Some((value, version))) => match state {
            // While another thread changes the number, the version is odd and proves nothing.
            Some((held, known)) if held == value && version & 1 == 1 => Some(Some((held.clone(), *known))),
            Some((held, known)) if held == value && known.is_none_or(|known| known == *version) => {
                Some(Some((held.clone(), Some(*version))))
            }
            _ => None,
        },
        Did::Removed(true) => state.is_some().then_some(None),
        Did::Removed(false) => state.is_none().then_some(None),
        Did::Dropped | Did::Died(Change::Remove) => Some(None),
        Did::Incremented { by, sum: Some(sum) } => {
            let before = state.as_ref().map_or(0.0, |(value, _)| number(value));
            (before + by == *sum).then(|| Some((sum.to_le_bytes().to_vec(), None)))
        }
        Did::Incremented { sum: None, .. } | Did::Died(Change::Nothing) => Some(state.clone()),
        Did::Asked { allowed, remaining } => {
            let (before, after) = asked(state);
            let was_allowed = before < RULE.limit;
            if *allowed != was_allowed || *remaining != RULE.limit - after {
                return None;
            }
            Some(if was_allowed { Some((after.to_le_bytes().to_vec(), None)) } else { state.clone() })
        }
        Did::Died(Change::Ask) => Some(Some((asked(state).1.to_le_bytes().to_vec(), None))),
        Did::Touched(there) => (state.is_some() == *there).then(|| state.clone()),
        Did::Died(Change::Put { expect, value }) => {
            Some(if is(state, expect) { Some((value.clone(), None)) } else { state.clone() })
        }
        Did::Died(Change::Add(by)) => {
            let sum = state.as_ref().map_or(0.0, |(value, _)| number(value)) + by;
            Some(Some((sum.to_le_bytes().to_vec(), None)))
        }
        Did::Died(Change::Renumber) => Some(state.clone().map(|(value, _)| (value, None))),
    }
}

/// Whether the events of one key, at most 64, are linearizable. The first event says what the key held before.
pub fn linearizable(events: &[Event], may_forget: bool) -> bool {
    let counting = events.iter().filter(|event| matches!(event.did, Did::Died(Change::Add(_) | Change::Ask)));
    let renumbering = counting.map(|event| Event { did: Did::Died(Change::Renumber), ..event.clone() });
    let events: Vec<_> = events.iter().cloned().chain(renumbering).collect();
    assert!(events.len() <= 64);
    let must = (0..events.len()).filter(|i| events[*i].end != NO_END).fold(0, |must, i| must | 1 << i);
    search(&events, must, 0, &None, may_forget, &mut Vec::new())
}

/// `must` and `done` are sets of events, a bit for each.
fn search(
    events: &[Event],
    must: u64,
    done: u64,
    state: &State,
    may_forget: bool,
    dead_ends: &mut Vec<(u64, State)>,
) -> bool {
    if done & must == must {
        return true;
    }
    if dead_ends.iter().any(|(at, with)| *at == done && with == state) {
        return false;
    }
    let left = || (0..events.len()).filter(|i| done >> i & 1 == 0);
    let first_end = left().map(|i| events[i].end).min().unwrap();
    for i in left().filter(|i| events[*i].start < first_end) {
        // With the state as it is, or forgotten just before.
        for state in [Some(state), may_forget.then_some(&None)].into_iter().flatten() {
            if let Some(next) = after(state, &events[i].did)
                && search(events, must, done | 1 << i, &next, may_forget, dead_ends)
            {
                return true;
            }
        }
    }
    dead_ends.push((done, state.clone()));
    false
}

/// Tests the checker itself, with histories that are possible and histories that are not.
#[test]
fn a_history_can_be_impossible() {
    let event = |start, end, did| Event { start, end, did };
    let set = |start, end, value: u8| {
        let did = Did::Set { expect: Expect::Anything, value: vec![value], version: Some(value as u64 * 2) };
        event(start, end, did)
    };
    let got = |start, end, value: u8| event(start, end, Did::Got(Some((vec![value], value as u64 * 2))));
    let miss = |start, end| event(start, end, Did::Got(None));
    // Overlapping stores: either order is possible.
    assert!(linearizable(&[set(0, 1, 1), set(2, 5, 2), got(3, 4, 1), got(6, 7, 2)], false));
    assert!(linearizable(&[set(0, 1, 1), set(2, 5, 2), got(3, 4, 2), got(6, 7, 2)], false));
    // Reading the old value after the new one was stored, and reading it again after the new one, is impossible.
    assert!(!linearizable(&[set(0, 1, 1), set(2, 3, 2), got(4, 5, 1)], true));
    assert!(!linearizable(&[set(0, 1, 1), set(2, 9, 2), got(3, 4, 2), got(5, 6, 1)], true));
    assert!(!linearizable(&[set(0, 1, 1), event(2, 3, Did::Removed(true)), got(4, 5, 1)], true));
    // Forgetting is possible only where it is allowed, and a forgotten value stays forgotten.
    assert!(linearizable(&[set(0, 1, 1), miss(2, 3)], true));
    assert!(!linearizable(&[set(0, 1, 1), miss(2, 3)], false));
    assert!(!linearizable(&[set(0, 1, 1), miss(2, 3), got(4, 5, 1)], true));
    // Only one store that expects an absent key can succeed.
    let add = |start, end, value: u8| {
        let did = Did::Set { expect: Expect::Absent, value: vec![value], version: Some(value as u64 * 2) };
        event(start, end, did)
    };
    assert!(!linearizable(&[add(0, 5, 1), add(1, 4, 2), got(6, 7, 2)], false));
    // Increments.
    let count = |start, end, sum: f64| event(start, end, Did::Incremented { by: 1.0, sum: Some(sum) });
    assert!(linearizable(&[count(0, 5, 2.0), count(1, 4, 1.0)], false));
    assert!(!linearizable(&[count(0, 5, 1.0), count(1, 4, 1.0)], false));
    // Requests: three go through.
    let ask = |start, end, allowed, remaining| event(start, end, Did::Asked { allowed, remaining });
    let three = [ask(0, 5, true, 1.0), ask(1, 4, true, 2.0), ask(6, 7, true, 0.0)];
    assert!(linearizable(&[&three[..], &[ask(8, 9, false, 0.0)]].concat(), false));
    assert!(!linearizable(&[&three[..], &[ask(8, 9, true, 0.0)]].concat(), false));
    assert!(!linearizable(&[ask(0, 5, true, 2.0), ask(1, 4, true, 2.0)], false));
    assert!(!linearizable(&[ask(0, 5, false, 2.0)], false));
    // A participant that died may have stored its value at any time since, or never.
    let died = event(2, NO_END, Did::Died(Change::Put { expect: Expect::Anything, value: vec![9] }));
    for last in [1, 9] {
        assert!(linearizable(&[set(0, 1, 1), died.clone(), got(3, 4, 1), got(5, 6, last)], false));
    }
    assert!(!linearizable(&[set(0, 1, 1), died.clone(), got(3, 4, 9), got(5, 6, 1)], false));
    assert!(!linearizable(&[set(0, 1, 1), got(2, 3, 9), Event { start: 4, ..died }], false));
}
