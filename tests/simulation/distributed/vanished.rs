//! Row 20 of the table of crashes: source records vanish under an open claim. The real worker finds the
//! tasks that they began and buries each once, as `orphaned`; nothing is concluded from a complete origin.

use super::cluster::{Cluster, jump, virtual_clock};
use super::table::on_virtual_time;
use super::unlucky::Unlucky;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate::dedupe::{Entry, Fence, Phase};
use tidegate::engine::distributed::simulated::{CutOff, Faults, Point};
use tidegate::engine::{Health, Output};
use tidegate::task::{
    Fingerprint, Headers, Origin, Partition, Position, PrintRule, ScopedKey, Timestamp, Topic,
};

const CONFIGURATION: &str = "[tasks.copy]\n[engine]\npartitions = 2\n[worker]\nin_flight = 16\n";

struct Lossy {
    cluster: Cluster,
    /// What of each partition has been sent so far.
    sent: BTreeMap<Partition, u64>,
}

impl Lossy {
    /// Two processes of the real worker; nothing was ever committed.
    async fn fresh(seed: u64) -> Lossy {
        virtual_clock();
        let mut cluster = Cluster::new(seed, CONFIGURATION, None);
        cluster.start();
        cluster.start();
        tokio::time::sleep(Duration::from_secs(2)).await;
        Lossy { cluster, sent: BTreeMap::new() }
    }

    /// Two processes of the real worker; each partition has an offset of ours.
    async fn new(seed: u64) -> Lossy {
        let mut lossy = Lossy::fresh(seed).await;
        for n in 0..8 {
            lossy.send(&format!("before{n}"));
        }
        lossy.pass(10).await;
        assert_eq!((lossy.results().len(), lossy.sent.len()), (8, 2));
        lossy
    }

    fn send(&mut self, key: &str) -> Position {
        let output = Output {
            topic: Topic::new("tasks.copy"),
            key: Some(key.to_owned().into()),
            value: Some("{\"n\":1}".into()),
            headers: Headers::default().with("idempotency-key", key.to_owned().into_bytes()),
            not_before: None,
        };
        let position = self.cluster.world.append(vec![output]).unwrap().remove(0);
        self.sent.insert(position.at.clone(), position.offset + 1);
        position
    }

    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.cluster.bury();
        }
    }

    /// Tasks are admitted, and whoever works on them dies at `point` of its next commit.
    async fn dies_with(&mut self, point: Point, keys: usize) -> BTreeMap<String, String> {
        self.cluster.world.set_trap(point);
        let sent = (0..keys).map(|n| format!("k{n}")).map(|key| (key.clone(), self.send(&key).to_string()));
        let sent: BTreeMap<String, String> = sent.collect();
        while self.cluster.bury().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    }

    /// All that was sent so far.
    fn trim(&self) {
        self.sent.iter().for_each(|(at, end)| self.cluster.world.trim(at, *end));
    }

    fn results(&self) -> BTreeSet<String> {
        let results = self.cluster.committed("results").into_iter();
        let keys: Vec<String> = results.map(|r| r.headers.text("tidegate-key").unwrap().to_owned()).collect();
        let distinct: BTreeSet<String> = keys.iter().cloned().collect();
        assert_eq!(keys.len(), distinct.len(), "P1: {keys:?}\n{}", self.trace());
        distinct
    }

    /// Key and source of every dead letter, each of them the outcome of its key, `orphaned`.
    fn orphans(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for letter in self.cluster.committed("dead-letters") {
            let text = |name: &str| letter.headers.text(name).unwrap_or_default().to_owned();
            assert_eq!(text("tidegate-reason"), "TG-orphaned", "{}", self.trace());
            assert_eq!(
                (text("tidegate-is-outcome"), text("tidegate-generation")),
                ("yes".into(), "0".into())
            );
            assert_eq!((&letter.key, &letter.value), (&None, &None), "they are lost");
            let twice = found.insert(text("tidegate-key"), text("tidegate-source"));
            assert_eq!(twice, None, "P1: {} was buried twice\n{}", text("tidegate-key"), self.trace());
        }
        found
    }

    /// Every one of these has one outcome, as a result or as an orphan under its own coordinates, nothing
    /// is left open, and the partitions are read on.
    async fn ends(&mut self, sent: &BTreeMap<String, String>, orphans: std::ops::RangeInclusive<usize>) {
        let (results, buried, trace) = (self.results(), self.orphans(), self.trace());
        assert!(orphans.contains(&buried.len()), "{} orphans of {}\n{trace}", buried.len(), sent.len());
        for (key, source) in &buried {
            assert_eq!(sent.get(key), Some(source), "{key}\n{trace}");
            assert!(!results.contains(key), "P1: {key} has a result and was buried\n{trace}");
        }
        assert_eq!(self.cluster.open(), BTreeSet::new(), "claims are still open\n{trace}");
        let after = (0..8).map(|n| format!("after{n}"));
        for key in after.clone().chain(sent.keys().cloned()) {
            self.send(&key);
        }
        self.pass(30).await;
        let trace = self.trace();
        for key in after {
            assert!(self.results().contains(&key), "P2: nothing became of {key}\n{trace}");
        }
        assert_eq!(self.orphans(), buried, "a copy that comes later is silent\n{trace}");
        assert_eq!(self.cluster.world.incomplete("worker", &Topic::new("tasks.copy")), []);
    }

    fn trace(&self) -> String {
        self.cluster.trace().join("\n")
    }
}

#[test]
fn row_20_p1_p2_tasks_whose_records_were_trimmed_away_are_buried_once() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            row.trim();
            row.pass(60).await;
            row.ends(&sent, 1..=12).await;
        });
    }
}

#[test]
fn row_20_p1_p2_tasks_whose_records_were_trimmed_away_before_anything_was_committed_are_buried_once() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Lossy::fresh(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            let at = row.cluster.world.partitions(&Topic::new("tasks.copy"));
            assert!(at.iter().any(|at| row.cluster.world.offset("worker", at).is_none()), "{}", row.trace());
            row.trim();
            row.pass(60).await;
            row.ends(&sent, 1..=12).await;
        });
    }
}

#[test]
fn row_20_p1_a_burial_that_dies_between_two_steps_buries_none_twice_and_forgets_none() {
    for (seed, point) in (1..).zip([Point::Produced, Point::OffsetsSent, Point::Decided].repeat(3)) {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            row.trim();
            row.cluster.world.set_trap(point);
            row.cluster.start();
            row.pass(40).await;
            assert_eq!(row.cluster.processes().len(), 1, "nobody came by {point:?}\n{}", row.trace());
            row.cluster.start();
            row.pass(60).await;
            if point == Point::Decided {
                // Its marks died with it: the claims stay open, and are nobody's orphans.
                let (results, orphans, open) = (row.results(), row.orphans(), row.cluster.open());
                assert!(!orphans.is_empty() && !open.is_empty(), "{}", row.trace());
                assert!(open.iter().all(|key| orphans.contains_key(key) || results.contains(key)));
            } else {
                row.ends(&sent, 1..=12).await;
            }
        });
    }
}

#[test]
fn row_20_p1_a_complete_origin_is_nobodys_orphan_although_its_mark_was_lost() {
    for seed in 1..6 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            row.dies_with(Point::Decided, 24).await;
            row.trim();
            row.pass(60).await;
            let (results, orphans, open) = (row.results(), row.orphans(), row.cluster.open());
            let lost: Vec<&String> = open.intersection(&results).collect();
            assert!(!lost.is_empty(), "no close was lost\n{}", row.trace());
            assert_eq!(lost.len(), open.len(), "open, without an outcome\n{}", row.trace());
            assert!(results.iter().all(|key| !orphans.contains_key(key)), "{}", row.trace());
        });
    }
}

#[test]
fn row_20_p1_p2_the_ledger_is_away_and_the_partition_is_lost_while_orphans_are_looked_for() {
    let lost = Faults { session_lost: 0.5, hidden: 0.5, ..Faults::default() };
    for (seed, faults) in (1..17).zip([lost, Faults { reply_lost: 0.3, ..lost }].into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            row.trim();
            row.cluster.start();
            // Also when it takes over what the dead one held.
            row.cluster.ledger_away_for(Duration::from_secs(seed * 2)).await;
            row.cluster.world.set_faults(faults);
            row.pass(20).await;
            row.cluster.world.set_faults(Faults::default());
            row.pass(90).await;
            row.ends(&sent, 1..=12).await;
        });
    }
}

#[test]
fn row_20_p1_p2_a_topic_that_was_made_anew_buries_what_the_old_one_left_and_is_read_from_its_beginning() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let mut sent = row.dies_with(Point::Produced, 12).await;
            for process in row.cluster.processes() {
                row.cluster.kill(process);
            }
            row.cluster.world.make_anew(&Topic::new("tasks.copy"));
            row.pass(15).await;
            for n in 0..2 {
                let key = format!("anew{n}");
                sent.insert(key.clone(), row.send(&key).to_string());
            }
            row.cluster.start();
            row.cluster.start();
            row.pass(60).await;
            assert!(row.results().contains("anew0") && row.results().contains("anew1"));
            row.ends(&sent, 1..=12).await;
            for (at, end) in &row.sent {
                let committed = row.cluster.world.offset("worker", at);
                assert!(committed.is_some_and(|base| base <= *end), "{committed:?} of {end}");
            }
        });
    }
}

#[test]
fn row_20_p2_thousands_of_orphans_among_tens_of_thousands_of_open_claims_are_found_by_pages() {
    const OTHERS: u64 = 30_000;
    const ORPHANS: u64 = 2_500;
    on_virtual_time(async {
        let mut row = Lossy::new(1).await;
        for process in row.cluster.processes() {
            row.cluster.leave(process).await;
        }
        let claim = |at: &Partition, offset: u64, hop: u32| Entry {
            generation: 0,
            origin: Origin { position: Position { at: at.clone(), offset }, stamp: Timestamp(1) },
            hop,
            print: Fingerprint { rule: PrintRule::Whole, digest: [0; 32] },
            fence: Fence(1),
            decider: None,
            phase: Phase::Open,
            slots: BTreeMap::new(),
            since: Timestamp(1),
            changed: Timestamp(1),
        };
        let (at, end) = row.sent.pop_first().unwrap();
        let key = |name: &str, n: u64| ScopedKey::new("", "copy", &format!("{name}{n:05}"));
        for n in 0..OTHERS {
            // Some are parked, and some lie elsewhere.
            let elsewhere = Partition { topic: Topic::new("tasks.other"), index: 0 };
            let other = if n % 2 == 0 { claim(&at, end + n % ORPHANS, 1) } else { claim(&elsewhere, n, 0) };
            row.cluster.store.keep(&key("other", n), other);
        }
        let mut expected = BTreeMap::new();
        let (mut last, mut sent) = (end, 0);
        while last < end + ORPHANS {
            sent += 1;
            let position = row.send(&format!("lost{sent}"));
            if position.at == at {
                last = position.offset + 1;
                let name = key("orphan", position.offset).key.to_string();
                expected.insert(name, position.to_string());
                row.cluster.store.keep(&key("orphan", position.offset), claim(&at, position.offset, 0));
            }
        }
        row.cluster.world.trim(&at, last);
        row.cluster.start();
        row.pass(60).await;
        assert_eq!(row.orphans(), expected);
        assert!(row.cluster.world.offset("worker", &at).is_some_and(|base| base >= last));
    });
}

#[test]
fn row_20_p1_p2_a_broker_that_leads_no_more_says_an_end_too_low_and_nothing_is_buried_or_run_again() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            for process in row.cluster.processes() {
                row.cluster.kill(process);
            }
            for at in row.sent.keys() {
                let base = row.cluster.world.offset("worker", at).unwrap();
                row.cluster.world.say_end(at, Some(base - 1));
            }
            row.pass(15).await;
            let process = row.cluster.start();
            row.pass(40).await;
            assert_eq!(row.orphans(), BTreeMap::new(), "their records are there\n{}", row.trace());
            let health = row.cluster.health(process);
            assert!(matches!(&health, Health::Partly { why } if why.contains("asked again")), "{health:?}");
            row.sent.keys().for_each(|at| row.cluster.world.say_end(at, None));
            row.pass(40).await;
            assert_eq!(row.cluster.health(process), Health::Well);
            assert!(sent.keys().all(|key| row.results().contains(key)), "{}", row.trace());
            row.ends(&sent, 0..=0).await;
        });
    }
}

#[test]
fn row_20_p1_p2_a_log_that_was_cut_short_loses_what_was_cut_off_although_other_records_take_its_place() {
    for seed in 1..9 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let mut sent = row.dies_with(Point::Produced, 12).await;
            for process in row.cluster.processes() {
                row.cluster.kill(process);
            }
            for at in row.sent.keys() {
                let base = row.cluster.world.offset("worker", at).unwrap();
                row.cluster.world.cut_short(at, base - 1);
            }
            row.pass(15).await;
            // It hears where the log ends, and has to wait for the ledger to say which tasks were lost.
            let process = row.cluster.start();
            row.cluster.world.cut_off(process, CutOff::Ledger, Duration::from_secs(20));
            row.pass(10).await;
            let lost: BTreeSet<String> = sent.values().cloned().collect();
            for n in 0..24 {
                let key = format!("instead{n}");
                sent.insert(key.clone(), row.send(&key).to_string());
            }
            let anew: BTreeSet<String> = (0..24).map(|n| sent[&format!("instead{n}")].clone()).collect();
            assert!(anew.intersection(&lost).count() > 0, "none lies where another lay\n{}", row.trace());
            row.pass(90).await;
            let orphans = row.orphans();
            assert!(!orphans.is_empty() && orphans.keys().all(|key| key.starts_with('k')), "{}", row.trace());
            row.ends(&sent, 1..=12).await;
        });
    }
}

#[test]
fn p1_p2_a_partition_that_was_refused_is_read_by_itself_once_it_is_right() {
    on_virtual_time(async {
        virtual_clock();
        let mut row = Lossy { cluster: Cluster::new(1, CONFIGURATION, None), sent: BTreeMap::new() };
        for n in 0..8 {
            row.send(&format!("old{n}"));
        }
        jump(8 * 24 * 3_600_000);
        let process = row.cluster.start();
        row.pass(70).await;
        let health = row.cluster.health(process);
        assert!(matches!(&health, Health::Partly { why } if why.contains("older than")), "{health:?}");
        assert_eq!(row.results(), BTreeSet::new());
        // An operator deletes what is old.
        row.trim();
        let sent: BTreeMap<String, String> =
            (0..8).map(|n| (format!("new{n}"), row.send(&format!("new{n}")).to_string())).collect();
        row.pass(40).await;
        assert_eq!(row.cluster.health(process), Health::Well);
        assert_eq!(row.results(), sent.keys().cloned().collect());
    });
}

#[test]
fn row_20_p2_orphans_whose_dead_letters_are_too_large_wait_and_say_so_until_their_topic_takes_them() {
    let letters = Topic::new("dead-letters");
    for seed in 1..5 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            for process in row.cluster.processes() {
                row.cluster.kill(process);
            }
            row.cluster.world.set_limit(&letters, 64);
            row.cluster.world.make_anew(&Topic::new("tasks.copy"));
            let process = row.cluster.start();
            row.pass(90).await;
            let waits = row.cluster.waits(process).unwrap_or_default();
            assert!(waits.contains("too large for their topic, raise its limit"), "{waits}\n{}", row.trace());
            assert_eq!(row.orphans(), BTreeMap::new());
            row.cluster.world.set_limit(&letters, 1 << 20);
            row.pass(40).await;
            assert_eq!(row.cluster.waits(process), None);
            row.ends(&sent, 1..=12).await;
        });
    }
}

#[test]
fn row_20_p2_a_search_that_panics_is_told_and_tried_again_while_the_lease_lives() {
    for seed in 1..5 {
        on_virtual_time(async {
            let mut row = Lossy::new(seed).await;
            let sent = row.dies_with(Point::Produced, 12).await;
            for process in row.cluster.processes() {
                row.cluster.kill(process);
            }
            row.trim();
            row.pass(15).await;
            row.cluster.between = Unlucky::before;
            let process = row.cluster.start();
            row.pass(10).await;
            let waits = row.cluster.waits(process).unwrap_or_default();
            assert!(waits.contains("has panicked"), "{waits}\n{}", row.trace());
            row.pass(60).await;
            assert_eq!(row.cluster.waits(process), None);
            row.ends(&sent, 1..=12).await;
        });
    }
}
