//! A thread of the engine that panics ends the engine for all, with a reason; nobody hangs.

use super::super::simulated::{Simulated, Trap};
use super::super::*;
use super::{done, next_record, output, quick, specs};
use crate::engine::{Commit, Event, Health};
use crate::task::Topic;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A hang is a failure.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.unwrap_or_else(|_| panic!("hangs: {what}"))
}

async fn gone(engine: &Engine) -> String {
    let mut health = engine.operation.health();
    let ended = soon("health", health.wait_for(|h| matches!(h, Health::Gone { .. }))).await.unwrap().clone();
    let Health::Gone { why } = ended else { panic!() };
    why
}

/// Everything new, from about now on.
async fn refuses(engine: &Engine) {
    let refused = async { while engine.log.append(vec![output("tasks", "late", "x")]).await.is_ok() {} };
    soon("a refusal", refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_writer_ends_the_engine_and_answers_everyone() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let kept = engine.log.append(vec![output("tasks", "kept", "x")]).await.unwrap();
    let d = next_record(&mut group).await;
    *disk.faults.trap.lock().unwrap() = Some(Trap::WriteLog);
    // Some of these are in the writer's hands, the others wait for it.
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..50 {
        let log = engine.log.clone();
        calls.spawn(async move { log.append(vec![output("tasks", &n.to_string(), "x")]).await.is_err() });
    }
    assert!(soon("appends", calls.join_all()).await.into_iter().all(|refused| refused));
    let why = gone(&engine).await;
    assert!(why.contains("writer") && why.contains("start"), "{why}");
    assert_eq!(soon("a commit", engine.commits.commit(done(&d, Vec::new()))).await, Commit::Void);
    soon("the end", engine.operation.close()).await;
    assert_eq!(gone(&engine).await, why, "the reason stays");
    drop((group, engine));
    let engine = open(quick(1 << 20), specs(), disk).unwrap();
    assert_eq!(engine.log.read(kept[0].clone(), 1).await.unwrap()[0].position, kept[0]);
    assert!(engine.log.append(vec![output("tasks", "after", "x")]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_the_state_is_folded_ends_the_engine_and_keeps_what_was_acknowledged() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 14), specs(), disk.clone()).unwrap();
    // A fold that fails opens the state anew.
    disk.faults.state_fails.store(true, Ordering::SeqCst);
    *disk.faults.trap.lock().unwrap() = Some(Trap::OpenState);
    let mut acknowledged = Vec::new();
    for n in 0..100 {
        match soon("an append", engine.log.append(vec![output("tasks", &n.to_string(), &"x".repeat(2000))]))
            .await
        {
            Ok(at) => acknowledged.extend(at),
            Err(_) => break,
        }
    }
    let why = gone(&engine).await;
    disk.faults.state_fails.store(false, Ordering::SeqCst);
    assert!(why.contains("fold"), "{why}");
    refuses(&engine).await;
    soon("the end", engine.operation.close()).await;
    drop(engine);
    let engine = open(quick(1 << 14), specs(), disk).unwrap();
    assert!(acknowledged.len() > 5);
    for at in acknowledged {
        assert_eq!(engine.log.read(at.clone(), 1).await.unwrap()[0].position, at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_groups_thread_reaches_its_member() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    engine.log.append(vec![output("tasks", "one", "x")]).await.unwrap();
    engine.operation.close().await;
    drop(engine);
    // Nothing is in memory: the group's thread has to read the log.
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    *disk.faults.trap.lock().unwrap() = Some(Trap::ReadLog);
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let told = async {
        loop {
            match group.next(true).await {
                Event::Health(Health::Gone { why }) => return why,
                Event::Record(d) => panic!("{d:?}"),
                _ => {}
            }
        }
    };
    let why = soon("the group", told).await;
    assert!(why.contains("worker"), "{why}");
    refuses(&engine).await;
    soon("the end", engine.operation.close()).await;
}
