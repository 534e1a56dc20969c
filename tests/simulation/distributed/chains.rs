//! Rows of the table of crashes in which a task goes on as another record, or ends in another way than as a
//! result: parked, with a person, redriven, too large, deadly, or refused by a later version.

use super::cluster::{Cluster, virtual_clock};
use super::table::{Row, on_virtual_time};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate::engine::Output;
use tidegate::engine::distributed::simulated::Point;
use tidegate::outcome::Reason;
use tidegate::task::{Headers, Topic};
use tidegate::write::DeadLetter;

const COMMITS: [Point; 3] = [Point::Produced, Point::OffsetsSent, Point::Decided];

impl Row {
    async fn until(&mut self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        for _ in 0..6_000 {
            if is_so(&self.cluster) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.cluster.bury();
        }
        panic!("never: {what}\n{}", self.cluster.trace().join("\n"));
    }

    /// Generation and reason of each dead letter that is an outcome.
    fn deaths(&self) -> Vec<(u32, Option<Reason>)> {
        let token = |l: &DeadLetter| l.token.as_ref().map_or(u32::MAX, |t| t.generation);
        self.cluster.letters().iter().map(|l| (token(l), l.reason)).collect()
    }
}

#[test]
fn row_14_p1_p2_p3_who_parks_a_task_dies_and_one_token_of_it_lives() {
    for (seed, point) in (1..10).zip(COMMITS.into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_trap(point);
            row.send_one_that("parks", "k", "a");
            row.pass(90).await;
            assert_eq!(row.cluster.processes().len(), 1, "nobody came by {point:?}");
            row.send_one_that("parks", "k", "b");
            row.pass(20).await;
            assert_eq!(row.cluster.committed("retry.5s").len(), 1, "parked once");
            // The answer that it had before it was parked is not bought again.
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_14_p1_p2_p3_who_takes_up_a_parked_task_dies_and_its_source_is_trimmed_away() {
    let points = [Point::Delivered, Point::Admitted, Point::Produced, Point::OffsetsSent, Point::Decided];
    for (seed, point) in (1..11).zip(points.into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send_one_that("parks", "k", "a");
            row.until("parked", |c| !c.committed("retry.5s").is_empty()).await;
            for at in row.cluster.world.partitions(&Topic::new("tasks.copy")) {
                row.cluster.world.trim(&at, 1);
            }
            row.cluster.world.set_trap(point);
            row.pass(90).await;
            assert_eq!(row.cluster.processes().len(), 1, "nobody came by {point:?}");
            row.ends("k", 1);
            assert_eq!(row.cluster.letters().len(), 0, "its record was complete: no orphan");
        });
    }
}

#[test]
fn row_14_p1_p2_p3_a_task_is_handed_to_a_person_and_comes_back_while_processes_die() {
    for (seed, point) in (1..10).zip(COMMITS.into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.cluster.world.set_trap(point);
            row.send_one_that("asks", "k", "a");
            row.pass(60).await;
            row.send_one_that("asks", "k", "b");
            row.pass(10).await;
            let items = row.cluster.items();
            assert_eq!((items.len(), row.outcomes().len()), (1, 0), "{}", row.cluster.trace().join("\n"));
            row.cluster.start();
            row.pass(2).await;
            row.cluster.world.set_trap(point);
            let (item, at) = &items[0];
            row.cluster.approve(item, at, "ann");
            row.cluster.approve(item, at, "bob");
            row.pass(90).await;
            assert_eq!(row.cluster.processes().len(), 1, "nobody came by {point:?}");
            row.ends("k", 1);
        });
    }
}

#[test]
fn row_15_p1_a_dead_letter_that_is_redriven_twice_has_one_outcome_more_also_if_its_mark_was_lost() {
    let points = [None, Some(Point::Produced), Some(Point::OffsetsSent), Some(Point::Decided)];
    for (seed, point) in (1..13).zip(points.into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            point.into_iter().for_each(|point| row.cluster.world.set_trap(point));
            row.send_one_that("dies", "k", "a");
            row.until("buried", |c| !c.letters().is_empty()).await;
            row.pass(2).await;
            assert_eq!(row.cluster.open().contains("k"), point == Some(Point::Decided), "its mark was lost");
            let letter = row.cluster.letters().remove(0);
            row.cluster.redrive(&letter);
            // Whoever takes it up dies at the same point.
            row.cluster.start();
            point.into_iter().for_each(|point| row.cluster.world.set_trap(point));
            row.pass(60).await;
            row.cluster.redrive(&letter);
            row.send_one_that("dies", "k", "b");
            row.pass(60).await;
            row.ends("k", 0);
            assert_eq!(row.deaths(), [(0, Some(Reason::TemplateFailed))]);
            assert_eq!(row.calls("k#1").len(), 1, "generation 1 has bought its own answer, once");
            let result = row.cluster.committed("results").remove(0);
            assert_eq!(result.headers.text("tidegate-generation"), Some("1"));
        });
    }
}

#[test]
fn row_23_p1_p2_a_task_that_kills_its_process_runs_alone_and_is_buried_and_its_neighbours_are_not_blamed() {
    for seed in 1..5 {
        on_virtual_time(async {
            let mut row = Row::new(seed).await;
            row.send_one_that("kills", "deadly", "a");
            let neighbours: Vec<String> = (0..6).map(|n| format!("n{n}")).collect();
            neighbours.iter().for_each(|key| row.send_one_that("", key, key));
            for _ in 0..8 {
                row.pass(40).await;
                while row.cluster.processes().len() < 2 {
                    row.cluster.start();
                }
            }
            row.pass(60).await;
            assert_eq!(
                row.outcomes(),
                neighbours.iter().map(|key| (key.clone(), 1)).collect::<BTreeMap<_, _>>()
            );
            assert_eq!(
                row.deaths(),
                [(0, Some(Reason::CrashesWorker))],
                "{}",
                row.cluster.trace().join("\n")
            );
            let times: Vec<u32> = row.calls("deadly").iter().map(|c| c.times).collect();
            assert_eq!(times, [0, 1, 2, 3, 4], "two among others, three alone");
            let most = neighbours.iter().map(|key| row.calls(key).len()).max();
            assert!(most <= Some(3), "a neighbour died with it when it ran alone: {most:?}");
        });
    }
}

/// Processes of the real worker.
struct Workers {
    cluster: Cluster,
}

const ACCEPTS: &str = "[tasks.copy]\n[engine]\npartitions = 2\n[worker]\nin_flight = 16\n";
const REFUSES: &str =
    "[tasks.copy]\ninput = { text = \"string\" }\n[engine]\npartitions = 2\n[worker]\nin_flight = 16\n";

impl Workers {
    async fn new(seed: u64, configuration: &str) -> Workers {
        virtual_clock();
        let mut cluster = Cluster::new(seed, configuration, None);
        cluster.start();
        tokio::time::sleep(Duration::from_secs(12)).await;
        Workers { cluster }
    }

    fn send(&self, key: &str, bytes: usize) {
        let output = Output {
            topic: Topic::new("tasks.copy"),
            key: Some(key.to_owned().into()),
            value: Some(format!("{{\"n\":\"{}\"}}", "x".repeat(bytes)).into()),
            headers: Headers::default().with("idempotency-key", key.to_owned().into_bytes()),
            not_before: None,
        };
        self.cluster.world.append(vec![output]).unwrap();
    }

    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.cluster.bury();
        }
    }

    fn results(&self) -> Vec<String> {
        let keys = self.cluster.committed("results").into_iter();
        let mut keys: Vec<String> =
            keys.map(|r| r.headers.text("tidegate-key").unwrap().to_owned()).collect();
        keys.sort();
        keys
    }

    /// Key, reason and whether it is the outcome of its key, of every dead letter.
    fn letters(&self) -> Vec<(String, String, bool)> {
        let letters = self.cluster.committed("dead-letters").into_iter();
        let read = |r: tidegate::task::Record| {
            let text = |name: &str| r.headers.text(name).unwrap_or_default().to_owned();
            (text("tidegate-key"), text("tidegate-reason"), text("tidegate-is-outcome") == "yes")
        };
        letters.map(read).collect()
    }
}

#[test]
fn row_24_p1_p2_an_outcome_too_large_for_its_topic_becomes_a_smaller_one_and_its_batch_goes_on() {
    for (seed, point) in
        (1..9).zip([None, Some(COMMITS[0]), Some(COMMITS[1]), Some(COMMITS[2])].into_iter().cycle())
    {
        on_virtual_time(async {
            let mut row = Workers::new(seed, ACCEPTS).await;
            row.cluster.start();
            row.pass(2).await;
            row.cluster.world.set_limit(&Topic::new("results"), 8_000);
            point.into_iter().for_each(|point| row.cluster.world.set_trap(point));
            for n in 0..6 {
                row.send(&format!("small{n}"), 10);
            }
            row.send("large", 20_000);
            row.pass(60).await;
            assert_eq!(row.results(), (0..6).map(|n| format!("small{n}")).collect::<Vec<_>>());
            assert_eq!(row.letters(), [("large".to_owned(), "TG-outcome-too-large".to_owned(), true)]);
            assert!(row.cluster.world.incomplete("worker", &Topic::new("tasks.copy")).is_empty());
        });
    }
}

#[test]
fn row_24_p2_a_record_whose_dead_letter_fits_nowhere_waits_and_says_so_until_its_topic_takes_it() {
    for seed in 1..5 {
        on_virtual_time(async {
            let mut row = Workers::new(seed, ACCEPTS).await;
            row.cluster.world.set_limit(&Topic::new("results"), 64);
            row.cluster.world.set_limit(&Topic::new("dead-letters"), 64);
            row.send("large", 2_000);
            row.pass(60).await;
            assert_eq!((row.results(), row.letters()), (vec![], vec![]));
            let waits =
                |row: &Workers| row.cluster.processes().into_iter().find_map(|p| row.cluster.waits(p));
            let told = waits(&row).unwrap_or_default();
            assert!(told.contains("is too large for `dead-letters`: raise its limit"), "{told}");
            row.cluster.world.set_limit(&Topic::new("dead-letters"), 1 << 20);
            row.pass(40).await;
            assert_eq!(row.letters(), [("large".to_owned(), "TG-outcome-too-large".to_owned(), true)]);
            assert_eq!((row.results(), waits(&row)), (vec![], None));
            assert!(row.cluster.world.incomplete("worker", &Topic::new("tasks.copy")).is_empty());
        });
    }
}

#[test]
fn row_25_p1_p2_what_an_old_version_admitted_and_a_new_one_refuses_ends_as_the_refusal_and_once() {
    for (seed, point) in (1..7).zip([COMMITS[0], COMMITS[1]].into_iter().cycle()) {
        on_virtual_time(async {
            let mut row = Workers::new(seed, ACCEPTS).await;
            row.cluster.world.set_trap(point);
            row.send("k", 1);
            row.pass(1).await;
            assert!(row.cluster.processes().is_empty() && row.cluster.open().contains("k"), "admitted");
            row.cluster.upgrade(REFUSES);
            row.cluster.start();
            row.pass(60).await;
            assert_eq!(row.letters(), [("k".to_owned(), "TG-input-refused".to_owned(), true)]);
            assert!(row.cluster.open().is_empty(), "its claim is closed");
            // A copy, for the old version as for the new one.
            row.send("k", 1);
            row.pass(20).await;
            row.cluster.upgrade(ACCEPTS);
            row.cluster.start();
            row.send("k", 1);
            row.pass(60).await;
            assert_eq!((row.results().len(), row.letters().len()), (0, 1), "{:?}", row.letters());
        });
    }
}

#[test]
fn row_25_p1_p2_what_a_new_version_refuses_first_leaves_its_key_to_others() {
    for seed in 1..7 {
        on_virtual_time(async {
            let mut row = Workers::new(seed, REFUSES).await;
            row.cluster.world.set_trap(Point::Produced);
            row.send("k", 1);
            row.pass(1).await;
            assert!(row.cluster.processes().is_empty(), "refused, and not yet buried");
            row.cluster.upgrade(ACCEPTS);
            row.cluster.start();
            row.pass(60).await;
            assert_eq!(row.letters(), [("k".to_owned(), "TG-refused-before".to_owned(), false)]);
            row.send("k", 1);
            row.pass(20).await;
            assert_eq!((row.results(), row.letters().len()), (vec!["k".to_owned()], 1));
        });
    }
}
