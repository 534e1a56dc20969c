//! Decides whether an outside call or effect may be made now, by whom, and whether it was made before.
//!
//! `start`, `bar` and `store` look at no slot but the one they name, so a store may load just that
//! one beside the head; `release` looks at all. A `Stale` answer never ends a task: who hears it
//! asks for admission again.

use super::entry::{Entry, Fence, Instance, Nonce, SlotEntry, SlotState};
use crate::task::{Timestamp, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Who is told `Busy` asks again after this long at most: the owner may die or give up long before
/// its `until`, and a waiting task should not sleep through that.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// And not before this long: an `until` that has passed may not be judged by everybody.
const BUSY_MIN: Duration = Duration::from_millis(20);

/// A delivery that was admitted, as the scripts know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    pub fence: Fence,
    /// Names the delivery, not the process.
    pub nonce: Nonce,
    pub instance: Instance,
}

/// A slot's name: step, item, round and turn; for a call also a digest of what the step means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotName(pub Arc<str>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SlotKind {
    /// May be made again, counted.
    Call,
    /// Changes the world: at most once.
    Effect,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot {
    pub name: SlotName,
    pub kind: SlotKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Started {
    /// Make it, before the deadline. `repeat`: an earlier grant may have been used (counted).
    Go {
        repeat: bool,
        deaths: u32,
    },
    Done(Bytes),
    Barred,
    /// Another delivery has it; start again after this long at most.
    Busy(Duration),
    /// An effect that may or may not have happened: look first.
    Unknown,
    /// Ask for admission again.
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    Barred,
    /// Started or stored: settle it first.
    Busy,
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Stands,
    /// Ask for admission again.
    Stale,
}

/// What the asking process may judge about others.
pub trait Observer {
    /// Has reached the ledger without a break for one lease.
    fn settled(&self) -> bool;
    /// The instance's heartbeat has run out, or it cannot be alive.
    fn lapsed(&self, instance: Instance) -> bool;
}

/// Asks to make a call or run an effect. `until`: deadline of the request + one lease; who has not
/// sent it by the deadline does not send it, and starts again.
#[must_use]
pub fn start(
    entry: &mut Option<Entry>,
    by: &Holder,
    slot: &Slot,
    until: Timestamp,
    now: Timestamp,
    observer: &dyn Observer,
) -> Started {
    let Some(e) = held(entry, by.fence) else { return Started::Stale };
    let mine = |doubt| SlotState::Started { instance: by.instance, nonce: by.nonce, until, doubt };
    let Some(found) = e.slots.get_mut(&slot.name) else {
        e.slots.insert(slot.name.clone(), SlotEntry { state: mine(false), times: 0, deaths: 0 });
        return Started::Go { repeat: false, deaths: 0 };
    };
    match &found.state {
        SlotState::Stored { value } => Started::Done(value.clone()),
        SlotState::Barred => Started::Barred,
        SlotState::Free => {
            found.state = mine(false);
            Started::Go { repeat: false, deaths: found.deaths }
        }
        // A lost reply. What was in doubt stays so.
        SlotState::Started { nonce, doubt, .. } if *nonce == by.nonce => {
            let doubt = *doubt;
            found.state = mine(doubt);
            if doubt { Started::Unknown } else { Started::Go { repeat: false, deaths: found.deaths } }
        }
        SlotState::Started { instance, until: theirs, .. } => {
            let (instance, theirs) = (*instance, *theirs);
            let lapsed =
                instance != by.instance && (instance == Instance::NOBODY || observer.lapsed(instance));
            if !observer.settled() || !(lapsed || theirs <= now) {
                return Started::Busy(now.until(theirs).clamp(BUSY_MIN, BUSY_MAX));
            }
            take_over(
                found,
                slot.kind,
                mine(slot.kind == SlotKind::Effect),
                lapsed && instance != Instance::NOBODY,
            )
        }
    }
}

/// The slot's owner will not answer for it any more.
fn take_over(found: &mut SlotEntry, kind: SlotKind, mine: SlotState, died: bool) -> Started {
    found.state = mine;
    found.deaths += u32::from(died);
    match kind {
        SlotKind::Call => {
            found.times += 1;
            Started::Go { repeat: true, deaths: found.deaths }
        }
        SlotKind::Effect => Started::Unknown,
    }
}

/// Asks to end, to be refused or to ask a person without this effect. `Barred`: from now on nobody
/// starts it at this hop.
#[must_use]
pub fn bar(entry: &mut Option<Entry>, by: &Holder, slot: &Slot) -> Bar {
    let Some(e) = held(entry, by.fence) else { return Bar::Stale };
    let found = e.slots.entry(slot.name.clone()).or_default();
    match &found.state {
        SlotState::Started { nonce, doubt: true, .. } if *nonce == by.nonce => {}
        SlotState::Free | SlotState::Barred => {}
        SlotState::Started { .. } | SlotState::Stored { .. } => return Bar::Busy,
    }
    found.state = SlotState::Barred;
    Bar::Barred
}

/// Stores an answer: the first writer wins, whatever its fence and whether or not its task was
/// handed in. Answers the winner, and whether the writer's token stands.
#[must_use]
pub fn store(entry: &mut Option<Entry>, token: &Token, slot: &Slot, value: Bytes) -> (Bytes, Standing) {
    let Some(e) = entry.as_mut().filter(|e| !e.is_closed() && e.same_chain(token)) else {
        return (value, Standing::Stale);
    };
    let standing = if e.hop <= token.hop { Standing::Stands } else { Standing::Stale };
    let found = e.slots.entry(slot.name.clone()).or_default();
    if let SlotState::Stored { value: first } = &found.state {
        return (first.clone(), standing);
    }
    found.state = SlotState::Stored { value: value.clone() };
    (value, standing)
}

/// On every orderly exit: gives back what this nonce started and did not send, whatever the fence.
/// The counts stay; a slot in doubt is left as if its owner had died, for the next one to look.
pub fn release(entry: &mut Option<Entry>, nonce: Nonce) {
    let Some(e) = entry else { return };
    for slot in e.slots.values_mut() {
        match &mut slot.state {
            SlotState::Started { nonce: n, instance, doubt: true, .. } if *n == nonce => {
                (*instance, *n) = (Instance::NOBODY, Nonce::NOBODY);
            }
            SlotState::Started { nonce: n, .. } if *n == nonce => slot.state = SlotState::Free,
            _ => {}
        }
    }
    e.forget_blank();
}

/// The entry, if it is open and the fence is its own.
fn held(entry: &mut Option<Entry>, fence: Fence) -> Option<&mut Entry> {
    entry.as_mut().filter(|e| !e.is_closed() && e.fence == fence)
}

#[cfg(test)]
mod tests {
    use super::super::admission::{Admission, Ask, admit};
    use super::super::examples::*;
    use super::super::marks;
    use super::*;
    use crate::outcome::OutcomeKind;

    const LATER: Timestamp = Timestamp(UNTIL.0 + 1);

    fn go(entry: &mut Option<Entry>, by: &Holder, slot: &Slot, sees: &Sees) -> Started {
        start(entry, by, slot, UNTIL, NOW, sees)
    }

    /// Theirs was granted first; then the key was admitted again, to me.
    fn taken(slot: &Slot) -> (Token, Option<Entry>) {
        let (token, mut entry) = admitted();
        started_by(&mut entry, &THEIRS, slot);
        (token, entry)
    }

    #[test]
    fn whoever_does_not_hold_the_fence_of_an_open_entry_is_stale() {
        let (token, entry) = admitted();
        let old = Holder { fence: Fence(10), ..MINE };
        assert_eq!(go(&mut entry.clone(), &old, &call(), &NOBODY_LAPSED), Started::Stale);
        assert_eq!(bar(&mut entry.clone(), &old, &effect()), Bar::Stale);
        assert_eq!(go(&mut None, &MINE, &call(), &NOBODY_LAPSED), Started::Stale);
        assert_eq!(bar(&mut None, &MINE, &effect()), Bar::Stale);
        let mut closed = entry;
        marks::close(&mut closed, &token, OutcomeKind::Result, &place(90), MINE.fence, NOW);
        assert_eq!(go(&mut closed, &MINE, &call(), &NOBODY_LAPSED), Started::Stale);
        assert_eq!(bar(&mut closed, &MINE, &effect()), Bar::Stale);
    }

    #[test]
    fn p3_what_is_stored_is_done_and_what_is_barred_is_barred() {
        let (token, mut entry) = admitted();
        let _ = store(&mut entry, &token, &call(), "a".into());
        assert_eq!(go(&mut entry, &MINE, &call(), &NOBODY_LAPSED), Started::Done("a".into()));
        assert_eq!(bar(&mut entry, &MINE, &effect()), Bar::Barred);
        assert_eq!(go(&mut entry, &MINE, &effect(), &NOBODY_LAPSED), Started::Barred);
    }

    #[test]
    fn a_free_slot_is_granted_and_names_who_has_it_until_when() {
        let (_, mut entry) = admitted();
        assert_eq!(go(&mut entry, &MINE, &call(), &NOBODY_LAPSED), GO);
        let mine = SlotState::Started { instance: ME, nonce: MINE.nonce, until: UNTIL, doubt: false };
        assert_eq!(state(&entry, &call()), mine);
    }

    #[test]
    fn a_lost_reply_is_granted_again_and_its_until_renewed() {
        let (_, mut entry) = admitted();
        started_by(&mut entry, &MINE, &call());
        let later = UNTIL.plus(Duration::from_secs(5));
        assert_eq!(start(&mut entry, &MINE, &call(), later, LATER, &NOBODY_LAPSED), GO);
        assert!(matches!(state(&entry, &call()), SlotState::Started { until, .. } if until == later));
        assert_eq!(counts(&entry, &call()), (0, 0));
    }

    #[test]
    fn p3_another_delivery_waits_while_the_owner_lives_and_its_until_has_not_passed() {
        let (_, entry) = taken(&call());
        let same_process = Holder { nonce: Nonce(3), ..THEIRS };
        for by in [MINE, same_process] {
            let mut after = entry.clone();
            assert_eq!(go(&mut after, &by, &call(), &NOBODY_LAPSED), Started::Busy(BUSY_MAX));
            assert_eq!(after, entry);
        }
    }

    #[test]
    fn my_own_process_never_lapses_in_my_eyes() {
        let (_, mut entry) = taken(&call());
        let same_process = Holder { nonce: Nonce(3), ..THEIRS };
        assert_eq!(go(&mut entry, &same_process, &call(), &OTHER_LAPSED), Started::Busy(BUSY_MAX));
    }

    #[test]
    fn p3_who_is_not_settled_judges_nobody() {
        let (_, entry) = taken(&call());
        let unsettled = Sees { settled: false, lapsed: &[OTHER] };
        let mut after = entry.clone();
        assert_eq!(start(&mut after, &MINE, &call(), UNTIL, LATER, &unsettled), Started::Busy(BUSY_MIN));
        assert_eq!(after, entry);
    }

    #[test]
    fn a_busy_slot_is_asked_for_again_soon() {
        let wait = |now| {
            let (_, mut entry) = taken(&call());
            start(&mut entry, &MINE, &call(), UNTIL, now, &NOBODY_LAPSED)
        };
        assert_eq!(wait(Timestamp(UNTIL.0 - 60_000)), Started::Busy(Duration::from_secs(1)));
        assert_eq!(wait(Timestamp(UNTIL.0 - 300)), Started::Busy(Duration::from_millis(300)));
        assert_eq!(wait(Timestamp(UNTIL.0 - 1)), Started::Busy(BUSY_MIN));
    }

    #[test]
    fn p3_a_call_whose_owner_died_is_granted_again_counted_and_its_death_too() {
        let (_, mut entry) = taken(&call());
        assert_eq!(go(&mut entry, &MINE, &call(), &OTHER_LAPSED), Started::Go { repeat: true, deaths: 1 });
        assert_eq!(counts(&entry, &call()), (1, 1));
        assert!(matches!(state(&entry, &call()), SlotState::Started { nonce, .. } if nonce == MINE.nonce));
    }

    #[test]
    fn an_until_that_passes_counts_a_repeat_and_no_death() {
        let (_, mut entry) = taken(&call());
        let again = start(&mut entry, &MINE, &call(), LATER, UNTIL, &NOBODY_LAPSED);
        assert_eq!(again, Started::Go { repeat: true, deaths: 0 });
        assert_eq!(counts(&entry, &call()), (1, 0));
    }

    #[test]
    fn a_death_is_counted_also_where_the_until_has_passed_meanwhile() {
        let (_, mut entry) = taken(&call());
        let again = start(&mut entry, &MINE, &call(), LATER, LATER, &OTHER_LAPSED);
        assert_eq!(again, Started::Go { repeat: true, deaths: 1 });
    }

    #[test]
    fn deaths_add_up_and_outlive_an_orderly_exit() {
        let (_, mut entry) = taken(&call());
        assert!(matches!(go(&mut entry, &MINE, &call(), &OTHER_LAPSED), Started::Go { deaths: 1, .. }));
        release(&mut entry, MINE.nonce);
        assert_eq!(state(&entry, &call()), SlotState::Free);
        let granted = go(&mut entry, &THEIRS, &call(), &NOBODY_LAPSED);
        assert_eq!(granted, Started::Go { repeat: false, deaths: 1 });
        assert!(matches!(go(&mut entry, &MINE, &call(), &OTHER_LAPSED), Started::Go { deaths: 2, .. }));
        assert_eq!(counts(&entry, &call()), (2, 2));
    }

    #[test]
    fn p4_an_effect_whose_owner_died_is_unknown_and_belongs_to_who_looks() {
        let (_, mut entry) = taken(&effect());
        assert_eq!(go(&mut entry, &MINE, &effect(), &OTHER_LAPSED), Started::Unknown);
        let mine = SlotState::Started { instance: ME, nonce: MINE.nonce, until: UNTIL, doubt: true };
        assert_eq!(state(&entry, &effect()), mine);
        assert_eq!(counts(&entry, &effect()), (0, 1));
        // Asked again after a lost reply it is as unknown as before; others wait for the look.
        assert_eq!(go(&mut entry, &MINE, &effect(), &NOBODY_LAPSED), Started::Unknown);
        assert_eq!(go(&mut entry, &THEIRS, &effect(), &NOBODY_LAPSED), Started::Busy(BUSY_MAX));
    }

    #[test]
    fn p4_an_effect_whose_until_has_passed_is_unknown_too() {
        let (_, mut entry) = taken(&effect());
        assert_eq!(start(&mut entry, &MINE, &effect(), LATER, LATER, &NOBODY_LAPSED), Started::Unknown);
    }

    #[test]
    fn p4_only_what_nobody_may_be_running_can_be_barred() {
        let (token, entry) = admitted();
        let mut free = entry.clone();
        assert_eq!(bar(&mut free, &MINE, &effect()), Bar::Barred);
        assert_eq!(bar(&mut free, &MINE, &effect()), Bar::Barred);
        for by in [MINE, THEIRS] {
            let mut running = entry.clone();
            started_by(&mut running, &by, &effect());
            assert_eq!(bar(&mut running, &MINE, &effect()), Bar::Busy);
        }
        let mut stored = entry;
        let _ = store(&mut stored, &token, &effect(), "done".into());
        assert_eq!(bar(&mut stored, &MINE, &effect()), Bar::Busy);
        assert_eq!(state(&stored, &effect()), SlotState::Stored { value: "done".into() });
    }

    #[test]
    fn p4_who_has_looked_may_bar_and_nobody_else_meanwhile() {
        let (_, mut entry) = taken(&effect());
        assert_eq!(go(&mut entry, &MINE, &effect(), &OTHER_LAPSED), Started::Unknown);
        assert_eq!(bar(&mut entry, &THEIRS, &effect()), Bar::Busy);
        assert_eq!(bar(&mut entry, &MINE, &effect()), Bar::Barred);
        assert_eq!(go(&mut entry, &THEIRS, &effect(), &NOBODY_LAPSED), Started::Barred);
    }

    #[test]
    fn p3_the_first_answer_wins_and_a_stale_writer_learns_so() {
        let (own, mut entry) = taken(&call());
        let again = Ask { fence: Fence(99), nonce: Nonce(9), ..ask(&own) };
        assert!(matches!(admit(&mut entry, false, &again), Admission::Resumed(..)));
        // Theirs holds an older fence; what it bought is kept all the same.
        let kept = store(&mut entry, &own, &call(), "first".into());
        assert_eq!(kept, ("first".into(), Standing::Stands));
        let kept = store(&mut entry, &own, &call(), "second".into());
        assert_eq!(kept, ("first".into(), Standing::Stands));
        marks::moved(&mut entry, &own, 1, super::super::OpenPhase::Open, Fence(98), NOW);
        let kept = store(&mut entry, &own, &call(), "third".into());
        assert_eq!(kept, ("first".into(), Standing::Stale));
        let other = Slot { name: SlotName("say".into()), kind: SlotKind::Call };
        let kept = store(&mut entry, &own, &other, "late".into());
        assert_eq!(kept, ("late".into(), Standing::Stale));
        let next = Token { hop: 1, ..own };
        assert_eq!(store(&mut entry, &next, &other, "x".into()), ("late".into(), Standing::Stands));
    }

    #[test]
    fn an_answer_for_another_chain_or_for_none_is_not_kept() {
        let (own, entry) = admitted();
        let mut closed = entry.clone();
        marks::close(&mut closed, &own, OutcomeKind::Result, &place(90), Fence(98), NOW);
        let redriven = Token { generation: 1, ..own.clone() };
        for (before, t) in [(&None, &own), (&closed, &own), (&entry, &redriven), (&entry, &token(2, PAYLOAD))]
        {
            let mut after = before.clone();
            assert_eq!(store(&mut after, t, &call(), "a".into()), ("a".into(), Standing::Stale));
            assert_eq!(after, *before);
        }
    }

    #[test]
    fn a_stored_answer_keeps_the_counts_of_its_slot() {
        let (own, mut entry) = taken(&call());
        let _ = go(&mut entry, &MINE, &call(), &OTHER_LAPSED);
        let _ = store(&mut entry, &own, &call(), "a".into());
        assert_eq!(counts(&entry, &call()), (1, 1));
    }

    #[test]
    fn release_gives_back_what_its_nonce_started_whatever_the_fence_and_nothing_else() {
        let (own, mut entry) = taken(&call());
        started_by(&mut entry, &MINE, &effect());
        let stored = Slot { name: SlotName("say".into()), kind: SlotKind::Call };
        let _ = store(&mut entry, &own, &stored, "a".into());
        marks::moved(&mut entry, &own, 1, super::super::OpenPhase::Open, Fence(98), NOW);
        release(&mut entry, THEIRS.nonce);
        assert_eq!(state(&entry, &call()), SlotState::Free);
        assert!(matches!(state(&entry, &effect()), SlotState::Started { .. }));
        assert_eq!(state(&entry, &stored), SlotState::Stored { value: "a".into() });
        release(&mut None, THEIRS.nonce);
    }

    #[test]
    fn p4_a_slot_in_doubt_is_left_as_if_its_owner_had_died_which_counts_no_death() {
        let (_, mut entry) = taken(&effect());
        assert_eq!(go(&mut entry, &MINE, &effect(), &OTHER_LAPSED), Started::Unknown);
        release(&mut entry, MINE.nonce);
        // Not even mine any more, and free for nobody: the next one looks at once.
        for by in [MINE, THEIRS] {
            let mut next = entry.clone();
            assert_eq!(go(&mut next, &by, &effect(), &NOBODY_LAPSED), Started::Unknown);
            assert_eq!(counts(&next, &effect()), (0, 1));
            assert_eq!(bar(&mut next, &by, &effect()), Bar::Barred);
        }
        assert_eq!(bar(&mut entry, &MINE, &effect()), Bar::Busy);
        release(&mut entry, Nonce::NOBODY);
        assert_eq!(go(&mut entry, &MINE, &effect(), &NOBODY_LAPSED), Started::Unknown);
    }
}
