//! The table of crashes, row by row: a process dies, or a part is away, between two given steps; one
//! outcome comes of each key, and what was bought again is counted.
//!
//! Records that vanish (20) are in `vanished.rs`; parks, reviews, redrives, outcomes too large and two
//! versions (14, 15, 23 to 25) in `chains.rs`.

use super::caller::{Book, Call};
use super::cluster::{Cluster, virtual_clock};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate::engine::Output;
use tidegate::engine::distributed::simulated::{CutOff, Faults, Point};
use tidegate::task::{Headers, Topic};

const CONFIGURATION: &str = "[tasks.copy]\n[engine]\npartitions = 2\n[worker]\nin_flight = 16\n";

pub(super) struct Row {
    pub(super) cluster: Cluster,
    book: Book,
}

impl Row {
    /// Two processes that have come to rest.
    pub(super) async fn new(seed: u64) -> Row {
        virtual_clock();
        let book = Book::default();
        let mut cluster = Cluster::new(seed, CONFIGURATION, Some(book.clone()));
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
            for at in ["a", "b", "c", "d", "e", "f"] {
                row.send("k", at);
            }
            row.pass(30).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_12_p1_p3_revoked_in_the_middle_of_a_call_while_the_old_owner_lives() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send("k", "a");
            row.send("k", "b");
            tokio::time::sleep(Duration::from_millis(60)).await;
            // Two more than there are partitions: some have to let go.
            row.cluster.start();
            row.cluster.start();
            row.pass(30).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn rows_13_and_21_p1_p3_a_session_that_is_lost_in_the_middle_of_a_call() {
    for (seed, hidden) in (1..13).zip([0.0, 1.0].into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_faults(Faults { session_lost: 1.0, hidden, ..Faults::default() });
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
            while row.calls("k").is_empty() {
                row.pass(0).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let buyer = row.calls("k")[0].process;
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
    // What the decisions see of it: no answer, and then a process that dies. The watchdog itself, and that a
    // client goes on sending heartbeats meanwhile, are the client's; here its member stays in the group.
    for (seed, point) in
        (1..10).zip([Point::Produced, Point::OffsetsSent, Point::Decided].into_iter().cycle())
    {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_hang(point);
            row.send("k", "a");
            row.pass(30).await;
            let hangs = row.calls("k")[0].process;
            assert_eq!(row.outcomes().len(), usize::from(point == Point::Decided), "{point:?}");
            row.cluster.kill(hangs);
            row.pass(60).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn rows_16_and_17_p2_p3_the_ledger_goes_away_before_admission_or_under_a_call() {
    for seed in 1..13 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_faults(Faults { ledger_away: 1.0, ..Faults::default() });
            tokio::time::sleep(Duration::from_millis(seed * 70)).await;
            row.send("k", "a");
            row.pass(4).await;
            row.cluster.world.set_faults(Faults::default());
            row.pass(60).await;
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_18_p1_p2_a_ledger_that_forgets_with_one_copy_of_the_record() {
    for seed in 1..13 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_faults(Faults {
                ledger_away: 0.7,
                ledger_forgets: 1.0,
                ..Faults::default()
            });
            row.send("k", "a");
            row.pass(8).await;
            row.cluster.world.set_faults(Faults::default());
            row.pass(60).await;
            assert_eq!(
                row.outcomes(),
                BTreeMap::from([("k".to_owned(), 1)]),
                "{}",
                row.cluster.trace().join("\n")
            );
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
fn row_26_p3_a_ledger_that_is_away_for_longer_than_every_heartbeat() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send("k", "a");
            tokio::time::sleep(Duration::from_millis(40)).await;
            row.cluster.ledger_away_for(Duration::from_secs(25)).await;
            row.pass(60).await;
            row.ends("k", 1);
        });
    }
}
