//! Flushes are the engine's price: work that goes on at once shares them.

use super::super::*;
use super::{done, output, specs};
use crate::engine::{Commit, Event};
use crate::task::Topic;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Appends, takes, admits and commits so many tasks, that many at once; the flushes it took.
async fn flushes(tasks: usize, at_once: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings::new(dir.path().join("data"));
    let (engine, handle) = open_with_handle(settings, specs(), Arc::new(Disk)).unwrap();
    let records = (0..tasks).map(|n| output("tasks", &n.to_string(), "x")).collect();
    engine.log.append(records).await.unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let before = handle.shared.flushes.load(Ordering::Relaxed);
    let mut jobs = tokio::task::JoinSet::new();
    let mut taken = 0;
    while taken < tasks {
        if jobs.len() == at_once {
            jobs.join_next().await.unwrap().unwrap();
        }
        let Event::Record(d) = group.next(true).await else { continue };
        taken += 1;
        let engine = engine.clone();
        jobs.spawn(async move {
            engine.ledger.admit(&d, &super::token(&d), None).await.unwrap();
            let key = String::from_utf8_lossy(d.record.key.as_deref().unwrap()).into_owned();
            let commit = engine.commits.commit(done(&d, vec![output("results", &key, "x")])).await;
            assert!(matches!(commit, Commit::Visible(_)));
        });
    }
    while let Some(job) = jobs.join_next().await {
        job.unwrap();
    }
    let flushes = handle.shared.flushes.load(Ordering::Relaxed) - before;
    let results: u64 = engine.log.ends(&Topic::new("results")).await.unwrap().iter().map(|e| e.next).sum();
    assert_eq!(results, tasks as u64);
    engine.operation.close().await;
    flushes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_alone_takes_two_flushes_and_tasks_at_once_share_theirs() {
    // One for its admission, one for its commit; joining the group is one more.
    let alone = flushes(40, 1).await;
    assert!((80..=82).contains(&alone), "{alone} flushes for 40 tasks, one by one");
    let together = flushes(640, 64).await;
    assert!(together < 640 / 2, "{together} flushes for 640 tasks, 64 at once");
}
