//! Every row of the slot table, of `bar`, `store` and `release`.

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

/// Of a slot that was granted once.
fn kept(value: &'static str) -> Kept {
    Kept { value: value.into(), times: 0 }
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
    assert_eq!(go(&mut entry, &MINE, &call(), &NOBODY_LAPSED), Started::Done(kept("a")));
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
    assert_eq!(
        go(&mut entry, &MINE, &call(), &OTHER_LAPSED),
        Started::Go { repeat: true, times: 1, deaths: 1 }
    );
    assert_eq!(counts(&entry, &call()), (1, 1));
    assert!(matches!(state(&entry, &call()), SlotState::Started { nonce, .. } if nonce == MINE.nonce));
}

#[test]
fn an_until_that_passes_counts_a_repeat_and_no_death() {
    let (_, mut entry) = taken(&call());
    let again = start(&mut entry, &MINE, &call(), LATER, UNTIL, &NOBODY_LAPSED);
    assert_eq!(again, Started::Go { repeat: true, times: 1, deaths: 0 });
    assert_eq!(counts(&entry, &call()), (1, 0));
}

#[test]
fn a_death_is_counted_also_where_the_until_has_passed_meanwhile() {
    let (_, mut entry) = taken(&call());
    let again = start(&mut entry, &MINE, &call(), LATER, LATER, &OTHER_LAPSED);
    assert_eq!(again, Started::Go { repeat: true, times: 1, deaths: 1 });
}

#[test]
fn deaths_add_up_and_outlive_an_orderly_exit() {
    let (_, mut entry) = taken(&call());
    assert!(matches!(go(&mut entry, &MINE, &call(), &OTHER_LAPSED), Started::Go { deaths: 1, .. }));
    release(&mut entry, MINE.nonce, 0);
    assert_eq!(state(&entry, &call()), SlotState::Free);
    let granted = go(&mut entry, &THEIRS, &call(), &NOBODY_LAPSED);
    assert_eq!(granted, Started::Go { repeat: false, times: 1, deaths: 1 });
    let again = go(&mut entry, &MINE, &call(), &OTHER_LAPSED);
    assert_eq!(again, Started::Go { repeat: true, times: 2, deaths: 2 });
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
    let found = store(&mut entry, &own, &call(), "first".into());
    assert_eq!(found, (kept("first"), Standing::Stands));
    let found = store(&mut entry, &own, &call(), "second".into());
    assert_eq!(found, (kept("first"), Standing::Stands));
    marks::moved(&mut entry, &own, 1, super::super::OpenPhase::Open, Fence(98), NOW);
    let found = store(&mut entry, &own, &call(), "third".into());
    assert_eq!(found, (kept("first"), Standing::Stale));
    let other = Slot { name: SlotName("say".into()), kind: SlotKind::Call };
    let found = store(&mut entry, &own, &other, "late".into());
    assert_eq!(found, (kept("late"), Standing::Stale));
    let next = Token { hop: 1, ..own };
    assert_eq!(store(&mut entry, &next, &other, "x".into()), (kept("late"), Standing::Stands));
}

#[test]
fn an_answer_for_another_chain_or_for_none_is_not_kept() {
    let (own, entry) = admitted();
    let mut closed = entry.clone();
    marks::close(&mut closed, &own, OutcomeKind::Result, &place(90), Fence(98), NOW);
    let redriven = Token { generation: 1, ..own.clone() };
    for (before, t) in [(&None, &own), (&closed, &own), (&entry, &redriven), (&entry, &token(2, PAYLOAD))] {
        let mut after = before.clone();
        assert_eq!(store(&mut after, t, &call(), "a".into()), (kept("a"), Standing::Stale));
        assert_eq!(after, *before);
    }
}

#[test]
fn p3_a_stored_answer_keeps_the_counts_of_its_slot_and_comes_with_them() {
    let (own, mut entry) = taken(&call());
    let _ = go(&mut entry, &MINE, &call(), &OTHER_LAPSED);
    let again = Kept { times: 1, ..kept("a") };
    assert_eq!(store(&mut entry, &own, &call(), "a".into()), (again.clone(), Standing::Stands));
    assert_eq!(counts(&entry, &call()), (1, 1));
    assert_eq!(store(&mut entry, &own, &call(), "b".into()), (again.clone(), Standing::Stands));
    assert_eq!(go(&mut entry, &MINE, &call(), &OTHER_LAPSED), Started::Done(again.clone()));
    // Whoever takes the task up has granted nothing, and tells of it all the same.
    let Admission::Resumed(_, slots) = admit(&mut entry, false, &ask(&own)) else { panic!() };
    assert_eq!(slots.get(&call().name), Some(&again));
}

#[test]
fn release_gives_back_what_its_nonce_started_whatever_the_fence_and_nothing_else() {
    let (own, mut entry) = taken(&call());
    started_by(&mut entry, &MINE, &effect());
    let stored = Slot { name: SlotName("say".into()), kind: SlotKind::Call };
    let _ = store(&mut entry, &own, &stored, "a".into());
    marks::moved(&mut entry, &own, 1, super::super::OpenPhase::Open, Fence(98), NOW);
    release(&mut entry, THEIRS.nonce, 0);
    assert_eq!(state(&entry, &call()), SlotState::Free);
    assert!(matches!(state(&entry, &effect()), SlotState::Started { .. }));
    assert_eq!(state(&entry, &stored), SlotState::Stored { value: "a".into() });
    release(&mut None, THEIRS.nonce, 0);
    assert_eq!(counts(&entry, &call()), (0, 0));
}

#[test]
fn p3_what_was_sent_unheard_counts_as_granted_again_once_it_is_given_back() {
    let (_, mut entry) = taken(&call());
    release(&mut entry, MINE.nonce, 5);
    assert_eq!(counts(&entry, &call()), (0, 0), "what others have started is not touched");
    release(&mut entry, THEIRS.nonce, 2);
    assert_eq!((state(&entry, &call()), counts(&entry, &call())), (SlotState::Free, (2, 0)));
    let again = Started::Go { repeat: false, times: 2, deaths: 0 };
    assert_eq!(go(&mut entry, &MINE, &call(), &NOBODY_LAPSED), again);
}

#[test]
fn p4_a_slot_in_doubt_is_left_as_if_its_owner_had_died_which_counts_no_death() {
    let (_, mut entry) = taken(&effect());
    assert_eq!(go(&mut entry, &MINE, &effect(), &OTHER_LAPSED), Started::Unknown);
    release(&mut entry, MINE.nonce, 0);
    // Not even mine any more, and free for nobody: the next one looks at once.
    for by in [MINE, THEIRS] {
        let mut next = entry.clone();
        assert_eq!(go(&mut next, &by, &effect(), &NOBODY_LAPSED), Started::Unknown);
        assert_eq!(counts(&next, &effect()), (0, 1));
        assert_eq!(bar(&mut next, &by, &effect()), Bar::Barred);
    }
    assert_eq!(bar(&mut entry, &MINE, &effect()), Bar::Busy);
    release(&mut entry, Nonce::NOBODY, 0);
    assert_eq!(go(&mut entry, &MINE, &effect(), &NOBODY_LAPSED), Started::Unknown);
}

#[test]
fn p3_a_clock_that_jumps_gives_up_no_slot_of_a_living_owner_early_and_makes_nobody_wait_longer() {
    const HOUR: i64 = 3_600_000;
    let until = |now: Timestamp| now.plus(Duration::from_secs(70));
    let (_, entry) = taken(&call());
    // Back, as far as it goes: everybody looks again as soon as before, and a death is seen all the same.
    for now in [Timestamp(NOW.0 - HOUR), Timestamp(NOW.0 - 5_000 * HOUR), Timestamp(i64::MIN)] {
        let mut after = entry.clone();
        let looked = start(&mut after, &MINE, &call(), until(now), now, &NOBODY_LAPSED);
        assert_eq!((looked, &after), (Started::Busy(BUSY_MAX), &entry), "{now:?}");
        let dead = start(&mut after, &MINE, &call(), until(now), now, &OTHER_LAPSED);
        assert_eq!(dead, Started::Go { repeat: true, times: 1, deaths: 1 }, "{now:?}");
    }
    // Ahead: an `until` has passed for all that can be told. A call is granted again and counted, an effect is not.
    for now in [Timestamp(NOW.0 + HOUR), Timestamp(NOW.0 + 5_000 * HOUR), Timestamp(i64::MAX)] {
        let mut after = entry.clone();
        let again = start(&mut after, &MINE, &call(), until(now), now, &NOBODY_LAPSED);
        assert_eq!(again, Started::Go { repeat: true, times: 1, deaths: 0 }, "{now:?}");
        let (_, mut in_doubt) = taken(&effect());
        let effect = start(&mut in_doubt, &MINE, &effect(), until(now), now, &NOBODY_LAPSED);
        assert_eq!(effect, Started::Unknown, "{now:?}");
        // And back again, while the slot is granted until far ahead.
        let other = start(&mut after, &THEIRS, &call(), UNTIL, NOW, &NOBODY_LAPSED);
        assert_eq!(other, Started::Busy(BUSY_MAX), "{now:?}");
        let mine = start(&mut after, &MINE, &call(), UNTIL, NOW, &NOBODY_LAPSED);
        assert_eq!(mine, Started::Go { repeat: false, times: 1, deaths: 0 }, "{now:?}");
        assert!(
            matches!(state(&after, &call()), SlotState::Started { until: UNTIL, .. }),
            "by today's clock"
        );
    }
}

type Script<'s> = dyn Fn(&mut Option<Entry>) -> String + 's;

/// A store may load the head and that one slot, and write back no other.
#[test]
fn start_bar_and_store_neither_see_nor_touch_a_slot_they_do_not_name() {
    let (own, mut whole) = taken(&call());
    started_by(&mut whole, &MINE, &effect());
    let _ = store(&mut whole, &own, &Slot { name: SlotName("say".into()), kind: SlotKind::Call }, "a".into());
    for slot in [call(), effect(), Slot { name: SlotName("new".into()), kind: SlotKind::Effect }] {
        let mut alone = whole.clone();
        alone.as_mut().unwrap().slots.retain(|name, _| *name == slot.name);
        let scripts: [&Script; 3] = [
            &|e| format!("{:?}", go(e, &MINE, &slot, &OTHER_LAPSED)),
            &|e| format!("{:?}", bar(e, &MINE, &slot)),
            &|e| format!("{:?}", store(e, &own, &slot, "b".into())),
        ];
        for script in scripts {
            let (mut seen, mut unseen) = (whole.clone(), alone.clone());
            assert_eq!(script(&mut seen), script(&mut unseen));
            let (mut seen, unseen) = (seen.unwrap(), unseen.unwrap());
            assert_eq!(seen.slots.remove(&slot.name), unseen.slots.get(&slot.name).cloned());
            assert!(unseen.slots.len() <= 1);
            let mut others = whole.clone().unwrap();
            others.slots.remove(&slot.name);
            assert_eq!(seen, others);
        }
    }
}
