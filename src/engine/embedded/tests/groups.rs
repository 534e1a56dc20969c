//! What groups hand out, when, and what the limits of topics do to a commit.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, quiet, roomy, specs};
use crate::engine::{AppendError, Commit, Output};
use crate::task::{Timestamp, Topic};
use std::time::{Duration, Instant};

fn engine() -> Engine {
    open(quick(1 << 20), specs(), Simulated::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_partition_come_in_order_and_each_once_however_many_there_are() {
    let engine = engine();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    for n in 0..40 {
        let batch = (0..50).map(|i| output("tasks", &format!("n{n}i{i}"), "x")).collect();
        engine.log.append(batch).await.unwrap();
    }
    let mut next = [0, 0];
    for _ in 0..2000 {
        let d = next_record(&mut group).await;
        let at = &d.record.position;
        assert_eq!(at.offset, next[at.at.index as usize]);
        next[at.at.index as usize] += 1;
    }
    assert!(quiet(&mut group).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_record_comes_when_its_time_has_come_and_not_before() {
    let engine = engine();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let due = Timestamp::now().plus(Duration::from_millis(400));
    let far = Timestamp::now().plus(Duration::from_secs(3600));
    let parked = |key: &str, at| Output { not_before: Some(at), ..output("tasks", key, "x") };
    engine
        .log
        .append(vec![parked("far", far), parked("due", due), output("tasks", "now", "x")])
        .await
        .unwrap();
    assert_eq!(next_record(&mut group).await.record.key.as_deref(), Some(&b"now"[..]));
    let began = Instant::now();
    assert_eq!(next_record(&mut group).await.record.key.as_deref(), Some(&b"due"[..]));
    assert!(Timestamp::now() >= due && began.elapsed() < Duration::from_secs(2));
    assert!(quiet(&mut group).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_topic_delivers_nothing_until_it_is_let_go() {
    let engine = engine();
    let (tasks, review) = (Topic::new("tasks"), Topic::new("review"));
    let mut group = engine.groups.join("worker", &[tasks.clone(), review]);
    engine.log.append((0..9).map(|i| output("tasks", &i.to_string(), "x")).collect()).await.unwrap();
    let _ = next_record(&mut group).await;
    group.hold(&tasks, true);
    engine.log.append(vec![output("review", "r", "x")]).await.unwrap();
    assert_eq!(next_record(&mut group).await.record.position.at.topic.as_str(), "review");
    assert!(quiet(&mut group).await);
    group.hold(&tasks, false);
    for _ in 0..8 {
        assert_eq!(next_record(&mut group).await.record.position.at.topic, tasks);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_held_topic_with_all_that_may_be_read_ahead_keeps_nothing_from_the_others() {
    let engine = open(quick(64 << 20), roomy(), Simulated::new()).unwrap();
    let (tasks, review) = (Topic::new("tasks"), Topic::new("review"));
    let value = "x".repeat(256 << 10);
    // 50 MiB: more than is read ahead of a whole group.
    for n in 0..20 {
        let batch = (0..10).map(|i| output("tasks", &format!("n{n}i{i}"), &value)).collect();
        engine.log.append(batch).await.unwrap();
    }
    let mut group = engine.groups.join("worker", &[tasks.clone(), review]);
    let mut seen = vec![next_record(&mut group).await.record.position.clone()];
    // Long enough that nothing more is read ahead.
    tokio::time::sleep(Duration::from_millis(700)).await;
    group.hold(&tasks, true);
    engine.log.append(vec![output("review", "r", "x")]).await.unwrap();
    assert_eq!(next_record(&mut group).await.record.position.at.topic.as_str(), "review");
    assert!(quiet(&mut group).await);
    group.hold(&tasks, false);
    for _ in 1..200 {
        seen.push(next_record(&mut group).await.record.position.clone());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 200);
    assert!(quiet(&mut group).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_is_too_large_commits_nothing_of_its_record_and_names_itself() {
    let engine = engine();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![output("tasks", "a", "x")]).await.unwrap();
    let d = next_record(&mut group).await;
    let outputs = vec![output("results", "a", "fits"), output("results", "a", &"x".repeat(5000))];
    assert_eq!(engine.commits.commit(done(&d, outputs)).await, Commit::TooLarge { output: 1 });
    assert!(!engine.commits.is_complete(&d.record.position));
    let ends = engine.log.ends(&Topic::new("results")).await.unwrap();
    assert_eq!(ends.iter().map(|e| e.next).sum::<u64>(), 0);
    assert!(matches!(
        engine.commits.commit(done(&d, vec![output("results", "a", "small")])).await,
        Commit::Visible(_)
    ));
    let refused =
        engine.log.append(vec![output("tasks", "b", "x"), output("tasks", "c", &"x".repeat(9999))]).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { index: 1, limit: 4096, .. })), "{refused:?}");
    let unknown = engine.log.append(vec![output("nowhere", "b", "x")]).await;
    assert_eq!(unknown, Err(AppendError::NoSuchTopic(Topic::new("nowhere"))));
    assert!(quiet(&mut group).await, "a refused batch leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_finds_the_first_record_of_a_time() {
    let engine = engine();
    let mut stamps = Vec::new();
    for n in 0..20 {
        let at = engine.log.append(vec![output("tasks", "same", &n.to_string())]).await.unwrap();
        stamps.push((at[0].clone(), engine.log.read(at[0].clone(), 1).await.unwrap()[0].stamp));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let at = stamps[0].0.at.clone();
    for (position, stamp) in &stamps {
        let first = stamps.iter().find(|(_, s)| s >= stamp).unwrap().0.offset;
        assert_eq!(engine.log.since(&at, *stamp).await.unwrap(), first, "{position}");
    }
    assert_eq!(engine.log.since(&at, Timestamp(0)).await.unwrap(), 0);
    assert_eq!(engine.log.since(&at, Timestamp(i64::MAX)).await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_again_gets_what_is_incomplete_and_the_old_lease_is_void() {
    let engine = engine();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![output("tasks", "a", "x")]).await.unwrap();
    let old = next_record(&mut group).await;
    drop(group);
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let new = next_record(&mut group).await;
    assert_eq!(old.record.position, new.record.position);
    assert!(old.nonce != new.nonce && old.lease != new.lease);
    assert_eq!(engine.commits.commit(done(&old, Vec::new())).await, Commit::Void);
    assert!(matches!(engine.commits.commit(done(&new, Vec::new())).await, Commit::Visible(_)));
}
