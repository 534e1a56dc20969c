//! What the ledger learns after a commit; may be late, may never come.
//!
//! A mark never opens what is closed, never goes back a hop, and says nothing to a chain that is
//! not its own. It carries the fingerprint: a ledger that forgot must still know whose key it is.

use super::entry::{Entry, Fence, OpenPhase, Phase};
use crate::outcome::OutcomeKind;
use crate::task::{Position, Timestamp, Token};
use std::collections::BTreeMap;

/// The outcome of the token's chain is visible at `at`. `fence`: new, held by nobody.
pub fn close(
    entry: &mut Option<Entry>,
    token: &Token,
    outcome: OutcomeKind,
    at: &Position,
    fence: Fence,
    now: Timestamp,
) {
    let phase = Phase::Closed { outcome, at: at.clone() };
    match entry {
        Some(e) if e.same_chain(token) && !e.is_closed() => {
            e.phase = phase;
            e.hop = e.hop.max(token.hop);
            e.decider = None;
            e.fence = fence;
            e.slots.clear();
            e.changed = now;
        }
        _ if replaceable(entry.as_ref(), token) => *entry = Some(create(token, token.hop, phase, fence, now)),
        _ => {}
    }
}

/// The token's chain has moved on to `hop`. `fence`: new, held by nobody, so that a delivery of
/// the hop before cannot go on in slots that belong to the next one.
pub fn moved(
    entry: &mut Option<Entry>,
    token: &Token,
    hop: u32,
    phase: OpenPhase,
    fence: Fence,
    now: Timestamp,
) {
    let phase = match phase {
        OpenPhase::Open => Phase::Open,
        OpenPhase::Waiting => Phase::Waiting,
    };
    match entry {
        Some(e) if e.same_chain(token) && !e.is_closed() && hop > e.hop => {
            e.rise(hop);
            e.phase = phase;
            e.fence = fence;
            e.changed = now;
        }
        _ if replaceable(entry.as_ref(), token) => *entry = Some(create(token, hop, phase, fence, now)),
        _ => {}
    }
}

fn replaceable(entry: Option<&Entry>, token: &Token) -> bool {
    entry.is_none_or(|e| e.generation < token.generation)
}

fn create(token: &Token, hop: u32, phase: Phase, fence: Fence, now: Timestamp) -> Entry {
    Entry {
        generation: token.generation,
        origin: token.origin.clone(),
        hop,
        print: token.print.clone(),
        fence,
        decider: None,
        phase,
        slots: BTreeMap::new(),
        since: now,
        changed: now,
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::{Admission, Ask, admit};
    use super::super::entry::{SlotState, expire, window_over};
    use super::super::examples::*;
    use super::super::slots::{Bar, Started, bar, start, store};
    use super::*;
    use std::time::Duration;

    const NEW: Fence = Fence(50);
    const LATER: Timestamp = Timestamp(NOW.0 + 60_000);

    fn closes(entry: &mut Option<Entry>, token: &Token) {
        close(entry, token, OutcomeKind::DeadLetter, &place(90), NEW, LATER);
    }

    fn moves(entry: &mut Option<Entry>, token: &Token, hop: u32) {
        moved(entry, token, hop, OpenPhase::Waiting, NEW, LATER);
    }

    fn done() -> Phase {
        Phase::Closed { outcome: OutcomeKind::DeadLetter, at: place(90) }
    }

    #[test]
    fn close_closes_the_chain_and_keeps_only_what_the_next_copy_is_compared_with() {
        let (own, mut entry) = admitted();
        let _ = store(&mut entry, &own, &call(), "a".into());
        let last = Token { hop: 2, print: token(1, STRANGER).print, ..own.clone() };
        closes(&mut entry, &last);
        let e = entry.unwrap();
        assert_eq!((e.hop, &e.print, &e.phase, e.slots.len()), (2, &own.print, &done(), 0));
        assert_eq!((e.since, e.changed), (NOW, LATER));
    }

    #[test]
    fn a_late_close_of_an_earlier_hop_does_not_lower_the_hop() {
        let (own, mut entry) = admitted();
        moves(&mut entry, &own, 4);
        closes(&mut entry, &own);
        assert_eq!(entry.unwrap().hop, 4);
    }

    #[test]
    fn p1_marks_make_the_entry_where_there_is_none_or_one_of_a_lower_generation() {
        let (_, before) = admitted();
        let redriven = Token { generation: 1, ..token(5, PAYLOAD) };
        for entry in [None, before] {
            let mut closed = entry.clone();
            closes(&mut closed, &redriven);
            let e = closed.unwrap();
            assert_eq!((e.generation, &e.origin, &e.print), (1, &redriven.origin, &redriven.print));
            assert_eq!((e.phase, e.slots.len()), (done(), 0));
            let mut parked = entry;
            moves(&mut parked, &redriven, 3);
            let e = parked.unwrap();
            assert_eq!((e.generation, &e.origin, &e.print), (1, &redriven.origin, &redriven.print));
            assert_eq!((e.hop, e.phase, e.fence), (3, Phase::Waiting, NEW));
        }
    }

    #[test]
    fn marks_of_another_chain_or_an_older_generation_are_ignored() {
        let (own, mut first) = admitted();
        let mut second = first.clone();
        let redriven = Token { generation: 1, proof: Some(place(90)), ..token(5, PAYLOAD) };
        assert!(matches!(admit(&mut second, false, &ask(&redriven)), Admission::Fresh(_)));
        for (entry, t) in [(&mut first, &token(2, PAYLOAD)), (&mut second, &own)] {
            let before = entry.clone();
            closes(entry, t);
            moves(entry, t, 9);
            assert_eq!(*entry, before);
        }
    }

    #[test]
    fn p1_nothing_opens_what_is_closed() {
        let (own, mut entry) = admitted();
        closes(&mut entry, &own);
        let before = entry.clone();
        moves(&mut entry, &own, 9);
        close(&mut entry, &own, OutcomeKind::Result, &place(91), Fence(51), LATER);
        assert_eq!(entry, before);
    }

    #[test]
    fn p4_moved_takes_the_fence_from_everybody_and_makes_a_new_question_of_the_hop() {
        let (own, mut entry) = admitted();
        let (d, item) = (place(70), Token { hop: 1, ..own });
        let decides = Ask { decider: Some(&d), fence: MINE.fence, ..ask(&item) };
        assert!(matches!(admit(&mut entry, false, &decides), Admission::Resumed(..)));
        assert_eq!(bar(&mut entry, &MINE, &effect()), Bar::Barred);
        moves(&mut entry, &item, 2);
        let e = entry.as_ref().unwrap();
        assert_eq!((e.hop, &e.decider, &e.phase, e.fence), (2, &None, &Phase::Waiting, NEW));
        assert_eq!(state(&entry, &effect()), SlotState::Free);
        assert_eq!(start(&mut entry, &MINE, &effect(), UNTIL, NOW, &NOBODY_LAPSED), Started::Stale);
    }

    #[test]
    fn a_moved_that_is_no_news_changes_nothing() {
        let (own, mut entry) = admitted();
        moves(&mut entry, &own, 2);
        let before = entry.clone();
        for hop in [0, 1, 2] {
            moved(&mut entry, &own, hop, OpenPhase::Open, Fence(51), LATER);
        }
        assert_eq!(entry, before);
    }

    #[test]
    fn only_what_is_closed_expires_one_window_after_it_changed() {
        let window = Duration::from_secs(7 * 24 * 3600);
        let end = LATER.plus(window);
        let (own, mut entry) = admitted();
        expire(&mut entry, window, end.plus(window));
        assert!(entry.is_some());
        closes(&mut entry, &own);
        expire(&mut entry, window, Timestamp(end.0 - 1));
        assert!(entry.is_some());
        expire(&mut entry, window, end);
        assert_eq!(entry, None);
        assert!(!window_over(NOW, window, Timestamp(NOW.plus(window).0 - 1)));
        assert!(window_over(NOW, window, NOW.plus(window)));
    }

    #[test]
    fn p1_a_clock_that_jumps_forgets_no_outcome_within_its_window_and_keeps_none_for_ever() {
        const HOUR: i64 = 3_600_000;
        let window = Duration::from_secs(7 * 24 * 3600);
        let (own, mut entry) = admitted();
        closes(&mut entry, &own);
        for now in [i64::MIN, 0, LATER.0 - 5 * HOUR, LATER.0 + 5 * HOUR] {
            expire(&mut entry, window, Timestamp(now));
            assert!(entry.is_some(), "at {now}");
        }
        // Closed while the clock was hours ahead: known for those hours longer, and no more.
        let (own, mut entry) = admitted();
        let ahead = Timestamp(LATER.0 + 5 * HOUR);
        close(&mut entry, &own, OutcomeKind::Result, &place(90), NEW, ahead);
        expire(&mut entry, window, LATER.plus(window));
        assert!(entry.is_some());
        expire(&mut entry, window, ahead.plus(window));
        assert_eq!(entry, None);
        // At the end of time nothing overflows.
        let (own, mut entry) = admitted();
        close(&mut entry, &own, OutcomeKind::Result, &place(90), NEW, Timestamp(i64::MAX));
        expire(&mut entry, Duration::MAX, Timestamp(i64::MIN));
        assert!(entry.is_some());
    }
}
