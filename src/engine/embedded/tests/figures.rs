//! The engine's own figures, one JSON line each; small by default, so that they always run.
//!
//! `TIDEGATE_FIGURES_TASKS` tasks per line, `TIDEGATE_FIGURES_GB` of log for recovery.

use super::super::*;
use super::{done, output, specs};
use crate::engine::{Commit, Event};
use crate::task::Topic;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn wide() -> Vec<TopicSpec> {
    specs().into_iter().map(|s| TopicSpec { partitions: 8, ..s }).collect()
}

fn value() -> String {
    "x".repeat(1024)
}

/// Append, deliver, admit, commit with 1 KiB each; so many at once.
async fn copy(dir: &Path, tasks: u64, at_once: usize) -> (f64, f64) {
    let settings = EmbeddedSettings::new(dir.join(format!("copy-{at_once}")));
    let (engine, handle) = open_with_handle(settings, wide(), Arc::new(Disk)).unwrap();
    let began = Instant::now();
    let mut jobs = tokio::task::JoinSet::new();
    let feeding = engine.clone();
    jobs.spawn(async move {
        let batch = at_once.min(500) as u64;
        for n in 0..tasks.div_ceil(batch) {
            let records = (0..batch).map(|i| output("tasks", &format!("{n}-{i}"), &value())).collect();
            feeding.log.append(records).await.unwrap();
        }
    });
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let total = tasks.div_ceil(at_once.min(500) as u64) * at_once.min(500) as u64;
    let mut taken = 0;
    while taken < total {
        if jobs.len() > at_once {
            jobs.join_next().await.unwrap().unwrap();
        }
        if let Event::Record(d) = group.next().await {
            taken += 1;
            let engine = engine.clone();
            jobs.spawn(async move {
                engine.ledger.admit(&d, &super::token(&d), None).await.unwrap();
                let key = String::from_utf8_lossy(d.record.key.as_deref().unwrap()).into_owned();
                let commit = engine.commits.commit(done(&d, vec![output("results", &key, &value())])).await;
                assert!(matches!(commit, Commit::Visible(_)));
            });
        }
    }
    while jobs.join_next().await.is_some() {}
    let seconds = began.elapsed().as_secs_f64();
    let flushes = handle.shared.flushes.load(std::sync::atomic::Ordering::Relaxed);
    engine.operation.close().await;
    (total as f64 / seconds, flushes as f64 / total as f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_per_second_and_flushes_per_task() {
    let dir = tempfile::tempdir().unwrap();
    for at_once in [1, 32, 512] {
        let tasks = number("TIDEGATE_FIGURES_TASKS", 300);
        let tasks = if at_once == 1 { tasks / 20 + 1 } else { tasks };
        let (per_second, flushes) = copy(dir.path(), tasks, at_once).await;
        println!(
            "{{\"figure\":\"copy\",\"at_once\":{at_once},\"tasks_per_s\":{per_second:.0},\"flushes_per_task\":{flushes:.3}}}"
        );
        assert!(per_second > 0.0 && flushes > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_a_directory_takes_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = number("TIDEGATE_FIGURES_GB", 0) * 1_000_000_000;
    let settings = || EmbeddedSettings::new(dir.path().join("data"));
    let engine = open(settings(), wide(), Arc::new(Disk)).unwrap();
    while engine.operation.storage().await.log_bytes <= bytes {
        for _ in 0..8 {
            engine
                .log
                .append((0..500).map(|n| output("tasks", &n.to_string(), &value())).collect())
                .await
                .unwrap();
        }
    }
    // As after a kill: nothing is folded at the end.
    let log = engine.operation.storage().await;
    std::mem::forget(engine);
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(dir.path().join("data")).unwrap() {
        let file = file.unwrap();
        let to = copy.join(file.file_name());
        // The log is only read: a second name for it will do. The state is written.
        if file.file_name().to_string_lossy().ends_with(".log") {
            std::fs::hard_link(file.path(), to).unwrap();
        } else {
            std::fs::copy(file.path(), to).unwrap();
        }
    }
    let began = Instant::now();
    let engine = open(EmbeddedSettings::new(&copy), wide(), Arc::new(Disk)).unwrap();
    let ready = began.elapsed();
    println!(
        "{{\"figure\":\"recovery\",\"log_bytes\":{},\"ready_ms\":{:.1}}}",
        log.log_bytes,
        ready.as_secs_f64() * 1e3
    );
    assert!(ready < Duration::from_secs(2));
    engine.operation.close().await;
}
