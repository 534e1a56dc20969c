//! What goes into a transaction, and what becomes of it, for each way in which it can end.

use super::super::assignment::{Do, Loaded, MemberId, Said};
use super::super::metadata::Progress;
use super::*;
use crate::outcome::OutcomeKind;
use crate::task::{Headers, Origin, PrintRule, ScopedKey, Timestamp, Token, Topic};
use bytes::Bytes;
use std::collections::BTreeSet;

const ME: Instance = Instance(1);
const OTHER: Instance = Instance(2);
const TODAY: Timestamp = Timestamp(1_800_000_000_000);

fn part(index: u32) -> Partition {
    Partition { topic: Topic::new("tasks.ticket"), index }
}

fn member(name: &str) -> Membership {
    Membership { member: MemberId(name.into()), generation: 1 }
}

fn position(offset: u64) -> Position {
    Position { at: Partition { topic: Topic::new("results"), index: 0 }, offset }
}

struct Bench {
    held: Assignment,
    committer: Committer,
    leases: Vec<Lease>,
    now: Instant,
}

/// A member that serves two partitions, each with a hundred records fetched.
fn bench() -> Bench {
    let now = Instant::now();
    let mut held = Assignment::new(Duration::from_secs(1), 0);
    let said = Said::Assigned(vec![part(0), part(1)]);
    let todo = held.said(said, &member("a"), now);
    let leases: Vec<Lease> =
        todo.iter().filter_map(|d| if let Do::Load(l) = d { Some(l.clone()) } else { None }).collect();
    for lease in &leases {
        let found = Loaded { committed: None, first: 0, end: 100, oldest: None };
        let _ = held.loaded(lease, found, false, TODAY);
        assert!((0..100).all(|o| held.fetched(lease, o).0));
    }
    Bench { held, committer: Committer::new(ME, 0), leases, now }
}

fn output(value: &str) -> Output {
    let (value, headers) = (Some(Bytes::copy_from_slice(value.as_bytes())), Headers::default());
    Output { topic: Topic::new("results"), key: None, value, headers, not_before: None }
}

fn token(offset: u64) -> Token {
    let print = crate::fingerprint::fingerprint(&PrintRule::Whole, b"{}").unwrap();
    let origin = Origin { position: Position { at: part(0), offset }, stamp: TODAY };
    let key = ScopedKey::new("", "ticket", &offset.to_string());
    Token { key, generation: 0, origin, hop: 0, print, proof: None, payload: Bytes::from_static(b"{}") }
}

/// A member that works on so many records of one partition, so far apart that each hole costs three bytes:
/// 2,000 of them do not fit into 4,096 characters.
fn far_apart(count: u64, now: Instant) -> (Assignment, Lease, Vec<u64>) {
    let mut held = Assignment::new(Duration::from_secs(1), 0);
    let todo = held.said(Said::Assigned(vec![part(0)]), &member("a"), now);
    let Some(Do::Load(lease)) = todo.into_iter().find(|d| matches!(d, Do::Load(_))) else { panic!() };
    let found = Loaded { committed: None, first: 0, end: 1 << 40, oldest: None };
    let _ = held.loaded(&lease, found, false, TODAY);
    let offsets: Vec<u64> = (0..count).map(|i| i * 50_000).collect();
    assert!(offsets.iter().all(|o| held.fetched(&lease, *o).0));
    (held, lease, offsets)
}

impl Bench {
    fn completion(&self, lease: usize, offset: u64, values: &[&str]) -> Completion {
        let mark = Mark::Close { token: token(offset), outcome: OutcomeKind::Result, output: 0 };
        Completion {
            lease: self.leases[lease].clone(),
            offset,
            outputs: values.iter().map(|v| output(v)).collect(),
            urgent: false,
            mark: Some(mark),
        }
    }

    /// The ticket is the offset, with a thousand for each partition before.
    fn hand_in(&mut self, lease: usize, offset: u64, values: &[&str]) {
        let done = self.completion(lease, offset, values);
        let settled = self.committer.hand_in(ticket(lease, offset), done, &self.held);
        assert!(settled.answers.is_empty());
    }

    fn next(&mut self) -> Option<Transaction> {
        match self.committer.next(&mut self.held, self.now) {
            (Some(Act::Commit(transaction)), _) => Some(transaction),
            (None, _) => None,
            (Some(other), _) => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, ended: Ended) -> (Option<Act>, Settled) {
        self.committer.ended(ended, &mut self.held, self.now)
    }

    fn visible(&mut self, offsets: std::ops::Range<u64>) -> Settled {
        let (act, settled) = self.ended(Ended::Visible(offsets.map(position).collect()));
        assert_eq!(act, None);
        settled
    }

    /// A commit that was sent and never answered, up to the question what has become of it.
    fn unknown(&mut self) -> Vec<Partition> {
        let unknown = Ended::Unknown { positions: (50..60).map(position).collect(), why: "timed out".into() };
        assert_eq!(self.ended(unknown).0, Some(Act::Renew));
        match self.committer.renewed(&mut self.held, self.now) {
            Some(Act::ReadBack(parts)) => parts,
            other => panic!("{other:?}"),
        }
    }

    fn read_back(&mut self, found: &[(u32, Option<(u64, String)>)]) -> Settled {
        let found = found.iter().map(|(i, f)| (part(*i), f.clone())).collect();
        self.committer.read_back(&found, &mut self.held, self.now)
    }
}

fn ticket(lease: usize, offset: u64) -> Ticket {
    Ticket(lease as u64 * 1_000 + offset)
}

fn values(t: &Transaction) -> Vec<String> {
    t.outputs.iter().map(|o| String::from_utf8(o.value.clone().unwrap().to_vec()).unwrap()).collect()
}

/// Partition, offset, holes and who wrote them.
fn offsets(t: &Transaction) -> Vec<(u32, u64, Vec<u64>, Author)> {
    let read = |(at, base, text): &(Partition, u64, String)| {
        let (progress, author) = metadata::read(*base, text).unwrap();
        (at.index, *base, progress.holes.into_iter().collect(), author)
    };
    t.offsets.iter().map(read).collect()
}

fn by(instance: Instance, sequence: u64) -> Author {
    Author { instance, sequence }
}

#[test]
fn p1_outputs_and_offsets_of_one_moment_are_one_transaction() {
    let mut b = bench();
    b.hand_in(0, 1, &["one"]);
    b.hand_in(1, 0, &["two", "three"]);
    let t = b.next().unwrap();
    assert_eq!(values(&t), ["one", "two", "three"]);
    assert_eq!(offsets(&t), [(0, 0, vec![0], by(ME, 1)), (1, 1, vec![], by(ME, 1))]);
    assert_eq!(t.by, member("a"));
    b.hand_in(0, 0, &["later"]);
    assert_eq!(b.next(), None, "one at a time");
    let settled = b.visible(7..10);
    assert_eq!(
        settled.answers,
        [
            (ticket(0, 1), Commit::Visible(vec![position(7)])),
            (ticket(1, 0), Commit::Visible(vec![position(8), position(9)])),
        ]
    );
    let at: Vec<_> = settled.marks.iter().map(|m| m.at.clone().unwrap().offset).collect();
    assert_eq!(at, [7, 8]);
    assert_eq!(b.held.is_complete(&part(0), 1), Some(true));
    assert_eq!(b.held.is_complete(&part(0), 0), Some(false));
}

#[test]
fn no_mark_goes_out_before_its_commit_is_visible() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    let (act, settled) = b.committer.next(&mut b.held, b.now);
    assert!(act.is_some() && settled.marks.is_empty());
    for ended in [Ended::Aborted { why: "x".into() }, Ended::Broken { why: "x".into() }] {
        let mut b = bench();
        b.hand_in(0, 0, &["one"]);
        b.next().unwrap();
        let (_, settled) = b.ended(ended);
        assert!(settled.marks.is_empty() && settled.answers.is_empty());
    }
}

#[test]
fn commits_keep_their_distance_but_for_what_is_urgent() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.next().unwrap();
    b.visible(0..1);
    b.hand_in(0, 1, &["two"]);
    assert_eq!((b.next(), b.committer.due()), (None, Some(b.now + APART)));
    b.now += APART;
    assert_eq!(values(&b.next().unwrap()), ["two"]);
    b.visible(1..2);
    b.hand_in(0, 2, &["three"]);
    let urgent = Completion { urgent: true, ..b.completion(0, 3, &["four"]) };
    let _ = b.committer.hand_in(ticket(0, 3), urgent, &b.held);
    assert_eq!(values(&b.next().unwrap()), ["three", "four"], "and takes along what waits");
}

#[test]
fn a_commit_that_took_long_is_followed_by_a_rest_where_more_than_a_few_wait() {
    let many = FEW as u64 + 1;
    for (wait, took, rest) in [
        (many, APART * 3, APART * 3),
        (many, Duration::from_secs(9), BREATH),
        (many - 1, APART * 3, Duration::ZERO),
    ] {
        let mut b = bench();
        b.hand_in(0, 0, &["slow"]);
        b.next().unwrap();
        for offset in 1..=wait {
            b.hand_in(0, offset, &["next"]);
        }
        b.now += took;
        b.visible(0..1);
        if rest > Duration::ZERO {
            assert_eq!((b.next(), b.committer.due()), (None, Some(b.now + rest)));
            b.now += rest;
        }
        assert_eq!(b.next().unwrap().outputs.len() as u64, wait);
    }
}

#[test]
fn what_waits_in_numbers_is_committed_without_a_rest() {
    let now = Instant::now();
    let (mut held, lease, offsets) = far_apart(WORTH as u64 + 1, now);
    let mut committer = Committer::new(ME, 0);
    let hand_in = |committer: &mut Committer, held: &Assignment, offset: u64| {
        let done = Completion { lease: lease.clone(), offset, outputs: vec![], urgent: false, mark: None };
        let _ = committer.hand_in(Ticket(offset), done, held);
    };
    hand_in(&mut committer, &held, offsets[0]);
    assert!(committer.next(&mut held, now).0.is_some());
    let _ = committer.ended(Ended::Visible(vec![]), &mut held, now + APART);
    for (n, offset) in offsets[1..].iter().enumerate() {
        hand_in(&mut committer, &held, *offset);
        let due = committer.due();
        assert_eq!(due.is_none(), n + 1 == WORTH, "{n}: {due:?}");
    }
    assert!(committer.next(&mut held, now + APART).0.is_some());
}

#[test]
fn a_batch_is_bounded_by_bytes_and_takes_one_whatever_its_size() {
    let mut b = bench();
    let large = "x".repeat(BATCH_BYTES - 10);
    let larger = "y".repeat(BATCH_BYTES + 10);
    b.hand_in(0, 0, &[&large]);
    b.hand_in(0, 1, &[&larger]);
    b.hand_in(0, 2, &["small"]);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        b.now += APART;
        sizes.push(b.next().unwrap().outputs.iter().map(Output::size).sum::<usize>());
        b.visible(0..1);
    }
    assert_eq!(sizes, [large.len(), larger.len(), 5]);
}

#[test]
fn p2_an_aborted_batch_is_made_again_and_nothing_is_called_complete() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.hand_in(0, 1, &["two"]);
    b.next().unwrap();
    b.hand_in(0, 2, &["three"]);
    b.ended(Ended::Aborted { why: "illegal generation".into() });
    assert_eq!(b.held.is_complete(&part(0), 0), Some(false));
    assert_eq!(b.next(), None, "not in a tight loop");
    b.now += REST;
    let t = b.next().unwrap();
    assert_eq!(values(&t), ["one", "two", "three"]);
    assert_eq!(offsets(&t), [(0, 3, vec![], by(ME, 2))]);
}

#[test]
fn p1_completions_under_a_lease_that_is_void_are_never_committed() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.hand_in(1, 0, &["two"]);
    b.next().unwrap();
    let (now, member) = (b.now, member("b"));
    // The session was lost while the transaction ran, and it is refused.
    let _ = b.held.said(Said::Assigned(vec![]), &member, now);
    b.ended(Ended::Aborted { why: "illegal generation".into() });
    b.now += REST;
    let (act, settled) = b.committer.next(&mut b.held, b.now);
    assert_eq!(act, None);
    assert_eq!(settled.answers, [(ticket(0, 0), Commit::Void), (ticket(1, 0), Commit::Void)]);
    let done = b.completion(0, 5, &["late"]);
    let settled = b.committer.hand_in(Ticket(9), done, &b.held);
    assert_eq!(settled.answers, [(Ticket(9), Commit::Void)]);
}

#[test]
fn a_record_handed_in_twice_is_committed_once() {
    let mut b = bench();
    b.hand_in(0, 4, &["one"]);
    b.hand_in(0, 4, &["again"]);
    let (act, settled) = b.committer.next(&mut b.held, b.now);
    assert_eq!(settled.answers, [(ticket(0, 4), Commit::Void)]);
    assert!(matches!(act, Some(Act::Commit(t)) if values(&t) == ["one"]));
}

#[test]
fn one_output_too_large_leaves_the_batch_and_the_rest_goes_on() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.hand_in(0, 1, &["two", "huge"]);
    b.hand_in(1, 0, &["three"]);
    b.next().unwrap();
    let (act, settled) = b.ended(Ended::TooLarge { output: 2 });
    assert_eq!((act, settled.answers), (None, vec![(ticket(0, 1), Commit::TooLarge { output: 1 })]));
    let t = b.next().unwrap();
    assert_eq!(values(&t), ["one", "three"]);
    assert_eq!(offsets(&t), [(0, 1, vec![], by(ME, 2)), (1, 1, vec![], by(ME, 2))]);
    b.visible(0..2);
    b.hand_in(0, 1, &["smaller"]);
    b.now += APART;
    assert_eq!(values(&b.next().unwrap()), ["smaller"]);
}

#[test]
fn p1_an_unanswered_commit_is_looked_up_only_behind_a_new_producer() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.hand_in(1, 3, &["two"]);
    let t = b.next().unwrap();
    assert_eq!(b.unknown(), [part(0), part(1)]);
    assert_eq!(b.next(), None);
    // One partition is enough: a transaction is visible as a whole.
    let settled = b.read_back(&[(0, None), (1, Some((t.offsets[1].1, t.offsets[1].2.clone())))]);
    assert_eq!(
        settled.answers,
        [
            (ticket(0, 0), Commit::Visible(vec![position(50)])),
            (ticket(1, 3), Commit::Visible(vec![position(51)])),
        ]
    );
    assert_eq!(settled.marks.len(), 2);
    assert_eq!(b.held.is_complete(&part(1), 3), Some(true));
}

#[test]
fn p2_an_unanswered_commit_that_did_not_happen_is_made_again() {
    let mut b = bench();
    b.hand_in(0, 0, &["zero"]);
    let first = b.next().unwrap();
    b.visible(0..1);
    b.hand_in(0, 1, &["one"]);
    b.now += APART;
    b.next().unwrap();
    b.unknown();
    let before = (first.offsets[0].1, first.offsets[0].2.clone());
    let settled = b.read_back(&[(0, Some(before))]);
    assert!(settled.answers.is_empty() && settled.marks.is_empty());
    b.now += REST;
    assert_eq!(values(&b.next().unwrap()), ["one"]);
}

#[test]
fn p1_what_another_owner_has_written_over_is_not_ours_to_report() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.next().unwrap();
    b.unknown();
    let theirs = Progress { base: 3, end: 9, holes: BTreeSet::from([3]) };
    let settled = b.read_back(&[(0, Some((3, metadata::write(&theirs, by(OTHER, 77)))))]);
    assert_eq!(settled.answers, [(ticket(0, 0), Commit::Void)]);
    assert!(settled.marks.is_empty());
    b.now += REST;
    assert_eq!(b.next(), None, "and never made again");
}

#[test]
fn a_commit_that_was_never_sent_needs_no_looking_up() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.next().unwrap();
    assert_eq!(b.ended(Ended::Broken { why: "fatal".into() }).0, Some(Act::Renew));
    assert_eq!(b.committer.renewed(&mut b.held, b.now), None);
    b.now += REST;
    assert_eq!(values(&b.next().unwrap()), ["one"]);
}

#[test]
fn p2_holes_that_cannot_be_written_down_wait_for_those_below() {
    let now = Instant::now();
    let (mut held, lease, offsets) = far_apart(2_000, now);
    let mut committer = Committer::new(ME, 0);
    let highest = offsets[1_999];
    let done = |offset| Completion {
        lease: lease.clone(),
        offset,
        outputs: vec![output("x")],
        urgent: true,
        mark: None,
    };
    let _ = committer.hand_in(Ticket(highest), done(highest), &held);
    let _ = committer.hand_in(Ticket(0), done(0), &held);
    let (act, _) = committer.next(&mut held, now);
    let Some(Act::Commit(t)) = act else { panic!("{act:?}") };
    assert_eq!((t.outputs.len(), t.offsets[0].1), (1, offsets[1]), "the lowest alone");
    let (_, settled) = committer.ended(Ended::Visible(vec![position(1)]), &mut held, now);
    assert_eq!(settled.answers[0].0, Ticket(0));
    // Once the others are complete, it goes too.
    for offset in &offsets[1..1_999] {
        let _ = committer.hand_in(Ticket(*offset), done(*offset), &held);
    }
    let (act, _) = committer.next(&mut held, now + APART);
    let Some(Act::Commit(t)) = act else { panic!("{act:?}") };
    assert_eq!((t.outputs.len(), t.offsets[0].1), (1_999, highest + 1));
}

#[test]
fn a_partition_that_is_crowded_hands_out_nothing_new() {
    let now = Instant::now();
    let (mut held, lease, offsets) = far_apart(900, now);
    assert!(held.room(&lease) > 1 << 39);
    let mut committer = Committer::new(ME, 0);
    let done =
        |offset| Completion { lease: lease.clone(), offset, outputs: vec![], urgent: true, mark: None };
    let _ = committer.hand_in(Ticket(1), done(offsets[899]), &held);
    assert!(committer.next(&mut held, now).0.is_some());
    let _ = committer.ended(Ended::Visible(vec![]), &mut held, now);
    // What would make one more hole waits; what closes one does not, or nothing would ever move.
    assert!(held.room(&lease) <= offsets[899] + 1 && held.room(&lease) > offsets[898]);
    for offset in &offsets[..500] {
        let _ = committer.hand_in(Ticket(*offset + 2), done(*offset), &held);
    }
    assert!(committer.next(&mut held, now).0.is_some());
    let _ = committer.ended(Ended::Visible(vec![]), &mut held, now);
    assert!(held.room(&lease) > offsets[899] + 1);
}

#[test]
fn an_abort_is_followed_by_a_rest_that_nothing_urgent_cuts_short() {
    let mut b = bench();
    let urgent = Completion { urgent: true, ..b.completion(0, 0, &["one"]) };
    let _ = b.committer.hand_in(ticket(0, 0), urgent, &b.held);
    b.next().unwrap();
    b.ended(Ended::Aborted { why: "illegal generation".into() });
    let urgent = Completion { urgent: true, ..b.completion(0, 1, &["two"]) };
    let _ = b.committer.hand_in(ticket(0, 1), urgent, &b.held);
    assert_eq!((b.next(), b.committer.due()), (None, Some(b.now + REST)));
    b.now += REST;
    assert_eq!(values(&b.next().unwrap()), ["one", "two"]);
}

#[test]
fn p2_one_output_that_never_goes_through_holds_up_no_other() {
    let mut b = bench();
    for offset in 0..8 {
        b.hand_in(0, offset, &[if offset == 5 { "poison" } else { "fine" }]);
    }
    let mut visible = BTreeSet::new();
    for _ in 0..60 {
        b.now += REST;
        let Some(t) = b.next() else { continue };
        if values(&t).contains(&"poison".to_owned()) {
            b.ended(Ended::Aborted { why: "the topic is gone".into() });
        } else {
            let settled = b.visible(0..t.outputs.len() as u64);
            visible.extend(settled.answers.into_iter().map(|(ticket, _)| ticket.0));
        }
    }
    assert_eq!(visible, BTreeSet::from([0, 1, 2, 3, 4, 6, 7]));
    assert!(b.committer.is_pending(&part(0)), "and it is not given up");
}

#[test]
fn what_is_put_back_whole_makes_no_transaction() {
    let now = Instant::now();
    let (mut held, lease, offsets) = far_apart(2_000, now);
    let mut committer = Committer::new(ME, 0);
    let highest = offsets[1_999];
    let done = Completion { lease, offset: highest, outputs: vec![output("x")], urgent: false, mark: None };
    let _ = committer.hand_in(Ticket(1), done, &held);
    let (act, settled) = committer.next(&mut held, now);
    assert!(act.is_none() && settled.answers.is_empty() && committer.is_pending(&part(0)));
}

#[test]
fn offsets_that_others_have_written_are_read_again() {
    let mut b = bench();
    b.hand_in(0, 0, &["one"]);
    b.next().unwrap();
    b.unknown();
    let theirs = Progress { base: 3, end: 9, holes: BTreeSet::from([3]) };
    let settled = b.read_back(&[(0, Some((3, metadata::write(&theirs, by(OTHER, 77)))))]);
    assert_eq!(settled.overwritten, [b.leases[0].clone()]);
    let todo = b.held.overwritten(&settled.overwritten, b.now);
    assert!(
        matches!(&todo[..], [Do::Tell(_), Do::Load(fresh)] if fresh.at == part(0) && fresh.epoch > b.leases[0].epoch)
    );
    assert!(!b.held.is_valid(&b.leases[0]));
}
