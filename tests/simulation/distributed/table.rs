//! The table of crashes, row by row: a process dies, or a part is away, between two given steps; one
//! outcome comes of each key, and what was bought again is counted.
//!
//! Records that vanish (20) are in `vanished.rs`; parks, reviews, redrives, outcomes too large and two
//! versions (14, 15, 23 to 25) in `chains.rs`.

use super::caller::{Book, Call};
use super::cluster::{Cluster, virtual_clock};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate::engine::distributed::simulated::{CutOff, Faults, Point, Process};
use tidegate::engine::{Health, Output};
use tidegate::task::{Headers, Topic};

const CONFIGURATION: &str = "[tasks.copy]\n[engine]\npartitions = 2\n[worker]\nin_flight = 16\n";

pub(super) struct Row {
    pub(super) cluster: Cluster,
    book: Book,
}

impl Row {
    /// Two processes that have come to rest.
    pub(super) async fn new(seed: u64) -> Row {
        Row::of(seed, true).await
    }

    /// Of the stand-in, which makes calls, or of the real worker, which copies.
    async fn of(seed: u64, calls: bool) -> Row {
        virtual_clock();
        let book = Book::default();
        let mut cluster = Cluster::new(seed, CONFIGURATION, calls.then(|| book.clone()));
        cluster.start();
        cluster.start();
        // Settled: who has reached the ledger for one lease may judge.
        tokio::time::sleep(Duration::from_secs(12)).await;
        Row { cluster, book }
    }

    fn send(&self, key: &str, at: &str) {
        self.send_one_that("", key, at);
    }

    /// `does`: as `caller.rs` tells.
    pub(super) fn send_one_that(&self, does: &str, key: &str, at: &str) {
        let output = Output {
            topic: Topic::new("tasks.copy"),
            key: Some(at.to_owned().into()),
            value: Some(format!("{{\"n\":1,\"does\":\"{does}\"}}").into()),
            headers: Headers::default().with("idempotency-key", key.to_owned().into_bytes()),
            not_before: None,
        };
        self.cluster.world.append(vec![output]).unwrap();
    }

    /// Lets time pass; who is caught stays dead.
    pub(super) async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.cluster.bury();
        }
    }

    pub(super) fn outcomes(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for record in self.cluster.committed("results") {
            *count.entry(record.headers.text("tidegate-key").unwrap().to_owned()).or_default() += 1;
        }
        count
    }

    pub(super) fn calls(&self, key: &str) -> Vec<Call> {
        self.book.calls.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    /// Who has sent the first call of the key; at once when it has.
    async fn called(&self, key: &str) -> Process {
        for _ in 0..1_000 {
            if let Some(call) = self.calls(key).first() {
                return call.process;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no call of {key}\n{}", self.cluster.trace().join("\n"));
    }

    /// Whether the answer of its first call has come, and is stored, as its process knows.
    fn answer(&self, key: &str) -> (bool, bool) {
        let call = &self.calls(key)[0];
        (call.answered.is_some(), call.stored.is_some())
    }

    /// One process for each partition of what the group reads: nobody keeps two.
    fn start_others(&mut self) {
        for _ in 0..4 {
            self.cluster.start();
        }
    }

    /// Who has begun to read each partition of the tasks last, as the trace calls them.
    fn readers(&self) -> BTreeMap<String, String> {
        let mut readers = BTreeMap::new();
        for line in self.cluster.trace() {
            if let Some((by, at)) = line.split_once(" serves tasks.copy/") {
                let words = (at.split(' ').next().unwrap(), by.rsplit(' ').next().unwrap());
                readers.insert(words.0.to_owned(), words.1.to_owned());
            }
        }
        readers
    }

    /// The partition of its record goes to another process while the call of the key is under way.
    /// `meanwhile`: what else happens as soon as the call is sent, and to whom.
    async fn moves_in_mid_call(&mut self, key: &str, meanwhile: impl FnOnce(&Cluster, Process)) {
        self.send_one_that("slow", key, "a");
        let buyer = self.called(key).await;
        meanwhile(&self.cluster, buyer);
        let at = self.cluster.world.incomplete("worker", &Topic::new("tasks.copy")).remove(0).at;
        let before = self.cluster.trace().len();
        self.start_others();
        let (served, by_buyer) = (format!(" serves {}/{} ", at.topic, at.index), format!(" p{} ", buyer.0));
        let has_moved = |line: &String| line.contains(&served) && !line.contains(&by_buyer);
        while !self.cluster.trace()[before..].iter().any(has_moved) {
            let trace = self.cluster.trace().join("\n");
            assert_eq!(self.answer(key), (false, false), "it came before the partition moved\n{trace}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One outcome of the key, every record complete, and so many calls, all but the first counted.
    pub(super) fn ends(&self, key: &str, calls: usize) {
        let trace = self.cluster.trace().join("\n");
        assert_eq!(self.outcomes(), BTreeMap::from([(key.to_owned(), 1)]), "{trace}");
        for topic in ["tasks.copy", "retry.5s", "resume"] {
            let open = self.cluster.world.incomplete("worker", &Topic::new(topic));
            assert!(open.is_empty(), "never completed: {open:?}\n{trace}");
        }
        let decisions = self.cluster.world.incomplete("arbiter", &Topic::new("review.decisions"));
        assert!(decisions.is_empty() && self.cluster.items().is_empty(), "{decisions:?}\n{trace}");
        let made = self.calls(key);
        let times: Vec<u32> = made.iter().map(|c| c.times).collect();
        assert_eq!(times, (0..calls).map(|n| u32::try_from(n).unwrap()).collect::<Vec<_>>(), "{trace}");
    }
}

pub(super) fn on_virtual_time(row: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(row);
}

/// A process dies at `point`; the other one finishes, having bought `calls` answers in all.
fn dies_at(point: Point, calls: usize) {
    for seed in 1..6 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_trap(point);
            row.send("k", "a");
            row.pass(60).await;
            assert_eq!(row.cluster.processes().len(), 1, "nobody came by {point:?}");
            row.ends("k", calls);
        });
    }
}

#[test]
fn row_1_p1_p2_before_admission() {
    dies_at(Point::Delivered, 1);
}

#[test]
fn row_2_p1_p2_p3_after_admission_before_the_request() {
    dies_at(Point::Admitted, 1);
}

#[test]
fn row_3_p1_p2_p3_during_the_call() {
    dies_at(Point::Called, 2);
}

#[test]
fn row_4_p1_p2_p3_answer_received_and_not_stored() {
    dies_at(Point::Answered, 2);
}

#[test]
fn row_5_p1_p2_p3_answer_stored_and_not_produced() {
    dies_at(Point::Stored, 1);
}

#[test]
fn row_6_p1_p2_p3_produced_in_an_open_transaction() {
    dies_at(Point::Produced, 1);
}

#[test]
fn row_7_p1_p2_p3_offsets_sent_and_commit_not_sent() {
    dies_at(Point::OffsetsSent, 1);
}

#[test]
fn row_8_p1_p2_p3_commit_sent_and_the_process_dies_without_hearing_of_it() {
    dies_at(Point::Decided, 1);
}

#[test]
fn row_8_p1_p2_p3_commit_sent_and_its_reply_lost() {
    for (seed, faults) in (1..9).zip(
        [
            Faults { commit_reply_lost: 1.0, ..Faults::default() },
            Faults { commit_late: 1.0, ..Faults::default() },
        ]
        .into_iter()
        .cycle(),
    ) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_faults(faults);
            row.send("k", "a");
            row.pass(4).await;
            row.cluster.world.set_faults(Faults::default());
            row.pass(30).await;
            row.ends("k", 1);
            assert_eq!(row.cluster.processes().len(), 2);
        });
    }
}

#[test]
fn row_9_p1_p3_committed_and_the_mark_lost() {
    for seed in 1..6 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_trap(Point::Decided);
            row.send("k", "a");
            row.pass(60).await;
            assert!(row.cluster.open().contains("k"), "its close was never sent");
            // A copy that comes later stays silent: the claim is open, and its token complete.
            row.send("k", "b");
            row.pass(30).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn rows_10_and_11_p1_p3_copies_that_race_on_two_processes() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.start_others();
            row.pass(12).await;
            for at in ["a", "b", "c", "d", "e", "f"] {
                row.send("k", at);
            }
            let sent = row.cluster.committed("tasks.copy");
            let on: BTreeSet<String> = sent.iter().map(|r| r.position.at.index.to_string()).collect();
            let readers = row.readers();
            assert!(on.len() == 2 && readers.keys().eq(&on), "copies on {on:?}, read by {readers:?}");
            assert_ne!(readers["0"], readers["1"], "two processes take part");
            row.pass(30).await;
            row.ends("k", 1);
            assert_eq!(row.readers(), readers, "each has completed its own");
        });
    }
}

#[test]
fn row_12_p1_p3_revoked_in_the_middle_of_a_call_while_the_old_owner_lives() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.moves_in_mid_call("k", |_, _| {}).await;
            row.send_one_that("slow", "k", "b");
            row.pass(30).await;
            row.ends("k", 1);
            assert_eq!(row.cluster.processes().len(), 6, "the old owner lives");
        });
    }
}

#[test]
fn row_13_p1_p3_a_session_that_is_lost_in_the_middle_of_a_call() {
    // Told to the client; never told to it; taken for lost by the client alone.
    let ways = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)];
    for (seed, (hidden, membership_kept)) in (1..19).zip(ways.into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            let lost = Faults { session_lost: 1.0, hidden, membership_kept, ..Faults::default() };
            row.cluster.world.set_faults(lost);
            row.send("k", "a");
            row.send("k", "b");
            row.pass(3).await;
            row.cluster.world.set_faults(Faults::default());
            row.pass(60).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_13_p1_p2_p3_one_process_alone_is_stopped_or_cut_off_for_longer_than_its_session() {
    let all = [CutOff::Everything, CutOff::Broker, CutOff::Ledger].into_iter().cycle();
    for (seed, from) in (1..25).zip(all) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send("k", "a");
            row.send("k", "b");
            let buyer = row.called("k").await;
            row.cluster.world.cut_off(buyer, from, Duration::from_secs(13 + seed));
            row.pass(90).await;
            let calls = row.calls("k").len();
            // Who does not reach the broker alone stores its answer: it is not bought again.
            assert!(calls == 1 || (calls == 2 && from != CutOff::Broker), "{from:?}: {calls} calls");
            row.ends("k", calls);
            assert_eq!(row.cluster.processes().len(), 2, "it goes on");
        });
    }
}

#[test]
fn row_19_p1_p2_p3_a_call_to_the_client_hangs_until_the_watchdog_ends_the_process() {
    // That the watchdog counts only while a broker is reached is the real client's; what it says then, and what
    // comes of that, is here. Until then the process keeps its partitions: a client sends heartbeats all the same.
    for (seed, point) in
        (1..10).zip([Point::Produced, Point::OffsetsSent, Point::Decided].into_iter().cycle())
    {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_hang(point);
            row.send("k", "a");
            row.pass(15).await;
            let hangs = row.called("k").await;
            assert_eq!(row.outcomes().len(), usize::from(point == Point::Decided), "{point:?}");
            assert_eq!(row.cluster.end_those_gone().await, [], "it may still come back");
            row.pass(15).await;
            assert_eq!(row.cluster.end_those_gone().await, [hangs], "{point:?}");
            row.pass(60).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_16_p2_p3_while_the_ledger_is_away_nothing_is_begun() {
    for (seed, calls) in (1..13).zip([true, false].into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::of(seed, calls).await;
            row.cluster.store.set_away(true);
            tokio::time::sleep(Duration::from_millis(seed * 70)).await;
            row.send("k", "a");
            row.pass(15).await;
            let trace = row.cluster.trace().join("\n");
            assert!(row.calls("k").is_empty() && row.outcomes().is_empty(), "begun all the same\n{trace}");
            assert_eq!(row.cluster.world.incomplete("worker", &Topic::new("tasks.copy")).len(), 1, "{trace}");
            for process in row.cluster.processes() {
                let health = row.cluster.health(process);
                assert!(matches!(health, Health::Paused { .. }), "intake pauses: {health:?}");
            }
            row.cluster.store.set_away(false);
            row.pass(60).await;
            row.ends("k", usize::from(calls));
        });
    }
}

#[test]
fn row_17_p1_p2_p3_an_answer_that_comes_while_the_ledger_is_away_is_published_all_the_same() {
    for seed in 1..13 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send("k", "a");
            row.called("k").await;
            row.cluster.store.set_away(true);
            row.pass(15).await;
            let trace = row.cluster.trace().join("\n");
            assert_eq!(row.answer("k"), (true, false), "in hand, and nowhere else\n{trace}");
            assert_eq!(row.outcomes(), BTreeMap::from([("k".to_owned(), 1)]), "{trace}");
            assert!(row.cluster.open().contains("k"), "the ledger knows nothing of it");
            row.cluster.store.set_away(false);
            row.pass(5).await;
            assert!(!row.cluster.open().contains("k"), "it is told once it is back");
            row.send("k", "b");
            row.pass(60).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_18_p1_p2_a_ledger_that_forgets_a_claim_with_one_copy_of_its_record() {
    for seed in 1..13 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            let before = row.cluster.store.snapshot();
            row.send_one_that("slow", "k", "a");
            row.called("k").await;
            // In the call, about its end, and when all is done.
            tokio::time::sleep(Duration::from_millis(seed * 250)).await;
            row.cluster.store.set_away(true);
            assert_eq!(row.cluster.store.return_to(before), 1, "the claim is forgotten");
            row.pass(2).await;
            assert_eq!(row.cluster.open(), BTreeSet::new(), "nobody can have told it");
            row.cluster.store.set_away(false);
            row.pass(60).await;
            let trace = row.cluster.trace().join("\n");
            assert_eq!(row.outcomes(), BTreeMap::from([("k".to_owned(), 1)]), "{trace}");
            assert_eq!(row.cluster.world.incomplete("worker", &Topic::new("tasks.copy")), [], "{trace}");
        });
    }
}

#[test]
fn row_21_p1_p3_a_member_dies_or_its_session_is_over_while_a_revocation_waits_to_be_carried_out() {
    for (seed, dies) in (1..13).zip([true, false].into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send_one_that("slow", "k", "a");
            let buyer = row.called("k").await;
            let at = row.cluster.world.incomplete("worker", &Topic::new("tasks.copy")).remove(0).at;
            let (before, at) = (row.cluster.trace().len(), format!(" {}/{}", at.topic, at.index));
            // It is told what to give up, and nothing that it says of that arrives.
            row.cluster.world.cut_off(buyer, CutOff::Broker, Duration::from_secs(13 + seed));
            row.start_others();
            row.pass(5).await;
            let trace = row.cluster.trace();
            let (it, served, by_it) =
                (format!(" p{}-", buyer.0), format!(" serves{at} "), format!(" p{} ", buyer.0));
            let is_told = |line: &String| {
                let revoked = line.split_once(": revoked").filter(|_| line.contains(&it));
                revoked.is_some_and(|(_, parts)| parts.contains(&at))
            };
            assert!(trace[before..].iter().any(is_told), "it is not told\n{}", trace.join("\n"));
            let has_moved = |line: &String| line.contains(&served) && !line.contains(&by_it);
            let waits = row.cluster.world.is_member(buyer) && !trace[before..].iter().any(has_moved);
            assert!(waits, "nobody waits for it\n{}", trace.join("\n"));
            if dies {
                row.cluster.kill(buyer);
            }
            row.pass(60).await;
            row.ends("k", 1);
            assert!(row.cluster.trace()[before..].iter().any(has_moved), "another one has taken over");
            assert_eq!(row.cluster.processes().len(), if dies { 5 } else { 6 });
        });
    }
}

#[test]
fn row_22_p1_p3_offsets_lost_after_the_outcome() {
    for seed in 1..6 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send("k", "a");
            row.pass(10).await;
            for process in row.cluster.processes() {
                row.cluster.leave(process).await;
            }
            row.cluster.world.forget_offsets("worker");
            row.cluster.start();
            row.pass(30).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_26_p1_p3_after_a_ledger_was_away_for_longer_than_every_heartbeat_nobody_judges_too_soon() {
    for (seed, later) in (1..13).zip([0, 3, 6].into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            // Whoever has its partition now asks for the call of a process whose heartbeat has run out; that one
            // holds the answer, comes back within a lease behind all others, and stores it.
            row.moves_in_mid_call("k", |cluster, buyer| {
                cluster.store.set_away(true);
                cluster.world.cut_off(buyer, CutOff::Ledger, Duration::from_secs(25 + later));
            })
            .await;
            row.pass(24).await;
            let trace = row.cluster.trace().join("\n");
            assert_eq!((row.answer("k"), row.outcomes().len()), ((true, false), 0), "{trace}");
            row.cluster.store.set_away(false);
            row.pass(60).await;
            row.ends("k", 1);
            assert_eq!(row.cluster.processes().len(), 6, "all live");
        });
    }
}
