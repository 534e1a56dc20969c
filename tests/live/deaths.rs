//! Rows of the crash table that a real process can reach: it dies at a named place, and whoever comes after
//! it finishes. One outcome for each key, and every call is counted.
//!
//! Which test has which row is told by the crash table of `src/engine/distributed/mod.rs`.

use crate::fleet::{Fleet, Member, TAKEN_OVER, good, key_of, keys};
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use futures::StreamExt as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the process dies, the row, how often the model is asked in all, and how many calls the result owns
/// up to.
const PLACES: [(&str, u32, usize, usize); 11] = [
    ("task.delivered", 1, 1, 1),
    ("task.admitted", 2, 1, 1),
    // Started in the ledger, and not sent yet: counted as repeated all the same, for nobody can know.
    ("infer.started", 3, 1, 2),
    ("infer.sent", 3, 2, 2),
    ("infer.received", 4, 2, 2),
    ("infer.stored", 5, 1, 1),
    ("transaction.begun", 5, 1, 1),
    ("transaction.produced", 6, 1, 1),
    ("transaction.offsets", 7, 1, 1),
    ("transaction.committed", 8, 1, 1),
    ("commit.unmarked", 9, 1, 1),
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

async fn case((point, row, calls, told): (&'static str, u32, usize, usize)) {
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
    let of_k = |count| BTreeMap::from([("k".to_owned(), count)]);
    assert_eq!((fleet.calls(), fleet.told()), (of_k(calls), of_k(told)), "row {row}, {point}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_wherever_a_process_dies_the_next_one_finishes_and_every_call_is_counted() {
    futures::stream::iter(PLACES).map(case).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// Row 13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_a_process_that_was_stopped_for_longer_than_its_session_wakes_and_publishes_nothing_twice() {
    let mut fleet = Fleet::new(|asked| match asked.nth {
        // Longer than it takes to stop who asked, and not as long as it is stopped.
        0 => Reply::After(Duration::from_secs(8), Box::new(good())),
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

/// Row 14, the other end: one dies before its call, the next one behind its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_a_death_of_whoever_takes_a_parked_task_up_leaves_it_to_the_next_one() {
    let mut fleet = Fleet::new(|_| Reply::down()).await;
    let mut first = fleet.start().await;
    fleet.send(&["k"]);
    eventually("it is parked", SOON, || {
        let parked = fleet.records("retry.5s").len() + fleet.records("retry.30s").len();
        async move { (parked > 0).then_some(()) }
    })
    .await;
    assert!(first.process.stop(SOON).success(), "{}", first.process.words());
    let from = fleet.provider.asked().len();
    fleet.provider.now(|_| good());
    for point in ["task.admitted", "transaction.committed"] {
        let (_, said) = fleet.refused(&[("TIDEGATE_CRASH_AT", point)]);
        assert!(said.contains(&format!("crash point {point}")), "{said}");
    }
    let mut last = fleet.start().await;
    fleet.send(&["after"]);
    fleet.one_result_each(&keys(["after", "k"]), TAKEN_OVER).await;
    let asked: Vec<String> = fleet.provider.asked().iter().skip(from).map(key_of).collect();
    assert_eq!(asked, ["k", "after"], "once each, since it was parked");
    assert!(last.process.stop(SOON).success());
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

/// Row 23. Beside it three that are under way whenever it kills, twice, and one that comes while it runs alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_a_task_that_kills_its_process_again_and_again_is_buried_and_its_neighbours_are_not_blamed()
{
    const NEIGHBOURS: [&str; 3] = ["n1", "n2", "n3"];
    let mut fleet = Fleet::new(|_| Reply::Silent).await;
    let all = keys(NEIGHBOURS.into_iter().chain(["killer"]));
    fleet.place.apply(&fleet.place.command());
    fleet.send(&all.iter().map(String::as_str).collect::<Vec<_>>());
    for deaths in 1..=5 {
        let mut doomed = fleet.start().await;
        let provider = &fleet.provider;
        let under_way = || keys(provider.under_way().iter().map(key_of));
        if deaths <= 2 {
            eventually("all four are under way", TAKEN_OVER, || async { (under_way() == all).then_some(()) })
                .await;
        } else {
            // The neighbours are suspects too now: each runs alone, and is done.
            provider.now(|asked| if key_of(asked) == "killer" { Reply::Silent } else { good() });
            let asked = || provider.asked().iter().filter(|a| key_of(a) == "killer").count();
            eventually("it is asked for", TAKEN_OVER, || async { (asked() == deaths).then_some(()) }).await;
            let late = format!("late{deaths}");
            fleet.send(&[&late]);
            eventually("the late one has come", SOON, || async {
                doomed.api.task("ticket", &late).await.filter(|task| task["state"] == "running")
            })
            .await;
            // Long enough for a call, if it were let go.
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(under_way(), keys(["killer"]), "it runs alone");
            assert!(!fleet.calls().contains_key(&late), "{:?}", fleet.calls());
        }
        doomed.process.kill();
        eventually("its calls are cut off", SOON, || async { under_way().is_empty().then_some(()) }).await;
    }
    let mut last = fleet.start().await;
    let done: Vec<String> =
        NEIGHBOURS.into_iter().chain(["late3", "late4", "late5"]).map(str::to_owned).collect();
    let mut expected: BTreeMap<String, Vec<String>> =
        done.iter().map(|key| (key.clone(), vec!["accepted".to_owned()])).collect();
    expected.insert("killer".to_owned(), vec!["TG-crashes-worker".to_owned()]);
    eventually("each has its outcome", TAKEN_OVER, || async {
        (fleet.outcomes().len() == expected.len()).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fleet.outcomes(), expected, "{}", fleet.said());
    let letters = fleet.records("dead-letters");
    assert_eq!(letters[0].header("tidegate-detail"), "5 processes died of it");
    // Twice cut off beside the killer, and once more alone; who came late was asked for once.
    let times = |key: &String| if key.starts_with("late") { 1 } else { 3 };
    let mut calls: BTreeMap<String, usize> = done.iter().map(|key| (key.clone(), times(key))).collect();
    assert_eq!(fleet.told(), calls, "every call is owned up to");
    calls.insert("killer".to_owned(), 5);
    assert_eq!(fleet.calls(), calls);
    assert!(last.process.stop(SOON).success());
}
