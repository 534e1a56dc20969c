//! Every row of admission, refusal and decision, by its number.

use super::super::examples::*;
use super::super::marks;
use super::super::slots::{Kept, Standing, bar, store};
use super::*;
use crate::task::PrintRule;

fn closed() -> (Token, Option<Entry>) {
    let (token, mut entry) = admitted();
    marks::close(&mut entry, &token, OutcomeKind::Result, &place(90), Fence(13), NOW);
    (token, entry)
}

fn redriven(offset: u64, payload: &'static str) -> Token {
    Token { generation: 1, proof: Some(place(90)), ..token(offset, payload) }
}

/// Asks and expects that only the fence, the phase and the hop may have changed.
fn verdict(entry: &Option<Entry>, token: &Token) -> Admission {
    admit(&mut entry.clone(), false, &ask(token))
}

fn untouched(entry: &Option<Entry>, ask: &Ask) -> Admission {
    let mut after = entry.clone();
    let admission = admit(&mut after, false, ask);
    assert_eq!(after, *entry, "{admission:?}");
    admission
}

#[test]
fn row_1_a_refused_origin_stays_refused_at_hop_0_whatever_the_entry_says() {
    let (own, entry) = admitted();
    assert!(matches!(admit(&mut None, true, &ask(&own)), Admission::Refused));
    assert!(matches!(admit(&mut entry.clone(), true, &ask(&own)), Admission::Refused));
    let later = Token { hop: 1, ..own };
    assert!(matches!(admit(&mut entry.clone(), true, &ask(&later)), Admission::Resumed(..)));
}

#[test]
fn row_2_the_first_record_of_a_key_is_fresh_and_its_fingerprint_is_kept() {
    let first = token(1, PAYLOAD);
    let mut entry = None;
    let Admission::Fresh(claim) = admit(&mut entry, false, &ask(&first)) else { panic!() };
    assert_eq!((claim.fence, claim.nonce, &claim.token), (Fence(12), MINE.nonce, &first));
    let e = entry.unwrap();
    assert_eq!((e.origin, e.print, e.fence, e.phase), (first.origin, first.print, Fence(12), Phase::Open));
    assert_eq!((e.since, e.changed), (NOW, NOW));
}

#[test]
fn row_2_a_later_generation_needs_its_proof_where_the_ledger_knows_nothing() {
    let proved = redriven(5, PAYLOAD);
    assert!(matches!(verdict(&None, &proved), Admission::Fresh(_)));
    let mut entry = None;
    let unproved = Token { proof: None, ..proved };
    assert!(matches!(admit(&mut entry, false, &ask(&unproved)), Admission::Invalid));
    assert_eq!(entry, None);
}

#[test]
fn p1_row_3_a_record_whose_chain_has_its_outcome_is_silent_and_says_where_that_lies() {
    let (own, entry) = closed();
    for hop in [0, 1, 9] {
        let Admission::Silent(why) = untouched(&entry, &ask(&Token { hop, ..own.clone() })) else { panic!() };
        assert_eq!(why, Silence::Done { outcome: OutcomeKind::Result, at: place(90) });
    }
}

#[test]
fn p1_row_3_a_token_that_its_chain_has_moved_past_is_silent() {
    let (own, mut entry) = admitted();
    marks::moved(&mut entry, &own, 2, super::super::OpenPhase::Open, Fence(13), NOW);
    let old = Token { hop: 1, ..own };
    assert!(matches!(untouched(&entry, &ask(&old)), Admission::Silent(Silence::Moved)));
}

#[test]
fn p3_row_4_a_token_that_comes_again_is_resumed_with_a_new_fence_and_every_stored_answer() {
    let (own, mut entry) = admitted();
    assert_eq!(store(&mut entry, &own, &call(), "a".into()).1, Standing::Stands);
    started_by(&mut entry, &THEIRS, &effect());
    let Admission::Resumed(claim, slots) = admit(&mut entry, false, &ask(&own)) else { panic!() };
    assert_eq!(slots, BTreeMap::from([(call().name, Kept { value: "a".into(), times: 0 })]));
    assert_eq!(claim.fence, Fence(12));
    assert_eq!(entry.as_ref().unwrap().fence, Fence(12));
    assert!(matches!(state(&entry, &effect()), SlotState::Started { .. }));
}

#[test]
fn row_4_at_the_same_hop_the_decider_and_what_is_barred_stay() {
    let (own, mut entry) = admitted();
    let (d, item) = (place(70), Token { hop: 1, ..own });
    assert!(matches!(
        admit(&mut entry, false, &Ask { decider: Some(&d), fence: MINE.fence, ..ask(&item) }),
        Admission::Resumed(..)
    ));
    assert_eq!(bar(&mut entry, &MINE, &effect()), super::super::Bar::Barred);
    assert!(matches!(admit(&mut entry, false, &ask(&item)), Admission::Resumed(..)));
    assert_eq!(entry.as_ref().unwrap().decider, Some(d));
    assert_eq!(state(&entry, &effect()), SlotState::Barred);
}

#[test]
fn row_4_a_hop_that_rises_has_no_decider_frees_what_was_barred_and_opens_what_waited() {
    let (own, mut entry) = admitted();
    let d = place(70);
    let item = Token { hop: 1, ..own };
    let decides = Ask { decider: Some(&d), fence: MINE.fence, ..ask(&item) };
    assert!(matches!(admit(&mut entry, false, &decides), Admission::Resumed(..)));
    assert_eq!(bar(&mut entry, &MINE, &effect()), super::super::Bar::Barred);
    assert_eq!(entry.as_ref().unwrap().phase, Phase::Waiting);
    let next = Token { hop: 2, ..item };
    assert!(matches!(admit(&mut entry, false, &ask(&next)), Admission::Resumed(..)));
    let e = entry.as_ref().unwrap();
    assert_eq!((e.hop, &e.decider, &e.phase), (2, &None, &Phase::Open));
    assert_eq!(state(&entry, &effect()), SlotState::Free);
}

#[test]
fn row_5_another_payload_is_a_conflict_whatever_the_generations_and_touches_nothing() {
    let (own, open) = admitted();
    let (_, done) = closed();
    let second = Token { generation: 1, proof: Some(place(90)), ..token(6, PAYLOAD) };
    let mut later = done.clone();
    assert!(matches!(admit(&mut later, false, &ask(&second)), Admission::Fresh(_)));
    for (entry, stranger) in [
        (&open, token(2, STRANGER)),
        (&done, token(2, STRANGER)),
        (&later, token(2, STRANGER)),
        (&open, redriven(2, STRANGER)),
        (&done, redriven(2, STRANGER)),
        (&done, Token { proof: None, ..redriven(2, STRANGER) }),
    ] {
        assert!(matches!(untouched(entry, &ask(&stranger)), Admission::Conflict), "{stranger:?}");
    }
    // What it was first admitted as counts, not what the token of its own chain says later.
    let edited = Token { print: token(1, STRANGER).print, ..own };
    assert!(matches!(verdict(&open, &edited), Admission::Resumed(..)));
}

#[test]
fn row_5_prints_are_compared_under_the_rule_of_the_entry() {
    let (_, entry) = admitted();
    let under = |rule: PrintRule, payload: &'static str| Token {
        print: fingerprint::fingerprint(&rule, payload.as_bytes()).unwrap(),
        payload: payload.into(),
        ..token(2, PAYLOAD)
    };
    let fields = || PrintRule::Fields(["text".to_owned()].into());
    let spaced = r#"{ "text": "hello" }"#;
    for copy in [under(fields(), PAYLOAD), under(PrintRule::Bytes, spaced)] {
        assert!(matches!(verdict(&entry, &copy), Admission::Silent(Silence::Duplicate)));
    }
    assert!(matches!(verdict(&entry, &under(fields(), STRANGER)), Admission::Conflict));
    assert!(matches!(verdict(&entry, &under(PrintRule::Bytes, "no JSON")), Admission::Conflict));
}

#[test]
fn row_6_a_record_of_an_older_generation_is_silent() {
    let (own, _) = admitted();
    let (_, mut entry) = closed();
    assert!(matches!(admit(&mut entry, false, &ask(&redriven(5, PAYLOAD))), Admission::Fresh(_)));
    for old in [own, token(2, PAYLOAD)] {
        assert!(matches!(untouched(&entry, &ask(&old)), Admission::Silent(Silence::Older)));
    }
}

#[test]
fn row_7_a_redrive_replaces_what_is_closed_or_what_its_proof_says_is_done() {
    let (own, mut open) = admitted();
    let _ = store(&mut open, &own, &call(), "a".into());
    let (_, done) = closed();
    let proved = redriven(5, PAYLOAD);
    let unproved = Token { proof: None, ..proved.clone() };
    for (entry, t) in [(&open, &proved), (&done, &proved), (&done, &unproved)] {
        let mut after = entry.clone();
        assert!(matches!(admit(&mut after, false, &ask(t)), Admission::Fresh(_)));
        let e = after.unwrap();
        assert_eq!((e.generation, &e.origin, e.slots.len()), (1, &proved.origin, 0));
        assert_eq!(e.phase, Phase::Open);
    }
    assert!(matches!(untouched(&open, &ask(&unproved)), Admission::Invalid));
}

#[test]
fn p1_row_8_another_record_of_the_same_payload_is_a_duplicate_also_after_the_outcome() {
    for entry in [admitted().1, closed().1] {
        let copy = token(2, r#"{"text" : "hello"}"#);
        assert!(matches!(untouched(&entry, &ask(&copy)), Admission::Silent(Silence::Duplicate)));
    }
}

#[test]
fn the_same_offset_of_a_topic_made_again_is_another_origin() {
    let (own, entry) = admitted();
    let origin = crate::task::Origin { stamp: Timestamp(6), ..own.origin.clone() };
    assert!(matches!(verdict(&entry, &Token { origin, ..own }), Admission::Silent(Silence::Duplicate)));
}

#[test]
fn whoever_is_not_granted_the_key_gives_back_what_its_nonce_started() {
    let (own, mut entry) = admitted();
    started_by(&mut entry, &MINE, &call());
    started_by(&mut entry, &THEIRS, &effect());
    marks::moved(&mut entry, &own, 1, super::super::OpenPhase::Open, Fence(13), NOW);
    assert!(matches!(admit(&mut entry, false, &ask(&own)), Admission::Silent(Silence::Moved)));
    assert_eq!(state(&entry, &call()), SlotState::Free);
    assert!(matches!(state(&entry, &effect()), SlotState::Started { .. }));
}

#[test]
fn whoever_is_granted_the_key_again_keeps_what_its_nonce_started() {
    let (own, mut entry) = admitted();
    started_by(&mut entry, &MINE, &call());
    assert!(matches!(admit(&mut entry, false, &ask(&own)), Admission::Resumed(..)));
    assert!(matches!(state(&entry, &call()), SlotState::Started { nonce, .. } if nonce == MINE.nonce));
}

#[test]
fn p1_the_first_decision_decides_and_the_second_is_told_who_did() {
    let (own, mut entry) = admitted();
    let item = Token { hop: 1, ..own };
    marks::moved(&mut entry, &item, 1, super::super::OpenPhase::Waiting, Fence(13), NOW);
    let (d, e) = (place(70), place(71));
    for _ in 0..2 {
        let decides = Ask { decider: Some(&d), ..ask(&item) };
        assert!(matches!(admit(&mut entry, false, &decides), Admission::Resumed(..)));
        let now = entry.as_ref().unwrap();
        assert_eq!((&now.decider, &now.phase), (&Some(d.clone()), &Phase::Waiting));
    }
    let Admission::Told(decider) = untouched(&entry, &Ask { decider: Some(&e), ..ask(&item) }) else {
        panic!()
    };
    assert_eq!(decider, d);
}

#[test]
fn a_decision_whose_item_the_ledger_does_not_know_makes_the_entry_that_waits() {
    let item = Token { hop: 3, ..token(1, PAYLOAD) };
    let (d, mut entry) = (place(70), None);
    let decides = Ask { decider: Some(&d), ..ask(&item) };
    assert!(matches!(admit(&mut entry, false, &decides), Admission::Fresh(_)));
    let e = entry.unwrap();
    assert_eq!((e.hop, e.decider, e.phase), (3, Some(d), Phase::Waiting));
}

#[test]
fn a_decider_of_an_earlier_hop_decides_nothing_at_a_later_one() {
    let (own, mut entry) = admitted();
    let (d, e) = (place(70), place(71));
    let item = Token { hop: 1, ..own };
    let next = Token { hop: 3, ..item.clone() };
    for (decider, t) in [(&d, &item), (&e, &next)] {
        let decides = Ask { decider: Some(decider), ..ask(t) };
        assert!(matches!(admit(&mut entry, false, &decides), Admission::Resumed(..)));
    }
    assert_eq!(entry.as_ref().unwrap().decider, Some(e));
    let late = Ask { decider: Some(&d), ..ask(&item) };
    assert!(matches!(untouched(&entry, &late), Admission::Silent(Silence::Moved)));
}

#[test]
fn a_decision_on_a_task_that_has_its_outcome_is_silent_and_on_a_stranger_a_conflict() {
    let (own, entry) = closed();
    let d = place(70);
    let item = Token { hop: 1, ..own };
    let late = Ask { decider: Some(&d), ..ask(&item) };
    assert!(matches!(untouched(&entry, &late), Admission::Silent(Silence::Done { .. })));
    let stranger = Token { hop: 1, ..token(2, STRANGER) };
    assert!(matches!(untouched(&entry, &Ask { decider: Some(&d), ..ask(&stranger) }), Admission::Conflict));
}

mod refusals {
    use super::*;

    fn refused(entry: &Option<Entry>, token: &Token) -> (Admission, bool) {
        refuse(&mut entry.clone(), false, &ask(token))
    }

    #[test]
    fn p1_a_refused_token_of_a_running_chain_goes_through_admission() {
        let (own, entry) = admitted();
        assert!(matches!(refused(&entry, &own), (Admission::Resumed(..), false)));
        let parked = Token { hop: 1, ..own.clone() };
        assert!(matches!(refused(&entry, &parked), (Admission::Resumed(..), false)));
        assert!(matches!(refused(&None, &parked), (Admission::Fresh(_), false)));
        assert!(matches!(refused(&closed().1, &own), (Admission::Silent(Silence::Done { .. }), false)));
    }

    #[test]
    fn a_refused_copy_of_what_is_there_is_silent() {
        for entry in [admitted().1, closed().1] {
            let verdict = refused(&entry, &token(2, PAYLOAD));
            assert!(matches!(verdict, (Admission::Silent(Silence::Duplicate), false)));
        }
        let (_, mut later) = closed();
        assert!(matches!(admit(&mut later, false, &ask(&redriven(5, PAYLOAD))), Admission::Fresh(_)));
        let verdict = refused(&later, &token(2, PAYLOAD));
        assert!(matches!(verdict, (Admission::Silent(Silence::Older), false)));
    }

    #[test]
    fn p2_what_is_refused_before_it_owns_a_key_leaves_word_and_leaves_the_key_alone() {
        let (_, open) = admitted();
        let (_, done) = closed();
        for (entry, t) in [
            (&None, token(2, PAYLOAD)),
            (&open, token(2, STRANGER)),
            (&done, token(2, STRANGER)),
            (&done, redriven(2, PAYLOAD)),
        ] {
            let mut after = entry.clone();
            assert!(matches!(refuse(&mut after, false, &ask(&t)), (Admission::Refused, true)));
            assert_eq!(after, *entry);
        }
    }

    #[test]
    fn a_refusal_gives_back_what_its_nonce_started() {
        let (_, mut entry) = admitted();
        started_by(&mut entry, &MINE, &call());
        let poison = token(2, STRANGER);
        assert!(matches!(refuse(&mut entry, false, &ask(&poison)), (Admission::Refused, true)));
        assert_eq!(state(&entry, &call()), SlotState::Free);
    }
}
