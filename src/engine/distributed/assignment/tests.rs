//! What the group says, step by step, and what is done about it.

use super::*;
use crate::dedupe::Instance;
use crate::task::Topic;
use std::collections::BTreeSet;

const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);
const TODAY: Timestamp = Timestamp(1_800_000_000_000);

fn part(index: u32) -> Partition {
    Partition { topic: Topic::new("tasks.ticket"), index }
}

fn id(name: &str) -> MemberId {
    MemberId(name.into())
}

fn member(name: &str) -> Membership {
    Membership { member: id(name), generation: 1 }
}

fn nothing() -> Loaded {
    Loaded { committed: None, first: 0, end: 100, oldest: Some(TODAY) }
}

fn leases(todo: &[Do]) -> Vec<Lease> {
    todo.iter().filter_map(|d| if let Do::Load(lease) = d { Some(lease.clone()) } else { None }).collect()
}

/// What was done, in words.
fn words(todo: &[Do]) -> Vec<String> {
    let index = |parts: &[Partition]| parts.iter().map(|p| p.index.to_string()).collect::<Vec<_>>().join("+");
    todo.iter()
        .map(|d| match d {
            Do::Assign(parts) => format!("assign {}", index(parts)),
            Do::Unassign(parts) => format!("unassign {}", index(parts)),
            Do::Load(lease) => format!("load {}", lease.at.index),
            Do::Serve { lease, from } => format!("serve {} from {from}", lease.at.index),
            Do::Flush => "flush".to_owned(),
            Do::Tell(Event::Assigned { lease }) => format!("tell assigned {}", lease.at.index),
            Do::Tell(Event::Draining { lease, .. }) => format!("tell draining {}", lease.at.index),
            Do::Tell(Event::Revoked { lease }) => format!("tell revoked {}", lease.at.index),
            Do::Tell(Event::Vanished { lease, .. }) => format!("tell vanished {}", lease.at.index),
            Do::Tell(other) => format!("{other:?}"),
            Do::Refuse { at, .. } => format!("refuse {}", at.index),
            Do::Note { what, .. } => format!("note {what:?}"),
        })
        .collect()
}

fn vanished(todo: &[Do]) -> Vec<Gone> {
    let told =
        |step: &Do| if let Do::Tell(Event::Vanished { gone, .. }) = step { Some(gone.clone()) } else { None };
    todo.iter().filter_map(told).collect()
}

/// A member that serves these partitions from their beginning.
fn serving(parts: &[u32], now: Instant) -> (Assignment, Vec<Lease>) {
    let mut held = Assignment::new(WINDOW, 0);
    let todo = held.said(Said::Assigned(parts.iter().map(|i| part(*i)).collect()), &member("a"), now);
    let leases = leases(&todo);
    for lease in &leases {
        let todo = held.loaded(lease, nothing(), false, TODAY);
        assert_eq!(
            words(&todo)[1..],
            [format!("tell assigned {}", lease.at.index), format!("serve {} from 0", lease.at.index)]
        );
    }
    (held, leases)
}

#[test]
fn a_partition_is_served_only_once_it_is_known_what_is_complete() {
    let now = Instant::now();
    let mut held = Assignment::new(WINDOW, 0);
    let todo = held.said(Said::Assigned(vec![part(0), part(1)]), &member("a"), now);
    assert_eq!(words(&todo), ["assign 0+1", "load 0", "load 1"]);
    let lease = leases(&todo)[0].clone();
    assert_eq!((held.fetched(&lease, 3).0, held.is_open(&lease)), (false, false));
    let progress = Progress { base: 4, end: 9, holes: BTreeSet::from([4, 6]) };
    let text = metadata::write(&progress, Author { instance: Instance(7), sequence: 3 });
    let found = Loaded { committed: Some((4, text)), ..nothing() };
    let todo = held.loaded(&lease, found, false, TODAY);
    assert_eq!(words(&todo), ["tell assigned 0", "serve 0 from 4"]);
    let delivered: Vec<u64> = (4..12).filter(|o| held.fetched(&lease, *o).0).collect();
    assert_eq!(delivered, [4, 6, 9, 10, 11]);
    assert_eq!(held.author(&lease), Some(Author { instance: Instance(7), sequence: 3 }));
}

#[test]
fn a_revoked_partition_is_given_up_once_nothing_of_it_is_left() {
    let now = Instant::now();
    let (mut held, leases) = serving(&[0, 1], now);
    let todo = held.said(Said::Revoked(vec![part(0)]), &member("a"), now);
    assert_eq!(words(&todo), ["tell draining 0", "flush"]);
    assert!(!held.is_open(&leases[0]) && held.is_valid(&leases[0]) && held.is_open(&leases[1]));
    assert!(held.tick(now, |_| false).is_empty(), "the worker has not handed in what it has");
    held.drained(&leases[0]);
    assert!(held.tick(now, |at| at.index == 0).is_empty(), "it is not committed yet");
    assert_eq!(words(&held.tick(now, |_| false)), ["tell revoked 0", "unassign 0"]);
    assert!(!held.is_valid(&leases[0]) && held.is_valid(&leases[1]));
    assert!(held.tick(now + DRAIN, |_| false).is_empty());
}

#[test]
fn p2_a_revocation_of_what_is_not_held_is_answered_at_once_and_never_for_what_is() {
    let now = Instant::now();
    let (mut held, leases) = serving(&[0], now);
    let todo = held.said(Said::Revoked(vec![part(1), part(2)]), &member("a"), now);
    assert_eq!(words(&todo), ["unassign 1+2", "flush"]);
    let todo = held.said(Said::Revoked(vec![part(0), part(2)]), &member("a"), now);
    assert_eq!(words(&todo), ["tell draining 0", "flush"], "one answer for all of it");
    held.drained(&leases[0]);
    assert_eq!(words(&held.tick(now, |_| false)), ["tell revoked 0", "unassign 0"]);
}

#[test]
fn a_revoked_partition_is_given_up_when_its_time_is_up() {
    let now = Instant::now();
    let (mut held, _) = serving(&[0], now);
    let _ = held.said(Said::Revoked(vec![part(0)]), &member("a"), now);
    assert_eq!(held.due(), Some(now + DRAIN));
    assert!(held.tick(now + DRAIN - Duration::from_millis(1), |_| true).is_empty());
    assert_eq!(words(&held.tick(now + DRAIN, |_| true)), ["tell revoked 0", "unassign 0"]);
    assert_eq!(held.due(), None);
}

#[test]
fn p1_what_is_lost_is_void_at_once() {
    let now = Instant::now();
    let (mut held, leases) = serving(&[0, 1], now);
    let todo = held.said(Said::Lost, &member("a"), now);
    assert_eq!(words(&todo), ["tell revoked 0", "tell revoked 1", "unassign 0+1"]);
    assert!(leases.iter().all(|l| !held.is_valid(l)));
}

#[test]
fn p1_another_member_id_means_that_everything_was_somebody_elses() {
    let now = Instant::now();
    for (said, ends) in [
        (Said::Revoked(vec![part(1)]), vec!["tell revoked 1", "unassign 1", "tell revoked 0", "load 0"]),
        (
            Said::Assigned(vec![part(2)]),
            vec!["tell revoked 0", "tell revoked 1", "load 0", "load 1", "assign 2", "load 2"],
        ),
        (Said::Assigned(vec![]), vec!["tell revoked 0", "tell revoked 1", "load 0", "load 1", "assign "]),
    ] {
        let (mut held, before) = serving(&[0, 1], now);
        let todo = held.said(said, &member("b"), now);
        assert_eq!(words(&todo), ends);
        let fresh = leases(&todo);
        assert!(before.iter().all(|l| !held.is_valid(l) && !held.fetched(l, 0).0));
        assert!(fresh.iter().all(|l| held.is_valid(l) && before.iter().all(|b| b.epoch < l.epoch)));
    }
}

#[test]
fn an_epoch_is_never_used_twice() {
    let now = Instant::now();
    let (mut held, first) = serving(&[0], now);
    let _ = held.said(Said::Lost, &member("a"), now);
    let second = leases(&held.said(Said::Assigned(vec![part(0)]), &member("b"), now));
    assert_ne!(first[0], second[0]);
    assert!(held.loaded(&first[0], nothing(), false, TODAY).is_empty(), "an answer that comes too late");
    assert!(!held.is_open(&second[0]));
}

#[test]
fn p2_without_an_offset_all_is_read_that_the_ledger_still_remembers() {
    let now = Instant::now();
    for (oldest, anyway, expected) in [
        (Some(TODAY), false, "note NothingCommitted"),
        (None, false, "note NothingCommitted"),
        (Some(Timestamp(TODAY.0 - 8 * 24 * 3_600_000)), false, "refuse 0"),
        (Some(Timestamp(TODAY.0 - 8 * 24 * 3_600_000)), true, "note NothingCommitted"),
    ] {
        let mut held = Assignment::new(WINDOW, 0);
        let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
        let todo = held.loaded(&lease, Loaded { oldest, ..nothing() }, anyway, TODAY);
        assert_eq!((words(&todo)[0].as_str(), held.is_open(&lease)), (expected, expected != "refuse 0"));
    }
}

#[test]
fn p2_foreign_metadata_costs_no_record_and_is_said() {
    let now = Instant::now();
    let text = metadata::write(&Progress::at(5), Author { instance: Instance(7), sequence: 3 });
    for (text, why) in [
        (String::new(), Foreign::Empty),
        ("x".to_owned(), Foreign::NotOurs),
        (text.replacen('A', "B", 1), Foreign::NotOurs),
        (format!("{}A", &text[..text.len() - 1]), Foreign::Damaged),
    ] {
        let mut held = Assignment::new(WINDOW, 0);
        let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
        let found = Loaded { committed: Some((5, text.clone())), ..nothing() };
        let todo = held.loaded(&lease, found, false, TODAY);
        assert_eq!(
            words(&todo),
            [format!("note {:?}", Notice::Foreign(why)), "tell assigned 0".into(), "serve 0 from 5".into()]
        );
    }
}

#[test]
fn row_20_p2_nothing_is_read_and_passed_over_until_it_is_known_which_tasks_had_vanished() {
    let now = Instant::now();
    let text = metadata::write(
        &Progress { base: 5, end: 20, holes: BTreeSet::from([5, 15]) },
        Author { instance: Instance(7), sequence: 3 },
    );
    let mut held = Assignment::new(WINDOW, 0);
    let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
    let found = Loaded { committed: Some((5, text)), first: 10, end: 100, oldest: Some(TODAY) };
    let todo = held.loaded(&lease, found, false, TODAY);
    let below = Gone { each: BTreeSet::from([5]), span: 20..20 };
    assert_eq!(vanished(&todo)[0], below);
    assert_eq!(words(&todo)[1..], ["tell assigned 0", "tell vanished 0"]);
    assert!(!held.fetched(&lease, 10).0 && !held.is_open(&lease), "not served yet");
    assert_eq!(held.tick(now, |_| false).len(), 0);
    assert_eq!(words(&held.orphaned(&lease, &below, &BTreeSet::from([5]))), ["serve 0 from 10"]);
    assert!(held.tracker(&lease).unwrap().take(5), "as if it had been delivered");
    // A record in the middle of a compacted log.
    let (deliver, todo) = held.fetched(&lease, 17);
    let inside = Gone { each: BTreeSet::from([15]), span: 0..0 };
    assert_eq!((deliver, vanished(&todo)), (false, vec![inside.clone()]));
    assert_eq!(held.is_complete(&part(0), 15), Some(false));
    assert!(held.orphaned(&lease, &inside, &BTreeSet::new()).is_empty());
    assert_eq!(held.is_complete(&part(0), 15), Some(true));
}

#[test]
fn row_20_p2_what_no_commit_of_ours_covers_and_is_gone_is_searched_for_tasks_that_it_began() {
    for (committed, span) in [
        (None, 0..10),
        (Some((5, String::new())), 5..10),
        (Some((500, "consumer-7".to_owned())), 500..u64::MAX),
    ] {
        let mut held = Assignment::new(WINDOW, 0);
        let now = Instant::now();
        let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
        let todo = held.loaded(&lease, Loaded { committed, first: 10, ..nothing() }, false, TODAY);
        let gone = Gone { each: BTreeSet::new(), span };
        assert_eq!(vanished(&todo), std::slice::from_ref(&gone));
        assert!(!held.is_open(&lease), "not served yet");
        assert_eq!(words(&held.orphaned(&lease, &gone, &BTreeSet::new())).last().unwrap(), "serve 0 from 10");
    }
}

#[test]
fn a_log_that_begins_at_its_beginning_has_lost_nothing() {
    for committed in [None, Some((5, String::new()))] {
        let mut held = Assignment::new(WINDOW, 0);
        let lease =
            leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), Instant::now()))[0].clone();
        let todo = held.loaded(&lease, Loaded { committed, ..nothing() }, false, TODAY);
        assert_eq!(vanished(&todo), []);
        assert!(words(&todo).last().unwrap().starts_with("serve 0 from "), "{:?}", words(&todo));
    }
}

#[test]
fn an_offset_beyond_the_end_is_of_another_topic_of_that_name() {
    let now = Instant::now();
    let mut held = Assignment::new(WINDOW, 0);
    let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
    let text = metadata::write(&Progress::at(500), Author { instance: Instance(7), sequence: 3 });
    let found = Loaded { committed: Some((500, text)), ..nothing() };
    let todo = held.loaded(&lease, found, false, TODAY);
    assert_eq!(words(&todo)[0], "note Recreated { committed: 500, end: 100 }");
    assert_eq!(words(&todo)[1..], ["tell assigned 0", "tell vanished 0"]);
    let gone = vanished(&todo)[0].clone();
    assert_eq!([499, 500, 7_000].map(|o| gone.contains(o)), [false, true, true]);
    // Its orphans have the offsets of the old one; the new one is not read among them.
    assert_eq!(words(&held.orphaned(&lease, &gone, &BTreeSet::from([510, 520]))), [""; 0]);
    for offset in [520, 510] {
        let tracker = held.tracker(&lease).unwrap();
        assert!(tracker.take(offset));
        let written = tracker.progress();
        assert!(written.base >= 500 && written.is_done(510) == (offset == 510), "{written:?}");
        tracker.settle(true);
        let expected: &[&str] = if offset == 510 { &["serve 0 from 0"] } else { &[] };
        assert_eq!(words(&held.tick(now, |_| false)), expected);
    }
    assert_eq!(held.is_complete(&part(0), 0), Some(false));
}

#[test]
fn p3_a_lease_is_confirmed_only_by_an_answer_that_was_asked_for_since() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let (mut held, leases) = serving(&[0, 1], now);
    assert!(!held.is_confirmed(&leases[0], now));
    held.confirmed(now, &id("a"), &[part(0)]);
    assert!(held.is_confirmed(&leases[0], now) && !held.is_confirmed(&leases[1], now));
    assert!(!held.is_confirmed(&leases[0], later), "asked before the ledger came back");
    held.confirmed(later, &id("b"), &[part(0)]);
    assert!(!held.is_confirmed(&leases[0], later), "somebody else holds it");
    held.confirmed(later, &id("a"), &[part(0)]);
    held.confirmed(now, &id("a"), &[part(0)]);
    assert!(held.is_confirmed(&leases[0], later), "a late answer takes nothing back");
    let anew = super::tests::leases(&held.said(Said::Assigned(vec![]), &member("b"), now));
    assert!(anew.iter().all(|l| !held.is_confirmed(l, now)), "a new lease is a new question");
}

#[test]
fn p1_a_generation_that_was_missed_means_the_same_as_another_member_id() {
    let now = Instant::now();
    let (mut held, before) = serving(&[0], now);
    let next = Membership { generation: 2, ..member("a") };
    assert_eq!(words(&held.said(Said::Assigned(vec![]), &next, now)), ["assign "]);
    assert!(held.is_valid(&before[0]));
    let later = Membership { generation: 4, ..member("a") };
    let todo = held.said(Said::Assigned(vec![]), &later, now);
    assert_eq!(words(&todo), ["tell revoked 0", "load 0", "assign "]);
    assert!(!held.is_valid(&before[0]));
}

#[test]
fn what_is_told_twice_to_go_has_no_more_time_than_before() {
    let now = Instant::now();
    let (mut held, leases) = serving(&[0], now);
    let _ = held.said(Said::Revoked(vec![part(0)]), &member("a"), now);
    let _ = held.said(Said::Revoked(vec![part(0)]), &member("a"), now + DRAIN / 2);
    assert_eq!(held.due(), Some(now + DRAIN));
    assert!(held.tick(now + DRAIN / 2, |_| false).is_empty(), "the worker has handed in nothing yet");
    assert!(held.is_valid(&leases[0]));
}

#[test]
fn what_was_leaving_when_the_session_was_lost_leaves_all_the_same() {
    let now = Instant::now();
    let (mut held, _) = serving(&[0, 1], now);
    let _ = held.said(Said::Revoked(vec![part(1)]), &member("a"), now);
    let todo = held.said(Said::Assigned(vec![]), &member("b"), now);
    assert_eq!(words(&todo), ["tell revoked 1", "unassign 1", "tell revoked 0", "load 0", "assign "]);
}

#[test]
fn p1_a_log_that_was_cut_short_is_not_read_again_from_a_time_that_nobody_remembers() {
    let now = Instant::now();
    let text = metadata::write(&Progress::at(500), Author { instance: Instance(7), sequence: 3 });
    let old = Some(Timestamp(TODAY.0 - 8 * 24 * 3_600_000));
    let mut held = Assignment::new(WINDOW, 0);
    let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
    let found = Loaded { committed: Some((500, text)), first: 0, end: 495, oldest: old };
    assert_eq!(words(&held.loaded(&lease, found, false, TODAY)), ["refuse 0"]);
}

#[test]
fn an_answer_about_an_older_lease_confirms_no_newer_one() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let (mut held, _) = serving(&[0], now);
    let _ = held.said(Said::Lost, &member("a"), now);
    let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), later))[0].clone();
    held.confirmed(now, &id("a"), &[part(0)]);
    assert!(!held.is_confirmed(&lease, now));
    held.confirmed(later, &id("a"), &[part(0)]);
    assert!(held.is_confirmed(&lease, now));
}

#[test]
fn a_partition_that_was_refused_is_read_in_again_every_half_minute_and_served_once_it_is_right() {
    let now = Instant::now();
    let old = Some(Timestamp(TODAY.0 - 8 * 24 * 3_600_000));
    let mut held = Assignment::new(WINDOW, 0);
    let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
    let refused = Loaded { oldest: old, ..nothing() };
    for n in 1..4 {
        assert_eq!(words(&held.loaded(&lease, refused.clone(), false, TODAY)), ["refuse 0"]);
        let due = now + n * REFUSED;
        assert_eq!(words(&held.tick(due - Duration::from_millis(1), |_| false)), [""; 0]);
        assert_eq!(words(&held.tick(due, |_| false)), ["load 0"]);
        assert_eq!(words(&held.tick(due, |_| false)), [""; 0], "one question at a time");
    }
    let todo = held.loaded(&lease, nothing(), false, TODAY);
    assert_eq!(words(&todo)[1..], ["tell assigned 0", "serve 0 from 0"]);
    assert_eq!(words(&held.tick(now + 9 * REFUSED, |_| false)), [""; 0]);
}

#[test]
fn row_20_p1_a_record_that_is_there_after_all_means_that_nothing_is_concluded_and_the_end_is_asked_for_again()
{
    let now = Instant::now();
    let progress = Progress { base: 500, end: 520, holes: BTreeSet::from([500, 510]) };
    let text = metadata::write(&progress, Author { instance: Instance(7), sequence: 3 });
    let mut held = Assignment::new(WINDOW, 0);
    let lease = leases(&held.said(Said::Assigned(vec![part(0)]), &member("a"), now))[0].clone();
    let found = Loaded { committed: Some((500, text)), ..nothing() };
    assert_eq!(vanished(&held.loaded(&lease, found.clone(), false, TODAY)).len(), 1);
    assert_eq!(words(&held.not_gone(&lease)), ["refuse 0"]);
    assert!(held.not_gone(&lease).is_empty() && held.tick(now, |_| false).is_empty());
    assert_eq!(words(&held.tick(now + REFUSED, |_| false)), ["load 0"]);
    let todo = held.loaded(&lease, Loaded { end: 600, ..found }, false, TODAY);
    assert_eq!(words(&todo), ["tell assigned 0", "serve 0 from 500"]);
    let delivered: Vec<u64> = (500..522).filter(|o| held.fetched(&lease, *o).0).collect();
    assert_eq!(delivered, [500, 510, 520, 521], "holes as before");
    assert!(held.not_gone(&lease).is_empty() && held.is_open(&lease), "what is served goes on");
}
