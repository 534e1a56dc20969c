//! Rows of the crash table that a real process can reach: it dies at a named place, and whoever comes after
//! it finishes. One outcome for each key, and every call is counted.
//!
//! Rows that are not here, and why:
//!
//! | rows | |
//! |---|---|
//! | 8, reply lost on its way | no place in the process: a proxy loses the answer, in `kafka_outcomes.rs` |
//! | 12 | partitions move under running calls in `rolling.rs` |
//! | 16, 17, 26 | the ledger is away in `outages.rs` |
//! | 18 | needs a Redis that forgets what it acknowledged, which this one does not; the simulation has one |
//! | 19, 21 | nothing outside librdkafka makes its calls hang, or hides a lost session; the committer's and the assignment's own tests |
//! | 20, 22 | offsets and records are tampered with in `bad_input.rs` |
//! | 24 | nothing dies: the committer's own tests, and `kafka_log.rs` |
//! | 25 | needs two versions of the binary |

use crate::fleet::{Fleet, Member, TAKEN_OVER, good, keys};
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use futures::StreamExt as _;
use serde_json::json;
use std::time::Duration;

/// Where the process dies, the row, and how often the model is asked in all.
const PLACES: [(&str, u32, usize); 11] = [
    ("task.delivered", 1, 1),
    ("task.admitted", 2, 1),
    // Started in the ledger, and not sent yet: counted as repeated all the same, for nobody can know.
    ("infer.started", 3, 1),
    ("infer.sent", 3, 2),
    ("infer.received", 4, 2),
    ("infer.stored", 5, 1),
    ("transaction.begun", 5, 1),
    ("transaction.produced", 6, 1),
    ("transaction.offsets", 7, 1),
    ("transaction.committed", 8, 1),
    ("commit.unmarked", 9, 1),
];
/// Side by side: most of each case is waiting until the dead one is given up.
const AT_ONCE: usize = 6;

/// Dies at `point`, by its own hand.
async fn dies(member: &mut Member, point: &str) {
    let process = &mut member.process;
    let began = std::time::Instant::now();
    while process.ended().is_none() {
        assert!(began.elapsed() < SOON, "`{point}` was never reached: {}", process.words());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(process.words().contains(&format!("crash point {point}")), "{point}: {}", process.words());
}

async fn case((point, row, calls): (&'static str, u32, usize)) {
    let mut fleet = Fleet::new(|_| good()).await;
    let mut doomed = fleet.start_with(&[("TIDEGATE_CRASH_AT", point)]).await;
    fleet.send(&["k"]);
    dies(&mut doomed, point).await;
    let next = fleet.start().await;
    fleet.one_result_each(&keys(["k"]), TAKEN_OVER).await;
    // A copy finds it done, also where the mark was lost.
    let sender = fleet.sender();
    sender.task("k", 1);
    sender.flush();
    eventually(&format!("{point}: the copy is complete"), SOON, || async {
        (next.api.metric("tidegate_duplicates_total").await >= 1.0).then_some(())
    })
    .await;
    fleet.one_result_each(&keys(["k"]), SOON).await;
    let asked = fleet.calls();
    assert_eq!(asked.get("k"), Some(&calls), "row {row}, {point}: {asked:?}");
    // `infer.started` owns up to one more than there was.
    let told = fleet.told()["k"];
    assert!(told == calls || (point == "infer.started" && told == 2), "row {row}, {point}: told {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_wherever_a_process_dies_the_next_one_finishes_and_every_call_is_counted() {
    futures::stream::iter(PLACES).map(case).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// Row 13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_a_process_that_was_stopped_for_longer_than_its_session_wakes_and_publishes_nothing_twice() {
    let mut fleet = Fleet::new(|asked| match asked.nth {
        0 => Reply::After(Duration::from_secs(3), Box::new(good())),
        _ => good(),
    })
    .await;
    let mut zombie = fleet.start().await;
    fleet.send(&["k"]);
    let provider = &fleet.provider;
    eventually("the model is asked", SOON, || async { (!provider.asked().is_empty()).then_some(()) }).await;
    zombie.process.signal("STOP");
    let mut second = fleet.start().await;
    fleet.one_result_each(&keys(["k"]), TAKEN_OVER).await;
    zombie.process.signal("CONT");
    // It has an answer in hand, and a transaction to make of it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    fleet.send(&["after"]);
    fleet.one_result_each(&keys(["after", "k"]), TAKEN_OVER).await;
    assert_eq!((fleet.calls()["k"], fleet.told()["k"]), (2, 2), "asked again, and counted");
    assert_eq!(fleet.calls()["after"], 1);
    assert!(zombie.process.ended().is_none(), "it lives on: {}", zombie.process.words());
    assert!(second.process.stop(SOON).success());
    assert!(zombie.process.stop(SOON).success());
}

/// Row 14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_death_after_the_commit_that_parks_leaves_one_live_token() {
    let mut fleet = Fleet::new(|_| Reply::down()).await;
    let mut doomed = fleet.start_with(&[("TIDEGATE_CRASH_AT", "transaction.committed")]).await;
    fleet.send(&["k"]);
    dies(&mut doomed, "transaction.committed").await;
    let parked: usize = ["5s", "30s"].iter().map(|t| fleet.records(&format!("retry.{t}")).len()).sum();
    assert_eq!((parked, fleet.outcomes().len()), (1, 0), "it is parked: {}", fleet.said());
    fleet.provider.now(|_| good());
    let mut next = fleet.start().await;
    fleet.one_result_each(&keys(["k"]), TAKEN_OVER).await;
    assert!(next.process.stop(SOON).success());
}

/// Row 15, with the closing mark lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_dead_letter_whose_mark_was_lost_is_redriven_once_however_often_it_is_asked_for() {
    let mut fleet = Fleet::new(|_| {
        let body = json!({ "error": { "message": "not acceptable", "type": "invalid_request_error" } });
        Reply::Fails(400, &[], body)
    })
    .await;
    let mut doomed = fleet.start_with(&[("TIDEGATE_CRASH_AT", "commit.unmarked")]).await;
    fleet.send(&["k"]);
    dies(&mut doomed, "commit.unmarked").await;
    assert_eq!(fleet.outcomes()["k"], ["TG-payload-refused"]);
    fleet.provider.now(|_| good());
    let mut next = fleet.start().await;
    let url = next.api.url("");
    for _ in 0..2 {
        let args = ["--url", &url, "dead-letters", "redrive", "--key", "k"];
        let (code, said, problem) = fleet.place.tool(&args);
        assert_eq!(code, 0, "{said}{problem}");
    }
    let task = next.api.until("ticket", "k", "done").await;
    eventually("generation 1 has its result", SOON, || async {
        next.api.task("ticket", "k").await.filter(|t| t["generation"] == 1 && t["outcome"] == "result")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let outcomes = fleet.outcomes();
    assert_eq!(outcomes["k"], ["accepted", "TG-payload-refused"], "{task}");
    let results = fleet.records("results");
    assert_eq!((results.len(), results[0].header("tidegate-generation")), (1, "1"));
    assert!(next.process.stop(SOON).success());
}
